# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Handles: what `send` returns, and the batch that the outcome is told to.

A `Delivery` is three words: its batch, its place in it, and its timestamp. What becomes of a batch
is told once, to the batch; its records' handles read it there.

Kafka: ProducerBatch, FutureRecordMetadata.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import cython

from ottla.errors import Timeout
from ottla.records.builder import BUFFER_BYTES_MIN, BatchBuilder

if TYPE_CHECKING:
    from ottla.errors import KafkaError

BUFFERED = 0
SENT = 1
STORED = 2
FAILED = 3
_NO_DATA = memoryview(b"")
STATES = ("buffered", "sent", "stored", "failed")


class Waiter(Protocol):
    """Who can wait for a batch."""

    def wait(self, reached: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is reached, seconds at most; False where it was not."""
        ...


class RecordMetadata(NamedTuple):
    """Where a record is stored.

    Attributes:
        topic: its topic.
        partition: its partition.
        offset: its offset, or -1 where the broker was not asked to confirm (acks=0).
        timestamp_ms: its timestamp.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class OffsetRange(NamedTuple):
    """Where records that stand side by side are stored.

    Attributes:
        topic: their topic.
        partition: their partition.
        offset: of the first one, or -1 where the broker was not asked to confirm (acks=0).
        records: how many there are.
    """

    topic: str
    partition: int
    offset: int
    records: int


@cython.no_gc
@cython.cclass
class BatchTimes:
    """When what happened to a batch; nanoseconds of the monotonic clock, 0 for never.

    Attributes:
        opened: the first record was appended.
        connected: the connection that it was sent over was ready for requests.
        sent: the request with it was handed to the network, the last time.
        answered: the answer was there.
        broker_events: what the broker saw, as (event, nanoseconds since it had the request), or
            None where it was not asked or does not tell.
        ended: the outcome was known.
        peer: who it was sent to, in words for people.
    """

    __slots__ = (
        "answered",
        "broker_events",
        "connected",
        "ended",
        "opened",
        "peer",
        "sent",
    )

    def __init__(self, opened: cython.longlong) -> None:
        self.opened = opened
        self.ended = 0
        self.connected = 0
        self.sent = 0
        self.answered = 0
        self.broker_events: list[tuple[str, int]] | None = None
        self.peer = ""


class Batch:
    """Records of one partition that are sent and stored together.

    Attributes:
        topic: their topic.
        partition: their partition; -1 for records whose topic is not known yet.
        builder: their bytes.
        held: bytes that they take in the buffer.
        created_ms: when the first was appended; the monotonic clock.
        state: BUFFERED, SENT, STORED or FAILED.
        base_offset: offset of the first record once they are stored.
        append_time_ms: the timestamp that the broker gave them, or -1.
        error: why they were not delivered.
        watched: how many `flush` wait for it.
        data: the finished bytes, once it was closed.
        identity: the producer id and epoch that it was stamped with.
        base_sequence: its first sequence, or -1.
        attempts: how often it was sent.
        unanswered: how many attempts had no answer that tells what became of them.
        refusal: why the broker refused it for now, the last time it did.
        next_try_ms: not to be sent before; the monotonic clock.
        times: when what happened to it.
        is_packing: whether it is being compressed, or about to be, and cannot be sent yet.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        waiter: Waiter,
        created_ms: cython.double,
        opened_ns: cython.longlong,
        buffer: bytearray | None = None,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.waiter = waiter
        self.builder = BatchBuilder(BUFFER_BYTES_MIN, buffer)
        self.held = 0
        self.created_ms = created_ms
        self.state = BUFFERED
        self.base_offset = -1
        self.append_time_ms = -1
        self.error: KafkaError | None = None
        self.watched = 0
        self.data: memoryview = _NO_DATA
        self.is_packing = False
        self.identity: object = None
        self.base_sequence = -1
        self.attempts = 0
        self.unanswered = 0
        self.refusal: KafkaError | None = None
        self.next_try_ms = 0.0
        self.times = BatchTimes(opened_ns)
        self._callbacks: list[tuple[Callable[[Delivery], None], Delivery]] | None = None

    @property
    def count(self) -> int:
        """How many records it has."""
        return self.builder.count

    @property
    def is_done(self) -> bool:
        """Whether the outcome is known."""
        return self.state >= STORED

    def when_done(self, callback: Callable[[Delivery], None], delivery: Delivery) -> bool:
        """Have something called once the outcome is known; False where it is known already."""
        if self.state >= STORED:
            return False
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append((callback, delivery))
        return True

    def has_callbacks(self) -> bool:
        """Tell whether something is to be called."""
        return self._callbacks is not None

    def take_callbacks(self) -> list[tuple[Callable[[Delivery], None], Delivery]]:
        """Return what is to be called, once."""
        callbacks = self._callbacks
        self._callbacks = None
        return callbacks or []


@cython.freelist(64)
@cython.cclass
class Delivery:
    """What `send` returns: the way of one record, from the buffer to the store."""

    def __repr__(self) -> str:
        return f"<Delivery to {self.topic}: {self.state}>"

    @property
    def topic(self) -> str:
        """The record's topic."""
        return self._batch.topic

    @property
    def partition(self) -> int | None:
        """Its partition; None while it is not known which partitions the topic has."""
        return None if self._batch.partition < 0 else self._batch.partition

    @property
    def offset(self) -> int | None:
        """Its offset once it is stored; None before, and where the broker did not tell."""
        if self._batch.state != STORED or self._batch.base_offset < 0:
            return None
        return self._batch.base_offset + self._index

    @property
    def timestamp_ms(self) -> int:
        """Its timestamp: as sent, or as the broker gave it (LogAppendTime)."""
        stamped = self._batch.append_time_ms
        return stamped if stamped >= 0 else self._timestamp

    @property
    def state(self) -> str:
        """How far it is: "buffered", "sent", "stored" or "failed".

        With acks=0 "stored" means no more than that it has left.
        """
        return STATES[self._batch.state]

    @property
    def batch(self) -> Batch:
        """The batch that it is in."""
        return self._batch

    @property
    def index(self) -> int:
        """Its place in the batch."""
        return self._index

    def done(self) -> bool:
        """Tell whether the outcome is known."""
        return self._batch.state >= STORED

    def result(self, timeout: float | None = None) -> RecordMetadata:
        """Wait until the record is stored and return where.

        Args:
            timeout: seconds at most; None for as long as `delivery_timeout_ms` allows.

        Raises:
            Timeout: the time is over; the record is still on its way.
            KafkaError: it was not delivered, and this is why.
        """
        self._wait(timeout)
        error: KafkaError | None = self._batch.error
        if error is not None:
            raise error
        offset = self.offset
        at = -1 if offset is None else offset
        return RecordMetadata(self.topic, self._batch.partition, at, self.timestamp_ms)

    get = result

    def exception(self, timeout: float | None = None) -> KafkaError | None:
        """Wait for the outcome and return why the record was not delivered, or None.

        Args:
            timeout: seconds at most, as for `result`.

        Raises:
            Timeout: the time is over; the record is still on its way.
        """
        self._wait(timeout)
        error: KafkaError | None = self._batch.error
        return error

    def _wait(self, timeout: float | None) -> None:
        if self._batch.state >= STORED:
            return
        if not self._batch.waiter.wait(self.done, timeout):
            raise Timeout(
                f"no confirmation within {timeout:g} s for a record to {self.topic!r}",
                "The record is still on its way: it may be stored later.",
                ("Wait longer with result() or flush().",),
            )

    def add_done_callback(self, callback: Callable[[Delivery], None]) -> None:
        """Have `callback(delivery)` called once the outcome is known; at once where it is.

        It is called by the thread that does the client's work and must not wait.
        """
        if not self._batch.when_done(callback, self):
            callback(self)

    def follows(self, first: Delivery, count: cython.Py_ssize_t) -> bool:
        """Tell whether the record stands behind `count` others, the first of them given."""
        return first._batch is self._batch and first._index + count == self._index

    def stamp(self, timestamp_ms: cython.longlong) -> None:
        """Take the record's timestamp."""
        self._timestamp = timestamp_ms

    def place(self, batch: Batch, index: cython.int, timestamp_ms: cython.longlong) -> None:
        """Take the place in a batch and the timestamp that the record was given."""
        self._batch = batch
        self._index = index
        self._timestamp = timestamp_ms

    def move(self, batch: Batch, index: cython.int) -> None:
        """Take the place in a batch that the record was given."""
        self._batch = batch
        self._index = index


class ManyDeliveries:
    """What `send_many` returns: the way of many records.

    Of what is stored it keeps numbers only. Batches would be work for the garbage collector, which
    looks at all that is new, and that is often a long list of values.
    """

    __slots__ = ("_counts", "_firsts", "_stored", "_topic", "_waiter")

    def __init__(self, topic: str, waiter: Waiter) -> None:
        self._topic = topic
        self._waiter = waiter
        self._firsts: deque[Delivery] = deque()
        self._counts: deque[int] = deque()
        self._stored: list[int] = []  # partition, offset and count of one range after the other

    def __len__(self) -> int:
        """How many records there are."""
        return sum(self._stored[2::3]) + sum(self._counts)

    @property
    def state(self) -> str:
        """The state of the record that is least far, as `Delivery.state`."""
        states = [delivery.state for delivery in self._firsts]
        return next((state for state in ("failed", *STATES) if state in states), "stored")

    def done(self) -> bool:
        """Tell whether the outcome of all is known."""
        return all(delivery.done() for delivery in self._firsts)

    def result(self, timeout: float | None = None) -> list[OffsetRange]:
        """Wait until all records are stored and return where.

        Args:
            timeout: seconds at most; None for as long as `delivery_timeout_ms` allows.

        Raises:
            Timeout: the time is over; some are still on their way.
            KafkaError: some were not delivered; the first cause.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        numbers = self._stored.copy()
        for delivery, count in zip(self._firsts, self._counts, strict=True):
            numbers += _numbers_of(delivery, count)
        ranges = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
        return [OffsetRange(self._topic, *each) for each in ranges]

    def exception(self, timeout: float | None = None) -> KafkaError | None:
        """Wait for the outcome of all and return the first cause why one failed, or None.

        Raises:
            Timeout: the time is over; some are still on their way.
        """
        if not self._waiter.wait(self.done, timeout):
            raise Timeout(
                f"no confirmation within {timeout:g} s for {len(self)} records to {self._topic!r}",
                "Some are still on their way: they may be stored later.",
                ("Wait longer with result() or flush().",),
            )
        for delivery in self._firsts:
            if delivery.batch.error is not None:
                error: KafkaError = delivery.batch.error
                return error
        return None

    def took(self, delivery: Delivery, count: int) -> None:
        """Take note of records that stand side by side, the first one's handle among them."""
        while self._firsts and self._firsts[0].batch.state == STORED:
            self._stored += _numbers_of(self._firsts.popleft(), self._counts.popleft())
        self._firsts.append(delivery)
        self._counts.append(count)


def _numbers_of(delivery: Delivery, count: int) -> tuple[int, int, int]:
    partition, offset = delivery.partition, delivery.offset
    return -1 if partition is None else partition, -1 if offset is None else offset, count
