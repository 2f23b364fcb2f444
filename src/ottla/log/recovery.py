"""Opening a partition's segments: trusted after a clean stop, checked after any other.

After a crash every batch from the recovery point on is checked, and the indexes and the producers'
state are brought up to the end from them. What a crash may leave is a torn tail: the last batches,
written in part and acknowledged to nobody; it is cut off and told.

Any other bad batch is damage, and nothing behind damage is ever dropped in silence: the log is
opened with all that is intact before and behind it, and refuses writes. What tells the two apart:
behind a torn tail there is nothing intact, and nothing of it lies before the recovery point. A disk
writes in any order, so of batches that waited for the same sync a later one may be there and an
earlier one not; where a whole sector is zeros nothing was written yet, and so nobody was told of
anything behind it. That tail is cut off too, and kept in a file beside the segment. Only
where a topic's records are acknowledged before they are on the disk may a power cut leave intact
batches behind a torn one, since a disk writes in any order; then they are cut off together, and
kept in a file beside the segment.

What a crash leaves of a compaction is put right first: a replacement that was complete
(`.log.swap`) takes the place of what it replaces, one that was not (`.log.cleaned`) goes, and so
does what was to be removed (`.deleted`).

Kafka: LogLoader.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from ottla.errors import CorruptLog, CorruptRecords
from ottla.log.indexes import AbortedTransaction
from ottla.log.producer_state import CompletedTransaction, ProducerState
from ottla.log.scan import Batch, Damage, find_intact, find_unwritten, scan
from ottla.log.segment import DELETED, SUFFIXES, Segment, file_name
from ottla.records.batch import read_header
from ottla.records.markers import read_marker

if TYPE_CHECKING:
    from ottla.log.config import LogConfig
    from ottla.log.files import Files
    from ottla.records.batch import BatchHeader
    from ottla.wire import Buffer

CLEANED, SWAP, CUT = ".cleaned", ".swap", ".cut"
_LEFTOVERS = (CLEANED, DELETED, ".tmp")
_OFFSET = r"(\d{20})"
_EVERY_OFFSET = 1 << 63


@dataclass(frozen=True)
class Cut:
    """A torn tail that was cut off.

    Attributes:
        path: the file.
        position: where it was cut, in bytes.
        size: how many bytes were cut off.
        reason: what was wrong with them.
        kept: the file where they are kept, "" where there was no intact batch in them.
    """

    path: str
    position: int
    size: int
    reason: str
    kept: str = ""

    def __str__(self) -> str:
        kept = f"; they are kept in {self.kept}" if self.kept else ""
        return (
            f"{self.path}: cut off {self.size} bytes at byte {self.position} that a crash left "
            f"unfinished and nobody was told were stored ({self.reason}){kept}"
        )


@dataclass
class Recovered:
    """A partition's segments as they were found.

    Attributes:
        segments: in order of their offsets; the last one is active.
        next_offset: the offset behind the last record, exclusive.
        producers: the state of the producers at `next_offset`.
        cuts: what was cut off.
        damage: the first damage that is no torn tail, or None.
        checked: segments of which something was checked, and may not be on the disk yet.
        beginnings: snapshots of the producers' states at the beginnings of segments, by offset,
            as far as they were read.
    """

    segments: list[Segment]
    next_offset: int
    producers: ProducerState
    cuts: list[Cut] = field(default_factory=list)
    damage: CorruptLog | None = None
    checked: list[Segment] = field(default_factory=list)
    beginnings: dict[int, bytes] = field(default_factory=dict)


def load(
    files: Files, folder: str, config: LogConfig, recovery_point: int | None, contiguous_from: int
) -> Recovered:
    """Open the segments in a partition's folder.

    Args:
        files: where the folder is.
        folder: the folder; one without segments gets its first.
        config: the topic's settings.
        recovery_point: everything before this offset is known to be good; None after a clean stop.
        contiguous_from: from this offset on no offset is missing.

    Raises:
        CorruptLog: a batch cannot be read that must be.
        StorageError: a file cannot be read.
    """
    names = files.list(folder)
    if any(name.endswith((SWAP, *_LEFTOVERS)) for name in names):
        _put_right(files, folder, names)
        names = files.list(folder)
    bases = offsets_of(names, ".log")
    if not bases:
        return Recovered([Segment.create(files, folder, 0, config)], 0, ProducerState())
    snapshots = offsets_of(names, ".snapshot")
    opened = files, folder, config, bases, contiguous_from
    if recovery_point is None:
        try:
            return _load_clean(files, folder, _open_all(*opened), snapshots)
        except CorruptLog:
            recovery_point = _EVERY_OFFSET  # nothing of it is what a crash left
    checked = _Checked(files, folder, config, _open_all(*opened), snapshots)
    checked.check(recovery_point, contiguous_from)
    return checked.result


def offsets_of(names: list[str], suffix: str) -> list[int]:
    """Return the offsets that a partition's files with a suffix are named after, sorted."""
    pattern = re.compile(_OFFSET + re.escape(suffix))
    return sorted(int(found[1]) for name in names if (found := pattern.fullmatch(name)))


