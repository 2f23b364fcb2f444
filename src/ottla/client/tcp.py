"""Kafka's protocol over TCP: sockets that do not block, driven by one thread at a time.

A name is resolved in a short thread of its own, because nothing else bounds how long that takes;
then every address of the name is tried side by side, and the first that answers is used. Where
none does, the error says what happened at each.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cython

from ottla.client.produce_call import ProduceCall
from ottla.client.sockets import READABLE, WRITABLE, Socket, Sockets
from ottla.errors import BrokerUnavailable, DecodeError, KafkaError, NotKafka
from ottla.protocol.broker_events import read_events, write_question
from ottla.protocol.codec import decode_from, encode_to
from ottla.protocol.messages.api_18_api_versions import ApiVersionsResponse
from ottla.wire.cursor import Reader, Writer
from ottla.wire.framing import FrameBuffer, FrameError

if cython.compiled:
    from cython.cimports.ottla.clock import monotonic_ns_of
else:
    from ottla.clock import monotonic_ns_of

if TYPE_CHECKING:
    from ottla.client.network import Call, Listener
    from ottla.client.sockets import Ready, Watch
    from ottla.clock import Clock
    from ottla.wire import Buffer

FRAME_BYTES_MAX = 300 * 1024 * 1024
"""The largest response. What HTTP and TLS say first would be the size of a larger one."""

_BUFFERS_MAX = 512
_CLOSED = "the other side closed it"
_IN_PROGRESS = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN)
_LITERALS = ("localhost", "")


class TcpNetwork:
    """Opens connections, and moves bytes when it is polled.

    Args:
        bootstrap: (host, port) of one broker or several.
        client_id: what to be called in the broker's log.
        clock: where time comes from.
    """

    def __init__(self, bootstrap: list[tuple[str, int]], client_id: str, clock: Clock) -> None:
        self.bootstrap = bootstrap
        self.address = ",".join(f"{host}:{port}" for host, port in bootstrap)
        self.client_id = client_id.encode()
        self.clock = clock
        self._sockets = Sockets()
        self._posted: deque[Callable[[], None]] = deque()
        self._inbox, self._bell = socket.socketpair()
        self._inbox.setblocking(False)
        self._bell.setblocking(False)
        self.watch(self._inbox, READABLE, self)

    def connect(self, host: str, port: int, listener: Listener) -> Callable[[], None]:
        return _Dial(self, host, port, listener).give_up

    def poll(self, timeout_s: float) -> None:
        watch: Watch
        for watch, events in self._sockets.wait(timeout_s):
            # What is handed over may close another socket, and open one with its number.
            if not watch.is_over:
                watch.what.ready(events)
        while self._posted:
            self._posted.popleft()()

    def ready(self, events: int) -> None:
        """Somebody rang."""
        with contextlib.suppress(BlockingIOError):
            while len(self._inbox.recv(512)) == 512:
                pass

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self._bell.send(b"\0")

    def post(self, action: Callable[[], None]) -> None:
        """Have something done in the thread that polls."""
        self._posted.append(action)
        self.wake()

    def watch(self, sock: socket.socket, events: int, what: Ready) -> None:
        """Tell `what` when a socket can be read or written."""
        self._sockets.watch(sock, events, what)

    def forget(self, sock: socket.socket) -> None:
        """Close a socket."""
        self._sockets.forget(sock)

    def close(self) -> None:
        self._sockets.forget_all()
        self._bell.close()


class _Dial:
    """One attempt to connect, to all addresses of a name."""

    def __init__(self, network: TcpNetwork, host: str, port: int, listener: Listener) -> None:
        self._network = network
        self._host = host
        self._port = port
        self._listener = listener
        self._over = False
        self._attempts: list[_Attempt] = []
        self._failures: list[str] = []
        if host in _LITERALS or host.replace(".", "").isdigit() or ":" in host:
            found = self._resolve()
            network.post(lambda: self._resolved(*found))
        else:
            thread = threading.Thread(target=self._resolve_aside, name="ottla-resolve", daemon=True)
            thread.start()

    def _resolve(self) -> tuple[list[tuple[int, Any]], OSError | None]:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            return [], error if isinstance(error, OSError) else OSError(str(error))
        return list(dict.fromkeys((family, address) for family, _, _, _, address in found)), None

    def _resolve_aside(self) -> None:
        found = self._resolve()
        self._network.post(lambda: self._resolved(*found))

    def _resolved(self, addresses: list[tuple[int, Any]], error: OSError | None) -> None:
        if self._over:
            return
        if error is not None:
            self._over = True
            self._listener.refused(
                BrokerUnavailable(
                    f"the name {self._host} does not resolve: {error.strerror or error}",
                    address=f"{self._host}:{self._port}",
                    stage="resolve",
                )
            )
            return
        for family, address in addresses:
            if not self._over:
                self._attempts.append(_Attempt(self, self._network, family, address))
        self._maybe_refused()

    def succeeded(self, attempt: _Attempt, sock: socket.socket) -> None:
        """One of the addresses answered: it is used, the others are given up."""
        self._attempts.remove(attempt)
        self.give_up()
        name, at = f"{self._host}:{self._port}", attempt.address
        peer = name if at == self._host else f"{name} ({at})"
        channel = TcpChannel(self._network, sock, peer, self._listener)
        self._listener.connected(channel)

    def failed(self, attempt: _Attempt, error: int) -> None:
        """One of the addresses did not answer."""
        reason = "refused" if error == errno.ECONNREFUSED else os.strerror(error).lower()
        self._failures.append(f"{reason} on {attempt.address}")
        if attempt in self._attempts:
            self._attempts.remove(attempt)
            self._maybe_refused()

    def _maybe_refused(self) -> None:
        if self._attempts or self._over:
            return
        self._over = True
        refused = [text[11:] for text in self._failures if text.startswith("refused on ")]
        others = [text for text in self._failures if not text.startswith("refused on ")]
        texts = ([f"refused on {' and '.join(refused)}"] if refused else []) + others
        name = f"{self._host}:{self._port}"
        what = f"nothing is listening on {name}" if refused else f"{name} cannot be reached"
        self._listener.refused(
            BrokerUnavailable(f"{what} ({'; '.join(texts)})", address=name, stage="connect")
        )

    def give_up(self) -> None:
        """Stop trying."""
        self._over = True
        for attempt in self._attempts:
            attempt.close()
        self._attempts.clear()


class _Attempt:
    """One address of a name."""

    def __init__(self, dial: _Dial, network: TcpNetwork, family: int, address: Any) -> None:
        self.address = str(address[0])
        self._dial = dial
        self._network = network
        self._sock = socket.socket(family, socket.SOCK_STREAM)
        self._sock.setblocking(False)
        error = self._sock.connect_ex(address)
        if error in _IN_PROGRESS or error == 0:
            network.watch(self._sock, WRITABLE, self)
        else:
            network.post(lambda: self._failed(error))

    def ready(self, events: int) -> None:
        """The address answered, or never will."""
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._failed(error)
        else:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._dial.succeeded(self, self._sock)

    def _failed(self, error: int) -> None:
        self.close()
        self._dial.failed(self, error)

    def close(self) -> None:
        """Give this address up."""
        self._network.forget(self._sock)


class TcpChannel:
    """A connection that stands."""

    def __init__(
        self, network: TcpNetwork, sock: socket.socket, peer: str, listener: Listener
    ) -> None:
        self.peer = peer
        self._network = network
        self._sock = sock
        self._socket = Socket(sock)
        self._listener = listener
        self._frames = FrameBuffer(FRAME_BYTES_MAX, reuse=False)
        self._waiting: list[Call] = []
        self._outbox: list[memoryview] = []
        self._unsent: deque[Call] = deque()
        self._correlation_id = 0
        self._open = True
        network.watch(sock, READABLE, self)

    def send(self, call: Call) -> None:
        writer = Writer()
        writer.int32(0)  # room for the size
        self._write_header(writer, call)
        produce: ProduceCall | None = call if isinstance(call, ProduceCall) else None
        if produce is None or not produce.write(writer):
            encode_to(writer, call.request, call.version)
        parts: list[Buffer] = writer.framed()
        call.sent_ns = monotonic_ns_of(self._network.clock)
        if call.expects_response:
            self._waiting.append(call)
        else:
            self._unsent.append(call)
        was_idle = not self._outbox
        if was_idle and len(parts) == 1 and not self._unsent:
            self._send_one(parts[0])
            return
        for part in parts:
            self._outbox.append(memoryview(part).cast("B"))
        if was_idle:
            self._flush()

    def _send_one(self, part: Buffer) -> None:
        """Send a request that is one piece, where nothing waits before it."""
        try:
            sent: cython.Py_ssize_t = self._socket.send(part)
        except OSError as error:
            self._lose(error)
            return
        if sent < len(part):
            self._outbox.append(memoryview(part)[max(sent, 0) :])
            self._flush()

    def why_gone(self) -> KafkaError | None:
        try:
            waiting: cython.Py_ssize_t = self._socket.peek()
        except OSError as error:
            return _lost(self.peer, error.strerror or str(error))
        return None if waiting else _lost(self.peer, _CLOSED)

    def _write_header(self, writer: Writer, call: Call) -> None:
        """Write a request header: v2 where the version is flexible, else v1."""
        client_id: bytes = self._network.client_id
        self._correlation_id = (self._correlation_id + 1) & 0x7FFFFFFF
        call.correlation_id = self._correlation_id
        writer.int16(call.api_key)
        writer.int16(call.version)
        writer.int32(call.correlation_id)
        writer.int16(len(client_id))
        writer.raw(client_id)
        if call.version >= call.flexible_from:
            if call.traced:
                write_question(writer, asked=True)
            else:
                writer.uvarint(0)

    def _flush(self) -> None:
        try:
            while self._outbox:
                self._drop(self._sock.sendmsg(self._outbox[:_BUFFERS_MAX]))
        except BlockingIOError:
            self._network.watch(self._sock, READABLE | WRITABLE, self)
            return
        except OSError as error:
            self._lose(error)
            return
        while self._unsent:
            self._network.post(_bind(self._listener.left, self._unsent.popleft()))

    def _lose(self, error: OSError) -> None:
        """Have it told in the next turn that the connection broke."""
        lost = _lost(self.peer, error.strerror or str(error))
        self._network.post(lambda: self._broken(lost))

    def _drop(self, sent: cython.Py_ssize_t) -> None:
        index: cython.Py_ssize_t = 0
        while index < len(self._outbox) and sent >= len(self._outbox[index]):
            sent -= len(self._outbox[index])
            index += 1
        del self._outbox[:index]
        if sent:
            self._outbox[0] = self._outbox[0][sent:]

    def ready(self, events: int) -> None:
        """Read what has arrived and write what is left."""
        if events & WRITABLE:
            self._network.watch(self._sock, READABLE, self)
            self._flush()
        if not events & ~WRITABLE:  # an error or an end is told by reading
            return
        try:
            size: cython.Py_ssize_t = self._socket.receive(self._frames)
        except OSError as error:
            self._broken(_lost(self.peer, error.strerror or str(error)))
            return
        if size < 0:  # nothing has arrived
            return
        if size == 0:
            self._broken(_lost(self.peer, _CLOSED))
            return
        self._frames.received(size)
        try:
            while self._open and (frame := self._frames.next_frame()) is not None:
                self._answer(frame)
        except FrameError as error:
            self._broken(not_kafka(self.peer, error.head))
        except DecodeError as error:
            self._broken(NotKafka(f"{self.peer} sent a response that cannot be read: {error.what}"))

    def _answer(self, frame: memoryview) -> None:
        reader: Reader = Reader(frame)
        correlation_id: cython.int = reader.int32()
        call: Call | None = self._waiting[0] if self._waiting else None
        if call is None or call.correlation_id != correlation_id:
            raise DecodeError(f"it answers request {correlation_id}, which was not asked")
        del self._waiting[0]
        call.answered_ns = monotonic_ns_of(self._network.clock)
        version: cython.int = call.version
        response_class = call.response_class
        if response_class is ApiVersionsResponse:
            version = _version_of_answer(frame, version)
        elif version >= call.response_flexible_from:
            before: cython.Py_ssize_t = reader.position
            if reader.uvarint() != 0:
                reader.position = before
                call.broker_events = read_events(reader)
        produce: ProduceCall | None = call if isinstance(call, ProduceCall) else None
        if produce is not None and produce.read(reader):
            self._listener.answered(call, None)
            return
        response = decode_from(response_class, reader, version)
        reader.finish()
        self._listener.answered(call, response)

    def _broken(self, error: KafkaError) -> None:
        if self._open:
            self.close()
            self._listener.lost(error)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._network.forget(self._sock)


def _bind(function: Callable[[Call], None], call: Call) -> Callable[[], None]:
    return lambda: function(call)


def _version_of_answer(frame: memoryview, version: int) -> int:
    """Return the version that an ApiVersions response has: an error 35 is always version 0."""
    unsupported = bytes(frame[4:6]) == b"\x00\x23"
    return 0 if unsupported else version


def _lost(peer: str, reason: str) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"the connection to {peer} was lost: {reason}", address=peer, stage="connection"
    )


def not_kafka(peer: str, head: bytes) -> NotKafka:
    """Make the exception for an answer that is none of Kafka's, after its first bytes."""
    if head.startswith(b"HTTP"):
        kind, step = "an HTTP server", "Give the port of the broker, not of its web interface."
    elif head[:1] in (b"\x15", b"\x16") and head[1:2] == b"\x03":
        kind, step = "a TLS port", "Give the broker's plain-text port: TLS is not supported yet."
    elif head.startswith(b"SSH-"):
        kind, step = "an SSH server", "Give the port of the broker."
    else:
        kind, step = f"something else (it begins with {head[:8]!r})", "Give the port of a broker."
    return NotKafka(f"what answers on {peer} is not Kafka but {kind}", next_steps=(step,))
