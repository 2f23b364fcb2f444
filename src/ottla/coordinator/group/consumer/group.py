"""A consumer group: the broker assigns its partitions, and its members go there one by one.

    group epoch         counts what members want and what topics there are
    assignment epoch    the group epoch that the target was made for: who is to have what
    member epoch        the assignment epoch that a member has come to

A partition is had by one member at a time: it is given to nobody until whoever has it says that it
has given it up. How far a member is says its state, `MEMBER_STATES`:

    STABLE                  it has what the target says
    UNREVOKED_PARTITIONS    it is to give up partitions, and has not said that it did
    UNRELEASED_PARTITIONS   it gave up what it had to; others still have what it is to get
    UNKNOWN                 what a later version noted; it has to give up everything

Everything here comes from the log. The group's own state is what epochs and members come to.

Kafka: ConsumerGroup, ConsumerGroupMember, MemberState.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ottla.coordinator.group.consumer.records import (
    Owned,
    Partitions,
    TopicPartition,
    assignment_of,
    owned_of,
    records_of_no_group,
)
from ottla.coordinator.group.group import Group
from ottla.errors import codes
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
    from ottla.coordinator.group.offsets import CommittedOffset
    from ottla.coordinator.group.records import GroupRecord

JOINING = 0
"""The epoch of a member that joins, or joins again with nothing in its hands."""

LEAVING = -1
"""The epoch with which a member leaves."""

LEAVING_FOR_A_WHILE = -2
"""The epoch with which a static member leaves that comes back; it keeps what it has."""

_FIRST_COMMIT_VERSION = 9


class GroupState(Enum):
    """A group's states, by Kafka's names."""

    EMPTY = "Empty"
    ASSIGNING = "Assigning"
    RECONCILING = "Reconciling"
    STABLE = "Stable"
    DEAD = "Dead"


class MemberState(Enum):
    """A member's states, by Kafka's names and numbers."""

    STABLE = 0
    UNREVOKED_PARTITIONS = 1
    UNRELEASED_PARTITIONS = 2
    UNKNOWN = 127

    @classmethod
    def _missing_(cls, value: object) -> MemberState:
        return cls.UNKNOWN


class GoesOn(Enum):
    """When a member goes on towards the target."""

    WITH_ANOTHER_TARGET = "when there is another target than the one that it has come to"
    WHEN_REVOKED = "when it says that it has given up what it was to give up"
    ALWAYS = "with every heartbeat: something may have been released"
    EMPTY_HANDED = "when it says that it has nothing"


class MemberRules(NamedTuple):
    """What holds in a member's state.

    Attributes:
        following: which other states may come next.
        goes_on: when it goes on towards the target.
        is_timed: whether it must be done in the time that it asked for a rebalance.
        rejoins: whether a member of the classic protocol has to join again to go on; one that
            waits for others has to when there is something for it.
    """

    following: frozenset[MemberState]
    goes_on: GoesOn
    is_timed: bool
    rejoins: bool


MEMBER_STATES = {
    MemberState.STABLE: MemberRules(
        following=frozenset({MemberState.UNREVOKED_PARTITIONS, MemberState.UNRELEASED_PARTITIONS}),
        goes_on=GoesOn.WITH_ANOTHER_TARGET,
        is_timed=False,
        rejoins=False,
    ),
    MemberState.UNREVOKED_PARTITIONS: MemberRules(
        following=frozenset({MemberState.STABLE, MemberState.UNRELEASED_PARTITIONS}),
        goes_on=GoesOn.WHEN_REVOKED,
        is_timed=True,
        rejoins=True,
    ),
    MemberState.UNRELEASED_PARTITIONS: MemberRules(
        following=frozenset({MemberState.STABLE, MemberState.UNREVOKED_PARTITIONS}),
        goes_on=GoesOn.ALWAYS,
        is_timed=False,
        rejoins=False,
    ),
    MemberState.UNKNOWN: MemberRules(
        following=frozenset(
            {
                MemberState.STABLE,
                MemberState.UNREVOKED_PARTITIONS,
                MemberState.UNRELEASED_PARTITIONS,
            }
        ),
        goes_on=GoesOn.EMPTY_HANDED,
        is_timed=False,
        rejoins=True,
    ),
}


class ClassicSide(NamedTuple):
    """What a member of the classic protocol is besides.

    Attributes:
        session_timeout_ms: how long it may be silent.
        protocols: what it speaks, with its metadata; the one that it likes best first.
    """

    session_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A member. Nothing of it changes: there is another one then.

    Attributes:
        member_id: its id.
        instance_id: what a static member is called; None for a dynamic one.
        rack_id: where it is, as it says.
        client_id: what its client calls itself.
        client_host: where it is.
        topic_names: the topics that it subscribed to by their names.
        topic_regex: the regular expression that it subscribed to; "" for none.
        rebalance_timeout_ms: how long it may take to give up partitions.
        server_assignor: the assignor that it would have, or None.
        classic: what it is besides where it speaks the classic protocol, else None.
        member_epoch: the assignment epoch that it has come to, 0 at first.
        previous_member_epoch: the one before, with which it may still come.
        state: how far it is.
        assigned: what it is to have, and has been told or is told now; the epochs are those at
            which each of it was assigned.
        pending_revocation: what it is to give up, and may still have.
    """

    member_id: str
    instance_id: str | None = None
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    topic_names: frozenset[str] = frozenset()
    topic_regex: str = ""
    rebalance_timeout_ms: int = -1
    server_assignor: str | None = None
    classic: ClassicSide | None = None
    member_epoch: int = JOINING
    previous_member_epoch: int = JOINING
    state: MemberState = MemberState.STABLE
    assigned: Owned = field(default_factory=dict)
    pending_revocation: Owned = field(default_factory=dict)

    @property
    def rules(self) -> MemberRules:
        """What holds in its state."""
        return MEMBER_STATES[self.state]

    def is_reconciled_to(self, epoch: int) -> bool:
        """Tell whether it has what the target of an epoch says."""
        return self.state is MemberState.STABLE and self.member_epoch == epoch

    def assignment_epoch(self, partition: TopicPartition) -> int | None:
        """Return when a partition was assigned to it that it may have, or None."""
        return self.assigned.get(partition, self.pending_revocation.get(partition))


