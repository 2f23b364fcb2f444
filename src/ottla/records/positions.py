# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Where batches begin and end in a piece of a log, without a look at their records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cython

from ottla.errors import CorruptRecords
from ottla.records.batch import CRC_START, HEADER_BYTES, LENGTH_END
from ottla.records.record import Bytes
from ottla.wire.crc32c import crc32c

if TYPE_CHECKING:
    from ottla.wire import Buffer

if cython.compiled:
    from cython.cimports.ottla.records.record import Bytes


def whole_batches_size(data: Buffer, offset_end: cython.longlong = 0x7FFFFFFFFFFFFFFF) -> int:
    """Return how many bytes of `data`, which begins with a batch, are whole batches.

    Args:
        data: bytes of a log.
        offset_end: only batches before this offset are counted; exclusive.

    Raises:
        CorruptRecords: where there should be a batch there is none.
    """
    held = Bytes(data)
    position: cython.Py_ssize_t = 0
    while held.size - position >= LENGTH_END:
        if held.int64(position) >= offset_end:
            break
        size: cython.longlong = LENGTH_END + held.int32(position + 8)
        if size < HEADER_BYTES:
            raise CorruptRecords(f"a batch claims to be {size} bytes long")
        if size > held.size - position:
            break
        position += size
    return position


def intact_size(data: Buffer, is_contiguous: bool) -> int:
    """Return how many bytes of `data`, which begins with a batch, are whole and intact batches.

    Args:
        data: bytes of a log.
        is_contiguous: whether each batch must begin at the offset behind the one before it, and
            not anywhere behind it.
    """
    view = memoryview(data)
    held = Bytes(data)
    position: cython.Py_ssize_t = 0
    next_offset: cython.longlong = -1
    while held.size - position >= HEADER_BYTES:
        base_offset: cython.longlong = held.int64(position)
        size: cython.longlong = LENGTH_END + held.int32(position + 8)
        delta: cython.longlong = held.int32(position + 23)
        if size < HEADER_BYTES or size > held.size - position or held.data[position + 16] != 2:
            break
        if delta < 0 or base_offset < next_offset:
            break
        if is_contiguous and base_offset != next_offset and next_offset >= 0:
            break
        if crc32c(view[position + CRC_START : position + size]) != held.uint32(position + 17):
            break
        next_offset = base_offset + delta + 1
        position += size
    return position


def position_of(data: Buffer, offset: cython.longlong) -> int:
    """Return where in `data`, which begins with a batch, the first batch begins that ends at or
    behind `offset`; a position at or behind the end of `data` where that batch begins there.

    Raises:
        CorruptRecords: where there should be a batch there is none.
    """
    held = Bytes(data)
    position: cython.Py_ssize_t = 0
    while held.size - position >= HEADER_BYTES:
        size: cython.longlong = LENGTH_END + held.int32(position + 8)
        if size < HEADER_BYTES:
            raise CorruptRecords(f"a batch claims to be {size} bytes long")
        if held.int64(position) + held.int32(position + 23) >= offset:
            break
        position += size
    return position
