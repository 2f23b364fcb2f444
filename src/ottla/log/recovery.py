"""Opening a partition's segments: trusted after a clean stop, checked after any other.

After a crash every batch from the recovery point on is checked and the indexes and producer state
are rebuilt from them. What a crash may leave is a torn tail: the last batches of the last segment,
written in part and acknowledged to nobody; it is cut off and told. A bad batch anywhere else is
damage, and damage is an error with file and position: nothing behind it is dropped in silence.

Kafka: LogLoader.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

from ottla.errors import CorruptLog
from ottla.log.producer_state import ProducerState
from ottla.log.segment import Segment, file_name

if TYPE_CHECKING:
    from ottla.log.config import LogConfig
    from ottla.log.files import Files


@dataclass(frozen=True)
class Cut:
    """A torn tail that was cut off.

    Attributes:
        path: the file.
        position: where it was cut, in bytes.
        size: how many bytes were cut off.
        reason: what was wrong with them.
    """

    path: str
    position: int
    size: int
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.path}: cut off {self.size} bytes at byte {self.position} that a crash left "
            f"unfinished and nobody was told were stored ({self.reason})"
        )


@dataclass
class Recovered:
    """A partition's segments as they were found.

    Attributes:
        segments: in order of their offsets; the last one is active.
        next_offset: the offset behind the last record, exclusive.
        producers: the state of the producers at `next_offset`.
        cut: what was cut off.
        unsynced: segments that were checked, and may not all be on the disk yet.
    """

    segments: list[Segment]
    next_offset: int
    producers: ProducerState
    cut: Cut | None = None
    unsynced: list[Segment] = field(default_factory=list)


def load(files: Files, folder: str, config: LogConfig, recovery_point: int | None) -> Recovered:
    """Open the segments in a partition's folder.

    Args:
        files: where the folder is.
        folder: the folder; one without segments gets its first.
        config: the topic's settings.
        recovery_point: everything before this offset is known to be good; None after a clean stop.

    Raises:
        CorruptLog: there is damage that is no torn tail.
    """
    names = files.list(folder)
    bases = sorted(int(name[:-4]) for name in names if name.endswith(".log"))
    if not bases:
        return Recovered([Segment.create(files, folder, 0, config)], 0, ProducerState())
    snapshots = sorted(int(name[:-9]) for name in names if name.endswith(".snapshot"))
    if recovery_point is None:
        return _load_clean(files, folder, config, bases, snapshots)
    return _load_checked(files, folder, config, bases, snapshots, recovery_point)


def _load_clean(
    files: Files, folder: str, config: LogConfig, bases: list[int], snapshots: list[int]
) -> Recovered:
    segments = [Segment.open(files, folder, base, config) for base in bases]
    active = segments[-1]
    next_offset = active.base_offset
    for _, header, _ in active.headers(active.index.last_position()):
        next_offset = header.last_offset + 1
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


def _replay(segments: list[Segment], producers: ProducerState, start: int) -> None:
    """Bring producer state up to the end from the batches behind a snapshot."""
    for segment, following in zip_longest(segments, segments[1:]):
        if following is not None and following.base_offset <= start:
            continue
        position = segment.position_of(start) if start > segment.base_offset else 0
        for _, header, _ in segment.headers(position):
            if header.base_offset >= start:
                producers.update(header, header.base_offset)


def _load_checked(
    files: Files,
    folder: str,
    config: LogConfig,
    bases: list[int],
    snapshots: list[int],
    recovery_point: int,
) -> Recovered:
    first_checked = max(
        index for index, base in enumerate(bases) if index == 0 or base <= recovery_point
    )
    start = bases[first_checked]
    producers, snapshot_offset = _load_snapshot(files, folder, snapshots, start)
    segments = [Segment.open(files, folder, base, config) for base in bases[:first_checked]]
    _replay(segments, producers, snapshot_offset)
    checked = []
    next_offset, cut = start, None
    for base in bases[first_checked:]:
        segment = Segment.open_unchecked(files, folder, base, config)
        next_offset, end, damage = segment.recover(
            lambda header: producers.update(header, header.base_offset)
        )
        if damage is not None:
            if base != bases[-1]:
                damage.effect = "Nothing was cut off: there are records behind the damage."
                raise damage
            if next_offset < recovery_point:
                damage.effect = "Nothing was cut off: what is damaged had been stored safely."
                raise damage
            cut = Cut(segment.path, end, segment.size - end, damage.reason)
            segment.truncate(end)
        checked.append(segment)
    for offset in snapshots:
        if offset > next_offset:
            files.remove(f"{folder}/{file_name(offset, '.snapshot')}")
    return Recovered(segments + checked, next_offset, producers, cut, checked)
