"""What a log keeps no longer, and how it goes."""

from __future__ import annotations

from ottla.clock import ManualClock
from ottla.log.config import LogConfig
from ottla.log.memory_files import MemoryFiles
from ottla.log.partition_log import PartitionLog
from ottla.log.producer_state import Duplicate
from ottla.records.batch import read_header
from tests.log.writing import (
    NOW,
    TOPIC_ID,
    append,
    batch,
    new_log,
    open_log,
    save,
    sync,
    values_of,
)

SIZE = len(batch(b"000"))


def written(config: LogConfig, count: int = 10) -> tuple[PartitionLog, MemoryFiles, ManualClock]:
    """Return a log with records that are a second apart; the last was written now."""
    files, clock = MemoryFiles(model_power_cuts=True), ManualClock(NOW + (count - 1) * 1000)
    log = PartitionLog.open(files, "root", "t", 0, TOPIC_ID, config, clock, recovery_point=None)
    for number in range(count):
        append(log, b"%03d" % number, timestamp_ms=NOW + number * 1000)
    sync(log)
    return log, files, clock


def values_kept(log: PartitionLog) -> list[int]:
    return [int(value) for value in values_of(log)]


def test_segments_go_when_their_newest_record_is_too_old() -> None:
    log, files, clock = written(LogConfig(segment_bytes=2 * SIZE, retention_ms=4000))
    remove = log.apply_retention()
    assert values_kept(log) == [4, 5, 6, 7, 8, 9]
    assert "00000000000000000000.log.deleted" in files.list("root/t-0")
    assert remove is not None
    remove()
    assert not [name for name in files.list("root/t-0") if name.endswith(".deleted")]
    assert log.apply_retention() is None
    clock.advance(2000)
    log.apply_retention()
    assert values_kept(log) == [6, 7, 8, 9]


def test_the_active_segment_goes_too_when_all_is_too_old_and_offsets_go_on() -> None:
    log, _, clock = written(LogConfig(segment_bytes=4 * SIZE, retention_ms=4000))
    clock.advance(100_000)
    log.apply_retention()
    assert values_of(log) == []
    assert log.size == 0
    assert append(log, b"new") == 10
    sync(log)
    assert values_of(log) == [b"new"]


def test_a_timestamp_in_the_future_keeps_a_segment_and_what_is_behind_it() -> None:
    config = LogConfig(segment_bytes=2 * SIZE, retention_ms=4000)
    log, _, clock = written(config)
    clock.advance(3_600_000)
    append(log, b"010", timestamp_ms=clock.now_ms() + 3_600_000)
    append(log, b"011", timestamp_ms=NOW)
    sync(log)
    log.apply_retention()
    assert values_kept(log) == [10, 11]


def test_what_is_more_than_so_many_bytes_goes_but_never_too_much() -> None:
    log, _, _ = written(LogConfig(segment_bytes=2 * SIZE, retention_bytes=5 * SIZE))
    log.apply_retention()
    assert values_kept(log) == [4, 5, 6, 7, 8, 9]
    assert log.size >= 5 * SIZE


def test_without_limits_nothing_goes() -> None:
    log, _, clock = written(LogConfig(segment_bytes=2 * SIZE, retention_ms=-1))
    clock.advance(1e12)
    assert log.apply_retention() is None


def test_a_topic_that_is_only_compacted_keeps_what_is_old() -> None:
    config = LogConfig(segment_bytes=2 * SIZE, retention_ms=1, delete=False, compact=True)
    log, _, clock = written(config)
    clock.advance(1e12)
    assert log.apply_retention() is None
    log.move_start(4)
    assert log.apply_retention() is not None
    assert values_kept(log) == [4, 5, 6, 7, 8, 9]


def test_what_readers_have_not_seen_stays() -> None:
    config = LogConfig(segment_bytes=2 * SIZE, retention_ms=1)
    log, _ = new_log(config)
    for number in range(6):
        append(log, b"%03d" % number, timestamp_ms=1)
        if number == 3:
            sync(log)
    log.apply_retention()
    assert log.log_start_offset == 4
    sync(log)
    assert values_kept(log) == [4, 5]


