"""The segments of one log, in the order of their offsets; the last one is active."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ottla.log.producer_state import BATCHES_REMEMBERED

if TYPE_CHECKING:
    from ottla.log.compaction import Group
    from ottla.log.segment import Segment
    from ottla.records.batch import BatchHeader

_RECALL_BYTES = 64 * 1024 * 1024
"""How much of a log is searched for batches that a snapshot does not have."""


class TimestampedOffset(NamedTuple):
    """An offset found by its timestamp."""

    offset: int
    timestamp: int


class Segments:
    """At least one segment.

    Attributes:
        active: the one that is written to.
    """

    def __init__(self, segments: list[Segment]) -> None:
        self._segments = segments
        self._bases = [segment.base_offset for segment in segments]
        self.active = segments[-1]

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    def __len__(self) -> int:
        return len(self._segments)

    def __contains__(self, segment: Segment) -> bool:
        return segment in self._segments

    @property
    def first(self) -> Segment:
        """The oldest one."""
        return self._segments[0]

    @property
    def size(self) -> int:
        """Bytes of all batches."""
        return sum(segment.size for segment in self._segments)

    def append(self, segment: Segment) -> None:
        """Go on with a new segment."""
        self._segments.append(segment)
        self._bases.append(segment.base_offset)
        self.active = segment

    def closed(self) -> list[tuple[Segment, int]]:
        """Return all but the active one, each with the offset behind it."""
        return list(zip(self._segments[:-1], self._bases[1:], strict=True))

    def reaching(self, offset: int) -> list[Segment]:
        """Return the segment that an offset is in, and all behind it."""
        return self._segments[max(bisect.bisect_right(self._bases, offset) - 1, 0) :]

    def bytes_from(self, offset: int, last: Segment, position: int) -> int:
        """Return how many bytes there are between two places.

        Args:
            offset: from the segment on that this offset is in,
            last: up to a position in this one.
            position: the position.
        """
        size = 0
        for segment in self.reaching(offset):
            if segment.base_offset >= last.base_offset:
                return size + position if segment is last else 0
            size += segment.size
        return size

    def take_before(self, offset: int) -> list[Segment]:
        """Let go of those that end at or before an offset, never of the active one."""
        count = min(bisect.bisect_right(self._bases, offset), len(self._bases)) - 1
        taken = self._segments[: max(count, 0)]
        del self._segments[: len(taken)], self._bases[: len(taken)]
        return taken

    def of_group(self, group: Group) -> list[Segment]:
        """Return the segments that a group replaces; none where they are not all there."""
        if group.base_offset not in self._bases:
            return []
        index = self._bases.index(group.base_offset)
        end = index + len(group.replaced)
        return self._segments[index:end] if self._bases[index:end] == group.replaced else []

    def replace(self, replaced: list[Segment], segment: Segment) -> None:
        """Put a segment in the place of others that follow each other."""
        index = self._segments.index(replaced[0])
        end = index + len(replaced)
        self._segments[index:end] = [segment]
        self._bases[index:end] = [segment.base_offset]
        self.active = self._segments[-1]

    def last_batches_of(self, producer: BatchHeader, offset_end: int) -> list[BatchHeader]:
        """Return the last batches of a batch's producer and epoch before an offset.

        Only so much is searched as may have been under way at one time.

        Raises:
            CorruptLog: there is damage in what is searched.
        """
        found: list[BatchHeader] = []
        room = _RECALL_BYTES
        for segment in reversed(self._segments):
            if room <= 0 or len(found) >= BATCHES_REMEMBERED:
                break
            if segment.base_offset >= offset_end:
                continue
            end = segment.position_of(offset_end)
            own = [
                header
                for _, header, _ in segment.headers(segment.index.position_before(end - room))
                if header.base_offset < offset_end
                and header.producer_id == producer.producer_id
                and header.producer_epoch == producer.producer_epoch
                and not header.is_control
            ]
            found = own[-BATCHES_REMEMBERED:] + found
            room -= end
        return found
