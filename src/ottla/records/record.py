# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One record, and the bytes that it lies in.

Records are made over the buffer that they arrived in or were inflated into; nothing is copied until
a record's key, value or headers are asked for.

Kafka: DefaultRecord.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cython

from ottla.errors import CorruptRecords

if TYPE_CHECKING:
    from ottla.wire import Buffer

    Header = tuple[str, bytes | None]

if cython.compiled:
    from cython.cimports.cpython.buffer import PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer


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


class Walk:
    """Goes through what records consist of.

    Args:
        source: the bytes.
        position: where to begin.
    """

    def __init__(self, source: Bytes, position: cython.Py_ssize_t) -> None:
        self._source = source
        self._position = position

    def _varint(self, end: cython.Py_ssize_t) -> int:
        """Decode a zigzag varint of at most 64 bits that ends before `end`."""
        data: cython.p_const_uchar = self._source.data
        position: cython.Py_ssize_t = self._position
        value: cython.ulonglong = 0
        shift: cython.int = 0
        while position < end and shift < 70:
            byte: cython.ulonglong = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                self._position = position
                if cython.compiled:
                    half: cython.longlong = cython.cast(cython.longlong, value >> 1)
                    return half ^ -cython.cast(cython.longlong, value & 1)
                value &= 0xFFFF_FFFF_FFFF_FFFF
                return (value >> 1) ^ -(value & 1)
            shift += 7
        raise CorruptRecords("a varint within a record does not end")

    def _advance(self, size: cython.longlong, end: cython.Py_ssize_t) -> int:
        """Pass over a key or value; a size of -1 stands for None."""
        if size > 0:
            if size > end - self._position:
                raise CorruptRecords(f"{size} bytes named, {end - self._position} remain")
            self._position += size
        elif size < -1:
            raise CorruptRecords(f"a size of {size} within a record")
        return 0


class Lot:
    """What the records of a batch have in common.

    Attributes:
        topic: their topic.
        partition: their partition.
        source: what their bytes lie in.
    """

    def __init__(self, topic: str, partition: int, source: Bytes) -> None:
        self.topic = topic
        self.partition = partition
        self.source = source


_NOTHING = Bytes(b"")


@cython.freelist(64)  # most are let go before the next is made
@cython.cclass
class Record:
    """One record, as it is read from a partition.

    Attributes:
        offset: its offset.
        timestamp_ms: milliseconds since 1970, or -1 where it has none.
    """

    if not cython.compiled:  # for the compiled form record.pxd says so
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
        self._lot = Lot(topic, partition, _NOTHING)
        self.offset = offset
        self.timestamp_ms = timestamp_ms
        self._key = key
        self._key_size = -1
        self._value = value
        self._value_size = -1
        self._headers = [] if headers is None else headers

    @property
    def topic(self) -> str:
        """Its topic."""
        return self._lot.topic

    @property
    def partition(self) -> int:
        """Its partition."""
        return self._lot.partition

    @property
    def key(self) -> Any:
        """The key, as bytes where no deserializer made something else of it; None for none."""
        if self._key_size >= 0:
            self._key = self._lot.source.slice(self._key_start, self._key_size)
            self._key_size = -1
        return self._key

    @property
    def value(self) -> Any:
        """The value, as bytes where no deserializer made something else of it; None for none."""
        return self._read_value()

    def _read_value(self) -> Any:
        if self._value_size >= 0:
            self._value = self._lot.source.slice(self._value_start, self._value_size)
            self._value_size = -1
        return self._value

    @property
    def headers(self) -> list[Header]:
        """The headers in their order, as (name, value); a value may be None."""
        if self._headers is None:
            self._headers = _read_headers(self._lot.source, self._headers_start, self._end)
        return self._headers

    def replace(self, key: object, value: object) -> None:
        """Have another key and value: what deserializers have made of them.

        These may refer to the record, so the garbage collector follows it from now on.
        """
        self._key, self._value = key, value
        self._key_size = self._value_size = -1
        if cython.compiled and not PyObject_GC_IsTracked(self):  # noqa: F821 - record.pxd has it
            PyObject_GC_Track(self)  # noqa: F821 - record.pxd has it

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


_VALUE = cython.declare(str, "value")


@cython.cfunc
def _attribute(record: object, name: object) -> object:
    """Find an attribute of a record: its value without the search that the others take."""
    if cython.compiled:
        if name is _VALUE and type(record) is Record:
            return cython.cast(Record, record)._read_value()
        return PyObject_GenericGetAttr(record, name)  # noqa: F821 - record.pxd has it
    return getattr(record, str(name))


if cython.compiled:
    find_attributes_with(Record, _attribute)  # noqa: F821 - record.pxd has it


def read_headers(data: Buffer) -> list[Header]:
    """Decode headers as they lie in a record, their number first.

    Raises:
        CorruptRecords: they are not what the format says.
    """
    held = Bytes(data)
    return _read_headers(held, 0, held.size)


def _read_headers(source: Bytes, start: cython.Py_ssize_t, end: cython.Py_ssize_t) -> list[Header]:
    reader = Walk(source, start)
    count: cython.longlong = reader._varint(end)
    if count < 0 or count > (end - reader._position) // 2:
        raise CorruptRecords(f"a record claims to have {count} headers")
    headers: list[Header] = []
    while count > 0:
        size: cython.longlong = reader._varint(end)
        at: cython.Py_ssize_t = reader._position
        if size < 0:
            raise CorruptRecords("a header without a name")
        reader._advance(size, end)
        try:
            name = source.slice(at, size).decode()
        except UnicodeDecodeError as error:
            raise CorruptRecords("a header's name is not UTF-8") from error
        size = reader._varint(end)
        at = reader._position
        reader._advance(size, end)
        headers.append((name, None if size < 0 else source.slice(at, size)))
        count -= 1
    return headers
