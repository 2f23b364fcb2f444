"""A state machine on its log: appended, replayed, told when it is stored, loaded again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.clock import ManualClock
from ottla.coordinator.runtime import Runtime
from ottla.errors import DecodeError, DiskFull, StorageError
from ottla.log.config import LogConfig
from ottla.log.group_commit import GroupCommit
from ottla.log.memory_files import MemoryFile, MemoryFiles
from ottla.log.partition_log import PartitionLog
from ottla.records.batch import iterate_headers, iterate_records, read_header
from ottla.records.builder import BatchBuilder

PASSED_OVER = b"from a later version"


class WordCodec:
    """Records are words; their keys are empty."""

    def encode(self, record: str) -> tuple[bytes | None, bytes | None]:
        return None, record.encode()

    def decode(self, key: bytes | None, value: bytes | None) -> str | None:
        if value is None:
            raise DecodeError("no word")
        return None if value == PASSED_OVER else value.decode()


class Words:
    """A state machine that knows the words that were said, and its log."""

    def __init__(self, files: MemoryFiles, *, recovery_point: int | None = None) -> None:
        self.files = files
        self.said: list[str] = []
        self.commit = GroupCommit()
        self.clock = ManualClock()
        config = LogConfig(segment_bytes=300)
        self.log = PartitionLog.open(
            files, "root", "w", 0, bytes(16), config, self.clock, recovery_point=recovery_point
        )
        self.runtime: Runtime[str] = Runtime(
            self.log, self.commit, WordCodec(), self.said.append, self.clock
        )
        self.runtime.load()

    def sync(self) -> None:
        begun = self.commit.begin()
        assert begun is not None
        self.commit.end(begun.run())

    def append_value(self, value: bytes | None) -> None:
        builder = BatchBuilder()
        builder.append(0, None, value, None, 1 << 20)
        data = builder.build(0, None, -1, -1, -1)
        self.log.append(data, read_header(data))
        self.commit.add(self.log)


def new() -> Words:
    return Words(MemoryFiles(model_power_cuts=True))


def after_power_cut(words: Words) -> Words:
    return Words(words.files.after_power_cut(), recovery_point=0)


def test_what_is_appended_counts_at_once_and_is_told_when_it_is_stored() -> None:
    words = new()
    told: list[StorageError | None] = []
    words.runtime.append(["a", "b"])
    words.runtime.when_stored(told.append)
    assert words.said == ["a", "b"]
    assert told == []
    words.sync()
    assert told == [None]
    words.runtime.when_stored(told.append)
    assert told == [None, None]


def test_records_of_one_decision_are_one_batch_stamped_with_the_time() -> None:
    words = new()
    words.clock.advance(5)
    words.runtime.append(["a", "b", "c"])
    words.sync()
    data = words.log.read(0, 1000, at_least_one=True)
    [header] = iterate_headers(data)
    records = list(iterate_records(data, header))
    assert [record.value for record in records] == [b"a", b"b", b"c"]
    assert {record.timestamp_ms for record in records} == {words.clock.now_ms()}


def test_a_decision_without_records_appends_nothing() -> None:
    words = new()
    words.runtime.append([])
    assert words.log.log_end_offset == 0
    assert not words.commit.is_waiting
    told: list[StorageError | None] = []
    words.runtime.when_stored(told.append)
    assert told == [None]


@given(st.lists(st.lists(st.text(max_size=40), max_size=4), max_size=15), st.data())
def test_after_a_power_cut_everything_is_known_that_was_stored(
    decisions: list[list[str]], data: st.DataObject
) -> None:
    words = new()
    stored: list[str] = []
    for decision in decisions:
        words.runtime.append(decision)
        if words.commit.is_waiting and data.draw(st.booleans()):
            words.sync()
            stored = list(words.said)
    found = after_power_cut(words)
    assert found.said == stored
    found.runtime.append(["more"])
    found.sync()
    assert after_power_cut(found).said == [*stored, "more"]


def test_a_disk_that_is_full_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    words = new()
    words.runtime.append(["a"])

    def full(self: MemoryFile, buffers: object) -> None:
        raise DiskFull("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFile, "append", full)
        with pytest.raises(DiskFull):
            words.runtime.append(["b"])
    assert words.said == ["a"]
    words.runtime.append(["c"])
    words.sync()
    assert after_power_cut(words).said == words.said == ["a", "c"]


def test_a_sync_that_fails_is_told_to_everybody_and_ends_all_appending() -> None:
    words = new()
    words.runtime.append(["a"])
    told: list[StorageError | None] = []
    words.runtime.when_stored(told.append)
    begun = words.commit.begin()
    assert begun is not None
    words.commit.end([StorageError("the disk is gone")])
    assert "the disk is gone" in str(told[0])
    with pytest.raises(StorageError, match="the disk is gone"):
        words.runtime.append(["b"])
    assert words.said == ["a"]
    words.runtime.when_stored(told.append)
    assert told[1] is told[0]


def test_what_is_of_no_concern_is_passed_over() -> None:
    words = new()
    words.runtime.append(["a"])
    words.append_value(PASSED_OVER)
    words.runtime.append(["b"])
    words.sync()
    assert after_power_cut(words).said == ["a", "b"]


def test_a_record_that_cannot_be_read_is_an_error_and_nothing_is_passed_over_in_silence() -> None:
    words = new()
    words.runtime.append(["a"])
    words.append_value(None)
    words.runtime.append(["b"])
    words.sync()
    with pytest.raises(DecodeError, match="no word"):
        after_power_cut(words)


def test_loading_begins_where_the_log_begins() -> None:
    words = new()
    for word in ("a", "b", "c"):
        words.runtime.append([word])
    words.sync()
    words.log.move_start(2)
    again: list[str] = []
    Runtime(words.log, words.commit, WordCodec(), again.append, words.clock).load()
    assert again == ["c"]
