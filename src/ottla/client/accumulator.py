# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Where records wait to be sent: one open batch per partition, and the handles of the records.

`Accumulator.append` writes a record's final bytes into the open batch of its partition and returns
a `Delivery`, which knows only its batch and its place in it; what becomes of the record is told
once, to the batch.

A topic's partitions are not known before the first answer about it: until then its records wait as
they were given, in order, and are appended by `assign`.

Compiled, appending takes no lock. It leans on the GIL instead: between taking the open batch and
the end of the record no Python code runs and nothing is allocated that the garbage collector knows,
so that no other thread can come in between. So does what the sender asks for in every turn; one
thread at a time is the sender. Opening batches is guarded by a lock, and changes nothing before all
is allocated; the pure form takes the lock always.

Kafka: RecordAccumulator, ProducerBatch.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cython

from ottla.client.delivery import STORED, Batch, Delivery, ManyDeliveries
from ottla.client.partitioner import Partitioner
from ottla.client.queues import PartitionQueue, Pending, TopicQueue
from ottla.clock import SystemClock
from ottla.errors import RecordError
from ottla.records.builder import FULL, as_bytes, buffer_size_for, pack_headers
from ottla.wire.memory import Spares, new_buffer

if cython.compiled:
    from cython.cimports.ottla.clock import monotonic_ms_of, monotonic_ns_of
else:
    from ottla.clock import monotonic_ms_of, monotonic_ns_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from queue import SimpleQueue

    from ottla.client.config import ProducerConfig
    from ottla.client.delivery import Waiter
    from ottla.clock import Clock
    from ottla.errors import ClientError
    from ottla.records.builder import BatchBuilder

_RECORD_OVERHEAD = cython.declare(cython.Py_ssize_t, 36)
_BATCH_OVERHEAD = cython.declare(cython.Py_ssize_t, 61)
_FULL = cython.declare(cython.int, FULL)
_STORED = cython.declare(cython.int, STORED)
_SPARE_BYTES_MAX = 8 * 1024 * 1024
"""How much memory of stored batches is kept while there is nothing to be sent."""
_STICKY_BYTES_MAX = 128 * 1024
"""After so much at the latest, records without a key go to another partition."""

_NO_DATA = memoryview(b"")


