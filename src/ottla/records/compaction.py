# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What compaction does with one batch: note its keys, and rewrite it with the records that stay.

A batch that loses records keeps its offsets, sequences and producer, so that nobody who counts them
sees a gap that is none. A record without a value stays until the batch's delete horizon has passed;
the horizon is set when the batch is first rewritten, and then stands in the field of the base
timestamp (attribute bit 6, KIP-534).

Nothing here holds the interpreter for long, however large a batch is and however many keys there
are: a walk pauses again and again, and the keys are kept in many small dictionaries, since a large
one takes tens of milliseconds to grow.

Kafka: Cleaner.shouldRetainRecord, MemoryRecords.filterTo, DefaultRecordBatch.writeEmptyHeader.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cython

from ottla.records.batch import (
    CODEC_MASK,
    CRC_START,
    HEADER_BYTES,
    LENGTH_END,
    NO_TIMESTAMP,
    BatchHeader,
    RecordIterator,
    iterate_records,
)
from ottla.wire.compression import NONE, compress
from ottla.wire.crc32c import crc32c

if cython.compiled:
    from cython.cimports.libc.string import memcpy
    from cython.cimports.ottla.records.batch import RecordIterator
    from cython.cimports.ottla.records.record import Bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from ottla.records.record import Bytes
    from ottla.wire import Buffer

DELETE_HORIZON = 0x40
"""The attribute bit that says that the base timestamp is the delete horizon."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
_CRC = struct.Struct(">I")
_CRC_AT = 17
_MAGIC = 2
_ENTRY_BYTES = cython.declare(cython.Py_ssize_t, 150)
"""About what an entry of a dictionary takes besides the key itself."""


_PARTS = cython.declare(cython.Py_ssize_t, 256)
_RECORDS_AT_ONCE = cython.declare(cython.Py_ssize_t, 256)


@cython.cclass
class LatestOffsets:
    """The last offset of each key.

    Args:
        pause: is called with 0 again and again while a batch is walked over.
    """

    pause: Callable[[int], None]
    _parts: list[dict[bytes, int]]

    def __init__(self, pause: Callable[[int], None]) -> None:
        self.pause = pause
        self._parts = [{} for _ in range(_PARTS)]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @cython.cfunc
    def part_of(self, key: bytes) -> dict[bytes, int]:
        """Return where a key is noted; not by the bits of its hash that dictionaries go by."""
        index: cython.Py_ssize_t = (hash(key) >> 48) & (_PARTS - 1)
        return self._parts[index]

    def of(self, key: bytes) -> int:
        """Return a key's last offset, or -1."""
        return self.part_of(key).get(key, -1)

    def note(self, key: bytes, offset: int) -> None:
        """Note a key's last offset."""
        self.part_of(key)[key] = offset

    def forget(self) -> None:
        """Forget all keys, part by part: to free many at once takes long too."""
        for part in self._parts:
            part.clear()
            self.pause(0)


def index_keys(
    data: Buffer, header: BatchHeader, latest: LatestOffsets, offset_min: cython.longlong
) -> int:
    """Note the last offset of each key in a batch.

    Args:
        data: the buffer that the header was read from.
        header: the batch's header.
        latest: takes the offsets of the batch's records.
        offset_min: records before it do not count.

    Returns:
        About how many bytes of memory the new keys take.

    Raises:
        CorruptRecords: the records are not what the header says.
    """
    records: RecordIterator = iterate_records(data, header)
    added: cython.Py_ssize_t = 0
    while records._left > 0:
        if records._left % _RECORDS_AT_ONCE == 0:
            latest.pause(0)
        records._step()
        if records._key_size < 0 or records._offset < offset_min:
            continue
        key: bytes = records._source.slice(records._key_start, records._key_size)
        part: dict[bytes, int] = latest.part_of(key)
        if key not in part:
            added += records._key_size + _ENTRY_BYTES
        part[key] = records._offset
    return added


def filter_batch(
    data: Buffer,
    header: BatchHeader,
    latest: LatestOffsets,
    offset_end: cython.longlong,
    now_ms: cython.longlong,
    delete_retention_ms: cython.longlong,
) -> Buffer | None:
    """Return a batch with only the records that stay.

    A record stays if it is the last of its key, and has a value or its delete horizon has not come.
    Records without a key go: a compacted topic has none.

    Args:
        data: the buffer that the header was read from.
        header: the batch's header.
        latest: the last offsets of all keys before `offset_end`.
        offset_end: what lies behind it stays.
        now_ms: milliseconds since 1970.
        delete_retention_ms: how long a record without a value stays from now on, if this is the
            first time that the batch is looked at.

    Returns:
        The batch as it is, the batch as it must be written, or None if no record stays.

    Raises:
        CorruptRecords: the records are not what the header says.
    """
    has_horizon: cython.bint = header.attributes & DELETE_HORIZON != 0
    keep_deletes: cython.bint = not has_horizon or now_ms < header.base_timestamp
    records: RecordIterator = iterate_records(data, header)
    kept = _Kept(records._source, header.records_count)
    has_deletes: cython.bint = False
    index: cython.Py_ssize_t = 0
    while records._left > 0:
        if records._left % _RECORDS_AT_ONCE == 0:
            latest.pause(0)
        start: cython.Py_ssize_t = records._position
        records._step()
        index += 1
        if records._offset < offset_end:
            if records._key_size < 0:
                continue
            key: bytes = records._source.slice(records._key_start, records._key_size)
            if latest.part_of(key).get(key, -1) > records._offset:
                continue
            if records._value_size < 0 and not keep_deletes:
                continue
        if records._value_size < 0:
            has_deletes = True
        kept.keep(index - 1, start, records._end, records._timestamp)
    if kept.count == 0:
        return None
    sets_horizon: cython.bint = has_deletes and not has_horizon
    if kept.count == index and not sets_horizon:
        return memoryview(data)[header.position : header.position + header.size]
    if sets_horizon:
        base_ms = now_ms + delete_retention_ms
        source = records._source
        return _encoded_again(source, header, kept.flags, base_ms, DELETE_HORIZON, latest.pause)
    if header.is_log_append_time:  # the records get the batch's timestamp, as Kafka does it
        base_ms = header.base_timestamp
        return _encoded_again(records._source, header, kept.flags, base_ms, 0, latest.pause)
    return _rebuilt(header, kept.body(), kept.count, (header.base_timestamp, kept.max_timestamp))


