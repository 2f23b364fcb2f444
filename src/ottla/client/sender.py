"""Brings batches to the brokers that lead their partitions, in order, and says what became of them.

A batch goes out when it is full, has waited for `linger_ms`, or somebody waits. Up to
`max_in_flight_requests_per_connection` requests are under way to one broker. What a broker refuses
for now, or what was under way when a connection broke, is sent again with the same sequences, in
order, and before anything newer of its partition, until `delivery_timeout_ms` is over.

A batch that was sent, and to which no answer ever came, may or may not be stored: it ends as
`OutcomeUnknown`, with those of its partition that were sent behind it. Sequences cannot go on
behind a gap, so the producer takes a new producer id then; a partition changes over when nothing of
it is under way under the old one.

A broker that remembers nothing of a producer in a partition takes any sequence for its first. So
one batch goes alone, and the next ones when it is stored: over a new connection, under a new
producer id, and after every failure. Else the second might be stored where the first was refused
for now.

Kafka: Sender, TransactionManager (KIP-98, KIP-360).
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import cython

from ottla.client.delivery import FAILED, SENT, STORED, Batch
from ottla.client.network import Call
from ottla.client.node import NodeState
from ottla.client.produce_call import ProduceCall
from ottla.client.undelivered import no_topic, outcome_unknown, too_late
from ottla.errors import BrokerError, KafkaError, broker_error, codes
from ottla.protocol.messages.api_22_init_producer_id import (
    InitProducerIdRequest,
    InitProducerIdResponse,
)

if cython.compiled:
    from cython.cimports.ottla.client.node import sooner
    from cython.cimports.ottla.clock import monotonic_ms_of, monotonic_ns_of
else:
    from ottla.client.node import sooner
    from ottla.clock import monotonic_ms_of, monotonic_ns_of

if TYPE_CHECKING:
    from ottla.client.accumulator import Accumulator
    from ottla.client.cluster import Cluster, TopicInfo
    from ottla.client.config import ProducerConfig
    from ottla.client.node import Node
    from ottla.client.queues import PartitionQueue, TopicQueue
    from ottla.clock import Clock
    from ottla.protocol.messages.api_00_produce import ProduceResponse

_LOG = logging.getLogger("ottla.client")
UNKNOWN_TOPIC_MS = 5000.0
"""How long a topic may be unknown to the broker before its records fail."""

_STILL_TRYING_EVERY_MS = 10_000.0

_AMBIGUOUS = (
    codes.REQUEST_TIMED_OUT,
    codes.NETWORK_EXCEPTION,
    codes.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    codes.KAFKA_STORAGE_ERROR,
)
"""Errors after which a record may be stored all the same."""

_RESEQUENCE = (
    codes.OUT_OF_ORDER_SEQUENCE_NUMBER,
    codes.UNKNOWN_PRODUCER_ID,
    codes.INVALID_PRODUCER_EPOCH,
)


class Identity(NamedTuple):
    """A producer id and epoch."""

    producer_id: int
    producer_epoch: int


NO_IDENTITY = Identity(-1, -1)
_READY = cython.declare(object, NodeState.READY)
_STORED = cython.declare(cython.int, STORED)


class Sender:
    """Sends what the accumulator holds.

    Attributes:
        flushing: how many callers wait for everything to be sent.
        unreported: failed batches that no `flush` has told of yet.
        delivered: records that were delivered since `take_delivered`.
    """

    def __init__(
        self, config: ProducerConfig, cluster: Cluster, accumulator: Accumulator, clock: Clock
    ) -> None:
        self.flushing = 0
        self.unreported: list[Batch] = []
        self.delivered = 0
        self._config = config
        self._cluster = cluster
        self._accumulator = accumulator
        self._clock = clock
        self._identity = None if config.is_idempotent else NO_IDENTITY
        self._asking_identity = False
        self._next_identity_ms = 0.0
        self._identity_refusal: KafkaError | None = None
        self._outcomes = threading.Lock()
        self._known_ms: float | None = None
        self._is_idempotent = config.is_idempotent
        self._required_acks = config.required_acks
        self._codec = config.codec
        self._compression_level = config.compression_level
        self._linger_ms = config.linger_ms
        self._delivery_timeout_ms = config.delivery_timeout_ms
        self._request_timeout_ms = int(config.request_timeout_ms)
        self._in_flight_max = config.max_in_flight_requests_per_connection
        self._request_size_max = config.max_request_size
        self._traced = config.trace
        self._told = self._answered
        self._told_ms = -_STILL_TRYING_EVERY_MS

    # -- time

    def step(self) -> float | None:
        """Do what is due; returns when to look again, on the monotonic clock, or None."""
        now = monotonic_ms_of(self._clock)
        accumulator = self._accumulator
        if not accumulator.incomplete and not accumulator.unknown:
            return None
        if self._cluster.unreachable is not None:
            self._fail_everything(self._cluster.unreachable)
            self._cluster.try_again()
            return None
        due: float | None = sooner(self._resolve_topics(now), self._expire(now))
        if self._identity is None:
            self._ask_identity(now)
        if self._identity is not None:
            due = sooner(due, self._send_ready(now))
        elif not self._asking_identity:
            due = sooner(due, self._next_identity_ms)
        return due

    def has_work(self) -> bool:
        """Tell whether any record has no outcome yet."""
        return bool(self._accumulator.incomplete or self._accumulator.unknown)

    def _resolve_topics(self, now: float) -> float | None:
        """Append the records whose topic has become known; fail those whose never will."""
        due: float | None = None
        for topic in self._accumulator.unknown_topics() if self._accumulator.unknown else ():
            self._cluster.want([topic.name])
            info = self._cluster.topics[topic.name]
            if info.leaders:
                for delivery, error in self._accumulator.assign(topic, len(info.leaders)):
                    self._finish(self._accumulator.refuse(delivery), FAILED, error)
            elif info.error != codes.NONE:
                problem = self._topic_problem(topic.name, now)
                if problem is not None:
                    self._finish(self._accumulator.give_up(topic), FAILED, problem)
                due = sooner(due, info.error_since_ms + UNKNOWN_TOPIC_MS)
            elif topic.room.created_ms + self._delivery_timeout_ms <= now:
                late = self._late(topic.room, now)
                self._finish(self._accumulator.give_up(topic), FAILED, late)
            due = sooner(due, topic.room.created_ms + self._delivery_timeout_ms)
        if self._known_ms is not self._cluster.updated_ms:
            self._known_ms = self._cluster.updated_ms
            for name, known in list(self._accumulator.topics.items()):
                grown = self._cluster.topics.get(name)
                if grown is not None and len(grown.leaders) > len(known.queues) > 0:
                    self._accumulator.assign(known, len(grown.leaders))
        return due

    def _topic_problem(self, name: str, now: float) -> KafkaError | None:
        info = self._cluster.topics[name]
        error = broker_error(info.error, f"topic {name!r} cannot be written to")
        if error.retriable and now - info.error_since_ms < UNKNOWN_TOPIC_MS:
            return None
        if info.error != codes.UNKNOWN_TOPIC_OR_PARTITION:
            return error
        return no_topic(info.error, name)

    def _expire(self, now: float) -> float | None:
        """Fail what has waited for longer than the user allows."""
        timeout: cython.double = self._delivery_timeout_ms
        oldest: Batch | None
        while (oldest := self._accumulator.oldest()) is not None:
            if oldest.created_ms + timeout > now:
                return oldest.created_ms + timeout
            self._give_up(oldest, now)
        return None

    def _give_up(self, batch: Batch, now: float) -> None:
        queue = self._queue_of(batch)
        if not batch.unanswered:
            self._forget(queue, batch)
            self._finish(batch, FAILED, self._late(batch, now))
            if batch.attempts:
                self._renew_identity()
            return
        sent = [*queue.in_flight, *queue.retries]
        for each in [each for each in sent if each.created_ms >= batch.created_ms]:
            self._forget(queue, each)
            self._finish(each, FAILED, self._late_or_unknown(each, now))
        self._renew_identity()

    def _late(self, batch: Batch, now: float) -> KafkaError:
        node = self._cluster.leader_of(batch.topic, batch.partition)
        failures = [each.failure for each in self._cluster.all_nodes() if each.failure is not None]
        cause = batch.refusal or self._identity_refusal
        if cause is None and node is not None:
            cause = node.failure
        return too_late(batch, now, cause or (failures[-1] if failures else None))

    def _late_or_unknown(self, batch: Batch, now: float) -> KafkaError:
        return outcome_unknown(batch) if batch.unanswered else self._late(batch, now)

    def _queue_of(self, batch: Batch) -> PartitionQueue:
        topic: TopicQueue = self._accumulator.topics[batch.topic]
        queue: PartitionQueue = topic.queues[batch.partition]
        return queue

    def _forget(self, queue: PartitionQueue, batch: Batch) -> None:
        if queue.open is batch:
            self._accumulator.close_open(queue)
        for batches in (queue.closed, queue.retries, queue.in_flight):
            if batch in batches:
                batches.remove(batch)
        self._accumulator.look_again(queue)

    def _fail_everything(self, error: KafkaError) -> None:
        for topic in self._accumulator.unknown_topics():
            self._finish(self._accumulator.give_up(topic), FAILED, error)
        for batch in list(self._accumulator.incomplete):
            self._forget(self._queue_of(batch), batch)
            self._finish(batch, FAILED, outcome_unknown(batch) if batch.unanswered else error)

    # -- the producer id

    def _ask_identity(self, now: float) -> None:
        if self._asking_identity or now < self._next_identity_ms:
            return
        node = self._cluster.connected_node()
        if node is None:
            return
        if node.best_version(InitProducerIdRequest) < 0:
            self._identity = NO_IDENTITY
            return
        self._asking_identity = True
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
        node.send(Call(request, InitProducerIdResponse, self._learn_identity))

    def _learn_identity(
        self, response: InitProducerIdResponse | None, error: KafkaError | None
    ) -> None:
        self._asking_identity = False
        self._next_identity_ms = monotonic_ms_of(self._clock) + self._config.retry_backoff_ms
        if response is None:
            return
        if response.error_code == codes.NONE:
            self._identity = Identity(response.producer_id, response.producer_epoch)
            self._identity_refusal = None
            return
        refusal = broker_error(response.error_code, "the broker gave no producer id")
        self._identity_refusal = refusal
        if not refusal.retriable:
            self._fail_everything(refusal)

    def _renew_identity(self) -> None:
        if self._is_idempotent:
            self._identity = None

    # -- sending

    def _send_ready(self, now: float) -> float | None:
        accumulator = self._accumulator
        hurries = self.flushing or not accumulator.has_room
        opened = accumulator.take_due(now if hurries else now - self._linger_ms)
        due = None if opened is None else opened + self._linger_ms
        if not accumulator.ready:
            return due
        if len(accumulator.ready) == 1:
            waits_until = self._send_one_ready(now)
            if waits_until is not None:
                due = waits_until if due is None else min(due, waits_until)
            return due
        room = {node: self._room_of(node) for node in self._cluster.nodes.values()}
        if room and not any(room.values()):
            return due  # an answer comes before anything can be sent
        chosen: dict[Node, list[PartitionQueue]] = {}
        queue: PartitionQueue
        for queue in list(accumulator.ready):
            waits = self._waits_until(queue, now)
            if waits > now:
                if queue.retries:
                    due = waits if due is None else min(due, waits)
                else:
                    accumulator.lay_aside(queue)
                continue
            node = self._leader(queue)
            if node is None or not room.get(node) or not node.is_ready():
                continue
            chosen.setdefault(node, []).append(queue)
            room[node] = max(room[node] - queue.next_size, 0)
            if not any(room.values()):
                break
        for node, queues in chosen.items():
            self._send_to(node, queues, now)
        return due

    def _send_one_ready(self, now: cython.double) -> float | None:
        """Send from the only partition that is ready, as `_send_ready` does from many."""
        queue: PartitionQueue = self._accumulator.first_ready()
        waits: cython.double = self._waits_until(queue, now)
        if waits > now:
            if queue.retries:
                return waits
            self._accumulator.lay_aside(queue)
            return None
        node = self._leader(queue)
        if node is not None and self._room_of(node) and node.is_ready():
            self._send_to(node, [queue], now)
        return None

    def _room_of(self, node: Node) -> int:
        """Return how many bytes may be under way to a broker besides what is."""
        free: cython.Py_ssize_t = self._in_flight_max - node.in_flight()
        return max(free, 0) * self._request_size_max

    def _waits_until(self, queue: PartitionQueue, now: float) -> float:
        batch: Batch | None = queue.open
        if queue.retries:
            batch = queue.retries[0]
            return batch.next_try_ms
        if queue.closed:
            return now
        if batch is None:
            return math.inf
        if self.flushing or not self._accumulator.has_room:
            return now
        return batch.created_ms + self._linger_ms

    def _leader(self, queue: PartitionQueue) -> Node | None:
        node = self._cluster.leader_of(queue.topic, queue.partition)
        problem = self._cluster.problem_of(node)
        if node is None:
            self._cluster.refresh()
            info = self._cluster.topics[queue.topic]
            if info.error == codes.NONE or not info.leaders:
                return None
            problem_of_topic = self._topic_problem(queue.topic, monotonic_ms_of(self._clock))
            if problem_of_topic is not None:
                self._fail_queue(queue, problem_of_topic)
        elif problem is not None:
            self._fail_queue(queue, problem)
            node = None
        return node

    def _fail_queue(self, queue: PartitionQueue, error: KafkaError) -> None:
        self._accumulator.close_open(queue)
        for batch in [*queue.retries, *queue.closed]:
            self._forget(queue, batch)
            self._finish(batch, FAILED, outcome_unknown(batch) if batch.unanswered else error)

    def _send_to(self, node: Node, queues: list[PartitionQueue], now: float) -> None:
        served: set[PartitionQueue] = set()
        queue: PartitionQueue
        batch: Batch | None
        size: cython.Py_ssize_t
        batches: list[Batch]
        while node.in_flight() < self._in_flight_max and node.state is _READY:
            batches, size = [], 0
            for queue in queues:
                batch = self._next_batch(queue, now, self._request_size_max - size)
                if batch is not None:
                    batches.append(batch)
                    size += len(batch.data)
                    served.add(queue)
            if not batches:
                break
            self._send(node, batches)
        for queue in queues:
            if self._waits_until(queue, now) > now:
                self._accumulator.lay_aside(queue)
            elif self._is_blocked(queue):
                self._accumulator.ready.pop(queue, None)
            elif queue in served:
                self._accumulator.look_again(queue)

    def _is_blocked(self, queue: PartitionQueue) -> bool:
        """Tell whether nothing of a partition can be sent before there is another answer for it."""
        if not queue.in_flight:
            return False
        if queue.retries:
            batch = queue.retries[0]
            return batch.base_sequence < 0 or not self._may_follow(queue, batch.identity)
        return queue.identity is not self._identity or not self._may_follow(queue, queue.identity)

    def _next_batch(
        self, queue: PartitionQueue, now: float, room: cython.Py_ssize_t
    ) -> Batch | None:
        """Take the next batch of a partition, where it is its turn and it fits."""
        if queue.retries:
            batch = queue.retries[0]
            if batch.next_try_ms > now or len(batch.data) > room:
                return None
            if not self._may_follow(queue, batch.identity):
                return None
            queue.retries.popleft()
            if batch.base_sequence < 0 and not self._stamp_again(queue, batch):
                queue.retries.appendleft(batch)
                return None
            return batch
        if self._identity is None:
            return None
        if queue.identity is not self._identity:
            if queue.in_flight:
                return None
            queue.identity = self._identity
            queue.next_sequence = 0
        if not self._may_follow(queue, queue.identity):
            return None
        if not queue.closed:
            opened: Batch | None = queue.open
            if opened is None or self._waits_until(queue, now) > now or opened.builder.size > room:
                return None
            opened = self._accumulator.take_open(queue)
            return None if opened is None else self._build(queue, opened)
        batch = queue.closed[0]
        if batch.is_packing or batch.builder.size > room:
            return None
        return self._build(queue, queue.closed.popleft())

    def _may_follow(self, queue: PartitionQueue, identity: object) -> bool:
        """Tell whether a batch may be sent while others of its partition are under way."""
        if not queue.in_flight or self._identity is NO_IDENTITY:
            return True
        last: Batch = queue.in_flight[-1]
        if identity is None or identity is not last.identity:
            return False
        return queue.confirmed_identity is identity and queue.confirmed_ns == last.times.connected

    def _build(self, queue: PartitionQueue, batch: Batch) -> Batch:
        identity: Identity = queue.identity
        if identity.producer_id >= 0:
            batch.identity = identity
            batch.base_sequence = queue.next_sequence
            queue.next_sequence = (queue.next_sequence + batch.count) & 0x7FFFFFFF
        batch.data = batch.builder.build(
            self._codec,
            self._compression_level,
            identity.producer_id,
            identity.producer_epoch,
            batch.base_sequence,
        )
        return batch

    def _stamp_again(self, queue: PartitionQueue, batch: Batch) -> bool:
        """Give a batch that is known not to be stored the next sequences of a new identity."""
        if self._identity is None or queue.in_flight:
            return False
        if queue.identity is not self._identity:
            queue.identity = self._identity
            queue.next_sequence = 0
        self._build(queue, batch)
        return True

    def _send(self, node: Node, batches: list[Batch]) -> None:
        topic_ids: dict[str, bytes] = {}
        batch: Batch
        for batch in batches:
            if batch.topic not in topic_ids:
                topic: TopicInfo = self._cluster.topics[batch.topic]
                topic_ids[batch.topic] = topic.topic_id
            batch.state = SENT
            batch.attempts += 1
            batch.unanswered += 1
            batch.times.peer = node.peer
            batch.times.connected = node.connected_ns
            self._queue_of(batch).in_flight.append(batch)
        call: ProduceCall = ProduceCall(
            batches,
            topic_ids,
            self._required_acks,
            self._request_timeout_ms,
            self._told,
            self._traced,
        )
        node.send(call, call.version_max())
        for batch in batches:
            batch.times.sent = call.sent_ns

    # -- answers

    def _answered(
        self, call: ProduceCall, response: ProduceResponse | None, error: KafkaError | None
    ) -> None:
        batches = call.batches
        batch: Batch
        for batch in batches:
            batch.times.answered = call.answered_ns
            batch.times.broker_events = call.broker_events
            in_flight: list[Batch] = self._queue_of(batch).in_flight
            if batch in in_flight:
                in_flight.remove(batch)
        if error is not None:
            self._cluster.refresh()
            self._retry_all(batches, error)
        elif response is not None:
            self._judge(batches, response)
        else:
            stored = call.stored
            index: cython.Py_ssize_t
            for index in range(len(batches)):
                if stored is None:  # nothing was asked for
                    self._finish(batches[index], STORED)
                else:
                    self._stored(batches[index], stored[2 * index], stored[2 * index + 1])
        for batch in batches:
            self._accumulator.look_again(self._queue_of(batch))

    def _stored(
        self, batch: Batch, base_offset: cython.longlong, append_time_ms: cython.longlong
    ) -> None:
        """Take note where the broker says that a batch is stored."""
        if not batch.is_done:
            queue = self._queue_of(batch)
            queue.confirmed_identity = batch.identity
            queue.confirmed_ns = batch.times.connected
            batch.base_offset = base_offset
            batch.append_time_ms = append_time_ms
            self._finish(batch, STORED)

    def _judge(self, batches: list[Batch], response: ProduceResponse) -> None:
        waiting = {(batch.topic, batch.partition): batch for batch in batches}
        known = self._cluster.topics
        names = {known[batch.topic].topic_id: batch.topic for batch in batches}
        failed = []
        for topic in response.responses:
            name = topic.name or names.get(topic.topic_id, "")
            for partition in topic.partition_responses:
                batch = waiting.pop((name, partition.index), None)
                if batch is None or batch.is_done:
                    continue
                if partition.error_code in (codes.NONE, codes.DUPLICATE_SEQUENCE_NUMBER):
                    self._stored(batch, partition.base_offset, partition.log_append_time_ms)
                else:
                    failed.append((batch, partition))
        for batch, partition in failed:
            self._refused(batch, partition)
        if waiting:
            missing = KafkaError("the broker's answer says nothing about the record's partition")
            self._retry_all(waiting.values(), missing)

    def _refused(self, batch: Batch, partition: ProduceResponse.PartitionProduceResponse) -> None:
        what = f"the broker refused a record to {batch.topic!r}, partition {batch.partition}"
        if partition.error_message:
            what += f": {partition.error_message}"
        if partition.error_code not in _AMBIGUOUS:
            batch.unanswered -= 1
        effect = "" if batch.unanswered else "It was NOT stored."
        steps: tuple[str, ...] = ()
        if partition.error_code == codes.MESSAGE_TOO_LARGE and batch.count > 1:
            steps = (
                f"Set batch_size to less than the topic's max.message.bytes: {batch.count} records "
                f"went in one batch of {len(batch.data)} bytes.",
            )
        error = broker_error(partition.error_code, what, effect, steps)
        batch.refusal = error
        if error.refresh_metadata:
            self._cluster.refresh()
        if error.code in _RESEQUENCE and self._config.is_idempotent:
            batch.base_sequence = -1
            self._renew_identity()
            self._retry_all([batch], error)
        elif error.retriable:
            self._tell(error)
            self._retry_all([batch], error)
        else:
            if batch.base_sequence >= 0:
                self._renew_identity()
            self._finish(batch, FAILED, error)

    def _tell(self, error: KafkaError) -> None:
        """Show that the broker refuses, and that it is asked again."""
        now = monotonic_ms_of(self._clock)
        if now - self._told_ms >= _STILL_TRYING_EVERY_MS:
            self._told_ms = now
            _LOG.warning("%s; trying again", error.what)

    def _retry_all(self, batches: Iterable[Batch], error: KafkaError) -> None:
        """Have batches sent again, in front of everything newer and in the order of their age."""
        now = monotonic_ms_of(self._clock)
        for batch in batches:
            if batch.is_done:
                continue
            if self._config.required_acks == 0:
                self._finish(batch, FAILED, outcome_unknown(batch))
                continue
            if not self._config.is_idempotent and not isinstance(error, BrokerError):
                _LOG.warning("records to %s may be stored twice: %s", batch.topic, error.what)
            queue = self._queue_of(batch)
            queue.confirmed_identity = None
            batch.next_try_ms = now + self._config.retry_backoff_ms
            retries = [*queue.retries, batch]
            retries.sort(key=lambda each: each.created_ms)
            queue.retries.clear()
            queue.retries.extend(retries)

    def _finish(self, batch: Batch, state: cython.int, error: KafkaError | None = None) -> None:
        """Settle the outcome of a batch."""
        batch.times.ended = monotonic_ns_of(self._clock)
        if cython.compiled:  # the GIL lets nobody come in between, here and below
            self._settle(batch, state, error)
        else:
            with self._outcomes:
                self._settle(batch, state, error)
        self._accumulator.complete(batch)
        if batch.has_callbacks():
            for callback, delivery in batch.take_callbacks():
                try:
                    callback(delivery)
                except Exception:
                    _LOG.exception("a delivery callback failed")

    def _settle(self, batch: Batch, state: cython.int, error: KafkaError | None) -> None:
        batch.error = error
        batch.state = state
        if state == _STORED:
            self.delivered += batch.builder.count
        elif not batch.watched:
            self.unreported.append(batch)

    def abandon(self, error: KafkaError) -> None:
        """Fail everything that is left: nothing will be sent any more."""
        self._fail_everything(error)

    # -- for flush

    def hurry(self, by: cython.int) -> None:
        """Take note that somebody waits, by 1, or does not any more, by -1."""
        if cython.compiled:
            self.flushing += by
            return
        with self._outcomes:
            self.flushing += by

    def watch(self) -> tuple[list[Batch], list[Batch]]:
        """Begin a flush: returns the batches that it waits for, and those that failed before."""
        waiting: list[Batch] = []
        reported: list[Batch] = []
        if cython.compiled:
            failed = self._watch(waiting, reported)
        else:
            with self._outcomes:
                failed = self._watch(waiting, reported)
        return waiting, failed

    def _watch(self, waiting: list[Batch], reported: list[Batch]) -> list[Batch]:
        batch: Batch
        for batch in self._accumulator.incomplete:
            batch.watched += 1
            waiting.append(batch)
        failed = self.unreported
        self.unreported = reported
        return failed

    def unwatch(self, batches: list[Batch]) -> None:
        """End a flush."""
        batch: Batch
        if cython.compiled:
            for batch in batches:
                batch.watched -= 1
            return
        with self._outcomes:
            for batch in batches:
                batch.watched -= 1

    def take_delivered(self) -> int:
        """Return how many records were delivered since this was last called."""
        delivered: cython.longlong
        if cython.compiled:
            delivered = self.delivered
            self.delivered = 0
            return delivered
        with self._outcomes:
            delivered = self.delivered
            self.delivered = 0
        return delivered
