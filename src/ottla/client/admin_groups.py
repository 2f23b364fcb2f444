"""What the admin client does with consumer groups.

Which groups there are is asked of every broker; everything else of a group's coordinator. A group
is of one of two kinds: "classic", whose members share partitions among themselves, and "consumer"
(KIP-848), where the coordinator does; share groups and others are listed, and no more. A group
without members may exist for what it has committed alone.

Kafka: KafkaAdminClient, ListGroupsHandler, DescribeConsumerGroupsHandler,
AlterConsumerGroupOffsetsHandler, DeleteConsumerGroupOffsetsHandler.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ottla.client.admin_core import AdminCore, check
from ottla.client.assignors import decode_assignment
from ottla.client.group_lag import first_timestamps
from ottla.client.lookup import LATEST, TopicPartition
from ottla.client.offsets import OffsetAndMetadata
from ottla.errors import DecodeError, broker_error, codes
from ottla.protocol.messages.api_08_offset_commit import OffsetCommitRequest, OffsetCommitResponse
from ottla.protocol.messages.api_09_offset_fetch import OffsetFetchRequest, OffsetFetchResponse
from ottla.protocol.messages.api_15_describe_groups import (
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from ottla.protocol.messages.api_16_list_groups import ListGroupsRequest, ListGroupsResponse
from ottla.protocol.messages.api_42_delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from ottla.protocol.messages.api_47_offset_delete import OffsetDeleteRequest, OffsetDeleteResponse
from ottla.protocol.messages.api_69_consumer_group_describe import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
)

if TYPE_CHECKING:
    from ottla.client.node import Node
    from ottla.protocol.message import ApiMessage

_CONSUMERS = "consumer"
_DEAD = "Dead"
_NAMES_UP_TO = 9
"""The last version of OffsetFetch and OffsetCommit in which topics have names and no ids."""

_FIRST_VERSION_OF_SEVERAL = 8
_NO_GENERATION = -1
_NO_OFFSET = -1


@dataclass(frozen=True, slots=True)
class GroupListing:
    """A group in a list.

    Attributes:
        group_id: its name.
        kind: "classic", "consumer", "share" and so on; "classic" where the broker knows no others.
        protocol_type: "consumer" for consumers; "" for a group that has only committed.
        state: what it is doing, such as "Stable" or "Empty"; "" where the broker does not say.
    """

    group_id: str
    kind: str
    protocol_type: str
    state: str


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member of a group.

    Attributes:
        member_id: its id.
        group_instance_id: the name of a static member, or None.
        client_id: what its client calls itself.
        host: where it is.
        assignment: the partitions that it reads, in order.
    """

    member_id: str
    group_instance_id: str | None
    client_id: str
    host: str
    assignment: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """A group.

    Attributes:
        group_id: its name.
        kind: "classic" or "consumer".
        protocol_type: "consumer" for consumers; "" for a group that has only committed.
        state: what it is doing, such as "Stable" or "Empty".
        assignor: how partitions are shared; "" where that is not known.
        members: its members.
    """

    group_id: str
    kind: str
    protocol_type: str
    state: str
    assignor: str
    members: tuple[GroupMember, ...]


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far a group is in one partition.

    Attributes:
        committed: the next offset to be read, and the note that was committed with it; None where
            nothing is committed.
        end_offset: the next offset to be written, as far as readers see; None where the partition
            does not exist any more.
        lag: how many offsets lie between; None where one of them is not known.
        behind_ms: how many milliseconds ago the first record was stamped that is not committed
            yet; 0 where there is none, None where it is not known.
    """

    committed: OffsetAndMetadata | None
    end_offset: int | None
    lag: int | None
    behind_ms: int | None


class GroupAdmin(AdminCore):
    """Looks after groups.

    Every method raises what those of `Admin` do.
    """

    def list_groups(self) -> list[GroupListing]:
        """Return all groups, by name."""
        found = []
        for response in self._ask_every_broker(ListGroupsRequest(), ListGroupsResponse):
            check(response.error_code, None, "groups cannot be listed")
            found += [
                GroupListing(
                    each.group_id,
                    each.group_type.lower() or "classic",
                    each.protocol_type,
                    each.group_state,
                )
                for each in response.groups
            ]
        return sorted(found, key=lambda each: each.group_id)

    def describe_group(self, group_id: str) -> GroupDescription:
        """Return a group's state and members.

        Raises:
            GroupIdNotFound: there is no such group.
        """
        classic = self._describe_classic(group_id)
        if classic is not None:
            return classic
        consumer = self._describe_consumer(group_id)
        if consumer is not None:
            return consumer
        raise broker_error(codes.GROUP_ID_NOT_FOUND, f"there is no group {group_id!r}")

    def _describe_classic(self, group_id: str) -> GroupDescription | None:
        request = DescribeGroupsRequest(groups=[group_id])
        response = self._ask_coordinator(
            group_id,
            lambda _: request,
            DescribeGroupsResponse,
            lambda answer: answer.groups[0].error_code,
        )
        group = response.groups[0]
        if group.error_code == codes.GROUP_ID_NOT_FOUND:
            return None
        check(group.error_code, group.error_message, f"group {group_id!r} cannot be described")
        if group.group_state == _DEAD:
            return None
        members = [
            GroupMember(
                each.member_id,
                each.group_instance_id,
                each.client_id,
                each.client_host,
                _assigned(each.member_assignment, group.protocol_type),
            )
            for each in group.members
        ]
        return GroupDescription(
            group_id,
            "classic",
            group.protocol_type,
            group.group_state,
            group.protocol_data,
            tuple(members),
        )

    def _describe_consumer(self, group_id: str) -> GroupDescription | None:
        """Describe a group of the consumer protocol; None where there is none, nor could be."""
        if not self._coordinator_speaks(group_id, ConsumerGroupDescribeRequest):
            return None
        request = ConsumerGroupDescribeRequest(group_ids=[group_id])
        response = self._ask_coordinator(
            group_id,
            lambda _: request,
            ConsumerGroupDescribeResponse,
            lambda answer: answer.groups[0].error_code,
        )
        group = response.groups[0]
        if group.error_code == codes.GROUP_ID_NOT_FOUND:
            return None
        check(group.error_code, group.error_message, f"group {group_id!r} cannot be described")
        members = [
            GroupMember(
                each.member_id,
                each.instance_id,
                each.client_id,
                each.client_host,
                tuple(
                    TopicPartition(topic.topic_name, number)
                    for topic in each.assignment.topic_partitions
                    for number in sorted(topic.partitions)
                ),
            )
            for each in group.members
        ]
        return GroupDescription(
            group_id,
            "consumer",
            _CONSUMERS,
            group.group_state,
            group.assignor_name,
            tuple(members),
        )

    def delete_group(self, group_id: str) -> None:
        """Delete a group without members, with all that it has committed.

        Raises:
            GroupIdNotFound: there is no such group.
            NonEmptyGroup: it has members.
        """
        request = DeleteGroupsRequest(groups_names=[group_id])
        response = self._ask_coordinator(
            group_id,
            lambda _: request,
            DeleteGroupsResponse,
            lambda answer: answer.results[0].error_code,
        )
        check(response.results[0].error_code, None, f"group {group_id!r} was not deleted")

    # -- offsets

    def committed_offsets(self, group_id: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return everything that a group has committed; nothing for a group that is not there."""

        def request_for(node: Node) -> ApiMessage:
            version = node.best_version(OffsetFetchRequest, _NAMES_UP_TO)
            if version < _FIRST_VERSION_OF_SEVERAL:
                return OffsetFetchRequest(group_id=group_id, topics=None)
            asked = OffsetFetchRequest.OffsetFetchRequestGroup(group_id=group_id, topics=None)
            return OffsetFetchRequest(groups=[asked])

        response = self._ask_coordinator(
            group_id,
            request_for,
            OffsetFetchResponse,
            lambda answer: answer.groups[0].error_code if answer.groups else answer.error_code,
            _NAMES_UP_TO,
        )
        found = response.groups[0] if response.groups else response
        check(found.error_code, None, f"the offsets of group {group_id!r} are not known")
        offsets = {}
        for topic in found.topics:
            for each in topic.partitions:
                where = TopicPartition(topic.name, each.partition_index)
                check(each.error_code, None, f"what {group_id!r} committed for {where} is unknown")
                if each.committed_offset != _NO_OFFSET:
                    offsets[where] = OffsetAndMetadata(each.committed_offset, each.metadata or "")
        return dict(sorted(offsets.items()))

    def alter_group_offsets(
        self, group_id: str, offsets: Mapping[tuple[str, int], OffsetAndMetadata | int]
    ) -> dict[TopicPartition, int]:
        """Commit offsets for a group without members; it is made where it does not exist.

        Args:
            group_id: the group.
            offsets: the next offset to be read, by (topic, partition).

        Returns:
            The error codes of those partitions that were not committed, while others were.

        Raises:
            UnknownMemberId: the group has members; nothing was changed.
            BrokerError: for another reason nothing was changed at all.
        """
        topics: dict[str, OffsetCommitRequest.OffsetCommitRequestTopic] = {}
        for (name, number), wanted in offsets.items():
            given = OffsetAndMetadata(wanted) if isinstance(wanted, int) else wanted
            topic = topics.setdefault(name, OffsetCommitRequest.OffsetCommitRequestTopic(name=name))
            topic.partitions.append(
                OffsetCommitRequest.OffsetCommitRequestPartition(
                    partition_index=number,
                    committed_offset=given.offset,
                    committed_metadata=given.metadata,
                )
            )
        request = OffsetCommitRequest(
            group_id=group_id,
            generation_id_or_member_epoch=_NO_GENERATION,
            topics=list(topics.values()),
        )
        if not topics:
            return {}
        response = self._ask_coordinator(
            group_id,
            lambda _: request,
            OffsetCommitResponse,
            lambda answer: answer.topics[0].partitions[0].error_code,
            _NAMES_UP_TO,
        )
        told = {
            TopicPartition(topic.name, each.partition_index): each.error_code
            for topic in response.topics
            for each in topic.partitions
        }
        return _failed(told, f"the offsets of group {group_id!r} were not changed")

    def delete_group_offsets(
        self, group_id: str, partitions: Iterable[tuple[str, int]]
    ) -> dict[TopicPartition, int]:
        """Delete what a group has committed for partitions that no member of it reads.

        Args:
            group_id: the group.
            partitions: as (topic, partition).

        Returns:
            The error codes of those partitions where nothing was deleted, while it was in others.

        Raises:
            GroupIdNotFound: there is no such group.
            GroupSubscribedToTopic: members read all of them.
            BrokerError: for another reason nothing was deleted at all.
        """
        topics: dict[str, OffsetDeleteRequest.OffsetDeleteRequestTopic] = {}
        for name, number in partitions:
            topic = topics.setdefault(name, OffsetDeleteRequest.OffsetDeleteRequestTopic(name=name))
            topic.partitions.append(
                OffsetDeleteRequest.OffsetDeleteRequestPartition(partition_index=number)
            )
        request = OffsetDeleteRequest(group_id=group_id, topics=list(topics.values()))
        response = self._ask_coordinator(
            group_id, lambda _: request, OffsetDeleteResponse, lambda answer: answer.error_code
        )
        what = f"what group {group_id!r} has committed was not deleted"
        check(response.error_code, None, what)
        told = {
            TopicPartition(topic.name, each.partition_index): each.error_code
            for topic in response.topics
            for each in topic.partitions
        }
        return _failed(told, what)

    def group_lag(
        self, group_id: str, partitions: Iterable[tuple[str, int]] = (), *, ages: bool = True
    ) -> dict[TopicPartition, PartitionLag]:
        """Return how far a group is in the partitions for which it has committed something.

        Args:
            group_id: the group.
            partitions: others to tell of as well, as (topic, partition).
            ages: whether to read, of each partition with a lag, the first record that is not
                committed yet, for its timestamp.
        """
        committed = self.committed_offsets(group_id)
        wanted = sorted({*committed, *(TopicPartition(*each) for each in partitions)})
        there = set(self.partitions_of(where.topic for where in wanted))
        ends = self.list_offsets({where: LATEST for where in wanted if where in there})
        positions = {
            where: committed[where].offset
            for where, end in ends.items()
            if where in committed and committed[where].offset < end
        }
        stamps = first_timestamps(self._given, positions, ends, self._timeout) if ages else {}
        now_ms = self._clock.now_ms()
        found = {}
        for where in wanted:
            offset, end = committed.get(where), ends.get(where)
            lag = None if offset is None or end is None else max(end - offset.offset, 0)
            behind_ms = 0 if ages and lag == 0 else None
            if where in stamps:
                behind_ms = max(now_ms - stamps[where], 0)
            found[where] = PartitionLag(offset, end, lag, behind_ms)
        return found

    def list_offsets(self, wanted: Mapping[tuple[str, int], int]) -> dict[TopicPartition, int]:
        """Return offsets of partitions: the first, the next to be written, or those at a time.

        Args:
            wanted: by (topic, partition) `EARLIEST`, `LATEST`, or milliseconds since 1970 for the
                first record with that timestamp or a later one.

        Returns:
            The offsets; -1 where no record is at or after the time.

        Raises:
            UnknownTopicOrPartition: one of them does not exist.
        """
        return self._look_up({TopicPartition(*where): when for where, when in wanted.items()})

    def partitions_of(self, topics: Iterable[str]) -> list[TopicPartition]:
        """Return the partitions of those of some topics that there are, in order."""
        names = sorted(set(topics))
        if not names:
            return []
        return sorted(
            TopicPartition(topic.name or "", each.partition_index)
            for topic in self._metadata(names).topics
            for each in topic.partitions
        )


def _assigned(data: bytes, protocol_type: str) -> tuple[TopicPartition, ...]:
    """Return what a member of a classic group reads; nothing where it is no consumer's format."""
    if protocol_type != _CONSUMERS:
        return ()
    try:
        return tuple(sorted(decode_assignment(data)))
    except DecodeError:
        return ()


def _failed(told: dict[TopicPartition, int], what: str) -> dict[TopicPartition, int]:
    """Return the errors of partitions, or raise the first where nothing at all was done."""
    failed = {where: code for where, code in told.items() if code != codes.NONE}
    if failed and len(failed) == len(told):
        check(next(iter(failed.values())), None, what)
    return failed
