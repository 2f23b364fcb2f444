"""A consumer's place in its group, kept up in the client's turns.

Whoever does a turn does this work, the client's own thread where nobody polls: heartbeats, joins
and syncs never wait for the user. What the user's thread has to do, giving partitions back and
taking new ones, it finds in `membership.take_change`.

Kafka: ConsumerCoordinator.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from ottla.client.classic_membership import ClassicMembership
from ottla.client.consumer_membership import ConsumerMembership
from ottla.client.coordinator import Coordinator
from ottla.client.lookup import UNKNOWN_TOPIC_MS
from ottla.client.network import Call
from ottla.client.offsets import GroupOffsets
from ottla.client.topic_ids import TopicIds
from ottla.errors import FencedMember, KafkaError, codes
from ottla.protocol.messages.api_11_join_group import JoinGroupRequest, JoinGroupResponse
from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest, HeartbeatResponse
from ottla.protocol.messages.api_13_leave_group import LeaveGroupRequest, LeaveGroupResponse
from ottla.protocol.messages.api_14_sync_group import SyncGroupRequest, SyncGroupResponse
from ottla.protocol.messages.api_15_describe_groups import (
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from ottla.protocol.messages.api_68_consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)

if TYPE_CHECKING:
    from ottla.client.cluster import Cluster
    from ottla.client.config import ConsumerConfig
    from ottla.client.membership import Membership
    from ottla.client.node import Node
    from ottla.clock import Clock
    from ottla.protocol.message import ApiMessage

_RESPONSES: dict[type[ApiMessage], type[ApiMessage]] = {
    JoinGroupRequest: JoinGroupResponse,
    SyncGroupRequest: SyncGroupResponse,
    DescribeGroupsRequest: DescribeGroupsResponse,
    HeartbeatRequest: HeartbeatResponse,
    LeaveGroupRequest: LeaveGroupResponse,
    ConsumerGroupHeartbeatRequest: ConsumerGroupHeartbeatResponse,
}
_FIRST_VERSION_WITH_PATTERN = 1
_FIRST_VERSION_WITH_SEVERAL_LEAVING = 3


class Group:
    """A group as one consumer sees it.

    Attributes:
        membership: the place in it.
        offsets: its offsets.
        fenced: why it can never be a member again, or None.
        is_member: whether topics are subscribed to, so that it is or wants to be a member.

    Args:
        group_id: the group.
        cluster: the brokers.
        config: the consumer's settings.
        clock: where time comes from.
    """

    def __init__(
        self, group_id: str, cluster: Cluster, config: ConsumerConfig, clock: Clock
    ) -> None:
        self.membership: Membership = ClassicMembership(group_id, config)
        if config.protocol != "classic":
            self.membership = ConsumerMembership(group_id, config, str(uuid.uuid4()))
        self.coordinator = Coordinator(group_id, cluster, config, clock)
        self.offsets = GroupOffsets(group_id, self.coordinator, config, clock)
        self.is_member = False
        self._group_id = group_id
        self._config = config
        self._cluster = cluster
        self._clock = clock
        self._ids = TopicIds(cluster, config, clock)
        self._topics: frozenset[str] = frozenset()
        self._pattern = ""
        self._leaves: list[ApiMessage] = []
        self._leaving = False
        self.fenced: FencedMember | None = None

    # -- wishes

    def subscribe(self, topics: frozenset[str], pattern: str = "") -> None:
        """Be a member that wants topics, or what matches for the broker; others are given back."""
        self.is_member = True
        self.offsets.member = self.membership
        self._topics, self._pattern = topics, pattern
        self.membership.subscribe(topics, pattern)

    def _become_classic(self, now: float) -> None:
        """Join again with the classic protocol: the other one cannot be."""
        self.membership = ClassicMembership(self._group_id, self._config)
        self.membership.polled(now)
        self.subscribe(self._topics, self._pattern)

    def leave(self) -> None:
        """Be no member any more; what it had is lost."""
        self._topics, self._pattern = frozenset(), ""
        self.membership.subscribe(frozenset())
        self._note_leave()
        self.is_member = False

    def no_member(self) -> None:
        """Use the group's offsets only."""
        self.leave()
        self.offsets.member = None

    @property
    def has_left(self) -> bool:
        """Whether nothing is to be sent any more so that it is no member."""
        return not self._leaves and not self._leaving

    @property
    def has_left_for_good(self) -> bool:
        """Whether it is no member, and the coordinator knows."""
        return self.membership.is_out and self.has_left

    def take_error(self) -> KafkaError | None:
        """Return what the user must be told, once; that it is fenced every time."""
        error = self.membership.error
        if isinstance(error, FencedMember):
            self.fenced = error
        self.membership.error = None
        if error is None:
            error, self.coordinator.error = self.coordinator.error, None
        return self.fenced or error

    @property
    def has_error(self) -> bool:
        """Whether there is something that the user must be told."""
        errors = (self.fenced, self.membership.error, self.coordinator.error)
        return any(error is not None for error in errors)

    # -- time

    def step(self, now: float) -> float | None:
        """Do what is due; returns when to look again, on the monotonic clock, or None."""
        if self.membership.wants_classic and not self.membership.has_change() and self.is_member:
            self._become_classic(now)
        membership = self.membership
        due = [membership.step(now), self.coordinator.step(now), self.offsets.step(now)]
        self._tell_partitions()
        due.append(self._tell_topics(now))
        self._note_leave()
        if self._leaves and not self._leaving:
            self._maybe_leave()
        # Who joins again before it has left would be a second member for a while.
        if self.is_member and self.has_left:
            due.append(self._maybe_send(now))
        known = [each for each in due if each is not None]
        return min(known) if known else None

    def _note_leave(self) -> None:
        leave = self.membership.take_leave()
        if leave is not None:
            self._leaves.append(leave)

    def _maybe_send(self, now: float) -> float | None:
        if self.membership.loses_coordinator:
            self.membership.loses_coordinator = False
            self.coordinator.forget()
        node = self.coordinator.node_for_membership()
        if node is None:
            return None
        if self._is_unsupported(node):
            self.membership.unsupported(now)
            return now
        request = self.membership.next_request(now)
        if request is None:
            return None

        def done(response: ApiMessage | None, error: KafkaError | None) -> None:
            now = self._clock.monotonic_ms()
            if response is not None:
                self.membership.answered(request, response, now)
                self._tell_topics(now)
                return
            if error is not None and not isinstance(error, ConnectionError):
                self.coordinator.error = error
            self.membership.failed(request, now)

        timeout_ms = self.membership.timeout_ms(request)
        node.send(Call(request, _RESPONSES[type(request)], done, timeout_ms=timeout_ms))
        return self.membership.step(now)

    def _is_unsupported(self, node: Node) -> bool:
        membership = self.membership
        if not isinstance(membership, ConsumerMembership) or membership.is_out:
            return False
        version = node.best_version(ConsumerGroupHeartbeatRequest)
        return version < (_FIRST_VERSION_WITH_PATTERN if membership.pattern else 0)

    def _maybe_leave(self) -> None:
        """Send what says that it has left.

        On its own connection a classic member may wait for others, so it goes on the other one.
        Heartbeats are answered at once, and there it must not overtake one that still joins.
        """
        leave = self._leaves[0]
        is_classic = isinstance(leave, LeaveGroupRequest)
        coordinator = self.coordinator
        node = coordinator.node_for_commits() if is_classic else coordinator.node_for_membership()
        if node is None:
            return
        del self._leaves[0]
        self._leaving = True

        def done(response: ApiMessage | None, error: KafkaError | None) -> None:
            self._leaving = False

        request = _in_version(leave, node) if isinstance(leave, LeaveGroupRequest) else leave
        node.send(Call(request, _RESPONSES[type(leave)], done))

    def _tell_partitions(self) -> None:
        """Tell a member that leads how many partitions topics have, as soon as that is known."""
        topics = self.membership.topics_to_know
        if not topics:
            return
        self._cluster.want(topics)
        counts: dict[str, int] = {}
        for topic in topics:
            info = self._cluster.topics[topic]
            if not info.updated_ms:
                return
            late = self._clock.monotonic_ms() - info.error_since_ms >= UNKNOWN_TOPIC_MS
            is_gone = info.error == codes.UNKNOWN_TOPIC_OR_PARTITION and late
            counts[topic] = 0 if is_gone else len(info.leaders)
        self.membership.topics_known(counts)

    def _tell_topics(self, now: float) -> float | None:
        """Tell a member of topics whose ids it was told; returns when to look again, or None."""
        membership = self.membership
        if not membership.ids_to_know:
            return None
        membership.topics_found(self._ids.find(membership.ids_to_know))
        if membership.ids_to_know:
            return self._ids.ask(membership.ids_to_know, now)
        return now  # the user's thread has something to do

    def close(self) -> None:
        """Close the connections."""
        self.coordinator.close(KafkaError("the consumer is closed"))


def _in_version(leave: LeaveGroupRequest, node: Node) -> LeaveGroupRequest:
    if node.best_version(LeaveGroupRequest) >= _FIRST_VERSION_WITH_SEVERAL_LEAVING:
        return leave
    return LeaveGroupRequest(group_id=leave.group_id, member_id=leave.members[0].member_id)
