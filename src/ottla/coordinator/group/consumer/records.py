"""The records of a consumer group, and partitions as they stand in them.

    3   the group epoch, and a hash of its topics
    5   a member: who it is, and what it subscribed to
    6   the assignment epoch
    7   what a member is to have
    8   what a member has, and how far it is
    16  what a regular expression comes to

Type 4, the topics' partitions, is what Kafka had before 4.1; it is read past.

Kafka: GroupCoordinatorRecordHelpers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from ottla.coordinator.group.records import GroupRecord
from ottla.protocol.messages.group_records import (
    ConsumerGroupCurrentMemberAssignmentKey,
    ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupMemberMetadataKey,
    ConsumerGroupMemberMetadataValue,
    ConsumerGroupMetadataKey,
    ConsumerGroupMetadataValue,
    ConsumerGroupRegularExpressionKey,
    ConsumerGroupRegularExpressionValue,
    ConsumerGroupTargetAssignmentMemberKey,
    ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupTargetAssignmentMetadataKey,
    ConsumerGroupTargetAssignmentMetadataValue,
)

if TYPE_CHECKING:
    from ottla.coordinator.group.consumer.group import ConsumerGroup, Member, ResolvedRegex

CONSUMER_KEYS = (
    ConsumerGroupMetadataKey,
    ConsumerGroupMemberMetadataKey,
    ConsumerGroupTargetAssignmentMetadataKey,
    ConsumerGroupTargetAssignmentMemberKey,
    ConsumerGroupCurrentMemberAssignmentKey,
    ConsumerGroupRegularExpressionKey,
)
"""The keys of a consumer group's records; each names its group."""

TopicPartition = tuple[bytes, int]
"""A topic's id, and a partition."""

Partitions = frozenset[TopicPartition]
Owned = Mapping[TopicPartition, int]
"""Partitions, with the epoch at which each was assigned."""

_NO_EPOCH = 0

_MemberValue = ConsumerGroupMemberMetadataValue
_CurrentValue = ConsumerGroupCurrentMemberAssignmentValue
_TargetValue = ConsumerGroupTargetAssignmentMemberValue


class _Topic(Protocol):
    """Partitions of one topic, as requests and records have them."""

    topic_id: bytes
    partitions: list[int]


def partitions_of(topics: Iterable[_Topic]) -> Partitions:
    """Return the partitions that a request names."""
    return frozenset((each.topic_id, index) for each in topics for index in each.partitions)


def by_topic(partitions: Iterable[TopicPartition]) -> dict[bytes, list[int]]:
    """Return partitions by their topic, in their order."""
    topics: dict[bytes, list[int]] = {}
    for topic_id, index in sorted(partitions):
        topics.setdefault(topic_id, []).append(index)
    return topics


def assignment_of(value: _TargetValue) -> Partitions:
    """Return what a record says that a member is to have."""
    return partitions_of(value.topic_partitions)


def owned_of(topics: Iterable[_CurrentValue.TopicPartitions]) -> Owned:
    """Return what a record says that a member has; before Kafka 4.3 without epochs."""
    owned: dict[TopicPartition, int] = {}
    for topic in topics:
        epochs = topic.assignment_epochs or [_NO_EPOCH] * len(topic.partitions)
        for index, epoch in zip(topic.partitions, epochs, strict=False):
            owned[topic.topic_id, index] = epoch
    return owned


def _owned_topics(owned: Owned) -> list[_CurrentValue.TopicPartitions]:
    return [
        _CurrentValue.TopicPartitions(
            topic_id=topic_id,
            partitions=indexes,
            assignment_epochs=[owned[topic_id, index] for index in indexes],
        )
        for topic_id, indexes in by_topic(owned).items()
    ]


def group_epoch_record(group_id: str, epoch: int, metadata_hash: int) -> GroupRecord:
    """Return the record of a group's epoch."""
    return GroupRecord(
        ConsumerGroupMetadataKey(group_id=group_id),
        ConsumerGroupMetadataValue(epoch=epoch, metadata_hash=metadata_hash),
    )