def _put_right(files: Files, folder: str, names: list[str]) -> None:
    """Finish what a crash interrupted. Kafka: LogLoader.removeTempFilesAndCollectSwapFiles."""
    for name in names:
        if name.endswith(_LEFTOVERS):
            files.remove(f"{folder}/{name}")
    bases = offsets_of(names, ".log")
    for base in offsets_of(names, f".log{SWAP}"):
        swap = f"{folder}/{file_name(base, '.log')}{SWAP}"
        next_offset = base
        for found in scan(files.open(swap, create=False), 0, base, 1 << 63):
            if isinstance(found, Damage):
                raise CorruptLog(swap, found.start, found.reason)
            next_offset = found.header.last_offset + 1
        for replaced in bases:
            if base < replaced < next_offset:
                remove_segment(files, folder, replaced)
        for suffix in SUFFIXES[1:]:
            stem = f"{folder}/{file_name(base, suffix)}"
            if files.read(stem + SWAP) is not None:
                files.rename(stem + SWAP, stem)
        files.rename(swap, f"{folder}/{file_name(base, '.log')}")
    for name in names:
        if name.endswith(SWAP):
            files.remove(f"{folder}/{name}")
    files.sync_folder(folder)


def aborted_transaction(
    completed: CompletedTransaction, producers: ProducerState
) -> AbortedTransaction:
    """Return the entry of the transaction index for a transaction that was aborted.

    Kafka: ProducerStateManager.lastStableOffset.
    """
    last_stable_offset = min(producers.first_open_offset(), completed.last_offset + 1)
    return AbortedTransaction(
        completed.producer_id, completed.first_offset, completed.last_offset, last_stable_offset
    )


def unwritable(damage: CorruptLog) -> CorruptLog:
    """Return an error for damage that says what it means for a partition, and what to do."""
    damage.effect = (
        "Nothing was cut off. What is intact before and behind it can be read; "
        "nothing can be written."
    )
    damage.next_steps = (
        "Stop the broker and run `ottla fsck` on the store: it shows what is lost, and "
        "with --repair it makes the partition writable again.",
    )
    return damage


def remove_segment(files: Files, folder: str, base_offset: int) -> None:
    """Remove the files of a segment."""
    for suffix in SUFFIXES:
        files.remove(f"{folder}/{file_name(base_offset, suffix)}")


def _open_all(
    files: Files, folder: str, config: LogConfig, bases: list[int], contiguous_from: int
) -> list[Segment]:
    segments = [Segment.open(files, folder, base, config) for base in bases]
    for segment in segments:
        segment.is_contiguous = segment.base_offset >= contiguous_from and not config.compact
    return segments


def _load_clean(
    files: Files, folder: str, segments: list[Segment], snapshots: list[int]
) -> Recovered:
    next_offset = segments[-1].next_offset()
    producers, start = _load_snapshot(files, folder, snapshots, next_offset)
    _replay(segments, producers, start)
    return Recovered(segments, next_offset, producers)


def _load_snapshot(
    files: Files, folder: str, snapshots: list[int], offset_max: int
) -> tuple[ProducerState, int]:
    """Return the newest good snapshot at or before an offset, and the offset that it stands for.

    A damaged snapshot is passed over: what it held is in the log as well.
    """
    for offset in reversed(snapshots):
        path = f"{folder}/{file_name(offset, '.snapshot')}"
        content = files.read(path)
        if offset <= offset_max and content is not None:
            with contextlib.suppress(CorruptLog):
                return ProducerState.load(content, path), offset
    return ProducerState(), 0


def _replay(
    segments: list[Segment], producers: ProducerState, start: int, end: int = 1 << 63
) -> None:
    """Bring the producers' state up to an offset from the batches behind a snapshot."""
    if start >= end:
        return
    for segment, following in zip_longest(segments, segments[1:]):
        if following is not None and following.base_offset <= start:
            continue
        if max(segment.base_offset, start) >= end:
            return
        position = segment.position_of(start) if start > segment.base_offset else 0
        for _, header, batch in segment.headers(position):
            if header.base_offset >= end:
                return
            if header.base_offset >= start:
                _note(producers, header, batch)
            if header.last_offset + 1 >= end:
                return  # what comes behind may be torn


def _note(
    producers: ProducerState, header: BatchHeader, batch: Buffer
) -> CompletedTransaction | None:
    """Have the producers' state follow a batch; returns the transaction that it ended, if any."""
    marker = None
    if header.is_control:
        # `header` may stand anywhere in a larger buffer; what is read here begins with it. A marker
        # that cannot be read is damage, which whoever reads or checks the batch is told.
        with contextlib.suppress(CorruptRecords):
            marker = read_marker(batch, read_header(batch))
    return producers.update(header, header.base_offset, marker)


