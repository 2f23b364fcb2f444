"""What is found after a crash: all that was confirmed, and never half a batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla.clock import ManualClock
from ottla.errors import CorruptLog, StorageError, codes
from ottla.log.config import LogConfig
from ottla.log.files import OsFile, OsFiles
from ottla.log.memory_files import MemoryFiles
from ottla.log.partition_log import PartitionLog
from ottla.log.producer_state import Duplicate, ProducerState
from ottla.records.batch import iterate_records, read_header
from tests.log.opening import open_as
from tests.log.writing import TOPIC_ID, append, batch, new_log, open_log, save, sync, values_of

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
    (cut,) = log.cuts
    assert (cut.path, cut.position, cut.size, cut.kept) == (LOG, 2 * SIZE, left, "")
    assert f"cut off {left} bytes at byte {2 * SIZE}" in str(cut)
    assert files.read(LOG) == content[: 2 * SIZE]
    assert append(log, b"new") == 2


@pytest.mark.parametrize("at", range(SIZE))
def test_a_last_batch_with_a_flipped_bit_is_never_given_out(at: int) -> None:
    files = written(b"abc", b"def")
    content = bytearray(files.read(LOG) or b"")
    content[SIZE + at] ^= 0x40
    log = open_log(with_content(files, LOG, bytes(content)))
    if 12 <= at < 16:  # the leader epoch stands outside of the checksum, and protects no data
        assert values_of(log) == [b"abc", b"def"]
        return
    assert log.read(0, 10_000, at_least_one=True) == content[:SIZE]
    if at < 8:  # a whole batch at a wrong offset: no crash leaves that
        assert isinstance(log.failed, CorruptLog)
        assert not log.cuts
    else:
        assert log.cuts[0].position == SIZE
        assert values_of(log) == [b"abc"]


def test_a_hole_that_the_disk_left_in_what_was_not_synced_is_cut_off_and_kept() -> None:
    log, files = new_log()
    append(log, b"synced")
    save(log, files)
    end = len(files.read(LOG) or b"")
    values = [bytes([number]) * 2000 for number in range(1, 4)]
    for value in values:
        append(log, value)
    content = bytearray(files.read(LOG) or b"")
    content[1024:2048] = bytes(1024)  # written last of all, and not in time
    with_content(files, LOG, bytes(content))
    again = open_log(files, recovery_point=1, log_end_offset_min=1)
    assert again.failed is None
    assert values_of(again) == [b"synced"]
    [cut] = again.cuts
    assert (cut.position, files.read(cut.kept)) == (end, bytes(content[end:]))
    assert append(again, b"new") == 1


def test_zeros_that_were_sent_are_no_hole_in_a_damaged_batch() -> None:
    log, files = new_log()
    append(log, b"synced")
    save(log, files)
    for _ in range(3):
        append(log, bytes(20_000))
    sync(log)
    content = bytearray(files.read(LOG) or b"")
    content[SIZE + 30] ^= 1
    with_content(files, LOG, bytes(content))
    again = open_log(files, recovery_point=1, log_end_offset_min=1)
    assert again.failed is not None
    assert len(values_of(again, 2)) == 2


def test_a_damaged_batch_without_a_hole_is_damage_though_others_follow() -> None:
    log, files = new_log()
    append(log, b"synced")
    save(log, files)
    end = len(files.read(LOG) or b"")
    for number in range(1, 4):
        append(log, bytes([number]) * 2000)
    sync(log)
    content = bytearray(files.read(LOG) or b"")
    content[end + 200 : end + 1300] = b"x" * 1100
    with_content(files, LOG, bytes(content))
    again = open_log(files, recovery_point=1, log_end_offset_min=1)
    assert again.failed is not None
    assert len(values_of(again, 2)) == 2


def test_zeros_behind_the_last_batch_are_cut_off() -> None:
    files = written(b"abc")
    log = open_log(with_content(files, LOG, (files.read(LOG) or b"") + bytes(4096)))
    assert values_of(log) == [b"abc"]
    assert log.cuts[0].size == 4096


def damaged(files: MemoryFiles, position: int, path: str = LOG, bit: int = 1) -> bytes:
    content = bytearray(files.read(path) or b"")
    content[position] ^= bit
    with_content(files, path, bytes(content))
    return bytes(content)


def read_at(log: PartitionLog, offset: int) -> bytes:
    """Return the value of one record."""
    data = log.read(offset, SIZE, at_least_one=True)
    values = {each.offset: each.value for each in iterate_records(data, read_header(data))}
    found: bytes = values[offset]
    return found


def test_damage_with_records_of_another_segment_behind_it_refuses_writes_and_cuts_nothing() -> None:
    config = LogConfig(segment_bytes=2 * SIZE)
    files = written(b"abc", b"def", b"ghi", b"jkl", config=config)
    content = damaged(files, SIZE + 70)
    log = open_log(files, config)
    assert isinstance(log.failed, CorruptLog)
    assert (log.failed.path, log.failed.position) == (LOG, SIZE)
    assert "Nothing was cut off" in str(log.failed)
    assert "ottla fsck" in str(log.failed)
    with pytest.raises(CorruptLog, match="damaged at byte"):
        append(log, b"new")
    assert files.read(LOG) == content
    assert log.read(0, 10_000, at_least_one=True) == content[:SIZE]
    with pytest.raises(CorruptLog):
        values_of(log, 1)
    assert values_of(log, 2) == [b"ghi", b"jkl"]


def test_damage_with_records_of_the_same_segment_behind_it_refuses_writes_and_cuts_nothing() -> (
    None
):
    files = written(*(b"%03d" % number for number in range(6)))
    content = damaged(files, 2 * SIZE + 70)
    for position in (3 * SIZE + 8, 3 * SIZE + 16):  # a size and a magic that cannot be
        content = damaged(files, position)
    log = open_log(files)
    assert isinstance(log.failed, CorruptLog)
    assert log.failed.position == 2 * SIZE
    assert files.read(LOG) == content
    assert log.read(0, 10_000, at_least_one=True) == content[: 2 * SIZE]
    for lost in (2, 3):
        with pytest.raises(CorruptLog):
            log.read(lost, 10_000, at_least_one=True)
    assert values_of(log, 4) == [b"004", b"005"]
    log.abandon(StorageError("done"))
    again = open_log(files)
    assert isinstance(again.failed, CorruptLog)


def test_where_records_are_confirmed_before_they_are_on_disk_a_torn_tail_is_kept_aside() -> None:
    config = LogConfig(durable=False, segment_bytes=3 * SIZE)
    files = written(*(b"%03d" % number for number in range(5)), config=config)
    content = damaged(files, SIZE + 70)
    log = open_log(files, config)
    assert log.failed is None
    assert values_of(log) == [b"000"]
    assert [(cut.position, cut.size) for cut in log.cuts] == [(0, 2 * SIZE), (SIZE, 2 * SIZE)]
    assert files.read(log.cuts[1].kept) == content[SIZE:]
    assert files.list("root/t-0").count("00000000000000000003.log") == 0
    assert append(log, b"new") == 1


def test_damage_in_what_had_been_stored_is_an_error_even_at_the_end_and_nothing_is_cut() -> None:
    files = written(b"abc", b"def", b"ghi")
    content = (files.read(LOG) or b"")[: 2 * SIZE - 5]
    files.write(LOG, content)
    log = open_log(files, recovery_point=2)
    assert isinstance(log.failed, CorruptLog)
    assert (log.failed.path, log.failed.position) == (LOG, SIZE)
    assert files.read(LOG) == content
    assert values_of(open_log(files, recovery_point=1)) == [b"abc"]


def test_records_that_are_missing_between_two_batches_are_damage() -> None:
    files = written(b"abc", b"def", b"ghi", b"jkl")
    content = files.read(LOG) or b""
    with_content(files, LOG, content[:SIZE] + content[2 * SIZE :])
    log = open_log(files)
    assert "offset 2 where 1 is the next" in str(log.failed)
    with pytest.raises(CorruptLog):
        values_of(log, 1)
    assert values_of(log, 2) == [b"ghi", b"jkl"]


def test_a_batch_at_a_wrong_offset_is_damage_and_what_follows_it_is_not() -> None:
    files = written(b"abc", b"def", b"ghi", b"jkl")
    for position, found in ((SIZE + 7, 0), (SIZE + 6, 257)):  # offset 1 becomes another
        content = files.read(LOG) or b""
        damaged(files, position)
        log = open_log(files)
        assert f"offset {found} where 1 is the next" in str(log.failed)
        with pytest.raises(CorruptLog):
            values_of(log, 1)
        assert values_of(log, 2) == [b"ghi", b"jkl"]
        files.write(LOG, content)


@pytest.mark.parametrize("bit", range(64))
@pytest.mark.parametrize("number", range(1, 4))
def test_a_batch_at_a_wrong_offset_in_a_compacted_log_does_not_hide_those_behind_it(
    number: int, bit: int
) -> None:
    files = written(*(b"%03d" % each for each in range(6)))
    content = files.read(LOG) or b""
    survivors = [each for each in range(6) if each != 3]
    content = b"".join(content[each * SIZE : (each + 1) * SIZE] for each in survivors)
    files.write(LOG, content)
    damaged(files, number * SIZE + 7 - bit // 8, bit=1 << bit % 8)
    if survivors[number] ^ (1 << bit) == 3:  # where compaction left a gap: nothing tells which
        return
    log = open_log(files, contiguous_from=1 << 63)
    assert isinstance(log.failed, CorruptLog)
    assert log.failed.position == number * SIZE
    for offset in survivors:
        if offset == survivors[number]:
            with pytest.raises(CorruptLog):
                log.read(offset, SIZE, at_least_one=True)
        else:
            assert read_at(log, offset) == b"%03d" % offset


def test_a_last_batch_at_a_wrong_offset_is_no_torn_tail() -> None:
    files = written(b"abc", b"def")
    content = damaged(files, SIZE + 6)  # offset 1 becomes 257
    log = open_log(files)
    assert "offset 257 where 1 is the next" in str(log.failed)
    assert files.read(LOG) == content
    assert log.read(0, 10_000, at_least_one=True) == content[:SIZE]


def test_compaction_may_leave_records_out() -> None:
    files = written(b"abc", b"def", b"ghi")
    content = files.read(LOG) or b""
    with_content(files, LOG, content[:SIZE] + content[2 * SIZE :])
    log = open_log(files, contiguous_from=2)
    assert log.failed is None
    assert values_of(log) == [b"abc", b"ghi"]


def test_a_segment_that_is_missing_is_damage() -> None:
    config = LogConfig(segment_bytes=SIZE)
    files = written(b"abc", b"def", b"ghi", config=config)
    files.remove(LOG.replace("0.log", "1.log"))
    log = open_log(files, config)
    assert "offset 2 where 1 is the next" in str(log.failed)
    with pytest.raises(CorruptLog):
        values_of(log, 1)


def test_an_empty_segment_behind_a_torn_one_is_no_damage() -> None:
    config = LogConfig(segment_bytes=2 * SIZE)
    files = written(b"abc", b"def", b"ghi", config=config)
    files.write(LOG, (files.read(LOG) or b"")[: SIZE + 5])
    files.write(LOG.replace("0.log", "2.log"), b"")
    log = open_log(files, config)
    assert log.failed is None
    assert values_of(log) == [b"abc"]
    assert append(log, b"new") == 1


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


@pytest.mark.parametrize("left", [1, 70, 100])
def test_a_torn_tail_right_behind_the_recovery_point_is_cut_off_at_the_first_start(
    left: int,
) -> None:
    log, files = new_log()
    data = batch(b"a", producer=(7, 0, 0))
    log.append(data, read_header(data))
    save(log, files)
    torn = batch(b"b" * 50, producer=(7, 0, 1))
    log.append(torn, read_header(torn))
    found = files.after_power_cut()
    found.open(LOG, create=False).append([bytes(files.read(LOG) or b"")[len(data) :][:left]])
    again = open_log(found, recovery_point=1)
    assert again.failed is None
    assert [cut.position for cut in again.cuts] == [len(data)]
    assert isinstance(again.check_producer(read_header(data)), Duplicate)
    assert again.check_producer(read_header(torn)) == codes.NONE
    assert again.bytes_unchecked == 0  # nothing before the recovery point was read again


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
        for offset, data in enumerate(batches):
            found = again.check_producer(read_header(data))
            assert isinstance(found, Duplicate)
            assert found.base_offset == offset


@pytest.mark.parametrize("segment_bytes", [SIZE, 1 << 20])
@pytest.mark.parametrize("is_clean", [True, False])
def test_all_batches_that_a_snapshot_leaves_out_are_known_as_duplicates(
    segment_bytes: int, is_clean: bool
) -> None:
    config = LogConfig(segment_bytes=segment_bytes, index_interval_bytes=1)
    log, files = new_log(config)
    batches = [batch(b"abc", b"d", producer=(7, 0, 2 * number)) for number in range(7)]
    for data in batches:
        log.append(data, read_header(data))
        append(log, b"of nobody")
    if is_clean:
        log.close()
    else:
        save(log, files)
    found_files = files.after_power_cut()
    last = ProducerState()  # a snapshot of Kafka's, which has one batch of each producer
    last.update(read_header(batches[-1]), 18)
    with_content(found_files, "root/t-0/00000000000000000021.snapshot", last.snapshot())
    again = open_log(found_files, config, recovery_point=None if is_clean else log.recovery_point)
    for number, data in enumerate(batches):
        found = again.check_producer(read_header(data))
        if number < 2:  # five are remembered
            assert found == codes.OUT_OF_ORDER_SEQUENCE_NUMBER
        else:
            assert isinstance(found, Duplicate)
            assert found.base_offset == 3 * number
    following = batch(b"new", producer=(7, 0, 14))
    assert again.check_producer(read_header(following)) == codes.NONE


def test_batches_of_another_epoch_are_not_recalled() -> None:
    log, files = new_log()
    for epoch in range(2):
        for number in range(2):
            data = batch(b"abc", producer=(7, epoch, number))
            log.append(data, read_header(data))
    log.close()
    again = open_log(files, recovery_point=None)
    old = read_header(batch(b"abc", producer=(7, 0, 1)))
    assert again.check_producer(old) == codes.INVALID_PRODUCER_EPOCH
    first = again.check_producer(read_header(batch(b"abc", producer=(7, 1, 0))))
    assert isinstance(first, Duplicate)
    assert first.base_offset == 2
    unknown = read_header(batch(b"abc", b"d", producer=(7, 1, 0)))
    assert again.check_producer(unknown) == codes.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_only_what_is_behind_the_recovery_point_is_checked() -> None:
    config = LogConfig(segment_bytes=2 * SIZE)
    files = written(b"abc", b"def", b"ghi", config=config)
    content = bytearray(files.read(LOG) or b"")
    content[70] ^= 1
    with_content(files, LOG, bytes(content))
    log = open_log(files, config, recovery_point=2)
    assert log.failed is None
    assert log.log_end_offset == 3
    assert open_log(files, config, recovery_point=0).failed is not None


def test_a_recovery_point_in_a_segment_is_where_the_check_begins() -> None:
    config = LogConfig(index_interval_bytes=1)
    files = written(*(b"%03d" % number for number in range(6)), config=config)
    damaged(files, SIZE + 70)
    for index_is_there in (False, True):
        log = open_log(files, config, recovery_point=3)
        assert log.failed is None
        assert log.log_end_offset == 6
        if not index_is_there:
            log.close()
    damaged(files, 4 * SIZE + 70)
    assert isinstance(open_log(files, config, recovery_point=3).failed, CorruptLog)


def test_an_index_that_lies_is_made_anew() -> None:
    config = LogConfig(index_interval_bytes=1)
    log, files = new_log(config)
    for number in range(20):
        append(log, b"%03d" % number, timestamp_ms=1000 + number)
    log.close()
    for suffix in (".index", ".timeindex"):
        path = LOG.replace(".log", suffix)
        good = files.read(path) or b""
        for position in range(len(good)):
            for bit in (1, 0x80):
                bad = bytearray(good)
                bad[position] ^= bit
                files.write(path, bytes(bad))
                again = open_log(files, config, recovery_point=None)
                assert [read_at(again, at) for at in (0, 7, 19)] == [b"000", b"007", b"019"]
        files.write(path, good)


def test_snapshots_from_behind_the_end_are_removed() -> None:
    files = written(b"abc")
    snapshot = "root/t-0/00000000000000000009.snapshot"
    files.write(snapshot, b"from another life")
    open_log(files)
    assert files.read(snapshot) is None


def test_a_log_that_lost_its_end_after_a_clean_stop_is_not_written_over() -> None:
    log, files = new_log()
    for value in (b"abc", b"def", b"ghi"):
        append(log, value)
    log.close()
    content = files.read(LOG) or b""
    with_content(files, LOG, content[: 2 * SIZE])
    again = open_log(files, recovery_point=None, log_end_offset_min=3)
    assert isinstance(again.failed, CorruptLog)
    assert "ends at offset 2, and had been stored up to 3" in str(again.failed)
    assert values_of(again) == [b"abc", b"def"]
    with pytest.raises(CorruptLog):
        append(again, b"new")


def test_a_log_whose_last_batch_is_damaged_after_a_clean_stop_can_still_be_read_before_it() -> None:
    log, files = new_log()
    for value in (b"abc", b"def", b"ghi"):
        append(log, value)
    log.close()
    content = bytearray(files.read(LOG) or b"")
    content[-1] ^= 1
    with_content(files, LOG, bytes(content))
    again = open_log(files, recovery_point=None, log_end_offset_min=3)
    assert isinstance(again.failed, CorruptLog)
    assert values_of(again) == [b"abc", b"def"]


def test_offsets_that_are_missing_between_segments_are_not_passed_over() -> None:
    config = LogConfig(segment_bytes=2 * SIZE)
    log, files = new_log(config)
    for value in (b"abc", b"def", b"ghi", b"jkl", b"mno"):
        append(log, value)
    log.close()
    with_content(files, LOG, (files.read(LOG) or b"")[:SIZE])
    again = open_log(files, config, recovery_point=None)
    assert values_of(again, 2) == [b"ghi", b"jkl", b"mno"]
    with pytest.raises(CorruptLog, match="offset 1 is not there"):
        again.read(1, 1000, at_least_one=True)


def test_damage_before_the_recovery_point_does_not_hide_what_is_behind_it() -> None:
    config = LogConfig(segment_bytes=2 * SIZE)
    log, files = new_log(config)
    for value in (b"abc", b"def", b"ghi", b"jkl"):
        append(log, value)
    save(log, files)
    append(log, b"mno")
    sync(log)
    content = bytearray(files.read(LOG) or b"")
    content[8] ^= 1  # the first batch's length
    with_content(files, LOG, bytes(content))
    again = open_log(files, config, recovery_point=4)
    assert again.failed is None
    assert values_of(again, 2) == [b"ghi", b"jkl", b"mno"]
    with pytest.raises(CorruptLog):
        again.read(0, 1000, at_least_one=True)


def test_what_is_checked_after_a_crash_is_read_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[tuple[str, int]] = []

    class Noting(OsFile):
        def forget_cached(self, position: int) -> None:
            forgotten.append((self.path, position))
            super().forget_cached(position)

    open_as(monkeypatch, Noting)
    for recovery_point in (None, 0):
        log = PartitionLog.open(
            OsFiles(),
            str(tmp_path),
            "t",
            0,
            TOPIC_ID,
            LogConfig(),
            ManualClock(),
            recovery_point=recovery_point,
        )
        append(log, b"abc")
        sync(log)
    assert forgotten == [(f"{tmp_path}/t-0/00000000000000000000.log", 0)]
    log.close()


def test_what_is_shown_of_a_damaged_log_is_durable() -> None:
    config = LogConfig(segment_bytes=SIZE)
    log, files = new_log(config)
    append(log, b"abc")
    sync(log)
    append(log, b"def")
    append(log, b"ghi")
    path = f"root/t-0/{1:020}.log"
    content = bytearray(files.read(path) or b"")
    content[-1] ^= 1
    file = files.open(path, create=False)
    file.truncate(0)
    file.append([content])
    shown = open_log(files, config)
    assert isinstance(shown.failed, CorruptLog)
    assert values_of(shown, 2) == [b"ghi"]
    again = open_log(files.after_power_cut(), config)
    assert values_of(again, 2) == [b"ghi"]


def test_an_empty_segment_behind_a_lost_tail_goes_in_a_compacted_log_too() -> None:
    config = LogConfig(segment_bytes=2 * SIZE, compact=True)
    log, files = new_log(config)
    append(log, b"000")
    sync(log)
    found = files.after_power_cut()
    found.open(f"root/t-0/{2:020}.log", create=True)
    again = open_log(found, config, contiguous_from=1 << 63)
    assert again.failed is None
    assert again.high_watermark == 1
    assert append(again, b"001") == 1
    sync(again)
    assert values_of(again) == [b"000", b"001"]


def test_a_snapshot_that_is_newer_than_the_log_is_not_trusted() -> None:
    log, files = new_log()
    batches = [batch(b"abc", producer=(7, 0, number)) for number in range(3)]
    for data in batches:
        log.append(data, read_header(data))
    save(log, files)
    found = files.after_power_cut()
    found.open(LOG, create=False).truncate(2 * len(batches[0]))
    again = open_log(found, recovery_point=0)
    assert isinstance(again.check_producer(read_header(batches[1])), Duplicate)
    assert again.check_producer(read_header(batches[2])) == codes.NONE
    assert f"{3:020}.snapshot" not in found.list("root/t-0")
