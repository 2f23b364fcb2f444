"""Length-prefixed frames: four bytes of size, then the request or response.

`FrameBuffer` is the receiving end of a connection without the connection: it gives room to
receive into, is told how much arrived, and hands out whole frames as views, without copying them.
Its memory grows with what has arrived, never with what a peer only announces.
"""

from __future__ import annotations

import cython

from ottla.errors import RemoteProtocolError
from ottla.wire.memory import Memory

ROOM_BYTES_MIN = 4096
"""What is offered to receive into at first, and what an idle buffer holds."""

ROOM_BYTES_MAX = 256 * 1024
"""What is offered at most where no larger frame is under way; a room that is filled doubles."""

ROOM_BYTES_LEFT = 1024
"""A chunk is used until less is left than this, so that bytes that trickle in are not copied again
for each of them."""

KEPT_BYTES_MAX = 1024 * 1024
"""A buffer that grew beyond this for one frame is let go as soon as it is empty."""

LENT_BYTES_MAX = 32 * 1024 * 1024
"""What is kept for frames that own their memory, to be used again when they are gone."""

_FORGETS = cython.declare(cython.int, 7)
"""How slowly the size of large frames is forgotten while small ones arrive."""


class FrameError(RemoteProtocolError):
    """A frame's size is negative or larger than allowed; the stream cannot go on.

    Attributes:
        size: the announced size.
        head: the first bytes received, the size among them, to tell what the peer may be.
    """

    def __init__(self, size: int, frame_bytes_max: int, head: bytes) -> None:
        super().__init__(f"a frame of {size} bytes; at most {frame_bytes_max} are allowed")
        self.size = size
        self.head = head


class FrameBuffer:
    """Turns received bytes into frames.

    Args:
        frame_bytes_max: the largest frame that is accepted.
        reuse: whether a frame's memory may be overwritten by the next call of `room` (a broker
            that is done with each request before it reads on) or belongs to the frame (a client
            whose records are read later): then it is used again when nobody has a view of it.
    """

    def __init__(self, frame_bytes_max: int, reuse: bool) -> None:
        self._chunk = bytearray()
        self._lent: memoryview | None = None
        self._memory: Memory | None = None if reuse else Memory(LENT_BYTES_MAX)
        self._start = 0
        self._end = 0
        self._limit = 0
        self._room = ROOM_BYTES_MIN
        self._frame_bytes_max = frame_bytes_max
        self._reuse = reuse

    def pending(self) -> int:
        """Return how many received bytes have not been handed out."""
        return self._end - self._start

    def room(self) -> memoryview:
        """Return a view to receive into, of at least one byte."""
        self.make_room()
        return memoryview(self._chunk)[self._end : self._limit]

    def make_room(self) -> int:
        """Have room to receive into: the one that `room` shows, without a view of it.

        Returns:
            How many bytes it has, at least one.
        """
        capacity: cython.Py_ssize_t = self._limit
        pending: cython.Py_ssize_t = self._end - self._start
        if pending == 0:
            if self._reuse and self._room <= capacity <= KEPT_BYTES_MAX:
                self._start = 0
                self._end = 0
            elif self._reuse or capacity - self._end < self._wanted():
                self._replace(self._room, 0)
            return self._limit - self._end
        needed: cython.longlong = pending + ROOM_BYTES_LEFT
        if pending >= 4:
            announced: cython.longlong = 4 + self._announced()
            if pending < announced <= self._frame_bytes_max + 4:
                needed = announced
        if capacity - self._end < min(needed - pending, ROOM_BYTES_LEFT):
            if self._reuse and needed <= capacity and self._start > 0:
                self._chunk[:pending] = self._chunk[self._start : self._end]
                self._start = 0
                self._end = pending
            else:
                self._replace(max(min(needed, 2 * pending), pending + self._room), pending)
        return self._limit - self._end

    def _wanted(self) -> int:
        """Return how much room must be left for an empty chunk to be used on.

        Small frames get what is left of it; of large ones each is to arrive as a whole.
        """
        return ROOM_BYTES_LEFT if self._room <= ROOM_BYTES_MIN else self._room

    def _replace(self, size: cython.Py_ssize_t, pending: cython.Py_ssize_t) -> None:
        """Go on in a new chunk; views of the old one stay valid."""
        chunk: bytearray
        if self._memory is None:
            chunk = bytearray(size)
        else:
            lent = self._memory.lend(size)
            chunk = lent.obj  # type: ignore[assignment]  # what a Memory lends is a bytearray
        chunk[:pending] = memoryview(self._chunk)[self._start : self._end]
        if self._memory is not None:
            self._lent = lent
        self._chunk = chunk
        self._limit = size
        self._start = 0
        self._end = pending

    if cython.compiled:

        def free(self) -> cython.p_uchar:
            """Return where the room begins that was made."""
            data: cython.p_uchar = self._chunk
            return data + self._end

    def received(self, size: cython.Py_ssize_t) -> None:
        """Tell that `size` bytes were received into the last `room`."""
        self._end += size
        if size >= self._room and self._room < ROOM_BYTES_MAX:
            self._room *= 2

    def release(self) -> None:
        """Let the memory of an empty, idle buffer go."""
        if self._start == self._end:
            self._chunk = bytearray()
            self._lent = None
            self._limit = 0
            self._start = 0
            self._end = 0
            self._room = ROOM_BYTES_MIN

    def next_frame(self) -> memoryview | None:
        """Hand out the next whole frame, without its size; None where it has not all arrived.

        Raises:
            FrameError: the size is negative or too large; nothing more can be read.
        """
        if self._end - self._start < 4:
            return None
        size: cython.longlong = self._announced()
        if size < 0 or size > self._frame_bytes_max:
            head = bytes(memoryview(self._chunk)[self._start : self._end][:64])
            raise FrameError(size, self._frame_bytes_max, head)
        if self._end - self._start - 4 < size:
            return None
        if not self._reuse:
            # The next frame may be as large as this one, of which every byte has arrived.
            wanted: cython.longlong = size + (size >> 3)
            if wanted > self._room:
                self._room = min(wanted, LENT_BYTES_MAX)
            elif self._room > ROOM_BYTES_MAX:
                self._room -= (self._room - size) >> _FORGETS
        start: cython.Py_ssize_t = self._start + 4
        self._start = start + size
        return memoryview(self._chunk)[start : self._start]

    def _announced(self) -> int:
        start: cython.Py_ssize_t = self._start
        size: cython.longlong = 0
        for index in range(start, start + 4):
            size = (size << 8) | self._chunk[index]
        return size - 4294967296 if size > 2147483647 else size
