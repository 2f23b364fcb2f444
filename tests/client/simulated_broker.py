"""A broker for simulations: the real coordinator of groups, and messages that are slow or lost.

Nothing happens by itself and nothing takes real time. What is to happen lies in a queue, in the
order of a clock that goes from one event to the next. A connection delivers in order, and the
broker works at one request of it at a time, as Kafka does; it may break at any moment, and whoever
has sent something does not know then whether it arrived.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ottla.broker.handlers.api_15_describe_groups import _describe
from ottla.clock import ManualClock
from ottla.coordinator.group.classic import ClassicGroup
from ottla.coordinator.group.coordinator import Commit, Committer
from ottla.coordinator.group.membership import Asker
from ottla.coordinator.group.offsets import CommittedOffset
from ottla.errors import BrokerUnavailable, codes
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_02_list_offsets import ListOffsetsRequest, ListOffsetsResponse
from ottla.protocol.messages.api_03_metadata import MetadataRequest, MetadataResponse
from ottla.protocol.messages.api_08_offset_commit import OffsetCommitRequest, OffsetCommitResponse
from ottla.protocol.messages.api_09_offset_fetch import OffsetFetchRequest, OffsetFetchResponse
from ottla.protocol.messages.api_10_find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from ottla.protocol.messages.api_11_join_group import JoinGroupRequest
from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest
from ottla.protocol.messages.api_13_leave_group import LeaveGroupRequest
from ottla.protocol.messages.api_14_sync_group import SyncGroupRequest
from ottla.protocol.messages.api_15_describe_groups import (
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from ottla.protocol.messages.api_18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from ottla.protocol.messages.api_68_consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from tests.client.scripted_group import VERSIONS
from tests.coordinator.group.consumer.members import ConsumerShard

if TYPE_CHECKING:
    from ottla.client.network import Call, Listener

EARLIEST = -2
_API_VERSIONS = {**VERSIONS, ConsumerGroupHeartbeatRequest.API_KEY: (0, 1)}
_DELAY_MS_MAX = 20.0
_SLOW_MS_MAX = 2000.0


class Happenings:
    """What is to happen, and when.

    Attributes:
        clock: stands still while something happens.
    """

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.clock.advance(1000)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    @property
    def now(self) -> float:
        return self.clock.monotonic_ms()

    def at(self, time_ms: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (max(time_ms, self.now), next(self._numbers), action))

    def after(self, delay_ms: float, action: Callable[[], None]) -> None:
        self.at(self.now + delay_ms, action)

    def next_ms(self) -> float | None:
        return self._queue[0][0] if self._queue else None

    def pop(self) -> Callable[[], None]:
        return heapq.heappop(self._queue)[2]


class QuickShard(ConsumerShard):
    """A shard that does not load all that it has after each record."""

    def _check_what_is_loaded(self) -> None:
        pass


class Broker:
    """Answers what consumers ask.

    Attributes:
        shard: the coordinator; a restart makes a new one of its log.
        ends: how many records each partition has.
        is_up: whether it can be reached.
        loss: how likely it is that a connection breaks with a message.
        slowness: how likely it is that a message takes long.
        committed: is called with each offset that is stored, as (topic, partition, offset).
    """

    def __init__(self, happenings: Happenings, rng: random.Random, **settings: Any) -> None:
        self.happenings = happenings
        self.rng = rng
        self.shard: ConsumerShard = QuickShard(clock=happenings.clock, **settings)
        self.ends: dict[tuple[str, int], int] = {}
        self.is_up = True
        self.loss = 0.0
        self.slowness = 0.0
        self.committed: Callable[[str, int, int], None] = lambda topic, partition, offset: None
        self.connections: list[Connection] = []

    def delay_ms(self) -> float:
        limit = _SLOW_MS_MAX if self.rng.random() < self.slowness else _DELAY_MS_MAX
        return self.rng.random() * limit

    def restart(self, down_ms: float) -> None:
        """Lose all connections and all that is only in memory; be up again later."""
        self.is_up = False
        for each in list(self.connections):
            each.lose()
        again = self.shard.reloaded()
        assert isinstance(again, ConsumerShard)
        self.shard = again
        self.happenings.after(down_ms, self._come_up)

    def _come_up(self) -> None:
        # Deadlines begin when it is up: a start gives everybody a whole session.
        again = self.shard.reloaded()
        assert isinstance(again, ConsumerShard)
        self.shard = again
        self.is_up = True

    def committed_of(self, topic: str, partition: int) -> int:
        """Return what is committed; 0 where nothing is."""
        found = self.shard.coordinator.fetch("g", topic, partition, stable=True)
        return found.offset if isinstance(found, CommittedOffset) else 0

    # -- requests

    def take(self, call: Call, answer: Callable[[ApiMessage], None]) -> None:
        """Work at a request; the answer may come at once, or later."""
        request = call.request
        shard = self.shard
        asker = Asker("c", "/here", call.version, answer)
        coordinator = shard.coordinator
        if isinstance(request, JoinGroupRequest):
            shard.do(coordinator.join(request, asker, shard.now))
        elif isinstance(request, SyncGroupRequest):
            shard.do(coordinator.sync(request, asker, shard.now))
        elif isinstance(request, HeartbeatRequest):
            shard.do(coordinator.heartbeat(request, asker, shard.now))
        elif isinstance(request, LeaveGroupRequest):
            shard.do(coordinator.leave(request, asker, shard.now))
        elif isinstance(request, ConsumerGroupHeartbeatRequest):
            shard.do(coordinator.consumers.heartbeat(request, asker, shard.now))
        elif isinstance(request, OffsetCommitRequest):
            answer(self._commit(request, call.version))
        elif isinstance(request, OffsetFetchRequest):
            answer(self._fetch_offsets(request))
        elif isinstance(request, DescribeGroupsRequest):
            group = coordinator.groups.get("g")
            described = [_describe(group)] if isinstance(group, ClassicGroup) else []
            answer(DescribeGroupsResponse(groups=described))
        elif isinstance(request, ListOffsetsRequest):
            answer(self._list_offsets(request))
        elif isinstance(request, MetadataRequest):
            answer(self._metadata(request))
        elif isinstance(request, FindCoordinatorRequest):
            found = FindCoordinatorResponse.Coordinator(key="g", node_id=1, host="sim", port=1)
            answer(FindCoordinatorResponse(coordinators=[found]))
        else:
            assert isinstance(request, ApiVersionsRequest), request
            api = ApiVersionsResponse.ApiVersion
            keys = [
                api(api_key=key, min_version=low, max_version=high)
                for key, (low, high) in _API_VERSIONS.items()
            ]
            answer(ApiVersionsResponse(api_keys=keys))

    def _commit(self, request: OffsetCommitRequest, version: int) -> OffsetCommitResponse:
        shard = self.shard
        committer = Committer(
            "g",
            request.member_id,
            request.group_instance_id,
            request.generation_id_or_member_epoch,
            version,
        )
        topics = shard.cluster.topics
        asked = [(topic.name, each) for topic in request.topics for each in topic.partitions]
        commits = [
            Commit(name, topics[name].topic_id, each.partition_index, each.committed_offset, -1, "")
            for name, each in asked
        ]
        errors, decision = shard.coordinator.commit(committer, commits, shard.now)
        shard.do(decision)
        response = OffsetCommitResponse()
        for (name, each), error in zip(asked, errors, strict=True):
            if error == codes.NONE:
                self.committed(name, each.partition_index, each.committed_offset)
            told = OffsetCommitResponse.OffsetCommitResponsePartition(
                partition_index=each.partition_index, error_code=error
            )
            response.topics.append(
                OffsetCommitResponse.OffsetCommitResponseTopic(name=name, partitions=[told])
            )
        return response

    def _fetch_offsets(self, request: OffsetFetchRequest) -> OffsetFetchResponse:
        [asked] = request.groups
        topics = []
        for topic in asked.topics or ():
            partitions = []
            for number in topic.partition_indexes:
                found = self.shard.coordinator.fetch("g", topic.name, number, stable=True)
                offset = found.offset if isinstance(found, CommittedOffset) else -1
                partitions.append(
                    OffsetFetchResponse.OffsetFetchResponsePartitions(
                        partition_index=number, committed_offset=offset, metadata=""
                    )
                )
            topics.append(
                OffsetFetchResponse.OffsetFetchResponseTopics(
                    name=topic.name, partitions=partitions
                )
            )
        group = OffsetFetchResponse.OffsetFetchResponseGroup(group_id="g", topics=topics)
        return OffsetFetchResponse(groups=[group])

    def _list_offsets(self, request: ListOffsetsRequest) -> ListOffsetsResponse:
        partition = ListOffsetsResponse.ListOffsetsPartitionResponse
        return ListOffsetsResponse(
            topics=[
                ListOffsetsResponse.ListOffsetsTopicResponse(
                    name=topic.name,
                    partitions=[
                        partition(
                            partition_index=each.partition_index,
                            offset=0
                            if each.timestamp == EARLIEST
                            else self.ends[topic.name, each.partition_index],
                        )
                        for each in topic.partitions
                    ],
                )
                for topic in request.topics
            ]
        )

    def _metadata(self, request: MetadataRequest) -> MetadataResponse:
        cluster = self.shard.cluster
        partition = MetadataResponse.MetadataResponsePartition
        topics = []
        for asked in request.topics or ():
            by_id = cluster.topics_by_id.get(asked.topic_id)
            topic = by_id if asked.name is None else cluster.topics.get(asked.name)
            assert topic is not None
            partitions = [
                partition(partition_index=n, leader_id=1) for n in range(topic.partitions)
            ]
            topics.append(
                MetadataResponse.MetadataResponseTopic(
                    name=topic.name, topic_id=topic.topic_id, partitions=partitions
                )
            )
        broker = MetadataResponse.MetadataResponseBroker(node_id=1, host="sim", port=1)
        return MetadataResponse(brokers=[broker], cluster_id="c", controller_id=1, topics=topics)


class Connection:
    """A connection of a client, with messages under way in both directions."""

    peer = "sim:1"

    def __init__(self, network: Network, listener: Listener) -> None:
        self._network = network
        self._broker = network.broker
        self._happenings = network.broker.happenings
        self._listener = listener
        self._is_open = True
        self._arrives_ms = self._returns_ms = 0.0
        self._queue: deque[Call] = deque()
        self._is_busy = False

    def send(self, call: Call) -> None:
        broker = self._broker
        call.sent_ns = broker.happenings.clock.monotonic_ns()
        assert call.request is not None, "taken as it is when it is sent"
        if broker.rng.random() < broker.loss:
            self._happenings.after(broker.delay_ms(), self.lose)
            if broker.rng.random() < 0.5:  # else it arrives, and nobody will know
                return
        self._arrives_ms = max(self._arrives_ms, self._happenings.now + broker.delay_ms())
        self._happenings.at(self._arrives_ms, lambda: self._arrive(call))

    def _arrive(self, call: Call) -> None:
        if self not in self._broker.connections:
            # What was sent before a connection broke may arrive behind that.
            if self._broker.is_up and self._broker.rng.random() < 0.5:
                self._broker.take(call, lambda response: None)
            return
        self._queue.append(call)
        self._go_on()

    def _go_on(self) -> None:
        while self._queue and not self._is_busy:
            self._is_busy = True
            call = self._queue.popleft()
            self._broker.take(call, partial(self._answer, call))

    def _answer(self, call: Call, response: ApiMessage) -> None:
        self._is_busy = False
        self._returns_ms = max(self._returns_ms, self._happenings.now + self._broker.delay_ms())
        self._happenings.at(
            self._returns_ms,
            lambda: self._network.hand_over(lambda: self._deliver(call, response)),
        )
        self._go_on()

    def _deliver(self, call: Call, response: ApiMessage) -> None:
        if self._is_open:
            self._listener.answered(call, response)

    def why_gone(self) -> None:
        return None

    def close(self) -> None:
        self._is_open = False
        if self in self._broker.connections:
            self._broker.connections.remove(self)

    def lose(self) -> None:
        """Break."""
        if self in self._broker.connections:
            self._broker.connections.remove(self)

        def tell() -> None:
            if self._is_open:
                self._is_open = False
                self._listener.lost(BrokerUnavailable("gone", stage="connection"))

        self._network.hand_over(tell)


class Network:
    """What a client sees of the broker; it is handed over in the client's turns.

    Attributes:
        arrived: is called when there is something.
    """

    def __init__(self, broker: Broker) -> None:
        self.bootstrap = [("sim", 1)]
        self.address = "sim:1"
        self.broker = broker
        self.arrived: Callable[[], None] = lambda: None
        self._inbox: list[Callable[[], None]] = []

    def connect(self, host: str, port: int, listener: Listener) -> Callable[[], None]:
        connection = Connection(self, listener)

        def open_it() -> None:
            if self.broker.is_up:
                self.broker.connections.append(connection)
                self.hand_over(lambda: listener.connected(connection))
            else:
                refusal = BrokerUnavailable("nothing is listening on sim:1 (refused)")
                self.hand_over(lambda: listener.refused(refusal))

        self.broker.happenings.after(self.broker.delay_ms(), open_it)
        return connection.close

    def hand_over(self, what: Callable[[], None]) -> None:
        self._inbox.append(what)
        self.arrived()

    def poll(self, timeout_s: float) -> None:
        inbox, self._inbox = self._inbox, []
        for each in inbox:
            each()

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass
