# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Building record batches: records are written in their final form as they are appended.

A builder is one growing buffer with room for the header in front. `append` writes the bytes of a
record as they will stand on the wire and on disk; `build` puts the header before them, after
compressing them where a codec is wanted. The layout is that of `ottla.records.batch`.

Kafka: MemoryRecordsBuilder, DefaultRecord.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

import cython

from ottla.wire.compression import NONE, compress
from ottla.wire.crc32c import crc32c

if TYPE_CHECKING:
    Headers = Iterable[tuple[str, bytes | None]]

if cython.compiled:
    from cython.cimports.libc.string import memcpy

_HEADER = struct.Struct(">qiibIhiqqqhii")
_HEADER_BYTES = cython.declare(cython.Py_ssize_t, 61)
_LENGTH_END = 12
_CRC = struct.Struct(">I")
_CRC_AT = 17
_CRC_START = 21
_PRODUCER = struct.Struct(">qhi")
_PRODUCER_AT = 43
_MAGIC = 2

FULL = -1
"""What `append` answers when the record does not fit any more."""


class BatchBuilder:
    """Collects the records of one batch.

    Attributes:
        count: records so far.
        size: bytes of the batch so far, header included, before compression.
        base_timestamp: timestamp of the first record.
        max_timestamp: the largest timestamp so far.

    Args:
        bytes_expected: the size to begin with; the buffer grows as it must.
    """

    def __init__(self, bytes_expected: int = 1024) -> None:
        self._buffer = bytearray(max(bytes_expected, _HEADER_BYTES))
        self._data = self._buffer
        self._room = len(self._buffer)
        self.size = _HEADER_BYTES
        self.count = 0
        self.base_timestamp = -1
        self.max_timestamp = -1

    def append(
        self,
        timestamp_ms: cython.longlong,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | bytes | None,
        size_max: cython.Py_ssize_t,
    ) -> int:
        """Append a record.

        Args:
            timestamp_ms: milliseconds since 1970.
            key: the key, or None.
            value: the value, or None.
            headers: (name, value) pairs, or None for none, or what `pack_headers` made of them.
            size_max: the most that the whole batch may grow to. The first record is taken
                whatever its size.

        Returns:
            The record's index in the batch, or `FULL` where it would grow beyond `size_max`;
            nothing is changed then.
        """
        key_size: cython.Py_ssize_t = -1 if key is None else len(key)
        value_size: cython.Py_ssize_t = -1 if value is None else len(value)
        packed: bytes | None = None
        if headers is not None:
            packed = headers if isinstance(headers, bytes) else pack_headers(headers)
        headers_size: cython.Py_ssize_t = 1 if packed is None else len(packed)
        if self.count == 0:
            self.base_timestamp = timestamp_ms
        delta: cython.longlong = timestamp_ms - self.base_timestamp
        body: cython.Py_ssize_t = (
            1
            + _varint_size(delta)
            + _varint_size(self.count)
            + _varint_size(key_size)
            + (key_size if key_size > 0 else 0)
            + _varint_size(value_size)
            + (value_size if value_size > 0 else 0)
            + headers_size
        )
        end: cython.Py_ssize_t = self.size + _varint_size(body) + body
        if end > size_max and self.count > 0:
            return FULL
        if end > self._room:
            self._grow(end)
        self._varint(body)
        self._data[self.size] = 0
        self.size += 1
        self._varint(delta)
        self._varint(self.count)
        self._varint(key_size)
        if key is not None:
            self._bytes(key, key_size)
        self._varint(value_size)
        if value is not None:
            self._bytes(value, value_size)
        if packed is not None:
            self._bytes(packed, headers_size)
        else:
            self._data[self.size] = 0
            self.size += 1
        self.max_timestamp = max(self.max_timestamp, timestamp_ms)
        self.count += 1
        return self.count - 1

    def _grow(self, wanted: cython.Py_ssize_t) -> int:
        room: cython.Py_ssize_t = self._room
        while room < wanted:
            room *= 2
        buffer = bytearray(room)
        if cython.compiled:
            target: cython.p_uchar = buffer
            memcpy(target, self._data, self.size)
        else:
            buffer[: self.size] = self._buffer[: self.size]
        self._buffer = buffer
        self._data = buffer
        self._room = room
        return 0

    def _varint(self, value: cython.longlong) -> int:
        bits: cython.ulonglong
        if cython.compiled:
            bits = cython.cast(cython.ulonglong, (value << 1) ^ (value >> 63))
        else:
            bits = ((value << 1) ^ (value >> 63)) & 0xFFFF_FFFF_FFFF_FFFF
        at: cython.Py_ssize_t = self.size
        while bits > 0x7F:
            self._data[at] = (bits & 0x7F) | 0x80
            at += 1
            bits >>= 7
        self._data[at] = bits
        self.size = at + 1
        return 0

    def _bytes(self, data: bytes, size: cython.Py_ssize_t) -> int:
        if cython.compiled:
            source: cython.p_const_uchar = data
            memcpy(self._data + self.size, source, size)
        else:
            self._buffer[self.size : self.size + size] = data
        self.size += size
        return 0

    def build(
        self,
        codec: int = NONE,
        level: int | None = None,
        producer_id: int = -1,
        producer_epoch: int = -1,
        base_sequence: int = -1,
        attributes: int = 0,
    ) -> memoryview:
        """Return the finished batch; nothing may be appended afterwards.

        Args:
            codec: what to compress the records with.
            level: the codec's level; None for its default.
            producer_id: the producer's id, or -1.
            producer_epoch: its epoch, or -1.
            base_sequence: sequence of the first record, or -1.
            attributes: attribute bits to be set besides the codec's.

        Returns:
            The batch. Compressed records that would be larger than plain ones are left plain.
        """
        buffer, size = self._buffer, self.size
        if codec != NONE:
            plain = memoryview(buffer)[_HEADER_BYTES : self.size]
            packed = compress(codec, plain, level)
            if len(packed) < len(plain):
                size = _HEADER_BYTES + len(packed)
                buffer = bytearray(size)
                buffer[_HEADER_BYTES:] = packed
                attributes |= codec
        _HEADER.pack_into(
            buffer,
            0,
            0,
            size - _LENGTH_END,
            -1,
            _MAGIC,
            0,
            attributes,
            self.count - 1,
            self.base_timestamp,
            self.max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            self.count,
        )
        batch = memoryview(buffer)[:size]
        _CRC.pack_into(buffer, _CRC_AT, crc32c(batch[_CRC_START:]))
        return batch


