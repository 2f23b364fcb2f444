"""A classic group: its members agree on a generation, and their leader assigns the partitions.

    EMPTY                   no members; offsets may be committed by anybody
    PREPARING_REBALANCE     members are asked to join again, by their heartbeats
    COMPLETING_REBALANCE    a generation has begun; its leader is to tell who reads what
    STABLE                  everybody knows that
    DEAD                    the group was removed

`STATES` says what may follow each of them, and how each answers; what a join does besides is in
`membership`. EMPTY and STABLE come from the log: a record of the group makes it one of them, with
the members, the assignment and the generation that it holds. All that happens between two such
records - who has joined again, who has synced, the next generation - is soft state, as are the
members' requests that are not answered yet: a broker that starts goes back to the last record.

Kafka: ClassicGroup, ClassicGroupState, ClassicGroupMember.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ottla.coordinator.group.group import Group
from ottla.coordinator.group.member_ids import is_later
from ottla.coordinator.group.records import GroupRecord, group_record
from ottla.errors import DecodeError, codes
from ottla.protocol.codec import decode_from
from ottla.protocol.messages.embedded_data import ConsumerProtocolSubscription
from ottla.protocol.messages.group_records import GroupMetadataValue
from ottla.wire.cursor import Reader

if TYPE_CHECKING:
    from ottla.coordinator.group.decision import Answer
    from ottla.coordinator.group.offsets import CommittedOffset

CONSUMER = "consumer"
"""The protocol type of consumers, whose subscriptions can be read."""

NO_MEMBER = ""


class State(Enum):
    """The states, by Kafka's names."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


class Rejoin(Enum):
    """What comes of it when a member joins again and has not changed.

    `REPEATED`: it is told the current generation once more; a leader that joins again while the
    group is stable wants a new assignment, so `REPEATED_TO_FOLLOWERS` leaves it out.
    """

    UNKNOWN = "it is no member"
    AWAITED = "it waits for the others"
    REPEATED = "it is told the generation again"
    REPEATED_TO_FOLLOWERS = "it is told the generation again, unless it leads"


class Rules(NamedTuple):
    """What holds in a state.

    Attributes:
        following: which states may come next; besides, a record of the group makes it STABLE or
            EMPTY whatever it was.
        rejoin: what comes of a member that joins again.
        sync: how a member that syncs is answered; None: it waits for its leader.
        heartbeat: how a member's heartbeat is answered.
        commit: how a member that commits offsets is answered.
        delete: how it is answered that the group is to be deleted.
    """

    following: frozenset[State]
    rejoin: Rejoin
    sync: int | None
    heartbeat: int
    commit: int
    delete: int


STATES = {
    State.EMPTY: Rules(
        following=frozenset({State.PREPARING_REBALANCE, State.DEAD}),
        rejoin=Rejoin.UNKNOWN,
        sync=codes.UNKNOWN_MEMBER_ID,
        heartbeat=codes.UNKNOWN_MEMBER_ID,
        commit=codes.NONE,
        delete=codes.NONE,
    ),
    State.PREPARING_REBALANCE: Rules(
        following=frozenset({State.COMPLETING_REBALANCE, State.EMPTY, State.DEAD}),
        rejoin=Rejoin.AWAITED,
        sync=codes.REBALANCE_IN_PROGRESS,
        heartbeat=codes.REBALANCE_IN_PROGRESS,
        commit=codes.NONE,
        delete=codes.NON_EMPTY_GROUP,
    ),
    State.COMPLETING_REBALANCE: Rules(
        following=frozenset({State.STABLE, State.PREPARING_REBALANCE, State.DEAD}),
        rejoin=Rejoin.REPEATED,
        sync=None,
        heartbeat=codes.NONE,
        commit=codes.REBALANCE_IN_PROGRESS,
        delete=codes.NON_EMPTY_GROUP,
    ),
    State.STABLE: Rules(
        following=frozenset({State.PREPARING_REBALANCE, State.DEAD}),
        rejoin=Rejoin.REPEATED_TO_FOLLOWERS,
        sync=codes.NONE,
        heartbeat=codes.NONE,
        commit=codes.NONE,
        delete=codes.NON_EMPTY_GROUP,
    ),
    State.DEAD: Rules(
        following=frozenset(),
        rejoin=Rejoin.UNKNOWN,
        sync=codes.UNKNOWN_MEMBER_ID,
        heartbeat=codes.UNKNOWN_MEMBER_ID,
        commit=codes.UNKNOWN_MEMBER_ID,
        delete=codes.GROUP_ID_NOT_FOUND,
    ),
}

