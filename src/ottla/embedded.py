"""The embedded door: joins the client and a broker in one process, without a socket.

Requests and responses cross as objects; nothing is encoded but the records. The thread that drives
the client also does the broker's work, the sync of the log included, so that a lone send + flush
changes threads nowhere.

A folder has one broker in a process, however many clients open it; the last one closes it. Where
another process owns the folder and listens, its address is used instead.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ottla.broker.broker import Broker
from ottla.broker.caller import Caller
from ottla.broker.requests import CloseConnection, Context, Pending
from ottla.client.address import parse_brokers
from ottla.errors import BrokerUnavailable, Closed, ConfigError, KafkaError, StoreInUse

if TYPE_CHECKING:
    from ottla.client.network import Call, Listener, Network
    from ottla.clock import Clock
    from ottla.protocol.message import ApiMessage


def open_embedded(address: object, client_id: str, clock: Clock) -> Network:
    """Return what leads to a `Broker` object, or to the store in a folder.

    Raises:
        ConfigError: it is neither.
        StorageError: the folder cannot be opened, or another process owns it and listens nowhere.
    """
    if isinstance(address, Broker):
        name = "broker in memory" if address.path is None else f"embedded store {address.path}"
        return EmbeddedNetwork(address, name, client_id, clock, lambda: None)
    if not isinstance(address, str | os.PathLike):
        raise ConfigError(
            f"{address!r} is no address: give host:port, a folder, or a Broker",
        )
    folder = os.fspath(address)
    try:
        broker, release = _STORES.acquire(os.path.expanduser(folder))
    except StoreInUse as error:
        brokers = parse_brokers(error.address)
        if brokers is None:
            raise
        from ottla.client.tcp import TcpNetwork

        return TcpNetwork(brokers, client_id, clock)
    return EmbeddedNetwork(broker, f"embedded store {folder}", client_id, clock, release)


class _Stores:
    """The folders that this process has open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Broker, int]] = {}

    def acquire(self, folder: str) -> tuple[Broker, Callable[[], None]]:
        """Return the folder's broker, and what lets go of it again."""
        path = os.path.realpath(folder)
        with self._lock:
            broker, users = self._open.get(path) or (Broker(folder), 0)
            self._open[path] = (broker, users + 1)
        return broker, lambda: self._release(path)

    def _release(self, path: str) -> None:
        with self._lock:
            broker, users = self._open[path]
            if users > 1:
                self._open[path] = (broker, users - 1)
                return
            del self._open[path]
            broker.close()

    def forget(self) -> None:
        """Forget everything: this is a child, and the stores are the parent's."""
        self._lock = threading.Lock()
        self._open.clear()


_STORES = _Stores()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_STORES.forget)


class EmbeddedNetwork:
    """Leads to a broker in this process.

    Args:
        broker: the broker.
        address: what it is, in words for people.
        client_id: what to be called in the broker's log.
        clock: where time comes from.
        release: lets go of the broker.
    """

    def __init__(
        self,
        broker: Broker,
        address: str,
        client_id: str,
        clock: Clock,
        release: Callable[[], None],
    ) -> None:
        self.bootstrap = [("", 0)]
        self.address = address
        self.broker = broker
        self.caller = Caller(broker)
        self.client_id = client_id
        self.clock = clock
        self._release = release
        self._arrived: deque[Callable[[], None]] = deque()
        self._has_driven = True

    def connect(self, host: str, port: int, listener: Listener) -> Callable[[], None]:
        channel = EmbeddedChannel(self, listener)
        self.post(lambda: listener.connected(channel))
        return channel.close

    def post(self, arrived: Callable[[], None]) -> None:
        """Have something handed over by the next `poll`."""
        self._arrived.append(arrived)

    def poll(self, timeout_s: float) -> None:
        # What always has answers at once must not keep the others' from being synced.
        drives = not self._arrived or not self._has_driven
        if drives:
            self.caller.drive(0 if self._arrived else timeout_s)
        self._has_driven = drives
        while self._arrived:
            self._arrived.popleft()()

    def wake(self) -> None:
        self.caller.wake()

    def close(self) -> None:
        release, self._release = self._release, lambda: None
        release()


class EmbeddedChannel:
    """A way to the broker in this process."""

    def __init__(self, network: EmbeddedNetwork, listener: Listener) -> None:
        self.peer = network.address
        self._network = network
        self._listener = listener
        self._open = True

    def send(self, call: Call) -> None:
        network = self._network
        context = Context("", 0, network.client_id, "", [] if call.traced else None)
        call.sent_ns = network.clock.monotonic_ns()
        try:
            reply = network.caller.handle(call.request, call.version, context)
        except CloseConnection as error:
            network.post(_bind(self._lost, error))
            return
        except Closed:
            network.post(_bind(self._lost, _gone(network)))
            return
        if isinstance(reply, Pending):
            reply.when_done(lambda response: self._answer(call, context, response))
        else:
            self._answer(call, context, reply)

    def why_gone(self) -> KafkaError | None:
        if self._network.broker.is_closed:
            return _gone(self._network)
        return None

    def _answer(self, call: Call, context: Context, response: ApiMessage | None) -> None:
        self._network.post(lambda: self._hand_over(call, context, response))

    def _hand_over(self, call: Call, context: Context, response: ApiMessage | None) -> None:
        if not self._open:
            return
        call.answered_ns = self._network.clock.monotonic_ns()
        if context.events is not None:
            call.broker_events = [(name, at - call.sent_ns) for name, at in context.events]
        if response is None:
            self._listener.left(call)
        else:
            self._listener.answered(call, response)

    def _lost(self, error: KafkaError) -> None:
        if self._open:
            self._open = False
            self._listener.lost(error)

    def close(self) -> None:
        self._open = False


def _bind(function: Callable[[KafkaError], None], error: KafkaError) -> Callable[[], None]:
    return lambda: function(error)


def _gone(network: EmbeddedNetwork) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"the {network.address} is closed",
        address=network.address,
        stage="connection",
    )
