"""ConsumerGroupDescribe, versions 0-1: groups of the consumer protocol with their members.

    1   which protocol each member speaks

Of what members have and are to have, topics that are gone are left out.
Kafka: GroupCoordinatorService.consumerGroupDescribe, ConsumerGroup.asDescribedGroup, KIP-848.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from ottla.broker.groups import merged
from ottla.broker.handlers.api_15_describe_groups import GROUP_OPERATIONS
from ottla.coordinator.group.consumer.group import ConsumerGroup, Member
from ottla.coordinator.group.consumer.records import TopicPartition, by_topic
from ottla.coordinator.group.decision import Decision
from ottla.errors import codes
from ottla.protocol.messages.api_69_consumer_group_describe import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
)

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.coordinator.group.coordinator import GroupCoordinator
    from ottla.coordinator.group.decision import Answer
    from ottla.coordinator.group.timers import Now
    from ottla.protocol.message import ApiMessage


_CLASSIC, _CONSUMER = 0, 1

_Group: TypeAlias = ConsumerGroupDescribeResponse.DescribedGroup
_Member: TypeAlias = ConsumerGroupDescribeResponse.Member
_Assignment: TypeAlias = ConsumerGroupDescribeResponse.Assignment


def handle(
    engine: Engine, request: ConsumerGroupDescribeRequest, version: int, context: Context
) -> Reply:
    """Tell of each group that was asked for."""
    replies = [_ask(engine, group_id) for group_id in request.group_ids]

    def merge(responses: list[ApiMessage]) -> ConsumerGroupDescribeResponse:
        groups: list[_Group] = []
        for response in responses:
            assert isinstance(response, ConsumerGroupDescribeResponse)
            groups += response.groups
        for group in groups if request.include_authorized_operations else ():
            if group.error_code == codes.NONE:
                group.authorized_operations = GROUP_OPERATIONS
        return ConsumerGroupDescribeResponse(groups=groups)

    return merged(replies, merge)


def _ask(engine: Engine, group_id: str) -> Reply:
    def refused(error: int, message: str | None = None) -> ConsumerGroupDescribeResponse:
        group = _Group(group_id=group_id, error_code=error, error_message=message)
        return ConsumerGroupDescribeResponse(groups=[group])

    def decide(coordinator: GroupCoordinator, answer: Answer, now: Now) -> Decision:
        group = coordinator.groups.get(group_id)
        if isinstance(group, ConsumerGroup):
            response = ConsumerGroupDescribeResponse(groups=[_describe(engine, group)])
        else:
            what = "not found" if group is None else "is not a consumer group"
            response = refused(codes.GROUP_ID_NOT_FOUND, f"Group {group_id} {what}.")
        decision = Decision(waits=True)
        decision.reply(answer, response, refused)
        return decision

    return engine.groups.ask(group_id, decide, refused)


def _describe(engine: Engine, group: ConsumerGroup) -> _Group:
    return _Group(
        group_id=group.group_id,
        group_state=group.state_name,
        group_epoch=group.group_epoch,
        assignment_epoch=group.assignment_epoch,
        assignor_name=group.preferred_assignor() or engine.configs.group_consumer_assignors[0],
        members=[_describe_member(engine, group, each) for each in group.members.values()],
    )


def _describe_member(engine: Engine, group: ConsumerGroup, member: Member) -> _Member:
    return _Member(
        member_id=member.member_id,
        instance_id=member.instance_id,
        rack_id=member.rack_id,
        member_epoch=member.member_epoch,
        client_id=member.client_id,
        client_host=member.client_host,
        subscribed_topic_names=sorted(member.topic_names),
        subscribed_topic_regex=member.topic_regex,
        assignment=_assignment(engine, member.assigned),
        target_assignment=_assignment(engine, group.target.get(member.member_id, ())),
        member_type=_CONSUMER if member.classic is None else _CLASSIC,
    )


def _assignment(engine: Engine, partitions: Iterable[TopicPartition]) -> _Assignment:
    known = engine.cluster.topics_by_id
    return _Assignment(
        topic_partitions=[
            ConsumerGroupDescribeResponse.TopicPartitions(
                topic_id=topic_id, topic_name=known[topic_id].name, partitions=indexes
            )
            for topic_id, indexes in by_topic(partitions).items()
            if topic_id in known
        ]
    )
