"""The two sparse indexes of a segment: offset to position, and timestamp to offset.

An index is a hint that is never trusted over the log: it names a place at or before the one that
is looked for, and the log is read on from there. While a segment is active its indexes are in
memory only; they are written when it is rolled or closed cleanly, and rebuilt from the log after a
crash.

Kafka's formats, all big-endian, offsets relative to the segment's base offset:

    .index       relative offset 4, position 4     one entry for about each `index.interval.bytes`
    .timeindex   timestamp 8, relative offset 4    no record up to that offset is stamped later

Kafka: OffsetIndex, TimeIndex.
"""

from __future__ import annotations

import struct

_OFFSET_ENTRY = struct.Struct(">ii")
_TIME_ENTRY = struct.Struct(">qi")


class OffsetIndex:
    """Offsets of batches and where they begin.

    Args:
        base_offset: the segment's base offset.
        content: entries as they stand in the file.
    """

    def __init__(self, base_offset: int, content: bytes = b"") -> None:
        self._base_offset = base_offset
        self._entries = bytearray(content[: len(content) - len(content) % _OFFSET_ENTRY.size])

    def __len__(self) -> int:
        return len(self._entries) // _OFFSET_ENTRY.size

    def append(self, last_offset: int, position: int) -> None:
        """Add the batch that ends with `last_offset` and begins at `position`."""
        self._entries += _OFFSET_ENTRY.pack(last_offset - self._base_offset, position)

    def lookup(self, offset: int) -> int:
        """Return a position at or before the batch that holds `offset`."""
        wanted = offset - self._base_offset
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._entry(middle)[0] <= wanted:
                low = middle + 1
            else:
                high = middle
        return self._entry(low - 1)[1] if low else 0

    def last_position(self) -> int:
        """Return the position in the last entry, 0 where there is none."""
        return self._entry(len(self) - 1)[1] if len(self) else 0

    def _entry(self, index: int) -> tuple[int, int]:
        relative, position = _OFFSET_ENTRY.unpack_from(self._entries, index * _OFFSET_ENTRY.size)
        return relative, position

    def content(self) -> bytes:
        """Return the entries as they stand in the file."""
        return bytes(self._entries)


class TimeIndex:
    """The largest timestamps so far, and the offsets that had them.

    Args:
        base_offset: the segment's base offset.
        content: entries as they stand in the file.
    """

    def __init__(self, base_offset: int, content: bytes = b"") -> None:
        self._base_offset = base_offset
        self._entries = bytearray(content[: len(content) - len(content) % _TIME_ENTRY.size])

    def __len__(self) -> int:
        return len(self._entries) // _TIME_ENTRY.size

    def maybe_append(self, max_timestamp: int, offset: int) -> None:
        """Add an entry where its timestamp is larger than the last one's.

        Args:
            max_timestamp: the largest timestamp so far.
            offset: last offset of the first batch that has it.
        """
        if max_timestamp < 0 or (len(self) and max_timestamp <= self.last()[0]):
            return
        self._entries += _TIME_ENTRY.pack(max_timestamp, offset - self._base_offset)

    def lookup(self, timestamp_ms: int) -> int:
        """Return an offset such that no record before it is stamped `timestamp_ms` or later."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._entry(middle)[0] < timestamp_ms:
                low = middle + 1
            else:
                high = middle
        return self._entry(low - 1)[1] if low else self._base_offset

    def last(self) -> tuple[int, int]:
        """Return the last entry as (timestamp, offset); (-1, base offset) where there is none."""
        return self._entry(len(self) - 1) if len(self) else (-1, self._base_offset)

    def _entry(self, index: int) -> tuple[int, int]:
        timestamp, relative = _TIME_ENTRY.unpack_from(self._entries, index * _TIME_ENTRY.size)
        return timestamp, self._base_offset + relative

    def content(self) -> bytes:
        """Return the entries as they stand in the file."""
        return bytes(self._entries)
