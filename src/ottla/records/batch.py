# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Reading and checking record batches of magic 2, the only format that Kafka 4 has.

A batch is a header of 61 bytes and records behind it, perhaps compressed:

    0 base_offset 8      16 magic 1               35 max_timestamp 8     57 records_count 4
    8 batch_length 4     17 crc 4                 43 producer_id 8       61 records
   12 leader_epoch 4     21 attributes 2          51 producer_epoch 2
                         23 last_offset_delta 4   53 base_sequence 4
                         27 base_timestamp 8

The checksum covers everything from the attributes on, so a broker assigns offsets and the leader
epoch without touching it. Records are decoded one at a time; see `ottla.records.record`.

Kafka: DefaultRecordBatch, DefaultRecord.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import cython

from ottla.errors import CorruptRecords, DecodeError, InvalidRecords, UnsupportedCodec
from ottla.records.record import Bytes, Lot, Record, Walk
from ottla.wire.compression import INFLATED_BYTES_MAX, NONE, ZSTD, decompress
from ottla.wire.crc32c import crc32c

if TYPE_CHECKING:
    from ottla.wire import Buffer

if cython.compiled:
    from cython.cimports.ottla.records.record import Bytes, Lot, Walk
else:
    _Record = Record

HEADER_BYTES = 61
"""The size of a batch's header."""

LENGTH_END = 12
"""Where `batch_length` begins to count."""

CRC_START = 21
"""The first byte that the checksum covers."""

CODEC_MASK = 0x07
LOG_APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20

NO_TIMESTAMP = -1
NO_PRODUCER_ID = -1
NO_SEQUENCE = -1

_RECORD_BYTES_MIN = cython.declare(cython.int, 7)
_FIELDS_BYTES_MAX = cython.declare(cython.Py_ssize_t, 16)
_LONG = cython.declare(cython.int, 0x40000000)
"""Stands for a varint of more than three bytes: no shorter one is as much."""


class BatchHeader:
    """The header of one batch, with the names of the layout above.

    Attributes:
        size: bytes of the whole batch, header included.
    """

    def __init__(self, data: Bytes, position: cython.Py_ssize_t) -> None:
        self.position = position
        self.base_offset = data.int64(position)
        self.size = LENGTH_END + data.int32(position + 8)
        self.leader_epoch = data.int32(position + 12)
        self.magic = data.data[position + 16]
        self.crc = data.uint32(position + 17)
        self.attributes = data.int16(position + 21)
        self.last_offset_delta = data.int32(position + 23)
        self.base_timestamp = data.int64(position + 27)
        self.max_timestamp = data.int64(position + 35)
        self.producer_id = data.int64(position + 43)
        self.producer_epoch = data.int16(position + 51)
        self.base_sequence = data.int32(position + 53)
        self.records_count = data.int32(position + 57)

    @property
    def last_offset(self) -> int:
        """The offset of the last record, inclusive."""
        return self.base_offset + self.last_offset_delta

    @property
    def last_sequence(self) -> int:
        """The sequence of the last record; after 2**31 - 1 comes 0. Kafka: incrementSequence."""
        if self.base_sequence < 0:
            return NO_SEQUENCE
        return (self.base_sequence + self.last_offset_delta) & 0x7FFFFFFF

    @property
    def codec(self) -> int:
        """The number of the codec, as in `ottla.wire.compression`."""
        return self.attributes & CODEC_MASK

    @property
    def is_log_append_time(self) -> bool:
        """Whether all records have the batch's max_timestamp, set by the broker."""
        return self.attributes & LOG_APPEND_TIME != 0

    @property
    def is_transactional(self) -> bool:
        """Whether the batch is part of a transaction."""
        return self.attributes & TRANSACTIONAL != 0

    @property
    def is_control(self) -> bool:
        """Whether the batch holds a marker instead of records."""
        return self.attributes & CONTROL != 0