def member_record(group_id: str, member: Member) -> GroupRecord:
    """Return the record of who a member is."""
    classic = None
    if member.classic is not None:
        classic = _MemberValue.ClassicMemberMetadata(
            session_timeout_ms=member.classic.session_timeout_ms,
            supported_protocols=[
                _MemberValue.ClassicProtocol(name=name, metadata=metadata)
                for name, metadata in member.classic.protocols
            ],
        )
    value = _MemberValue(
        instance_id=member.instance_id,
        rack_id=member.rack_id,
        client_id=member.client_id,
        client_host=member.client_host,
        subscribed_topic_names=sorted(member.topic_names),
        subscribed_topic_regex=member.topic_regex,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        server_assignor=member.server_assignor,
        classic_member_metadata=classic,
    )
    key = ConsumerGroupMemberMetadataKey(group_id=group_id, member_id=member.member_id)
    return GroupRecord(key, value)


def assignment_epoch_record(group_id: str, epoch: int, timestamp_ms: int) -> GroupRecord:
    """Return the record of the target's epoch."""
    return GroupRecord(
        ConsumerGroupTargetAssignmentMetadataKey(group_id=group_id),
        ConsumerGroupTargetAssignmentMetadataValue(
            assignment_epoch=epoch, assignment_timestamp=timestamp_ms
        ),
    )


def target_record(
    group_id: str, member_id: str, partitions: Iterable[TopicPartition]
) -> GroupRecord:
    """Return the record of what a member is to have."""
    topics = [
        _TargetValue.TopicPartition(topic_id=topic_id, partitions=indexes)
        for topic_id, indexes in by_topic(partitions).items()
    ]
    return GroupRecord(
        ConsumerGroupTargetAssignmentMemberKey(group_id=group_id, member_id=member_id),
        _TargetValue(topic_partitions=topics),
    )


def current_record(group_id: str, member: Member) -> GroupRecord:
    """Return the record of what a member has, and how far it is."""
    value = _CurrentValue(
        member_epoch=member.member_epoch,
        previous_member_epoch=member.previous_member_epoch,
        state=member.state.value,
        assigned_partitions=_owned_topics(member.assigned),
        partitions_pending_revocation=_owned_topics(member.pending_revocation),
    )
    key = ConsumerGroupCurrentMemberAssignmentKey(group_id=group_id, member_id=member.member_id)
    return GroupRecord(key, value)


def regex_record(group_id: str, regex: str, resolved: ResolvedRegex | None) -> GroupRecord:
    """Return the record of what a regular expression comes to; without that, of its end."""
    value = None
    if resolved is not None:
        value = ConsumerGroupRegularExpressionValue(
            topics=sorted(resolved.topics),
            version=resolved.version,
            timestamp=resolved.timestamp_ms,
        )
    key = ConsumerGroupRegularExpressionKey(group_id=group_id, regular_expression=regex)
    return GroupRecord(key, value)


def records_of_no_member(group_id: str, member_id: str) -> list[GroupRecord]:
    """Return the records of a member's end."""
    ids = {"group_id": group_id, "member_id": member_id}
    return [
        GroupRecord(ConsumerGroupCurrentMemberAssignmentKey(**ids), None),
        GroupRecord(ConsumerGroupTargetAssignmentMemberKey(**ids), None),
        GroupRecord(ConsumerGroupMemberMetadataKey(**ids), None),
    ]


def records_of_no_group(group: ConsumerGroup) -> list[GroupRecord]:
    """Return the records of a group's end."""
    group_id = group.group_id
    records = [regex_record(group_id, regex, None) for regex in group.regexes]
    for member_id in group.members.keys() | group.target.keys():
        records += records_of_no_member(group_id, member_id)
    records.append(GroupRecord(ConsumerGroupTargetAssignmentMetadataKey(group_id=group_id), None))
    records.append(GroupRecord(ConsumerGroupMetadataKey(group_id=group_id), None))
    return records
