"""The check of what is beside the batches: indexes, snapshots, checkpoints, leftovers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla.broker.engine import Engine
from ottla.broker.fsck import check
from ottla.clock import ManualClock
from ottla.errors import StorageError
from ottla.log.checkpoints import encode_offsets
from ottla.log.config import LogConfig
from ottla.log.fsck.findings import LogFacts, Severity
from ottla.log.fsck.indexes import AbortedCheck
from ottla.log.fsck.partition import LogCheck
from ottla.log.fsck.repair import Repair
from ottla.log.indexes import AbortedTransaction
from ottla.log.memory_files import MemoryFiles
from ottla.log.scan import Batch, scan
from tests.log.damaging import (
    CONFIGS,
    COUNT,
    FOLDER,
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

SEGMENTS = Path(__file__).parents[1] / "data" / "segments"


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_whichever_byte_of_an_index_is_wrong_it_is_found_and_made_anew(suffix: str) -> None:
    files = make_store()
    content = files.read(segment(4, suffix)) or b""
    assert len(content) > 20
    for at in range(len(content)):
        for bit in (1, 0x80):
            rewrite(files, segment(4, suffix), flipped(at, bit))
            finding = one(look(files))
            assert (finding.kind, finding.path) == ("bad-index", segment(4, suffix)), (at, bit)
            assert check(files, STORE, repair=True).is_well
            assert files.read(segment(4, suffix)) == content, (at, bit)
    assert_repairs(files)


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("size", [None, 0, 5, 12])
def test_an_index_that_is_missing_or_cut_off_is_made_anew(suffix: str, size: int | None) -> None:
    files = make_store()
    content = files.read(segment(8, suffix)) or b""
    if size is None:
        files.remove(segment(8, suffix))
    else:
        files.write(segment(8, suffix), content[:size])
    if suffix == ".index" and size == 0:  # only slower
        assert look(files).findings == []
        return
    assert one(look(files)).kind == "bad-index"
    assert_repairs(files)


def test_indexes_behind_the_recovery_point_do_not_count_after_a_crash() -> None:
    files = make_store(clean=False, saved=6)
    files.write(segment(8, ".index"), b"\xff" * 40)
    rewrite(files, segment(4, ".timeindex"), lambda content: content[:-3])
    assert [each.path for each in look(files).findings] == [segment(4, ".timeindex")]
    assert_repairs(files)


def test_a_damaged_snapshot_is_removed() -> None:
    files = make_store()
    snapshot = segment(COUNT, ".snapshot")
    rewrite(files, snapshot, flipped(3))
    assert one(look(files)).kind == "bad-snapshot"
    assert check(files, STORE, repair=True).is_well
    assert files.read(snapshot) is None
    assert records_of(files) == expected()


@pytest.mark.parametrize(
    "content", [b"0\n1\n0 0", b"\xff\xff", b"0\n1\n0 99\n", b"0\n2\n1 3\n0 5\n"]
)
def test_leader_epochs_that_cannot_be_are_made_anew_from_the_batches(content: bytes) -> None:
    files = make_store(clean=False)
    records_of(files)  # a start after a crash begins epoch 1 with the new record
    path = f"{FOLDER}/leader-epoch-checkpoint"
    before = rewrite(files, path, lambda _: content)
    assert one(look(files)).kind == "bad-leader-epochs"
    assert check(files, STORE, repair=True).is_well
    assert files.read(path) == before == b"0\n2\n0 0\n1 12\n"
    assert files.read(f"{path}.cut") == content


def test_leader_epochs_that_are_missing_are_made_anew_from_the_batches() -> None:
    files = make_store(clean=False)
    records_of(files)
    path = f"{FOLDER}/leader-epoch-checkpoint"
    content = files.read(path)
    files.remove(path)
    assert one(look(files)).kind == "bad-leader-epochs"
    assert check(files, STORE, repair=True).is_well
    assert files.read(path) == content


def test_a_damaged_topic_id_is_written_again_from_the_metadata() -> None:
    files = make_store()
    path = f"{FOLDER}/partition.metadata"
    content = rewrite(files, path, lambda content: content[:-4])
    assert one(look(files)).kind == "bad-topic-id"
    assert_repairs(files)
    assert files.read(path) == content


def test_a_folder_of_another_topic_of_that_name_is_a_stray() -> None:
    files = make_store()
    rewrite(files, f"{FOLDER}/partition.metadata", lambda _: b"version: 0\ntopic_id: " + b"A" * 22)
    finding = one(look(files))
    assert (finding.kind, finding.severity) == ("stray", Severity.PROBLEM)


@pytest.mark.parametrize("name", ["recovery-point", "log-start", "cleaner"])
@pytest.mark.parametrize("clean", [True, False])
def test_a_damaged_checkpoint_is_made_anew_and_kept_aside(name: str, clean: bool) -> None:
    files = make_store(clean=clean, saved=7)
    path = f"{STORE}/{name}-offset-checkpoint"
    files.write(path, b"0\n1\nt 0 torn")
    finding = one(look(files))
    assert (finding.kind, finding.severity) == ("bad-checkpoint", Severity.PROBLEM)
    with pytest.raises(StorageError):
        Engine.open(files.after_kill(), STORE, ManualClock())
    assert_repairs(files)
    assert files.read(f"{path}.cut") == b"0\n1\nt 0 torn"


def test_without_recovery_points_a_snapshot_tells_what_had_been_stored() -> None:
    files = make_store(clean=False, saved=COUNT)
    files.write(RECOVERY_POINTS, b"nothing")
    rewrite(files, segment(8), lambda content: content[:-5])
    kinds = [(each.kind, each.severity) for each in look(files).findings]
    assert kinds == [("bad-checkpoint", Severity.PROBLEM), ("damage", Severity.LOSS)]
    assert_repairs(files, 11)


def test_the_gaps_of_a_topic_that_was_compacted_once_are_still_gaps_without_that_checkpoint() -> (
    None
):
    files = make_store(clean=False)
    rewrite(files, segment(0), lambda content: content[:SIZE] + content[2 * SIZE :])
    files.write(f"{STORE}/cleaner-offset-checkpoint", b"nothing")
    assert_repairs(files, 1)
    assert files.read(f"{STORE}/cleaner-offset-checkpoint") == encode_offsets({("t", 0): 2})


@pytest.mark.parametrize("name", ["log-start", "cleaner"])
def test_what_is_noted_behind_the_end_of_a_log_is_taken_out(name: str) -> None:
    files = make_store()
    path = f"{STORE}/{name}-offset-checkpoint"
    files.write(path, encode_offsets({("t", 0): 500, ("u", 1): 3}))
    finding = one(look(files))
    assert (finding.kind, finding.severity) == ("bad-checkpoint", Severity.PROBLEM)
    assert_repairs(files)
    assert b"u 1 3" in (files.read(path) or b"") or name == "log-start"


def test_properties_that_cannot_be_read_are_told() -> None:
    files = make_store()
    files.write(f"{STORE}/meta.properties", b"\0\0\0")
    finding = one(check(files, STORE, repair=True))
    assert finding.kind == "bad-properties"
    assert "put back the file" in str(finding)
    files.remove(f"{STORE}/meta.properties")
    assert "it is missing" in str(one(look(files)))


def test_what_was_left_over_is_noted() -> None:
    files = make_store()
    folder = f"{STORE}/u-0.0123-delete"
    for path in (
        f"{folder}/{0:020}.log",
        f"{STORE}/v-0.AAAA-stray/{0:020}.log",
        f"{STORE}/recovery-point-offset-checkpoint.tmp",
        segment(0, ".index.tmp"),
        segment(0, ".log.deleted"),
        segment(0, ".log.cleaned"),
        segment(4, ".log.0.cut"),
    ):
        files.make_folder(path.rpartition("/")[0])
        files.write(path, b"")
    report = look(files)
    assert report.is_well
    assert sorted(each.kind for each in report.findings) == [
        "kept-aside",
        "leftover",
        "leftover",
        "leftover",
        "leftover",
        "leftover",
        "stray",
    ]
    assert_repairs(files)


def test_a_compaction_that_was_interrupted_is_noted_and_damage_in_it_is_told() -> None:
    files = make_store(configs={**CONFIGS, "cleanup.policy": "compact"})
    files.write(segment(0, ".log.swap"), files.read(segment(0)) or b"")
    assert one(look(files)).kind == "leftover"
    rewrite(files, segment(0, ".log.swap"), flipped(70))
    assert [each.kind for each in look(files).findings] == ["leftover", "bad-swap"]
    assert not check(files, STORE, repair=True).is_well


def test_folders_that_no_topic_uses_are_noted() -> None:
    files = make_store()
    topic_id = files.read(f"{FOLDER}/partition.metadata") or b""
    files.make_folder(f"{STORE}/t-7")
    files.write(f"{STORE}/t-7/partition.metadata", topic_id)
    finding = one(look(files))
    assert (finding.kind, finding.severity) == ("stray", Severity.NOTE)


# -- what a real Kafka wrote


def from_kafka(name: str) -> MemoryFiles:
    """Return files with a partition's folder that a real Kafka wrote."""
    files = MemoryFiles()
    for path in (SEGMENTS / name).iterdir():
        files.write(f"{name}/{path.name}", path.read_bytes())
    return files


