"""Runs the groups' shards, one for each partition of `__consumer_offsets`.

    ask       has a shard decide on a request, appends what it decided, and answers when that is
              stored
    expire    does what the shards' deadlines ask for
    load_all  replays a shard's log; before that is done nothing is answered from it

The topic is made when the first group is. A shard is loaded when it is first asked for: at once
where its log is short, else by the housekeeper, who loads all of them after a start; whoever asks
meanwhile is told to try again (COORDINATOR_LOAD_IN_PROGRESS). A partition that was never written to
has no groups, and no log is made of that.

Who was not heard while nobody listened is not dead. Where deadlines come up much later than they
should - the process was stopped, the machine asleep, nothing drove an embedded broker - all of them
begin anew.

Kafka: GroupCoordinatorService, CoordinatorRuntime.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ottla.broker.internal_topics import GROUPS_TOPIC, INTERNAL_TOPICS
from ottla.broker.requests import Pending
from ottla.coordinator.group.coordinator import GroupCoordinator
from ottla.coordinator.group.membership import Asker
from ottla.coordinator.group.rebalance import Settings
from ottla.coordinator.group.records import GroupCodec, GroupRecord
from ottla.coordinator.group.timers import Now, Timers
from ottla.coordinator.runtime import Runtime
from ottla.errors import DiskFull, KafkaError, StorageError, codes
from ottla.protocol.message import ZERO_UUID
from ottla.records.markers import read_marker

if TYPE_CHECKING:
    from ottla.broker.configs import Configs
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.coordinator.cluster.state import Topic
    from ottla.coordinator.group.decision import Answer, Decision
    from ottla.log.partition_log import PartitionLog
    from ottla.protocol.message import ApiMessage
    from ottla.records.batch import BatchHeader
    from ottla.wire import Buffer

LOAD_AT_ONCE_BYTES = 128 * 1024
"""The size of a log that is loaded while somebody waits; some 25 ms."""

STALL_MS = 1000.0
"""How late a deadline may come up; later than that nobody has listened."""

_SEGMENT_BYTES_MIN = 1024 * 1024
_NOWHERE = -1
_LOG = logging.getLogger("ottla.broker")

Decide = Callable[[GroupCoordinator, "Answer", Now], "Decision"]
"""Asks a shard for a decision; whoever asked is answered through `Answer`."""


class _Runtime(Runtime[GroupRecord]):
    """A shard's log: it may hold transactions, and lies where topics' logs lie."""

    def __init__(self, engine: Engine, log: PartitionLog, coordinator: GroupCoordinator) -> None:
        super().__init__(log, engine.commit, GroupCodec(), lambda record: None, engine.clock)
        self._engine = engine
        self._coordinator = coordinator

    def _replay_one(self, record: GroupRecord, offset: int, producer_id: int) -> None:
        self._coordinator.replay(record, offset, producer_id)

    def _replay_control(self, data: Buffer, header: BatchHeader) -> None:
        marker = read_marker(data, header)
        if marker is not None:
            self._coordinator.replay_end_of_transaction(
                header.producer_id, is_commit=not marker.is_abort
            )

    def _store(self, batch: Buffer, header: BatchHeader) -> int:
        return self._engine.append(self._log, batch, header)


class _Shard:
    """A shard, and how far it is.

    Attributes:
        coordinator: its state.
        runtime: its log.
        log: the same.
        next_offset: up to where it is loaded.
        error: why it cannot be asked, as an error code.
    """

    def __init__(self, engine: Engine, log: PartitionLog, coordinator: GroupCoordinator) -> None:
        self.coordinator = coordinator
        self.log = log
        self.runtime = _Runtime(engine, log, coordinator)
        self.next_offset = log.log_start_offset
        self.error = codes.COORDINATOR_LOAD_IN_PROGRESS


class Groups:
    """All shards.

    Args:
        engine: the broker.
        configs: its configs.
    """

    def __init__(self, engine: Engine, configs: Configs) -> None:
        self._engine = engine
        self._configs = configs
        self._settings = Settings(
            configs.group_min_session_timeout_ms,
            configs.group_max_session_timeout_ms,
            configs.group_max_size,
            configs.group_initial_rebalance_delay_ms,
            configs.offset_metadata_max_bytes,
            configs.offsets_retention_ms,
            configs.group_consumer_session_timeout_ms,
            configs.group_consumer_heartbeat_interval_ms,
            configs.group_consumer_max_size,
            configs.group_consumer_assignors,
            configs.group_consumer_migration_policy,
        )
        self._timers = Timers()
        self._shards: dict[int, _Shard] = {}
        self._nowhere = self._coordinator(_NOWHERE)
        self._has_new_deadlines = False

    def _coordinator(self, partition: int) -> GroupCoordinator:
        timers = self._timers.of_shard(partition)
        return GroupCoordinator(
            timers,
            self._settings,
            lambda: str(uuid.uuid4()),
            self._engine.cluster,
            INTERNAL_TOPICS,
        )

    def _now(self) -> Now:
        clock = self._engine.clock
        return Now(clock.now_ms(), clock.monotonic_ms())

    # -- requests

    def ask(
        self,
        group_id: str,
        decide: Decide,
        refused: Callable[[int], ApiMessage],
        *,
        creates: bool = False,
    ) -> Reply:
        """Have a group's shard decide, and answer when what it decided is stored.

        Args:
            group_id: the group.
            decide: asks the shard.
            refused: makes the response of an error code, where the shard cannot be asked.
            creates: whether the topic is to be made where there is none.
        """
        shard = self._shard_of(group_id, creates=creates)
        if isinstance(shard, int):
            return refused(shard)
        return self._ask(shard, decide)

    def ask_all(self, decide: Decide, refused: Callable[[int], ApiMessage]) -> list[Reply]:
        """Have all shards decide that have groups."""
        topic = self._engine.cluster.topics.get(GROUPS_TOPIC)
        replies: list[Reply] = []
        for partition in range(0 if topic is None else topic.partitions):
            shard = self._shard(topic, partition) if topic is not None else None
            if isinstance(shard, int):
                replies.append(refused(shard))
            elif shard is not None:
                replies.append(self._ask(shard, decide))
        return replies

    def _ask(self, shard: _Shard | None, decide: Decide) -> Reply:
        pending = Pending()
        if shard is None:
            for reply in decide(self._nowhere, pending.finish, self._now()).replies:
                reply.answer(reply.response)
        else:
            self._do(shard, decide(shard.coordinator, pending.finish, self._now()))
        return pending.response if pending.is_done else pending

    def _shard_of(self, group_id: str, *, creates: bool) -> _Shard | int | None:
        """Return a group's shard, an error code, or None where there never was a group in it."""
        topic = self._engine.cluster.topics.get(GROUPS_TOPIC)
        if topic is None:
            if not creates:
                return None
            topic = self._create()
            if topic is None:
                return codes.COORDINATOR_NOT_AVAILABLE
        return self._shard(topic, partition_of(group_id, topic.partitions), creates=creates)

    def _create(self) -> Topic | None:
        configs = self._configs
        segment_bytes = max(configs.offsets_topic_segment_bytes, _SEGMENT_BYTES_MIN)
        outcome = self._engine.create_topic(
            GROUPS_TOPIC,
            configs.offsets_topic_num_partitions,
            {
                "cleanup.policy": "compact",
                "compression.type": "producer",
                "segment.bytes": str(segment_bytes),
            },
        )
        if outcome.topic is None:
            _LOG.error("%s cannot be made: %s", GROUPS_TOPIC, outcome.message)
        return outcome.topic

    def _shard(self, topic: Topic, partition: int, *, creates: bool = False) -> _Shard | int | None:
        shard = self._shards.get(partition)
        if shard is None:
            if not creates and not self._engine.has_log(topic.name, partition):
                return None
            log = self._engine.log_of(topic.name, partition)
            if log is None:
                return codes.COORDINATOR_NOT_AVAILABLE
            shard = _Shard(self._engine, log, self._coordinator(partition))
            self._shards[partition] = shard
            if log.size <= LOAD_AT_ONCE_BYTES:
                while self._load_some(partition, shard):
                    pass
            else:
                self._engine.wake_housekeeper()
        if shard.log.failed is not None:
            return codes.NOT_COORDINATOR
        return shard if shard.error == codes.NONE else shard.error

    # -- decisions

    def _do(self, shard: _Shard, decision: Decision) -> None:
        """Append what was decided, and let the replies go when it is stored."""
        if decision.records:
            try:
                shard.runtime.append(decision.records)
            except StorageError as error:
                code = _code_of(error)
                for reply in decision.replies:
                    reply.answer(reply.refused(code))
                if decision.refused is not None:
                    self._do(shard, decision.refused(code))
                return
            if decision.appended is not None:
                decision.appended()
        if not decision.replies:
            return

        def stored(error: StorageError | None) -> None:
            for reply in decision.replies:
                is_good = error is None
                reply.answer(reply.response if is_good else reply.refused(codes.NOT_COORDINATOR))

        if decision.records or decision.waits:
            # The topic's creation is synced no later; where that fails, every log does.
            shard.runtime.when_stored(stored)
        else:
            stored(None)

    # -- time

    def next_deadline_ms(self) -> float | None:
        """Return when `expire` must be called next, on the monotonic clock, or None."""
        return self._timers.next_deadline_ms()

    def has_new_deadlines(self) -> bool:
        """Tell, once, whether shards were loaded, whose deadlines nobody waits for yet."""
        is_new, self._has_new_deadlines = self._has_new_deadlines, False
        return is_new

    def expire(self, now_ms: float) -> None:
        """Do what is due."""
        deadline_ms = self._timers.next_deadline_ms()
        if deadline_ms is None or deadline_ms > now_ms:
            return
        now = Now(self._engine.clock.now_ms(), now_ms)
        if now_ms - deadline_ms > STALL_MS:
            self._timers.restart(now)
            return
        for partition, action in self._timers.due(now_ms):
            shard = self._shards.get(partition)
            if shard is not None:
                self._do(shard, action(now))

    def expire_offsets(self) -> None:
        """Remove the offsets and groups that are kept no longer, and those of deleted topics."""
        for shard in self._ready():
            self._do_each(shard, lambda shard: shard.coordinator.forget_topics(self._is_there))
            self._do_each(shard, lambda shard: shard.coordinator.expire_offsets(self._now()))

    def _ready(self) -> list[_Shard]:
        with self._engine.lock:
            shards = list(self._shards.values())
        return [each for each in shards if each.error == codes.NONE and each.log.failed is None]

    def _do_each(self, shard: _Shard, decide: Callable[[_Shard], Iterable[Decision]]) -> None:
        with self._engine.lock:
            for decision in decide(shard):
                self._do(shard, decision)

    # -- topics

    def _is_there(self, name: str, topic_id: bytes) -> bool:
        topic = self._engine.cluster.topics.get(name)
        return topic is not None and topic_id in (ZERO_UUID, topic.topic_id)

    def topic_deleted(self, topic: Topic) -> None:
        """Forget what was committed for a topic; where it is the groups' own, everything.

        Shards that are not loaded forget it when they are.
        """
        if topic.name != GROUPS_TOPIC:

            def is_another(name: str, topic_id: bytes) -> bool:
                return name != topic.name

            for shard in self._ready():
                self._do_each(shard, lambda shard: shard.coordinator.forget_topics(is_another))
            return
        self.close()

    def close(self) -> None:
        """Let go of all shards; whoever waits is told to look for another coordinator."""
        shards, self._shards = self._shards, {}
        for partition, shard in shards.items():
            self._timers.cancel_all(partition)
            for reply in shard.coordinator.unloaded(codes.NOT_COORDINATOR).replies:
                reply.answer(reply.response)

    # -- loading

    def load_all(self) -> None:
        """Load all shards that there are, in some other thread; the lock is held only at times."""
        engine = self._engine
        with engine.lock:
            topic = engine.cluster.topics.get(GROUPS_TOPIC)
        for partition in range(0 if topic is None else topic.partitions):
            with engine.lock:
                if topic is None or topic is not engine.cluster.topics.get(GROUPS_TOPIC):
                    return
                self._shard(topic, partition)
            self.load_waiting()

    def load_waiting(self) -> None:
        """Load the shards that somebody asked for, in some other thread."""
        with self._engine.lock:
            shards = list(self._shards.items())
        for partition, shard in shards:
            while self._load_some(partition, shard):
                pass

    def _load_some(self, partition: int, shard: _Shard) -> bool:
        """Replay some of a shard's log; tells whether there may be more.

        Until all is replayed nobody else looks at the shard, so that needs no lock.
        """
        lock = self._engine.lock
        if shard.error != codes.COORDINATOR_LOAD_IN_PROGRESS:
            return False
        try:
            with lock:
                data = shard.runtime.read(shard.next_offset)
                if not data:
                    self._loaded(partition, shard)
                    return False
            shard.next_offset = shard.runtime.replay_batches(data)
        except KafkaError as error:
            _LOG.error("the groups of %s-%d cannot be loaded: %s", GROUPS_TOPIC, partition, error)
            shard.error = codes.COORDINATOR_NOT_AVAILABLE
            return False
        return self._shards.get(partition) is shard

    def _loaded(self, partition: int, shard: _Shard) -> None:
        shard.error = codes.NONE
        if self._shards.get(partition) is not shard:
            return
        self._has_new_deadlines = True
        self._do(shard, shard.coordinator.loaded(self._now()))
        self._do_each(shard, lambda shard: shard.coordinator.forget_topics(self._is_there))