def read_header(data: Buffer, position: int = 0) -> BatchHeader:
    """Read the header of the batch that begins at `position`.

    The batch itself may end behind the data (`header.size` tells); its checksum is not looked at.

    Raises:
        CorruptRecords: no header fits there, or its size or magic cannot be.
    """
    return _header_at(Bytes(data), position)


@cython.cfunc
def _header_at(data: Bytes, position: cython.Py_ssize_t) -> BatchHeader:
    if position < 0 or data.size - position < HEADER_BYTES:
        raise CorruptRecords(f"{data.size - position} bytes cannot hold a batch's header")
    if data.data[position + 16] != 2:
        raise CorruptRecords(
            f"magic {data.data[position + 16]}: only batches of magic 2 are understood"
        )
    header = BatchHeader(data, position)
    if header.size < HEADER_BYTES:
        raise CorruptRecords(f"a batch claims to be {header.size} bytes long")
    return header


def check_crc(data: Buffer, header: BatchHeader) -> None:
    """Check the checksum of a batch.

    Args:
        data: the buffer that the header was read from.
        header: its header.

    Raises:
        CorruptRecords: the checksum is wrong, or the batch is cut off.
    """
    view = memoryview(data)[header.position : header.position + header.size]
    if len(view) < header.size:
        raise CorruptRecords(f"a batch of {header.size} bytes is cut off after {len(view)}")
    if crc32c(view[CRC_START:]) != header.crc:
        raise CorruptRecords("the checksum of a batch is wrong")


def iterate_headers(data: Buffer) -> Iterator[BatchHeader]:
    """Iterate over the headers of the whole batches in `data`; one cut off at the end is left out.

    Raises:
        CorruptRecords: where there should be a batch there is none.
    """
    held = Bytes(data)
    position = 0
    while held.size - position >= HEADER_BYTES:
        header = _header_at(held, position)
        if header.size > held.size - position:
            return
        yield header
        position += header.size