def check_log(files: MemoryFiles, name: str, was_clean: bool = True) -> LogCheck:
    facts = LogFacts(was_clean, recovery_point=0, contiguous_from=0)
    log = LogCheck(files, name, facts)
    log.run()
    return log


@pytest.mark.parametrize(
    "name", ["gold-0", "goldtx-0", "__consumer_offsets-5", "__transaction_state-21"]
)
def test_nothing_is_wrong_with_what_a_real_kafka_wrote(name: str) -> None:
    log = check_log(from_kafka(name), name)
    assert log.findings == []
    assert log.counts.batches


def test_whichever_byte_of_a_transaction_index_is_wrong_it_is_made_anew_as_kafka_made_it() -> None:
    name, path = "goldtx-0", "goldtx-0/00000000000000000000.txnindex"
    files = from_kafka(name)
    content = files.read(path) or b""
    assert content
    changed = [flipped(at)(content) for at in range(len(content))]
    for wrong in (b"", content[:-1], content + content, *changed):
        files.write(path, wrong)
        log = check_log(files, name)
        assert [each.path for each in log.findings] == [path]
        (step,) = log.steps
        Repair(files, name, LogConfig(), "clean").carry_out(step.action)
        assert files.read(path) == content
        files.write(path, wrong)
        assert check_log(files, name, was_clean=False).findings == []


def test_a_transaction_index_may_speak_of_what_retention_has_removed() -> None:
    aborted = AbortedTransaction(16, 4, 7, 8)
    files = from_kafka("goldtx-0")
    checks = [AbortedCheck(), AbortedCheck(), AbortedCheck()]
    for found in scan(files.open("goldtx-0/00000000000000000000.log", create=False), 0, 0, 0):
        assert isinstance(found, Batch)
        checks[0].visit(found)
        if found.header.base_offset > 6:
            checks[1].visit(found)
        if found.header.base_offset > 7:
            checks[2].visit(found)
    told = [
        check.finish(aborted.encode(), "t", 100, is_compacted=is_compacted)[0]
        for check, is_compacted in zip(checks, (False, False, True), strict=True)
    ]
    assert told == ["", "", ""]
    assert checks[2].finish(aborted.encode(), "t", 100, is_compacted=False)[0] != ""
