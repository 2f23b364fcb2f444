"""One connection: frames in, one request at a time, responses out in the order of the requests.

A request is decoded over the bytes that it arrived in; they may be overwritten as soon as its
handler has returned, since nothing that waits keeps views of them. While a response is waited for,
or the peer does not take what was written, little more is read, so a connection holds at most one
frame, one response and what the transport has buffered.

A request that cannot be answered in Kafka's protocol - an unknown API or version, or bytes that are
no request - ends the connection, with a line in the log.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import cython

from ottla.broker.apis import API_VERSIONS
from ottla.broker.handlers.api_18_api_versions import unsupported_version
from ottla.broker.requests import CloseConnection, Context, Pending
from ottla.broker.router import answer, failed, find_served
from ottla.errors import DecodeError, EncodeError
from ottla.protocol.broker_events import read_question, write_events
from ottla.protocol.codec import decode_from, encode_to
from ottla.wire.framing import FrameBuffer, FrameError

if cython.compiled:
    from cython.cimports.ottla.wire.cursor import Reader, Writer
else:
    from ottla.wire.cursor import Reader, Writer

if TYPE_CHECKING:
    from ottla.broker.router import Served
    from ottla.broker.server import Server
    from ottla.protocol.message import ApiMessage
    from ottla.wire import Buffer

_BYTES_AHEAD = 64 * 1024
"""How much is read ahead while a request is being answered."""

_BYTES_TOGETHER = 64 * 1024
"""Responses to requests that came together are sent together, up to so many bytes."""

_LOG = logging.getLogger("ottla.broker")


class Request:
    """What is known of a request whose response is waited for.

    Attributes:
        served: how its API is served in its version.
        correlation_id: what the response must repeat.
        context: where it came from.
        received_ns: when it had arrived, on the monotonic clock; 0 where nobody looks.
    """

    __slots__ = ("context", "correlation_id", "received_ns", "served")

    def __init__(
        self, served: Served, correlation_id: int, context: Context, received_ns: int
    ) -> None:
        self.served = served
        self.correlation_id = correlation_id
        self.context = context
        self.received_ns = received_ns


class Connection:
    """A client's connection.

    Attributes:
        active_ms: when something last happened; the monotonic clock.
    """

    def __init__(self, server: Server, frame_bytes_max: int) -> None:
        self.active_ms = 0.0
        self._server = server
        self._engine = server.engine
        self._frames = FrameBuffer(frame_bytes_max, reuse=True)
        self._transport: Any = None
        self._host = ""
        self._port = 0
        self._peer = ""
        self._context = Context()
        self._answering: Request | None = None
        self._unsent: list[Buffer] = []
        self._unsent_bytes = 0
        self._is_stuck = False
        self._is_reading = True
        self._is_open = True

    # -- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        host, port = transport.get_extra_info("sockname")[:2]
        self._host = host.removeprefix("::ffff:") if "." in host else host
        self._port = port
        peer = transport.get_extra_info("peername") or ("", 0)
        self._peer = f"{peer[0]}:{peer[1]}"
        self._context = Context(self._host, self._port, None, self._peer)
        self.active_ms = self._engine.clock.monotonic_ms()
        self._server.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frames.room()

    def buffer_updated(self, nbytes: int) -> None:
        self._frames.received(nbytes)
        self.active_ms = self._engine.clock.monotonic_ms()
        self._server.asked(self)
        self.go_on()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._is_stuck = True

    def resume_writing(self) -> None:
        self._is_stuck = False
        self.active_ms = self._engine.clock.monotonic_ms()
        self.go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_open = False
        self._server.closed(self)

    # -- requests

    def go_on(self) -> None:
        """Answer what has arrived, as far as one request at a time allows.

        What is answered at once is sent together.
        """
        try:
            while self._is_open and self._answering is None and not self._is_stuck:
                frame = self._frames.next_frame()
                if frame is None:
                    break
                self._answer(frame)
        except FrameError as error:
            self._refuse(_what_it_is(error))
        except DecodeError as error:
            self._refuse(f"a request that cannot be read: {error.what}")
        except CloseConnection as error:
            self._refuse(error.what)
        if self._unsent:
            self._send()
        if self._answering is not None or self._is_stuck or not self._is_reading:
            self._regulate()

    def _regulate(self) -> None:
        """Read on, or do not."""
        if not self._is_open:
            return
        is_waiting = self._answering is not None or self._is_stuck
        wants_more = not is_waiting or self._frames.pending() < _BYTES_AHEAD
        if wants_more == self._is_reading:
            return
        self._is_reading = wants_more
        if wants_more:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _refuse(self, reason: str) -> None:
        _LOG.warning("closed the connection of %s: %s", self._peer, reason)
        self._send()
        self.close()

    def close(self) -> None:
        """Close the connection once everything that was written has left."""
        if self._is_open:
            self._is_open = False
            self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._is_open = False
        self._transport.abort()

    def is_idle_since(self, limit_ms: float) -> bool:
        """Tell whether nothing has happened since `limit_ms` and nothing is waited for."""
        return self.active_ms < limit_ms and self._answering is None

    def _answer(self, frame: memoryview) -> None:
        """Handle one request.

        Raises:
            DecodeError: it is none.
            CloseConnection: it cannot be answered.
        """
        reader = Reader(frame)
        served: Any = find_served(reader.uint32())
        correlation_id = reader.int32()
        if served is None:
            self._answer_unserved(Reader(frame), correlation_id)
            return
        size = reader.int16()
        client_id = None if size < 0 else reader.text(size)
        context = self._context
        if context.client_id != client_id:
            context = self._context = Context(self._host, self._port, client_id, self._peer)
        received_ns = 0
        if served.request_is_flexible and read_question(reader):
            context = Context(self._host, self._port, client_id, self._peer, [])
            received_ns = self._engine.clock.monotonic_ns()
        if (
            served.usual is not None
            and context.events is None
            and self._answer_usual(served, reader, correlation_id)
        ):
            return
        # Bytes behind the request are passed over, as Kafka does: librdkafka's admin client asks
        # for all topics with three too many.
        message = decode_from(served.request_class, reader, served.version)
        engine = self._engine
        with engine.lock:
            reply = answer(engine, served, message, context)
            if isinstance(reply, Pending) or engine.has_work():
                self._server.turn_soon()
        if isinstance(reply, Pending):
            self._answering = Request(served, correlation_id, context, received_ns)
            reply.when_done(self._answered)
        elif reply is not None:
            self._write(served, correlation_id, context, received_ns, reply)

    def _answer_usual(self, served: Any, reader: Reader, correlation_id: cython.int) -> bool:
        """Answer a request from bytes to bytes where that can be, and tell whether it was.

        Raises:
            CloseConnection: the broker failed.
        """
        start = reader.position
        engine = self._engine
        writer = self._new_writer(correlation_id)
        if served.response_is_flexible:
            writer.uvarint(0)
        try:
            with engine.lock:
                is_answered: bool = served.usual(engine, reader, served.version, writer)
        except Exception as error:
            raise failed(served, error) from error
        if is_answered:
            self._keep(writer)
        else:
            reader.position = start
        return is_answered

    def _answer_unserved(self, reader: Reader, correlation_id: cython.int) -> None:
        """Tell an ApiVersions request of another version what is served; see KIP-511.

        Raises:
            CloseConnection: it is another API.
        """
        api_key, version = reader.int16(), reader.int16()
        served = find_served(API_VERSIONS << 16)
        if api_key != API_VERSIONS or served is None:
            raise CloseConnection(f"API key {api_key} version {version} is not served")
        self._write(served, correlation_id, self._context, 0, unsupported_version())

    # -- responses

    def _answered(self, response: ApiMessage | None) -> None:
        """Take a response that was waited for, in whatever thread and in the midst of anything."""
        self._server.deliver(self, response)

    def deliver(self, response: ApiMessage | None) -> None:
        """Send the response that was waited for, and go on with what has arrived meanwhile."""
        request, self._answering = self._answering, None
        if not self._is_open:
            return
        self.active_ms = self._engine.clock.monotonic_ms()
        if response is not None and request is not None:
            self._write(
                request.served,
                request.correlation_id,
                request.context,
                request.received_ns,
                response,
            )
        self.go_on()

    def _write(
        self,
        served: Served,
        correlation_id: cython.int,
        context: Context,
        received_ns: cython.longlong,
        response: ApiMessage,
    ) -> None:
        """Encode a response."""
        writer = self._new_writer(correlation_id)
        if served.response_is_flexible:
            events = context.events
            if events is None:
                writer.uvarint(0)
            else:
                write_events(writer, events and [(name, at - received_ns) for name, at in events])
        try:
            encode_to(writer, response, served.version)
        except EncodeError as error:
            _LOG.error("%s", error)
            self._refuse("its response could not be encoded")
            return
        self._keep(writer)

    def _new_writer(self, correlation_id: cython.int) -> Writer:
        writer = Writer()
        writer.int32(0)  # the frame's size stands here in the end
        writer.int32(correlation_id)
        return writer

    def _keep(self, writer: Writer) -> None:
        """Have a response sent with what else is answered now."""
        self._unsent += writer.framed()
        self._unsent_bytes += writer.size()
        if self._unsent_bytes >= _BYTES_TOGETHER:
            self._send()

    def _send(self) -> None:
        """Hand over to the transport what was answered."""
        unsent, self._unsent = self._unsent, []
        self._unsent_bytes = 0
        if len(unsent) == 1:
            self._transport.write(unsent[0])
        elif unsent:
            self._transport.writelines(unsent)


class ConnectionProtocol(Connection, asyncio.BufferedProtocol):
    """A client's connection, as an event loop knows it."""

    __slots__ = ()


def _what_it_is(error: FrameError) -> str:
    """Say what a peer may be, after its first bytes."""
    head = error.head
    if head[:2] == b"\x16\x03":
        return "it speaks TLS, and this port is plain text"
    if head[:4] in (b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PRI ", b"CONN"):
        return "it speaks HTTP, and this port speaks Kafka's protocol"
    if head[:4] == b"SSH-":
        return "it speaks SSH, and this port speaks Kafka's protocol"
    return error.what