class RecordIterator(Walk):
    """Iterates over the records of one batch.

    Args:
        records: the records, inflated.
        header: the batch's header.
        topic: what the records say their topic is.
        partition: and their partition.

    Iterating raises `CorruptRecords` where the records are not what the header says.
    """

    def __init__(self, records: Bytes, header: BatchHeader, topic: str, partition: int) -> None:
        super().__init__(records, 0)
        self._lot = Lot(topic, partition, records)
        self._left = header.records_count
        self._offset = header.base_offset - 1
        self._header = header
        self._append_time = header.is_log_append_time

    @property
    def left(self) -> int:
        """How many records are to come."""
        return self._left

    @property
    def next_offset(self) -> int:
        """The offset behind that of the record that came last, or behind the batch at its end."""
        return self._offset + 1 if self._left else self._header.last_offset + 1

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        if self._left == 0:
            self._finish()
            raise StopIteration
        self._step()
        return self._make()

    def take(self, records: list[Record], count: cython.Py_ssize_t, offset: cython.longlong) -> int:
        """Append records to a list.

        Args:
            records: the list.
            count: how many at most.
            offset: the first offset wanted, inclusive; records before it are passed over.

        Returns:
            How many were appended; fewer than `count` only at the end of the batch.
        """
        taken: cython.Py_ssize_t = 0
        while taken < count and self._left > 0:
            self._step()
            if self._offset >= offset:
                records.append(self._make())
                taken += 1
        if self._left == 0:
            self._finish()
        return taken

    def pass_over(self, offset: cython.longlong) -> None:
        """Go to the first record at or behind an offset.

        Raises:
            CorruptRecords: the records are not what the header says.
        """
        while self._left > 0:
            position: cython.Py_ssize_t = self._position
            self._step()
            if self._offset >= offset:
                self._position = position
                self._left += 1
                self._offset = max(offset, self._header.base_offset) - 1
                return
        self._finish()

    def _next(self) -> _Record:
        """Make an object of the next record; where it cannot be read, it stays the next."""
        before: cython.longlong = self._offset
        left: cython.int = self._left
        position: cython.Py_ssize_t = self._position
        try:
            self._step()
            if self._left == 0:
                self._finish()
        except CorruptRecords:
            self._offset = before
            self._left = left
            self._position = position
            raise
        return self._make()

    def scan(self) -> RecordsScan:
        """Walk over all records, headers included, and check what the batch's header says.

        Raises:
            CorruptRecords: the records' structure is wrong.
            InvalidRecords: the offsets are not 0, 1, 2 and so on from the base offset.
        """
        found = RecordsScan()
        index: cython.int = 0
        while self._left > 0:
            self._step()
            if self._offset != self._header.base_offset + index:
                raise InvalidRecords(f"record {index} has an offset delta that is not {index}")
            if index == 0 or self._timestamp < found.min_timestamp:
                found.min_timestamp = self._timestamp
            if index == 0 or self._timestamp > found.max_timestamp:
                found.max_timestamp = self._timestamp
                found.max_timestamp_offset = self._offset
            if self._key_size < 0 and found.first_null_key < 0:
                found.first_null_key = index
            self._skip_headers()
            index += 1
        self._finish()
        return found

    def first_at_or_after(
        self, timestamp_ms: cython.longlong, offset: cython.longlong
    ) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record stamped `timestamp_ms` or later, or None.

        Args:
            timestamp_ms: the timestamp.
            offset: records before it do not count.
        """
        while self._left > 0:
            self._step()
            if self._timestamp >= timestamp_ms and self._offset >= offset:
                return (self._offset, self._timestamp)
        return None

    def _finish(self) -> int:
        if self._position != self._source.size:
            raise CorruptRecords(
                f"{self._source.size - self._position} bytes left over behind the last record"
            )
        return 0

    def _quick(self, spare: _Record | None) -> _Record | None:
        """Make an object of the next record where it is as most are; None where it is not.

        Args:
            spare: an object that nobody else holds, to be used again, or None.
        """
        if self._left == 0 or not self._step_quickly():
            return None
        return self._make() if spare is None else self._fill(spare)

    def _step_quickly(self) -> bool:
        """Decode the next record where it is as most are; False where it is not.

        Then each of its numbers takes up to three bytes, it is not the last one of the source or
        ends where that does, and what it names lies in it.
        """
        data: cython.p_const_uchar = self._source.data
        size: cython.Py_ssize_t = self._source.size
        at: cython.Py_ssize_t = self._position
        record_size: cython.int
        stamp: cython.int
        delta: cython.int
        key_size: cython.int
        value_size: cython.int
        if at + _FIELDS_BYTES_MAX > size:
            return False
        record_size, at = _short(data, at)
        end: cython.Py_ssize_t = at + record_size
        if record_size < _RECORD_BYTES_MIN - 1 or end > size:
            return False
        stamp, at = _short(data, at + 1)
        delta, at = _short(data, at)
        key_size, at = _short(data, at)
        key_start: cython.Py_ssize_t = at
        if max(stamp, delta) == _LONG or key_size < -1:
            return False
        if key_size > 0:
            at += key_size
        if at + 2 > end or at + 3 > size:
            return False
        value_size, at = _short(data, at)
        value_start: cython.Py_ssize_t = at
        if value_size > 0:
            at += value_size
        if value_size < -1 or at > end or (self._left == 1 and end != size):
            return False
        header: BatchHeader = self._header
        if self._append_time:
            self._timestamp = header.max_timestamp
        else:
            self._timestamp = header.base_timestamp + stamp
        self._offset = header.base_offset + delta
        self._key_start, self._key_size = key_start, key_size
        self._value_start, self._value_size = value_start, value_size
        self._headers_start = at
        self._position = self._end = end
        self._left -= 1
        return True

    def _step(self) -> int:
        """Decode the next record into the fields of this object."""
        if self._step_quickly():
            return 0
        size: cython.longlong = self._varint(self._source.size)
        if size < _RECORD_BYTES_MIN - 1 or size > self._source.size - self._position:
            raise CorruptRecords(
                f"a record of {size} bytes, {self._source.size - self._position} remain"
            )
        end: cython.Py_ssize_t = self._position + size
        self._position += 1
        delta: cython.longlong = self._varint(end)
        if self._append_time:
            self._timestamp = self._header.max_timestamp
        else:
            self._timestamp = self._header.base_timestamp + delta
        self._offset = self._header.base_offset + self._varint(end)
        self._key_size = self._varint(end)
        self._key_start = self._position
        self._advance(self._key_size, end)
        self._value_size = self._varint(end)
        self._value_start = self._position
        self._advance(self._value_size, end)
        self._headers_start = self._position
        self._end = end
        self._position = end
        self._left -= 1
        return 0

    def _skip_headers(self) -> int:
        """Walk over the current record's headers to its end."""
        end: cython.Py_ssize_t = self._end
        self._position = self._headers_start
        count: cython.longlong = self._varint(end)
        if count < 0 or count > (end - self._position) // 2:
            raise CorruptRecords(f"a record claims to have {count} headers")
        while count > 0:
            size: cython.longlong = self._varint(end)
            if size < 0:
                raise CorruptRecords("a header without a name")
            self._advance(size, end)
            self._advance(self._varint(end), end)
            count -= 1
        if self._position != end:
            raise CorruptRecords(f"{end - self._position} bytes left over in a record")
        return 0

    def _make(self) -> _Record:
        """Make an object of the current record; its bytes are copied when they are asked for."""
        record: _Record = _Record.__new__(_Record)
        if cython.compiled:
            # It holds only bytes, nothing that could be a cycle; `replace` has it followed again.
            PyObject_GC_UnTrack(record)  # noqa: F821 - batch.pxd has it
        else:  # compiled, they are so already
            record._lot = self._lot
            record._key = record._value = record._headers = None
        return self._fill(record)

    def _fill(self, record: _Record) -> _Record:
        """Have an object be the current record."""
        if record._lot is not self._lot:
            record._lot = self._lot
        record.offset = self._offset
        record.timestamp_ms = self._timestamp
        record._key_start = self._key_start
        record._key_size = self._key_size
        record._value_start = self._value_start
        record._value_size = self._value_size
        record._headers_start = self._headers_start
        record._end = self._end
        if record._key is not None:
            record._key = None
        if record._headers is not None:
            record._headers = None
        if record._value is not None:
            record._value = None
        return record