Protocols = dict[str, bytes]
"""The protocols that a member speaks, the one that it likes best first, with its metadata."""


@dataclass(slots=True, eq=False)
class Member:
    """A member.

    Attributes:
        member_id: its id.
        group_instance_id: what a static member is called; None for a dynamic one.
        client_id: what its client calls itself.
        client_host: where it is.
        rebalance_timeout_ms: how long it may take to join again.
        session_timeout_ms: how long it may be silent.
        protocols: what it speaks; after a start only the one that the group had chosen.
        assignment: what its leader gave it.
        awaiting_join: takes the answer to its join, while that is waited for.
        awaiting_sync: takes the answer to its sync, while that is waited for.
        is_new: whether it has never been told a generation.
    """

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    protocols: Protocols
    assignment: bytes = b""
    awaiting_join: Answer | None = None
    awaiting_sync: Answer | None = None
    is_new: bool = False

    @property
    def is_heard(self) -> bool:
        """Whether it need not send heartbeats: a request of it waits to be answered."""
        return not self.is_new and (
            self.awaiting_join is not None or self.awaiting_sync is not None
        )

    def speaks_the_same(self, protocols: Protocols) -> bool:
        """Tell whether its protocols are these, in this order."""
        return list(self.protocols.items()) == list(protocols.items())


