"""Segments that a real Kafka wrote: read with its indexes, and its indexes built from them."""

from __future__ import annotations

import json
import posixpath
from pathlib import Path

import pytest

from ottla.log import checkpoints
from ottla.log.config import LogConfig
from ottla.log.files import OsFiles
from ottla.log.memory_files import MemoryFiles
from ottla.log.producer_state import ProducerState
from ottla.log.segment import Segment, file_name
from ottla.records.batch import iterate_records, read_header

SEGMENTS = Path(__file__).parents[1] / "data" / "segments"
FOLDERS = sorted(path.name for path in SEGMENTS.iterdir() if path.is_dir())


def copy_of(folder: str, *suffixes: str) -> MemoryFiles:
    files = MemoryFiles()
    for path in (SEGMENTS / folder).iterdir():
        if path.suffix in suffixes:
            files.write(f"f/{path.name}", path.read_bytes())
    return files


@pytest.mark.parametrize("folder", FOLDERS)
def test_indexes_are_built_as_kafka_built_them(folder: str) -> None:
    files = copy_of(folder, ".log")
    # The topic gold had index.interval.bytes=512.
    config = LogConfig(index_interval_bytes=512 if folder == "gold-0" else 4096)
    segment = Segment.open(files, "f", 0, config)
    assert segment.trust_until(0) == 0
    assert segment.recover(lambda found: None, 0, 0, 0) > 0
    assert not segment.damages
    for path, content in segment.indexes():
        assert content == (SEGMENTS / folder / posixpath.basename(path)).read_bytes(), path


@pytest.mark.parametrize("folder", FOLDERS)
def test_snapshots_are_written_as_kafka_wrote_them(folder: str) -> None:
    [path] = [
        path
        for path in (SEGMENTS / folder).glob("*.snapshot")
        if path.name != file_name(0, ".snapshot")
    ]
    content = path.read_bytes()
    assert ProducerState.load(content, str(path)).snapshot() == content


@pytest.mark.parametrize("folder", FOLDERS)
def test_checkpoints_are_written_as_kafka_wrote_them(folder: str) -> None:
    epochs = (SEGMENTS / folder / checkpoints.LEADER_EPOCHS).read_bytes()
    assert checkpoints.encode_epochs(checkpoints.decode_epochs(epochs, "e")) == epochs
    metadata = (SEGMENTS / folder / checkpoints.PARTITION_METADATA).read_bytes()
    topic_id = checkpoints.decode_partition_metadata(metadata, "m")
    assert topic_id is not None
    assert checkpoints.encode_partition_metadata(topic_id) == metadata


def gold() -> tuple[Segment, list[dict[str, object]]]:
    segment = Segment.open(OsFiles(), str(SEGMENTS / "gold-0"), 0, LogConfig())
    lines = (SEGMENTS / "gold-expected.jsonl").read_text().splitlines()
    return segment, [json.loads(line) for line in lines]


def test_every_offset_is_found_with_kafka_s_index() -> None:
    segment, expected = gold()
    for record in expected:
        offset = record["offset"]
        assert isinstance(offset, int)
        data = segment.read(segment.position_of(offset), 1, segment.size, True)
        found = [each.offset for each in iterate_records(data, read_header(data))]
        assert offset in found
    segment.close()


def test_every_time_is_found_with_kafka_s_time_index() -> None:
    segment, expected = gold()
    for record in expected:
        timestamp = record["timestamp"]
        assert isinstance(timestamp, int)
        first = next(
            each["offset"]
            for each in expected
            if isinstance(each["timestamp"], int) and each["timestamp"] >= timestamp
        )
        found = segment.first_at_or_after(timestamp, 0)
        assert found is not None
        assert found[0] == first
    segment.close()