def test_removed_segments_do_not_come_back_after_a_crash() -> None:
    config = LogConfig(segment_bytes=2 * SIZE, retention_ms=4000)
    for is_power_cut in (False, True):
        log, files, _ = written(config)
        log.apply_retention()
        files.sync_folder("root/t-0")
        found = open_log(files.after_power_cut() if is_power_cut else files, config)
        assert values_kept(found) == [4, 5, 6, 7, 8, 9]
        assert not [name for name in files.list("root/t-0") if name.endswith(".swap")]


def test_a_sync_that_is_under_way_does_not_mind_that_its_segment_goes() -> None:
    log, _, _ = written(LogConfig(segment_bytes=2 * SIZE, retention_ms=4000))
    append(log, b"010", timestamp_ms=NOW)
    begun = log.begin_sync()
    log.move_start(log.high_watermark)
    remove = log.remove_old_segments()
    assert remove is not None
    remove()
    log.end_sync(begun, begun.run())
    assert log.failed is None
    assert values_kept(log) == [10]


def test_producers_whose_batches_were_removed_are_known_after_a_crash() -> None:
    log, files = new_log(LogConfig(segment_bytes=2 * SIZE))
    batches = [batch(b"%03d" % number, producer=(7, 0, number)) for number in range(5)]
    for data in batches:
        log.append(data, read_header(data))
    sync(log)
    log.move_start(5)
    remove = log.remove_old_segments()
    assert remove is not None
    for is_removed in (False, True):
        again = open_log(files.after_power_cut(), log_start_offset=5)
        for offset, data in enumerate(batches):  # of which each may be sent again
            found = again.check_producer(read_header(data))
            assert isinstance(found, Duplicate), (offset, is_removed)
            assert found.base_offset == offset
        remove()
    assert [name for name in files.list("root/t-0") if name.endswith(".log")] == [
        "00000000000000000005.log"
    ]


def test_what_was_checked_after_a_crash_can_go_at_once_and_its_producers_stay_known() -> None:
    config = LogConfig(segment_bytes=2 * SIZE)
    log, files = new_log(config)
    batches = [batch(b"%03d" % number, producer=(7, 0, number)) for number in range(4)]
    for data in [*batches, batch(b"004", producer=(8, 0, 0))]:
        log.append(data, read_header(data))
    sync(log)
    again = open_log(files := files.after_power_cut(), config)
    again.move_start(4)
    assert again.remove_old_segments() is not None
    assert values_kept(again) == [4]
    third = open_log(files.after_power_cut(), config, log_start_offset=4)
    for offset, data in enumerate(batches):
        found = third.check_producer(read_header(data))
        assert isinstance(found, Duplicate)
        assert found.base_offset == offset


def test_what_is_sent_again_is_stored_once_though_a_recovery_point_was_before_its_removal() -> None:
    config = LogConfig(segment_bytes=SIZE)
    log, files = new_log(config)
    batches = [batch(b"%03d" % number, producer=(7, 0, number)) for number in range(5)]
    for data in batches:
        log.append(data, read_header(data))
    save(log, files)
    log.move_start(5)
    remove = log.remove_old_segments()
    assert remove is not None
    remove()
    again = open_log(
        files.after_power_cut(), config, recovery_point=log.recovery_point, log_start_offset=5
    )
    for offset, data in enumerate(batches):
        found = again.check_producer(read_header(data))
        assert isinstance(found, Duplicate)
        assert found.base_offset == offset


def test_a_log_whose_start_was_noted_behind_what_a_crash_left_goes_on_at_its_start() -> None:
    log, files = new_log()
    append(log, b"a")
    sync(log)
    again = open_log(files.after_power_cut(), log_start_offset=5, log_end_offset_min=5)
    assert again.failed is None
    assert (again.log_start_offset, append(again, b"b")) == (5, 5)
