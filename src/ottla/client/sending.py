"""Sending a record in one compiled step, from what the user gave to the open batch.

Kafka: KafkaProducer.doSend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import cython  # noqa: TC002 - Cython reads the annotations

from ottla.errors import BufferFull, RecordError
from ottla.records.builder import as_bytes

if TYPE_CHECKING:
    from ottla.client.accumulator import Accumulator
    from ottla.client.config import ProducerConfig
    from ottla.client.delivery import Delivery
    from ottla.client.lives import Lives
    from ottla.clock import Clock

Headers = Mapping[str, bytes | str | None] | Iterable[tuple[str, bytes | str | None]]
OnDelivery = Callable[["Delivery"], None]


class Core(Protocol):
    """What is behind a producer."""

    accumulator: Accumulator
    config: ProducerConfig
    clock: Clock

    def wait(self, reached: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is reached, `timeout` seconds at most."""
        ...

    def flush(self, timeout: float | None) -> int:
        """See `Sending.flush`."""
        ...


class Sending:
    """The half of a producer that takes records, and waits for them.

    Args:
        core: what is behind it.
        lives: what records are told to, or None.
    """

    def __init__(self, core: Core, lives: Lives | None) -> None:
        self._sending_core = core
        self._accumulator = core.accumulator
        self._key_serializer = core.config.key_serializer
        self._value_serializer = core.config.value_serializer
        self._lives = lives
        self._is_plain = (
            lives is None and self._key_serializer is None and self._value_serializer is None
        )

    def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> Delivery:
        """Put a record on its way.

        Args:
            topic: its topic.
            value: bytes, str (sent as UTF-8), None, or whatever `value_serializer` takes.
            key: the same for the key.
            headers: (name, value) pairs or a mapping.
            partition: its partition; None for the key's, or a partition that fills well.
            timestamp_ms: milliseconds since 1970; None for now.
            on_delivery: is called with the handle when the outcome is known, by the thread that
                does the client's work.

        Returns:
            Its handle. That it exists says nothing about the record but that it is buffered:
            `flush()` or `handle.result()` tell when it is stored.

        Raises:
            BufferFull: there was no room for `max_block_ms`.
            RecordError: it cannot be made a record.
            Closed: the producer is closed.
            Forked: it belongs to another process.
        """
        delivery = self._send(topic, value, key, headers, partition, timestamp_ms)
        while delivery is None:
            self._wait_for_room()
            delivery = self._send(topic, value, key, headers, partition, timestamp_ms)
        if on_delivery is not None:
            delivery.add_done_callback(on_delivery)
        return delivery

    def try_send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> Delivery:
        """Put a record on its way without ever waiting; see `send`.

        Raises:
            BufferFull: there is no room.
        """
        delivery = self._send(topic, value, key, headers, partition, timestamp_ms)
        if delivery is None:
            raise self._buffer_full("there is no room in the producer's buffer")
        if on_delivery is not None:
            delivery.add_done_callback(on_delivery)
        return delivery

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
        refusal = self._accumulator.refusal
        if refusal is not None:
            raise refusal
        return self._sending_core.flush(timeout)

    def _send(
        self,
        topic: Any,
        value: Any,
        key: Any,
        headers: Any,
        partition: Any,
        timestamp_ms: Any,
    ) -> Delivery | None:
        accumulator: Accumulator = self._accumulator
        if accumulator.refusal is not None:
            raise accumulator.refusal
        lives = self._lives
        if (
            (headers is None and partition is None and timestamp_ms is None)
            and (type(value) is bytes and (key is None or type(key) is bytes))
            and self._is_plain
        ):
            appended = accumulator.append_plain(topic, key, value)
            if appended is not None:
                return appended
        created_ns: cython.longlong = 0
        if lives is not None:
            created_ns = self._sending_core.clock.monotonic_ns()
        if self._value_serializer is not None and value is not None:
            value = self._value_serializer(value)
        if self._key_serializer is not None and key is not None:
            key = self._key_serializer(key)
        if type(value) is not bytes and value is not None:
            value = as_bytes("value", value)
        if type(key) is not bytes and key is not None:
            key = as_bytes("key", key)
        delivery = accumulator.append(
            checked_topic(topic) if type(topic) is not str or not topic else topic,
            -1 if partition is None else checked_partition(partition),
            -1 if timestamp_ms is None else timestamp_ms,
            key,
            value,
            None if headers is None else _as_headers(headers),
        )
        if lives is not None and delivery is not None:
            buffered_ns = self._sending_core.clock.monotonic_ns()
            lives.created(delivery, created_ns, buffered_ns, key, value)
        return delivery

    def _wait_for_room(self) -> None:
        core = self._sending_core
        seconds = core.config.max_block_ms / 1000
        if not core.wait(lambda: core.accumulator.has_room, seconds):
            raise self._buffer_full(f"no room in the producer's buffer for {seconds:g} s")

    def _buffer_full(self, what: str) -> BufferFull:
        size = self._sending_core.config.buffer_memory
        return BufferFull(
            f"{what}: {size} bytes wait to be delivered",
            "The record was not sent; those before it are still on their way.",
            ("Send more slowly, or set a larger buffer_memory.",),
        )


def _as_headers(headers: Headers) -> list[tuple[str, bytes | None]]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    try:
        return [(name, as_bytes("header's value", value)) for name, value in pairs]
    except (TypeError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(
            "headers must be (name, value) pairs or a mapping", "The record was not sent."
        ) from error


def checked_topic(topic: object) -> str:
    """Return what can name a topic.

    Raises:
        RecordError: it cannot.
    """
    if not isinstance(topic, str) or not topic:
        raise RecordError(f"{topic!r} cannot name a topic", "The record was not sent.")
    return topic


def checked_partition(partition: object) -> int:
    """Return what can be a partition's number.

    Raises:
        RecordError: it cannot.
    """
    if not isinstance(partition, int) or partition < 0:
        raise RecordError(f"there is no partition {partition!r}", "The record was not sent.")
    return partition
