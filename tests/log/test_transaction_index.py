"""The transaction index: written at each marker of an abort, and built again from the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla.log.config import LogConfig
from ottla.log.files import OsFiles
from ottla.log.indexes import AbortedTransaction, decode_aborted
from ottla.log.memory_files import MemoryFiles
from ottla.log.partition_log import PartitionLog
from ottla.log.recovery import load
from ottla.records.batch import CONTROL, TRANSACTIONAL, iterate_headers, read_header
from ottla.records.builder import BatchBuilder
from ottla.records.markers import Marker, read_marker
from tests.log.writing import NOW, last_of_each_producer, new_log, open_log, save, sync

GOLDEN = Path(__file__).parents[1] / "data" / "segments" / "goldtx-0"
INDEX = "root/t-0/00000000000000000000.txnindex"
ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"


def write(log: PartitionLog, producer_id: int, sequence: int, *, marker: bytes = b"") -> int:
    """Append a batch of a transaction, or its marker."""
    builder = BatchBuilder()
    if marker:
        builder.append(NOW, marker, b"\0\0\0\0\0\x03", None, 1 << 30)
        attributes, sequence = TRANSACTIONAL | CONTROL, -1
    else:
        builder.append(NOW, b"k", b"v", None, 1 << 30)
        attributes = TRANSACTIONAL
    data = builder.build(0, None, producer_id, 0, sequence, attributes)
    return log.append(data, read_header(data))


def with_two_aborts() -> tuple[PartitionLog, MemoryFiles]:
    log, files = new_log()
    write(log, 7, 0)  # 0
    write(log, 8, 0)  # 1
    write(log, 7, 1, marker=ABORT)  # 2, while that of 8 is open
    write(log, 9, 0)  # 3
    write(log, 9, 1, marker=COMMIT)  # 4
    write(log, 8, 1, marker=ABORT)  # 5
    sync(log)
    return log, files


ABORTED = [AbortedTransaction(7, 0, 2, 1), AbortedTransaction(8, 1, 5, 6)]


def aborted_in(files: MemoryFiles) -> list[AbortedTransaction]:
    return decode_aborted(files.read(INDEX) or b"", INDEX)


def test_aborts_are_indexed_with_the_last_stable_offset_that_they_leave() -> None:
    log, files = with_two_aborts()
    log.close()
    assert aborted_in(files) == ABORTED


def test_a_log_without_aborts_has_no_transaction_index() -> None:
    log, files = new_log()
    write(log, 7, 0)
    write(log, 7, 1, marker=COMMIT)
    log.close()
    assert files.read(INDEX) is None


def test_after_a_crash_aborts_are_indexed_again() -> None:
    _, files = with_two_aborts()
    cut = files.after_power_cut()
    open_log(cut).close()
    assert aborted_in(cut) == ABORTED


def test_behind_a_recovery_point_only_what_follows_is_indexed_again() -> None:
    log, files = new_log()
    write(log, 7, 0)
    write(log, 7, 1, marker=ABORT)
    save(log, files)
    write(log, 7, 2)
    write(log, 7, 3, marker=ABORT)
    sync(log)
    cut = files.after_power_cut()
    again = open_log(cut, recovery_point=2)
    again.close()
    assert aborted_in(cut) == [AbortedTransaction(7, 0, 1, 2), AbortedTransaction(7, 2, 3, 4)]


def test_a_damaged_index_is_built_again_after_a_crash() -> None:
    log, files = with_two_aborts()
    save(log, files)
    files.write(INDEX, b"\xff" * 34)
    cut = files.after_power_cut()
    open_log(cut, recovery_point=6).close()
    assert aborted_in(cut) == ABORTED


def test_an_open_transaction_holds_back_the_last_stable_offset() -> None:
    log, _ = new_log()
    write(log, 7, 0)
    sync(log)
    assert log.last_stable_offset == 0
    write(log, 7, 1, marker=COMMIT)
    sync(log)
    assert log.last_stable_offset == log.high_watermark == 2


def test_kafka_s_transaction_index_and_snapshot_are_built_from_its_log(tmp_path: Path) -> None:
    name = "00000000000000000000.log"
    (tmp_path / name).write_bytes((GOLDEN / name).read_bytes())
    recovered = load(OsFiles(), str(tmp_path), LogConfig(), 0, 0)
    for path, content in recovered.segments[0].indexes():
        assert content == (GOLDEN / Path(path).name).read_bytes(), path
    [snapshot] = [
        path for path in GOLDEN.glob("*.snapshot") if int(path.stem) == recovered.next_offset
    ]
    ours, theirs = recovered.producers.snapshot(), snapshot.read_bytes()
    assert last_of_each_producer(ours) == last_of_each_producer(theirs)
    recovered.segments[0].close()


@pytest.mark.parametrize(("offset", "is_abort"), [(3, False), (7, True), (11, False)])
def test_kafka_s_markers_are_read(offset: int, is_abort: bool) -> None:
    data = (GOLDEN / "00000000000000000000.log").read_bytes()
    for header in iterate_headers(data):
        if header.base_offset == offset:
            assert read_marker(data, header) == Marker(is_abort, 0)
        else:
            assert header.is_control == (header.base_offset in (3, 7, 11))
