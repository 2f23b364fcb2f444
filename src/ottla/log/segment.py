"""One segment: a file of batches with its two indexes.

Kafka: LogSegment, FileRecords.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import cython

from ottla.errors import CorruptLog, CorruptRecords
from ottla.log.indexes import AbortedTransaction, OffsetIndex, TimeIndex, decode_aborted
from ottla.log.scan import Batch, Damage, scan
from ottla.records.batch import (
    HEADER_BYTES,
    check_crc,
    iterate_records,
    read_header,
)
from ottla.records.positions import intact_size, position_of, whole_batches_size

if cython.compiled:
    from cython.cimports.ottla.records.batch import BatchHeader

if TYPE_CHECKING:
    from ottla.log.config import LogConfig
    from ottla.log.files import File, Files
    from ottla.records.batch import BatchHeader
    from ottla.wire import Buffer

SUFFIXES = (".log", ".index", ".timeindex", ".txnindex")
DELETED = ".deleted"
_SCAN_BYTES = 64 * 1024
_OFFSET_DELTA_MAX = 0x7FFFFFFF
_EVERY_OFFSET = 1 << 63


def file_name(offset: int, suffix: str) -> str:
    """Return the name of a segment's file. Kafka: LogFileUtils.filenamePrefixFromOffset.

    >>> file_name(368769, ".log")
    '00000000000000368769.log'
    """
    return f"{offset:020}{suffix}"


class Segment:
    """The batches from `base_offset` up to the next segment's.

    What comes from the disk is checked before it is read for the first time; what was appended
    here was checked then.

    Attributes:
        base_offset: the offset that its files are named after.
        size: bytes of batches.
        damages: the stretches that are known to be damaged.
        is_contiguous: whether no offset may be missing in it; compaction leaves such.
    """

    if not cython.compiled:  # `create` and `open` open it
        _log: File

    def __init__(
        self, files: Files, folder: str, base_offset: int, config: LogConfig, suffix: str = ""
    ) -> None:
        self.base_offset = base_offset
        self.config = config
        self.size = 0
        self.damages: list[Damage] = []
        self.is_contiguous = False
        self._unchecked = (0, 0)
        self._files = files
        self._stem = f"{folder}/{base_offset:020}"
        self._suffix = suffix
        self._index: OffsetIndex | None = None
        self._time_index: TimeIndex | None = None
        self._aborted: list[AbortedTransaction] | None = None
        self._first_timestamp: int | None = None
        self._max_timestamp: tuple[int, int] | None = None
        self._bytes_since_index_entry = 0
        self._limits_of: LogConfig | None = None
        self._bytes_max = 0
        self._index_bytes_max = 0
        self._age_max_ms = 0

    @classmethod
    def create(
        cls, files: Files, folder: str, base_offset: int, config: LogConfig, suffix: str = ""
    ) -> Segment:
        """Create an empty segment; a suffix keeps its files apart from the log's."""
        segment: Segment = cls(files, folder, base_offset, config, suffix)
        segment._log = files.open(f"{segment._stem}.log{suffix}", create=True)
        segment.is_contiguous = not suffix
        segment._index = OffsetIndex(base_offset)
        segment._time_index = TimeIndex(base_offset)
        segment._aborted = []
        return segment

    @classmethod
    def open(cls, files: Files, folder: str, base_offset: int, config: LogConfig) -> Segment:
        """Open a segment as it was closed; its indexes are read when they are needed."""
        segment: Segment = cls(files, folder, base_offset, config)
        segment._log = files.open(f"{segment._stem}.log", create=False)
        segment.size = segment._log.size()
        segment._unchecked = (0, segment.size)
        return segment

    @property
    def path(self) -> str:
        """The path of the file of batches."""
        return self._log.path

    @property
    def log(self) -> File:
        """The file of batches."""
        return self._log

    @property
    def index(self) -> OffsetIndex:
        """The offset index, read when it is first used."""
        if self._index is None:
            self._load_indexes()
        assert self._index is not None
        return self._index

    @property
    def time_index(self) -> TimeIndex:
        """The time index, read when it is first used."""
        if self._time_index is None:
            self._load_indexes()
        assert self._time_index is not None
        return self._time_index

    @property
    def aborted(self) -> list[AbortedTransaction]:
        """The aborted transactions whose markers are in it, in the order of the markers.

        Raises:
            CorruptLog: the transaction index is damaged.
        """
        if self._aborted is None:
            path = f"{self._stem}.txnindex"
            self._aborted = decode_aborted(self._files.read(path) or b"", path)
        return self._aborted

    def _load_indexes(self) -> None:
        """Read both indexes, and rebuild them where they do not belong to the batches."""
        content = self._files.read(f"{self._stem}.index") or b""
        self._index = OffsetIndex(self.base_offset, content)
        content = self._files.read(f"{self._stem}.timeindex") or b""
        self._time_index = TimeIndex(self.base_offset, content)
        if self.size and not self._time_index_is_true(self._time_index):
            self._rebuild_indexes()

    def _time_index_is_true(self, time_index: TimeIndex) -> bool:
        """Tell whether the last entry is true: retention believes it."""
        timestamp, offset = time_index.last()
        try:
            position = self.position_of(offset)
            header = read_header(self._log.read(position, HEADER_BYTES))
        except (CorruptRecords, CorruptLog):
            return False
        return header.base_offset <= offset and header.max_timestamp == timestamp

    def _rebuild_indexes(self) -> None:
        """Make the indexes anew from the batches' headers, as far as those can be believed."""
        self._forget_indexes()
        next_offset = self.base_offset
        with contextlib.suppress(CorruptLog):
            for position, header, _ in self.headers():
                if self._is_misplaced(header, next_offset):
                    return
                next_offset = header.last_offset + 1
                self._note(position, header.size, header.max_timestamp, header.last_offset)

    def _forget_indexes(self) -> None:
        self._index = OffsetIndex(self.base_offset)
        self._time_index = TimeIndex(self.base_offset)
        self._first_timestamp = None
        self._max_timestamp = (-1, self.base_offset)
        self._bytes_since_index_entry = 0

    @property
    def max_timestamp(self) -> int:
        """The largest timestamp in it, or -1."""
        return self._largest()[0]

    def _largest(self) -> tuple[int, int]:
        """Return the largest timestamp and the last offset of the first batch that has it."""
        if self._max_timestamp is None:
            self._max_timestamp = self.time_index.last()
        return self._max_timestamp

    @property
    def first_timestamp(self) -> int | None:
        """The largest timestamp of its first batch, or None while it is empty."""
        if self._first_timestamp is None and self.size >= HEADER_BYTES:
            try:
                first = read_header(self._log.read(0, HEADER_BYTES))
            except CorruptRecords as error:
                raise self.corrupt(0, error) from error
            self._first_timestamp = first.max_timestamp
        return self._first_timestamp

    def append(
        self, buffers: Sequence[Buffer], header: BatchHeader, last_offset: cython.longlong
    ) -> None:
        """Append one batch.

        Args:
            buffers: its bytes.
            header: its header; only its size and its timestamps count.
            last_offset: offset of its last record, inclusive.
        """
        position: cython.longlong = self.size
        self._log.append(buffers)
        self.size = self._log.size()
        self._note(position, header.size, header.max_timestamp, last_offset)

    def _note(
        self,
        position: cython.longlong,
        size: cython.longlong,
        max_timestamp: cython.longlong,
        last_offset: cython.longlong,
    ) -> None:
        """Keep the indexes in step with a batch. Kafka: LogSegment.append."""
        if position == 0:
            self._first_timestamp = max_timestamp
        if max_timestamp > (self._max_timestamp or self._largest())[0]:
            self._max_timestamp = (max_timestamp, last_offset)
        if self._bytes_since_index_entry > self.config.index_interval_bytes:
            self.index.append(last_offset, position)
            self.time_index.maybe_append(*self._largest())
            self._bytes_since_index_entry = 0
        self._bytes_since_index_entry += size

    def must_roll(
        self,
        size: cython.longlong,
        last_offset: cython.longlong,
        max_timestamp: cython.longlong,
        now_ms: cython.longlong,
    ) -> bool:
        """Tell whether a batch must go into a new segment. Kafka: LogSegment.shouldRoll."""
        if self.size == 0:
            return False
        config = self.config
        if config is not self._limits_of:
            self._note_limits(config)
        first = self._first_timestamp
        if first is None:
            first = now_ms if self.first_timestamp is None else self.first_timestamp
        index = self.index if self._index is None else self._index
        time_index = self.time_index if self._time_index is None else self._time_index
        return (
            self.size + size > self._bytes_max
            or (max_timestamp if max_timestamp > 0 else 0) - first > self._age_max_ms
            or len(index.entries) >= self._index_bytes_max - 8
            or len(time_index.entries) >= self._index_bytes_max - 12
            or last_offset - self.base_offset > _OFFSET_DELTA_MAX
        )

    def _note_limits(self, config: LogConfig) -> None:
        """Keep what `must_roll` asks for each batch."""
        self._limits_of = config
        self._bytes_max = config.segment_bytes
        self._index_bytes_max = config.segment_index_bytes
        self._age_max_ms = config.segment_ms
        if config.compact:
            self._age_max_ms = min(self._age_max_ms, config.max_compaction_lag_ms)

    def position_of(self, offset: int) -> int:
        """Return where the first batch begins that ends at or behind `offset`.

        The answer is the segment's size where there is no such batch.

        Raises:
            CorruptLog: the batch is one that is damaged.
        """
        for damage in self.damages:
            if damage.offset <= offset < damage.offset_end or (
                damage.is_tail and offset >= damage.offset
            ):
                raise self.damaged(damage)
        start = position = self._start_of_search(offset)
        while position < self.size:
            data = self._log.read(position, _SCAN_BYTES)
            if len(data) < HEADER_BYTES:
                break
            try:
                found = position_of(data, offset)
            except CorruptRecords as error:
                raise self.corrupt(position, error) from error
            position += found
            if found < len(data) - HEADER_BYTES + 1:
                break
        self._check_offsets(start, position)
        return min(position, self.size)

    def _check_offsets(self, start: int, end: int) -> None:
        """Check that no offset is missing between two positions: no checksum covers offsets.

        Raises:
            CorruptLog: a batch stands at a wrong offset.
        """
        if start >= self._unchecked[1] or self.damages:
            return
        next_offset = self.base_offset if start == 0 else -1
        for position, header, _ in self.headers(start):
            if next_offset >= 0 and self._is_misplaced(header, next_offset):
                what = f"offset {header.base_offset} where {next_offset} is the next"
                raise CorruptLog(self.path, position, what)
            if position >= end:
                return
            next_offset = header.last_offset + 1

    def _is_misplaced(self, header: BatchHeader, next_offset: int) -> bool:
        gap = header.base_offset - next_offset
        is_before = gap < 0 or header.last_offset_delta < 0
        is_far = header.last_offset - self.base_offset > _OFFSET_DELTA_MAX
        return is_before or is_far or (self.is_contiguous and gap > 0)

    def next_offset(self) -> int:
        """Return the offset behind the last record, exclusive; the last batches are checked.

        Raises:
            CorruptLog: a batch cannot be read, or stands at a wrong offset.
        """
        start = self._start_of_search(_EVERY_OFFSET)
        self._check_offsets(start, self.size)
        found = self.base_offset
        for position, header, batch in self.headers(start):
            self._check_crc(position, batch)
            found = header.last_offset + 1
        return found

    def _check_crc(self, position: int, batch: memoryview) -> None:
        try:
            check_crc(batch, read_header(batch))
        except CorruptRecords as error:
            raise self.corrupt(position, error) from error

    def _start_of_search(self, offset: int) -> int:
        """Return where a batch begins at or before the one that holds an offset.

        The index says where, and the batch there says whether that is true; where it is not, the
        indexes are made anew.
        """
        indexed, position = self.index.lookup(offset)
        if position:
            try:
                header = read_header(self._log.read(position, HEADER_BYTES))
                is_true = self.base_offset <= header.base_offset <= header.last_offset == indexed
            except CorruptRecords:
                is_true = False
            if not is_true:
                self._rebuild_indexes()
                position = self.index.lookup(offset)[1]
        for damage in self.damages:
            if offset >= damage.offset_end:
                position = max(position, damage.end)
        return position

    def read(self, position: int, bytes_max: int, position_end: int, at_least_one: bool) -> Buffer:
        """Read whole batches; what was read beyond them is cut off without a copy.

        Args:
            position: where a batch begins.
            bytes_max: how many bytes at most.
            position_end: only what lies before it is read; a batch ends there.
            at_least_one: read the first batch even where it is larger than `bytes_max`.

        Raises:
            CorruptLog: there is none at the position.
        """
        for damage in self.damages:
            if damage.start <= position < damage.end:
                raise self.damaged(damage)
            if damage.start > position:
                position_end = min(position_end, damage.start)
                break
        room = position_end - position
        data = self._log.read(position, min(bytes_max, room))
        if bytes_max >= room:
            return self._checked(position, data)
        try:
            whole = whole_batches_size(data)
            if whole == 0 and at_least_one:
                if len(data) < HEADER_BYTES:
                    data = self._log.read(position, HEADER_BYTES)
                whole = read_header(data).size
                data = self._log.read(position, whole)
        except CorruptRecords as error:
            raise self.corrupt(position, error) from error
        return self._checked(position, data if whole == len(data) else memoryview(data)[:whole])

    def _checked(self, position: int, data: Buffer) -> Buffer:
        """Return what is intact of batches that were read, and remember that they are.

        Raises:
            CorruptLog: the first one is not.
        """
        start, end = self._unchecked
        if position >= end or position + len(data) <= start:
            return data
        intact = intact_size(data, self.is_contiguous)
        if data and not intact:
            self._check_crc(position, memoryview(data))
            raise CorruptLog(self.path, position, "a batch whose offsets cannot be")
        if position <= start:
            self._unchecked = (max(start, position + intact), end)
        return data if intact == len(data) else memoryview(data)[:intact]

    def corrupt(self, position: int, error: CorruptRecords) -> CorruptLog:
        """Make the exception for damage in this segment."""
        return CorruptLog(self.path, position, error.what)

    def damaged(self, damage: Damage) -> CorruptLog:
        """Make the exception for a stretch that is known to be damaged."""
        return CorruptLog(self.path, damage.start, damage.reason)

    def headers(self, position: int = 0) -> Iterator[tuple[int, BatchHeader, memoryview]]:
        """Iterate over the batches from `position` on, as (position, header, whole batch).

        Raises:
            CorruptLog: a batch is damaged or cut off; its position is told.
        """
        while position < self.size:
            data = self._log.read(position, _SCAN_BYTES)
            try:
                header = read_header(data)
                if header.size > len(data):
                    if header.size > self.size - position:
                        raise CorruptRecords(
                            f"a batch of {header.size} bytes is cut off after "
                            f"{self.size - position}"
                        )
                    data = self._log.read(position, header.size)
            except CorruptRecords as error:
                raise self.corrupt(position, error) from error
            start = 0
            while len(data) - start >= HEADER_BYTES:
                try:
                    header = read_header(data, start)
                except CorruptRecords as error:
                    raise self.corrupt(position, error) from error
                if header.size > len(data) - start:
                    break
                yield position, header, memoryview(data)[start : start + header.size]
                start += header.size
                position += header.size

    def recover(
        self,
        visit: Callable[[Batch], None],
        position: int,
        next_offset: int,
        contiguous_from: int,
    ) -> int:
        """Check each batch from a position on, and bring the indexes up to the end.

        What is damaged is in `damages` afterwards.

        Args:
            visit: called with each intact batch.
            position: where to begin, as `trust_until` returned it.
            next_offset: the offset that should be there.
            contiguous_from: from this offset on no offset is missing.

        Returns:
            The offset behind the last intact batch.
        """
        self.damages = []
        self._unchecked = (0, position)
        offset_end = self.base_offset + _OFFSET_DELTA_MAX + 1
        for found in scan(self._log, position, next_offset, contiguous_from, offset_end):
            if isinstance(found, Damage):
                self.damages.append(found)
                continue
            header = found.header
            self._note(found.position, header.size, header.max_timestamp, header.last_offset)
            next_offset = header.last_offset + 1
            visit(found)
        return next_offset

    def trust_until(self, offset: int) -> int:
        """Forget what the indexes say from an offset on, and return its position.

        Where they do not lead there everything is forgotten, and the answer is 0.
        """
        if offset > self.base_offset:
            self._bytes_since_index_entry = 0
            self._index = OffsetIndex(self.base_offset, self.index.content(), offset)
            self._time_index = TimeIndex(self.base_offset, self.time_index.content(), offset)
            self._max_timestamp = None
            next_offset, end = self.base_offset, 0
            with contextlib.suppress(CorruptLog):
                self._aborted = [each for each in self.aborted if each.last_offset < offset]
                for position, header, _ in self.headers(self._start_of_search(offset - 1)):
                    if header.base_offset >= offset:
                        break
                    next_offset, end = header.last_offset + 1, position + header.size
                    if header.max_timestamp > self._largest()[0]:
                        self._max_timestamp = (header.max_timestamp, header.last_offset)
            if next_offset == offset:
                return end
        self._forget_indexes()
        self._aborted = []
        return 0

    def first_at_or_after(self, timestamp_ms: int, offset: int) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record stamped `timestamp_ms` or later.

        Args:
            timestamp_ms: the timestamp.
            offset: records before it do not count.
        """
        if self.max_timestamp < timestamp_ms:
            return None
        start = self.position_of(max(offset, self.time_index.lookup(timestamp_ms)))
        for position, header, batch in self.headers(start):
            if header.max_timestamp < timestamp_ms or header.last_offset < offset:
                continue
            self._check_crc(position, batch)
            try:
                records = iterate_records(batch, read_header(batch))
                found = records.first_at_or_after(timestamp_ms, offset)
            except CorruptRecords as error:
                raise self.corrupt(position, error) from error
            if found is not None:
                return found
        return None

    def truncate(self, position: int) -> None:
        """Cut the file of batches; the indexes must be rebuilt by `recover`."""
        self._log.truncate(position)
        self.size = position
        self.damages = []

    def indexes(self) -> list[tuple[str, bytes]]:
        """Return the paths of the index files, and what should stand in them now."""
        self.time_index.maybe_append(*self._largest())
        found = [
            (f"{self._stem}.index{self._suffix}", self.index.content()),
            (f"{self._stem}.timeindex{self._suffix}", self.time_index.content()),
        ]
        if self.aborted:
            content = b"".join(each.encode() for each in self.aborted)
            found.append((f"{self._stem}.txnindex{self._suffix}", content))
        return found

    def drop_indexes(self) -> None:
        """Free the memory of the indexes: they are on the disk, and are read again when needed."""
        self._largest()
        self._index = self._time_index = self._aborted = None

    def close(self) -> None:
        """Let go of the file of batches."""
        self._log.close()

    def delete(self) -> None:
        """Remove all files."""
        self._log.close()
        for suffix in SUFFIXES:
            self._files.remove(self._stem + suffix)

    def hide(self) -> list[str]:
        """Rename all files, so that they are the log's no longer, and return their paths."""
        self._log.close()
        hidden = []
        names = self._files.list(posixpath.dirname(self._stem))
        for suffix in SUFFIXES:
            path = self._stem + suffix
            if posixpath.basename(path) in names:
                self._files.rename(path, path + DELETED)
                hidden.append(path + DELETED)
        return hidden
