"""Memory that is lent out, and lent again when nobody looks at it any more.

Memory that a process gets anew costs far more than what is then done with it: the system clears
each page, and maps it when it is first touched. So what many megabytes a second go through - the
answers to fetches, the columns made of them - is kept here and used again: what was used last
first, as it may still be in a cache.

A bytearray that somebody has a view of cannot be resized; that is how it is known whether one is
free, whoever has passed the views on.
"""

from __future__ import annotations

import cython

if cython.compiled:
    from cython.cimports.cpython.bytearray import PyByteArray_FromStringAndSize

CHUNK_BYTES_MIN = 4096
"""The smallest that is lent; all sizes are powers of two."""

CHUNKS_MAX = 32
"""How many are kept at most, in use or not."""


class Memory:
    """Lends memory.

    Args:
        kept_bytes_max: how much is kept at most, in use or not; what is lent beyond that is as any
            other memory.
    """

    def __init__(self, kept_bytes_max: int) -> None:
        self._kept_bytes_max = kept_bytes_max
        self._kept: list[bytearray] = []  # what was lent last is at the end
        self._kept_bytes = 0

    def lend(self, size: int) -> memoryview:
        """Return memory of at least `size` bytes, for as long as there is a view of it.

        What is in it is undefined.
        """
        wanted = max(1 << (size - 1).bit_length(), CHUNK_BYTES_MIN)
        kept = self._kept
        for index in range(len(kept) - 1, -1, -1):
            chunk = kept[index]
            if len(chunk) == wanted and _is_free(chunk):
                del kept[index]
                kept.append(chunk)
                return memoryview(chunk)
        if wanted > self._kept_bytes_max // 2:
            return memoryview(new_buffer(size))
        chunk = new_buffer(wanted)
        kept.append(chunk)
        self._kept_bytes += wanted
        while self._kept_bytes > self._kept_bytes_max or len(kept) > CHUNKS_MAX:
            self._kept_bytes -= len(kept.pop(0))
        return memoryview(chunk)


class Spares:
    """Buffers of one size that were used, kept to be used again: the last one first.

    Args:
        size: how many bytes each has.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: list[bytearray] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._kept)

    def put(self, buffer: bytearray) -> None:
        """Keep a buffer, unless it is of another size; there may still be views of it."""
        if len(buffer) == self._size:
            self._kept.append(buffer)

    def take(self) -> bytearray | None:
        """Return a buffer that nobody looks at any more, or None where there is none at hand."""
        if not self._kept:
            return None
        buffer = self._kept.pop()
        if _is_free(buffer):
            return buffer
        self._kept.insert(0, buffer)
        return None

    def reduce(self, count: cython.Py_ssize_t) -> None:
        """Let go of all but so many."""
        while len(self._kept) > count:
            del self._kept[0]


def _is_free(chunk: bytearray) -> bool:
    try:
        chunk.append(chunk.pop())
    except BufferError:  # there are views of it
        return False
    return True


def new_buffer(size: cython.Py_ssize_t) -> bytearray:
    """Return a buffer of which nothing is read before it is written: compiled it is not cleared."""
    if cython.compiled:
        return PyByteArray_FromStringAndSize(cython.NULL, size)
    return bytearray(size)
