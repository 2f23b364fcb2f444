"""Compaction keeps the last record of each key, and everything that others count on."""

from __future__ import annotations

import random

import pytest

from ottla.clock import ManualClock
from ottla.errors import CorruptLog, codes
from ottla.log.compaction import Compaction
from ottla.log.config import LogConfig
from ottla.log.indexes import AbortedTransaction, decode_aborted
from ottla.log.memory_files import MemoryFiles
from ottla.log.partition_log import PartitionLog
from ottla.log.producer_state import Duplicate
from ottla.records.batch import (
    CONTROL,
    TRANSACTIONAL,
    iterate_headers,
    iterate_records,
    read_header,
)
from ottla.records.builder import BatchBuilder
from tests.log.writing import NOW, append, batch, open_log, save, sync

Pair = tuple[bytes | None, bytes | None]
COMPACT = LogConfig(compact=True, delete=False, segment_bytes=300, delete_retention_ms=1000)
KEYS_BYTES = 1 << 20


def pairs(*records: Pair, timestamp_ms: int = NOW, **settings: int) -> memoryview:
    """Build a batch of (key, value) pairs."""
    builder = BatchBuilder()
    for key, value in records:
        builder.append(timestamp_ms, key, value, None, 1 << 30)
    producer = [settings.get(name, -1) for name in ("producer_id", "producer_epoch", "sequence")]
    codec = settings.get("codec", 0)
    producer_id, epoch, sequence = producer
    attributes = settings.get("attributes", 0)
    return builder.build(codec, None, producer_id, epoch, sequence, attributes)


def write(log: PartitionLog, *records: Pair, **settings: int) -> None:
    data = pairs(*records, **settings)
    log.append(data, read_header(data))
    sync(log)


def compacted_log(config: LogConfig = COMPACT) -> tuple[PartitionLog, MemoryFiles]:
    files = MemoryFiles(model_power_cuts=True)
    return open_log(files, config, recovery_point=None), files


def compact(log: PartitionLog, files: MemoryFiles, first_dirty: int = 0, now_ms: int = NOW) -> int:
    """Compact a log whole and return up to where it is compacted."""
    plan = log.plan_compaction(first_dirty)
    assert plan is not None
    compaction = Compaction(files, plan, now_ms, KEYS_BYTES, lambda count: None)
    for group in compaction.run():
        assert log.arm(group)
        files.sync_folder(log.folder)
        log.replace(group)()
    return compaction.clean_until


def records_of(log: PartitionLog) -> dict[int, Pair]:
    """Return all records by their offsets."""
    found = {}
    at = log.log_start_offset
    while data := log.read(at, 1000, at_least_one=True):
        for header in iterate_headers(data):
            if not header.is_control:
                for record in iterate_records(data, header):
                    found[record.offset] = (record.key, record.value)
            at = header.last_offset + 1
    return found


def roll(log: PartitionLog) -> None:
    """Write so much that a new segment begins."""
    write(log, (b"pad", b"x" * 250))
    write(log, (b"pad", b"y" * 250))


def test_only_the_last_record_of_each_key_stays_and_keeps_its_offset() -> None:
    log, files = compacted_log()
    for number in range(30):
        write(log, (b"k%d" % (number % 3), b"v%d" % number))
    roll(log)
    before = records_of(log)
    end = compact(log, files)
    after = records_of(log)
    assert set(after.items()) <= set(before.items())
    kept = {key: offset for offset, (key, _) in after.items() if offset < end}
    last = {key: offset for offset, (key, _) in before.items() if offset < end}
    assert kept == last
    assert log.log_end_offset == 32
    assert log.high_watermark == 32


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_written_the_last_of_each_key_stays(seed: int) -> None:
    chance = random.Random(seed)
    log, files = compacted_log()
    first_dirty = 0
    for _ in range(4):
        for _ in range(chance.randrange(5, 25)):
            count = chance.randrange(1, 5)
            write(
                log,
                *((b"k%d" % chance.randrange(6), b"%d" % chance.random()) for _ in range(count)),
                codec=chance.choice([0, 0, 1, 3, 4]),
            )
        before = records_of(log)
        if log.plan_compaction(first_dirty) is None:
            continue
        first_dirty = compact(log, files, first_dirty)
        after = records_of(log)
        assert after.items() <= before.items()
        for key in {key for key, _ in before.values()}:
            last = max(offset for offset, (other, _) in before.items() if other == key)
            assert after[last] == before[last]
        compacted = [key for offset, (key, _) in after.items() if offset < first_dirty]
        assert len(compacted) == len(set(compacted))
    log.close()
    again = open_log(files.after_power_cut(), COMPACT, recovery_point=None)
    assert records_of(again) == records_of(again) == after


