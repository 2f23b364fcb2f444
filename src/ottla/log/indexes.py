"""The two sparse indexes of a segment: offset to position, and timestamp to offset.

An index is a hint that is never trusted over the log: it names a place at or before the one that
is looked for, and the log is read on from there. While a segment is active its indexes are in
memory only; they are written when it is rolled or closed cleanly, and rebuilt from the log after a
crash.

Kafka's formats, all big-endian, offsets relative to the segment's base offset:

    .index       relative offset 4, position 4     one entry for about each `index.interval.bytes`
    .timeindex   timestamp 8, relative offset 4    no record up to that offset is stamped later
    .txnindex    version 2, producer id 8, first offset 8, last offset 8, last stable offset 8
                 an aborted transaction, with offsets that are not relative

Kafka: OffsetIndex, TimeIndex, TransactionIndex, AbortedTxn.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ottla.errors import CorruptLog

_OFFSET_ENTRY = struct.Struct(">ii")
_TIME_ENTRY = struct.Struct(">qi")
_ABORTED_ENTRY = struct.Struct(">hqqqq")
_ABORTED_VERSION = 0
_EVERY_OFFSET = 1 << 63


class OffsetIndex:
    """Offsets of batches and where they begin.

    Attributes:
        entries: the entries as they stand in the file.

    Args:
        base_offset: the segment's base offset.
        content: entries as they stand in the file.
        offset_end: entries at or behind this offset are left out.
    """

    def __init__(
        self, base_offset: int, content: bytes = b"", offset_end: int = _EVERY_OFFSET
    ) -> None:
        self._base_offset = base_offset
        self.entries = bytearray(content[: len(content) - len(content) % _OFFSET_ENTRY.size])
        while self.entries and base_offset + self._entry(len(self) - 1)[0] >= offset_end:
            del self.entries[-_OFFSET_ENTRY.size :]
        while len(self) > 1 and self._entry(len(self) - 1) <= self._entry(len(self) - 2):
            del self.entries[-_OFFSET_ENTRY.size :]  # Kafka makes room for entries in advance

    def __len__(self) -> int:
        return len(self.entries) // _OFFSET_ENTRY.size

    def append(self, last_offset: int, position: int) -> None:
        """Add the batch that ends with `last_offset` and begins at `position`."""
        self.entries += _OFFSET_ENTRY.pack(last_offset - self._base_offset, position)

    def lookup(self, offset: int) -> tuple[int, int]:
        """Return the last entry that is not behind an offset, as (offset, position).

        The batch that holds the offset begins there or later. Without such an entry the answer is
        the segment's beginning.
        """
        wanted = offset - self._base_offset
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._entry(middle)[0] <= wanted:
                low = middle + 1
            else:
                high = middle
        if not low:
            return self._base_offset, 0
        relative, position = self._entry(low - 1)
        return self._base_offset + relative, position

    def position_before(self, position: int) -> int:
        """Return the largest indexed position that is not behind another one; 0 without one."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._entry(middle)[1] <= position:
                low = middle + 1
            else:
                high = middle
        return self._entry(low - 1)[1] if low else 0

    def _entry(self, index: int) -> tuple[int, int]:
        relative, position = _OFFSET_ENTRY.unpack_from(self.entries, index * _OFFSET_ENTRY.size)
        return relative, position

    def content(self) -> bytes:
        """Return the entries as they stand in the file."""
        return bytes(self.entries)


class TimeIndex:
    """The largest timestamps so far, and the offsets that had them.

    Attributes:
        entries: the entries as they stand in the file.

    Args:
        base_offset: the segment's base offset.
        content: entries as they stand in the file.
        offset_end: entries at or behind this offset are left out.
    """

    def __init__(
        self, base_offset: int, content: bytes = b"", offset_end: int = _EVERY_OFFSET
    ) -> None:
        self._base_offset = base_offset
        self.entries = bytearray(content[: len(content) - len(content) % _TIME_ENTRY.size])
        while self.entries and self.last()[1] >= offset_end:
            del self.entries[-_TIME_ENTRY.size :]
        while len(self) > 1 and self._entry(len(self) - 1) <= self._entry(len(self) - 2):
            del self.entries[-_TIME_ENTRY.size :]

    def __len__(self) -> int:
        return len(self.entries) // _TIME_ENTRY.size

    def maybe_append(self, max_timestamp: int, offset: int) -> None:
        """Add an entry where its timestamp is larger than the last one's.

        Args:
            max_timestamp: the largest timestamp so far.
            offset: last offset of the first batch that has it.
        """
        if max_timestamp < 0 or (len(self) and max_timestamp <= self.last()[0]):
            return
        self.entries += _TIME_ENTRY.pack(max_timestamp, offset - self._base_offset)

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
        timestamp, relative = _TIME_ENTRY.unpack_from(self.entries, index * _TIME_ENTRY.size)
        return timestamp, self._base_offset + relative

    def content(self) -> bytes:
        """Return the entries as they stand in the file."""
        return bytes(self.entries)


class AbortedTransaction(NamedTuple):
    """A transaction that was aborted; both its offsets are inclusive, the last is its marker's."""

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int

    def encode(self) -> bytes:
        """Return the entry as it stands in the file."""
        return _ABORTED_ENTRY.pack(_ABORTED_VERSION, *self)


def decode_aborted(content: bytes, path: str) -> list[AbortedTransaction]:
    """Read a `.txnindex` file; an entry that is cut off at its end is left out.

    Raises:
        CorruptLog: an entry's version is not known.
    """
    found = []
    for start in range(0, len(content) - _ABORTED_ENTRY.size + 1, _ABORTED_ENTRY.size):
        version, *fields = _ABORTED_ENTRY.unpack_from(content, start)
        if version != _ABORTED_VERSION:
            raise CorruptLog(path, start, f"an entry of version {version}")
        found.append(AbortedTransaction(*fields))
    return found
