"""A check finds whatever is wrong with a store and changes nothing; a repair loses nothing else."""

from __future__ import annotations

import errno
import os

import pytest

from ottla.broker.engine import Engine
from ottla.broker.fsck import check
from ottla.clock import ManualClock
from ottla.errors import ConfigError, StoreInUse, StoreUnusable
from ottla.log.checkpoints import encode_offsets
from ottla.log.fsck.findings import Severity, offsets_text
from ottla.log.fsck.plan import Empty, spread
from ottla.log.log_dir import CLEAN_SHUTDOWN
from ottla.log.memory_files import MemoryFiles
from tests.log.damaging import (
    CONFIGS,
    COUNT,
    FOLDER,
    LOG,
    METADATA_LOG,
    RECOVERY_POINTS,
    SIZE,
    STORE,
    assert_repairs,
    expected,
    flipped,
    look,
    make_store,
    one,
    records_of,
    rewrite,
    segment,
)
from tests.log.writing import NOW, batch

# -- stores that are well


@pytest.mark.parametrize("clean", [True, False])
def test_nothing_is_wrong_with_a_store_that_was_stopped_or_killed(clean: bool) -> None:
    files = make_store(clean=clean, saved=7)
    report = look(files)
    assert report.findings == []
    assert report.is_well
    assert report.was_clean is clean
    counts = report.counts
    assert (counts.partitions, counts.segments) == (2, 4)
    assert counts.batches == COUNT + 1
    assert counts.records == COUNT + 4  # the topic, its partition, two configs
    assert counts.bytes == sum(
        len(content) for path, content in files.everything().items() if path.endswith(".log")
    )


def test_a_clean_stop_is_still_marked_after_a_check() -> None:
    files = make_store()
    look(files)
    check(files, STORE, repair=True)
    assert files.read(f"{STORE}/{CLEAN_SHUTDOWN}") is not None


def test_after_a_repair_of_the_log_the_next_start_checks_it_and_begins_an_epoch() -> None:
    files = make_store()
    rewrite(files, segment(4), flipped(SIZE + 70))
    check(files, STORE, repair=True)
    assert files.read(f"{STORE}/{CLEAN_SHUTDOWN}") is None
    log = Engine.open(files, STORE, ManualClock()).log_of("t", 0)
    assert log is not None
    assert log.leader_epoch == 1


def test_a_store_in_use_is_not_checked() -> None:
    files = make_store()
    unlock = files.lock(STORE)
    with pytest.raises(StoreInUse, match="Stop that process first"):
        check(files, STORE)
    unlock()
    assert check(files, STORE).is_well
    assert check(files, STORE).is_well  # the check lets go of it


def test_a_folder_that_is_no_store_is_refused() -> None:
    files = MemoryFiles()
    with pytest.raises(StoreUnusable, match="there is no store in store"):
        check(files, STORE, repair=True)
    assert files.everything() == {}


def test_a_bad_setting_is_told() -> None:
    with pytest.raises(ConfigError):
        check(make_store(), STORE, settings={"no.such.config": "1"})


# -- torn tails


@pytest.mark.parametrize("left", [1, 20, SIZE - 1])
def test_a_torn_tail_is_a_note_in_the_words_of_a_start_and_is_kept_aside(left: int) -> None:
    files = make_store(clean=False, saved=7)
    content = rewrite(files, segment(8), lambda content: content[: 3 * SIZE + left])
    finding = one(look(files))
    assert (finding.severity, finding.kind) == (Severity.NOTE, "torn-tail")
    assert finding.position == 3 * SIZE

    started = Engine.open(files.after_kill(), STORE, ManualClock()).log_of("t", 0)
    assert started is not None
    told_by_start = str(started.cuts[0])
    told_by_us = str(one(check(files, STORE, repair=True)))
    assert told_by_start in told_by_us
    words = "that a crash left unfinished and nobody was told were stored"
    assert words in told_by_start
    assert words in str(finding)

    assert files.read(finding.kept) == content[3 * SIZE : 3 * SIZE + left]
    assert records_of(files) == expected(11)