def test_the_active_segment_is_not_touched() -> None:
    log, _ = compacted_log()
    write(log, (b"k", b"1"))
    write(log, (b"k", b"2"))
    assert log.plan_compaction(0) is None


def test_what_is_too_young_is_not_touched() -> None:
    config = LogConfig(compact=True, segment_bytes=300, min_compaction_lag_ms=10_000)
    files = MemoryFiles()
    clock = ManualClock(NOW)
    log = PartitionLog.open(files, "root", "t", 0, bytes(16), config, clock, recovery_point=None)
    roll(log)
    roll(log)
    assert log.plan_compaction(0) is None
    clock.advance(10_001)
    assert log.plan_compaction(0) is not None


def test_what_has_waited_too_long_is_due_whatever_the_ratio() -> None:
    config = LogConfig(
        compact=True, segment_bytes=300, min_cleanable_dirty_ratio=1.0, max_compaction_lag_ms=5000
    )
    clock = ManualClock(NOW)
    log = PartitionLog.open(
        MemoryFiles(), "root", "t", 0, bytes(16), config, clock, recovery_point=None
    )
    roll(log)
    plan = log.plan_compaction(0)
    assert plan is not None
    assert not plan.is_due
    clock.advance(5001)
    plan = log.plan_compaction(0)
    assert plan is not None
    assert plan.is_due


def test_a_record_without_a_value_stays_until_its_time_has_passed() -> None:
    log, files = compacted_log()
    write(log, (b"k", b"1"))
    write(log, (b"k", None))
    roll(log)
    first_dirty = compact(log, files)
    assert records_of(log)[1] == (b"k", None)
    assert 0 not in records_of(log)
    roll(log)
    first_dirty = compact(log, files, first_dirty, NOW + 999)
    assert records_of(log)[1] == (b"k", None)
    roll(log)
    compact(log, files, first_dirty, NOW + 1000)
    assert 1 not in records_of(log)


def test_the_last_batch_of_a_producer_stays_so_that_its_sequences_go_on() -> None:
    log, files = compacted_log()
    settings = {"producer_id": 7, "producer_epoch": 0}
    write(log, (b"k", b"1"), **settings, sequence=0)
    write(log, (b"k", b"2"), **settings, sequence=1)
    write(log, (b"k", b"3"))
    roll(log)
    compact(log, files)
    assert set(records_of(log)) & {0, 1, 2} == {2}
    again = open_log(files.after_power_cut(), COMPACT, contiguous_from=1 << 63)
    assert again.failed is None
    following = read_header(pairs((b"k", b"4"), **settings, sequence=2))
    assert again.check_producer(following) == 0
    repeated = read_header(pairs((b"k", b"2"), **settings, sequence=1))
    assert again.check_producer(repeated) != 0


@pytest.mark.parametrize("times", [1, 2])
def test_the_last_five_batches_of_a_producer_are_known_after_compaction_and_a_restart(
    times: int,
) -> None:
    log, files = compacted_log()
    settings = {"producer_id": 7, "producer_epoch": 0}
    for sequence in range(7):
        write(log, (b"k", b"%d" % sequence), **settings, sequence=sequence)
    first_dirty = 0
    for _ in range(times):
        write(log, (b"k", b"of another"))
        roll(log)
        first_dirty = compact(log, files, first_dirty)
    save(log, files)
    again = open_log(
        files.after_power_cut(), COMPACT, recovery_point=log.log_end_offset, contiguous_from=1 << 63
    )
    for sequence in range(2, 7):
        repeated = read_header(pairs((b"k", b"%d" % sequence), **settings, sequence=sequence))
        found = again.check_producer(repeated)
        assert isinstance(found, Duplicate) and found.base_offset == sequence
    too_old = read_header(pairs((b"k", b"0"), **settings, sequence=0))
    assert again.check_producer(too_old) == codes.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_records_without_a_key_go() -> None:
    log, files = compacted_log()
    write(log, (None, b"1"))
    write(log, (b"k", b"2"))
    roll(log)
    compact(log, files)
    assert set(records_of(log)) & {0, 1} == {1}


def test_keys_that_do_not_fit_into_memory_wait_for_another_run() -> None:
    log, files = compacted_log()
    for number in range(40):
        write(log, (b"k%d" % (number % 20), b"v%d" % number))
    roll(log)
    first_dirty = 0
    for _ in range(40):
        plan = log.plan_compaction(first_dirty)
        if plan is None:
            break
        compaction = Compaction(files, plan, NOW, 500, lambda count: None)
        for group in compaction.run():
            assert log.arm(group)
            log.replace(group)()
        assert compaction.clean_until > first_dirty
        first_dirty = compaction.clean_until
    kept = [key for key, _ in records_of(log).values()]
    assert len(kept) < 30
    assert {b"k%d" % number for number in range(20)} <= set(kept)


