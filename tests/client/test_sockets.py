"""The system's calls on sockets: what they answer where there is nothing, an end or an error."""

from __future__ import annotations

import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from itertools import repeat
from operator import length_hint
from types import FrameType

import pytest

from ottla.client.sockets import NOT_NOW, READABLE, WRITABLE, Socket, Sockets, Watch
from ottla.wire.framing import ROOM_BYTES_MAX, FrameBuffer

AT_ONCE = 64 * 1024
"""How many bytes are moved while the interpreter's lock is kept; beyond that it is let go of."""


class Told:
    """Who is told that a socket is ready."""

    def ready(self, events: int) -> None:
        raise AssertionError("who waits says it")


class Pair:
    """Two sockets that are connected, the first of them in Ottla's hands."""

    def __init__(self) -> None:
        self.sock, self.peer = socket.socketpair()
        self.sock.setblocking(False)
        self.socket = Socket(self.sock)
        self.frames = FrameBuffer(1 << 30, reuse=False)
        self.watched = Sockets()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    with closing(pair.sock), closing(pair.peer):
        yield pair


def shown(found: list[tuple[Watch, int]]) -> list[tuple[object, int]]:
    """Return what was found, as (socket, events)."""
    return [(watch.sock, events) for watch, events in found]


@pytest.mark.parametrize("size", [1, AT_ONCE, 4 * ROOM_BYTES_MAX])
def test_what_has_arrived_is_received(pair: Pair, size: int) -> None:
    """The room of a frame buffer grows beyond what is received at once."""
    values = [bytes([number]) * size for number in range(10)]
    framed = b"".join(size.to_bytes(4, "big") + value for value in values)
    sender = threading.Thread(target=pair.peer.sendall, args=(framed,))
    sender.start()
    received: list[bytes] = []
    pair.watched.watch(pair.sock, READABLE, Told())
    while len(received) < 10:
        assert shown(pair.watched.wait(10)) == [(pair.sock, READABLE)]
        pair.frames.received(pair.socket.receive(pair.frames))
        while (frame := pair.frames.next_frame()) is not None:
            received.append(bytes(frame))
    sender.join()
    assert received == values


@pytest.mark.parametrize("size", [1, AT_ONCE, AT_ONCE + 1])
def test_what_the_socket_takes_is_sent(pair: Pair, size: int) -> None:
    sent = pair.socket.send(memoryview(b"y" * size))
    assert 0 < sent <= size
    assert pair.peer.recv(sent, socket.MSG_WAITALL) == b"y" * sent


def test_nothing_can_be_received_where_nothing_has_arrived(pair: Pair) -> None:
    assert pair.socket.receive(pair.frames) == NOT_NOW
    assert pair.socket.peek() == NOT_NOW


def test_a_full_socket_takes_nothing_and_says_so(pair: Pair) -> None:
    while pair.socket.send(b"z" * AT_ONCE) != NOT_NOW:
        pass
    assert pair.socket.send(b"z" * (AT_ONCE + 1)) == NOT_NOW
    pair.watched.watch(pair.sock, READABLE | WRITABLE, Told())
    assert pair.watched.wait(0) == []


def test_looking_leaves_what_has_arrived(pair: Pair) -> None:
    pair.peer.sendall(b"ab")
    assert pair.socket.peek() == 1
    assert pair.socket.receive(pair.frames) == 2
    assert pair.frames.room().obj[:2] == b"ab"  # type: ignore[index]  # it is a bytearray


def test_the_end_is_told_by_looking_and_by_receiving(pair: Pair) -> None:
    pair.peer.close()
    assert pair.socket.peek() == 0
    assert pair.socket.receive(pair.frames) == 0


def test_a_broken_connection_is_an_error_with_its_reason(pair: Pair) -> None:
    pair.peer.close()
    with pytest.raises(BrokenPipeError, match="Broken pipe"):
        pair.socket.send(b"x")


def test_a_reset_is_an_error_with_its_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    with closing(ours):
        ours.setblocking(False)
        with pytest.raises(ConnectionResetError, match="reset by peer"):
            Socket(ours).peek()


def test_only_what_is_ready_is_found(pair: Pair) -> None:
    other = Pair()
    with closing(other.sock), closing(other.peer):
        for sock in (pair.sock, other.sock):
            pair.watched.watch(sock, READABLE, Told())
        assert pair.watched.wait(0) == []
        other.peer.sendall(b"x")
        assert shown(pair.watched.wait(10)) == [(other.sock, READABLE)]
        pair.peer.sendall(b"x")
        assert shown(pair.watched.wait(10)) == [(pair.sock, READABLE), (other.sock, READABLE)]


def test_what_is_watched_anew_is_waited_for_as_the_last_one_said(pair: Pair) -> None:
    pair.watched.watch(pair.sock, READABLE | WRITABLE, Told())
    ((before, events),) = pair.watched.wait(0)
    pair.watched.watch(pair.sock, READABLE, Told())
    assert (events, before.is_over) == (WRITABLE, True)
    assert pair.watched.wait(0) == []


def test_what_was_found_and_forgotten_since_is_over_though_its_number_is_used_again(
    pair: Pair,
) -> None:
    pair.watched.watch(pair.sock, WRITABLE, Told())
    ((found, _),) = pair.watched.wait(0)
    number = pair.sock.fileno()
    pair.watched.forget(pair.sock)
    other = Pair()
    with closing(other.sock), closing(other.peer):
        assert other.sock.fileno() == number
        pair.watched.watch(other.sock, READABLE, Told())
        assert found.is_over
        assert pair.watched.wait(0) == []


@pytest.mark.parametrize("waits", [True, False])
def test_what_a_signals_handler_raises_ends_the_waiting(pair: Pair, waits: bool) -> None:
    """The signal comes while it waits, or between two waits with no Python code between them."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    calls = repeat(0, 3_000_000)
    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            pair.watched.watch(pair.sock, READABLE, Told())
            if waits:
                pair.watched.wait(60)
            else:
                deque(map(pair.watched.wait, calls), maxlen=0)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert length_hint(calls) > 0
