"""The system calls of every turn, on sockets that do not block.

Compiled, they are made without Python's objects in between, and what does not wait keeps the
interpreter's lock: it takes less time than getting the lock back, for which a thread that computes
would have it wait for milliseconds. Only what waits, or moves many bytes, lets go of it.
"""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING, Protocol

import cython

if cython.compiled:
    from cython.cimports.cpython.buffer import (
        Py_buffer,
        PyBUF_SIMPLE,
        PyBuffer_Release,
        PyObject_GetBuffer,
    )
    from cython.cimports.cpython.bytearray import PyByteArray_AsString
    from cython.cimports.cpython.exc import PyErr_CheckSignals
    from cython.cimports.libc.errno import EAGAIN, EINTR, errno
    from cython.cimports.ottla.client.sockets import (
        MSG_PEEK,
        pollfd,
        system_poll,
        system_recv,
        system_send,
    )

if TYPE_CHECKING:
    from ottla.wire import Buffer
    from ottla.wire.framing import FrameBuffer

READABLE, WRITABLE = select.POLLIN, select.POLLOUT

NOT_NOW = -1
"""What `Socket.send` and `Socket.receive` answer where they would have to wait."""

_NOT_NOW = cython.declare(cython.Py_ssize_t, NOT_NOW)
_AT_ONCE_BYTES_MAX = cython.declare(cython.Py_ssize_t, 64 * 1024)
"""How many bytes are moved while the interpreter's lock is kept."""

_WAIT_S_MAX = cython.declare(cython.double, 1_000_000.0)
"""How long one call waits at most; the system counts milliseconds, in 32 bits."""


class Ready(Protocol):
    """Who is told that a socket is ready."""

    def ready(self, events: int) -> None:
        """Go on: the socket can be read or written."""
        ...


class Watch:
    """A socket that is waited for.

    Attributes:
        sock: the socket.
        number: its descriptor.
        events: what it is waited for.
        what: who is told.
        is_over: whether nobody wants to know any more.
    """

    def __init__(self, sock: socket.socket, events: cython.int, what: Ready) -> None:
        self.sock = sock
        self.number = sock.fileno()
        self.events = events
        self.what = what
        self.is_over = False


class Sockets:
    """Sockets that one thread waits for."""

    def __init__(self) -> None:
        self._watches: dict[int, Watch] = {}
        self._laid_out: list[Watch] | None = None
        self._polled = bytearray()

    def watch(self, sock: socket.socket, events: cython.int, what: Ready) -> None:
        """Tell `what` when a socket can be read or written."""
        watch = Watch(sock, events, what)
        before: Watch | None = self._watches.get(watch.number)
        if before is not None:
            before.is_over = True
        self._watches[watch.number] = watch
        self._laid_out = None

    def forget(self, sock: socket.socket) -> None:
        """Do not wait for a socket any more, and close it."""
        watch: Watch | None = self._watches.pop(sock.fileno(), None)
        if watch is not None:
            watch.is_over = True
            self._laid_out = None
        sock.close()

    def forget_all(self) -> None:
        """Close all sockets."""
        watch: Watch
        for watch in list(self._watches.values()):
            self.forget(watch.sock)

    def wait(self, timeout_s: cython.double) -> list[tuple[Watch, int]]:
        """Wait until something can be done, and return what: a watch and its events each.

        Nothing is returned when the time is over, or a signal has come. What a signal's handler
        raises is raised.
        """
        timeout_ms: cython.int = 0
        if timeout_s > 0:
            timeout_ms = int(min(timeout_s, _WAIT_S_MAX) * 1000 + 0.999)
        if cython.compiled:
            PyErr_CheckSignals()
            return self._wait(timeout_ms)
        poll = select.poll()
        for watch in self._watches.values():
            poll.register(watch.number, watch.events)
        return [(self._watches[number], events) for number, events in poll.poll(timeout_ms)]

    def _wait(self, timeout_ms: cython.int) -> list[tuple[Watch, int]]:
        found: list[tuple[Watch, int]] = []
        if cython.compiled:
            if self._laid_out is None:
                self._lay_out()
            watches: list[Watch] = self._laid_out
            polled: bytearray = self._polled  # another may be laid out while this one waits
            entries = cython.cast(cython.pointer(pollfd), PyByteArray_AsString(polled))
            count: cython.Py_ssize_t = len(watches)
            ready: cython.int
            error: cython.int
            with cython.nogil:
                ready = system_poll(entries, count, timeout_ms)
                error = errno
            if ready < 0:
                if error != EINTR:
                    raise OSError(error, os.strerror(error))
                PyErr_CheckSignals()
            index: cython.Py_ssize_t
            for index in range(count):
                if ready <= 0:
                    break
                if entries[index].revents:
                    found.append((watches[index], entries[index].revents))
                    ready -= 1
        return found

    def _lay_out(self) -> None:
        """Write what is watched as the system wants it."""
        if cython.compiled:
            watches: list[Watch] = list(self._watches.values())
            self._polled = bytearray(len(watches) * cython.sizeof(pollfd))
            entries = cython.cast(cython.pointer(pollfd), PyByteArray_AsString(self._polled))
            index: cython.Py_ssize_t
            for index in range(len(watches)):
                watch: Watch = watches[index]
                entries[index].fd = watch.number
                entries[index].events = watch.events
            self._laid_out = watches


