"""What members of classic groups ask for: to join, to sync, to be alive, to leave.

A request either is answered at once, or its answer waits with the member: a join for the next
generation, a sync for what the leader assigns. Whatever ends the waiting answers it.

Two records are decided on here. The leader's sync makes the group stable; and a static member that
starts again takes the place of its former self in a stable group without a rebalance, where the
group's protocol stays what it is (KIP-345) and everything is assigned; with version 9 a leader that
does so is told not to assign anything (KIP-814).

Kafka: GroupMetadataManager, the part of classic groups.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from ottla.coordinator.group.classic import (
    CONSUMER,
    NO_MEMBER,
    ClassicGroup,
    Member,
    Protocols,
    Rejoin,
    State,
    chosen_protocol,
)
from ottla.coordinator.group.decision import Decision
from ottla.coordinator.group.member_ids import static_member_id_of
from ottla.coordinator.group.rebalance import (
    NEW_MEMBER_JOIN_TIMEOUT_MS,
    Rebalances,
    join_error,
    members_told,
    sync_error,
)
from ottla.coordinator.group.records import group_record
from ottla.coordinator.group.told import leaves_something
from ottla.errors import codes
from ottla.protocol.messages.api_11_join_group import JoinGroupRequest, JoinGroupResponse
from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest, HeartbeatResponse
from ottla.protocol.messages.api_13_leave_group import LeaveGroupRequest, LeaveGroupResponse
from ottla.protocol.messages.api_14_sync_group import SyncGroupRequest, SyncGroupResponse

if TYPE_CHECKING:
    from ottla.coordinator.group.consumer.changes import Topics
    from ottla.coordinator.group.decision import Answer
    from ottla.coordinator.group.group import Group
    from ottla.coordinator.group.rebalance import Settings
    from ottla.coordinator.group.timers import Now

_FIRST_VERSION_WITH_MEMBER_ID_REQUIRED = 4
_FIRST_VERSION_WITH_SKIP_ASSIGNMENT = 9


class Asker(NamedTuple):
    """Who asks, and how it takes the answer.

    Attributes:
        client_id: what its client calls itself.
        client_host: where it is.
        version: the version of its request.
        answer: takes the response.
    """

    client_id: str
    client_host: str
    version: int
    answer: Answer


class _Join(NamedTuple):
    """A join that is worked on."""

    request: JoinGroupRequest
    protocols: Protocols
    asker: Asker
    now: Now
    decision: Decision

    def refused(self, error: int, member_id: str) -> Decision:
        """Answer it with an error, and nothing else."""
        self.decision.records.clear()
        self.refuse(error, member_id)
        return self.decision

    def refuse(self, error: int, member_id: str) -> None:
        """Answer it with an error."""
        self.decision.reply(
            self.asker.answer,
            join_error(error, member_id),
            lambda code: join_error(code, member_id),
        )


class Membership:
    """Answers members.

    Args:
        groups: all groups of the shard.
        rebalances: leads them from one generation to the next.
        settings: the broker's.
        topics: the topics that there are.
        new_id: makes what is random of a member's id.
    """

    def __init__(
        self,
        groups: dict[str, Group],
        rebalances: Rebalances,
        settings: Settings,
        topics: Topics,
        new_id: Callable[[], str],
    ) -> None:
        self._groups = groups
        self._topics = topics
        self._rebalances = rebalances
        self._settings = settings
        self._new_id = new_id

    def _group(self, group_id: str) -> ClassicGroup | None:
        group = self._groups.get(group_id)
        return group if isinstance(group, ClassicGroup) else None

    # -- join

    def join(self, request: JoinGroupRequest, asker: Asker, now: Now) -> Decision:
        """Let a member join, or join again."""
        protocols = {each.name: each.metadata for each in request.protocols}
        join = _Join(request, protocols, asker, now, Decision())
        member_id = request.member_id
        settings = self._settings
        least_ms, most_ms = (
            settings.group_min_session_timeout_ms,
            settings.group_max_session_timeout_ms,
        )
        if not least_ms <= request.session_timeout_ms <= most_ms:
            join.refuse(codes.INVALID_SESSION_TIMEOUT, member_id)
            return join.decision
        group = self._groups.get(request.group_id)
        if group is not None and group.is_empty and not isinstance(group, ClassicGroup):
            join.decision.records += group.records_of_end()
            group = None
        if group is None:
            if member_id != NO_MEMBER:
                return join.refused(codes.UNKNOWN_MEMBER_ID, member_id)
            if not request.protocol_type or not protocols:
                return join.refused(codes.INCONSISTENT_GROUP_PROTOCOL, member_id)
            group = self._groups[request.group_id] = ClassicGroup(request.group_id)
        if not isinstance(group, ClassicGroup):
            join.refuse(codes.INCONSISTENT_GROUP_PROTOCOL, member_id)
        elif not self._has_room_for(group, member_id):
            group.remove(member_id)
            self._rebalances.end_session(group, member_id)
            join.refuse(codes.GROUP_MAX_SIZE_REACHED, NO_MEMBER)
        elif not group.speaks_one_of(request.protocol_type, protocols):
            join.refuse(codes.INCONSISTENT_GROUP_PROTOCOL, member_id)
        elif member_id == NO_MEMBER:
            self._join_new(group, join)
        else:
            self._join_again(group, join)
        return join.decision

    def _has_room_for(self, group: ClassicGroup, member_id: str) -> bool:
        """Tell whether a member may join. Kafka: acceptJoiningMember.

        In a rebalance those who have joined count: the last ones of a group that is too large are
        left out of it.
        """
        size_max = self._settings.group_max_size
        member = group.members.get(member_id)
        if group.is_empty:
            return True
        if group.state is State.PREPARING_REBALANCE:
            joined = sum(each.awaiting_join is not None for each in group.members.values())
            is_waiting = member is not None and member.awaiting_join is not None
            return is_waiting or joined < size_max
        return member is not None or len(group.members) < size_max

    def _join_new(self, group: ClassicGroup, join: _Join) -> None:
        """Let somebody join who has no id yet."""
        request, asker = join.request, join.asker
        instance_id = request.group_instance_id
        unique = self._new_id()
        if instance_id is None:
            old, member_id = None, f"{asker.client_id}-{unique}"
        else:
            old = group.static_member(instance_id)
            member_id = static_member_id_of(instance_id, join.now.wall_ms, unique)
        if old is not None:
            self._take_the_place_of(group, old, member_id, join)
        elif instance_id is None and asker.version >= _FIRST_VERSION_WITH_MEMBER_ID_REQUIRED:
            group.pending_members.add(member_id)
            self._rebalances.expect(group, member_id, join.now, request.session_timeout_ms)
            join.refuse(codes.MEMBER_ID_REQUIRED, member_id)
        else:
            self._add(group, member_id, join)

    def _new_member(self, member_id: str, join: _Join) -> Member:
        request, asker = join.request, join.asker
        rebalance_timeout_ms = request.rebalance_timeout_ms
        return Member(
            member_id,
            request.group_instance_id,
            asker.client_id,
            asker.client_host,
            request.session_timeout_ms if rebalance_timeout_ms < 0 else rebalance_timeout_ms,
            request.session_timeout_ms,
            join.protocols,
        )

    def _add(self, group: ClassicGroup, member_id: str, join: _Join) -> None:
        member = self._new_member(member_id, join)
        member.is_new = True
        member.awaiting_join = join.asker.answer
        group.was_joined = True
        group.add(member, join.request.protocol_type)
        self._rebalances.keep_session(group, member, join.now, NEW_MEMBER_JOIN_TIMEOUT_MS)
        self._rebalances.prepare_or_complete(group, join.now, join.decision)

    def _join_again(self, group: ClassicGroup, join: _Join) -> None:
        """Let somebody join who has an id."""
        request = join.request
        member_id = request.member_id
        if member_id in group.pending_members:
            self._add(group, member_id, join)
            return
        error = group.check_member(member_id, request.group_instance_id)
        if error != codes.NONE:
            join.refuse(error, member_id)
            return
        member = group.members[member_id]
        rule = group.rules.rejoin
        is_same = member.speaks_the_same(join.protocols)
        if rule is Rejoin.REPEATED_TO_FOLLOWERS:
            is_same = is_same and group.leader_id != member_id
        if rule is Rejoin.UNKNOWN:
            join.refuse(codes.UNKNOWN_MEMBER_ID, member_id)
        elif rule is Rejoin.AWAITED or not is_same:
            # A join that it sent before, and has given up, ends with this one.
            self._rebalances.refuse_join(
                member, codes.REBALANCE_IN_PROGRESS, member_id, join.decision
            )
            renewed = self._new_member(member_id, join)
            member.protocols = renewed.protocols
            member.rebalance_timeout_ms = renewed.rebalance_timeout_ms
            member.session_timeout_ms = renewed.session_timeout_ms
            member.awaiting_join = join.asker.answer
            self._rebalances.prepare_or_complete(group, join.now, join.decision)
        else:
            self._rebalances.tell_generation(group, member, join.asker.answer, join.decision)

    # -- static members that start again

    def _take_the_place_of(
        self, group: ClassicGroup, old: Member, member_id: str, join: _Join
    ) -> None:
        """Let a static member that has lost its id have the place that it had."""
        new = self._new_member(member_id, join)
        new.assignment = old.assignment
        members = [new if each is old else each for each in group.members.values()]
        protocol_stays = chosen_protocol([each.protocols for each in members]) == (
            group.protocol_name
        )
        is_stable = group.state is State.STABLE
        if is_stable and protocol_stays and not self.leaves_something(group, members):
            self._swap(group, old, new, join)
            return
        self._fence(group, old, join.decision)
        group.replace(old, new)
        new.awaiting_join = join.asker.answer
        self._rebalances.keep_session(group, new, join.now)
        self._rebalances.prepare_or_complete(group, join.now, join.decision)

    def leaves_something(
        self, group: ClassicGroup, members: Collection[Member] | None = None
    ) -> bool:
        """Tell whether partitions are nobody's in a stable group, as it is or with these members.

        Kafka does not look, and lets them wait for a rebalance that has another reason. A leader
        that is told not to assign does not learn what the members have, and a member that was to
        give something back may not come back with it.
        """
        if group.state is not State.STABLE or group.protocol_type != CONSUMER:
            return False
        members = group.members.values() if members is None else members
        return leaves_something(group.protocol_name or "", members, self._topics)

    def _fence(self, group: ClassicGroup, old: Member, decision: Decision) -> None:
        self._rebalances.end_session(group, old.member_id)
        self._rebalances.refuse_join(old, codes.FENCED_INSTANCE_ID, old.member_id, decision)
        self._rebalances.refuse_sync(old, codes.FENCED_INSTANCE_ID, decision)

    def _swap(self, group: ClassicGroup, old: Member, new: Member, join: _Join) -> None:
        """Decide on a record in which a member has another id; the generation goes on.

        A leader that would assign nothing new is told so, or before version 9 that another one
        leads: itself, with the id that it had.
        """
        was_leader = group.leader_id == old.member_id
        members = [new if each is old else each for each in group.members.values()]
        assignment = {each.member_id: each.assignment for each in members}
        value = group.to_value(assignment, group.state_timestamp_ms, members)
        if was_leader:
            value.leader = new.member_id
        knows_skipping = join.asker.version >= _FIRST_VERSION_WITH_SKIP_ASSIGNMENT
        is_told_members = was_leader and knows_skipping
        response = JoinGroupResponse(
            generation_id=group.generation_id,
            protocol_type=group.protocol_type,
            protocol_name=group.protocol_name,
            leader=(value.leader if knows_skipping else group.leader_id) or NO_MEMBER,
            skip_assignment=is_told_members,
            member_id=new.member_id,
        )

        def appended() -> None:
            member = group.members[new.member_id]
            member.protocols = new.protocols
            self._rebalances.keep_session(group, member, join.now)
            if is_told_members:
                response.members = members_told(group)

        def refused(code: int) -> Decision:
            self._rebalances.keep_session(group, old, join.now)
            return Decision()

        decision = join.decision
        decision.records.append(group_record(group.group_id, value))
        decision.appended = appended
        decision.refused = refused
        decision.reply(join.asker.answer, response, lambda code: join_error(code, NO_MEMBER))
        self._fence(group, old, decision)

    # -- sync

    def sync(self, request: SyncGroupRequest, asker: Asker, now: Now) -> Decision:
        """Tell a member what it is assigned, or take from the leader what all are."""
        decision = Decision()
        group = self._group(request.group_id)
        error = codes.UNKNOWN_MEMBER_ID if group is None else _sync_problem(group, request)
        if group is None or error != codes.NONE:
            decision.reply(asker.answer, sync_error(error), sync_error)
            return decision
        member = group.members[request.member_id]
        if group.rules.sync is None:
            self._rebalances.refuse_sync(member, codes.REBALANCE_IN_PROGRESS, decision)
            member.awaiting_sync = asker.answer
            self._rebalances.synced(group, member.member_id)
            if group.leader_id == member.member_id:
                assignment = {each.member_id: each.assignment for each in request.assignments}
                self._stabilize(group, assignment, now, decision)
            return decision
        self._rebalances.synced(group, member.member_id)
        decision.waits = True
        decision.reply(asker.answer, _sync_response(group, member.assignment), sync_error)
        return decision

    def _stabilize(
        self, group: ClassicGroup, assignment: dict[str, bytes], now: Now, decision: Decision
    ) -> None:
        """Decide on the record that makes a group stable; who waits is answered with it."""
        members = group.members.values()
        value = group.to_value(assignment, now.wall_ms, members)
        waiting = [each for each in members if each.awaiting_sync is not None]

        def appended() -> None:
            for member in waiting:
                member.awaiting_sync = None
                self._rebalances.keep_session(group, member, now)

        def refused(code: int) -> Decision:
            following = Decision()
            for member in waiting:
                member.awaiting_sync = None
                self._rebalances.keep_session(group, member, now)
            self._rebalances.prepare(group, now, following)
            return following

        decision.records.append(group_record(group.group_id, value))
        decision.appended = appended
        decision.refused = refused
        for member in waiting:
            if member.awaiting_sync is not None:
                response = _sync_response(group, assignment.get(member.member_id, b""))
                decision.reply(member.awaiting_sync, response, sync_error)

    # -- heartbeat

    def heartbeat(self, request: HeartbeatRequest, asker: Asker, now: Now) -> Decision:
        """Take note that a member is alive, and tell it whether it has to join again."""
        decision = Decision()
        group = self._group(request.group_id)
        error = codes.UNKNOWN_MEMBER_ID
        if group is not None:
            error = group.check_member(request.member_id, request.group_instance_id)
            if error == codes.NONE and request.generation_id != group.generation_id:
                error = codes.ILLEGAL_GENERATION
            if error == codes.NONE:
                self._rebalances.keep_session(group, group.members[request.member_id], now)
                error = group.rules.heartbeat
        response = HeartbeatResponse(error_code=error)
        decision.reply(asker.answer, response, lambda code: HeartbeatResponse(error_code=code))
        return decision

    # -- leave

    def leave(self, request: LeaveGroupRequest, asker: Asker, now: Now) -> Decision:
        """Let members leave; static ones may be named by their instance id alone."""
        decision = Decision()
        group = self._group(request.group_id)
        if group is None:
            error = codes.UNKNOWN_MEMBER_ID
            decision.reply(asker.answer, LeaveGroupResponse(error_code=error), _leave_error)
            return decision
        members_before = len(group.members)
        results = [
            LeaveGroupResponse.MemberResponse(
                member_id=each.member_id,
                group_instance_id=each.group_instance_id,
                error_code=self._leave_one(group, each, decision),
            )
            for each in request.members
        ]
        if len(group.members) < members_before:
            self._rebalances.go_on_without(group, now, decision)
        else:
            self._rebalances.go_on_without_pending(group, now, decision)
        decision.reply(asker.answer, LeaveGroupResponse(members=results), _leave_error)
        return decision

    def _leave_one(
        self,
        group: ClassicGroup,
        identity: LeaveGroupRequest.MemberIdentity,
        decision: Decision,
    ) -> int:
        member_id, instance_id = identity.member_id, identity.group_instance_id
        if member_id in group.pending_members:
            self._rebalances.remove_pending(group, member_id)
            return codes.NONE
        if member_id == NO_MEMBER and instance_id is not None:
            member = group.static_member(instance_id)
            error = codes.UNKNOWN_MEMBER_ID if member is None else codes.NONE
        else:
            error = group.check_member(member_id, instance_id)
            member = group.members.get(member_id)
        if member is not None and error == codes.NONE:
            self._rebalances.remove_member(group, member, decision)
        return error


def _sync_problem(group: ClassicGroup, request: SyncGroupRequest) -> int:
    error = group.check_member(request.member_id, request.group_instance_id)
    if error != codes.NONE:
        return error
    if request.generation_id != group.generation_id:
        return codes.ILLEGAL_GENERATION
    for asked, known in (
        (request.protocol_type, group.protocol_type),
        (request.protocol_name, group.protocol_name),
    ):
        if asked is not None and known is not None and asked != known:
            return codes.INCONSISTENT_GROUP_PROTOCOL
    return group.rules.sync or codes.NONE


def _sync_response(group: ClassicGroup, assignment: bytes) -> SyncGroupResponse:
    return SyncGroupResponse(
        protocol_type=group.protocol_type,
        protocol_name=group.protocol_name,
        assignment=assignment,
    )


def _leave_error(error: int) -> LeaveGroupResponse:
    return LeaveGroupResponse(error_code=error)
