"""Rebalances of classic groups: from the first who joins to the next generation.

    prepare      members are to join again; who waits for an assignment is told so
    complete     who has not joined again in time is out, the others get a generation and a leader.
                 Where nobody is left the group is empty, which its record says
    the leader's sync ends it, in `membership`; where it, or another member, does not sync in time
                 those who have not are out, and it begins again

Three kinds of deadlines drive what no request does: a member's session, the end of the time to join
again, the end of the time to sync. They look again at what is so when they are due: the group may
be gone, or the member may have left.

Kafka: GroupMetadataManager, the part of classic groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ottla.coordinator.group.classic import NO_MEMBER, ClassicGroup, Member, State
from ottla.coordinator.group.decision import Decision
from ottla.coordinator.group.records import group_record
from ottla.errors import codes
from ottla.protocol.messages.api_11_join_group import JoinGroupResponse
from ottla.protocol.messages.api_14_sync_group import SyncGroupResponse
from ottla.protocol.messages.group_records import GroupMetadataValue

if TYPE_CHECKING:
    from ottla.coordinator.group.decision import Answer
    from ottla.coordinator.group.timers import Now, ShardTimers

NEW_MEMBER_JOIN_TIMEOUT_MS = 5 * 60 * 1000
"""How long a new member may wait for its first generation: it cannot send heartbeats."""

_RETRY_MS = 5000
"""When it is tried again to note that a group is empty, where that could not be stored."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the broker's configs say; Kafka's names with underscores."""

    group_min_session_timeout_ms: int = 6000
    group_max_session_timeout_ms: int = 1_800_000
    group_max_size: int = 0x7FFFFFFF
    group_initial_rebalance_delay_ms: int = 0
    offset_metadata_max_bytes: int = 4096
    offsets_retention_ms: int = 10_080 * 60_000
    group_consumer_session_timeout_ms: int = 45_000
    group_consumer_heartbeat_interval_ms: int = 5000
    group_consumer_max_size: int = 0x7FFFFFFF
    group_consumer_assignors: tuple[str, ...] = ("uniform", "range")
    group_consumer_migration_policy: str = "bidirectional"