class _Problem(NamedTuple):
    """Where something is wrong; damage without an end is that offsets before a segment are gone."""

    segment: Segment
    damage: Damage


class _Checked:
    """A partition's segments after a stop that was not clean."""

    def __init__(
        self,
        files: Files,
        folder: str,
        config: LogConfig,
        segments: list[Segment],
        snapshots: list[int],
    ) -> None:
        self._files = files
        self._folder = folder
        self._config = config
        self._snapshots = snapshots
        self.result = Recovered(segments, 0, ProducerState())

    def check(self, recovery_point: int, contiguous_from: int) -> None:
        """Check what lies behind the recovery point, and cut off a torn tail."""
        problem = self._read(recovery_point, contiguous_from)
        if problem is not None and self._is_torn(problem, recovery_point):
            self._cut(problem)
            problem = self._read(recovery_point, contiguous_from)
        if problem is not None:
            self.result.damage = unwritable(problem.segment.damaged(problem.damage))
            return
        for offset in self._snapshots:
            if offset > self.result.next_offset:
                self._files.remove(f"{self._folder}/{file_name(offset, '.snapshot')}")

    def _read(self, recovery_point: int, contiguous_from: int) -> _Problem | None:
        """Read everything behind the recovery point, and return the first problem."""
        result = self.result
        segments = result.segments
        first = 0
        while first + 1 < len(segments) and segments[first + 1].base_offset <= recovery_point:
            first += 1
        position = segments[first].trust_until(recovery_point)
        next_offset = recovery_point if position else segments[first].base_offset
        result.producers, start = _load_snapshot(
            self._files, self._folder, self._snapshots, next_offset
        )
        with contextlib.suppress(CorruptLog):  # whoever reads what is damaged there is told
            _replay(segments, result.producers, start, next_offset)
        result.checked = []
        result.beginnings = {}
        problem: _Problem | None = None
        for segment in segments[first:]:
            missing = []
            is_gap = next_offset >= contiguous_from or self._is_empty_from(segment)
            if segment.base_offset > next_offset and is_gap:
                reason = f"offset {segment.base_offset} where {next_offset} is the next"
                missing.append(Damage(0, 0, next_offset, segment.base_offset, reason, False))
            if segment is not segments[first]:
                position, next_offset = segment.trust_until(0), segment.base_offset
                result.beginnings[next_offset] = result.producers.snapshot()
            if position < segment.size:
                result.checked.append(segment)
                segment.log.forget_cached(position)
            next_offset = segment.recover(
                partial(self._visit, segment), position, next_offset, contiguous_from
            )
            segment.damages = missing + segment.damages
            if segment.damages and problem is None:
                problem = _Problem(segment, segment.damages[0])
        result.next_offset = next_offset
        return problem

    def _visit(self, segment: Segment, found: Batch) -> None:
        producers = self.result.producers
        completed = _note(producers, found.header, found.data)
        if completed is not None and completed.is_aborted:
            segment.aborted.append(aborted_transaction(completed, producers))

    def _is_empty_from(self, segment: Segment) -> bool:
        """Tell whether there is nothing in a segment and all behind; compaction leaves no such."""
        segments = self.result.segments
        return not any(each.size for each in segments[segments.index(segment) :])

    def _is_torn(self, problem: _Problem, recovery_point: int) -> bool:
        """Tell whether a problem is a torn tail, not damage."""
        if problem.damage.offset < recovery_point or problem.damage.is_misplaced:
            return False
        if not self._config.durable or not self._intact_behind(problem):
            return True
        return find_unwritten(problem.segment.log, problem.damage)

    def _intact_behind(self, problem: _Problem) -> bool:
        """Tell whether there are intact batches behind a problem."""
        if not problem.damage.is_tail and problem.damage.end:
            return True
        behind = self.result.segments.index(problem.segment) + (1 if problem.damage.end else 0)
        return any(
            find_intact(segment.log, 0, segment.base_offset) is not None
            for segment in self.result.segments[behind:]
        )

    def _cut(self, problem: _Problem) -> None:
        """Cut off a torn tail, and all behind it; what holds intact batches is kept aside."""
        segments = self.result.segments
        torn, damage = problem
        kept = self._intact_behind(problem)
        index = segments.index(torn)
        for segment in segments[index + (1 if damage.end else 0) :]:
            if segment.size:
                self._note_cut(segment, 0, "it lies behind a torn batch", kept)
            segments.remove(segment)
            segment.delete()
        if damage.end:
            self._note_cut(torn, damage.start, damage.reason, kept)
            torn.truncate(damage.start)
        self._files.sync_folder(self._folder)

    def _note_cut(self, segment: Segment, position: int, reason: str, kept: bool) -> None:
        size = segment.size - position
        path = f"{segment.path}.{position}{CUT}" if kept else ""
        if kept:
            self._files.write(path, segment.log.read(position, size))
        self.result.cuts.append(Cut(segment.path, position, size, reason, path))
