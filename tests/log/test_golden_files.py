"""Partitions that a real Kafka wrote: opened as they are, and every file made anew from the log.

What stands beside the log is made from it, so a start after a crash that finds the log alone must
leave the same bytes there that Kafka left. Two files differ, as is told below: each such start
begins a leader epoch of its own, and a snapshot of ours has more of each producer than the last
batch, before it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ottla.clock import ManualClock
from ottla.log import checkpoints
from ottla.log.config import LogConfig
from ottla.log.memory_files import MemoryFiles
from ottla.log.partition_log import PartitionLog
from ottla.log.segment import file_name
from ottla.records.batch import iterate_headers, iterate_records
from tests.log.writing import last_of_each_producer

SEGMENTS = Path(__file__).parents[1] / "data" / "segments"
FOLDERS = sorted(path.name for path in SEGMENTS.iterdir() if path.is_dir())
LOG = file_name(0, ".log")
KEPT = (LOG, checkpoints.PARTITION_METADATA)
DERIVED = (".index", ".timeindex", ".snapshot")

each_folder = pytest.mark.parametrize("folder", FOLDERS)


def kafka_s(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (SEGMENTS / folder).iterdir()}


def files_with(folder: str, contents: dict[str, bytes]) -> MemoryFiles:
    files = MemoryFiles()
    for name, content in contents.items():
        files.write(f"root/{folder}/{name}", content)
    return files


def contents_of(files: MemoryFiles, folder: str) -> dict[str, bytes]:
    path = f"root/{folder}"
    return {name: files.read(f"{path}/{name}") or b"" for name in files.list(path)}


def opened(files: MemoryFiles, folder: str, recovery_point: int | None) -> PartitionLog:
    topic, _, partition = folder.rpartition("-")
    metadata = files.read(f"root/{folder}/{checkpoints.PARTITION_METADATA}")
    topic_id = checkpoints.decode_partition_metadata(metadata, folder)
    assert topic_id is not None
    return PartitionLog.open(
        files,
        "root",
        topic,
        int(partition),
        topic_id,
        # The topic gold had index.interval.bytes=512.
        LogConfig(index_interval_bytes=512 if folder == "gold-0" else 4096),
        ManualClock(),
        recovery_point=recovery_point,
    )


def values_of(log: PartitionLog) -> list[tuple[int, bytes | None]]:
    found = []
    data = log.read(0, 1 << 30, at_least_one=True)
    for header in iterate_headers(data):
        if not header.is_control:
            found += [(each.offset, each.value) for each in iterate_records(data, header)]
    return found


@each_folder
def test_a_partition_that_kafka_stopped_cleanly_is_taken_as_it_is(folder: str) -> None:
    theirs = kafka_s(folder)
    files = files_with(folder, theirs)
    log = opened(files, folder, None)
    assert log.failed is None
    log.close()
    assert contents_of(files, folder) == theirs


@each_folder
def test_from_the_log_alone_a_recovery_makes_kafka_s_files(folder: str) -> None:
    theirs = kafka_s(folder)
    files = files_with(folder, {name: theirs[name] for name in KEPT})
    opened(files, folder, 0).close()
    ours = contents_of(files, folder)
    for name, content in theirs.items():
        if name.endswith(".snapshot"):
            assert last_of_each_producer(ours[name]) == last_of_each_producer(content), name
        elif name in KEPT or name.endswith(DERIVED):
            assert ours[name] == content, name


@each_folder
def test_the_leader_epochs_are_kafka_s_and_after_a_crash_one_more(folder: str) -> None:
    theirs = kafka_s(folder)
    name = checkpoints.LEADER_EPOCHS
    for recovery_point in (None, 0):
        files = files_with(folder, {each: theirs[each] for each in KEPT})
        log = opened(files, folder, recovery_point)
        found = checkpoints.decode_epochs(files.read(f"root/{folder}/{name}"), name)
        added = [] if recovery_point is None else [(1, log.log_end_offset)]
        assert found == [*checkpoints.decode_epochs(theirs[name], name), *added]
        if recovery_point is None:
            assert contents_of(files, folder)[name] == theirs[name]


@pytest.mark.parametrize("suffix", DERIVED)
@pytest.mark.parametrize("change", ["cut off", "zeros behind it", "zeros", "another's"])
@each_folder
def test_after_a_crash_no_other_file_is_believed_over_the_log(
    folder: str, suffix: str, change: str
) -> None:
    """Kafka makes room in its indexes, so that after a crash zeros stand behind the entries."""
    theirs = kafka_s(folder)
    name = next(each for each in theirs if each.endswith(suffix))
    content = theirs[name]
    changed = {
        "cut off": content[:-1],
        "zeros behind it": content + bytes(4096),
        "zeros": bytes(len(content)),
        "another's": kafka_s(FOLDERS[FOLDERS.index(folder) - 1]).get(name, b"\xff" * 24),
    }
    files = files_with(folder, {**theirs, name: changed[change]})
    opened(files, folder, 0).close()
    found = contents_of(files, folder)[name]
    if suffix == ".snapshot":
        assert last_of_each_producer(found) == last_of_each_producer(content)
    else:
        assert found == content


def test_every_record_that_kafka_wrote_is_read() -> None:
    rows = [
        json.loads(line) for line in (SEGMENTS / "gold-expected.jsonl").read_text().splitlines()
    ]
    log = opened(files_with("gold-0", kafka_s("gold-0")), "gold-0", None)
    wanted = [(row["offset"], row["value"]) for row in rows]
    assert [
        (at, None if value is None else value.decode()) for at, value in values_of(log)
    ] == wanted
    rows = json.loads((SEGMENTS / "goldtx-expected.json").read_text())
    log = opened(files_with("goldtx-0", kafka_s("goldtx-0")), "goldtx-0", None)
    assert values_of(log) == [(row["offset"], row["value"].encode()) for row in rows]