class Rebalances:
    """Leads groups from one generation to the next.

    Args:
        timers: their deadlines.
        settings: the broker's.
        forget: is called with a group that may be nobody's any more.
    """

    def __init__(
        self, timers: ShardTimers, settings: Settings, forget: Callable[[ClassicGroup], None]
    ) -> None:
        self._timers = timers
        self._settings = settings
        self._forget = forget

    # -- answers

    @staticmethod
    def tell_generation(
        group: ClassicGroup, member: Member, answer: Answer, decision: Decision
    ) -> None:
        """Tell a member the current generation, and its leader who else is in it."""
        is_leader = member.member_id == group.leader_id
        response = JoinGroupResponse(
            generation_id=group.generation_id,
            protocol_type=group.protocol_type,
            protocol_name=group.protocol_name,
            leader=group.leader_id or NO_MEMBER,
            member_id=member.member_id,
            members=members_told(group) if is_leader else [],
        )
        decision.reply(answer, response, lambda code: join_error(code, member.member_id))

    def refuse_join(self, member: Member, error: int, member_id: str, decision: Decision) -> None:
        """Answer a join that was waited for with an error."""
        answer, member.awaiting_join = member.awaiting_join, None
        if answer is not None:
            decision.reply(
                answer, join_error(error, member_id), lambda code: join_error(code, member_id)
            )

    def refuse_sync(self, member: Member, error: int, decision: Decision) -> None:
        """Answer a sync that was waited for with an error."""
        answer, member.awaiting_sync = member.awaiting_sync, None
        if answer is not None:
            decision.reply(answer, sync_error(error), sync_error)

    # -- sessions

    def keep_session(
        self, group: ClassicGroup, member: Member, now: Now, timeout_ms: int | None = None
    ) -> None:
        """Let a member's session begin again."""
        if timeout_ms is None:
            timeout_ms = member.session_timeout_ms
        self.expect(group, member.member_id, now, timeout_ms)

    def expect(self, group: ClassicGroup, member_id: str, now: Now, timeout_ms: int) -> None:
        """Expect to hear of a member, or of one that is to become one."""
        self._timers.set(
            ("session", group.group_id, member_id),
            now,
            timeout_ms,
            lambda now: self._session_expired(group, member_id, now),
        )

    def end_session(self, group: ClassicGroup, member_id: str) -> None:
        """Expect nothing of a member any more."""
        self._timers.cancel(("session", group.group_id, member_id))

    def _session_expired(self, group: ClassicGroup, member_id: str, now: Now) -> Decision:
        decision = Decision()
        member = group.members.get(member_id)
        if member_id in group.pending_members:
            self.remove_pending(group, member_id)
            self.go_on_without_pending(group, now, decision)
        elif member is not None and not member.is_heard:
            self.remove_member(group, member, decision)
            self.go_on_without(group, now, decision)
        return decision

    def abandon(self, group: ClassicGroup, decision: Decision) -> None:
        """Let go of a group that is of another protocol now; who waits joins that one."""
        for member in group.members.values():
            self.refuse_join(member, codes.REBALANCE_IN_PROGRESS, member.member_id, decision)
            self.refuse_sync(member, codes.REBALANCE_IN_PROGRESS, decision)
        for member_id in (*group.members, *group.pending_members):
            self.end_session(group, member_id)
        self._timers.cancel(("join", group.group_id))
        self._timers.cancel(("sync", group.group_id))
        group.members.clear()
        group.pending_members.clear()
        group.unsynced.clear()
        group.state = State.DEAD

    # -- who leaves

    def remove_pending(self, group: ClassicGroup, member_id: str) -> None:
        """Forget an id that was handed out; `go_on_without_pending` follows."""
        self.end_session(group, member_id)
        group.remove(member_id)

    def go_on_without_pending(self, group: ClassicGroup, now: Now, decision: Decision) -> None:
        """Do what follows when ids that were handed out are not waited for any more."""
        if group.state is State.PREPARING_REBALANCE:
            self.maybe_complete(group, now, decision)
        else:
            self._forget(group)

    def remove_member(self, group: ClassicGroup, member: Member, decision: Decision) -> None:
        """Remove a member; `go_on_without` follows.

        What it waits for is answered with UNKNOWN_MEMBER_ID: it joins anew if it is there.
        """
        self.end_session(group, member.member_id)
        self.refuse_join(member, codes.UNKNOWN_MEMBER_ID, NO_MEMBER, decision)
        self.refuse_sync(member, codes.UNKNOWN_MEMBER_ID, decision)
        group.remove(member.member_id)

    def go_on_without(self, group: ClassicGroup, now: Now, decision: Decision) -> None:
        """Do what follows when members are gone."""
        if group.state in (State.STABLE, State.COMPLETING_REBALANCE):
            self.prepare(group, now, decision)
        elif group.state is State.PREPARING_REBALANCE:
            self.maybe_complete(group, now, decision)

    # -- rebalances

    def prepare_or_complete(self, group: ClassicGroup, now: Now, decision: Decision) -> None:
        """Begin a rebalance, or complete the one that is under way if everybody has joined."""
        if State.PREPARING_REBALANCE in group.rules.following:
            self.prepare(group, now, decision)
        else:
            self.maybe_complete(group, now, decision)

    def prepare(self, group: ClassicGroup, now: Now, decision: Decision) -> None:
        """Begin a rebalance."""
        for member in group.members.values():
            if group.state is State.COMPLETING_REBALANCE:
                member.assignment = b""
            if member.awaiting_sync is not None:
                self.refuse_sync(member, codes.REBALANCE_IN_PROGRESS, decision)
                self.keep_session(group, member, now)
        group.unsynced.clear()
        self._timers.cancel(("sync", group.group_id))
        group.is_initial = group.is_empty
        group.was_joined = False
        group.move_to(State.PREPARING_REBALANCE)
        if group.is_initial:
            delay_ms = self._settings.group_initial_rebalance_delay_ms
            left_ms = max(group.rebalance_timeout_ms - delay_ms, 0)
            self._delay(group, now, (delay_ms, left_ms), decision)
        elif group.has_all_joined:
            self.complete(group, now, decision)
        else:
            self._complete_in(group, now, group.rebalance_timeout_ms)

    def _delay(
        self, group: ClassicGroup, now: Now, times_ms: tuple[int, int], decision: Decision
    ) -> None:
        """Give others the time to join before a new group's first generation.

        Args:
            group: the group.
            now: the time.
            times_ms: how long to wait, and for how long that may be prolonged altogether.
            decision: what is decided.
        """
        delay_ms, left_ms = times_ms
        if delay_ms <= 0:
            self.complete(group, now, decision)
            return

        def is_over(now: Now) -> Decision:
            decision = Decision()
            if group.state is not State.PREPARING_REBALANCE:
                return decision
            if group.was_joined and left_ms > 0:
                group.was_joined = False
                following_ms = min(self._settings.group_initial_rebalance_delay_ms, left_ms)
                self._delay(group, now, (following_ms, max(left_ms - delay_ms, 0)), decision)
            else:
                self.complete(group, now, decision)
            return decision

        self._timers.set(("join", group.group_id), now, delay_ms, is_over)

    def _complete_in(self, group: ClassicGroup, now: Now, delay_ms: int) -> None:
        self._timers.set(
            ("join", group.group_id), now, delay_ms, lambda now: self._time_to_join_over(group, now)
        )

    def _time_to_join_over(self, group: ClassicGroup, now: Now) -> Decision:
        decision = Decision()
        if group.state is State.PREPARING_REBALANCE:
            self.complete(group, now, decision)
        return decision

    def maybe_complete(self, group: ClassicGroup, now: Now, decision: Decision) -> None:
        """Complete the rebalance if everybody has joined; the initial delay is not cut short.

        Where nobody is left there is nothing to wait for.
        """
        if group.state is not State.PREPARING_REBALANCE or not group.has_all_joined:
            return
        if not group.is_initial or not group.members:
            self.complete(group, now, decision)

    def complete(self, group: ClassicGroup, now: Now, decision: Decision) -> None:
        """Let the next generation begin with those who have joined, and with static members."""
        self._timers.cancel(("join", group.group_id))
        for member in list(group.members.values()):
            if member.awaiting_join is None and member.group_instance_id is None:
                self.end_session(group, member.member_id)
                group.remove(member.member_id)
        if not group.members:
            self._become_empty(group, now, decision)
            return
        if not group.elect_joined_leader():
            # Only static members are left, and none of them is there. Their sessions end that.
            self._complete_in(group, now, group.rebalance_timeout_ms)
            return
        group.begin_generation(now.wall_ms)
        for member in group.members.values():
            answer, member.awaiting_join = member.awaiting_join, None
            if answer is not None:
                self.tell_generation(group, member, answer, decision)
            member.is_new = False
            self.keep_session(group, member, now)
        # The next generation takes this deadline's place, so it is always this one's.
        self._timers.set(
            ("sync", group.group_id),
            now,
            group.rebalance_timeout_ms,
            lambda now: self._time_to_sync_over(group, now),
        )

    def _become_empty(self, group: ClassicGroup, now: Now, decision: Decision) -> None:
        value = GroupMetadataValue(
            protocol_type=group.protocol_type or "",
            generation=group.generation_id + 1,
            protocol=None,
            leader=None,
            current_state_timestamp=now.wall_ms,
        )

        def refused(code: int) -> Decision:
            self._complete_in(group, now, _RETRY_MS)
            return Decision()

        decision.records.append(group_record(group.group_id, value))
        decision.refused = refused

    # -- syncs

    def synced(self, group: ClassicGroup, member_id: str) -> None:
        """Take note that a member has synced."""
        group.unsynced.discard(member_id)
        if not group.unsynced:
            self._timers.cancel(("sync", group.group_id))

    def _time_to_sync_over(self, group: ClassicGroup, now: Now) -> Decision:
        decision = Decision()
        if group.state not in (State.COMPLETING_REBALANCE, State.STABLE) or not group.unsynced:
            return decision
        for member_id in list(group.unsynced):
            self.remove_member(group, group.members[member_id], decision)
        self.prepare(group, now, decision)
        return decision


def members_told(group: ClassicGroup) -> list[JoinGroupResponse.JoinGroupResponseMember]:
    """Return the members as their leader is told of them."""
    return [
        JoinGroupResponse.JoinGroupResponseMember(
            member_id=member.member_id,
            group_instance_id=member.group_instance_id,
            metadata=member.protocols.get(group.protocol_name or "", b""),
        )
        for member in group.members.values()
    ]


def join_error(error: int, member_id: str) -> JoinGroupResponse:
    """Return the answer to a join that failed."""
    return JoinGroupResponse(
        error_code=error, protocol_type=None, protocol_name=None, member_id=member_id
    )


def sync_error(error: int) -> SyncGroupResponse:
    """Return the answer to a sync that failed."""
    return SyncGroupResponse(error_code=error)
