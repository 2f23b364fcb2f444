# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Makes columns of batches, or of records that are objects already.

The builder finds what nearly all records look like - numbers of up to three bytes - in a loop of
its own, and copies then what was found, column by column. Every other record is left to
`RecordIterator`, which also knows what is wrong with it.

A record of seven bytes, the smallest there is, takes 24 of columns, 28 where some have headers.
Columns that grow double, and memory is lent in powers of two: so a batch takes no more than
sixteen times what it was inflated to, which `ottla.wire.compression` bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cython

from ottla.errors import CorruptRecords
from ottla.records.builder import pack_headers
from ottla.records.columns import BytesColumn, RecordColumns, Run
from ottla.records.record import Bytes
from ottla.wire.memory import Memory, new_buffer

if cython.compiled:
    from cython.cimports.libc.string import memcpy
    from cython.cimports.ottla.records.batch import BatchHeader, RecordIterator
    from cython.cimports.ottla.records.record import Bytes

if TYPE_CHECKING:
    from ottla.records.batch import BatchHeader, RecordIterator
    from ottla.records.record import Record

COLUMN_BYTES_MAX = 0x7FFFFFFF
"""What the keys or the values of one piece may be altogether: their offsets are int32."""

_BYTES_MAX = cython.declare(cython.longlong, COLUMN_BYTES_MAX)
_FIELDS_BYTES_MAX = cython.declare(cython.Py_ssize_t, 16)
_FIXED_BYTES = cython.declare(cython.Py_ssize_t, 24)
"""An offset, a timestamp, and where the key and the value begin."""

_BLOCK_BYTES = cython.declare(cython.Py_ssize_t, 32)
_SHORT_BYTES_MAX = cython.declare(cython.longlong, 512)
"""Up to here bytes are copied in blocks."""

_LONG = cython.declare(cython.int, 0x40000000)
"""Stands for a varint of more than three bytes: no shorter one is as much."""

_AT_ONCE = cython.declare(cython.int, 256)
"""How many records are looked for before their bytes are copied: what was found stays at hand."""


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

    @cython.cfunc
    @cython.returns(cython.int)
    @cython.exceptval(-1)
    def append_nulls(
        self, index: cython.Py_ssize_t, found: cython.p_int, each: cython.int, count: cython.int
    ) -> int:
        """Note that record `index + each` has none, and those behind it without a gap.

        Returns:
            The first that has some, or `count`; see `_append_some`.
        """
        at: cython.Py_ssize_t = index + each
        if not self.validity:
            self.begin_nulls()
        size: cython.int = self.size
        while each < count and found[_AT_ONCE + each] < 0:
            each += 1
            self.offsets[index + each] = size
        self.nulls += index + each - at
        while at < index + each:
            if at & 7 == 0 and at + 8 <= index + each:
                self.validity[at >> 3] = 0
                at += 8
            else:
                self.validity[at >> 3] &= ~(1 << (at & 7)) & 0xFF
                at += 1
        return each

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
        memcpy(column.data + column.size, source.data + start, size)
    else:
        column.data[column.size : column.size + size] = source.data[start : start + size]
    column.size += size
    column.offsets[index + 1] = column.size
    return 0


