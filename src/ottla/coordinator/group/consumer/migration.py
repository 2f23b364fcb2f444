"""A classic group becomes a consumer group, and the other way round, with its members in it.

    upgraded     when a member of the consumer protocol joins a classic group of consumers: what
                 their leader assigned last is what they have, and the generation is the epoch
    downgraded   when the last member of the consumer protocol is gone: what the members have is
                 what they were assigned, the epoch is the generation, and a rebalance follows

`group.consumer.migration.policy` says which of them may be.

Kafka: ConsumerGroup.fromClassicGroup, ClassicGroup.fromConsumerGroup, ConsumerGroupMigrationPolicy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ottla.coordinator.group.classic import CONSUMER, ClassicGroup, chosen_protocol
from ottla.coordinator.group.consumer.changes import Change, Refused, Topics
from ottla.coordinator.group.consumer.group import (
    ClassicSide,
    ConsumerGroup,
    Member,
    MemberState,
)
from ottla.coordinator.group.consumer.records import (
    TopicPartition,
    assignment_epoch_record,
    by_topic,
    current_record,
    group_epoch_record,
    member_record,
    records_of_no_group,
    target_record,
)
from ottla.coordinator.group.records import GroupRecord, group_record
from ottla.coordinator.group.told import CLIENTS_ASSIGNORS, assignment_of, subscription_of
from ottla.errors import DecodeError, codes
from ottla.protocol.codec import encode_to
from ottla.protocol.messages.embedded_data import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)
from ottla.protocol.messages.group_records import GroupMetadataValue
from ottla.wire.cursor import Reader, Writer

if TYPE_CHECKING:
    from ottla.coordinator.group import classic
    from ottla.coordinator.group.timers import Now

UPGRADES = frozenset({"bidirectional", "upgrade"})
"""The policies with which a classic group may become a consumer group."""

DOWNGRADES = frozenset({"bidirectional", "downgrade"})
"""The policies with which a consumer group may become a classic group."""


def owned_of_subscription(
    subscription: ConsumerProtocolSubscription, topics: Topics
) -> frozenset[TopicPartition]:
    """Return the partitions that a classic member says that it has."""
    found = ((topics.topics.get(each.topic), each) for each in subscription.owned_partitions)
    return frozenset(
        (topic.topic_id, index)
        for topic, each in found
        if topic is not None
        for index in each.partitions
    )


def encoded_assignment(
    partitions: Iterable[TopicPartition], topics: Topics, metadata: bytes
) -> bytes:
    """Return partitions as a classic member understands them, in the version of its metadata."""
    named = [
        ConsumerProtocolAssignment.TopicPartition(topic=topic.name, partitions=indexes)
        for topic_id, indexes in by_topic(partitions).items()
        if (topic := topics.topics_by_id.get(topic_id)) is not None
    ]
    try:
        version = Reader(metadata).int16()
    except DecodeError:
        version = 0
    version = max(0, min(version, ConsumerProtocolAssignment.SCHEMA.versions[1]))
    writer = Writer()
    writer.int16(version)
    encode_to(writer, ConsumerProtocolAssignment(assigned_partitions=named), version)
    return writer.joined()


def _assigned(member: classic.Member, protocol: str, topics: Topics) -> frozenset[TopicPartition]:
    """Return what a member's leader assigned it.

    An assignor of somebody's own may have told it more, which would be lost. What the clients' own
    ones tell may be: librdkafka's sticky one repeats what it assigned. Kafka refuses these too.
    """
    assignment = assignment_of(member.assignment)
    if assignment.user_data and protocol not in CLIENTS_ASSIGNORS:
        raise Refused(
            codes.GROUP_ID_NOT_FOUND,
            "Cannot upgrade the group to a consumer group because an unsupported custom assignor "
            "is in use. Please switch to a default assignor before.",
        )
    found = ((topics.topics.get(each.topic), each) for each in assignment.assigned_partitions)
    return frozenset(
        (topic.topic_id, index)
        for topic, each in found
        if topic is not None
        for index in each.partitions
        if index < topic.partitions
    )


def upgraded(group: ClassicGroup, topics: Topics, now: Now) -> Change:
    """Return a classic group as a consumer group.

    Raises:
        Refused: what its members told each other cannot be decoded.
    """
    group_id = group.group_id
    change = Change(ConsumerGroup(group_id))
    if group.is_stored:
        change.records.append(group_record(group_id, None))
    if group.is_empty:
        return change
    try:
        members = [_upgraded_member(group, each, topics) for each in group.members.values()]
        members = _with_unrevoked(group, members, topics)
    except DecodeError:
        raise Refused(
            codes.GROUP_ID_NOT_FOUND,
            f"Cannot upgrade classic group {group_id} to consumer group "
            "because the embedded consumer protocol is malformed.",
        ) from None
    change.add(member_record(group_id, each) for each in members)
    change.add([group_epoch_record(group_id, group.generation_id, 0)])
    change.add(target_record(group_id, each.member_id, each.assigned) for each in members)
    change.add([assignment_epoch_record(group_id, group.generation_id, now.wall_ms)])
    change.add(current_record(group_id, each) for each in members)
    return change


def _subscription(
    group: ClassicGroup, member: classic.Member
) -> tuple[str, ConsumerProtocolSubscription]:
    """Return the protocol that counts for a member, and what it told with it."""
    name = group.protocol_name
    if name not in member.protocols:
        name = next(iter(member.protocols), "")
    return name or "", subscription_of(member.protocols.get(name or "", b""))


def _upgraded_member(group: ClassicGroup, member: classic.Member, topics: Topics) -> Member:
    name, subscription = _subscription(group, member)
    epoch = group.generation_id
    return Member(
        member.member_id,
        instance_id=member.group_instance_id,
        rack_id=subscription.rack_id,
        client_id=member.client_id,
        client_host=member.client_host,
        topic_names=frozenset(subscription.topics),
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        classic=ClassicSide(member.session_timeout_ms, tuple(member.protocols.items())),
        member_epoch=epoch,
        previous_member_epoch=epoch,
        assigned=dict.fromkeys(sorted(_assigned(member, name, topics)), epoch),
    )


def _with_unrevoked(group: ClassicGroup, members: list[Member], topics: Topics) -> list[Member]:
    """Let cooperative members have to give up what they had when they joined, and are to have no
    more: whether they read it still is not known before they join again.

    Where two say that they have the same, it is whose generation is the later. Kafka's coordinator
    takes what was assigned for what they have.
    """
    said = {
        each.member_id: _subscription(group, group.members[each.member_id])[1] for each in members
    }
    taken = {partition for each in members for partition in each.assigned}
    found = {}
    for member in sorted(members, key=lambda each: -said[each.member_id].generation_id):
        owned = owned_of_subscription(said[member.member_id], topics) - taken
        taken |= owned
        found[member.member_id] = dict.fromkeys(sorted(owned), group.generation_id)
    return [
        replace(
            each,
            state=MemberState.UNREVOKED_PARTITIONS,
            pending_revocation=found[each.member_id],
        )
        if found[each.member_id]
        else each
        for each in members
    ]


def downgraded(
    group: ConsumerGroup, left: list[Member], topics: Topics, now: Now
) -> list[GroupRecord]:
    """Return the records that make a consumer group a classic one.

    Args:
        group: the group.
        left: the members that it is to have, all of them of the classic protocol.
        topics: the topics that there are.
        now: the time.
    """
    name = common_protocol(left)
    value = GroupMetadataValue(
        protocol_type=CONSUMER,
        generation=group.group_epoch,
        protocol=name,
        leader=left[0].member_id,
        current_state_timestamp=now.wall_ms,
        members=[_downgraded_member(each, name or "", topics) for each in left],
    )
    return [*records_of_no_group(group), group_record(group.group_id, value)]


def common_protocol(members: Iterable[Member]) -> str | None:
    """Return the protocol that members of the classic protocol would choose, or None."""
    return chosen_protocol(
        [dict(each.classic.protocols) for each in members if each.classic is not None]
    )


def _downgraded_member(
    member: Member, protocol: str, topics: Topics
) -> GroupMetadataValue.MemberMetadata:
    assert member.classic is not None
    metadata = dict(member.classic.protocols).get(protocol, b"")
    return GroupMetadataValue.MemberMetadata(
        member_id=member.member_id,
        group_instance_id=member.instance_id,
        client_id=member.client_id,
        client_host=member.client_host,
        rebalance_timeout=member.rebalance_timeout_ms,
        session_timeout=member.classic.session_timeout_ms,
        subscription=metadata,
        assignment=encoded_assignment(member.assigned, topics, metadata),
    )