@dataclass(eq=False)
class ClassicGroup(Group):
    """A classic group.

    Attributes:
        state: the state that it is in.
        generation_id: counts the rebalances.
        protocol_name: the protocol that was chosen among those that all members speak.
        leader_id: the member that assigns.
        state_timestamp_ms: when it came into its state; -1 where that was not noted.
        members: by their id, in the order in which they joined.
        subscribed_topics: what the members read, where they are consumers and it could be read.
        is_stored: whether the log has a record of it.
        pending_members: ids that were handed out, and have not joined with them yet.
        unsynced: the members that have not synced in this generation.
        is_initial: whether the first rebalance since it was empty is under way.
        was_joined: whether somebody joined since the initial delay was last prolonged.
    """

    kind = "classic"

    group_id: str
    protocol_type: str | None = None
    state: State = State.EMPTY
    generation_id: int = 0
    protocol_name: str | None = None
    leader_id: str | None = None
    state_timestamp_ms: int = -1
    members: dict[str, Member] = field(default_factory=dict)
    subscribed_topics: frozenset[str] | None = None
    is_stored: bool = False
    pending_members: set[str] = field(default_factory=set)
    unsynced: set[str] = field(default_factory=set)
    is_initial: bool = False
    was_joined: bool = False

    # -- what is asked

    @property
    def state_name(self) -> str:
        return self.state.value

    @property
    def rules(self) -> Rules:
        """What holds in its state."""
        return STATES[self.state]

    @property
    def is_empty(self) -> bool:
        return self.state is State.EMPTY

    @property
    def is_expected(self) -> bool:
        return bool(self.pending_members)

    @property
    def has_all_joined(self) -> bool:
        """Whether nobody has to be waited for in a rebalance."""
        return not self.pending_members and all(
            member.awaiting_join is not None for member in self.members.values()
        )

    @property
    def rebalance_timeout_ms(self) -> int:
        """How long a rebalance may take: what the slowest member asks for."""
        return max((each.rebalance_timeout_ms for each in self.members.values()), default=0)

    def static_member(self, group_instance_id: str) -> Member | None:
        """Return the member that has this instance id, or None."""
        return next(
            (each for each in self.members.values() if each.group_instance_id == group_instance_id),
            None,
        )

    def check_member(self, member_id: str, group_instance_id: str | None) -> int:
        """Return why this is no member, as an error code."""
        if group_instance_id is not None:
            member = self.static_member(group_instance_id)
            if member is None:
                return codes.UNKNOWN_MEMBER_ID
            if member.member_id != member_id:
                is_forgotten = is_later(member_id, member.member_id, group_instance_id)
                return codes.UNKNOWN_MEMBER_ID if is_forgotten else codes.FENCED_INSTANCE_ID
        return codes.NONE if member_id in self.members else codes.UNKNOWN_MEMBER_ID

    def speaks_one_of(self, protocol_type: str, protocols: Collection[str]) -> bool:
        """Tell whether all members speak one of these protocols; of no members, whether any is."""
        if self.is_empty:
            return bool(protocol_type) and bool(protocols)
        return protocol_type == self.protocol_type and any(
            all(name in member.protocols for member in self.members.values()) for name in protocols
        )

    def is_subscribed_to(self, topic: str) -> bool:
        if self.subscribed_topics is None:
            return self.protocol_type == CONSUMER
        return topic in self.subscribed_topics

    def retention_begins_ms(self, committed: CommittedOffset) -> int | None:
        if self.protocol_type is None:
            return committed.commit_timestamp_ms
        if self.is_empty:
            return max(self.state_timestamp_ms, committed.commit_timestamp_ms)
        if self.state is State.STABLE and self.subscribed_topics is not None:
            return committed.commit_timestamp_ms
        return None

    def check_commit(
        self, member_id: str, group_instance_id: str | None, generation: int, version: int
    ) -> int:
        if generation < 0 and self.is_empty:
            return codes.NONE
        if generation < 0 and not member_id and group_instance_id is None:
            return codes.UNKNOWN_MEMBER_ID
        error = self.check_member(member_id, group_instance_id)
        if error != codes.NONE:
            return error
        if generation != self.generation_id:
            return codes.ILLEGAL_GENERATION
        return self.rules.commit

    def check_delete(self) -> int:
        return self.rules.delete

    def check_delete_offsets(self) -> int:
        error = self.rules.delete
        is_known = error == codes.NON_EMPTY_GROUP and self.protocol_type == CONSUMER
        return codes.NONE if is_known else error

    def records_of_end(self) -> list[GroupRecord]:
        return [group_record(self.group_id, None)]

    # -- the log

    def settle(self, value: GroupMetadataValue) -> None:
        """Become what a record says.

        Members that are known keep what is soft of them, and the protocols that the record does
        not contradict; so a group that decided on the record goes on, and one that is loaded
        begins with it.
        """
        members: dict[str, Member] = {}
        for each in value.members:
            member = self.members.get(each.member_id) or _loaded(each)
            member.group_instance_id = each.group_instance_id
            member.assignment = each.assignment
            if value.protocol is not None and (
                member.protocols.get(value.protocol) != each.subscription
            ):
                member.protocols = {value.protocol: each.subscription}
            members[each.member_id] = member
        self.members = members
        self.state = State.STABLE if members else State.EMPTY
        self.generation_id = value.generation
        self.protocol_type = value.protocol_type or None
        self.protocol_name = value.protocol
        self.leader_id = value.leader
        self.state_timestamp_ms = value.current_state_timestamp
        self.subscribed_topics = subscribed_topics(self)
        self.is_stored = True
        self.is_initial = False
        self.unsynced &= members.keys()

    def to_value(
        self, assignment: Mapping[str, bytes], timestamp_ms: int, members: Iterable[Member]
    ) -> GroupMetadataValue:
        """Make a record of it with some members; what is not assigned anything gets nothing."""
        name = self.protocol_name
        return GroupMetadataValue(
            protocol_type=self.protocol_type or "",
            generation=self.generation_id,
            protocol=name,
            leader=self.leader_id,
            current_state_timestamp=timestamp_ms,
            members=[
                GroupMetadataValue.MemberMetadata(
                    member_id=each.member_id,
                    group_instance_id=each.group_instance_id,
                    client_id=each.client_id,
                    client_host=each.client_host,
                    rebalance_timeout=each.rebalance_timeout_ms,
                    session_timeout=each.session_timeout_ms,
                    subscription=each.protocols.get(name or "", b""),
                    assignment=assignment.get(each.member_id, b""),
                )
                for each in members
            ],
        )

    # -- soft changes

    def move_to(self, state: State) -> None:
        """Go to another state."""
        assert state in self.rules.following, f"{self.group_id}: {self.state} to {state}"
        self.state = state

    def add(self, member: Member, protocol_type: str) -> None:
        """Add a member; the first one leads."""
        if not self.members:
            self.protocol_type = protocol_type
        if self.leader_id is None:
            self.leader_id = member.member_id
        self.members[member.member_id] = member
        self.pending_members.discard(member.member_id)

    def remove(self, member_id: str) -> None:
        """Remove a member, or one that was to become one; another one leads where it did."""
        self.members.pop(member_id, None)
        self.pending_members.discard(member_id)
        self.unsynced.discard(member_id)
        if self.leader_id == member_id:
            self.leader_id = next(iter(self.members), None)

    def replace(self, old: Member, new: Member) -> None:
        """Put a member in the place of another one, with all that it was."""
        self.members = {
            each.member_id: each
            for each in (new if each is old else each for each in self.members.values())
        }
        if self.leader_id == old.member_id:
            self.leader_id = new.member_id

    def elect_joined_leader(self) -> bool:
        """Have a member lead that has joined again; tells whether there is one."""
        leader = self.members.get(self.leader_id or NO_MEMBER)
        if leader is None or leader.awaiting_join is None:
            joined = (each for each in self.members.values() if each.awaiting_join is not None)
            leader = next(joined, None)
            if leader is None:
                return False
            self.leader_id = leader.member_id
        return True

    def begin_generation(self, timestamp_ms: int) -> None:
        """Begin the next generation with the members that there are."""
        self.move_to(State.COMPLETING_REBALANCE)
        self.generation_id += 1
        self.protocol_name = chosen_protocol([each.protocols for each in self.members.values()])
        self.state_timestamp_ms = timestamp_ms
        self.subscribed_topics = subscribed_topics(self)
        self.is_initial = False
        self.unsynced = set(self.members)


