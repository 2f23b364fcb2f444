"""What is found after a crash: all that was confirmed, and never half a batch."""

from __future__ import annotations

import pytest

from ottla.errors import CorruptLog
from ottla.log.config import LogConfig
from ottla.log.memory_files import MemoryFiles
from ottla.log.producer_state import Duplicate
from ottla.records.batch import read_header
from tests.log.writing import append, batch, new_log, open_log, sync, values_of

LOG = "root/t-0/00000000000000000000.log"


def written(*values: bytes, config: LogConfig | None = None) -> MemoryFiles:
    """Return the files of a log with one batch for each value, that was never closed."""
    log, files = new_log(config)
    for value in values:
        append(log, value)
    sync(log)
    return files


def with_content(files: MemoryFiles, path: str, content: bytes) -> MemoryFiles:
    files.write(path, content)
    return files


SIZE = len(batch(b"abc"))


@pytest.mark.parametrize("left", range(1, SIZE))
def test_a_torn_last_batch_is_cut_off_wherever_it_is_torn_and_told(left: int) -> None:
    files = written(b"abc", b"def", b"ghi")
    content = files.read(LOG) or b""
    log = open_log(with_content(files, LOG, content[: 2 * SIZE + left]))
    assert values_of(log) == [b"abc", b"def"]
    assert log.cut is not None
    assert (log.cut.path, log.cut.position, log.cut.size) == (LOG, 2 * SIZE, left)
    assert f"cut off {left} bytes at byte {2 * SIZE}" in str(log.cut)
    assert files.read(LOG) == content[: 2 * SIZE]
    assert append(log, b"new") == 2


@pytest.mark.parametrize("at", range(SIZE))
def test_a_last_batch_with_a_flipped_bit_is_never_given_out(at: int) -> None:
    files = written(b"abc", b"def")
    content = bytearray(files.read(LOG) or b"")
    content[SIZE + at] ^= 0x40
    try:
        log = open_log(with_content(files, LOG, bytes(content)))
    except CorruptLog as error:
        assert error.position >= SIZE
        return
    # The base offset and the leader epoch stand outside of the checksum. An offset that is too
    # large is a gap, as compaction leaves them; Kafka takes it as well.
    assert values_of(log)[:1] == [b"abc"]
    if log.cut is None:
        assert at < 8 or 12 <= at < 16
        assert values_of(log) == [b"abc", b"def"]
    else:
        assert values_of(log) == [b"abc"]


def test_zeros_behind_the_last_batch_are_cut_off() -> None:
    files = written(b"abc")
    log = open_log(with_content(files, LOG, (files.read(LOG) or b"") + bytes(4096)))
    assert values_of(log) == [b"abc"]
    assert log.cut is not None
    assert log.cut.size == 4096


def test_damage_that_has_records_of_another_segment_behind_it_is_an_error_and_nothing_is_cut() -> (
    None
):
    config = LogConfig(segment_bytes=2 * SIZE)
    files = written(b"abc", b"def", b"ghi", b"jkl", config=config)
    content = bytearray(files.read(LOG) or b"")
    content[SIZE + 70] ^= 1
    with_content(files, LOG, bytes(content))
    with pytest.raises(CorruptLog) as caught:
        open_log(files, config)
    assert (caught.value.path, caught.value.position) == (LOG, SIZE)
    assert "records behind the damage" in str(caught.value)
    assert files.read(LOG) == bytes(content)


def test_damage_in_what_had_been_stored_is_an_error_even_at_the_end_and_nothing_is_cut() -> None:
    files = written(b"abc", b"def", b"ghi")
    content = bytearray(files.read(LOG) or b"")
    content[SIZE + 70] ^= 1
    with_content(files, LOG, bytes(content))
    with pytest.raises(CorruptLog) as caught:
        open_log(files, recovery_point=2)
    assert (caught.value.path, caught.value.position) == (LOG, SIZE)
    assert "stored safely" in str(caught.value)
    assert files.read(LOG) == bytes(content)
    assert values_of(open_log(files, recovery_point=1)) == [b"abc"]


def test_every_power_cut_keeps_what_was_synced_and_the_epoch_grows() -> None:
    config = LogConfig(segment_bytes=3 * SIZE)
    log, files = new_log(config)
    for number in range(12):
        append(log, b"%3d" % number)
        if number % 4 == 3:
            sync(log)
        found = open_log(files.after_power_cut(), config)
        synced = number + 1 - (number + 1) % 4
        assert [int(value) for value in values_of(found)] == list(range(synced))
        assert found.leader_epoch == (1 if synced else 0)


def test_epochs_tell_where_a_crash_was() -> None:
    files = written(b"abc", b"def")
    log = open_log(files)
    append(log, b"ghi")
    sync(log)
    again = open_log(files)
    assert again.leader_epoch == 2
    assert [again.end_of_epoch(epoch) for epoch in (0, 1, 2, 3)] == [
        (0, 2),
        (1, 3),
        (2, 3),
        (-1, -1),
    ]


def test_indexes_that_are_missing_or_wrong_are_built_again() -> None:
    config = LogConfig(index_interval_bytes=1)
    log, files = new_log(config)
    for number in range(20):
        append(log, b"%d" % number, timestamp_ms=1000 + number)
    log.close()
    index, time_index = LOG.replace(".log", ".index"), LOG.replace(".log", ".timeindex")
    good = files.read(index), files.read(time_index)
    files.remove(index)
    files.write(time_index, b"\xff" * 120)
    again = open_log(files, config)
    assert again.offset_at(1013) == (13, 1013)
    again.close()
    assert (files.read(index), files.read(time_index)) == good


def test_producers_are_known_again_from_the_records() -> None:
    log, files = new_log()
    data = batch(b"a", b"b", producer=(7, 1, 0))
    log.append(data, read_header(data))
    sync(log)
    again = open_log(files.after_power_cut())
    assert again.check_producer(read_header(data)) == Duplicate(
        0, 1, read_header(data).max_timestamp
    )


def test_producers_of_segments_before_the_recovery_point_are_known_again() -> None:
    config = LogConfig(segment_bytes=SIZE)
    log, files = new_log(config)
    batches = [batch(b"abc", producer=(7, 0, number)) for number in range(4)]
    for data in batches:
        log.append(data, read_header(data))
    sync(log)
    for recovery_point in range(5):
        again = open_log(files.after_power_cut(), config, recovery_point=recovery_point)
        # A snapshot has the last batch of each producer, as Kafka's has.
        assert isinstance(again.check_producer(read_header(batches[-1])), Duplicate)


def test_only_what_is_behind_the_recovery_point_is_checked() -> None:
    config = LogConfig(segment_bytes=2 * SIZE)
    files = written(b"abc", b"def", b"ghi", config=config)
    content = bytearray(files.read(LOG) or b"")
    content[70] ^= 1
    with_content(files, LOG, bytes(content))
    log = open_log(files, config, recovery_point=2)
    assert log.log_end_offset == 3
    with pytest.raises(CorruptLog):
        open_log(files, config, recovery_point=1)


def test_snapshots_from_behind_the_end_are_removed() -> None:
    files = written(b"abc")
    snapshot = "root/t-0/00000000000000000009.snapshot"
    files.write(snapshot, b"from another life")
    open_log(files)
    assert files.read(snapshot) is None
