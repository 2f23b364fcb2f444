# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Makes columns of batches, or of records that are objects already.

The builder reads what nearly all records look like - sizes of one byte or two - in a loop of its
own, and leaves every other one to `RecordIterator`, which also knows what is wrong with it.

A record of seven bytes, the smallest there is, takes 24 of columns, 28 where some have headers.
Columns that grow double, and memory is lent in powers of two: so a batch takes no more than
sixteen times what it was inflated to, which `ottla.wire.compression` bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cython

from ottla.errors import CorruptRecords
from ottla.records.batch import BatchHeader, Bytes, RecordIterator
from ottla.records.builder import pack_headers
from ottla.records.columns import BytesColumn, RecordColumns, Run
from ottla.wire.memory import Memory

if TYPE_CHECKING:
    from ottla.records.batch import Record

if cython.compiled:
    from cython.cimports.libc.string import memcpy
    from cython.cimports.ottla.records.batch import BatchHeader, Bytes, RecordIterator

COLUMN_BYTES_MAX = 0x7FFFFFFF
"""What the keys or the values of one piece may be altogether: their offsets are int32."""

_BYTES_MAX = cython.declare(cython.longlong, COLUMN_BYTES_MAX)
_FIELDS_BYTES_MAX = cython.declare(cython.Py_ssize_t, 16)
_FIXED_BYTES = cython.declare(cython.Py_ssize_t, 24)
"""An offset, a timestamp, and where the key and the value begin."""

_BLOCK_BYTES = cython.declare(cython.Py_ssize_t, 32)
_SHORT_BYTES_MAX = cython.declare(cython.longlong, 512)
"""Up to here bytes are copied in blocks."""


