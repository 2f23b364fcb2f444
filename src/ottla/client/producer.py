"""The producer: `send` puts records on their way, `flush` returns when they are stored.

`ProducerCore` joins the parts and holds what must outlive the face; `Producer` is what users see.
"""

from __future__ import annotations

import atexit
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ottla.client.accumulator import Accumulator
from ottla.client.address import open_network
from ottla.client.cluster import Cluster
from ottla.client.config import ProducerConfig, make_config
from ottla.client.delivery import Batch, Delivery, ManyDeliveries, RecordMetadata
from ottla.client.driver import Driver
from ottla.client.lives import Lives
from ottla.client.sender import Sender
from ottla.client.sending import Sending, checked_partition, checked_topic
from ottla.clock import SYSTEM
from ottla.errors import (
    ClientError,
    Closed,
    DeliveryError,
    FlushTimeout,
    Forked,
    KafkaError,
    OutcomeUnknown,
)

if TYPE_CHECKING:
    from types import TracebackType

    from ottla.client.network import Network
    from ottla.clock import Clock
    from ottla.trace import Life

_EXIT_FLUSH_S = 5.0
_CAUSES_MAX = 3


class ProducerCore:
    """The parts of a producer, and how they work together."""

    def __init__(self, network: Network, config: ProducerConfig, clock: Clock) -> None:
        self.config = config
        self.cluster = Cluster(network, config, clock, create_topics=True)
        self.accumulator = Accumulator(config, clock, self, self._notify)
        self.sender = Sender(config, self.cluster, self.accumulator, clock)
        self.driver = Driver(network, self, clock)
        self.clock = clock
        self.is_closed = False

    @property
    def refusal(self) -> ClientError | None:
        """Why nothing can be sent any more, or None."""
        refusal: ClientError | None = self.accumulator.refusal
        return refusal

    @refusal.setter
    def refusal(self, refusal: ClientError) -> None:
        self.accumulator.refusal = refusal

    def _notify(self, filled: bool) -> None:
        if filled:
            self.driver.push()
        else:
            self.driver.notify()

    # -- Work, Waiter

    def step(self) -> float | None:
        """Do what is due; returns when to look again, on the monotonic clock, or None."""
        if not self.sender.has_work():
            return None
        due = [self.cluster.step(), self.sender.step()]
        if self.cluster.wants_refresh:
            due.append(self.cluster.step())
        known = [each for each in due if each is not None]
        return min(known) if known else None

    def has_work(self) -> bool:
        """Tell whether any record has no outcome yet."""
        return self.sender.has_work()

    def wait(self, reached: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is reached, `timeout` seconds at most."""
        if self.is_closed:
            return reached()
        self.sender.hurry(1)
        try:
            return self.driver.run_until(reached, timeout)
        finally:
            self.sender.hurry(-1)

    # -- flush and close

    def flush(self, timeout: float | None) -> int:
        """See `Producer.flush`."""
        started = self.clock.monotonic_ms()
        in_time = True
        if self.accumulator.unknown:
            in_time = self.wait(lambda: not self.accumulator.unknown, timeout)
        waiting, failed = self.sender.watch()
        try:
            if in_time:
                left = timeout
                if timeout is not None:
                    left = timeout - (self.clock.monotonic_ms() - started) / 1000
                unfinished = list(waiting)
                in_time = self.wait(lambda: _all_done(unfinished), left)
            failed += [batch for batch in waiting if batch.error is not None]
        finally:
            self.sender.unwatch(waiting)
        pending = sum(batch.count for batch in waiting if not batch.is_done)
        if self.accumulator.unknown:
            pending += sum(len(topic.pending) for topic in self.accumulator.unknown_topics())
        delivered = self.sender.take_delivered()
        if not in_time and pending:
            raise _delivery_error(failed, delivered, pending, timeout)
        if failed:
            raise _delivery_error(failed, delivered, 0, None)
        return delivered

    def close(self, timeout: float | None) -> None:
        """See `Producer.close`."""
        if self.is_closed:
            return
        if self.refusal is not None:
            self.is_closed = True
            return
        try:
            self.flush(timeout)
        finally:
            self.is_closed = True
            self.refusal = Closed("the producer is closed", "The record was not sent.")
            self.driver.close()
            self.sender.abandon(Closed("the producer was closed before the record was sent"))
            self.cluster.close()

    def forked(self) -> None:
        """Refuse everything: this is the child of the process that the producer belongs to."""
        self.refusal = Forked(
            "the producer was made before a fork and cannot be used in the child",
            "The record was not sent.",
            ("Make a producer of its own in the child.",),
        )
        self.is_closed = True


_CORES: weakref.WeakSet[ProducerCore] = weakref.WeakSet()


def _all_done(unfinished: list[Batch]) -> bool:
    while unfinished and unfinished[-1].is_done:
        unfinished.pop()
    return not unfinished


def _delivery_error(
    failed: Sequence[Batch], delivered: int, pending: int, timeout: float | None
) -> DeliveryError:
    """Tell what was not delivered, with the first causes."""
    lost = sum(batch.count for batch in failed if not isinstance(batch.error, OutcomeUnknown))
    unknown = sum(batch.count for batch in failed) - lost
    total = delivered + lost + unknown + pending
    errors = [batch.error for batch in failed if batch.error is not None]
    causes = list({str(error): error for error in errors}.values())[:_CAUSES_MAX]
    effects = []
    if lost:
        subject = f"{lost} {'was' if lost == 1 else 'were'}"
        if lost == total:
            subject = "The record was" if total == 1 else "They were"
        effects.append(f"{subject} NOT stored: {lost} of {total} undelivered.")
    if unknown:
        effects.append(f"{unknown} of {total} may or may not be stored.")
    if pending:
        effects.append(f"{pending} of {total} are still on their way.")
    whats = [cause.what for cause in causes]
    steps = tuple(dict.fromkeys(step for cause in causes for step in cause.next_steps))
    if timeout is not None:
        return FlushTimeout(
            "; ".join([f"not confirmed within {timeout:g} s", *whats]),
            " ".join(effects),
            (*steps, "Call flush() again: what is still on its way is not lost."),
            failed=lost + unknown,
            pending=pending,
            causes=causes,
        )
    error = DeliveryError(
        f"not {'confirmed' if unknown and not lost else 'sent'}: {'; '.join(whats)}",
        " ".join(effects),
        steps,
        failed=lost + unknown,
        pending=pending,
        causes=causes,
    )
    if causes:
        error.__cause__ = causes[0]
    return error


class Producer(Sending):
    """Sends records to topics.

    Args:
        address: "host:port[,host:port]", a folder with an embedded store, or a `Broker`; where it
            is not given $OTTLA_BROKER or ./ottla-data.
        bootstrap_servers: the same under the name that other clients have for it.
        settings: see `ottla.client.config.ProducerConfig`.

    Raises:
        ConfigError: an address or a setting cannot be.
        StorageError: the folder cannot be opened as a store.
    """

    def __init__(
        self, address: object = None, *, bootstrap_servers: object = None, **settings: Any
    ) -> None:
        config = make_config(ProducerConfig, settings)
        clock = SYSTEM
        given = address if address is not None else bootstrap_servers
        self._core = ProducerCore(open_network(given, config.client_id, clock), config, clock)
        _CORES.add(self._core)
        lives = Lives(config.required_acks) if config.trace else None
        super().__init__(self._core, lives)

    def __repr__(self) -> str:
        return f"<Producer {self._core.cluster.address}: {self.state}>"

    @property
    def state(self) -> str:
        """ "disconnected", "connected" or "closed"."""
        if self._core.is_closed:
            return "closed"
        return "connected" if self.is_connected else "disconnected"

    @property
    def is_connected(self) -> bool:
        """Whether a broker is connected now."""
        return any(node.state.value == "ready" for node in self._core.cluster.all_nodes())

    def send_many(
        self, topic: str, values: Iterable[Any], partition: int | None = None
    ) -> ManyDeliveries:
        """Put many records on their way.

        Args:
            topic: their topic.
            values: each is a value, or (key, value[, headers[, timestamp_ms]]).
            partition: their partition; None as for `send`.

        Returns:
            One handle for all of them.

        Raises:
            BufferFull: there was no room for `max_block_ms`; those before are on their way.
            RecordError: one cannot be made a record; those before it are on their way.
            Closed, Forked: as for `send`.
        """
        core = self._core
        if core.refusal is not None:
            raise core.refusal
        items: list[Any] = values if isinstance(values, list) else list(values)
        if self._value_serializer is not None or self._key_serializer is not None:
            items = [self._serialized(item) for item in items]
        deliveries = ManyDeliveries(topic, core)
        number = -1 if partition is None else checked_partition(partition)
        checked_topic(topic)
        index = 0
        while True:
            index = core.accumulator.append_many(deliveries, topic, items, index, number)
            if index >= len(items):
                return deliveries
            self._wait_for_room()

    def _serialized(self, item: Any) -> Any:
        key, value, *rest = item if isinstance(item, tuple) else (None, item)
        if self._value_serializer is not None and value is not None:
            value = self._value_serializer(value)
        if self._key_serializer is not None and key is not None:
            key = self._key_serializer(key)
        return (key, value, *rest)

    def flush(self, timeout: float | None = None) -> int:
        """Wait until every record sent so far is stored and readable.

        Args:
            timeout: seconds at most; None for as long as `delivery_timeout_ms` allows.

        Returns:
            How many records were delivered since the last flush.

        Raises:
            DeliveryError: some were not delivered; it has counts and the first causes.
            FlushTimeout: the time is over; some are still on their way.
            Closed, Forked: the producer cannot be used.
        """
        if self._core.refusal is not None:
            raise self._core.refusal
        return self._core.flush(timeout)

    def close(self, timeout: float | None = None) -> None:
        """Flush and let go of everything; nothing happens where it is closed already.

        Raises:
            DeliveryError: some records were not delivered. It is closed all the same.
        """
        self._core.close(timeout)

    def trace(self, delivery: Delivery) -> Life:
        """Return what was observed of a record's life; the producer must be made with trace=True.

        Raises:
            ClientError: it was not, or the record is too long ago.
        """
        if self._lives is None:
            raise ClientError(
                "nothing was recorded", next_steps=("Make the producer with trace=True.",)
            )
        return self._lives.life_of(delivery)

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except DeliveryError as problem:
            if error is None:
                raise
            error.add_note(f"And when the producer was closed: {problem}")

    def __del__(self) -> None:
        core: ProducerCore | None = getattr(self, "_core", None)
        if core is None or core.is_closed:
            return
        if core.has_work():
            warnings.warn(
                f"a producer was let go with undelivered records: {self!r}",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
            _ABANDONED.append(core)
        else:
            core.close(0)


_ABANDONED: list[ProducerCore] = []
"""Producers that nobody holds any more, with records that are still on their way."""


def _at_exit() -> None:
    """Deliver what is still on its way, for a bounded time, and tell what could not be."""
    for core in list(_CORES):
        if core.is_closed:
            continue
        try:
            core.close(_EXIT_FLUSH_S)
        except KafkaError as error:
            sys.stderr.write(f"ottla: when the process ended: {error}\n")


def _after_fork() -> None:
    for core in list(_CORES):
        core.forked()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

__all__ = ["Delivery", "ManyDeliveries", "Producer", "RecordMetadata"]
