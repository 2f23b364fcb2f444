# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Reading and checking record batches of magic 2, the only format that Kafka 4 has.

A batch is a header of 61 bytes and records behind it, perhaps compressed:

    0 base_offset 8      16 magic 1               35 max_timestamp 8     57 records_count 4
    8 batch_length 4     17 crc 4                 43 producer_id 8       61 records
   12 leader_epoch 4     21 attributes 2          51 producer_epoch 2
                         23 last_offset_delta 4   53 base_sequence 4
                         27 base_timestamp 8

The checksum covers everything from the attributes on, so a broker assigns offsets and the leader
epoch without touching it. Records are decoded one at a time, over the buffer that they arrived in
or were inflated into; nothing is copied until a record's key, value or headers are asked for.

Kafka: DefaultRecordBatch, DefaultRecord.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import cython

from ottla.errors import CorruptRecords, DecodeError, InvalidRecords, UnsupportedCodec
from ottla.wire.compression import INFLATED_BYTES_MAX, NONE, ZSTD, decompress
from ottla.wire.crc32c import crc32c

if TYPE_CHECKING:
    from ottla.wire import Buffer

    Header = tuple[str, bytes | None]

if cython.compiled:
    from cython.cimports.cpython.buffer import PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

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

_RECORD_BYTES_MIN = 7


class Bytes:
    """A buffer, held so that C code may read it through a pointer."""

    def __init__(self, data: Buffer) -> None:
        if cython.compiled:
            PyObject_GetBuffer(data, cython.address(self._buffer.view), PyBUF_SIMPLE)
            self._held = True
            self.data = cython.cast(cython.p_const_uchar, self._buffer.view.buf)
            self.size = self._buffer.view.len
        else:
            self.data = memoryview(data).cast("B")
            self.size = len(self.data)

    def __dealloc__(self) -> None:
        if cython.compiled and self._held:
            PyBuffer_Release(cython.address(self._buffer.view))

    def int16(self, at: cython.Py_ssize_t) -> int:
        value: cython.int = (self.data[at] << 8) | self.data[at + 1]
        return value - 65536 if value > 32767 else value

    def uint32(self, at: cython.Py_ssize_t) -> int:
        high: cython.longlong = (self.data[at] << 8) | self.data[at + 1]
        return (high << 16) | (self.data[at + 2] << 8) | self.data[at + 3]

    def int32(self, at: cython.Py_ssize_t) -> int:
        value: cython.longlong = self.uint32(at)
        return value - 4294967296 if value > 2147483647 else value

    def int64(self, at: cython.Py_ssize_t) -> int:
        high: cython.longlong = self.int32(at)
        return (high << 32) | self.uint32(at + 4)

    def slice(self, start: cython.Py_ssize_t, size: cython.Py_ssize_t) -> bytes:
        if cython.compiled:
            return self.data[start : start + size]
        return bytes(self.data[start : start + size])


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


