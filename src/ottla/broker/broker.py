"""The broker as an object: in this process for whoever has it, and on a port where it listens.

Without a server the callers do all the work. `handle` answers at once or later, and `drive` does
what is left to do: the first thread that finds something to be made durable syncs it, for all of
them; the others wait until something has changed. So a lone caller changes threads nowhere, and
many share their syncs.

With a server its event loop does the same work besides; whoever comes first does it.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from ottla.broker.engine import Engine
from ottla.broker.housekeeper import Housekeeper
from ottla.broker.requests import Pending
from ottla.broker.router import handle
from ottla.clock import SYSTEM
from ottla.errors import Closed, ConfigError, Forked, StorageError
from ottla.log.files import Files, OsFiles, write_owner
from ottla.log.memory_files import MemoryFiles

if TYPE_CHECKING:
    from types import TracebackType

    from ottla.broker.requests import Context, Reply
    from ottla.broker.server import Server
    from ottla.protocol.message import ApiMessage

_LOG = logging.getLogger("ottla.broker")
_MEMORY = "memory"
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


class Broker:
    """A broker with the store in a folder, or in memory.

    Args:
        path: the folder; None keeps everything in memory.
        durability: "disk": a record is confirmed and readable when it has been synced to the disk;
            "os": when it has been written. Topics may say otherwise (`ottla.durability`).
        advertise: "host:port" that clients are told to connect to; None for the address that they
            connected to.
        settings: broker configs under Kafka's names.

    Attributes:
        path: the folder, or None.
        address: where it listens as "host:port", or "".

    Raises:
        StorageError: the folder cannot be opened; `StoreInUse` where another process has it.
        ConfigError: a setting has a value that cannot be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        durability: str = "disk",
        advertise: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        advertised = None if advertise is None else parse_address(advertise)
        self.path = None if path is None else os.fspath(path)
        self.address = ""
        files: Files = MemoryFiles() if self.path is None else OsFiles()
        self.engine = Engine.open(
            files,
            self.path or _MEMORY,
            SYSTEM,
            {"ottla.durability": durability, **(settings or {})},
        )
        self.engine.advertised = advertised
        self._changed = threading.Condition(self.engine.lock)
        self._changes = 0
        self._seen = threading.local()
        self._waiting = 0
        self._closed = False
        self._forked = False
        self._server: Server | None = None
        self._housekeeper = Housekeeper(self)
        _BROKERS.add(self)
        self._write_owner("")
        self._housekeeper.start()

    def _write_owner(self, address: str) -> None:
        """Leave word who has the store; a disk that takes nothing is no reason not to serve it."""
        if self.path is None:
            return
        try:
            write_owner(self.path, address)
        except StorageError as error:
            _LOG.warning(
                "clients that are given the folder %s do not find this broker, and have to be "
                "given its address: %s",
                self.path,
                error.what,
            )

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- for callers in this process

    def handle(self, request: ApiMessage, version: int, context: Context) -> Reply:
        """Answer a request, now or later; any thread may ask.

        Raises:
            CloseConnection: there is no other answer, such as to acks=0 that failed.
            Closed: the broker is closed.
            Forked: the broker belongs to the parent process.
        """
        self._check_usable()
        with self.engine.lock:
            if self._closed:
                raise Closed("the broker is closed")
            reply = handle(self.engine, request, version, context)
            if isinstance(reply, Pending):
                reply.when_done(self._note_change)
            self._wake_server()
        return reply

    def drive(self, timeout_s: float) -> None:
        """Do one unit of the work that is waiting, or wait until something has changed.

        Args:
            timeout_s: how long to wait at most. It may return before that without a reason.

        Raises:
            Forked: the broker belongs to the parent process.
        """
        self._check_usable()
        engine = self.engine
        with self._changed:
            engine.expire(engine.clock.monotonic_ms())
            running = None if self._closed else engine.commit.begin()
            if running is None:
                if getattr(self._seen, "changes", -1) == self._changes:
                    self._wait(timeout_s)
                self._seen.changes = self._changes
                return
        errors: list[StorageError | None] = []
        try:
            for part in running.parts:
                errors.append(part())
        except BaseException as error:
            # Ctrl-C, most likely. Others wait for the round, so it is brought to its end: a sync
            # that was interrupted has not failed, and is done again unless it was about to say so.
            if isinstance(error.__context__, OSError | StorageError):
                errors.append(StorageError(f"a sync was interrupted: {error.__context__}"))
            errors += [part() for part in running.parts[len(errors) :]]
            raise
        finally:
            with self._changed:
                engine.commit.end(errors)
                self._note_change()
                self._wake_server()

    def _wake_server(self) -> None:
        if self._server is None:
            return
        if self.engine.commit.is_waiting or self.engine.groups.has_new_deadlines():
            self._server.wake()

    def _wait(self, timeout_s: float) -> None:
        engine = self.engine
        deadline_ms = engine.next_deadline_ms()
        if deadline_ms is not None:
            timeout_s = min(timeout_s, (deadline_ms - engine.clock.monotonic_ms()) / 1000)
        if timeout_s > 0:
            self._waiting += 1
            self._changed.wait(timeout_s)
            self._waiting -= 1
        engine.expire(engine.clock.monotonic_ms())

    def wake(self) -> None:
        """End a `drive` that waits, in whatever thread; or the next one."""
        with self._changed:
            self._note_change()
            self._wake_server()

    def _note_change(self, response: object = None) -> None:
        self._changes += 1
        if self._waiting:
            self._changed.notify_all()

    def _check_usable(self) -> None:
        if self._forked:
            raise Forked(
                "the broker was opened by the parent process and cannot be used after a fork",
                next_steps=("Open it in the process that uses it.",),
            )

    # -- for everybody else

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Serve Kafka's protocol over TCP, in a thread of its own, until `close`.

        Args:
            host: the address to listen on; "" or "0.0.0.0" for all.
            port: the port; 0 picks one that is free.

        Returns:
            The address as "host:port".

        Raises:
            ConfigError: the address cannot be used, or the broker listens already.
            Closed: the broker is closed.
        """
        from ottla.broker.server import Server

        self._check_usable()
        Server(self, host, port).start_in_thread()
        return self.address

    def attach(self, server: Server, host: str, port: int) -> None:
        """Take note of a server that listens, to be woken when there is work to do.

        Raises:
            ConfigError: another server listens already.
            Closed: the broker is closed.
        """
        with self.engine.lock:
            if self._closed:
                raise Closed("the broker is closed")
            if self._server is not None:
                raise ConfigError(f"the broker listens already on {self.address}")
            self._server = server
            self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        local = _WILDCARDS.get(host, self.address.rpartition(":")[0])
        self._write_owner(f"{local}:{port}")

    def detach(self, server: Server) -> None:
        """Take note that a server has stopped."""
        with self.engine.lock:
            if self._server is not server:
                return
            self._server = None
            self.address = ""
        self._write_owner("")

    def close(self) -> None:
        """Stop: everything is synced and closed, and whatever still waits is told so.

        Raises:
            StorageError: something could not be synced; the next start checks the logs.
        """
        if self._forked:
            return
        server = self._server
        if server is not None:
            server.stop()
        self._housekeeper.stop()
        with self._changed:
            if self._closed:
                return
            self._closed = True
            while self.engine.commit.is_running:
                self._changed.wait()
            try:
                self.engine.close()
            finally:
                self._note_change()

    def forget(self) -> None:
        """Take note that this is a child process, and the broker the parent's."""
        self._forked = True


_BROKERS: weakref.WeakSet[Broker] = weakref.WeakSet()


def _forget_all() -> None:
    for broker in _BROKERS:
        broker.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def parse_address(text: str) -> tuple[str, int]:
    """Take "host:port" apart; an IPv6 address stands in brackets.

    Raises:
        ConfigError: it is none.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{text!r} is no address: give host:port")
    return host, int(port)