class RecordsScan:
    """What a walk over all records of a batch found.

    Attributes:
        max_timestamp: the largest timestamp.
        max_timestamp_offset: the first offset that has it.
        min_timestamp: the smallest timestamp.
        first_null_key: index of the first record without a key, or -1.
    """

    def __init__(self) -> None:
        self.max_timestamp = NO_TIMESTAMP
        self.max_timestamp_offset = -1
        self.min_timestamp = NO_TIMESTAMP
        self.first_null_key = -1


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _short(
    data: cython.p_const_uchar, at: cython.Py_ssize_t
) -> tuple[cython.int, cython.Py_ssize_t]:
    """Decode a zigzag varint of up to three bytes: its value, or `_LONG`, and where it ends.

    Where it ends is told by branches and not computed from what was read: so a processor goes on
    behind a number that it expects to be as long as the last one was, and does not wait for it.
    """
    first: cython.int = data[at]
    if first < 0x80:
        return (first >> 1) ^ -(first & 1), at + 1
    second: cython.int = data[at + 1]
    first = (first & 0x7F) | ((second & 0x7F) << 7)
    if second < 0x80:
        return (first >> 1) ^ -(first & 1), at + 2
    third: cython.int = data[at + 2]
    if third >= 0x80:
        return _LONG, at + 3
    first |= third << 14
    return (first >> 1) ^ -(first & 1), at + 3


