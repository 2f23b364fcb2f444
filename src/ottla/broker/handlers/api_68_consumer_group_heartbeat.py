"""ConsumerGroupHeartbeat, versions 0-1: members of the consumer protocol join, stay and leave.

    0   a member that joins may leave it to the broker to name it
    1   a member names itself; regular expressions

While a group is being loaded a member is told so, and comes again.
Kafka: GroupCoordinatorService.consumerGroupHeartbeat, KIP-848, KIP-1082.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.broker.groups import asker_of
from ottla.coordinator.group.consumer.group import JOINING, LEAVING, LEAVING_FOR_A_WHILE
from ottla.coordinator.group.consumer.membership import heartbeat_error
from ottla.errors import codes

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.coordinator.group.coordinator import GroupCoordinator
    from ottla.coordinator.group.decision import Answer, Decision
    from ottla.coordinator.group.timers import Now
    from ottla.protocol.messages.api_68_consumer_group_heartbeat import (
        ConsumerGroupHeartbeatRequest,
    )


_FIRST_VERSION_WITH_OWN_MEMBER_ID = 1
_NOT_GIVEN = -1


def handle(
    engine: Engine, request: ConsumerGroupHeartbeatRequest, version: int, context: Context
) -> Reply:
    """Let a member join, stay or leave."""
    problem = _problem(request, version)
    if problem is not None:
        return heartbeat_error(codes.INVALID_REQUEST, problem)
    assignors = engine.configs.group_consumer_assignors
    if request.server_assignor is not None and request.server_assignor not in assignors:
        return heartbeat_error(
            codes.UNSUPPORTED_ASSIGNOR,
            f"ServerAssignor {request.server_assignor} is not supported. "
            f"Supported assignors: {', '.join(assignors)}.",
        )

    def decide(coordinator: GroupCoordinator, answer: Answer, now: Now) -> Decision:
        asker = asker_of(context, version, answer)
        return coordinator.consumers.heartbeat(request, asker, now)

    is_joining = request.member_epoch == JOINING
    return engine.groups.ask(request.group_id, decide, heartbeat_error, creates=is_joining)


def _problem(request: ConsumerGroupHeartbeatRequest, version: int) -> str | None:
    """Return what is wrong with a request, whatever the group may be."""
    names_itself = version >= _FIRST_VERSION_WITH_OWN_MEMBER_ID
    needs_id = names_itself or request.member_epoch > JOINING or request.member_epoch == LEAVING
    if needs_id and not request.member_id.strip():
        return "MemberId can't be empty."
    if not request.group_id.strip():
        return "GroupId can't be empty."
    if request.instance_id is not None and not request.instance_id.strip():
        return "InstanceId can't be empty."
    if request.rack_id is not None and not request.rack_id.strip():
        return "RackId can't be empty."
    if request.member_epoch == JOINING:
        return _problem_of_join(request)
    if request.member_epoch == LEAVING_FOR_A_WHILE and request.instance_id is None:
        return "InstanceId can't be null."
    return "MemberEpoch is invalid." if request.member_epoch < LEAVING_FOR_A_WHILE else None


def _problem_of_join(request: ConsumerGroupHeartbeatRequest) -> str | None:
    if request.rebalance_timeout_ms == _NOT_GIVEN:
        return "RebalanceTimeoutMs must be provided in first request."
    if request.topic_partitions is None or request.topic_partitions:
        return "TopicPartitions must be empty when (re-)joining."
    if request.subscribed_topic_names is None and request.subscribed_topic_regex is None:
        return (
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null "
            "when (re-)joining."
        )
    return None