def test_what_lies_behind_a_torn_batch_is_cut_off_with_it() -> None:
    files = make_store(clean=False, saved=3)
    rewrite(files, segment(4), lambda content: content[: SIZE + 5])
    rewrite(files, segment(8), lambda content: bytes(len(content)))
    report = look(files)
    assert [(each.kind, each.position) for each in report.findings] == [
        ("torn-tail", SIZE),
        ("torn-tail", 0),
    ]
    assert report.is_well
    assert_repairs(files, *range(5, COUNT))
    assert files.read(f"{segment(8)}.0.cut") == bytes(4 * SIZE)


def test_a_torn_tail_of_the_metadata_is_cut_off() -> None:
    files = make_store(clean=False, saved=7)
    rewrite(files, METADATA_LOG, lambda content: content + b"\0" * 100)
    assert one(look(files)).kind == "torn-tail"
    assert_repairs(files)


def test_after_a_clean_stop_nothing_is_a_torn_tail() -> None:
    files = make_store()
    content = rewrite(files, segment(8), lambda content: content[:-5])
    finding = one(look(files))
    assert (finding.severity, finding.kind) == (Severity.LOSS, "damage")
    assert (finding.offset, finding.offset_end) == (11, 12)
    assert_repairs(files, 11)
    assert files.read(finding.kept) == content[3 * SIZE : -5]


def test_bytes_behind_the_end_of_a_log_that_was_stopped_cleanly_are_a_problem() -> None:
    files = make_store()
    rewrite(files, segment(8), lambda content: content + b"garbage" * 20)
    finding = one(look(files))
    assert (finding.severity, finding.offset) == (Severity.PROBLEM, None)
    assert "no record is missing" in finding.what
    assert_repairs(files)
    assert files.read(finding.kept) == b"garbage" * 20


# -- damage


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("number", range(COUNT - 1))
def test_a_flipped_bit_loses_one_record_and_all_others_stay_at_their_offsets(
    number: int, clean: bool
) -> None:
    files = make_store(clean=clean, saved=7)
    base, index = number - number % 4, number % 4
    content = rewrite(files, segment(base), flipped(index * SIZE + 65))
    finding = one(look(files))
    assert (finding.severity, finding.kind) == (Severity.LOSS, "damage")
    assert (finding.position, finding.offset, finding.offset_end) == (
        index * SIZE,
        number,
        number + 1,
    )
    assert f"offset {number} is lost" in str(finding)
    assert "with --repair: the damaged bytes moved to" in str(finding)
    told = str(one(assert_repairs(files, number)))
    assert "repaired: the damaged bytes moved to" in told
    kept = files.read(finding.kept)
    assert kept == flipped(65)(content[index * SIZE : (index + 1) * SIZE])


@pytest.mark.parametrize("at", range(SIZE))
def test_whichever_byte_of_a_batch_is_wrong_only_that_batch_is_lost(at: int) -> None:
    files = make_store()
    rewrite(files, segment(4), flipped(SIZE + at, 0x40))
    if 12 <= at < 16:  # the leader epoch stands outside of the checksum
        assert look(files).findings == []
        return
    report = assert_repairs(files, 5)
    assert [(each.offset, each.offset_end) for each in report.findings] == [(5, 6)]


@pytest.mark.parametrize("at", range(SIZE))
def test_whichever_byte_of_a_batch_of_a_compacted_topic_is_wrong_only_that_batch_is_lost(
    at: int,
) -> None:
    files = make_store(configs={**CONFIGS, "cleanup.policy": "compact"})
    rewrite(files, segment(4), flipped(SIZE + at, 0x40))
    if 12 <= at < 16:
        assert look(files).findings == []
        return
    report = assert_repairs(files, 5)
    assert [(each.offset, each.offset_end) for each in report.findings] == [(5, 6)]
    assert "what compaction had left of offset 5 is lost" in str(report.findings[0])


def test_several_places_in_one_segment_are_repaired_together() -> None:
    files = make_store(configs={"index.interval.bytes": "1"})
    for at in (1, 2, 5, 11):
        rewrite(files, LOG, flipped(at * SIZE + 70))
    report = assert_repairs(files, 1, 2, 5, 11)
    assert [(each.offset, each.offset_end) for each in report.findings] == [
        (1, 3),
        (5, 6),
        (11, 12),
    ]


