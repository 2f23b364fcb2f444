"""The broker as an object: in this process for whoever has it, and on a port where it listens.

Whoever has it asks it through a `Caller`, and the callers share the work. With a server its event
loop does the same work besides; whoever comes first does it.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from ottla.broker.caller import Caller
from ottla.broker.engine import Engine
from ottla.broker.housekeeper import Housekeeper
from ottla.clock import SYSTEM
from ottla.errors import Closed, ConfigError, Forked, StorageError
from ottla.log.files import Files, OsFiles, write_owner

if TYPE_CHECKING:
    from types import TracebackType

    from ottla.broker.server import Server

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
        server: what listens, or None.
        is_closed: whether it was closed.
        is_forked: whether this is a child, and the broker its parent's.
        callers: all that ask it in this process.
        idle_callers: those of them that wait.

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
        files = OsFiles() if self.path is not None else _memory_files()
        self.engine = Engine.open(
            files,
            self.path or _MEMORY,
            SYSTEM,
            {"ottla.durability": durability, **(settings or {})},
        )
        self.engine.advertised = advertised
        self._round_over = threading.Condition(self.engine.lock)
        self.callers: weakref.WeakSet[Caller] = weakref.WeakSet()
        self.idle_callers: dict[Caller, None] = {}
        self._caller = Caller(self)
        self.is_closed = False
        self.is_forked = False
        self.server: Server | None = None
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- for its callers; with the engine's lock held

    def wake_server(self) -> None:
        """Have the server look at what there is to do, where there is something and a server."""
        if self.server is None:
            return
        if self.engine.has_work():
            self.server.wake()

    def round_ended(self) -> None:
        """Have somebody begin the next round, where there is something for one."""
        if self.is_closed:
            self._round_over.notify_all()
        if self.server is not None:
            self.wake_server()
        elif self.engine.commit.is_waiting and self.idle_callers:
            next(iter(self.idle_callers)).give_turn()

    def check_usable(self) -> None:
        """Raise `Forked` in a child of the process that opened it."""
        if self.is_forked:
            raise Forked(
                "the broker was opened by the parent process and cannot be used after a fork",
                next_steps=("Open it in the process that uses it.",),
            )

    # -- for its housekeeper

    def wake(self) -> None:
        """Have somebody do what was left to do, and end a `drive` that waits."""
        with self.engine.lock:
            self._caller.wake()
            self.round_ended()

    def drive(self, timeout_s: float) -> None:
        """Do one unit of the work that is waiting, or wait for others to do it."""
        self._caller.drive(timeout_s)

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

        self.check_usable()
        Server(self, host, port).start_in_thread()
        return self.address

    def attach(self, server: Server, host: str, port: int) -> None:
        """Take note of a server that listens, to be woken when there is work to do.

        Raises:
            ConfigError: another server listens already.
            Closed: the broker is closed.
        """
        with self.engine.lock:
            if self.is_closed:
                raise Closed("the broker is closed")
            if self.server is not None:
                raise ConfigError(f"the broker listens already on {self.address}")
            self.server = server
            self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        local = _WILDCARDS.get(host, self.address.rpartition(":")[0])
        self._write_owner(f"{local}:{port}")

    def detach(self, server: Server) -> None:
        """Take note that a server has stopped."""
        with self.engine.lock:
            if self.server is not server:
                return
            self.server = None
            self.address = ""
        self._write_owner("")

    def close(self) -> None:
        """Stop: everything is synced and closed, and whatever still waits is told so.

        Raises:
            StorageError: something could not be synced; the next start checks the logs.
        """
        if self.is_forked:
            return
        server = self.server
        if server is not None:
            server.stop()
        self._housekeeper.stop()
        with self.engine.lock:
            if self.is_closed:
                return
            self.is_closed = True
            while self.engine.commit.is_running:
                self._round_over.wait()
            try:
                self.engine.close()
            finally:
                for caller in self.callers:
                    caller.wake()

    def forget(self) -> None:
        """Take note that this is a child process, and the broker the parent's."""
        self.is_forked = True


_BROKERS: weakref.WeakSet[Broker] = weakref.WeakSet()


def _forget_all() -> None:
    for broker in _BROKERS:
        broker.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _memory_files() -> Files:
    from ottla.log.memory_files import MemoryFiles

    return MemoryFiles()


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