class Record:
    """One record, as it is read from a partition.

    Attributes:
        topic: its topic.
        partition: its partition.
        offset: its offset.
        timestamp_ms: milliseconds since 1970, or -1 where it has none.
    """

    if not cython.compiled:  # for the compiled form batch.pxd says so
        _source: Bytes
        _key_start: int
        _value_start: int
        _headers: list[Header] | None
        _headers_start: int
        _end: int

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        timestamp_ms: int,
        key: object = None,
        value: object = None,
        headers: list[Header] | None = None,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.timestamp_ms = timestamp_ms
        self._key = key
        self._key_size = -1
        self._value = value
        self._value_size = -1
        self._headers = [] if headers is None else headers

    @property
    def key(self) -> Any:
        """The key, as bytes where no deserializer made something else of it; None for none."""
        if self._key_size >= 0:
            self._key = self._source.slice(self._key_start, self._key_size)
            self._key_size = -1
        return self._key

    @property
    def value(self) -> Any:
        """The value, as bytes where no deserializer made something else of it; None for none."""
        if self._value_size >= 0:
            self._value = self._source.slice(self._value_start, self._value_size)
            self._value_size = -1
        return self._value

    @property
    def headers(self) -> list[Header]:
        """The headers in their order, as (name, value); a value may be None."""
        if self._headers is None:
            self._headers = _read_headers(self._source, self._headers_start, self._end)
        return self._headers

    def replace(self, key: object, value: object) -> None:
        """Have another key and value: what deserializers have made of them.

        These may refer to the record, so the garbage collector follows it from now on.
        """
        self._key, self._value = key, value
        self._key_size = self._value_size = -1
        if cython.compiled and not PyObject_GC_IsTracked(self):  # noqa: F821 - batch.pxd has it
            PyObject_GC_Track(self)  # noqa: F821 - batch.pxd has it

    def __repr__(self) -> str:
        return (
            f"Record(topic={self.topic!r}, partition={self.partition}, offset={self.offset}, "
            f"timestamp_ms={self.timestamp_ms}, key={self.key!r}, value={self.value!r}, "
            f"headers={self.headers!r})"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return (
            (self.topic, self.partition, self.offset)
            == (other.topic, other.partition, other.offset)
            and self.timestamp_ms == other.timestamp_ms
            and self.key == other.key
            and self.value == other.value
            and self.headers == other.headers
        )

    __hash__ = None  # type: ignore[assignment]  # values are compared, so not hashable


class RecordIterator:
    """Iterates over the records of one batch.

    Args:
        records: the records, inflated.
        header: the batch's header.
        topic: what the records say their topic is.
        partition: and their partition.

    Iterating raises `CorruptRecords` where the records are not what the header says.
    """

    def __init__(self, records: Bytes, header: BatchHeader, topic: str, partition: int) -> None:
        self._source = records
        self._position = 0
        self._left = header.records_count
        self._offset = header.base_offset - 1
        self._header = header
        self._topic = topic
        self._partition = partition
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

    def _next(self) -> Record:
        """Make an object of the next record; where it cannot be read, it stays the next."""
        before: cython.longlong = self._offset
        left: cython.int = self._left
        try:
            self._step()
            if self._left == 0:
                self._finish()
        except CorruptRecords:
            self._offset = before
            self._left = left
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

    def _step(self) -> int:
        """Decode the next record into the fields of this object."""
        size: cython.longlong = _varint(self, self._source.size)
        if size < _RECORD_BYTES_MIN - 1 or size > self._source.size - self._position:
            raise CorruptRecords(
                f"a record of {size} bytes, {self._source.size - self._position} remain"
            )
        end: cython.Py_ssize_t = self._position + size
        self._position += 1
        delta: cython.longlong = _varint(self, end)
        if self._append_time:
            self._timestamp = self._header.max_timestamp
        else:
            self._timestamp = self._header.base_timestamp + delta
        self._offset = self._header.base_offset + _varint(self, end)
        self._key_size = _varint(self, end)
        self._key_start = self._position
        self._advance(self._key_size, end)
        self._value_size = _varint(self, end)
        self._value_start = self._position
        self._advance(self._value_size, end)
        self._headers_start = self._position
        self._end = end
        self._position = end
        self._left -= 1
        return 0

    def _advance(self, size: cython.longlong, end: cython.Py_ssize_t) -> int:
        """Pass over a key or value; a size of -1 stands for None."""
        if size > 0:
            if size > end - self._position:
                raise CorruptRecords(f"{size} bytes named, {end - self._position} remain")
            self._position += size
        elif size < -1:
            raise CorruptRecords(f"a size of {size} within a record")
        return 0

    def _skip_headers(self) -> int:
        """Walk over the current record's headers to its end."""
        end: cython.Py_ssize_t = self._end
        self._position = self._headers_start
        count: cython.longlong = _varint(self, end)
        if count < 0 or count > (end - self._position) // 2:
            raise CorruptRecords(f"a record claims to have {count} headers")
        while count > 0:
            size: cython.longlong = _varint(self, end)
            if size < 0:
                raise CorruptRecords("a header without a name")
            self._advance(size, end)
            self._advance(_varint(self, end), end)
            count -= 1
        if self._position != end:
            raise CorruptRecords(f"{end - self._position} bytes left over in a record")
        return 0

    def _make(self) -> Record:
        """Make an object of the current record; its bytes are copied when they are asked for."""
        record: Record = Record.__new__(Record)
        record.topic = self._topic
        record.partition = self._partition
        record.offset = self._offset
        record.timestamp_ms = self._timestamp
        record._source = self._source
        record._key = None
        record._key_start = self._key_start
        record._key_size = self._key_size
        record._value = None
        record._value_start = self._value_start
        record._value_size = self._value_size
        record._headers = None
        record._headers_start = self._headers_start
        record._end = self._end
        if cython.compiled:
            # It holds only bytes, nothing that could be a cycle; `replace` has it followed again.
            PyObject_GC_UnTrack(record)  # noqa: F821 - batch.pxd declares it
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


def _varint(reader: RecordIterator, end: cython.Py_ssize_t) -> int:
    """Decode a zigzag varint of at most 64 bits that ends before `end`."""
    data: cython.p_const_uchar = reader._source.data
    position: cython.Py_ssize_t = reader._position
    bits: cython.int
    if position < end and data[position] < 0x80:  # nearly all of them take one byte or two
        reader._position = position + 1
        bits = data[position]
        return (bits >> 1) ^ -(bits & 1)
    if position + 1 < end and data[position + 1] < 0x80:
        reader._position = position + 2
        bits = (data[position] & 0x7F) | (data[position + 1] << 7)
        return (bits >> 1) ^ -(bits & 1)
    return _long_varint(reader, end)


def _long_varint(reader: RecordIterator, end: cython.Py_ssize_t) -> int:
    data: cython.p_const_uchar = reader._source.data
    position: cython.Py_ssize_t = reader._position
    value: cython.ulonglong = 0
    shift: cython.int = 0
    while position < end and shift < 70:
        byte: cython.ulonglong = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            reader._position = position
            if cython.compiled:
                half: cython.longlong = cython.cast(cython.longlong, value >> 1)
                return half ^ -cython.cast(cython.longlong, value & 1)
            value &= 0xFFFF_FFFF_FFFF_FFFF
            return (value >> 1) ^ -(value & 1)
        shift += 7
    raise CorruptRecords("a varint within a record does not end")


def read_headers(data: Buffer) -> list[Header]:
    """Decode headers as they lie in a record, their number first.

    Raises:
        CorruptRecords: they are not what the format says.
    """
    held = Bytes(data)
    return _read_headers(held, 0, held.size)


def _read_headers(source: Bytes, start: cython.Py_ssize_t, end: cython.Py_ssize_t) -> list[Header]:
    reader: RecordIterator = RecordIterator.__new__(RecordIterator)
    reader._source = source
    reader._position = start
    count: cython.longlong = _varint(reader, end)
    if count < 0 or count > (end - reader._position) // 2:
        raise CorruptRecords(f"a record claims to have {count} headers")
    headers: list[Header] = []
    while count > 0:
        size: cython.longlong = _varint(reader, end)
        at: cython.Py_ssize_t = reader._position
        if size < 0:
            raise CorruptRecords("a header without a name")
        reader._advance(size, end)
        try:
            name = source.slice(at, size).decode()
        except UnicodeDecodeError as error:
            raise CorruptRecords("a header's name is not UTF-8") from error
        size = _varint(reader, end)
        at = reader._position
        reader._advance(size, end)
        headers.append((name, None if size < 0 else source.slice(at, size)))
        count -= 1
    return headers


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