class ResolvedRegex(NamedTuple):
    """What a regular expression comes to.

    Attributes:
        topics: the topics that it matches.
        version: of the topics when that was found out.
        timestamp_ms: when it was.
    """

    topics: frozenset[str]
    version: int
    timestamp_ms: int


@dataclass(eq=False)
class ConsumerGroup(Group):
    """A consumer group.

    Attributes:
        group_epoch: counts what members want and what topics there are.
        metadata_hash: of the topics that it reads, as of the group epoch.
        assignment_epoch: the group epoch of the target.
        members: by their id.
        instances: the member of each static member's name.
        target: who is to have what; who is to have nothing may be left out.
        owners: the one member that may have a partition.
        regexes: what the regular expressions of its members come to.
        topics_version: the version of the topics that it was last compared with; soft state.
    """

    kind = "consumer"
    protocol_type = "consumer"

    group_id: str
    group_epoch: int = 0
    metadata_hash: int = 0
    assignment_epoch: int = 0
    members: dict[str, Member] = field(default_factory=dict)
    instances: dict[str, str] = field(default_factory=dict)
    target: dict[str, Partitions] = field(default_factory=dict)
    owners: dict[TopicPartition, str] = field(default_factory=dict)
    regexes: dict[str, ResolvedRegex] = field(default_factory=dict)
    topics_version: int = -1

    def copy(self) -> ConsumerGroup:
        """Return another one that is the same."""
        return replace(
            self,
            members=dict(self.members),
            instances=dict(self.instances),
            target=dict(self.target),
            owners=dict(self.owners),
            regexes=dict(self.regexes),
        )

    # -- what is asked

    @property
    def state(self) -> GroupState:
        """The state that it is in."""
        if not self.members:
            return GroupState.EMPTY
        if self.group_epoch > self.assignment_epoch:
            return GroupState.ASSIGNING
        if all(each.is_reconciled_to(self.assignment_epoch) for each in self.members.values()):
            return GroupState.STABLE
        return GroupState.RECONCILING

    @property
    def state_name(self) -> str:
        return self.state.value

    @property
    def is_empty(self) -> bool:
        return not self.members

    @property
    def is_expected(self) -> bool:
        return False

    def static_member(self, instance_id: str) -> Member | None:
        """Return the member that has this instance id, or None."""
        return self.members.get(self.instances.get(instance_id, ""))

    def topics_of(self, member: Member) -> frozenset[str]:
        """Return the names of the topics that a member subscribed to, in one way or another."""
        resolved = self.regexes.get(member.topic_regex)
        return member.topic_names if resolved is None else member.topic_names | resolved.topics

    def subscribed_topics(self) -> frozenset[str]:
        """Return the names of the topics that members subscribed to."""
        return frozenset().union(*(self.topics_of(each) for each in self.members.values()))

    def preferred_assignor(self) -> str | None:
        """Return the assignor that most members would have, of those who would have one."""
        votes = Counter(
            each.server_assignor
            for each in self.members.values()
            if each.server_assignor is not None
        )
        return max(sorted(votes), key=votes.__getitem__, default=None)

    def waits_for_others(self, member: Member) -> bool:
        """Tell whether somebody else still has something that a member is to get."""
        return any(
            self.owners.get(partition, member.member_id) != member.member_id
            for partition in self.target.get(member.member_id, ())
        )

    def is_subscribed_to(self, topic: str) -> bool:
        return any(topic in self.topics_of(each) for each in self.members.values())

    def retention_begins_ms(self, committed: CommittedOffset) -> int | None:
        return committed.commit_timestamp_ms

    def check_commit(
        self, member_id: str, group_instance_id: str | None, generation: int, version: int
    ) -> int:
        if generation < 0 and not self.members:
            return codes.NONE
        member = self.members.get(member_id)
        if member is None:
            return codes.UNKNOWN_MEMBER_ID
        if member.classic is not None:
            is_current = generation == member.member_epoch
            return codes.NONE if is_current else codes.ILLEGAL_GENERATION
        if version < _FIRST_COMMIT_VERSION:
            return codes.UNSUPPORTED_VERSION
        return codes.NONE if generation <= member.member_epoch else codes.STALE_MEMBER_EPOCH

    def check_commit_of(self, member_id: str, generation: int, partition: TopicPartition) -> int:
        """A member that has gone on may commit with its old epoch what it had then (KIP-1251)."""
        member = self.members.get(member_id)
        if member is None or generation == member.member_epoch:
            return codes.NONE
        epoch = member.assignment_epoch(partition)
        is_its = epoch is not None and generation >= epoch
        return codes.NONE if is_its else codes.STALE_MEMBER_EPOCH

    def check_fetch(self, member_id: str | None, member_epoch: int) -> int:
        if not member_id and member_epoch < 0:
            return codes.NONE
        member = self.members.get(member_id or "")
        if member is None:
            return codes.UNKNOWN_MEMBER_ID
        if member_epoch == member.member_epoch:
            return codes.NONE
        is_classic = member.classic is not None
        return codes.ILLEGAL_GENERATION if is_classic else codes.STALE_MEMBER_EPOCH

    def check_delete(self) -> int:
        return codes.NON_EMPTY_GROUP if self.members else codes.NONE

    def check_delete_offsets(self) -> int:
        return codes.NONE

    def records_of_end(self) -> list[GroupRecord]:
        return records_of_no_group(self)

    # -- the log

    def replay(self, record: GroupRecord) -> None:
        """Change as a record says."""
        key, value = record
        if isinstance(key, ConsumerGroupMetadataKey):
            if isinstance(value, ConsumerGroupMetadataValue):
                self.group_epoch, self.metadata_hash = value.epoch, value.metadata_hash
        elif isinstance(key, ConsumerGroupMemberMetadataKey):
            self._replay_member(key.member_id, value)
        elif isinstance(key, ConsumerGroupTargetAssignmentMetadataKey):
            if isinstance(value, ConsumerGroupTargetAssignmentMetadataValue):
                self.assignment_epoch = value.assignment_epoch
        elif isinstance(key, ConsumerGroupTargetAssignmentMemberKey):
            if isinstance(value, ConsumerGroupTargetAssignmentMemberValue):
                self.target[key.member_id] = assignment_of(value)
            else:
                self.target.pop(key.member_id, None)
        elif isinstance(key, ConsumerGroupCurrentMemberAssignmentKey):
            self._replay_current(key.member_id, value)
        elif isinstance(key, ConsumerGroupRegularExpressionKey):
            self._replay_regex(key.regular_expression, value)

    def _replay_member(self, member_id: str, value: object) -> None:
        known = self.members.get(member_id)
        if isinstance(value, ConsumerGroupMemberMetadataValue):
            self._put(known, with_metadata(known or Member(member_id), value))
        elif known is not None:
            self._put(known, None)

    def _replay_current(self, member_id: str, value: object) -> None:
        """Take note of what a member has; its record may be older than that of who it is."""
        known = self.members.get(member_id)
        if isinstance(value, ConsumerGroupCurrentMemberAssignmentValue):
            member = replace(
                known or Member(member_id),
                member_epoch=value.member_epoch,
                previous_member_epoch=value.previous_member_epoch,
                state=MemberState(value.state),
                assigned=owned_of(value.assigned_partitions),
                pending_revocation=owned_of(value.partitions_pending_revocation),
            )
            self._put(known, member)
        elif known is not None:
            gone = replace(
                known,
                member_epoch=LEAVING,
                previous_member_epoch=LEAVING,
                state=MemberState.STABLE,
                assigned={},
                pending_revocation={},
            )
            self._put(known, gone)

    def _replay_regex(self, regex: str, value: object) -> None:
        if isinstance(value, ConsumerGroupRegularExpressionValue):
            topics = frozenset(value.topics)
            self.regexes[regex] = ResolvedRegex(topics, value.version, value.timestamp)
        else:
            self.regexes.pop(regex, None)

    def _put(self, old: Member | None, new: Member | None) -> None:
        """Put a member in the place of what it was; whoever was written of last has a partition."""
        if old is not None:
            for partition in (*old.assigned, *old.pending_revocation):
                if self.owners.get(partition) == old.member_id:
                    del self.owners[partition]
            if old.instance_id is not None and self.instances.get(old.instance_id) == old.member_id:
                del self.instances[old.instance_id]
            if new is None:
                del self.members[old.member_id]
        if new is not None:
            self.members[new.member_id] = new
            owned = (*new.assigned, *new.pending_revocation)
            self.owners.update(dict.fromkeys(owned, new.member_id))
            if new.instance_id is not None:
                self.instances[new.instance_id] = new.member_id


def with_metadata(member: Member, value: ConsumerGroupMemberMetadataValue) -> Member:
    """Return a member with what a record says that it is."""
    classic = value.classic_member_metadata
    return replace(
        member,
        instance_id=value.instance_id,
        rack_id=value.rack_id,
        client_id=value.client_id,
        client_host=value.client_host,
        topic_names=frozenset(value.subscribed_topic_names),
        topic_regex=value.subscribed_topic_regex or "",
        rebalance_timeout_ms=value.rebalance_timeout_ms,
        server_assignor=value.server_assignor,
        classic=None
        if classic is None
        else ClassicSide(
            classic.session_timeout_ms,
            tuple((each.name, each.metadata) for each in classic.supported_protocols),
        ),
    )
