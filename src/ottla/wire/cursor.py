# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Cursors that read and write the primitive types of Kafka's protocol.

`Reader` walks over one buffer without copying it. Every read passes `need`, the one bounds check,
and no length that the buffer names is trusted before it: nothing is allocated for bytes that are
not there. `Writer` appends to one growing buffer and keeps large values by reference, so that
records travel from a file or a socket into a reply without being copied.

All integers are big-endian. `uvarint` is Kafka's UNSIGNED_VARINT, `varint` and `varlong` its
zigzag VARINT and VARLONG (https://kafka.apache.org/protocol#protocol_types).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cython

from ottla.errors import DecodeError

if TYPE_CHECKING:
    from ottla.wire import Buffer

if cython.compiled:
    from cython.cimports.cpython.buffer import (
        Py_buffer,
        PyBUF_SIMPLE,
        PyBuffer_Release,
        PyObject_GetBuffer,
    )
    from cython.cimports.cpython.bytearray import PyByteArray_FromStringAndSize
    from cython.cimports.libc.string import memcpy

_DOUBLE = struct.Struct(">d")
_BY_REFERENCE = cython.declare(cython.Py_ssize_t, 4096)


class Reader:
    """Reads primitive types from a buffer, in order.

    The buffer stays exported (a bytearray cannot be resized) for as long as the reader lives.

    Args:
        data: the bytes to read, as `bytes` or any contiguous buffer of bytes.

    Every method that reads raises `DecodeError` when fewer bytes remain than it needs.
    """

    def __init__(self, data: Buffer) -> None:
        if cython.compiled:
            PyObject_GetBuffer(data, cython.address(self._buffer.view), PyBUF_SIMPLE)
            self._held = True
            self._data = cython.cast(cython.p_const_uchar, self._buffer.view.buf)
            self.end = self._buffer.view.len
        else:
            self._owner = data
            self._data = memoryview(data).cast("B")
            self.end = len(self._data)
        self.position = 0

    if cython.compiled:

        def __cinit__(self) -> None:
            self._held = False

        def __dealloc__(self) -> None:
            if self._held:
                PyBuffer_Release(cython.address(self._buffer.view))

    def remaining(self) -> int:
        """Return how many bytes are left."""
        return self.end - self.position

    def need(self, size: cython.Py_ssize_t) -> int:
        """Check that `size` bytes remain; the only bounds check."""
        if size < 0 or size > self.end - self.position:
            raise DecodeError(
                f"{size} bytes needed at position {self.position}, "
                f"{self.end - self.position} remain"
            )
        return 0

    def skip(self, size: cython.Py_ssize_t) -> int:
        """Pass over `size` bytes."""
        self.need(size)
        self.position += size
        return 0

    def raw(self, size: cython.Py_ssize_t) -> bytes:
        """Read `size` bytes as a copy."""
        self.need(size)
        start: cython.Py_ssize_t = self.position
        self.position = start + size
        if cython.compiled:
            return self._data[start : start + size]
        return bytes(self._data[start : start + size])

    def view(self, size: cython.Py_ssize_t) -> memoryview:
        """Read `size` bytes as a view of the buffer, without a copy."""
        self.need(size)
        start: cython.Py_ssize_t = self.position
        self.position = start + size
        if cython.compiled:
            owner: object = cython.cast(object, self._buffer.view.obj)
            return memoryview(owner)[start : start + size]
        return memoryview(self._owner)[start : start + size]

    def text(self, size: cython.Py_ssize_t) -> str:
        """Read `size` bytes of UTF-8."""
        try:
            return self.raw(size).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DecodeError(f"text that is not UTF-8 before position {self.position}") from error

    def int8(self) -> int:
        """Read a signed 8-bit integer."""
        self.need(1)
        value: cython.int = self._data[self.position]
        self.position += 1
        return value - 256 if value > 127 else value

    def int16(self) -> int:
        """Read a signed 16-bit integer."""
        value: cython.int = self.uint16()
        return value - 65536 if value > 32767 else value

    def uint16(self) -> int:
        """Read an unsigned 16-bit integer."""
        self.need(2)
        i: cython.Py_ssize_t = self.position
        p: cython.p_const_uchar = self._data
        self.position = i + 2
        value: cython.int = (p[i] << 8) | p[i + 1]
        return value

    def int32(self) -> int:
        """Read a signed 32-bit integer."""
        value: cython.longlong = self.uint32()
        return value - 4294967296 if value > 2147483647 else value

    def uint32(self) -> int:
        """Read an unsigned 32-bit integer."""
        self.need(4)
        i: cython.Py_ssize_t = self.position
        p: cython.p_const_uchar = self._data
        high: cython.longlong = (p[i] << 8) | p[i + 1]
        low: cython.longlong = (p[i + 2] << 8) | p[i + 3]
        self.position = i + 4
        return (high << 16) | low

    def int64(self) -> int:
        """Read a signed 64-bit integer."""
        self.need(8)
        i: cython.Py_ssize_t = self.position
        p: cython.p_const_uchar = self._data
        high: cython.longlong = (p[i] << 8) | p[i + 1]
        high = (high << 16) | (p[i + 2] << 8) | p[i + 3]
        low: cython.longlong = (p[i + 4] << 8) | p[i + 5]
        low = (low << 16) | (p[i + 6] << 8) | p[i + 7]
        self.position = i + 8
        if high > 2147483647:
            high -= 4294967296
        return (high << 32) | low

    def float64(self) -> float:
        """Read an IEEE 754 double."""
        value: float = _DOUBLE.unpack(self.raw(8))[0]
        return value

    def uvarint(self) -> int:
        """Read an unsigned varint of at most 32 bits in at most 5 bytes.

        Kafka: ByteUtils.readUnsignedVarint.
        """
        if self.position < self.end and self._data[self.position] < 0x80:  # as nearly all are
            self.position += 1
            return self._data[self.position - 1]
        value: cython.longlong = self._varint_bits(5)
        if value > 4294967295:
            raise DecodeError(f"a varint before position {self.position} exceeds 32 bits")
        return value

    def varint(self) -> int:
        """Read a zigzag varint of at most 32 bits. Kafka: ByteUtils.readVarint."""
        value: cython.longlong = self.uvarint()
        return (value >> 1) ^ -(value & 1)

    def varlong(self) -> int:
        """Read a zigzag varint of at most 64 bits. Kafka: ByteUtils.readVarlong."""
        value: cython.ulonglong = self._varint_bits(10)
        if cython.compiled:
            half: cython.longlong = cython.cast(cython.longlong, value >> 1)
            return half ^ -cython.cast(cython.longlong, value & 1)
        value &= 0xFFFF_FFFF_FFFF_FFFF
        return (value >> 1) ^ -(value & 1)

    def _varint_bits(self, bytes_max: cython.int) -> int:
        value: cython.ulonglong = 0
        shift: cython.int = 0
        p: cython.p_const_uchar = self._data
        while shift < 7 * bytes_max:
            self.need(1)
            byte: cython.ulonglong = p[self.position]
            self.position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise DecodeError(f"a varint before position {self.position} exceeds {bytes_max} bytes")

    def finish(self) -> int:
        """Check that nothing is left over.

        Raises:
            DecodeError: bytes remain.
        """
        if self.position != self.end:
            raise DecodeError(f"{self.end - self.position} bytes left over at {self.position}")
        return 0


class Writer:
    """Appends primitive types to a growing buffer.

    Values of 4,096 bytes and more are kept by reference, so the result is a list of buffers for a
    gather write; the caller must not change them before they are written.
    """

    def __init__(self) -> None:
        if cython.compiled:
            self._chunk = PyByteArray_FromStringAndSize(cython.NULL, 256)
        else:
            self._chunk = bytearray(256)
        self._data = self._chunk
        self._room = 256
        self._used = 0
        self._parts: list[Buffer] = []
        self._parts_size = 0

    def size(self) -> int:
        """Return how many bytes have been written."""
        return self._parts_size + self._used

    def parts(self) -> list[Buffer]:
        """Return what was written, as buffers in order. Nothing may be written afterwards."""
        self._cut()
        return self._parts

    def joined(self) -> bytes:
        """Return what was written as one bytes object."""
        if not self._parts:
            return self._copy()
        return b"".join(self.parts())

    def framed(self) -> list[Buffer]:
        """Return what was written as a frame: four bytes of size, and the buffers in order.

        A frame without large values is one buffer. The caller has left room for the size: the
        first four bytes that it wrote are replaced. Nothing may be written afterwards.
        """
        size: cython.Py_ssize_t = self._parts_size + self._used - 4
        if not self._parts:
            self._put_size(size)
            return [self._copy()]
        self._cut()
        self._parts[0] = struct.pack(">i", size) + memoryview(self._parts[0])[4:]
        return self._parts

    def _put_size(self, size: cython.Py_ssize_t) -> int:
        index: cython.int
        for index in range(4):
            self._data[3 - index] = (size >> (8 * index)) & 0xFF
        return 0

    def _copy(self) -> bytes:
        if cython.compiled:
            return self._data[: self._used]
        return bytes(memoryview(self._chunk)[: self._used])

    def _cut(self) -> int:
        if self._used:
            self._parts.append(self._copy())
            self._parts_size += self._used
            self._used = 0
        return 0

    def _reserve(self, size: cython.Py_ssize_t) -> int:
        if self._used + size > self._room:
            room: cython.Py_ssize_t = self._room
            while self._used + size > room:
                room *= 2
            chunk = bytearray(room)
            chunk[: self._used] = memoryview(self._chunk)[: self._used]
            self._chunk = chunk
            self._data = chunk
            self._room = room
        return 0

    def raw(self, data: Buffer) -> int:
        """Append bytes as they are; large ones by reference."""
        if not isinstance(data, bytes):
            if cython.compiled:
                given = cython.declare(Py_buffer)
                PyObject_GetBuffer(data, cython.address(given), PyBUF_SIMPLE)
                try:
                    if given.len < _BY_REFERENCE:
                        self._reserve(given.len)
                        memcpy(self._data + self._used, given.buf, given.len)
                        self._used += given.len
                        return 0
                finally:
                    PyBuffer_Release(cython.address(given))
            data = memoryview(data).cast("B")
        size: cython.Py_ssize_t = len(data)
        if size >= _BY_REFERENCE:
            self._cut()
            self._parts.append(data)
            self._parts_size += size
            return 0
        self._reserve(size)
        if cython.compiled:
            source: cython.p_const_uchar = data
            memcpy(self._data + self._used, source, size)
        else:
            self._chunk[self._used : self._used + size] = data
        self._used += size
        return 0

    def int8(self, value: cython.longlong) -> int:
        """Append a signed 8-bit integer."""
        _check(value, -128, 127, "int8")
        self._reserve(1)
        self._data[self._used] = value & 0xFF
        self._used += 1
        return 0

    def int16(self, value: cython.longlong) -> int:
        """Append a signed 16-bit integer."""
        _check(value, -32768, 32767, "int16")
        return self._big_endian(value, 2)

    def uint16(self, value: cython.longlong) -> int:
        """Append an unsigned 16-bit integer."""
        _check(value, 0, 65535, "uint16")
        return self._big_endian(value, 2)

    def int32(self, value: cython.longlong) -> int:
        """Append a signed 32-bit integer."""
        _check(value, -2147483648, 2147483647, "int32")
        return self._big_endian(value, 4)

    def uint32(self, value: cython.longlong) -> int:
        """Append an unsigned 32-bit integer."""
        _check(value, 0, 4294967295, "uint32")
        return self._big_endian(value, 4)

    def int64(self, value: cython.longlong) -> int:
        """Append a signed 64-bit integer."""
        if not cython.compiled:
            _check(value, -(1 << 63), (1 << 63) - 1, "int64")
        return self._big_endian(value, 8)

    def _big_endian(self, value: cython.longlong, size: cython.int) -> int:
        self._reserve(size)
        i: cython.Py_ssize_t = self._used + size
        self._used = i
        while size > 0:
            i -= 1
            self._data[i] = value & 0xFF
            value >>= 8
            size -= 1
        return 0

    def float64(self, value: float) -> int:
        """Append an IEEE 754 double."""
        return self.raw(_DOUBLE.pack(value))

    def uvarint(self, value: cython.ulonglong) -> int:
        """Append an unsigned varint of at most 64 bits."""
        if not cython.compiled:
            _check(value, 0, (1 << 64) - 1, "uvarint")
        self._reserve(10)
        while value > 0x7F:
            self._data[self._used] = (value & 0x7F) | 0x80
            self._used += 1
            value >>= 7
        self._data[self._used] = value
        self._used += 1
        return 0

    def varint(self, value: cython.longlong) -> int:
        """Append a zigzag varint; the same bytes serve as a varlong."""
        if cython.compiled:
            return self.uvarint(cython.cast(cython.ulonglong, (value << 1) ^ (value >> 63)))
        _check(value, -(1 << 63), (1 << 63) - 1, "varint")
        return self.uvarint(((value << 1) ^ (value >> 63)) & 0xFFFF_FFFF_FFFF_FFFF)


if cython.compiled:

    @cython.cfunc
    @cython.inline
    @cython.exceptval(-1)
    def _check(
        value: cython.longlong, low: cython.longlong, high: cython.longlong, kind: str
    ) -> cython.int:
        if value < low or value > high:
            raise OverflowError(f"{value} does not fit {kind}")
        return 0

else:

    def _check(value: int, low: int, high: int, kind: str) -> int:
        if value < low or value > high:
            raise OverflowError(f"{value} does not fit {kind}")
        return 0