@cython.cclass
class _Column:
    """A column of bytes that grows."""

    _memory: Memory
    _data_view: memoryview
    _offsets_view: memoryview
    _validity_view: memoryview | None
    data: cython.p_uchar
    offsets: cython.p_int
    validity: cython.p_uchar
    room: cython.Py_ssize_t
    size: cython.Py_ssize_t
    nulls: cython.Py_ssize_t
    _count_max: cython.Py_ssize_t

    def __init__(self, memory: Memory, count: int, size: int) -> None:
        self._memory = memory
        self._validity_view = None
        if cython.compiled:
            self.validity = cython.NULL
        self._count_max = count
        self.size = 0
        self.nulls = 0
        self._data_view = memory.lend(size)
        self._offsets_view = memory.lend(4 * (count + 1))
        self._look()
        self.offsets[0] = 0

    @cython.cfunc
    def _look(self) -> object:
        """Take the addresses of the memory."""
        self.room = len(self._data_view)
        if cython.compiled:
            data: bytearray = self._data_view.obj
            self.data = data
            offsets: bytearray = self._offsets_view.obj
            self.offsets = cython.cast(cython.p_int, cython.cast(cython.p_uchar, offsets))
            if self._validity_view is not None:
                validity: bytearray = self._validity_view.obj
                self.validity = validity
        else:
            self.data = self._data_view
            self.offsets = self._offsets_view[: len(self._offsets_view) // 4 * 4].cast("i")
            self.validity = self._validity_view
        return None

    @cython.cfunc
    def reserve(self, used: cython.Py_ssize_t, count: cython.Py_ssize_t) -> object:
        """Have room for `count` records, of which `used` are there."""
        lent = self._memory.lend(4 * (count + 1))
        lent[: 4 * (used + 1)] = self._offsets_view[: 4 * (used + 1)]
        self._offsets_view = lent
        self._count_max = count
        if self._validity_view is not None:
            self._lend_validity((used + 7) // 8)
        self._look()
        return None

    @cython.cfunc
    def _lend_validity(self, used: cython.Py_ssize_t) -> object:
        """Have a bitmap for all records there is room for: `used` bytes as they were, then ones."""
        size: cython.Py_ssize_t = (self._count_max + 7) // 8
        lent = self._memory.lend(size)
        if used and self._validity_view is not None:
            lent[:used] = self._validity_view[:used]
        lent[used:size] = b"\xff" * (size - used)
        self._validity_view = lent
        return None

    @cython.cfunc
    def grow(self, wanted: cython.longlong) -> object:
        """Have room for `wanted` bytes altogether."""
        if wanted > _BYTES_MAX:
            raise CorruptRecords(f"the records of one batch are {wanted} bytes")
        lent = self._memory.lend(min(max(wanted, 2 * self.room), _BYTES_MAX))
        lent[: self.size] = self._data_view[: self.size]
        self._data_view = lent
        self._look()
        return None

    @cython.cfunc
    def begin_nulls(self) -> object:
        """From now on it is noted which records have none; all others have one."""
        self._lend_validity(0)
        self._look()
        return None

    @cython.cfunc
    def go_back(
        self, index: cython.Py_ssize_t, size: cython.Py_ssize_t, nulls: cython.Py_ssize_t
    ) -> object:
        """Forget record `index` and all behind it; before it there were so many bytes and nulls."""
        self.size = size
        if nulls != self.nulls:
            each: cython.Py_ssize_t
            for each in range(index, self._count_max):
                self.validity[each >> 3] |= 1 << (each & 7)
        self.nulls = nulls
        return None

    def finish(self, count: int) -> BytesColumn:
        """Return what is there."""
        validity = None
        if self.nulls and self._validity_view is not None:
            validity = self._validity_view[: (count + 7) // 8].toreadonly()
        offsets = self._offsets_view[: 4 * (count + 1)].cast("i").toreadonly()
        return BytesColumn(
            self._data_view[: self.size].toreadonly(), offsets, validity, int(self.nulls)
        )


@cython.cfunc
@cython.inline
@cython.exceptval(-1)
@cython.returns(cython.int)
def _append(
    column: _Column,
    index: cython.Py_ssize_t,
    source: Bytes,
    start: cython.Py_ssize_t,
    size: cython.longlong,
) -> int:
    """Append the bytes of record `index`, none where `size` is negative."""
    if size < 0:
        if not column.validity:
            column.begin_nulls()
        column.validity[index >> 3] &= ~(1 << (index & 7)) & 0xFF
        column.nulls += 1
        column.offsets[index + 1] = column.size
        return 0
    if size > column.room - column.size:
        column.grow(column.size + size)
    if cython.compiled:
        to: cython.p_uchar = column.data + column.size
        data: cython.p_const_uchar = source.data + start
        if size > _SHORT_BYTES_MAX or (
            size + _BLOCK_BYTES > min(column.room - column.size, source.size - start)
        ):
            memcpy(to, data, size)
        else:  # far quicker than what a C compiler makes of it; bytes behind the end do no harm
            copied: cython.Py_ssize_t = 0
            while copied < size:
                memcpy(to + copied, data + copied, 32)  # _BLOCK_BYTES, known when compiled
                copied += 32
    else:
        column.data[column.size : column.size + size] = source.data[start : start + size]
    column.size += size
    column.offsets[index + 1] = column.size
    return 0


@cython.cfunc
@cython.inline
@cython.returns(cython.int)
def _short(data: cython.p_const_uchar, at: cython.Py_ssize_t) -> int:
    """Decode a zigzag varint of one byte or two: four times its value, and its size; else 0."""
    first: cython.int = data[at]
    if first < 0x80:
        return ((first >> 1) ^ -(first & 1)) * 4 + 1
    second: cython.int = data[at + 1]
    if second >= 0x80:
        return 0
    first = (first & 0x7F) | (second << 7)
    return ((first >> 1) ^ -(first & 1)) * 4 + 2


@cython.cclass
class ColumnsBuilder:
    """Collects records as columns.

    Args:
        memory: where the columns come from.
        count: how many records are expected,
        size: and how many bytes of values.
        size_max: no batch is begun when the columns are so many bytes.
    """

    runs: list[Run]
    _memory: Memory
    _offsets_view: memoryview
    _timestamps_view: memoryview
    _offsets: cython.p_longlong
    _timestamps: cython.p_longlong
    _keys: _Column
    _values: _Column
    _headers: _Column | None
    _count: cython.Py_ssize_t
    _room: cython.Py_ssize_t
    _run_start: cython.Py_ssize_t
    _size_max: cython.Py_ssize_t

    def __init__(
        self, memory: Memory, count: int = 512, size: int = 4096, size_max: int = 1 << 30
    ) -> None:
        self.runs = []
        self._memory = memory
        self._size_max = size_max
        self._offsets_view = memory.lend(8 * count)
        self._timestamps_view = memory.lend(8 * count)
        self._keys = _Column(memory, count, 4096)
        self._values = _Column(memory, count, size)
        self._headers = None
        self._count = 0
        self._room = count
        self._run_start = 0
        self._look()

    @cython.cfunc
    def _look(self) -> object:
        if cython.compiled:
            offsets: bytearray = self._offsets_view.obj
            self._offsets = cython.cast(cython.p_longlong, cython.cast(cython.p_uchar, offsets))
            stamps: bytearray = self._timestamps_view.obj
            self._timestamps = cython.cast(cython.p_longlong, cython.cast(cython.p_uchar, stamps))
        else:
            self._offsets = self._offsets_view[: len(self._offsets_view) // 8 * 8].cast("q")
            self._timestamps = self._timestamps_view[: len(self._timestamps_view) // 8 * 8].cast(
                "q"
            )
        return None

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        """Whether there is as much as is wanted."""
        fixed: cython.Py_ssize_t = _FIXED_BYTES * self._count
        return fixed + self._keys.size + self._values.size >= self._size_max

    @cython.cfunc
    def _reserve(self, more: cython.Py_ssize_t) -> object:
        """Have room for `more` records."""
        wanted: cython.Py_ssize_t = self._count + more
        if wanted <= self._room:
            return None
        wanted = max(wanted, 2 * self._room)
        used: cython.Py_ssize_t = self._count
        lent = self._memory.lend(8 * wanted)
        lent[: 8 * used] = self._offsets_view[: 8 * used]
        self._offsets_view = lent
        lent = self._memory.lend(8 * wanted)
        lent[: 8 * used] = self._timestamps_view[: 8 * used]
        self._timestamps_view = lent
        self._keys.reserve(used, wanted)
        self._values.reserve(used, wanted)
        if self._headers is not None:
            self._headers.reserve(used, wanted)
        self._room = wanted
        self._look()
        return None

    def end_run(self, topic: str, partition: int) -> None:
        """Tell of which partition is what was added since the last run, or the beginning."""
        if self._count > self._run_start:
            self.runs.append(Run(topic, partition, int(self._run_start), int(self._count)))
        self._run_start = self._count

    def add(self, reader: RecordIterator, count: cython.Py_ssize_t, offset: cython.longlong) -> int:
        """Add records of a batch; see `RecordIterator.take`.

        Raises:
            CorruptRecords: they are not what the batch's header says; none of this call's is added.
        """
        self._reserve(min(count, reader._left))
        before: cython.Py_ssize_t = self._count
        keys_size, keys_nulls = self._keys.size, self._keys.nulls
        values_size, values_nulls = self._values.size, self._values.nulls
        headers_size: cython.Py_ssize_t = 0 if self._headers is None else self._headers.size
        try:
            while self._count - before < count and reader._left > 0:
                if not self._walk(reader, before + count, offset):
                    reader._step()
                    if reader._offset >= offset:
                        self._add_current(reader)
            if reader._left == 0:
                reader._finish()
        except CorruptRecords:
            self._count = before
            self._keys.go_back(before, keys_size, keys_nulls)
            self._values.go_back(before, values_size, values_nulls)
            if self._headers is not None:
                self._headers.go_back(before, headers_size, 0)
            raise
        return self._count - before

    @cython.cfunc
    @cython.returns(cython.bint)
    @cython.exceptval(check=True)
    def _walk(
        self, reader: RecordIterator, stop: cython.Py_ssize_t, wanted: cython.longlong
    ) -> bool:
        """Add records for as long as they are as most are; False where none was passed.

        It goes on where `reader` stands, and leaves it behind the last record that it has passed.
        A record is as most are when each of its numbers takes a byte or two, what it names fits
        into it, and it has no headers.
        """
        source: Bytes = reader._source
        data: cython.p_const_uchar = source.data
        size: cython.Py_ssize_t = source.size
        keys: _Column = self._keys
        values: _Column = self._values
        index: cython.Py_ssize_t = self._count
        offsets: cython.p_longlong = self._offsets
        timestamps: cython.p_longlong = self._timestamps
        position: cython.Py_ssize_t = reader._position
        left: cython.int = reader._left
        before: cython.int = left
        last: cython.longlong = reader._offset
        header: BatchHeader = reader._header
        counts: cython.int = 0 if reader._append_time else 1
        base_timestamp: cython.longlong = header.base_timestamp if counts else header.max_timestamp
        while left > 0 and index < stop and position + _FIELDS_BYTES_MAX <= size:
            found: cython.int = _short(data, position)
            at: cython.Py_ssize_t = position + (found & 3)
            end: cython.Py_ssize_t = at + (found >> 2)
            if found & 3 == 0 or found < 0 or end > size:
                break
            at += 1
            stamp: cython.int = _short(data, at)
            at += stamp & 3
            delta: cython.int = _short(data, at)
            at += delta & 3
            key: cython.int = _short(data, at)
            at += key & 3
            key_size: cython.int = key >> 2
            key_start: cython.Py_ssize_t = at
            if stamp & 3 == 0 or delta & 3 == 0 or key & 3 == 0 or key_size < -1:
                break
            if key_size > 0:
                at += key_size
            if at + 2 > end:
                break
            found = _short(data, at)
            at += found & 3
            value_size: cython.int = found >> 2
            value_start: cython.Py_ssize_t = at
            if value_size > 0:
                at += value_size
            if found & 3 == 0 or value_size < -1 or at + 1 != end or data[at] != 0:
                break
            position = end
            left -= 1
            last = header.base_offset + (delta >> 2)
            if last >= wanted:
                offsets[index] = last
                timestamps[index] = base_timestamp + counts * (stamp >> 2)
                _append(keys, index, source, key_start, key_size)
                _append(values, index, source, value_start, value_size)
                if self._headers is not None:
                    _append(self._headers, index, source, position, 0)
                index += 1
        self._count = index
        reader._position = position
        reader._left = left
        reader._offset = last
        return left != before

    @cython.cfunc
    def _add_current(self, reader: RecordIterator) -> object:
        """Add the record that `reader` has decoded last."""
        index: cython.Py_ssize_t = self._count
        source: Bytes = reader._source
        self._offsets[index] = reader._offset
        self._timestamps[index] = reader._timestamp
        _append(self._keys, index, source, reader._key_start, reader._key_size)
        _append(self._values, index, source, reader._value_start, reader._value_size)
        size: cython.Py_ssize_t = reader._end - reader._headers_start
        if size == 1 and source.data[reader._headers_start] == 0:
            size = 0
        self._add_headers(source, reader._headers_start, size)
        self._count = index + 1
        return None

    @cython.cfunc
    def _add_headers(
        self, source: Bytes, start: cython.Py_ssize_t, size: cython.Py_ssize_t
    ) -> object:
        """Note a record's headers as they lie; nothing is noted before the first that has some."""
        if self._headers is None:
            if size == 0:
                return None
            self._headers = _Column(self._memory, self._room, 4096)
            index: cython.Py_ssize_t
            for index in range(self._count):
                self._headers.offsets[index + 1] = 0
        _append(self._headers, self._count, source, start, size)
        return None

    def add_record(self, record: Record) -> None:
        """Add a record that is an object already, and no deserializer has seen."""
        self._reserve(1)
        index: cython.Py_ssize_t = self._count
        self._offsets[index] = record.offset
        self._timestamps[index] = record.timestamp_ms
        headers: bytes = pack_headers(record.headers) if record.headers else b""
        parts: list[bytes | None] = [record.key, record.value, headers]
        held: list[Bytes] = [Bytes(part or b"") for part in parts]
        sizes: list[int] = [-1 if part is None else len(part) for part in parts]
        _append(self._keys, index, held[0], 0, sizes[0])
        _append(self._values, index, held[1], 0, sizes[1])
        self._add_headers(held[2], 0, sizes[2])
        self._count = index + 1

    def finish(self) -> RecordColumns:
        """Return what was added; nothing may be added afterwards."""
        count: int = self._count
        headers = self._headers
        return RecordColumns(
            self.runs,
            self._offsets_view[: 8 * count].cast("q").toreadonly(),
            self._timestamps_view[: 8 * count].cast("q").toreadonly(),
            self._keys.finish(count),
            self._values.finish(count),
            None if headers is None else headers.finish(count),
        )


def columns_of(records: list[Record], memory: Memory) -> RecordColumns:
    """Make columns of records that are objects already, and that no deserializer has changed."""
    builder = ColumnsBuilder(memory, len(records))
    where: tuple[str, int] | None = None
    for record in records:
        here = (record.topic, record.partition)
        if where is not None and here != where:
            builder.end_run(*where)
        where = here
        builder.add_record(record)
    if where is not None:
        builder.end_run(*where)
    return builder.finish()


NO_RECORDS = ColumnsBuilder(Memory(0), 0, 0).finish()
"""No records."""
