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
from typing import TYPE_CHECKING, Any

import cython

from ottla.errors import RecordError
from ottla.wire.compression import NONE, compress
from ottla.wire.crc32c import crc32c
from ottla.wire.memory import new_buffer

if TYPE_CHECKING:
    Headers = Iterable[tuple[str, bytes | None]]

if cython.compiled:
    from cython.cimports.libc.string import memcpy

_HEADER_BYTES = cython.declare(cython.Py_ssize_t, 61)
_LENGTH_END = cython.declare(cython.Py_ssize_t, 12)
_CRC = struct.Struct(">I")
_CRC_AT = cython.declare(cython.Py_ssize_t, 17)
_CRC_START = 21
_PRODUCER = struct.Struct(">qhi")
_PRODUCER_AT = 43
_MAGIC = cython.declare(cython.int, 2)
_NONE = cython.declare(cython.int, NONE)

BUFFER_BYTES_MIN = 1024
"""What a batch begins with; it doubles as it must."""

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
        buffer: what `take_buffer` of another builder gave, to be used once more.
    """

    def __init__(
        self, bytes_expected: int = BUFFER_BYTES_MIN, buffer: bytearray | None = None
    ) -> None:
        if buffer is None:
            buffer = new_buffer(max(bytes_expected, _HEADER_BYTES))
        self._buffer = buffer
        self._data = self._buffer
        self._room = len(self._buffer)
        self.size = _HEADER_BYTES
        self.count = 0
        self.base_timestamp = -1
        self.max_timestamp = -1
        self._packed: bytes | None = None

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
        data: cython.p_uchar = self._data
        at: cython.Py_ssize_t = _put_varint(data, self.size, body)
        data[at] = 0
        at = _put_varint(data, at + 1, delta)
        at = _put_varint(data, at, self.count)
        at = _put_varint(data, at, key_size)
        if key is not None:
            at = _put_bytes(data, at, key, key_size)
        at = _put_varint(data, at, value_size)
        if value is not None:
            at = _put_bytes(data, at, value, value_size)
        if packed is not None:
            at = _put_bytes(data, at, packed, headers_size)
        else:
            data[at] = 0
            at += 1
        self.size = at
        self.max_timestamp = max(self.max_timestamp, timestamp_ms)
        self.count += 1
        return self.count - 1

    def append_values(
        self,
        timestamp_ms: cython.longlong,
        values: list[Any],
        start: cython.Py_ssize_t,
        size_max: cython.Py_ssize_t,
        value_size_max: cython.Py_ssize_t,
    ) -> int:
        """Append plain values from a list for as long as they are plain and fit.

        Args:
            timestamp_ms: the timestamp of all of them.
            values: the list.
            start: where to begin in it.
            size_max: the most that the whole batch may grow to.
            value_size_max: the size of the largest value that is taken.

        Returns:
            How many were taken; the next one is not `bytes`, is too large, or does not fit.
        """
        end: cython.Py_ssize_t = len(values)
        at: cython.Py_ssize_t = start
        if self.count == 0:
            self.base_timestamp = timestamp_ms
        delta: cython.longlong = timestamp_ms - self.base_timestamp
        delta_size: cython.Py_ssize_t = _varint_size(delta)
        while at < end:
            given = values[at]
            if type(given) is not bytes:
                break
            value: bytes = given
            size: cython.Py_ssize_t = len(value)
            if size > value_size_max:
                break
            body: cython.Py_ssize_t = (
                3 + delta_size + _varint_size(self.count) + _varint_size(size) + size
            )
            after: cython.Py_ssize_t = self.size + _varint_size(body) + body
            if after > size_max and self.count > 0:
                break
            if after > self._room:
                self._grow(after)
            data: cython.p_uchar = self._data
            to: cython.Py_ssize_t = _put_varint(data, self.size, body)
            data[to] = 0
            to = _put_varint(data, to + 1, delta)
            to = _put_varint(data, to, self.count)
            data[to] = 1
            to = _put_varint(data, to + 1, size)
            to = _put_bytes(data, to, value, size)
            data[to] = 0
            self.size = to + 1
            self.count += 1
            at += 1
        if at > start and timestamp_ms > self.max_timestamp:
            self.max_timestamp = timestamp_ms
        return at - start

    def take_buffer(self) -> bytearray:
        """Return the buffer, to be used by another builder; this one is of no use any more."""
        buffer = self._buffer
        self._buffer = bytearray()
        self._data = self._buffer
        self._room = 0
        return buffer

    def _grow(self, wanted: cython.Py_ssize_t) -> int:
        room: cython.Py_ssize_t = self._room
        while room < wanted:
            room *= 2
        buffer = new_buffer(room)
        if cython.compiled:
            target: cython.p_uchar = buffer
            memcpy(target, self._data, self.size)
        else:
            buffer[: self.size] = self._buffer[: self.size]
        self._buffer = buffer
        self._data = buffer
        self._room = room
        return 0

    def pack(self, codec: int, level: int | None) -> None:
        """Compress the records for `build`, which is given the same codec and level then.

        Nothing may be appended afterwards.
        """
        self._packed = self._compressed(codec, level)

    def _compressed(self, codec: int, level: int | None) -> bytes:
        return compress(codec, memoryview(self._buffer)[_HEADER_BYTES : self.size], level)

    def build(
        self,
        codec: cython.int = NONE,
        level: Any = None,
        producer_id: cython.longlong = -1,
        producer_epoch: cython.int = -1,
        base_sequence: cython.int = -1,
        attributes: cython.int = 0,
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
        buffer: bytearray = self._buffer
        size: cython.Py_ssize_t = self.size
        if codec != _NONE:
            packed = self._packed
            if packed is None:
                packed = self._compressed(codec, level)
            self._packed = None
            if len(packed) < self.size - _HEADER_BYTES:
                size = _HEADER_BYTES + len(packed)
                buffer = bytearray(size)
                buffer[_HEADER_BYTES:] = packed
                attributes |= codec
        data: cython.p_uchar = buffer
        _put_int(data, 0, 8, 0)
        _put_int(data, 8, 4, size - _LENGTH_END)
        _put_int(data, 12, 4, -1)
        _put_int(data, 16, 1, _MAGIC)
        _put_int(data, 21, 2, attributes)
        _put_int(data, 23, 4, self.count - 1)
        _put_int(data, 27, 8, self.base_timestamp)
        _put_int(data, 35, 8, self.max_timestamp)
        _put_int(data, 43, 8, producer_id)
        _put_int(data, 51, 2, producer_epoch)
        _put_int(data, 53, 4, base_sequence)
        _put_int(data, 57, 4, self.count)
        batch = memoryview(buffer)[:size]
        _put_int(data, _CRC_AT, 4, crc32c(batch[_CRC_START:]))
        return batch


def buffer_size_for(size: int) -> int:
    """Return how large the buffer of a batch of so many bytes is in the end."""
    room = BUFFER_BYTES_MIN
    while room < size:
        room *= 2
    return room


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


def _put_int(
    data: cython.p_uchar, at: cython.Py_ssize_t, size: cython.int, value: cython.longlong
) -> None:
    """Write an integer, its most significant byte first."""
    while size > 0:
        size -= 1
        data[at + size] = value & 0xFF
        value >>= 8


def _put_varint(
    data: cython.p_uchar, at: cython.Py_ssize_t, value: cython.longlong
) -> cython.Py_ssize_t:
    """Write a varint and return where it ends."""
    bits: cython.ulonglong
    if cython.compiled:
        bits = cython.cast(cython.ulonglong, (value << 1) ^ (value >> 63))
    else:
        bits = ((value << 1) ^ (value >> 63)) & 0xFFFF_FFFF_FFFF_FFFF
    while bits > 0x7F:
        data[at] = (bits & 0x7F) | 0x80
        at += 1
        bits >>= 7
    data[at] = bits
    return at + 1


def _put_bytes(
    data: cython.p_uchar, at: cython.Py_ssize_t, source: bytes, size: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    """Copy bytes and return where they end."""
    if cython.compiled:
        memcpy(data + at, cython.cast(cython.p_const_uchar, source), size)
    else:
        data[at : at + size] = source
    return at + size


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


def as_bytes(what: str, data: Any) -> bytes | None:
    """Return a key, a value or a header's value as bytes; None stays None.

    Args:
        what: what it is, in words.
        data: bytes, or what bytes can be made of without a question.

    Raises:
        RecordError: it is something else.
    """
    if data is None or isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise RecordError(
        f"the {what} is of type {type(data).__name__}, neither bytes nor str",
        "The record was not sent.",
        ("Make bytes of it, or give the producer a serializer that does.",),
    )


def _pack_varint(packed: bytearray, value: cython.longlong) -> int:
    bits: cython.longlong = (value << 1) ^ (value >> 63)
    while bits > 0x7F:
        packed.append((bits & 0x7F) | 0x80)
        bits >>= 7
    packed.append(bits)
    return 0
