"""Compaction: of all records with one key only the last is kept.

A compaction is planned and brought to its end by the owner of the log; in between it runs in any
thread, on files of its own, and touches nothing that the log uses:

    plan      which segments may be cleaned: not the active one, nothing that readers cannot see
              or that is too young, nothing of an open transaction
    run       the keys behind the last compaction are noted with their last offsets; then segments
              are rewritten in groups, each into one segment (`.cleaned`), which is synced
    arm       the cleaned segment becomes `.swap`: from then on a crash finishes the replacement
    replace   it takes the place of the old ones, whose files are renamed `.deleted`

The last batch of each group and the last five of each producer stay, without records if need be: so
offsets and sequences go on where they were, and what a producer sends again, because a crash took
the answer, is known to be there. (Kafka's cleaner keeps only the last one.) What an aborted
transaction wrote goes; its marker goes after it, when the delete horizon has passed.

Kafka: LogCleaner, Cleaner, LogCleanerManager, CleanedTransactionMetadata.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from ottla.errors import CorruptRecords
from ottla.log.indexes import AbortedTransaction, decode_aborted
from ottla.log.producer_state import BATCHES_REMEMBERED
from ottla.log.recovery import CLEANED
from ottla.log.segment import SUFFIXES, Segment, file_name
from ottla.records.batch import BatchHeader, check_crc, read_header
from ottla.records.compaction import (
    DELETE_HORIZON,
    LatestOffsets,
    empty_batch,
    filter_batch,
    index_keys,
    with_delete_horizon,
)
from ottla.records.markers import read_marker

if TYPE_CHECKING:
    from ottla.log.config import LogConfig
    from ottla.log.files import Files
    from ottla.log.producer_state import ProducerState
    from ottla.wire import Buffer

_WRITE_BYTES = 1 << 20
_OFFSETS_MAX = 0x7FFFFFFF


class Old(NamedTuple):
    """A segment that may be cleaned: where it begins and ends (exclusive), and its bytes."""

    base_offset: int
    end_offset: int
    size: int


class Plan(NamedTuple):
    """What is to be compacted.

    Attributes:
        folder: the partition's folder.
        config: the topic's settings.
        segments: all segments before the first that must not be cleaned.
        first_dirty: everything before this offset has been compacted.
        end: where the segments end, exclusive.
        last_offsets: the last offset of each active producer, by producer id.
        is_due: whether there is enough to make it worth while, or something has become too old.
        dirty_ratio: the part of the bytes that has not been compacted yet.
    """

    folder: str
    config: LogConfig
    segments: list[Old]
    first_dirty: int
    end: int
    last_offsets: dict[int, int]
    is_due: bool

    dirty_ratio: float


def plan(
    folder: str,
    config: LogConfig,
    closed: list[tuple[Segment, int]],
    first_dirty: int,
    producers: ProducerState,
    now_ms: int,
) -> Plan | None:
    """Return what could be compacted now, or None where there is nothing.

    Args:
        folder: the partition's folder.
        config: the topic's settings.
        closed: the first segments that nothing but their age may keep from being cleaned, each
            with the offset behind it.
        first_dirty: everything before this offset has been compacted.
        producers: the partition's producers.
        now_ms: milliseconds since 1970.
    """
    segments: list[Old] = []
    dirty: list[Segment] = []
    for segment, end in closed:
        if now_ms - segment.max_timestamp < config.min_compaction_lag_ms:
            break
        segments.append(Old(segment.base_offset, end, segment.size))
        if end > first_dirty:
            dirty.append(segment)
    if not dirty:
        return None
    ratio = sum(each.size for each in dirty) / (sum(each.size for each in segments) or 1)
    is_old = now_ms - (dirty[0].first_timestamp or now_ms) > config.max_compaction_lag_ms
    return Plan(
        folder,
        config,
        segments,
        max(first_dirty, segments[0].base_offset),
        segments[-1].end_offset,
        producers.last_offsets(),
        is_old or ratio > config.min_cleanable_dirty_ratio,
        ratio,
    )


class Group(NamedTuple):
    """Segments that a cleaned one is to replace.

    Attributes:
        base_offset: where they begin, and the cleaned one too.
        replaced: their base offsets.
    """

    base_offset: int
    replaced: list[int]


Pace = Callable[[int], None]
"""Called with the bytes that were read or written; it waits, so that others get on."""


class Compaction:
    """One run over one log.

    Args:
        files: the files, for this thread.
        plan: what to do.
        now_ms: milliseconds since 1970.
        keys_bytes_max: how much memory the keys may take; what does not fit waits for another run.
        pace: keeps the run from taking all of the disk and the processor.

    Attributes:
        clean_until: everything before this offset is compacted when all groups are replaced.
    """

    def __init__(
        self, files: Files, plan: Plan, now_ms: int, keys_bytes_max: int, pace: Pace
    ) -> None:
        self.clean_until = plan.first_dirty
        self._files = files
        self._plan = plan
        self._now_ms = now_ms
        self._keys_bytes_max = keys_bytes_max
        self._pace = pace
        self._latest = LatestOffsets(pace)
        self._last_batches: dict[int, deque[int]] = {}
        self._transactions = _Transactions(self._aborted(0))

    def run(self) -> Iterator[Group]:
        """Do it, one group of segments after the other.

        Each group that is yielded is armed and replaced before the next is asked for.

        Raises:
            CorruptLog: there is damage; nothing of its group was changed.
            StorageError: a file cannot be read or written.
        """
        self._index_keys()
        for group in self._groups():
            self._clean(group)
            yield group
        self._latest.forget()

    def _segment(self, base_offset: int) -> Segment:
        return Segment.open(self._files, self._plan.folder, base_offset, self._plan.config)

    def _batches(self, base_offset: int) -> Iterator[tuple[BatchHeader, memoryview]]:
        """Iterate over a segment's batches, each checked."""
        segment = self._segment(base_offset)
        try:
            for position, _, batch in segment.headers():
                header = read_header(batch)
                try:
                    check_crc(batch, header)
                    yield header, batch
                except CorruptRecords as error:
                    raise segment.corrupt(position, error) from error
                self._pace(header.size)
        finally:
            segment.close()

    def _index_keys(self) -> None:
        """Note the last offset of each key behind the last compaction, as far as they fit."""
        first_dirty = self._plan.first_dirty
        transactions = _Transactions(self._aborted(first_dirty))
        used = 0
        for old in self._plan.segments:
            if old.end_offset <= first_dirty:
                self._note_all_batches(old)
                continue
            for header, batch in self._batches(old.base_offset):
                self._note_batch(header)
                if not transactions.can_discard(header, batch) and not header.is_control:
                    used += index_keys(batch, header, self._latest, first_dirty)
                self.clean_until = max(self.clean_until, header.last_offset + 1)
                if used >= self._keys_bytes_max:
                    return
        self.clean_until = self._plan.end

    def _note_all_batches(self, old: Old) -> None:
        segment = self._segment(old.base_offset)
        try:
            for _, header, _ in segment.headers():
                self._note_batch(header)
                self._pace(header.size)
        finally:
            segment.close()

    def _note_batch(self, header: BatchHeader) -> None:
        """Note the last batches of each active producer: one may be on its way once more.

        None of a transaction that has ended is: its producer waits for all answers before.
        """
        if header.producer_id in self._plan.last_offsets and not header.is_transactional:
            last = self._last_batches.get(header.producer_id)
            if last is None:
                last = self._last_batches[header.producer_id] = deque(maxlen=BATCHES_REMEMBERED)
            last.append(header.last_offset)

    def _aborted(self, offset: int) -> list[AbortedTransaction]:
        """Return the aborted transactions that ended at or behind an offset."""
        found: list[AbortedTransaction] = []
        for old in self._plan.segments:
            path = f"{self._plan.folder}/{file_name(old.base_offset, '.txnindex')}"
            found += decode_aborted(self._files.read(path) or b"", path)
        return [each for each in found if each.last_offset >= offset]

    def _groups(self) -> list[Group]:
        """Put segments together that will fit into one. Kafka: Cleaner.groupSegmentsBySize."""
        groups: list[Group] = []
        size = 0
        for old in self._plan.segments:
            if old.base_offset >= self.clean_until:
                break
            fits = (
                groups
                and size + old.size <= self._plan.config.segment_bytes
                and old.base_offset - groups[-1].base_offset < _OFFSETS_MAX // 2
            )
            if not fits:
                groups.append(Group(old.base_offset, []))
                size = 0
            groups[-1].replaced.append(old.base_offset)
            size += old.size
        return groups

    def _clean(self, group: Group) -> None:
        """Write a group's cleaned segment, and make it durable."""
        files, folder = self._files, self._plan.folder
        for suffix in SUFFIXES:
            files.remove(f"{folder}/{file_name(group.base_offset, suffix)}{CLEANED}")
        cleaned = Segment.create(files, folder, group.base_offset, self._plan.config, CLEANED)
        try:
            self._filter(group, cleaned)
            cleaned.log.begin_sync()()
            cleaned.log.end_sync()
            for path, content in cleaned.indexes():
                files.write(path, content)
        finally:
            cleaned.close()

    def _filter(self, group: Group, cleaned: Segment) -> None:
        """Write what stays of a group."""
        last: tuple[BatchHeader, Buffer | None] | None = None
        for base_offset in group.replaced:
            for header, batch in self._batches(base_offset):
                if last is not None:
                    self._append(cleaned, *last)
                last = (header, self._kept(header, batch))
        if last is not None:
            header, kept = last
            self._append(cleaned, header, empty_batch(header) if kept is None else kept)
        cleaned.aborted.extend(self._transactions.take_still_needed())

    def _append(self, cleaned: Segment, header: BatchHeader, kept: Buffer | None) -> None:
        if kept is not None:
            cleaned.append([kept], read_header(kept), header.last_offset)
            self._pace(len(kept))

    def _kept(self, header: BatchHeader, batch: memoryview) -> Buffer | None:
        """Return what stays of a batch, or None. Kafka: Cleaner.cleanInto."""
        can_discard = self._transactions.can_discard(header, batch)
        retention_ms = self._plan.config.delete_retention_ms
        kept: Buffer | None
        if header.records_count == 0:
            kept = None
        elif header.is_control:
            kept = self._kept_marker(header, batch, can_discard)
        elif can_discard:
            kept = None
        else:
            kept = filter_batch(
                batch, header, self._latest, self.clean_until, self._now_ms, retention_ms
            )
        is_last = self._plan.last_offsets.get(header.producer_id) == header.last_offset
        is_last = is_last or header.last_offset in self._last_batches.get(header.producer_id, ())
        return empty_batch(header) if kept is None and is_last else kept

    def _kept_marker(
        self, header: BatchHeader, batch: memoryview, can_discard: bool
    ) -> Buffer | None:
        """Return a transaction's marker, with a delete horizon once nothing else is left of it."""
        if not can_discard:
            return batch
        if header.attributes & DELETE_HORIZON:
            return None if header.base_timestamp <= self._now_ms else batch
        horizon_ms = self._now_ms + self._plan.config.delete_retention_ms
        return with_delete_horizon(batch, header, horizon_ms)


