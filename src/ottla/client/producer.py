"""The producer: `send` puts records on their way, `flush` returns when they are stored.

`Producer` is what users see; `ottla.client.producer_core` holds what must outlive it.
"""

from __future__ import annotations

import atexit
import os
import sys
import warnings
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ottla.client.address import open_network
from ottla.client.config import ProducerConfig, make_config
from ottla.client.delivery import Delivery, ManyDeliveries, RecordMetadata
from ottla.client.lives import Lives
from ottla.client.producer_core import ProducerCore
from ottla.client.sending import Sending, checked_partition, checked_topic
from ottla.clock import SYSTEM
from ottla.errors import (
    ClientError,
    DeliveryError,
    KafkaError,
)

if TYPE_CHECKING:
    from types import TracebackType

    from ottla.trace import Life

_EXIT_FLUSH_S = 5.0


_CORES: weakref.WeakSet[ProducerCore] = weakref.WeakSet()


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

    def close(self, timeout: float | None = None) -> None:
        """Flush and let go of everything; nothing happens where it is closed already.

        Raises:
            DeliveryError: some records were not delivered. It is closed all the same.
            ClientError: it is called from a delivery callback, which cannot wait for that.
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
        elif core.driver.is_turning():  # let go of in a delivery callback: closed at exit
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