def stamp_producer(
    batch: memoryview, producer_id: int, producer_epoch: int, base_sequence: int
) -> None:
    """Write other producer fields into a finished batch, and its new checksum."""
    _PRODUCER.pack_into(batch, _PRODUCER_AT, producer_id, producer_epoch, base_sequence)
    _CRC.pack_into(batch, _CRC_AT, crc32c(batch[_CRC_START:]))


def batch_of(records: Iterable[tuple[bytes | None, bytes | None]], timestamp_ms: int) -> memoryview:
    """Build a plain batch of (key, value) records that all have one timestamp."""
    builder = BatchBuilder()
    for key, value in records:
        builder.append(timestamp_ms, key, value, None, 0x7FFFFFFF)
    return builder.build()


def _varint_size(value: cython.longlong) -> int:
    bits: cython.ulonglong
    if cython.compiled:
        bits = cython.cast(cython.ulonglong, (value << 1) ^ (value >> 63))
    else:
        bits = ((value << 1) ^ (value >> 63)) & 0xFFFF_FFFF_FFFF_FFFF
    size: cython.Py_ssize_t = 1
    while bits > 0x7F:
        bits >>= 7
        size += 1
    return size


def pack_headers(headers: Headers) -> bytes:
    """Return (name, value) pairs as they stand in a record, their number first."""
    packed = bytearray()
    count: cython.Py_ssize_t = 0
    for name, value in headers:
        encoded: bytes = name.encode()
        _pack_varint(packed, len(encoded))
        packed += encoded
        if value is None:
            _pack_varint(packed, -1)
        else:
            _pack_varint(packed, len(value))
            packed += value
        count += 1
    start = bytearray()
    _pack_varint(start, count)
    return bytes(start + packed)


def _pack_varint(packed: bytearray, value: cython.longlong) -> int:
    bits: cython.longlong = (value << 1) ^ (value >> 63)
    while bits > 0x7F:
        packed.append((bits & 0x7F) | 0x80)
        bits >>= 7
    packed.append(bits)
    return 0