def test_damage_is_not_written_anew_with_a_good_checksum() -> None:
    log, files = compacted_log()
    roll(log)
    roll(log)
    path = "root/t-0/00000000000000000000.log"
    content = bytearray(files.read(path) or b"")
    content[100] ^= 1
    files.write(path, bytes(content))
    with pytest.raises(CorruptLog, match="checksum"):
        compact(log, files)
    assert files.read(path) == bytes(content)


def test_what_was_aborted_goes_and_its_marker_goes_after_it() -> None:
    log, files = compacted_log()
    ongoing = {"producer_id": 9, "producer_epoch": 0, "attributes": TRANSACTIONAL}
    write(log, (b"k", b"before"))
    write(log, (b"k", b"aborted"), **ongoing, sequence=0)
    assert log.last_stable_offset == 1
    assert log.plan_compaction(0) is None
    marker = {**ongoing, "attributes": TRANSACTIONAL | CONTROL}
    write(log, (b"\0\0\0\0", b"\0\0\0\0\0\0"), **marker)
    assert log.last_stable_offset == 3
    write(log, (b"other", b"committed"), **ongoing, sequence=1)
    write(log, (b"\0\0\0\1", b"\0\0\0\0\0\0"), **marker)
    roll(log)
    aborted = AbortedTransaction(9, 1, 2, 3)
    assert decode_aborted(aborted.encode(), "t") == [aborted]
    files.write("root/t-0/00000000000000000000.txnindex", aborted.encode())
    first_dirty = compact(log, files)
    found = records_of(log)
    assert found[0] == (b"k", b"before")
    assert 1 not in found
    assert found[3] == (b"other", b"committed")
    assert markers_of(log) == [2, 4]
    roll(log)
    first_dirty = compact(log, files, first_dirty, NOW + 10)
    assert markers_of(log) == [2, 4]
    roll(log)
    compact(log, files, first_dirty, NOW + 1010)
    assert markers_of(log) == [4]


def markers_of(log: PartitionLog) -> list[int]:
    found = []
    at = log.log_start_offset
    while data := log.read(at, 1000, at_least_one=True):
        for header in iterate_headers(data):
            if header.is_control and header.records_count:
                found.append(header.base_offset)
            at = header.last_offset + 1
    return found


@pytest.mark.parametrize("power_cut", [False, True])
@pytest.mark.parametrize("step", ["cleaned", "armed", "replaced", "removed"])
def test_a_crash_in_the_midst_leaves_the_old_segments_or_the_new_one(
    step: str, power_cut: bool
) -> None:
    log, files = compacted_log()
    for number in range(12):
        write(log, (b"k%d" % (number % 3), b"v%d" % number))
    roll(log)
    before = records_of(log)
    plan = log.plan_compaction(0)
    assert plan is not None
    for group in Compaction(files, plan, NOW, KEYS_BYTES, lambda count: None).run():
        if step == "cleaned":
            break
        assert log.arm(group)
        files.sync_folder(log.folder)
        if step == "armed":
            break
        remove = log.replace(group)
        if step == "replaced":
            break
        remove()
    found = files.after_power_cut() if power_cut else files
    again = open_log(found, COMPACT, contiguous_from=1 << 63)
    assert again.failed is None
    after = records_of(again)
    assert after.items() <= before.items()
    for key in {key for key, _ in before.values()}:
        last = max(offset for offset, (other, _) in before.items() if other == key)
        assert after[last] == before[last]
    names = found.list("root/t-0")
    assert not [name for name in names if name.endswith((".cleaned", ".swap", ".deleted"))]
    append(again, b"new")


def test_segments_that_were_removed_meanwhile_do_not_come_back() -> None:
    log, files = compacted_log()
    for number in range(12):
        write(log, (b"k%d" % (number % 3), b"v%d" % number))
    roll(log)
    plan = log.plan_compaction(0)
    assert plan is not None
    group = next(Compaction(files, plan, NOW, KEYS_BYTES, lambda count: None).run())
    assert log.arm(group)
    log.move_start(log.high_watermark)
    remove = log.remove_old_segments()
    assert remove is not None
    remove()
    log.replace(group)()
    assert records_of(log) == {}
    assert not [name for name in files.list("root/t-0") if name.endswith(".swap")]


def test_batches_of_one_value_are_as_long_as_the_tests_think() -> None:
    assert len(batch(b"x" * 250)) > 300