@cython.cclass
class _Kept:
    """The records that stay: their bytes, which do not change with what is around them.

    Args:
        source: all records of the batch.
        count: how many these are.
    """

    count: cython.Py_ssize_t
    max_timestamp: cython.longlong
    flags: bytearray
    _source: Bytes
    _body: bytearray
    _size: cython.Py_ssize_t

    def __init__(self, source: Bytes, count: cython.Py_ssize_t) -> None:
        self.count = 0
        self.max_timestamp = NO_TIMESTAMP
        self.flags = bytearray(count)
        self._source = source
        self._body = bytearray(source.size)
        self._size = 0

    @cython.cfunc
    @cython.exceptval(-1)
    def keep(
        self,
        index: cython.Py_ssize_t,
        start: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        timestamp: cython.longlong,
    ) -> cython.int:
        """Keep the record that is the `index`-th of the batch."""
        size: cython.Py_ssize_t = end - start
        if cython.compiled:
            target: cython.p_uchar = self._body
            memcpy(target + self._size, self._source.data + start, size)
        else:
            self._body[self._size : self._size + size] = self._source.slice(start, size)
        self._size += size
        self.flags[index] = 1
        self.count += 1
        self.max_timestamp = max(self.max_timestamp, timestamp)
        return 0

    def body(self) -> bytearray:
        """Return their bytes."""
        del self._body[self._size :]
        return self._body


def with_delete_horizon(data: Buffer, header: BatchHeader, horizon_ms: int) -> Buffer:
    """Return a batch with all its records and a delete horizon, in milliseconds since 1970."""
    records: RecordIterator = iterate_records(data, header)
    flags = bytearray(b"\x01") * header.records_count
    source = records._source
    return _encoded_again(source, header, flags, horizon_ms, DELETE_HORIZON, lambda count: None)


@cython.cfunc
def _encoded_again(
    source: Bytes,
    header: BatchHeader,
    flags: bytearray,
    base_ms: cython.longlong,
    attributes: cython.int,
    pause: Callable[[int], None],
) -> Buffer:
    """Return a batch with the records whose flags are set, and with another base timestamp."""
    records: RecordIterator = RecordIterator(source, header, "", 0)
    body = bytearray()
    max_timestamp = NO_TIMESTAMP
    for flag in flags:
        if records._left % _RECORDS_AT_ONCE == 0:
            pause(0)
        records._step()
        if not flag:
            continue
        max_timestamp = max(max_timestamp, records._timestamp)
        middle = _varint(records._timestamp - base_ms)
        middle += _varint(records._offset - header.base_offset) + _varint(records._key_size)
        body += _varint(1 + len(middle) + records._end - records._key_start)
        body.append(0)
        body += middle
        body += source.slice(records._key_start, records._end - records._key_start)
    return _rebuilt(header, body, sum(flags), (base_ms, max_timestamp), attributes)


def _rebuilt(
    header: BatchHeader,
    body: bytearray,
    count: int,
    timestamps: tuple[int, int],
    attributes: int = 0,
) -> Buffer:
    """Return a batch of some records, with its base timestamp and the largest of theirs."""
    attributes |= header.attributes & ~CODEC_MASK
    if header.is_log_append_time:
        timestamps = (timestamps[0], header.max_timestamp)
    content: Buffer = body
    if header.codec != NONE:
        packed = compress(header.codec, memoryview(body), None)
        if len(packed) < len(body):
            content = packed
            attributes |= header.codec
    return _batch(header, attributes, timestamps, count, content)


def empty_batch(header: BatchHeader) -> Buffer:
    """Return a batch without records that keeps another's offsets, sequences and producer."""
    attributes = header.attributes & ~(CODEC_MASK | DELETE_HORIZON)
    return _batch(header, attributes, (NO_TIMESTAMP, header.max_timestamp), 0, b"")


def _batch(
    header: BatchHeader, attributes: int, timestamps: tuple[int, int], count: int, content: Buffer
) -> Buffer:
    """Put a header like another before records."""
    size = HEADER_BYTES + len(content)
    batch = bytearray(size)
    _HEADER.pack_into(
        batch,
        0,
        header.base_offset,
        size - LENGTH_END,
        header.leader_epoch,
        _MAGIC,
        0,
        attributes,
        header.last_offset_delta,
        *timestamps,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        count,
    )
    batch[HEADER_BYTES:] = content
    _CRC.pack_into(batch, _CRC_AT, crc32c(memoryview(batch)[CRC_START:]))
    return batch


def _varint(value: int) -> bytes:
    """Encode a zigzag varint."""
    bits = (value << 1) ^ (value >> 63)
    encoded = bytearray()
    while bits > 0x7F:
        encoded.append(bits & 0x7F | 0x80)
        bits >>= 7
    encoded.append(bits)
    return bytes(encoded)