def test_missing_offsets_between_intact_batches_are_filled_and_nothing_is_moved() -> None:
    files = make_store()
    rewrite(files, segment(4), lambda content: content[:SIZE] + content[2 * SIZE :])
    finding = one(look(files))
    assert (finding.kind, finding.offset, finding.kept) == ("missing-offsets", 5, "")
    assert_repairs(files, 5)


def test_a_gap_before_the_last_batch_of_a_segment_does_not_cost_that_batch() -> None:
    for clean, base, lost in ((True, 4, 6), (True, 8, 10), (False, 4, 6)):
        files = make_store(clean=clean, saved=COUNT)
        rewrite(files, segment(base), lambda content: content[: 2 * SIZE] + content[3 * SIZE :])
        assert one(look(files)).kind == "missing-offsets"
        assert_repairs(files, lost)


def test_intact_records_behind_damage_survive_where_a_start_would_cut_them_off() -> None:
    files = make_store(clean=False, configs={**CONFIGS, "ottla.durability": "os"})
    rewrite(files, segment(4), flipped(SIZE + 70))
    assert "may cut it off together with intact records" in str(one(look(files)))
    assert_repairs(files, 5)


def test_a_segment_that_is_missing_is_filled() -> None:
    files = make_store()
    for suffix in (".log", ".index", ".timeindex"):
        files.remove(segment(4, suffix))
    finding = one(look(files))
    assert (finding.kind, finding.path) == ("missing-segment", segment(4))
    assert "offsets 4 to 7 are lost" in finding.what
    assert_repairs(files, 4, 5, 6, 7)


def test_an_empty_file_in_the_place_of_a_segment_is_filled() -> None:
    files = make_store()
    files.write(segment(4), b"")
    assert one(look(files)).kind == "missing-segment"
    assert_repairs(files, 4, 5, 6, 7)


@pytest.mark.parametrize("clean", [True, False])
def test_a_log_that_ends_too_early_does_not_give_out_its_offsets_twice(clean: bool) -> None:
    files = make_store(clean=clean, saved=COUNT)
    rewrite(files, segment(8), lambda content: content[: 2 * SIZE])
    kinds = [each.kind for each in look(files).findings]
    assert kinds == ["bad-index", "bad-index", "missing-end"]
    assert_repairs(files, 10, 11)


def test_a_log_without_any_segment_goes_on_where_it_ended() -> None:
    files = make_store()
    for name in files.list(FOLDER):
        if name.startswith("0000"):
            files.remove(f"{FOLDER}/{name}")
    finding = one(look(files))
    assert (finding.offset, finding.offset_end) == (0, COUNT)
    assert_repairs(files, *range(COUNT))


def test_a_folder_that_is_missing_goes_on_where_it_ended() -> None:
    files = make_store()
    files.remove(FOLDER)
    finding = one(look(files))
    assert (finding.kind, finding.offset_end) == ("missing-partition", COUNT)
    assert_repairs(files, *range(COUNT))


def test_segments_that_overlap_are_told_and_left() -> None:
    files = make_store()
    content = files.read(segment(4)) or b""
    files.write(segment(6), content[2 * SIZE :])
    report = look(files)
    assert "overlap" in [each.kind for each in report.findings]
    again = check(files, STORE, repair=True)
    assert not again.is_well
    assert files.read(segment(6)) == content[2 * SIZE :]


def test_compaction_may_leave_gaps_and_others_may_not() -> None:
    def take_out(files: MemoryFiles) -> MemoryFiles:
        rewrite(files, segment(0), lambda content: content[:SIZE] + content[2 * SIZE :])
        for suffix in (".index", ".timeindex"):
            files.remove(segment(0, suffix))
        return files

    compacted = {**CONFIGS, "cleanup.policy": "compact"}
    kinds = [each.kind for each in look(take_out(make_store(configs=compacted))).findings]
    assert kinds == ["bad-index", "bad-index"]
    by_broker = check(
        take_out(make_store()), STORE, settings={"log.cleanup.policy": "compact,delete"}
    )
    assert [each.kind for each in by_broker.findings] == ["bad-index", "bad-index"]
    files = take_out(make_store())
    assert one(look(files)).kind == "missing-offsets"
    files.write(f"{STORE}/cleaner-offset-checkpoint", encode_offsets({("t", 0): 2}))
    assert [each.kind for each in look(files).findings] == ["bad-index", "bad-index"]


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_checked() -> None:
    class Failing(MemoryFiles):
        def step(self, what: str, path: str) -> None:
            if what == "read" and path == segment(4):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    files = Failing()
    files._root = make_store()._root
    finding = one(check(files, STORE, repair=True))
    assert (finding.kind, finding.severity) == ("unreadable", Severity.LOSS)
    assert f"reading {segment(4)} failed" in finding.what