def iterate_records(
    data: Buffer,
    header: BatchHeader,
    topic: str = "",
    partition: int = 0,
    inflated_bytes_max: int = INFLATED_BYTES_MAX,
) -> RecordIterator:
    """Iterate over the records of a batch.

    Args:
        data: the buffer that the header was read from; the records refer to it.
        header: the batch's header.
        topic: what the records say their topic is.
        partition: and their partition.
        inflated_bytes_max: the most that a compressed batch may inflate to.

    Raises:
        CorruptRecords: the batch is cut off, or its compressed data is damaged.
        UnsupportedCodec: its codec is not one of Kafka's.
    """
    start = header.position + HEADER_BYTES
    body = memoryview(data)[start : header.position + header.size]
    if len(body) != header.size - HEADER_BYTES:
        raise CorruptRecords(f"a batch of {header.size} bytes is cut off")
    inflated = body
    if header.codec != NONE:
        if header.codec > ZSTD:
            raise UnsupportedCodec(f"codec {header.codec} is none of Kafka's")
        try:
            inflated = memoryview(decompress(header.codec, body, inflated_bytes_max))
        except DecodeError as error:
            raise CorruptRecords(error.what) from error
    _check_count(header, len(inflated))
    return RecordIterator(Bytes(inflated), header, topic, partition)


@cython.cfunc
def _check_count(header: BatchHeader, size: cython.Py_ssize_t) -> object:
    if header.records_count < 0 or header.records_count > size // _RECORD_BYTES_MIN:
        raise CorruptRecords(
            f"a batch of {size} bytes claims to hold {header.records_count} records"
        )
    return None


def validate(
    data: Buffer, inflated_bytes_max: int = INFLATED_BYTES_MAX
) -> tuple[BatchHeader, RecordsScan]:
    """Check that `data` is exactly one batch that a producer may send.

    Checked are the header, the checksum and each record: their number, sizes and offsets. Nothing
    is checked that depends on a topic's config.

    Raises:
        CorruptRecords: the batch was damaged.
        InvalidRecords: it is none or not the only one, empty, a control batch, does not begin at
            offset 0, or its count and offsets contradict each other.
        UnsupportedCodec: its codec is not one of Kafka's.

    Kafka: LogValidator.validateBatch, UnifiedLog.analyzeAndValidateRecords.
    """
    held = Bytes(data)
    if held.size > 16 and held.data[16] in (0, 1):
        raise InvalidRecords(f"magic {held.data[16]}: only batches of magic 2 are stored")
    header = _header_at(held, 0)
    if header.size != held.size:
        if header.size < held.size:
            raise InvalidRecords("more than one batch for a partition in one request")
        raise CorruptRecords(f"a batch of {header.size} bytes is cut off after {held.size}")
    if crc32c(memoryview(data)[CRC_START:]) != header.crc:
        raise CorruptRecords("the checksum of a batch is wrong")
    if header.attributes & CONTROL:
        raise InvalidRecords("a control batch from a client")
    if header.base_offset != 0:
        raise InvalidRecords(f"base offset {header.base_offset}: producers begin at 0")
    if header.records_count <= 0:
        raise InvalidRecords(f"a batch of {header.records_count} records")
    if header.last_offset_delta != header.records_count - 1:
        raise InvalidRecords(
            f"a batch of {header.records_count} records with a last offset delta of "
            f"{header.last_offset_delta}"
        )
    if header.attributes & CODEC_MASK != NONE:
        return header, iterate_records(data, header, "", 0, inflated_bytes_max).scan()
    _check_count(header, held.size - HEADER_BYTES)
    records = RecordIterator(held, header, "", 0)
    records._position = HEADER_BYTES
    return header, records.scan()
