"""Serves a broker over TCP: one event loop for all connections, and threads that sync.

The loop handles a request as soon as it has arrived. What the requests of one turn of the loop have
written is synced together: a round of group commit is begun at the end of the turn, its parts run
side by side in threads, and when they have ended the next one begins. Responses that were waited
for are collected and written at the end of a turn too, so none is written in the midst of another
request.

A lone writer's round is synced in the loop's own thread, which saves two changes of thread for each
record: where one connection is all that has asked for anything since the round before, and the disk
was quick then, nobody else is kept waiting. Whoever comes meanwhile waits for one such sync, and
the next round goes to the threads again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from ottla.broker.connection import ConnectionProtocol
from ottla.broker.router import load_all
from ottla.errors import ConfigError, StorageError
from ottla.log.files import DESCRIPTORS_SHARE, descriptors_limit

if TYPE_CHECKING:
    from ottla.broker.broker import Broker
    from ottla.broker.connection import Connection
    from ottla.log.group_commit import Round
    from ottla.protocol.message import ApiMessage

_BACKLOG = 512
_SYNC_THREADS = 8
_LONE_SYNC_MS_MAX = 2.0
"""A round runs in the loop's thread only while rounds take no longer than this."""

_IDLE_CHECKS = 4
"""How often within the idle time connections are looked at."""

_SETTLED_S = 1.0
"""So long after its start the handlers are imported that nobody has needed so far."""

_FAREWELL_S = 2.0
"""How long a stop waits for what was answered to leave."""

_OTHER_DESCRIPTORS = 32
"""What a process has open besides data files and connections."""