# -- the metadata


def test_damage_in_the_metadata_is_told_and_never_repaired() -> None:
    files = make_store()
    rewrite(files, METADATA_LOG, flipped(70))
    before = files.everything()
    finding = one(check(files, STORE, repair=True))
    assert finding.severity is Severity.LOSS
    assert "put back store/__cluster_metadata-0 from a backup" in finding.what
    assert files.everything() == before


def test_metadata_that_cannot_be_replayed_is_told() -> None:
    files = make_store()
    files.write(METADATA_LOG, bytes(batch(*[b"no metadata record"] * 4)))
    kinds = [each.kind for each in look(files).findings]
    assert "bad-metadata" in kinds


def test_metadata_that_is_gone_is_told() -> None:
    files = make_store()
    files.remove(f"{STORE}/__cluster_metadata-0")
    finding = one(check(files, STORE, repair=True))
    assert (finding.kind, finding.severity) == ("bad-metadata", Severity.LOSS)
    assert "put it back from a backup" in finding.what


def test_a_partition_that_no_topic_has_is_a_stray_and_what_becomes_of_it_is_told() -> None:
    files = make_store()
    files.rename(FOLDER, f"{STORE}/u-0")
    files.remove(RECOVERY_POINTS)
    finding = one(look(files))
    assert (finding.kind, finding.severity) == ("stray", Severity.PROBLEM)
    assert "the next start renames it to store/u-0." in finding.what
    rewrite(files, f"{STORE}/u-0/partition.metadata", lambda content: content[:-4])
    finding = one(check(files, STORE, repair=True))
    assert finding.kind == "bad-topic-id"
    assert "move the folder elsewhere" in finding.what
    files.remove(f"{STORE}/u-0/partition.metadata")
    stray, note = look(files).findings
    assert "the next start removes it with all that is in it" in stray.what
    assert note.severity is Severity.NOTE


def test_a_partition_of_a_deleted_topic_is_left_to_the_next_start() -> None:
    files = make_store()
    engine = Engine.open(files, STORE, ManualClock())
    folder = files.after_kill()
    engine.delete_topic(engine.cluster.topics["t"])
    engine.close()
    for name in folder.list(FOLDER):
        files.make_folder(FOLDER)
        files.write(f"{FOLDER}/{name}", folder.read(f"{FOLDER}/{name}") or b"")
    finding = one(look(files))
    assert (finding.kind, finding.severity) == ("leftover", Severity.NOTE)


# -- parts


def test_offsets_too_far_for_one_segment_get_several() -> None:
    empty = Empty(10, 5_000_000_000, NOW, 0)
    found = spread(10, empty)
    assert [base for base, _ in found] == [10, 10 + 0x7FFFFFFF, 10 + 2 * 0x7FFFFFFF]
    assert [part.offset for _, part in found] == [base for base, _ in found]
    assert found[-1][1].offset_end == 5_000_000_000
    assert all(part.offset_end - base <= 0x7FFFFFFF for base, part in found)
    assert spread(10, empty._replace(offset=20, offset_end=20)) == []
    far = spread(0, Empty(0x7FFFFFFF, 0x80000005, NOW, 0))
    assert [(base, part.offset, part.offset_end) for base, part in far] == [
        (0x7FFFFFFF, 0x7FFFFFFF, 0x80000005)
    ]


def test_offsets_are_named() -> None:
    assert offsets_text(3, 4) == "offset 3"
    assert offsets_text(3, 6) == "offsets 3 to 5"
