"""Whether a segment's indexes agree with its batches.

Each check is fed the batches in their order, while they are read for their checksums, and is asked
at the end. What must hold is what lookups rely on:

    .index       an entry's position is where a batch begins that ends at the entry's offset
    .timeindex   an entry's timestamp is that of the batch that holds its offset, and no batch
                 before that is stamped later; the last entry has the largest timestamp of all
    .txnindex    an entry's last offset is that of the marker that ended the producer's transaction,
                 and each transaction that was aborted has an entry

After a stop that was not clean the entries behind the recovery point are made anew by the next
start, and are not looked at.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING

from ottla.errors import CorruptLog, CorruptRecords
from ottla.log.indexes import AbortedTransaction, OffsetIndex, TimeIndex, decode_aborted
from ottla.records.batch import iterate_records, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ottla.log.files import Files
    from ottla.log.fsck.findings import LogFacts
    from ottla.log.scan import Batch

_OFFSET_ENTRY = struct.Struct(">ii")
_TIME_ENTRY = struct.Struct(">qi")
_ABORTED_ENTRY_BYTES = 34
_EVERY_OFFSET = 1 << 63


class OffsetIndexCheck:
    """The check of an offset index.

    Args:
        base_offset: the segment's base offset.
        content: the file's content, or None where there is none.
        offset_end: entries at or behind this offset do not count.

    Attributes:
        problem: what is wrong, or "".
    """

    def __init__(self, base_offset: int, content: bytes | None, offset_end: int) -> None:
        self.problem = ""
        self._is_missing = content is None
        content = content or b""
        if len(content) % _OFFSET_ENTRY.size:
            self.problem = f"its {len(content)} bytes are not whole entries"
        elif content[len(OffsetIndex(base_offset, content).content()) :].strip(b"\0"):
            self.problem = "its last entry is not behind the one before it"
        kept = OffsetIndex(base_offset, content, offset_end).content()
        self._base_offset = base_offset
        self._entries: Iterator[tuple[int, int]] = _OFFSET_ENTRY.iter_unpack(kept)
        self._offset = -1
        self._position = -1
        self._advance()

    def _advance(self) -> None:
        following = next(self._entries, None)
        if following is None:
            self._position = -1
            return
        offset = self._base_offset + following[0]
        if offset <= self._offset or following[1] <= self._position:
            self._fail(offset, "is not behind the one before it")
            return
        self._offset, self._position = offset, following[1]

    def _fail(self, offset: int, why: str) -> None:
        self.problem = self.problem or f"the entry for offset {offset} {why}"
        self._entries = iter(())
        self._position = -1

    def visit(self, batch: Batch) -> None:
        """Look at the next batch."""
        if self._position < 0 or batch.position < self._position:
            return
        if batch.position > self._position:
            self._fail(self._offset, f"points to byte {self._position}, where no batch begins")
        elif self._offset != batch.header.last_offset:
            self._fail(self._offset, f"points to the batch that ends at {batch.header.last_offset}")
        else:
            self._advance()

    def finish(self, offset_end: int, *, is_whole: bool) -> str:
        """Return what is wrong, or "", when there are no more batches.

        Args:
            offset_end: where the segment ends, exclusive.
            is_whole: the entries go up to the segment's end.
        """
        if self._is_missing:
            return "it is missing" if is_whole else ""
        if self._position >= 0:
            self._fail(self._offset, f"points to byte {self._position}, where no batch begins")
        elif self._offset >= offset_end:
            self._fail(self._offset, f"is behind the segment's end, {offset_end}")
        return self.problem


class TimeIndexCheck:
    """The check of a time index; arguments and attributes are those of `OffsetIndexCheck`."""

    def __init__(self, base_offset: int, content: bytes | None, offset_end: int) -> None:
        self.problem = ""
        self._is_missing = content is None
        content = content or b""
        if len(content) % _TIME_ENTRY.size:
            self.problem = f"its {len(content)} bytes are not whole entries"
        elif content[len(TimeIndex(base_offset, content).content()) :].strip(b"\0"):
            self.problem = "its last entry is not behind the one before it"
        index = TimeIndex(base_offset, content, offset_end)
        self._base_offset = base_offset
        self._last = index.last()[0]
        self._entries: Iterator[tuple[int, int]] = _TIME_ENTRY.iter_unpack(index.content())
        self._max_timestamp = -1
        self._entry: tuple[int, int] | None = None
        self._advance()

    def _advance(self) -> None:
        before = self._entry
        following = next(self._entries, None)
        self._entry = None
        if following is None:
            return
        self._entry = (following[0], self._base_offset + following[1])
        if before is not None and not (before < self._entry and before[1] < self._entry[1]):
            self._fail("is not behind the one before it")

    def _fail(self, why: str) -> None:
        if self._entry is not None:
            timestamp, offset = self._entry
            told = f"the entry for timestamp {timestamp} at offset {offset} {why}"
            self.problem = self.problem or told
        self._entries = iter(())
        self._entry = None

    def visit(self, batch: Batch) -> None:
        """Look at the next batch."""
        header = batch.header
        while self._entry is not None and self._entry[1] <= header.last_offset:
            timestamp, offset = self._entry
            if offset < header.base_offset:
                self._fail("names an offset that is not there")
            elif header.max_timestamp != timestamp or self._max_timestamp > timestamp:
                found = max(header.max_timestamp, self._max_timestamp)
                self._fail(f"is wrong: the largest timestamp up to there is {found}")
            else:
                self._advance()
        self._max_timestamp = max(self._max_timestamp, header.max_timestamp)

    def finish(self, *, is_whole: bool) -> str:
        """Return what is wrong, or "", when there are no more batches.

        Args:
            is_whole: the entries go up to the segment's end.
        """
        if self._is_missing:
            return "it is missing" if is_whole else ""
        if self._entry is not None:
            self._fail("is behind the segment's end")
        if is_whole and not self.problem and self._last != self._max_timestamp:
            self.problem = (
                f"it ends with timestamp {self._last}, and the largest is {self._max_timestamp}"
            )
        return self.problem


class AbortedCheck:
    """The check of a log's transaction indexes, and what should stand in them.

    A transaction may begin in one segment and end in another, so there is one for the whole log.
    Where a log has lost its first records, by retention or compaction, entries may speak of what is
    gone; then they are believed, as far as their markers are there.
    """

    def __init__(self) -> None:
        self._is_first = True
        self._is_trimmed = False
        self._began: dict[int, int] = {}
        self._expected: dict[int, AbortedTransaction] = {}
        self._markers: dict[int, int] = {}

    def begin_segment(self) -> None:
        """Go on with the next segment."""
        self._expected = {}
        self._markers = {}

    def visit(self, batch: Batch) -> None:
        """Look at the next batch."""
        header = batch.header
        if self._is_first:
            self._is_first, self._is_trimmed = False, header.base_offset > 0
        if not header.is_transactional:
            return
        if not header.is_control:
            self._began.setdefault(header.producer_id, header.base_offset)
            return
        self._markers[header.base_offset] = header.producer_id
        first_offset = self._began.pop(header.producer_id, None)
        if first_offset is not None and _is_abort(batch):
            stable = min(self._began.values(), default=header.last_offset + 1)
            self._expected[header.base_offset] = AbortedTransaction(
                header.producer_id, first_offset, header.base_offset, stable
            )

    def finish(
        self, content: bytes | None, path: str, offset_end: int, *, is_compacted: bool
    ) -> tuple[str, bytes]:
        """Return what is wrong with a segment's index, or "", and what should stand in it.

        Args:
            content: the file's content, or None where there is none.
            path: the file.
            offset_end: entries at or behind this offset do not count.
            is_compacted: compaction may have taken batches away that entries speak of.
        """
        problem = ""
        entries: list[AbortedTransaction] = []
        try:
            entries = decode_aborted(content or b"", path)
        except CorruptLog as error:
            problem = error.reason
        if len(content or b"") % _ABORTED_ENTRY_BYTES:
            problem = problem or f"its {len(content or b'')} bytes are not whole entries"
        offsets = [entry.last_offset for entry in entries]
        if any(following <= offset for offset, following in pairwise(offsets)):
            problem = problem or "its entries are not in the order of their markers"
        good: dict[int, AbortedTransaction] = {}
        for entry in entries:
            if self._is_true(entry, is_compacted=is_compacted):
                good[entry.last_offset] = entry
            elif entry.last_offset < offset_end:
                problem = problem or f"no such transaction was aborted at {entry.last_offset}"
        for offset, entry in self._expected.items():
            if offset < offset_end and offset not in good:
                problem = problem or f"the transaction that was aborted at {offset} is missing"
            good.setdefault(offset, entry)
        return problem, b"".join(good[offset].encode() for offset in sorted(good))

    def _is_true(self, entry: AbortedTransaction, *, is_compacted: bool) -> bool:
        if not (self._is_trimmed or is_compacted):
            return entry == self._expected.get(entry.last_offset)
        marker = self._markers.get(entry.last_offset)
        return 0 <= entry.first_offset <= entry.last_offset and (
            marker == entry.producer_id or (marker is None and is_compacted)
        )


def _is_abort(batch: Batch) -> bool:
    """Tell what a marker says. Kafka: ControlRecordType, key: version 2, type 2; 0 is ABORT."""
    try:
        for record in iterate_records(batch.data, read_header(batch.data)):
            key: bytes | None = record.key
            return key is not None and key[2:4] == b"\x00\x00"
    except CorruptRecords:
        pass
    return False


class SegmentIndexes:
    """The checks of a segment's two indexes, as far as they count.

    Attributes:
        offset_end: entries at or behind this offset do not count.
        does_count: whether any entries count.
    """

    def __init__(self, files: Files, folder: str, base_offset: int, facts: LogFacts) -> None:
        self.offset_end = _EVERY_OFFSET if facts.was_clean else facts.recovery_point or 0
        self.does_count = base_offset < self.offset_end
        stem = f"{folder}/{base_offset:020}"
        self._offsets = OffsetIndexCheck(base_offset, files.read(f"{stem}.index"), self.offset_end)
        self._times = TimeIndexCheck(base_offset, files.read(f"{stem}.timeindex"), self.offset_end)

    def visit(self, batch: Batch) -> None:
        """Look at the next batch."""
        if self.does_count:
            self._offsets.visit(batch)
            self._times.visit(batch)

    def finish(self, offset_end: int, *, has_batches: bool) -> dict[str, str]:
        """Return what is wrong with which index, by suffix."""
        if not self.does_count or not has_batches:
            return {}
        found = {
            ".index": self._offsets.finish(offset_end, is_whole=offset_end <= self.offset_end),
            ".timeindex": self._times.finish(is_whole=offset_end <= self.offset_end),
        }
        return {suffix: problem for suffix, problem in found.items() if problem}