def _loaded(member: GroupMetadataValue.MemberMetadata) -> Member:
    timeout_ms = member.rebalance_timeout
    return Member(
        member.member_id,
        member.group_instance_id,
        member.client_id,
        member.client_host,
        member.session_timeout if timeout_ms == -1 else timeout_ms,
        member.session_timeout,
        {},
    )


def chosen_protocol(members: Collection[Protocols]) -> str | None:
    """Return the protocol that most members like best among those that all of them speak."""
    first = next(iter(members), {})
    common = [name for name in first if all(name in protocols for protocols in members)]
    if not common:
        return None
    votes = Counter(next(name for name in protocols if name in common) for protocols in members)
    return max(common, key=lambda name: votes[name])


def subscribed_topics(group: ClassicGroup) -> frozenset[str] | None:
    """Return the topics that consumers subscribed to, or None where that is not known.

    Whatever follows the topics in a subscription is a later version's business.
    """
    if group.protocol_type != CONSUMER:
        return None
    topics: set[str] = set()
    for member in group.members.values():
        reader = Reader(member.protocols.get(group.protocol_name or "", b""))
        try:
            reader.int16()
            topics.update(decode_from(ConsumerProtocolSubscription, reader, 0).topics)
        except DecodeError:
            return None
    return frozenset(topics)