class Accumulator:
    """The records that are not delivered yet.

    Attributes:
        topics: by name.
        unknown: those of them whose records wait for the number of partitions.
        incomplete: batches without an outcome, oldest first.
        ready: partitions to be looked at by the sender: they have a closed batch, or one to be
            sent again, or an open one that has waited for long enough.
        lingering: a heap of (when its open batch was opened, number, partition) of the others
            that have an open batch; once for each partition, and the batch may be a later one.
        buffered_bytes: what they take.
        refusal: why nothing is taken any more, or None.

    Args:
        config: the producer's settings.
        clock: where time comes from.
        waiter: who can wait for a batch.
        notify: is called when a batch is opened, with whether another had become full.
        to_pack: is given the full batches that another thread compresses; None for none.
    """

    def __init__(
        self,
        config: ProducerConfig,
        clock: Clock,
        waiter: Waiter,
        notify: Callable[[bool], None],
        to_pack: SimpleQueue[Batch | None] | None = None,
    ) -> None:
        self.topics: dict[str, TopicQueue] = {}
        self.unknown: dict[str, TopicQueue] = {}
        self.incomplete: dict[Batch, None] = {}
        self.ready: dict[PartitionQueue, None] = {}
        self.lingering: list[tuple[float, int, PartitionQueue]] = []
        self.buffered_bytes = 0
        self.refusal: ClientError | None = None
        self._opened = 0
        self._batch_size = min(config.batch_size, config.max_request_size)
        self._batch_buffer_size = buffer_size_for(self._batch_size)
        self._buffers_max = config.buffer_memory // self._batch_buffer_size
        idle_bytes_max = min(_SPARE_BYTES_MAX, config.buffer_memory)
        self._idle_buffers_max = idle_bytes_max // self._batch_buffer_size
        self._spares = Spares(self._batch_buffer_size)
        self._record_size_max = config.max_request_size
        self._buffer_memory = config.buffer_memory
        self._system_clock = clock if isinstance(clock, SystemClock) else None
        self._last_topic: TopicQueue | None = None
        self._clock = clock
        self._waiter = waiter
        self._notify = notify
        self._to_pack = to_pack
        self._lock = threading.RLock()

    @property
    def has_room(self) -> bool:
        """Whether another record is taken."""
        return self.buffered_bytes < self._buffer_memory

    # -- appending, in the callers' threads

    def append(
        self,
        topic: str,
        partition: cython.int,
        timestamp_ms: cython.longlong,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[tuple[str, bytes | None]] | None,
    ) -> Delivery | None:
        """Append a record.

        Args:
            topic: its topic.
            partition: its partition, or -1 for the partitioner's choice.
            timestamp_ms: its timestamp, or -1 for now.
            key: its key, or None.
            value: its value, or None.
            headers: (name, value) pairs, or None.

        Returns:
            Its handle, or None where the buffer is full.

        Raises:
            RecordError: it is too large, or there is no such partition.
        """
        if self.buffered_bytes >= self._buffer_memory:
            return None
        packed: bytes | None = None if headers is None else pack_headers(headers)
        self._check_size(key, value, packed)
        if timestamp_ms < 0:
            timestamp_ms = self._now()
        delivery: Delivery = Delivery.__new__(Delivery)
        delivery.stamp(timestamp_ms)
        found: TopicQueue | None = self._last_topic
        if found is None or found.name is not topic:
            found = self.topics.get(topic)
            self._last_topic = found
        if found is None or not found.queues:
            return self._wait_for_topic(
                topic, delivery, partition, timestamp_ms, key, value, packed
            )
        self._put(found, delivery, partition, timestamp_ms, key, value, packed)
        return delivery

    def append_plain(
        self, topic: object, key: bytes | None, value: bytes | None
    ) -> Delivery | None:
        """Append a record as `append` does, in one step, where nothing stands in the way.

        Returns:
            Its handle, or None: `append` has to do it.
        """
        found: TopicQueue | None = self._last_topic
        if found is None or found.name is not topic or not found.queues or not cython.compiled:
            return None
        size: cython.Py_ssize_t = _BATCH_OVERHEAD + _RECORD_OVERHEAD
        size += 0 if key is None else len(key)
        size += 0 if value is None else len(value)
        if size > self._record_size_max or self.buffered_bytes >= self._buffer_memory:
            return None
        partitioner: Partitioner = found.partitioner
        timestamp_ms: cython.longlong = self._now()
        delivery: Delivery = Delivery.__new__(Delivery)
        # From here on no Python code runs, see above.
        partition: cython.int = partitioner.partition if key is None else partitioner.for_key(key)
        queue: PartitionQueue = found.queues[partition]
        batch: Batch | None = queue.open
        if batch is None:
            return None
        builder: BatchBuilder = batch.builder
        before: cython.Py_ssize_t = builder.size
        index: cython.int = builder.append(timestamp_ms, key, value, None, self._batch_size)
        if index == _FULL:
            return None
        delivery.place(batch, index, timestamp_ms)
        size = builder.size - before
        batch.held += size
        self.buffered_bytes += size
        if key is None and partitioner.appended(size):
            self._draw(found)
        return delivery

    def append_many(
        self,
        deliveries: ManyDeliveries,
        topic: str,
        values: list[Any],
        start: cython.Py_ssize_t,
        partition: cython.int,
    ) -> int:
        """Append records from `start` on for as long as there is room.

        Args:
            deliveries: is told where they are.
            topic: their topic.
            values: each is a value, or (key, value[, headers[, timestamp_ms]]).
            start: the index of the first one.
            partition: their partition, or -1 for the partitioner's choice.

        Returns:
            The index of the first that found no room.

        Raises:
            RecordError: one is too large, or none that can be sent; those before it are appended.
        """
        index: cython.Py_ssize_t = start
        taken: cython.Py_ssize_t
        first: Delivery | None = None
        count: cython.Py_ssize_t = 0
        try:
            while index < len(values):
                given = values[index]
                if type(given) is bytes or given is None:
                    delivery = self.append(topic, partition, -1, None, given, None)
                else:
                    delivery = self._append_tuple(topic, partition, given)
                if delivery is None:
                    break
                if first is not None and delivery.follows(first, count):
                    count += 1
                else:
                    if first is not None:
                        deliveries.took(first, count)
                    first = delivery
                    count = 1
                index += 1
                if cython.compiled and index < len(values) and type(values[index]) is bytes:
                    taken = self._append_run(delivery, values, index, partition)
                    count += taken
                    index += taken
        finally:
            if first is not None:
                deliveries.took(first, count)
        return index

    def _append_run(
        self,
        behind: Delivery,
        values: list[Any],
        start: cython.Py_ssize_t,
        partition: cython.int,
    ) -> cython.Py_ssize_t:
        """Append plain values directly behind another record, for as long as they belong there.

        Returns:
            How many. The next one is to be appended alone: it is not plain or too large, or the
            batch or the buffer is full, or it is another partition's turn.
        """
        batch: Batch = behind.batch
        if batch.partition < 0:
            return 0
        topic: TopicQueue = self.topics[batch.topic]
        partitioner: Partitioner = topic.partitioner
        timestamp_ms: cython.longlong = self._now()
        # From here on no Python code runs, see above.
        if batch.partition >= len(topic.queues):  # `assign` is at work
            return 0
        queue: PartitionQueue = topic.queues[batch.partition]
        builder: BatchBuilder = batch.builder
        if queue.open is not batch or builder.count != behind.index + 1:
            return 0
        before: cython.Py_ssize_t = builder.size
        room: cython.Py_ssize_t = self._buffer_memory - self.buffered_bytes
        if partition < 0:
            if partitioner.partition != batch.partition:
                return 0
            room = min(room, partitioner.left())
        taken: cython.Py_ssize_t = builder.append_values(
            timestamp_ms,
            values,
            start,
            min(self._batch_size, before + room),
            self._record_size_max - _BATCH_OVERHEAD - _RECORD_OVERHEAD,
        )
        size: cython.Py_ssize_t = builder.size - before
        batch.held += size
        self.buffered_bytes += size
        if partition < 0:
            partitioner.appended(size)
        return taken

    def _now(self) -> int:
        if self._system_clock is not None:
            return self._system_clock.now_ms()
        return self._clock.now_ms()

    def _append_tuple(self, topic: str, partition: cython.int, given: object) -> Delivery | None:
        if isinstance(given, str):
            return self.append(topic, partition, -1, None, given.encode(), None)
        if isinstance(given, bytearray | memoryview):
            return self.append(topic, partition, -1, None, bytes(given), None)
        if not isinstance(given, tuple) or not 2 <= len(given) <= 4:
            raise RecordError(
                f"{type(given).__name__} is neither a value nor (key, value[, headers[, "
                "timestamp_ms]])"
            )
        key, value, *rest = given
        headers = rest[0] if rest else None
        timestamp_ms = rest[1] if len(rest) > 1 and rest[1] is not None else -1
        return self.append(
            topic, partition, timestamp_ms, as_bytes("key", key), as_bytes("value", value), headers
        )

    def _check_size(self, key: bytes | None, value: bytes | None, packed: bytes | None) -> int:
        size: cython.Py_ssize_t = _BATCH_OVERHEAD + _RECORD_OVERHEAD
        if key is not None:
            size += len(key)
        if value is not None:
            size += len(value)
        if packed is not None:
            size += len(packed)
        if size > self._record_size_max:
            raise RecordError(
                f"the record takes {size} bytes; max_request_size allows {self._record_size_max}",
                "It was not sent.",
                (
                    "Set a larger max_request_size, and max.message.bytes of the topic to match; "
                    "or send a smaller record.",
                ),
            )
        return 0

    def _put(
        self,
        topic: TopicQueue,
        delivery: Delivery,
        partition: cython.int,
        timestamp_ms: cython.longlong,
        key: bytes | None,
        value: bytes | None,
        packed: bytes | None,
    ) -> int:
        partitions: cython.Py_ssize_t = len(topic.queues)
        sticky: cython.bint = False
        if partition >= partitions:
            raise RecordError(
                f"topic {topic.name!r} has {partitions} partitions, 0 to {partitions - 1}: "
                f"there is no partition {partition}",
                "The record was not sent.",
            )
        if partition < 0:
            if key is not None:
                partition = topic.partitioner.for_key(key)
            else:
                partition = topic.partitioner.partition
                sticky = True
        queue: PartitionQueue = topic.queues[partition]
        size: cython.Py_ssize_t
        if cython.compiled:
            size = self._try(queue, delivery, timestamp_ms, key, value, packed)
        else:
            size = self._try_locked(queue, delivery, timestamp_ms, key, value, packed)
        if size < 0:
            filled: cython.bint = False
            with self._lock:
                while True:
                    size = self._try(queue, delivery, timestamp_ms, key, value, packed)
                    if size >= 0:
                        break
                    filled = self._open(queue) or filled
            self._notify(filled)
        if sticky and topic.partitioner.appended(size):
            self._draw(topic)
        return 0

    def _draw(self, topic: TopicQueue) -> int:
        """Have another partition drawn for the records without a key."""
        with self._lock:
            waiting = [*self.ready, *(queue for _, _, queue in self.lingering)]
            queued = {each.partition: each.queued for each in waiting if each.topic == topic.name}
        topic.partitioner.draw(queued)
        return 0

    def _try(
        self,
        queue: PartitionQueue,
        delivery: Delivery,
        timestamp_ms: cython.longlong,
        key: bytes | None,
        value: bytes | None,
        packed: bytes | None,
    ) -> int:
        """Append to the open batch; returns the bytes that it took, -1 where it does not fit."""
        batch: Batch | None = queue.open
        if batch is None:
            return -1
        builder: BatchBuilder = batch.builder
        before: cython.Py_ssize_t = builder.size
        index: cython.int = builder.append(timestamp_ms, key, value, packed, self._batch_size)
        if index == _FULL:
            return -1
        delivery.move(batch, index)
        size: cython.Py_ssize_t = builder.size - before
        batch.held += size
        self.buffered_bytes += size
        return size

    def _try_locked(
        self,
        queue: PartitionQueue,
        delivery: Delivery,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        packed: bytes | None,
    ) -> int:
        with self._lock:
            return self._try(queue, delivery, timestamp_ms, key, value, packed)

    def _open(self, queue: PartitionQueue) -> bool:
        """Open a batch; tells whether there was one, which is full."""
        opened: Batch = self._new_batch(queue.topic, queue.partition, queue.open is not None)
        self._opened += 1
        lingers = (opened.created_ms, self._opened, queue)
        # From here on no Python code runs, see above: the sender may have closed a batch meanwhile.
        full: Batch | None = queue.open
        self.incomplete[opened] = None
        if full is not None:
            full.is_packing = self._to_pack is not None
            queue.closed.append(full)
            self.ready[queue] = None
        queue.open = opened
        if not queue.is_lingering:
            queue.is_lingering = True
            heapq.heappush(self.lingering, lingers)
        if full is not None and self._to_pack is not None:  # nothing is appended to it any more
            self._to_pack.put(full)
        return full is not None

    def _linger(self, queue: PartitionQueue) -> None:
        """Have the sender look at a partition when its open batch has waited for long enough."""
        opened: Batch | None = queue.open
        if not queue.is_lingering and opened is not None:
            queue.is_lingering = True
            self._opened += 1
            heapq.heappush(self.lingering, (opened.created_ms, self._opened, queue))

    def _new_batch(self, topic: str, partition: cython.int, fills: cython.bint = False) -> Batch:
        buffer = self._spares.take()
        if buffer is None and fills:
            buffer = self._full_buffer()
        clock = self._clock
        opened_ms: cython.double = monotonic_ms_of(clock)
        return Batch(topic, partition, self._waiter, opened_ms, monotonic_ns_of(clock), buffer)

    def _full_buffer(self) -> bytearray | None:
        """Return a buffer for a whole batch, for a partition that has filled the one before.

        It does not have to grow then, which would copy it several times. None where the buffers of
        all batches might take more than `buffer_memory` if each had one.
        """
        if len(self.incomplete) + len(self._spares) >= self._buffers_max:
            return None
        return new_buffer(self._batch_buffer_size)

    def _wait_for_topic(
        self,
        name: str,
        delivery: Delivery,
        partition: int,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        packed: bytes | None,
    ) -> Delivery:
        with self._lock:
            topic = self.topics.get(name)
            if topic is None:
                topic = self.topics[name] = TopicQueue(name, self._new_batch(name, -1))
            if topic.queues:
                self._put(topic, delivery, partition, timestamp_ms, key, value, packed)
                return delivery
            size = len(key or b"") + len(value or b"") + len(packed or b"") + _RECORD_OVERHEAD
            if not topic.pending:
                topic.room = self._new_batch(name, -1)
                self.unknown[name] = topic
            topic.room.held += size
            self.buffered_bytes += size
            delivery.move(topic.room, len(topic.pending))
            topic.pending.append(Pending(delivery, partition, timestamp_ms, key, value, packed))
        if len(topic.pending) == 1:
            self._notify(False)
        return delivery

    # -- the sender's side

    def unknown_topics(self) -> list[TopicQueue]:
        """Return the topics whose records wait for the number of partitions."""
        return list(self.unknown.values())

    def assign(self, topic: TopicQueue, partitions: int) -> list[tuple[Delivery, RecordError]]:
        """Make a topic's partitions known, or more of them, and append what waited for it.

        Others see them when that is done: they take no lock then, and would come in between.

        Returns:
            The records that cannot be appended, and why.
        """
        refused = []
        with self._lock:
            first = len(topic.queues)
            added = [PartitionQueue(topic.name, number) for number in range(first, partitions)]
            if not added:
                return []
            assigned: TopicQueue = TopicQueue(topic.name, topic.room)
            assigned.queues.extend([*topic.queues, *added])
            sticky_bytes = min(self._batch_size, _STICKY_BYTES_MAX)
            assigned.partitioner = Partitioner(partitions, sticky_bytes)
            pending = topic.pending
            topic.pending = []
            self.unknown.pop(topic.name, None)
            room = topic.room
            self.buffered_bytes -= room.held
            room.held = 0
            for each in pending:
                try:
                    self._put(
                        assigned,
                        each.delivery,
                        each.partition,
                        each.timestamp_ms,
                        each.key,
                        each.value,
                        each.headers,
                    )
                except RecordError as error:
                    refused.append((each.delivery, error))
            topic.partitioner = assigned.partitioner
            topic.queues.extend(added)
            for callback, delivery in room.take_callbacks():
                delivery.add_done_callback(callback)
        return refused

    def give_up(self, topic: TopicQueue) -> Batch:
        """Return the records that wait for a topic as a batch that can be failed."""
        with self._lock:
            room = topic.room
            for each in topic.pending:
                room.builder.append(each.timestamp_ms, None, None, None, 0x7FFFFFFF)
            topic.pending = []
            self.unknown.pop(topic.name, None)
            return room

    def refuse(self, delivery: Delivery) -> Batch:
        """Return a single record that cannot be appended as a batch that can be failed."""
        batch = self._new_batch(delivery.topic, -1)
        batch.builder.append(delivery.timestamp_ms, None, None, None, 0x7FFFFFFF)
        delivery.move(batch, 0)
        return batch

    def close_open(self, queue: PartitionQueue) -> None:
        """Close the open batch of a partition, so that it is sent."""
        with self._lock:
            batch = queue.open
            if batch is not None:
                queue.open = None
                queue.closed.append(batch)
                self.ready[queue] = None

    def take_open(self, queue: PartitionQueue) -> Batch | None:
        """Return the open batch of a partition, to be sent: nothing is appended to it any more."""
        if cython.compiled:
            return self._take_open(queue)
        with self._lock:
            return self._take_open(queue)

    def _take_open(self, queue: PartitionQueue) -> Batch | None:
        batch: Batch | None = queue.open
        queue.open = None
        return batch

    def first_ready(self) -> PartitionQueue:
        """Return the first partition that is ready, where there is one."""
        for queue in self.ready:
            return queue
        raise KeyError("no partition is ready")

    def take_due(self, opened_ms: float) -> float | None:
        """Make those partitions ready whose batch was opened until then.

        Returns:
            When the first of the others was opened, or None where there is none.
        """
        if cython.compiled:
            return self._take_due(opened_ms)
        with self._lock:
            return self._take_due(opened_ms)

    def _take_due(self, opened_ms: float) -> float | None:
        lingering = self.lingering
        while lingering:
            if lingering[0][0] > opened_ms:
                return lingering[0][0]
            queue: PartitionQueue = heapq.heappop(lingering)[2]
            queue.is_lingering = False
            batch: Batch | None = queue.open
            if batch is None:
                continue
            if batch.created_ms > opened_ms:
                self._linger(queue)
            else:
                self.ready[queue] = None
        return None

    def lay_aside(self, queue: PartitionQueue) -> None:
        """Have the sender look at a partition again when there is something to be sent."""
        if cython.compiled:
            self._lay_aside(queue)
            return
        with self._lock:
            self._lay_aside(queue)

    def _lay_aside(self, queue: PartitionQueue) -> None:
        if not queue.closed and not queue.retries:
            self.ready.pop(queue, None)
            self._linger(queue)

    def look_again(self, queue: PartitionQueue) -> None:
        """Have the sender look at a partition again, behind all others."""
        if cython.compiled:
            self._look_again(queue)
            return
        with self._lock:
            self._look_again(queue)

    def _look_again(self, queue: PartitionQueue) -> None:
        self.ready.pop(queue, None)
        if queue.open is not None or queue.closed or queue.retries:
            self.ready[queue] = None

    def oldest(self) -> Batch | None:
        """Return the batch that has been without an outcome for longest.

        Others send meanwhile. Between the two steps of `next(iter(...))` of ordinary Python one of
        them may open a batch; here nobody comes in between, compiled or not.
        """
        if cython.compiled:
            return self._oldest()
        with self._lock:
            return self._oldest()

    def _oldest(self) -> Batch | None:
        for batch in self.incomplete:
            return batch
        return None

    def complete(self, batch: Batch) -> None:
        """Forget a batch whose outcome is known."""
        if cython.compiled:
            self._complete(batch)
            return
        with self._lock:
            self._complete(batch)

    def _complete(self, batch: Batch) -> None:
        self.incomplete.pop(batch, None)
        self.buffered_bytes -= batch.held
        batch.held = 0
        batch.data = _NO_DATA
        spares = self._spares
        if batch.state == _STORED and len(self.incomplete) + len(spares) < self._buffers_max:
            spares.put(batch.builder.take_buffer())
        if not self.incomplete:
            spares.reduce(self._idle_buffers_max)
