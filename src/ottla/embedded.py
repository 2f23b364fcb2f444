"""The embedded door: joins the client and a broker in one process, without a socket.

Requests and responses cross as objects; nothing is encoded but the records, and a usual batch
crosses without an object for each structure around it. The thread that drives the client also does
the broker's work, the sync of the log included, so that a lone send + flush changes threads
nowhere.

A folder has one broker in a process, however many clients open it; the last one closes it. Where
another process owns the folder and listens, its address is used instead.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cython

from ottla.broker.broker import Broker
from ottla.broker.requests import CloseConnection
from ottla.client.address import parse_brokers
from ottla.client.produce_call import TOPIC_ID_VERSION
from ottla.errors import BrokerUnavailable, Closed, ConfigError, KafkaError, StoreInUse

if cython.compiled:
    from cython.cimports.ottla.broker.appending import Storing
    from cython.cimports.ottla.broker.caller import Caller
    from cython.cimports.ottla.broker.requests import Context, Pending
    from cython.cimports.ottla.client.delivery import Batch
    from cython.cimports.ottla.client.network import Call
    from cython.cimports.ottla.client.produce_call import ProduceCall
else:
    from ottla.broker.caller import Caller
    from ottla.broker.requests import Context, Pending
    from ottla.client.produce_call import ProduceCall

if TYPE_CHECKING:
    from ottla.broker.appending import Storing
    from ottla.client.delivery import Batch
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

    def poll(self, timeout_s: cython.double) -> None:
        # What always has answers at once must not keep the others' from being synced.
        arrived = self._arrived
        drives: cython.bint = not arrived or not self._has_driven
        if drives:
            self.caller.drive(0.0 if arrived else timeout_s)
        self._has_driven = drives
        while arrived:
            arrived.popleft()()

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
        self._clock = network.clock
        self._listener = listener
        self._open = True

    def send(self, call: Call) -> None:
        network = self._network
        call.sent_ns = self._clock.monotonic_ns()
        try:
            if isinstance(call, ProduceCall) and self._append(call):
                return
            context: Context = Context("", 0, network.client_id, "", [] if call.traced else None)
            reply = network.caller.handle(call.request, call.version, context)
        except CloseConnection as error:
            network.post(_bind(self._lost, error))
            return
        except Closed:
            network.post(_bind(self._lost, _gone(network)))
            return
        answer: Answer = Answer(self, call, context)
        if isinstance(reply, Pending):
            reply.when_done(answer.arrived)
        else:
            answer.arrived(reply)

    def _append(self, call: ProduceCall) -> bool:
        """Have the batch of a usual request appended; tells whether it was."""
        if call.traced or not call.expects_response or len(call.batches) != 1:
            return False
        batch: Batch = call.batches[0]
        by_id: cython.bint = call.version >= TOPIC_ID_VERSION
        topic = call.topic_ids[batch.topic] if by_id else batch.topic
        storing: Storing | None = self._network.caller.append(
            topic, batch.partition, batch.data, call.version, call.request_timeout_ms
        )
        if storing is None:
            return False
        answer: Answer = Answer(self, call, None, storing)
        if storing.is_done:  # or it never will be, which the response says then
            answer.arrived(storing.response)
        else:
            storing.when_done(answer.arrived)
        return True

    def why_gone(self) -> KafkaError | None:
        if self._network.broker.is_closed:
            return _gone(self._network)
        return None

    def _hand_over(self, answer: Answer) -> None:
        if not self._open:
            return
        call: Call = answer.call
        call.answered_ns = self._clock.monotonic_ns()
        context: Context | None = answer.context
        if context is not None and context.events is not None:
            call.broker_events = [(name, at - call.sent_ns) for name, at in context.events]
        storing: Storing | None = answer.storing
        if storing is not None and answer.response is None and isinstance(call, ProduceCall):
            produced: ProduceCall = call
            appended = storing.appended
            produced.take(appended.base_offset, appended.log_append_time_ms)
            self._listener.answered(call, None)
        elif answer.response is None:
            self._listener.left(call)
        else:
            self._listener.answered(call, answer.response)

    def _lost(self, error: KafkaError) -> None:
        if self._open:
            self._open = False
            self._listener.lost(error)

    def close(self) -> None:
        self._open = False


class Answer:
    """An answer on its way back.

    Args:
        channel: what it takes.
        call: the request.
        context: what the broker was told of the request; None for a usual one.
        storing: what a usual one waits for.
    """

    __slots__ = ("_channel", "call", "context", "response", "storing")

    def __init__(
        self,
        channel: EmbeddedChannel,
        call: Call,
        context: Context | None,
        storing: Storing | None = None,
    ) -> None:
        self._channel = channel
        self.call = call
        self.context = context
        self.storing = storing
        self.response: Any = None

    def arrived(self, response: ApiMessage | None) -> None:
        """Have it handed over by the next `poll`."""
        self.response = response
        self._channel._network.post(self)

    def __call__(self) -> None:
        """Hand it over."""
        self._channel._hand_over(self)


def _bind(function: Callable[[KafkaError], None], error: KafkaError) -> Callable[[], None]:
    return lambda: function(error)


def _gone(network: EmbeddedNetwork) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"the {network.address} is closed",
        address=network.address,
        stage="connection",
    )
