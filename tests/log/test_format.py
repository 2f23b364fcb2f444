"""docs/format.md is true: its names, layouts and orders are those of the code."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ottla.clock import ManualClock
from ottla.coordinator.cluster.records import MetadataCodec
from ottla.errors import StorageError
from ottla.log import checkpoints
from ottla.log.compaction import Compaction
from ottla.log.config import LogConfig
from ottla.log.files import LOCK_NAME, OWNER_NAME
from ottla.log.indexes import AbortedTransaction, OffsetIndex, TimeIndex
from ottla.log.log_dir import CLEAN_SHUTDOWN, RESERVE, RESERVE_BYTES, LogDir
from ottla.log.memory_files import MemoryFiles
from ottla.log.partition_log import PartitionLog
from ottla.log.producer_state import ProducerState
from ottla.log.recovery import CLEANED, CUT, SWAP
from ottla.log.segment import DELETED, SUFFIXES, file_name
from ottla.protocol.messages import metadata_records
from ottla.records import batch as batches
from ottla.records.batch import read_header
from ottla.records.compaction import DELETE_HORIZON
from tests.log.test_compaction import pairs
from tests.log.writing import NOW, TOPIC_ID, append, batch, save, sync

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "format.md").read_text()
SEGMENTS = Path(__file__).parents[1] / "data" / "segments"
INTEGERS = {1: "b", 2: "h", 4: "i", 8: "q"}
CONFIG = LogConfig(compact=True, delete=False, segment_bytes=300)

IN_STORE = {
    LOCK_NAME,
    OWNER_NAME,
    RESERVE,
    CLEAN_SHUTDOWN,
    checkpoints.META_PROPERTIES,
    checkpoints.RECOVERY_POINTS,
    checkpoints.LOG_STARTS,
    checkpoints.CLEANER_OFFSETS,
    "TOPIC-PARTITION",
    "TOPIC-PARTITION.UUID-delete",
    "TOPIC-PARTITION.UUID-stray",
}
IN_PARTITION = {
    *(f"OFFSET{suffix}" for suffix in (*SUFFIXES, ".snapshot")),
    checkpoints.LEADER_EPOCHS,
    checkpoints.PARTITION_METADATA,
    *(f"*{suffix}" for suffix in (".tmp", CLEANED, SWAP, DELETED)),
    f"OFFSET.log.POSITION{CUT}",
}


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def block(title: str) -> str:
    return section(title).split("```text\n")[1].split("```")[0]


def layout(fields: list[tuple[str, int]]) -> tuple[list[str], struct.Struct]:
    names = [name for name, _ in fields]
    return names, struct.Struct(">" + "".join(INTEGERS[size] for _, size in fields))


def entries_of(name: str) -> tuple[list[str], struct.Struct]:
    text = re.sub(r"\n {5,}", " ", block("Entries"))
    [line] = [each for each in text.splitlines() if each.split()[0] == name]
    return layout([(field, int(size)) for field, size in re.findall(r"(\w+) (\d)\b", line)])


# -- names


@pytest.mark.parametrize(
    ("title", "names"),
    [("In the store's folder", IN_STORE), ("In a partition's folder", IN_PARTITION)],
)
def test_every_file_of_a_store_is_on_the_page_and_no_other(title: str, names: set[str]) -> None:
    assert set(re.findall(r"^\| `([^`]+)` \|", section(title), re.MULTILINE)) == names


def test_what_stands_in_small_files_is_as_on_the_page() -> None:
    assert f"{RESERVE_BYTES} bytes" in PAGE
    files = Steps()
    store = LogDir.open(files, "store", ManualClock())
    append(store.open_log("t", 0, TOPIC_ID, CONFIG), b"a")
    store.close()
    assert f"`{(files.read('store/.kafka_cleanshutdown') or b'').decode()}`" in PAGE
    properties = checkpoints.decode_properties(files.read("store/meta.properties") or b"")
    assert list(properties) == ["version", "cluster.id", "node.id", "directory.id"]
    assert f"`version={properties['version']}`" in PAGE
    assert (files.read(f"store/{checkpoints.RECOVERY_POINTS}") or b"") == b"0\n1\nt 0 1\n"
    assert (files.read(f"store/t-0/{checkpoints.LEADER_EPOCHS}") or b"") == b"0\n1\n0 0\n"


def test_the_records_of_the_metadata_are_as_on_the_page() -> None:
    found = re.findall(r"(\w+Record) (\d+)", section("In the store's folder"))
    classes = [getattr(metadata_records, name) for name, _ in found]
    assert [str(cls.API_KEY) for cls in classes] == [key for _, key in found]
    record = metadata_records.RemoveTopicRecord(topic_id=TOPIC_ID)
    key, value = MetadataCodec().encode(record)
    assert key is None
    assert (value or b"")[:3] == bytes([1, record.API_KEY, 0])
    assert len(found) == 5


# -- layouts


def test_a_batch_s_header_is_laid_out_as_on_the_page() -> None:
    rows = re.findall(r"^ *(\d+) {1,2}(\d) {6}(\w+)", block("Record batches"), re.MULTILINE)
    at = 0
    for start, size, _ in rows:
        assert int(start) == at
        at += int(size)
    assert at == batches.HEADER_BYTES
    names, whole = layout([(name, int(size)) for _, size, name in rows])
    data = bytes(batch(b"a", b"bc", producer=(1 << 40, 7, 1 << 20)))
    found = dict(zip(names, whole.unpack_from(data), strict=True))
    header = read_header(data)
    assert found.pop("batch_length") == header.size - batches.LENGTH_END
    assert found.pop("crc") & 0xFFFFFFFF == header.crc
    assert found == {name: getattr(header, name) for name in found}
    assert len(found) == 11


def test_the_attributes_of_a_batch_are_as_on_the_page() -> None:
    found = re.findall(r"`(0x\d\d)` ([a-z ]+)", section("Record batches").replace("\n", " "))
    assert [(int(mask, 16), name.strip()) for mask, name in found] == [
        (batches.CODEC_MASK, "codec"),
        (batches.LOG_APPEND_TIME, "log append time"),
        (batches.TRANSACTIONAL, "transactional"),
        (batches.CONTROL, "control"),
        (DELETE_HORIZON, "delete horizon"),
    ]


def test_entries_of_indexes_are_laid_out_as_on_the_page() -> None:
    index, times = OffsetIndex(100), TimeIndex(100)
    index.append(107, 4711)
    times.maybe_append(NOW, 107)
    aborted = AbortedTransaction(1, 2, 3, 4)
    for name, content, values in (
        (".index", index.content(), (7, 4711)),
        (".timeindex", times.content(), (NOW, 7)),
        (".txnindex", aborted.encode(), (0, *aborted)),
    ):
        _, whole = entries_of(name)
        assert whole.size == len(content), name
        assert whole.unpack(content) == values, name
    assert entries_of(".txnindex")[0][1:] == list(AbortedTransaction._fields)


def test_a_snapshot_is_laid_out_as_on_the_page() -> None:
    content = (SEGMENTS / "gold-0" / file_name(250, ".snapshot")).read_bytes()
    _, head = entries_of(".snapshot")
    version, _, count = head.unpack_from(content)
    names, whole = entries_of("each")
    assert (version, head.size + count * whole.size) == (1, len(content))
    state = ProducerState.load(content, "snapshot")
    for number in range(count):
        values = whole.unpack_from(content, head.size + number * whole.size)
        found = dict(zip(names, values, strict=True))
        entry = state.get(found["producer_id"])
        assert entry is not None
        last = entry.batches[-1]
        assert found["epoch"] == entry.epoch
        assert found["last_sequence"] == last.last_sequence
        assert found["last_offset"] == last.last_offset
        assert found["offset_delta"] == last.last_sequence - last.first_sequence
        assert found["timestamp"] == entry.last_timestamp
        assert found["coordinator_epoch"] == entry.coordinator_epoch
        assert found["current_txn_first_offset"] == entry.current_txn_first_offset


# -- orders


class Steps(MemoryFiles):
    """Files that note what is done to them, in the words of the page."""

    def __init__(self) -> None:
        super().__init__()
        self._noted: list[tuple[str, str]] = []
        self._is_inside = False

    def step(self, what: str, path: str) -> None:
        if not self._is_inside and what not in ("read", "list", "open", "miss", "rename"):
            self._note(what, path)

    def write(self, path: str, content: bytes) -> None:
        self._as_one("save", path, lambda: MemoryFiles.write(self, path, content))

    def write_draft(self, path: str, content: bytes) -> None:
        self._as_one("draft", path, lambda: MemoryFiles.write_draft(self, path, content))

    def _as_one(self, what: str, path: str, do: Callable[[], None]) -> None:
        was_inside, self._is_inside = self._is_inside, True
        do()
        self._is_inside = was_inside
        if not was_inside:
            self._note(what, path)

    def rename(self, old: str, new: str) -> None:
        super().rename(old, new)
        if self._is_inside:
            return
        if new.endswith((DELETED, "-delete")):
            self._note("hide", old)
        elif new.endswith(SWAP):
            self._note("arm", new.removesuffix(SWAP))
        else:
            self._note("publish" if old.endswith(".tmp") else "place", new)

    def remove(self, path: str) -> None:
        if path.endswith("-delete"):
            self._as_one("remove", "store/t-0", lambda: MemoryFiles.remove(self, path))
        else:
            super().remove(path)

    def _note(self, what: str, path: str) -> None:
        what = what.removesuffix(" folder")
        name = re.sub(r"^\d{20}", "", path.rpartition("/")[2])
        self._noted.append((what, {".": "above", "t-0": "folder"}.get(name, name)))

    def taken(self) -> list[str]:
        """Return what was noted since; files with which the same was done stand together."""
        lines: list[str] = []
        before = ""
        for what, name in self._noted:
            if what == before and what != "write":
                lines[-1] += f" {name}"
            else:
                lines.append(f"{what} {name}")
            before = what
        self._noted.clear()
        return lines


class Life:
    """A store with one partition, to which something on the page happens.

    Args:
        segments: how many segments it begins with; each has one record, and all is saved.
    """

    def __init__(self, segments: int = 0) -> None:
        self.files = Steps()
        self.store = LogDir.open(self.files, "store", ManualClock())
        self.log: PartitionLog
        if segments:
            self.open_log()
            for _ in range(segments):
                self.write()
            self.save()
            self.files.taken()

    def open_log(self) -> None:
        self.log = self.store.open_log("t", 0, TOPIC_ID, CONFIG)

    def write(self) -> None:
        data = pairs((b"k", b"v" * 80))
        self.log.append(data, read_header(data))
        sync(self.log)

    def write_more(self) -> None:
        """Write a record into the segment that there is."""
        self.log.configure(LogConfig())
        self.write()
        self.log.configure(CONFIG)

    def save(self) -> None:
        save(self.log, self.files)
        self.store.note_recovery_points()()

    def open_again(self, *, cleanly: bool) -> None:
        if cleanly:
            self.store.close()
        else:
            self.write_more()
            self.store.abandon()
        self.files.taken()
        self.store = LogDir.open(self.files, "store", ManualClock())
        self.open_log()

    def record_at_a_recovery_point(self) -> None:
        data = pairs((b"k", b"v"))
        self.log.configure(LogConfig())
        self.log.append(data, read_header(data))
        self.save()

    def compact(self) -> None:
        plan = self.log.plan_compaction(0)
        assert plan is not None
        compaction = Compaction(self.files, plan, NOW, 1 << 20, lambda count: None)
        for group in compaction.run():
            assert self.log.arm(group)
            self.files.sync_folder(self.log.folder)
            self.log.replace(group)()
        self.store.cleaned.note({("t", 0): compaction.clean_until})()

    def delete_records(self) -> None:
        self.log.move_start(1)
        self.store.note_log_starts()()
        self._remove(self.log.remove_old_segments())

    def retain(self) -> None:
        self.log.configure(LogConfig(segment_bytes=300, retention_bytes=1))
        self._remove(self.log.apply_retention())

    def _remove(self, remove: Callable[[], None] | None) -> None:
        assert remove is not None
        remove()

    def delete_topic(self) -> None:
        self.store.delete_log("t", 0, StorageError("it was deleted"))()

    def stop(self) -> None:
        self.log.configure(LogConfig(segment_bytes=300))
        data = pairs((b"k", b"v"))
        self.log.append(data, read_header(data))
        self.files.taken()
        self.store.close()


def first_record(life: Life) -> None:
    life.files.taken()
    life.open_log()
    life.write()


EVENTS: dict[str, tuple[int, Callable[[Life], None]]] = {
    "new store": (0, lambda life: None),
    "first record": (0, first_record),
    "record": (1, Life.write_more),
    "roll": (1, Life.write),
    "recovery point": (1, Life.record_at_a_recovery_point),
    "compaction": (2, Life.compact),
    "delete records": (2, Life.delete_records),
    "retention": (2, Life.retain),
    "topic deletion": (1, Life.delete_topic),
    "clean stop": (1, Life.stop),
    "start": (1, lambda life: life.open_again(cleanly=True)),
    "after a crash": (1, lambda life: life.open_again(cleanly=False)),
}
"""How many segments there are before, and what happens."""


def on_the_page() -> dict[str, list[str]]:
    text = re.sub(r"\n {5,}", " ", block("What is done in which order"))
    rows = [re.split(r" {2,}", line, maxsplit=1) for line in text.splitlines()]
    return {name: steps.split("; ") for name, steps in rows}


def test_the_page_tells_of_everything_that_is_looked_at_here() -> None:
    assert list(on_the_page()) == list(EVENTS)


@pytest.mark.parametrize("name", EVENTS)
def test_everything_is_done_in_the_order_of_the_page(name: str) -> None:
    segments, happen = EVENTS[name]
    life = Life(segments)
    happen(life)
    assert life.files.taken() == on_the_page()[name]
