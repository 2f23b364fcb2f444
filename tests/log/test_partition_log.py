"""The log of one partition: what can be read when, and what is kept."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ottla.errors import DiskFull, StorageError
from ottla.log.config import LogConfig
from ottla.log.memory_files import MemoryFile
from ottla.records.batch import iterate_headers
from ottla.wire import Buffer
from tests.log.writing import NOW, append, batch, new_log, open_log, sync, values_of

SIZE = len(batch(b"x" * 100))


def test_readers_see_only_what_is_durable() -> None:
    log, files = new_log()
    assert append(log, b"a", b"b") == 0
    assert (log.log_end_offset, log.high_watermark) == (2, 0)
    assert values_of(log) == []
    sync(log)
    assert log.high_watermark == 2
    assert values_of(log) == [b"a", b"b"]
    assert append(log, b"c") == 2
    assert values_of(log) == [b"a", b"b"]
    assert values_of(open_log(files.after_power_cut())) == [b"a", b"b"]


def test_what_is_written_during_a_sync_waits_for_the_next() -> None:
    log, files = new_log()
    append(log, b"a")
    begun = log.begin_sync()
    append(log, b"b")
    log.end_sync(begun, begun.run())
    assert log.high_watermark == 1
    assert values_of(log) == [b"a"]
    sync(log)
    assert values_of(log) == [b"a", b"b"]
    assert values_of(open_log(files.after_power_cut())) == [b"a", b"b"]


def test_without_durability_everything_written_can_be_read() -> None:
    log, _ = new_log(LogConfig(durable=False))
    append(log, b"a")
    assert log.high_watermark == 1
    assert values_of(log) == [b"a"]


def test_whoever_waits_is_called_when_it_is_stored_and_not_before() -> None:
    log, _ = new_log()
    append(log, b"a")
    called: list[StorageError | None] = []
    log.when_stored(1, called.append)
    log.when_stored(0, called.append)
    assert called == [None]
    sync(log)
    assert called == [None, None]


def test_watchers_are_called_when_there_is_more_to_read_until_they_leave() -> None:
    log, _ = new_log()
    seen: list[int] = []

    def look() -> None:
        seen.append(log.high_watermark)

    log.watch(look)
    append(log, b"a")
    assert seen == []
    sync(log)
    assert seen == [1]
    log.unwatch(look)
    append(log, b"b")
    sync(log)
    assert seen == [1]


def test_after_a_failed_sync_nothing_is_accepted_and_everybody_is_told() -> None:
    log, files = new_log()
    append(log, b"a")
    sync(log)
    append(log, b"b")
    called: list[StorageError | None] = []
    log.when_stored(2, called.append)
    log.end_sync(log.begin_sync(), StorageError("input/output error"))
    [error] = called
    assert "could not be made durable: input/output error" in str(error)
    with pytest.raises(StorageError, match="Restart the broker"):
        append(log, b"c")
    log.when_stored(2, called.append)
    assert called[1] is not None
    assert values_of(log) == [b"a"]
    assert values_of(open_log(files.after_power_cut())) == [b"a"]


def test_a_full_disk_refuses_and_leaves_nothing_and_heals(monkeypatch: pytest.MonkeyPatch) -> None:
    log, _ = new_log(LogConfig(durable=False))
    append(log, b"a")

    def full(self: MemoryFile, buffers: Sequence[Buffer]) -> None:
        raise DiskFull("no space left")

    with monkeypatch.context() as context:
        context.setattr(MemoryFile, "append", full)
        with pytest.raises(DiskFull):
            append(log, b"b")
        assert values_of(log) == [b"a"]
    assert append(log, b"c") == 1
    assert values_of(log) == [b"a", b"c"]


@pytest.mark.parametrize("durable", [True, False])
def test_segments_roll_by_size_and_are_read_across(durable: bool) -> None:
    log, files = new_log(LogConfig(segment_bytes=3 * SIZE, durable=durable))
    for number in range(10):
        append(log, b"%100d" % number)
    sync(log)
    names = [name for name in files.list("root/t-0") if name.endswith(".log")]
    assert names == [f"{base:020}.log" for base in (0, 3, 6, 9)]
    assert [int(value) for value in values_of(log)] == list(range(10))
    assert [int(value) for value in values_of(log, 5)] == list(range(5, 10))


def test_segments_roll_by_time() -> None:
    log, files = new_log(LogConfig(segment_ms=1000))
    for later in (0, 500, 1001, 1500):
        append(log, b"x", timestamp_ms=NOW + later)
    assert len([name for name in files.list("root/t-0") if name.endswith(".log")]) == 2


def test_reading_gives_whole_batches_and_the_first_however_large() -> None:
    log, _ = new_log(LogConfig(durable=False))
    for _ in range(4):
        append(log, b"x" * 100)

    def bases(offset: int, bytes_max: int, *, at_least_one: bool) -> list[int]:
        data = log.read(offset, bytes_max, at_least_one=at_least_one)
        return [header.base_offset for header in iterate_headers(data)]

    assert bases(0, 1, at_least_one=True) == [0]
    assert bases(0, 1, at_least_one=False) == []
    assert bases(0, 0, at_least_one=False) == []
    assert bases(1, 2 * SIZE, at_least_one=True) == [1, 2]
    assert bases(1, 3 * SIZE - 1, at_least_one=True) == [1, 2]
    assert bases(2, 1 << 20, at_least_one=True) == [2, 3]
    assert bases(4, 1 << 20, at_least_one=True) == []


def test_offsets_inside_of_a_batch_are_found() -> None:
    log, _ = new_log(LogConfig(durable=False, index_interval_bytes=50))
    for number in range(50):
        append(log, b"%d" % number, b"x", b"y")
    for offset in range(150):
        first = next(iterate_headers(log.read(offset, 200, at_least_one=True)))
        assert first.base_offset <= offset <= first.last_offset


def test_times_are_found_over_segments_even_where_they_do_not_grow() -> None:
    log, _ = new_log(LogConfig(segment_bytes=3 * SIZE, durable=False))
    for later in (0, 50, 10, 60, 20, 70):
        append(log, b"x" * 100, timestamp_ms=NOW + later)
    assert log.offset_at(NOW) == (0, NOW)
    assert log.offset_at(NOW + 11) == (1, NOW + 50)
    assert log.offset_at(NOW + 55) == (3, NOW + 60)
    assert log.offset_at(NOW + 71) is None
    assert log.max_timestamp() == (5, NOW + 70)
    log.move_start(2)
    assert log.offset_at(NOW + 11) == (3, NOW + 60)


def test_times_beyond_what_is_durable_are_not_found() -> None:
    log, _ = new_log()
    append(log, b"x")
    assert log.offset_at(NOW) is None
    sync(log)
    assert log.offset_at(NOW) == (0, NOW)


def test_old_segments_go_once_the_start_is_behind_them() -> None:
    log, files = new_log(LogConfig(segment_bytes=2 * SIZE, durable=False))
    for number in range(6):
        append(log, b"%100d" % number)
    log.move_start(3)
    log.remove_old_segments()
    assert [name for name in files.list("root/t-0") if name.endswith(".log")] == [
        f"{base:020}.log" for base in (2, 4)
    ]
    assert [int(value) for value in values_of(log)] == [3, 4, 5]


def test_everything_is_there_after_a_clean_stop() -> None:
    config = LogConfig(segment_bytes=3 * SIZE, index_interval_bytes=100)
    log, files = new_log(config)
    for number in range(10):
        append(log, b"%100d" % number, timestamp_ms=NOW + number)
    log.close()
    again = open_log(files.after_power_cut(), config, recovery_point=None)
    assert (again.log_end_offset, again.high_watermark, again.leader_epoch) == (10, 10, 0)
    assert [int(value) for value in values_of(again)] == list(range(10))
    assert again.offset_at(NOW + 7) == (7, NOW + 7)
    assert append(again, b"x") == 10


def test_a_closed_log_refuses() -> None:
    log, _ = new_log()
    log.close()
    with pytest.raises(StorageError, match="closed"):
        append(log, b"x")


def test_a_start_behind_everything_that_is_there_begins_anew() -> None:
    log, files = new_log()
    append(log, b"a")
    log.close()
    again = open_log(files, recovery_point=None, log_start_offset=7)
    assert (again.log_start_offset, again.log_end_offset) == (7, 7)
    assert append(again, b"b") == 7


def test_a_folder_that_was_made_in_an_earlier_life_is_durable_once_something_is_stored_in_it() -> (
    None
):
    log, files = new_log()
    log.close()
    again = open_log(files, recovery_point=None)
    append(again, b"a")
    sync(again)
    assert values_of(open_log(files.after_power_cut())) == [b"a"]


def test_a_log_with_half_a_batch_that_cannot_be_cut_off_refuses_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, files = new_log()
    append(log, b"a")
    sync(log)

    def tears(self: MemoryFile, buffers: Sequence[Buffer]) -> None:
        content = self._files.content_of(self.path)
        self._files.write_at(self.path, content, self.size(), [b"".join(buffers)[:50]])
        self.is_torn = True
        raise StorageError("half of it was written")

    with monkeypatch.context() as context:
        context.setattr(MemoryFile, "append", tears)
        with pytest.raises(StorageError):
            append(log, b"b")
    with pytest.raises(StorageError, match="half of it"):
        append(log, b"c")
    again = open_log(files)
    assert again.failed is None
    assert values_of(again) == [b"a"]
    assert append(again, b"d") == 1
