"""Members of the classic protocol in a consumer group, while it goes over from one to the other.

They join, sync, send heartbeats and leave as in a classic group, and none of them leads. Joining is
a member's step towards the target; its generation is its epoch, and syncing tells what it has. A
heartbeat tells it to join again when there is something to do for it: the group's epoch went on,
it is to give up partitions, or all that it waits for has become free. What it says that it has when
it joins it has; who joins the eager way has nothing.

Kafka: GroupMetadataManager.classicGroupJoinToConsumerGroup and its like.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ottla.coordinator.group.classic import CONSUMER, NO_MEMBER
from ottla.coordinator.group.consumer.changes import Change, Planner, Refused
from ottla.coordinator.group.consumer.departures import Departures, decide
from ottla.coordinator.group.consumer.group import (
    ClassicSide,
    ConsumerGroup,
    Member,
    MemberState,
)
from ottla.coordinator.group.consumer.membership import static_member
from ottla.coordinator.group.consumer.migration import (
    encoded_assignment,
    owned_of_subscription,
)
from ottla.coordinator.group.decision import Decision
from ottla.coordinator.group.member_ids import static_member_id_of
from ottla.coordinator.group.rebalance import join_error, sync_error
from ottla.coordinator.group.told import subscription_of
from ottla.errors import DecodeError, codes
from ottla.protocol.messages.api_11_join_group import JoinGroupResponse
from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest, HeartbeatResponse
from ottla.protocol.messages.api_13_leave_group import LeaveGroupRequest, LeaveGroupResponse
from ottla.protocol.messages.api_14_sync_group import SyncGroupRequest, SyncGroupResponse

if TYPE_CHECKING:
    from ottla.coordinator.group.membership import Asker
    from ottla.coordinator.group.rebalance import Settings
    from ottla.coordinator.group.timers import Now
    from ottla.protocol.messages.api_11_join_group import JoinGroupRequest

_FIRST_VERSION_WITH_MEMBER_ID_REQUIRED = 4


class ClassicMembers:
    """Answers members of the classic protocol in consumer groups.

    Args:
        planner: makes changes of groups.
        departures: lets members go.
        settings: the broker's.
        new_id: makes what is random of a member's id.
    """

    def __init__(
        self,
        planner: Planner,
        departures: Departures,
        settings: Settings,
        new_id: Callable[[], str],
    ) -> None:
        self._planner = planner
        self._departures = departures
        self._settings = settings
        self._new_id = new_id

    # -- join

    def join(
        self, group: ConsumerGroup, request: JoinGroupRequest, asker: Asker, now: Now
    ) -> Decision:
        """Let a member join, or join again."""
        try:
            return self._join(group, request, asker, now)
        except Refused as refused:
            decision = Decision(waits=True)
            member_id = request.member_id
            decision.reply(
                asker.answer,
                join_error(refused.code, member_id),
                lambda code: join_error(code, member_id),
            )
            return decision

    def _join(
        self, group: ConsumerGroup, request: JoinGroupRequest, asker: Asker, now: Now
    ) -> Decision:
        self._check_join(group, request)
        instance_id = request.group_instance_id
        is_new = request.member_id == NO_MEMBER
        member_id = request.member_id
        decision = Decision(waits=True)
        if is_new:
            unique = self._new_id()
            member_id = f"{asker.client_id}-{unique}"
            if instance_id is not None:
                member_id = static_member_id_of(instance_id, now.wall_ms, unique)
            if instance_id is None and asker.version >= _FIRST_VERSION_WITH_MEMBER_ID_REQUIRED:
                response = join_error(codes.MEMBER_ID_REQUIRED, member_id)
                decision.reply(asker.answer, response, lambda code: join_error(code, NO_MEMBER))
                return decision
        change = Change(group)
        before = self._member_of(change, member_id, instance_id, is_new=is_new)
        try:
            subscription = subscription_of(request.protocols[0].metadata)
        except DecodeError:
            raise Refused(codes.INCONSISTENT_GROUP_PROTOCOL, "malformed metadata") from None
        if before is None and any(each.partitions for each in subscription.owned_partitions):
            # It was put out and does not know; what it reads may be others' by now. Who is new has
            # nothing, also where it joins with an id that it was just given. Kafka lets it in.
            raise Refused(codes.UNKNOWN_MEMBER_ID, "it is no member any more")
        rebalance_ms = request.rebalance_timeout_ms
        after = replace(
            before or Member(member_id),
            instance_id=instance_id,
            rack_id=subscription.rack_id,
            client_id=asker.client_id,
            client_host=asker.client_host,
            topic_names=frozenset(subscription.topics),
            topic_regex="",
            rebalance_timeout_ms=request.session_timeout_ms if rebalance_ms < 0 else rebalance_ms,
            server_assignor=None,
            classic=ClassicSide(
                request.session_timeout_ms,
                tuple((each.name, each.metadata) for each in request.protocols),
            ),
        )
        has_changed = self._planner.subscribe(change, before, after, now)
        self._planner.look(change, now, has_changed=has_changed)
        self._planner.assign(change, now)
        owned = owned_of_subscription(subscription, self._planner.topics)
        self._planner.reconcile(change, member_id, owned, has_changed=has_changed)
        self._joined(change, member_id, now, decision)
        response = JoinGroupResponse(
            generation_id=change.group.members[member_id].member_epoch,
            protocol_type=CONSUMER,
            protocol_name=request.protocols[0].name,
            member_id=member_id,
        )
        decision.reply(asker.answer, response, lambda code: join_error(code, request.member_id))
        return decision

    def _check_join(self, group: ConsumerGroup, request: JoinGroupRequest) -> None:
        size_max = self._settings.group_consumer_max_size
        if len(group.members) >= size_max and request.member_id not in group.members:
            raise Refused(codes.GROUP_MAX_SIZE_REACHED, "the group is full")
        classic = [each.classic for each in group.members.values() if each.classic is not None]
        is_common = any(
            all(protocol.name in dict(each.protocols) for each in classic)
            for protocol in request.protocols
        )
        if request.protocol_type != CONSUMER or not is_common:
            raise Refused(codes.INCONSISTENT_GROUP_PROTOCOL, "no common protocol")

    def _member_of(
        self, change: Change, member_id: str, instance_id: str | None, *, is_new: bool
    ) -> Member | None:
        if instance_id is None:
            return change.group.members.get(member_id)
        if not is_new:
            return static_member(change.group, member_id, instance_id)
        old = change.group.static_member(instance_id)
        return None if old is None else self._planner.replace(change, old, member_id)

    def _joined(self, change: Change, member_id: str, now: Now, decision: Decision) -> None:
        """Decide on a group with a member that has joined.

        Where it took the place of the last member of the consumer protocol, the group is a classic
        one from now on.
        """
        group, member = change.group, change.group.members[member_id]
        members = list(group.members.values())
        if self._departures.becomes_classic(members):
            decision.records += change.records
            self._departures.downgrade(group, members, now, decision)
            return

        def after() -> None:
            assert member.classic is not None
            self._departures.expect_no("join", group.group_id, member_id)
            self._departures.expect_revocation(group.group_id, member, now)
            self._departures.keep_session(group.group_id, member, now)
            timeout_ms = member.rebalance_timeout_ms
            self._departures.expect("sync", group.group_id, member_id, now, timeout_ms)

        decide(decision, change, after)

    # -- sync

    def sync(
        self, group: ConsumerGroup, request: SyncGroupRequest, asker: Asker, now: Now
    ) -> Decision:
        """Tell a member what it is to have."""
        decision = Decision(waits=True)
        try:
            member = self._asking(
                group, request.member_id, request.group_instance_id, request.generation_id
            )
            response = self._synced(group, member, request, now)
        except Refused as refused:
            response = sync_error(refused.code)
        decision.reply(asker.answer, response, sync_error)
        return decision

    def _synced(
        self, group: ConsumerGroup, member: Member, request: SyncGroupRequest, now: Now
    ) -> SyncGroupResponse:
        assert member.classic is not None
        name, metadata = member.classic.protocols[0]
        if request.protocol_type not in (None, CONSUMER) or request.protocol_name not in (
            None,
            name,
        ):
            raise Refused(codes.INCONSISTENT_GROUP_PROTOCOL, "another protocol")
        is_behind = group.group_epoch > member.member_epoch
        if is_behind and member.state is not MemberState.UNREVOKED_PARTITIONS:
            self._departures.expect_join(group.group_id, member, now)
            raise Refused(codes.REBALANCE_IN_PROGRESS, "the group's epoch went on")
        self._departures.expect_no("sync", group.group_id, member.member_id)
        self._departures.keep_session(group.group_id, member, now)
        return SyncGroupResponse(
            protocol_type=request.protocol_type,
            protocol_name=request.protocol_name,
            assignment=encoded_assignment(member.assigned, self._planner.topics, metadata),
        )

    def _asking(
        self, group: ConsumerGroup, member_id: str, instance_id: str | None, generation: int
    ) -> Member:
        """Return the member that asks, of the classic protocol and in its generation."""
        member = group.members.get(member_id)
        if instance_id is not None:
            member = static_member(group, member_id, instance_id)
        if member is None or member.classic is None:
            raise Refused(codes.UNKNOWN_MEMBER_ID, "no member of the classic protocol")
        if generation != member.member_epoch:
            raise Refused(codes.ILLEGAL_GENERATION, "another generation")
        return member

    # -- heartbeat

    def heartbeat(
        self, group: ConsumerGroup, request: HeartbeatRequest, asker: Asker, now: Now
    ) -> Decision:
        """Take note that a member is alive, and tell it whether it has to join again."""
        decision = Decision(waits=True)
        error = codes.NONE
        try:
            member = self._asking(
                group, request.member_id, request.group_instance_id, request.generation_id
            )
        except Refused as refused:
            error = refused.code
        else:
            self._departures.keep_session(group.group_id, member, now)
            change = Change(group)
            self._planner.look(change, now, has_changed=False)

            def after() -> None:
                group.topics_version = change.topics_version

            decide(decision, change, after)
            if self._has_to_join(change.group, member):
                error = codes.REBALANCE_IN_PROGRESS
                self._departures.expect_join(group.group_id, member, now)
        response = HeartbeatResponse(error_code=error)
        decision.reply(asker.answer, response, lambda code: HeartbeatResponse(error_code=code))
        return decision

    def _has_to_join(self, group: ConsumerGroup, member: Member) -> bool:
        is_released = (
            member.state is MemberState.UNRELEASED_PARTITIONS and not group.waits_for_others(member)
        )
        return member.member_epoch < group.group_epoch or member.rules.rejoins or is_released

    # -- leave

    def leave(
        self, group: ConsumerGroup, request: LeaveGroupRequest, asker: Asker, now: Now
    ) -> Decision:
        """Let members leave; static ones may be named by their instance id alone."""
        decision = Decision(waits=True)
        leaving: dict[str, Member] = {}
        results = []
        for each in request.members:
            error = codes.NONE
            try:
                member = self._leaving(group, each)
                leaving[member.member_id] = member
            except Refused as refused:
                error = refused.code
            results.append(
                LeaveGroupResponse.MemberResponse(
                    member_id=each.member_id,
                    group_instance_id=each.group_instance_id,
                    error_code=error,
                )
            )
        self._departures.remove(group, list(leaving.values()), now, decision)
        decision.reply(
            asker.answer,
            LeaveGroupResponse(members=results),
            lambda code: LeaveGroupResponse(error_code=code),
        )
        return decision

    def _leaving(self, group: ConsumerGroup, identity: LeaveGroupRequest.MemberIdentity) -> Member:
        instance_id = identity.group_instance_id
        if instance_id is not None:
            known = group.instances.get(instance_id, NO_MEMBER)
            return static_member(group, identity.member_id or known, instance_id)
        member = group.members.get(identity.member_id)
        if member is None:
            raise Refused(codes.UNKNOWN_MEMBER_ID, "no member")
        return member