@cython.cfunc
def _append_some(
    column: _Column, index: cython.Py_ssize_t, source: Bytes, found: cython.p_int, count: cython.int
) -> object:
    """Append the bytes of `count` records, the first of them record `index`.

    Args:
        column: the column.
        index: of the first record.
        source: what the bytes lie in.
        found: where each record's begin, and `_AT_ONCE` numbers behind that how many there are; a
            size is negative where there are none.
        count: how many records.
    """
    each: cython.int = 0
    size: cython.Py_ssize_t
    to: cython.p_uchar = column.data
    offsets: cython.p_int = column.offsets + index + 1 if cython.compiled else column.offsets
    total: cython.Py_ssize_t = column.size
    room: cython.Py_ssize_t = column.room - _BLOCK_BYTES
    end: cython.Py_ssize_t = source.size - _BLOCK_BYTES
    while each < count:
        size = found[_AT_ONCE + each]
        if cython.compiled and 0 <= size <= _SHORT_BYTES_MAX:
            data: cython.p_const_uchar = source.data + found[each]
            if total + size <= room and found[each] + size <= end:
                # Far quicker than what a C compiler makes of it; bytes behind the end do no harm.
                copied: cython.Py_ssize_t = 0
                while copied < size:
                    memcpy(to + total + copied, data + copied, 32)  # _BLOCK_BYTES, as a constant
                    copied += 32
                total += size
                offsets[each] = cython.cast(cython.int, total)
                each += 1
                continue
        column.size = total
        if size < 0:
            each = column.append_nulls(index, found, each, count)
            continue
        _append(column, index + each, source, found[each], size)
        each += 1
        to, total, room = column.data, column.size, column.room - _BLOCK_BYTES
    column.size = total
    return None


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _short(
    data: cython.p_const_uchar, at: cython.Py_ssize_t
) -> tuple[cython.int, cython.Py_ssize_t]:
    """Decode a zigzag varint of up to three bytes: its value, or `_LONG`, and where it ends.

    The twin of the one in `records.batch`: what another module has is not inlined.

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
    _found: tuple[bytearray, bytearray]
    _found_keys: cython.p_int
    _found_values: cython.p_int

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
        self._found = new_buffer(8 * _AT_ONCE), new_buffer(8 * _AT_ONCE)
        self._look()

    @cython.cfunc
    def _look(self) -> object:
        if cython.compiled:
            offsets: bytearray = self._offsets_view.obj
            self._offsets = cython.cast(cython.p_longlong, cython.cast(cython.p_uchar, offsets))
            stamps: bytearray = self._timestamps_view.obj
            self._timestamps = cython.cast(cython.p_longlong, cython.cast(cython.p_uchar, stamps))
            keys: bytearray = self._found[0]
            self._found_keys = cython.cast(cython.p_int, cython.cast(cython.p_uchar, keys))
            values: bytearray = self._found[1]
            self._found_values = cython.cast(cython.p_int, cython.cast(cython.p_uchar, values))
        else:
            self._found_keys = memoryview(self._found[0]).cast("i")
            self._found_values = memoryview(self._found[1]).cast("i")
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
        """
        before: cython.int = reader._left
        left: cython.int = before + 1
        while reader._left < left and reader._left > 0 and self._count < stop:
            left = reader._left
            index: cython.Py_ssize_t = self._count
            count: cython.int = self._find_some(reader, min(stop - index, _AT_ONCE), wanted)
            _append_some(self._keys, index, reader._source, self._found_keys, count)
            _append_some(self._values, index, reader._source, self._found_values, count)
            headers = self._headers
            if headers is not None:
                each: cython.Py_ssize_t
                for each in range(index + 1, index + count + 1):
                    headers.offsets[each] = headers.size
            self._count = index + count
        return reader._left != before

    @cython.cfunc
    @cython.returns(cython.int)
    @cython.exceptval(check=False)
    def _find_some(
        self, reader: RecordIterator, most: cython.Py_ssize_t, wanted: cython.longlong
    ) -> int:
        """Find where the keys and values of records lie, and note their offsets and timestamps.

        A record is as most are when each of its numbers takes up to three bytes, what it names fits
        into it, and it has no headers; it ends before the first that is not.

        Args:
            reader: goes behind what was found.
            most: how many at most.
            wanted: the first offset that counts.

        Returns:
            How many were found that count.
        """
        data: cython.p_const_uchar = reader._source.data
        size: cython.Py_ssize_t = reader._source.size
        keys: cython.p_int = self._found_keys
        values: cython.p_int = self._found_values
        offsets: cython.p_longlong = self._offsets
        timestamps: cython.p_longlong = self._timestamps
        first: cython.Py_ssize_t = self._count
        count: cython.Py_ssize_t = 0
        position: cython.Py_ssize_t = reader._position
        left: cython.int = reader._left
        last: cython.longlong = reader._offset
        header: BatchHeader = reader._header
        counts: cython.int = 0 if reader._append_time else 1
        base_offset: cython.longlong = header.base_offset
        base_timestamp: cython.longlong = header.base_timestamp if counts else header.max_timestamp
        at: cython.Py_ssize_t
        end: cython.Py_ssize_t
        record_size: cython.int
        stamp: cython.int
        delta: cython.int
        key_size: cython.int
        value_size: cython.int
        while left > 0 and count < most and position + _FIELDS_BYTES_MAX <= size:
            record_size, at = _short(data, position)
            end = at + record_size
            if record_size < 0 or end > size:
                break
            stamp, at = _short(data, at + 1)
            delta, at = _short(data, at)
            key_size, at = _short(data, at)
            keys[count] = at
            keys[_AT_ONCE + count] = key_size
            if max(stamp, delta) == _LONG or key_size < -1:
                break
            if key_size > 0:
                at += key_size
            if at + 2 > end or at + 3 > size:
                break
            value_size, at = _short(data, at)
            values[count] = at
            values[_AT_ONCE + count] = value_size
            if value_size > 0:
                at += value_size
            if value_size < -1 or at + 1 != end or data[at] != 0:
                break
            position = end
            left -= 1
            last = base_offset + delta
            offsets[first + count] = last
            timestamps[first + count] = base_timestamp + counts * stamp
            count += last >= wanted
        reader._position, reader._left, reader._offset = position, left, last
        return count

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