def partition_of(group_id: str, partitions: int) -> int:
    """Return the partition that a group's records are in. Kafka: Utils.abs(String.hashCode)."""
    units = group_id.encode("utf-16-be", "surrogatepass")
    value = 0
    for index in range(0, len(units), 2):
        value = (31 * value + (units[index] << 8 | units[index + 1])) & 0xFFFFFFFF
    signed = value - (1 << 32) if value >= 1 << 31 else value
    return (0 if signed == -(1 << 31) else abs(signed)) % partitions


def asker_of(context: Context, version: int, answer: Answer) -> Asker:
    """Tell a shard who asks."""
    host = context.client_address.rpartition(":")[0]
    return Asker(context.client_id or "", f"/{host}", version, answer)


def merged(replies: list[Reply], merge: Callable[[list[ApiMessage]], ApiMessage]) -> Reply:
    """Answer once, when several answers are there.

    Args:
        replies: the answers.
        merge: makes one response of theirs, which are in the same order.
    """
    pending = Pending()
    left = 1

    def one_more(response: ApiMessage | None) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            found = [each.response if isinstance(each, Pending) else each for each in replies]
            pending.finish(merge([each for each in found if each is not None]))

    for reply in replies:
        if isinstance(reply, Pending) and not reply.is_done:
            left += 1
            reply.when_done(one_more)
    one_more(None)
    return pending.response if pending.is_done else pending


def _code_of(error: StorageError) -> int:
    """Return what a client is told of records that could not be appended; it tries again."""
    is_full = isinstance(error, DiskFull)
    return codes.COORDINATOR_NOT_AVAILABLE if is_full else codes.NOT_COORDINATOR