_LOG = logging.getLogger("ottla.broker")
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop, or Python's own where there is none."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class Server:
    """A broker's server.

    Args:
        broker: the broker.
        host: the address to listen on; "" for all.
        port: the port; 0 picks one that is free.
    """

    def __init__(self, broker: Broker, host: str, port: int) -> None:
        self.engine = broker.engine
        self._broker = broker
        self._host = host
        self._port = port
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._thread_id = 0
        self._listening: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        descriptors = descriptors_limit() * (DESCRIPTORS_SHARE - 1) // DESCRIPTORS_SHARE
        self._connections_max = min(
            self.engine.configs.max_connections, max(descriptors - _OTHER_DESCRIPTORS, 1)
        )
        self._is_crowded = False
        self._answered: deque[tuple[Connection, ApiMessage | None]] = deque()
        self._threads = ThreadPoolExecutor(_SYNC_THREADS, "ottla-sync")
        self._turn_comes = False
        self._asking: Connection | None = None
        self._is_lone = True
        self._began_ms = 0.0
        self._sync_ms = _LONE_SYNC_MS_MAX
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0.0
        self._stopping: asyncio.Event

    # -- life

    def start_in_thread(self) -> None:
        """Run in a thread of its own; returns when it listens.

        Raises:
            ConfigError: it cannot listen there.
        """
        ready = threading.Event()
        failure: list[BaseException] = []

        def run() -> None:
            try:
                self.run(lambda address: ready.set())
            except BaseException as error:
                failure.append(error)
                ready.set()

        self._thread = threading.Thread(target=run, name="ottla-broker", daemon=True)
        self._thread.start()
        ready.wait()
        if failure:
            self._thread.join()
            raise failure[0]

    def run(self, ready: Callable[[str], None], stop_on: tuple[signal.Signals, ...] = ()) -> None:
        """Run in this thread until `stop`, or one of the signals.

        Args:
            ready: is called with the address when it listens.
            stop_on: the signals that stop it.

        Raises:
            ConfigError: it cannot listen there.
        """
        self._loop = new_event_loop()
        try:
            self._loop.run_until_complete(self._run(ready, stop_on))
        finally:
            self._threads.shutdown()
            self._loop.close()

    async def _run(self, ready: Callable[[str], None], stop_on: tuple[signal.Signals, ...]) -> None:
        self._thread_id = threading.get_ident()
        self._stopping = asyncio.Event()
        for each in stop_on:
            self._loop.add_signal_handler(each, self._stopping.set)
        try:
            await self._listen()
            self._check_idle()
            ready(self._broker.address)
            self._loop.call_later(_SETTLED_S, self._threads.submit, load_all)
            await self._stopping.wait()
        finally:
            await self._say_goodbye()
            self._broker.detach(self)
            for each in stop_on:
                self._loop.remove_signal_handler(each)

    async def _listen(self) -> None:
        """Listen on all addresses of the host, on one port."""
        try:
            found = await self._loop.getaddrinfo(
                self._host or None, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            found.sort(key=lambda each: each[0] != socket.AF_INET)
            for family, address in dict.fromkeys((each[0], each[4][0]) for each in found):
                await self._listen_on(family, str(address))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self._host or '*'}:{self._port}: {error.strerror or error}",
                "Nothing was started.",
                ("Give another address or port, or stop what listens there.",),
            ) from error

    async def _listen_on(self, family: int, host: str) -> None:
        frame_bytes_max = self.engine.configs.socket_request_max_bytes
        try:
            server = await self._loop.create_server(
                lambda: ConnectionProtocol(self, frame_bytes_max),
                host,
                self._port,
                family=family,
                backlog=_BACKLOG,
            )
        except OSError as error:
            if self._listening and error.errno in _NO_SUCH_ADDRESS:
                return
            raise
        self._listening.append(server)
        if len(self._listening) == 1:
            self._port = server.sockets[0].getsockname()[1]
            self._broker.attach(self, host, self._port)

    def stop(self) -> None:
        """Stop, from another thread, and wait for it."""
        with contextlib.suppress(RuntimeError):  # it has stopped by itself
            self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread is not None:
            self._thread.join()

    async def _say_goodbye(self) -> None:
        """Accept nothing more, finish the syncs, send the answers and close the connections."""
        for server in self._listening:
            server.close()
        deadline = self._loop.time() + _FAREWELL_S
        commit = self.engine.commit
        while (commit.is_running or commit.is_waiting) and self._loop.time() < deadline:
            self._turn()
            await asyncio.sleep(0.001)
        self._turn()
        for connection in list(self._connections):
            connection.close()
        while self._connections and self._loop.time() < deadline:
            await asyncio.sleep(0.001)
        for connection in list(self._connections):
            connection.abort()
        while self._connections or commit.is_running:
            await asyncio.sleep(0.001)
        if self._timer is not None:
            self._timer.cancel()

    # -- turns

    def wake(self) -> None:
        """Have a turn done, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            if threading.get_ident() == self._thread_id:
                self.turn_soon()
            else:
                self._loop.call_soon_threadsafe(self.turn_soon)

    def turn_soon(self) -> None:
        """Have a turn done at the end of this turn of the loop."""
        if not self._turn_comes:
            self._turn_comes = True
            self._loop.call_soon(self._turn)

    def deliver(self, connection: Connection, response: ApiMessage | None) -> None:
        """Have a response sent by the next turn, from any thread."""
        self._answered.append((connection, response))
        self.wake()

    def _turn(self) -> None:
        """Expire what is due, begin a round of syncs and send what has been answered."""
        self._turn_comes = False
        engine = self.engine
        with engine.lock:
            engine.expire(engine.clock.monotonic_ms())
            begun = engine.commit.begin()
            if begun is not None and self._broker.path is None:
                engine.commit.end(begun.run())
                begun = None
            deadline_ms = engine.next_deadline_ms()
        if begun is not None:
            self._sync(begun)
        self._set_timer(deadline_ms)
        while self._answered:
            connection, response = self._answered.popleft()
            connection.deliver(response)

    def _set_timer(self, deadline_ms: float | None) -> None:
        """Have a turn at a deadline; a timer that comes too early finds nothing to do."""
        if deadline_ms is None:
            return
        if self._timer is not None:
            if self._timer_ms <= deadline_ms:
                return
            self._timer.cancel()
        self._timer_ms = deadline_ms
        delay_ms = max(deadline_ms - self.engine.clock.monotonic_ms(), 0) + 0.5
        self._timer = self._loop.call_later(delay_ms / 1000, self._time_is_over)

    def _time_is_over(self) -> None:
        self._timer = None
        self._turn()

    def asked(self, connection: Connection) -> None:
        """Take note that a connection has asked for something."""
        if self._asking is None:
            self._asking = connection
        elif connection is not self._asking:
            self._is_lone = False

    def _sync(self, begun: Round) -> None:
        """Run the parts of a round side by side, or one of a lone writer here; see above."""
        if not begun.parts:
            self._end_round([])
            return
        is_lone = self._is_lone and self._asking is not None and begun.is_one_sync
        self._is_lone, self._asking = True, None
        self._began_ms = self.engine.clock.monotonic_ms()
        if is_lone and self._sync_ms < _LONE_SYNC_MS_MAX:
            self._end_round([begun.parts[0]()])
            return
        errors: list[StorageError | None] = [None] * len(begun.parts)
        left = len(errors)
        guard = threading.Lock()

        def run(index: int) -> None:
            nonlocal left
            try:
                errors[index] = begun.parts[index]()
            except BaseException as error:
                errors[index] = StorageError(f"a sync failed: {error!r}")
            with guard:
                left -= 1
                is_last = left == 0
            if is_last:
                self._loop.call_soon_threadsafe(self._end_round, errors)

        for index in range(len(errors)):
            self._threads.submit(partial(run, index))

    def _end_round(self, errors: list[StorageError | None]) -> None:
        self._sync_ms = self.engine.clock.monotonic_ms() - self._began_ms
        with self.engine.lock:
            self.engine.commit.end(errors)
        self._turn()

    # -- connections

    def opened(self, connection: Connection) -> None:
        """Take note of a new connection, and close it again where there are too many.

        So there are always descriptors left for files, and those who are connected go on.
        """
        self._connections.add(connection)
        if len(self._connections) <= self._connections_max:
            return
        if not self._is_crowded:
            self._is_crowded = True
            _LOG.warning(
                "there are %d connections, which is all that max.connections and the limit of open "
                "files allow: new ones are closed at once",
                self._connections_max,
            )
        connection.abort()

    def closed(self, connection: Connection) -> None:
        """Take note that a connection is gone."""
        self._connections.discard(connection)
        if len(self._connections) < self._connections_max // 2:
            self._is_crowded = False

    def _check_idle(self) -> None:
        """Close the connections that have been idle for too long, now and regularly."""
        idle_ms = self.engine.configs.connections_max_idle_ms
        if idle_ms <= 0:
            return
        limit_ms = self.engine.clock.monotonic_ms() - idle_ms
        for connection in list(self._connections):
            if connection.is_idle_since(limit_ms):
                connection.close()
        self._loop.call_later(idle_ms / 1000 / _IDLE_CHECKS, self._check_idle)


def serve(
    broker: Broker, host: str, port: int, ready: Callable[[str], None] = lambda address: None
) -> None:
    """Serve a broker in this thread until SIGTERM or SIGINT; the broker stays open.

    Args:
        broker: the broker.
        host: the address to listen on; "" for all.
        port: the port; 0 picks one that is free.
        ready: is called with "host:port" when it listens.

    Raises:
        ConfigError: it cannot listen there.
    """
    Server(broker, host, port).run(ready, (signal.SIGTERM, signal.SIGINT))
