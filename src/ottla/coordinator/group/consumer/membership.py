"""What members of the consumer protocol ask for, all with one request: the heartbeat.

With epoch 0 a member joins, with -1 it leaves, with -2 a static member leaves for a while; with
its epoch it says that it is alive, what it has where that changed, and is told what it is to have
where that did.

    the member     is it one, and is the epoch its epoch? One epoch late is fine where it has
                   nothing but what it is to have: the response may have been lost
    the change     `changes`: it becomes what it says, topics are looked at, the target is made, it
                   goes a step
    the response   its epoch, and its assignment where it joins, asks, or that has changed

Kafka: GroupMetadataManager.consumerGroupHeartbeat, consumerGroupLeave, KIP-848.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ottla.coordinator.group.classic import CONSUMER, ClassicGroup
from ottla.coordinator.group.consumer.changes import Change, Planner, Refused
from ottla.coordinator.group.consumer.departures import Departures, decide
from ottla.coordinator.group.consumer.group import (
    JOINING,
    LEAVING,
    LEAVING_FOR_A_WHILE,
    ConsumerGroup,
    Member,
)
from ottla.coordinator.group.consumer.migration import UPGRADES, upgraded
from ottla.coordinator.group.consumer.records import by_topic, current_record, partitions_of
from ottla.coordinator.group.decision import Decision
from ottla.errors import codes
from ottla.protocol.messages.api_68_consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)

if TYPE_CHECKING:
    from ottla.coordinator.group.consumer.records import Partitions
    from ottla.coordinator.group.group import Group
    from ottla.coordinator.group.membership import Asker
    from ottla.coordinator.group.rebalance import Rebalances, Settings
    from ottla.coordinator.group.timers import Now

_NOT_GIVEN = -1


class ConsumerMembership:
    """Answers members of the consumer protocol.

    Args:
        groups: all groups of the shard.
        planner: makes changes of groups.
        departures: lets members go.
        rebalances: of the classic groups that become consumer groups.
        settings: the broker's.
        new_id: makes a member's id.
    """

    def __init__(
        self,
        groups: dict[str, Group],
        planner: Planner,
        departures: Departures,
        rebalances: Rebalances,
        settings: Settings,
        new_id: Callable[[], str],
    ) -> None:
        self._groups = groups
        self._planner = planner
        self._departures = departures
        self._rebalances = rebalances
        self._settings = settings
        self._new_id = new_id

    def heartbeat(self, request: ConsumerGroupHeartbeatRequest, asker: Asker, now: Now) -> Decision:
        """Let a member join, stay or leave."""
        try:
            if request.member_epoch in (LEAVING, LEAVING_FOR_A_WHILE):
                return self._leave(request, asker, now)
            return self._beat(request, asker, now)
        except Refused as refused:
            decision = Decision(waits=True)
            response = heartbeat_error(refused.code, refused.message)
            decision.reply(asker.answer, response, heartbeat_error)
            return decision

    # -- alive

    def _beat(self, request: ConsumerGroupHeartbeatRequest, asker: Asker, now: Now) -> Decision:
        is_joining = request.member_epoch == JOINING
        classic = self._groups.get(request.group_id)
        change = self._change_of(request.group_id, now, creates=is_joining)
        size_max = self._settings.group_consumer_max_size
        member_id = request.member_id or self._new_id()
        if len(change.group.members) >= size_max and member_id not in change.group.members:
            raise Refused(
                codes.GROUP_MAX_SIZE_REACHED,
                f"The consumer group has reached its maximum capacity of {size_max} members.",
            )
        owned = None
        if request.topic_partitions is not None:
            owned = partitions_of(request.topic_partitions)
        before = self._member_of(change, member_id, request, owned)
        after = _as_requested(before or Member(member_id), request, asker)
        has_changed = self._planner.subscribe(change, before, after, now)
        is_new_group = change.group.group_epoch == 0
        self._planner.look(change, now, has_changed=has_changed or is_new_group)
        self._planner.assign(change, now)
        has_moved = self._planner.reconcile(change, member_id, owned, has_changed=has_changed)
        member = change.group.members[member_id]

        def after_that() -> None:
            if isinstance(classic, ClassicGroup):
                self._rebalances.abandon(classic, decision)
            group = self._groups[request.group_id]
            assert isinstance(group, ConsumerGroup)
            group.topics_version = change.topics_version
            if isinstance(classic, ClassicGroup):
                for each in group.members.values():
                    self._departures.keep_session(group.group_id, each, now)
                    if each.rules.is_timed:
                        self._departures.expect_revocation(group.group_id, each, now)
            self._departures.expect_no("join", group.group_id, member_id)
            self._departures.expect_no("sync", group.group_id, member_id)
            self._departures.keep_session(group.group_id, member, now)
            if has_moved or not member.rules.is_timed:
                self._departures.expect_revocation(group.group_id, member, now)

        decision = Decision(waits=True)
        decide(decision, change, after_that)
        response = self._response(request, before, member)
        decision.reply(asker.answer, response, heartbeat_error)
        return decision

    def _change_of(self, group_id: str, now: Now, *, creates: bool) -> Change:
        """Return the group, or what becomes it."""
        group = self._groups.get(group_id)
        if isinstance(group, ConsumerGroup):
            return Change(group)
        if not creates or (group is not None and not isinstance(group, ClassicGroup)):
            what = "not found" if group is None else "is not a consumer group"
            raise Refused(codes.GROUP_ID_NOT_FOUND, f"Consumer group {group_id} {what}.")
        if group is None:
            return Change(ConsumerGroup(group_id))
        if not group.is_empty:
            self._check_upgrade(group)
        return upgraded(group, self._planner.topics, now)

    def _check_upgrade(self, group: ClassicGroup) -> None:
        problem = None
        if self._settings.group_consumer_migration_policy not in UPGRADES:
            problem = "online upgrade is disabled"
        elif group.protocol_type != CONSUMER:
            problem = "the group does not use the consumer embedded protocol"
        elif len(group.members) > self._settings.group_consumer_max_size:
            problem = "the group size exceeds the consumer group maximum size"
        if problem is not None:
            raise Refused(
                codes.GROUP_ID_NOT_FOUND,
                f"Cannot upgrade classic group {group.group_id} to consumer group "
                f"because {problem}.",
            )

    # -- the member

    def _member_of(
        self,
        change: Change,
        member_id: str,
        request: ConsumerGroupHeartbeatRequest,
        owned: Partitions | None,
    ) -> Member | None:
        """Return the member that asks; None: it is a new one."""
        group, instance_id = change.group, request.instance_id
        is_joining = request.member_epoch == JOINING
        if instance_id is None:
            member = group.members.get(member_id)
            if member is None and not is_joining:
                raise _unknown(f"Member {member_id} is not a member of group {group.group_id}.")
        else:
            member = group.static_member(instance_id)
            if member is not None and is_joining:
                return self._static_again(change, member, member_id)
            if not is_joining:
                member = static_member(group, member_id, instance_id)
        if member is not None and not is_joining:
            _check_epoch(member, request.member_epoch, owned)
        return member

    def _static_again(self, change: Change, member: Member, member_id: str) -> Member:
        """Let a static member have its place again that has left for a while."""
        if member.member_id == member_id:
            return member
        if member.classic is None and member.member_epoch != LEAVING_FOR_A_WHILE:
            raise Refused(
                codes.UNRELEASED_INSTANCE_ID,
                f"Static member {member_id} with instance id {member.instance_id} cannot join the "
                f"group because the instance id is owned by {member.member_id} member.",
            )
        return self._planner.replace(change, member, member_id)

    # -- the response

    def _response(
        self, request: ConsumerGroupHeartbeatRequest, before: Member | None, member: Member
    ) -> ConsumerGroupHeartbeatResponse:
        response = ConsumerGroupHeartbeatResponse(
            member_id=member.member_id,
            member_epoch=member.member_epoch,
            heartbeat_interval_ms=self._settings.group_consumer_heartbeat_interval_ms,
        )
        says_all = (
            request.rebalance_timeout_ms != _NOT_GIVEN
            and (
                request.subscribed_topic_names is not None
                or request.subscribed_topic_regex is not None
            )
            and request.topic_partitions is not None
        )
        is_joining = request.member_epoch == JOINING
        had = set() if before is None else set(before.assigned)
        if is_joining or says_all or had != set(member.assigned):
            response.assignment = ConsumerGroupHeartbeatResponse.Assignment(
                topic_partitions=[
                    ConsumerGroupHeartbeatResponse.TopicPartitions(
                        topic_id=topic_id, partitions=indexes
                    )
                    for topic_id, indexes in by_topic(member.assigned).items()
                ]
            )
        return response

    # -- leave

    def _leave(self, request: ConsumerGroupHeartbeatRequest, asker: Asker, now: Now) -> Decision:
        group = self._groups.get(request.group_id)
        if not isinstance(group, ConsumerGroup):
            what = "not found" if group is None else "is not a consumer group"
            raise Refused(codes.GROUP_ID_NOT_FOUND, f"Consumer group {request.group_id} {what}.")
        decision = Decision(waits=True)
        if request.instance_id is None:
            member = group.members.get(request.member_id)
            if member is None:
                raise _unknown(
                    f"Member {request.member_id} is not a member of group {group.group_id}."
                )
        else:
            member = static_member(group, request.member_id, request.instance_id)
        if request.member_epoch == LEAVING_FOR_A_WHILE:
            away = replace(member, member_epoch=LEAVING_FOR_A_WHILE, pending_revocation={})
            decision.records.append(current_record(group.group_id, away))
            decision.appended = lambda: self._departures.expect_no(
                "revoke", group.group_id, member.member_id
            )
        else:
            self._departures.remove(group, [member], now, decision)
        response = ConsumerGroupHeartbeatResponse(
            member_id=request.member_id, member_epoch=request.member_epoch
        )
        decision.reply(asker.answer, response, heartbeat_error)
        return decision


def _as_requested(member: Member, request: ConsumerGroupHeartbeatRequest, asker: Asker) -> Member:
    """Return a member as it says that it is; what it does not say stays."""
    names = request.subscribed_topic_names
    regex = request.subscribed_topic_regex
    timeout_ms = request.rebalance_timeout_ms
    return replace(
        member,
        instance_id=member.instance_id if request.instance_id is None else request.instance_id,
        rack_id=member.rack_id if request.rack_id is None else request.rack_id,
        client_id=asker.client_id,
        client_host=asker.client_host,
        topic_names=member.topic_names if names is None else frozenset(names),
        topic_regex=member.topic_regex if regex is None else regex,
        rebalance_timeout_ms=member.rebalance_timeout_ms if timeout_ms < 0 else timeout_ms,
        server_assignor=request.server_assignor or member.server_assignor,
        classic=None,
    )


def _check_epoch(member: Member, epoch: int, owned: Partitions | None) -> None:
    """Refuse a member that is in another epoch than it should be."""
    if epoch == member.member_epoch:
        return
    is_late = epoch == member.previous_member_epoch and epoch < member.member_epoch
    if is_late and owned is not None and owned <= member.assigned.keys():
        return
    word = "greater" if epoch > member.member_epoch else "smaller"
    raise Refused(
        codes.FENCED_MEMBER_EPOCH,
        f"The consumer group member has a {word} member epoch ({epoch}) than the one known by the "
        f"group coordinator ({member.member_epoch}). "
        "The member must abandon all its partitions and rejoin.",
    )


def static_member(group: ConsumerGroup, member_id: str, instance_id: str) -> Member:
    """Return a static member that asks.

    Raises:
        Refused: there is none, or it has another id.
    """
    member = group.static_member(instance_id)
    if member is None:
        raise _unknown(f"Instance id {instance_id} is unknown.")
    if member.member_id != member_id:
        raise Refused(
            codes.FENCED_INSTANCE_ID,
            f"Static member {member_id} with instance id {instance_id} was fenced by member "
            f"{member.member_id}.",
        )
    return member


def _unknown(message: str) -> Refused:
    return Refused(codes.UNKNOWN_MEMBER_ID, message)


def heartbeat_error(error: int, message: str | None = None) -> ConsumerGroupHeartbeatResponse:
    """Return the answer to a heartbeat that failed."""
    return ConsumerGroupHeartbeatResponse(error_code=error, error_message=message)
