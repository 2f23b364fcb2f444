"""How members of consumer groups go: they leave, are silent, or take too long.

Four deadlines put a member out, with the same key for each member:

    session   it was not heard of for its session's time
    revoke    it has not given up what it was to in the time that it asked for a rebalance
    join      a member of the classic protocol was told to join again, and has not
    sync      a member of the classic protocol has joined, and has not asked for its assignment

The first two are Kafka's; the others stand for a classic group's. When the last member of the
consumer protocol goes, and others stay, the group becomes a classic one.

Kafka: GroupMetadataManager.consumerGroupFenceMembers, convertToClassicGroup.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from ottla.coordinator.group.classic import ClassicGroup
from ottla.coordinator.group.consumer.changes import Change, Planner
from ottla.coordinator.group.consumer.group import ConsumerGroup, Member
from ottla.coordinator.group.consumer.migration import DOWNGRADES, common_protocol, downgraded
from ottla.coordinator.group.decision import Decision

if TYPE_CHECKING:
    from ottla.coordinator.group.group import Group
    from ottla.coordinator.group.rebalance import Rebalances, Settings
    from ottla.coordinator.group.timers import Now, ShardTimers

_RETRY_MS = 5000
"""When it is tried again to put a member out, where that could not be stored."""

_DEADLINES = ("session", "revoke", "join", "sync")


class Departures:
    """Lets members go.

    Args:
        groups: all groups of the shard.
        timers: its deadlines.
        planner: makes changes of groups.
        rebalances: of the classic groups that consumer groups become.
        settings: the broker's.
    """

    def __init__(
        self,
        groups: dict[str, Group],
        timers: ShardTimers,
        planner: Planner,
        rebalances: Rebalances,
        settings: Settings,
    ) -> None:
        self._groups = groups
        self._timers = timers
        self._planner = planner
        self._rebalances = rebalances
        self._settings = settings

    # -- deadlines

    def keep_session(self, group_id: str, member: Member, now: Now) -> None:
        """Let a member's session begin again."""
        timeout_ms = self._settings.group_consumer_session_timeout_ms
        if member.classic is not None:
            timeout_ms = member.classic.session_timeout_ms
        self.expect("session", group_id, member.member_id, now, timeout_ms)

    def expect(self, what: str, group_id: str, member_id: str, now: Now, timeout_ms: float) -> None:
        """Put a member out unless something happens in time."""
        self._timers.set(
            (what, group_id, member_id),
            now,
            timeout_ms,
            lambda now: self._put_out(group_id, member_id, now),
        )

    def expect_revocation(self, group_id: str, member: Member, now: Now) -> None:
        """Put a member out unless it gives up in time what it is to, where it is."""
        key = ("revoke", group_id, member.member_id)
        if member.classic is not None or not member.rules.is_timed:
            self._timers.cancel(key)
            return
        epoch = member.member_epoch

        def is_over(now: Now) -> Decision:
            group = self._groups.get(group_id)
            found = _member(group, member.member_id)
            if found is None or found.member_epoch != epoch or not found.rules.is_timed:
                return Decision()
            return self._put_out(group_id, member.member_id, now)

        self._timers.set(key, now, member.rebalance_timeout_ms, is_over)

    def expect_join(self, group_id: str, member: Member, now: Now) -> None:
        """Put a member of the classic protocol out unless it joins again in time."""
        if not self._timers.has(("join", group_id, member.member_id)):
            timeout_ms = member.rebalance_timeout_ms
            self.expect("join", group_id, member.member_id, now, timeout_ms)

    def expect_no(self, what: str, group_id: str, member_id: str) -> None:
        """Wait for something no longer."""
        self._timers.cancel((what, group_id, member_id))

    def _cancel(self, group_id: str, member_id: str) -> None:
        for what in _DEADLINES:
            self._timers.cancel((what, group_id, member_id))

    def _put_out(self, group_id: str, member_id: str, now: Now) -> Decision:
        decision = Decision()
        group = self._groups.get(group_id)
        member = _member(group, member_id)
        if not isinstance(group, ConsumerGroup) or member is None:
            return decision

        def refused(code: int) -> Decision:
            self.expect("session", group_id, member_id, now, _RETRY_MS)
            return Decision()

        self.remove(group, [member], now, decision)
        decision.refused = refused
        return decision

    # -- who goes

    def remove(
        self, group: ConsumerGroup, members: Collection[Member], now: Now, decision: Decision
    ) -> None:
        """Decide that members are gone."""
        gone = {each.member_id for each in members}
        left = [each for each in group.members.values() if each.member_id not in gone]
        if not gone:
            return
        if self.becomes_classic(left):
            self.downgrade(group, left, now, decision)
            return
        change = Change(group)
        self._planner.remove(change, members)

        def appended() -> None:
            for member_id in gone:
                self._cancel(group.group_id, member_id)

        decision.records += change.records
        decision.appended = appended

    def becomes_classic(self, left: Collection[Member]) -> bool:
        """Tell whether a group with these members becomes a classic one."""
        return (
            0 < len(left) <= self._settings.group_max_size
            and all(each.classic is not None for each in left)
            and self._settings.group_consumer_migration_policy in DOWNGRADES
            and common_protocol(left) is not None
        )

    def downgrade(
        self, group: ConsumerGroup, left: list[Member], now: Now, decision: Decision
    ) -> None:
        """Decide that a group is a classic one with these members; a rebalance follows."""
        decision.records += downgraded(group, left, self._planner.topics, now)
        known = set(group.members)

        def appended() -> None:
            for member_id in known:
                self._cancel(group.group_id, member_id)
            classic = self._groups[group.group_id]
            assert isinstance(classic, ClassicGroup)
            for each in left:
                member = classic.members[each.member_id]
                assert each.classic is not None
                member.protocols = dict(each.classic.protocols)
                self._rebalances.keep_session(classic, member, now)
            self._rebalances.prepare(classic, now, decision)

        decision.appended = appended


def _member(group: Group | None, member_id: str) -> Member | None:
    return group.members.get(member_id) if isinstance(group, ConsumerGroup) else None


After = Callable[[], None]
"""What is done when records are appended, or at once where there are none."""


def decide(decision: Decision, change: Change, after: After) -> None:
    """Decide on a change, and on what follows it."""
    if change.records:
        decision.records += change.records
        decision.appended = after
    else:
        after()
