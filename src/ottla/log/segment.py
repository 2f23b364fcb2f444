"""One segment: a file of batches with its two indexes.

Kafka: LogSegment, FileRecords.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ottla.errors import CorruptLog, CorruptRecords
from ottla.log.indexes import OffsetIndex, TimeIndex
from ottla.records.batch import (
    HEADER_BYTES,
    BatchHeader,
    check_crc,
    iterate_records,
    position_of,
    read_header,
    whole_batches_size,
)

if TYPE_CHECKING:
    from ottla.log.config import LogConfig
    from ottla.log.files import File, Files
    from ottla.wire import Buffer

_SCAN_BYTES = 64 * 1024
_OFFSET_DELTA_MAX = 0x7FFFFFFF


def file_name(offset: int, suffix: str) -> str:
    """Return the name of a segment's file. Kafka: LogFileUtils.filenamePrefixFromOffset.

    >>> file_name(368769, ".log")
    '00000000000000368769.log'
    """
    return f"{offset:020}{suffix}"


class Segment:
    """The batches from `base_offset` up to the next segment's.

    Attributes:
        base_offset: the offset that its files are named after.
        first_timestamp: timestamp of its first batch's newest record, or None while it is empty.
        max_timestamp: the largest timestamp in it, or -1.
    """

    def __init__(self, files: Files, folder: str, base_offset: int, config: LogConfig) -> None:
        self.base_offset = base_offset
        self.config = config
        self.first_timestamp: int | None = None
        self.max_timestamp = -1
        self._files = files
        self._stem = f"{folder}/{base_offset:020}"
        self._log: File
        self._index: OffsetIndex | None = None
        self._time_index: TimeIndex | None = None
        self._max_timestamp_offset = base_offset
        self._bytes_since_index_entry = 0

    @classmethod
    def create(cls, files: Files, folder: str, base_offset: int, config: LogConfig) -> Segment:
        """Create an empty segment."""
        segment = cls(files, folder, base_offset, config)
        segment._log = files.open(f"{segment._stem}.log", create=True)
        segment._index = OffsetIndex(base_offset)
        segment._time_index = TimeIndex(base_offset)
        return segment

    @classmethod
    def open(cls, files: Files, folder: str, base_offset: int, config: LogConfig) -> Segment:
        """Open a segment as it was closed; its indexes are believed."""
        segment = cls.open_unchecked(files, folder, base_offset, config)
        segment.max_timestamp, segment._max_timestamp_offset = segment.time_index.last()
        if segment.size >= HEADER_BYTES:
            first = segment._log.read(0, HEADER_BYTES)
            try:
                segment.first_timestamp = read_header(first).max_timestamp
            except CorruptRecords as error:
                raise segment.corrupt(0, error) from error
        return segment

    @classmethod
    def open_unchecked(
        cls, files: Files, folder: str, base_offset: int, config: LogConfig
    ) -> Segment:
        """Open a segment that must be checked with `recover` before anything else."""
        segment = cls(files, folder, base_offset, config)
        segment._log = files.open(f"{segment._stem}.log", create=False)
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
    def size(self) -> int:
        """Bytes of batches."""
        return self._log.size()

    @property
    def index(self) -> OffsetIndex:
        """The offset index, read when it is first used."""
        if self._index is None:
            content = self._files.read(f"{self._stem}.index") or b""
            self._index = OffsetIndex(self.base_offset, content)
        return self._index

    @property
    def time_index(self) -> TimeIndex:
        """The time index, read when it is first used."""
        if self._time_index is None:
            content = self._files.read(f"{self._stem}.timeindex") or b""
            self._time_index = TimeIndex(self.base_offset, content)
        return self._time_index

    def append(self, buffers: Sequence[Buffer], header: BatchHeader, last_offset: int) -> None:
        """Append one batch.

        Args:
            buffers: its bytes.
            header: its header; only its size and its timestamps count.
            last_offset: offset of its last record, inclusive.
        """
        position = self.size
        self._log.append(buffers)
        self._note(position, header.size, header.max_timestamp, last_offset)

    def _note(self, position: int, size: int, max_timestamp: int, last_offset: int) -> None:
        """Keep the indexes in step with a batch. Kafka: LogSegment.append."""
        if self.first_timestamp is None:
            self.first_timestamp = max_timestamp
        if max_timestamp > self.max_timestamp:
            self.max_timestamp = max_timestamp
            self._max_timestamp_offset = last_offset
        if self._bytes_since_index_entry > self.config.index_interval_bytes:
            self.index.append(last_offset, position)
            self.time_index.maybe_append(self.max_timestamp, self._max_timestamp_offset)
            self._bytes_since_index_entry = 0
        self._bytes_since_index_entry += size

    def must_roll(self, size: int, last_offset: int, max_timestamp: int, now_ms: int) -> bool:
        """Tell whether a batch must go into a new segment. Kafka: LogSegment.shouldRoll."""
        if self.size == 0:
            return False
        config = self.config
        first = now_ms if self.first_timestamp is None else self.first_timestamp
        return (
            self.size + size > config.segment_bytes
            or max(max_timestamp, 0) - first > config.segment_ms
            or len(self.index) * 8 >= config.segment_index_bytes - 8
            or len(self.time_index) * 12 >= config.segment_index_bytes - 12
            or last_offset - self.base_offset > _OFFSET_DELTA_MAX
        )

    def position_of(self, offset: int) -> int:
        """Return where the first batch begins that ends at or behind `offset`.

        The answer is the segment's size where there is no such batch.
        """
        position = self.index.lookup(offset)
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
                return position
        return min(position, self.size)

    def read(self, position: int, bytes_max: int, position_end: int, at_least_one: bool) -> bytes:
        """Read whole batches.

        Args:
            position: where a batch begins.
            bytes_max: how many bytes at most.
            position_end: only what lies before it is read; a batch ends there.
            at_least_one: read the first batch even where it is larger than `bytes_max`.
        """
        room = position_end - position
        data = self._log.read(position, min(bytes_max, room))
        if bytes_max >= room:
            return data
        try:
            whole = whole_batches_size(data)
            if whole == 0 and at_least_one:
                if len(data) < HEADER_BYTES:
                    data = self._log.read(position, HEADER_BYTES)
                return self._log.read(position, read_header(data).size)
        except CorruptRecords as error:
            raise self.corrupt(position, error) from error
        return data[:whole]

    def corrupt(self, position: int, error: CorruptRecords) -> CorruptLog:
        """Make the exception for damage in this segment."""
        return CorruptLog(self.path, position, error.what)

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

    def recover(self, visit: Callable[[BatchHeader], None]) -> tuple[int, int, CorruptLog | None]:
        """Rebuild the indexes from the batches, checking each one's checksum.

        Args:
            visit: called with the header of each good batch.

        Returns:
            Where the good batches end, in offsets and in bytes, both exclusive, and what is wrong
            there, or None.
        """
        self._index = OffsetIndex(self.base_offset)
        self._time_index = TimeIndex(self.base_offset)
        self.first_timestamp = None
        self.max_timestamp, self._max_timestamp_offset = -1, self.base_offset
        self._bytes_since_index_entry = 0
        next_offset = self.base_offset
        end = 0
        try:
            for position, header, batch in self.headers():
                try:
                    check_crc(batch, read_header(batch))
                    if header.base_offset < next_offset or header.last_offset_delta < 0:
                        raise CorruptRecords(
                            f"offset {header.base_offset} where {next_offset} is the next"
                        )
                except CorruptRecords as error:
                    raise self.corrupt(position, error) from error
                self._note(position, header.size, header.max_timestamp, header.last_offset)
                next_offset = header.last_offset + 1
                end = position + header.size
                visit(header)
        except CorruptLog as damage:
            return next_offset, end, damage
        return next_offset, end, None

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

    def finish(self) -> None:
        """Write the indexes: the segment becomes inactive or is closed."""
        self.time_index.maybe_append(self.max_timestamp, self._max_timestamp_offset)
        for name, content in (
            (f"{self._stem}.index", self.index.content()),
            (f"{self._stem}.timeindex", self.time_index.content()),
        ):
            self._files.write(name, content)

    def close(self) -> None:
        """Let go of the file of batches."""
        self._log.close()

    def delete(self) -> None:
        """Remove all files."""
        self._log.close()
        for suffix in (".log", ".index", ".timeindex", ".txnindex"):
            self._files.remove(self._stem + suffix)