class Socket:
    """A connected socket that does not block.

    Args:
        sock: the same as Python's object, which owns it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._number = sock.fileno()

    def send(self, data: Buffer) -> int:
        """Send bytes; returns how many the socket has taken, or NOT_NOW.

        Raises:
            OSError: the connection is broken.
        """
        if cython.compiled:
            return self._send(data)
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return NOT_NOW

    def _send(self, data: Buffer) -> int:
        sent: cython.Py_ssize_t = 0
        if cython.compiled:
            given = cython.declare(Py_buffer)
            error: cython.int
            PyObject_GetBuffer(data, cython.address(given), PyBUF_SIMPLE)
            if given.len <= _AT_ONCE_BYTES_MAX:
                sent = system_send(self._number, given.buf, given.len, 0)
                error = errno
            else:
                with cython.nogil:
                    sent = system_send(self._number, given.buf, given.len, 0)
                    error = errno
            PyBuffer_Release(cython.address(given))
            return _moved(sent, error)
        return sent

    def receive(self, frames: FrameBuffer) -> int:
        """Receive bytes into the room of a frame buffer, which the caller tells how many came.

        Returns:
            How many there were, 0 at the end, or NOT_NOW.

        Raises:
            OSError: the connection is broken.
        """
        if cython.compiled:
            return self._receive(frames)
        try:
            return self.sock.recv_into(frames.room())
        except BlockingIOError:
            return NOT_NOW

    def _receive(self, frames: FrameBuffer) -> int:
        received: cython.Py_ssize_t = 0
        if cython.compiled:
            size: cython.Py_ssize_t = frames.make_room()
            room: cython.p_uchar = frames.free()
            error: cython.int
            if size <= _AT_ONCE_BYTES_MAX:
                received = system_recv(self._number, room, size, 0)
                error = errno
            else:
                with cython.nogil:
                    received = system_recv(self._number, room, size, 0)
                    error = errno
            return _moved(received, error)
        return received

    def peek(self) -> int:
        """Return 1 where something has arrived, 0 where the other side has closed, or NOT_NOW.

        Raises:
            OSError: the connection is broken.
        """
        if cython.compiled:
            byte: cython.uchar = 0
            found: cython.Py_ssize_t = system_recv(self._number, cython.address(byte), 1, MSG_PEEK)
            return _moved(found, errno)
        try:
            return len(self.sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return NOT_NOW


@cython.cfunc
@cython.exceptval(-2)
def _moved(size: cython.Py_ssize_t, error: cython.int) -> cython.Py_ssize_t:
    """Judge what a call has answered."""
    if size >= 0:
        return size
    if cython.compiled and error in (EAGAIN, EINTR):
        return _NOT_NOW
    raise OSError(error, os.strerror(error))