class _Transactions:
    """Which batches belong to aborted transactions. Kafka: CleanedTransactionMetadata."""

    def __init__(self, aborted: list[AbortedTransaction]) -> None:
        self._aborted = sorted(aborted, key=lambda each: each.first_offset, reverse=True)
        self._ongoing: dict[int, AbortedTransaction] = {}
        self._seen: set[int] = set()
        self._committed: set[int] = set()
        self._still_needed: list[AbortedTransaction] = []

    def take_still_needed(self) -> list[AbortedTransaction]:
        """Return the aborted transactions of which batches were seen since the last call.

        Whoever began to read before those went must know of them.
        """
        taken, self._still_needed = self._still_needed, []
        return taken

    def can_discard(self, header: BatchHeader, batch: memoryview) -> bool:
        """Tell whether a batch is of an aborted transaction, or a marker with nothing before it."""
        while self._aborted and self._aborted[-1].first_offset <= header.last_offset:
            aborted = self._aborted.pop()
            self._ongoing[aborted.producer_id] = aborted
        producer_id = header.producer_id
        if not header.is_control:
            if not header.is_transactional:
                return False
            if producer_id in self._ongoing:
                self._seen.add(producer_id)
                return True
            self._committed.add(producer_id)
            return False
        marker = read_marker(batch, header)
        if marker is None:
            return False
        if marker.is_abort:
            ended = self._ongoing.pop(producer_id, None)
            was_seen = producer_id in self._seen
            self._seen.discard(producer_id)
            if ended is not None and was_seen:
                self._still_needed.append(ended)
            return not was_seen
        was_committed = producer_id in self._committed
        self._committed.discard(producer_id)
        return not was_committed
