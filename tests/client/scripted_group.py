"""A coordinator without a broker: one member's group requests, answered by the test.

`Script` (`tests.client.scripted`) does the same for a producer; the network is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ottla.client.assignors import (
    Subscription,
    decode_assignment,
    encode_assignment,
    encode_subscription,
)
from ottla.client.config import ConsumerConfig
from ottla.client.consumer_core import ConsumerCore
from ottla.client.lookup import TopicPartition
from ottla.client.network import Call
from ottla.client.rebalancing import Rebalancing
from ottla.clock import ManualClock
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_01_fetch import FetchRequest
from ottla.protocol.messages.api_02_list_offsets import ListOffsetsRequest, ListOffsetsResponse
from ottla.protocol.messages.api_03_metadata import MetadataRequest, MetadataResponse
from ottla.protocol.messages.api_08_offset_commit import OffsetCommitRequest, OffsetCommitResponse
from ottla.protocol.messages.api_09_offset_fetch import OffsetFetchRequest, OffsetFetchResponse
from ottla.protocol.messages.api_10_find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from ottla.protocol.messages.api_11_join_group import JoinGroupRequest, JoinGroupResponse
from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest, HeartbeatResponse
from ottla.protocol.messages.api_13_leave_group import LeaveGroupRequest, LeaveGroupResponse
from ottla.protocol.messages.api_14_sync_group import SyncGroupRequest, SyncGroupResponse
from ottla.protocol.messages.api_15_describe_groups import DescribeGroupsResponse
from ottla.protocol.messages.api_18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from tests.client.scripted import TOPIC_ID, ScriptedChannel, ScriptedNetwork

VERSIONS = {
    1: (4, 17),
    2: (1, 10),
    3: (0, 13),
    8: (2, 9),
    9: (1, 9),
    10: (0, 6),
    11: (0, 9),
    12: (0, 4),
    13: (0, 5),
    14: (0, 5),
    15: (0, 6),
    18: (0, 4),
}
ME = "me"
OTHER = "other"


def parts(*numbers: int, topic: str = "t") -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(topic, number) for number in numbers)


class GroupScript:
    """A consumer's core in a group, with a test for a coordinator and for a user.

    Attributes:
        versions: the APIs that the broker has.
        waiting: the group's requests that wait for the test's answer.
        sent: the names of all group requests, in order.
        committed: what the group has committed, by partition.
        changes: what the user was told, as (kind, partitions).
        finder_error: what FindCoordinator is answered with.
    """

    versions = VERSIONS

    def __init__(self, *topics: str, partitions: int = 4, **settings: Any) -> None:
        self.clock = ManualClock()
        self.clock.advance(1000)  # no machine's clock is at its beginning
        self.network = ScriptedNetwork(self.clock)
        settings = {"enable_auto_commit": False, **settings}
        self.config = ConsumerConfig(group_id="g", **settings)
        self.core = ConsumerCore(self.network, self.config, self.clock, None)
        self.rebalancing = Rebalancing(self.core)
        self.partitions = partitions
        self.topic_error = 0
        self.finder_error = 0
        self.finder_asked = 0
        self.waiting: list[tuple[ScriptedChannel, Call]] = []
        self.sent: list[str] = []
        self.committed: dict[TopicPartition, int] = {}
        self.changes: list[tuple[str, list[int]]] = []
        self.rebalancing.listeners = self.rebalancing.listeners._replace(
            on_assigned=self._note("assigned"),
            on_revoked=self._note("revoked"),
            on_lost=self._note("lost"),
        )
        self.core.subscribe(list(topics or ("t",)), None)

    def _note(self, kind: str) -> Callable[..., object]:
        def note(consumer: object, partitions: list[TopicPartition]) -> None:
            self.changes.append((kind, [each.partition for each in partitions]))

        return note

    @property
    def membership(self) -> Any:
        assert self.core.group is not None
        return self.core.group.membership

    # -- what happens

    def run(self, milliseconds: float = 0) -> None:
        """Let time pass without the user doing anything."""
        self.clock.advance(milliseconds)
        for _ in range(30):
            self.core.step()
            self.network.poll(0)
            calls, self.network.calls = self.network.calls, []
            for channel, call in calls:
                self._take(channel, call)

    def poll(self, milliseconds: float = 0) -> None:
        """Let time pass, and have the user poll: all changes are carried out."""
        self.clock.advance(milliseconds)
        self.membership.polled(self.clock.monotonic_ms())
        self.core.handing.finish()
        self.run()
        self.rebalancing.carry_out(None, 0)
        self.run()

    def _take(self, channel: ScriptedChannel, call: Call) -> None:
        request = call.request
        response = self._response(request)
        if response is not None:
            self.reply(channel, call, response)
        elif not isinstance(request, FetchRequest):
            self.sent.append(type(request).__name__.removesuffix("Request"))
            self.waiting.append((channel, call))

    @staticmethod
    def reply(channel: ScriptedChannel, call: Call, response: ApiMessage) -> None:
        if channel.is_open:
            channel.listener.answered(call, response)

    def next(self, request_class: type[Any]) -> Any:
        """Return the request of that class that waits; it is the only one."""
        [found] = [
            call.request for _, call in self.waiting if isinstance(call.request, request_class)
        ]
        return found

    def answer(self, response: ApiMessage) -> None:
        """Answer the first request that waits for such a response."""
        classes = [call.response_class for _, call in self.waiting]
        channel, call = self.waiting.pop(classes.index(type(response)))
        self.reply(channel, call, response)
        self.run()

    def lose(self) -> None:
        """Break all connections: what waits gets no answer."""
        self.waiting.clear()
        for channel in self.network.channels:
            channel.lose()
        self.run()

    # -- what a coordinator answers

    def join(
        self,
        generation: int,
        *,
        protocol: str = "cooperative-sticky",
        others: dict[str, Subscription] | None = None,
        leads: bool = True,
        skip: bool = False,
    ) -> JoinGroupRequest:
        """Answer the join that waits; returns what was asked."""
        request: JoinGroupRequest = self.next(JoinGroupRequest)
        members = {ME: request.protocols[0].metadata}
        for name, subscription in (others or {}).items():
            members[name] = encode_subscription(subscription)
        self.answer(
            JoinGroupResponse(
                generation_id=generation,
                protocol_type="consumer",
                protocol_name=protocol,
                leader=ME if leads else OTHER,
                member_id=ME,
                skip_assignment=skip,
                members=[
                    JoinGroupResponse.JoinGroupResponseMember(member_id=name, metadata=metadata)
                    for name, metadata in members.items()
                ]
                if leads
                else [],
            )
        )
        return request

    def refuse_join(self, code: int, member_id: str = "") -> None:
        self.answer(
            JoinGroupResponse(
                error_code=code, protocol_type=None, protocol_name=None, member_id=member_id
            )
        )

    def sync(self, *numbers: int, topic: str = "t", error: int = 0) -> dict[str, list[int]]:
        """Answer the sync that waits; returns what this member has assigned to whom."""
        request: SyncGroupRequest = self.next(SyncGroupRequest)
        assigned = {
            each.member_id: sorted(
                where.partition for where in decode_assignment(bytes(each.assignment))
            )
            for each in request.assignments
        }
        assignment = encode_assignment(parts(*numbers, topic=topic))
        self.answer(SyncGroupResponse(error_code=error, assignment=assignment))
        return assigned

    def describe(self, assigned: dict[str, tuple[int, ...]], state: str = "Stable") -> None:
        """Answer the question that waits about who has what."""
        members = [
            DescribeGroupsResponse.DescribedGroupMember(
                member_id=name, member_assignment=encode_assignment(parts(*numbers))
            )
            for name, numbers in assigned.items()
        ]
        group = DescribeGroupsResponse.DescribedGroup(
            group_id="g", group_state=state, members=members
        )
        self.answer(DescribeGroupsResponse(groups=[group]))

    def heartbeat(self, error: int = 0) -> None:
        """Let it be time for a heartbeat, and answer it."""
        self.run(self.config.heartbeat_interval_ms)
        self.next(HeartbeatRequest)
        self.answer(HeartbeatResponse(error_code=error))

    def leave(self) -> LeaveGroupRequest:
        """Answer the request to leave that waits; returns it."""
        request: LeaveGroupRequest = self.next(LeaveGroupRequest)
        self.answer(LeaveGroupResponse())
        return request

    def commit(self, error: int = 0) -> dict[int, int]:
        """Answer the commit that waits; returns the offsets by partition."""
        request: OffsetCommitRequest = self.next(OffsetCommitRequest)
        response = OffsetCommitResponse(
            topics=[
                OffsetCommitResponse.OffsetCommitResponseTopic(
                    name=topic.name,
                    partitions=[
                        OffsetCommitResponse.OffsetCommitResponsePartition(
                            partition_index=each.partition_index, error_code=error
                        )
                        for each in topic.partitions
                    ],
                )
                for topic in request.topics
            ]
        )
        self.answer(response)
        return {
            each.partition_index: each.committed_offset
            for topic in request.topics
            for each in topic.partitions
        }

    def become_member(self, *numbers: int, generation: int = 1, **how: Any) -> None:
        """Join, and be assigned partitions."""
        self.poll()
        self.join(generation, **how)
        self.sync(*numbers)
        self.poll()

    def _response(self, request: ApiMessage) -> ApiMessage | None:
        if isinstance(request, ApiVersionsRequest):
            api = ApiVersionsResponse.ApiVersion
            keys = [
                api(api_key=key, min_version=low, max_version=high)
                for key, (low, high) in self.versions.items()
            ]
            return ApiVersionsResponse(api_keys=keys)
        if isinstance(request, MetadataRequest):
            return self._metadata(request)
        if isinstance(request, FindCoordinatorRequest):
            self.finder_asked += 1
            coordinator = FindCoordinatorResponse.Coordinator(
                key="g", node_id=1, host="script", port=1, error_code=self.finder_error
            )
            return FindCoordinatorResponse(coordinators=[coordinator])
        if isinstance(request, ListOffsetsRequest):
            return self._offsets(request)
        if isinstance(request, OffsetFetchRequest):
            return self._committed(request)
        return None

    def _metadata(self, request: MetadataRequest) -> MetadataResponse:
        partition = MetadataResponse.MetadataResponsePartition
        topics = [
            MetadataResponse.MetadataResponseTopic(
                name=each.name,
                topic_id=TOPIC_ID,
                error_code=self.topic_error,
                partitions=[
                    partition(partition_index=number, leader_id=1)
                    for number in range(0 if self.topic_error else self.partitions)
                ],
            )
            for each in request.topics or ()
        ]
        broker = MetadataResponse.MetadataResponseBroker(node_id=1, host="script", port=1)
        return MetadataResponse(brokers=[broker], cluster_id="c", controller_id=1, topics=topics)

    @staticmethod
    def _offsets(request: ListOffsetsRequest) -> ListOffsetsResponse:
        return ListOffsetsResponse(
            topics=[
                ListOffsetsResponse.ListOffsetsTopicResponse(
                    name=topic.name,
                    partitions=[
                        ListOffsetsResponse.ListOffsetsPartitionResponse(
                            partition_index=each.partition_index, offset=0
                        )
                        for each in topic.partitions
                    ],
                )
                for topic in request.topics
            ]
        )

    def _committed(self, request: OffsetFetchRequest) -> OffsetFetchResponse:
        [asked] = request.groups
        topics = [
            OffsetFetchResponse.OffsetFetchResponseTopics(
                name=topic.name,
                partitions=[
                    OffsetFetchResponse.OffsetFetchResponsePartitions(
                        partition_index=number,
                        committed_offset=self.committed.get(TopicPartition(topic.name, number), -1),
                        metadata="",
                    )
                    for number in topic.partition_indexes
                ],
            )
            for topic in asked.topics or ()
        ]
        group = OffsetFetchResponse.OffsetFetchResponseGroup(group_id="g", topics=topics)
        return OffsetFetchResponse(groups=[group])
