"""A shard without a broker: its log is a list, time stands still, and nothing need be stored.

Whenever a record is appended, another shard is loaded from the log: it must know the same.
"""

from __future__ import annotations

import itertools
from typing import Any

from ottla.clock import ManualClock
from ottla.coordinator.cluster.state import ClusterState
from ottla.coordinator.group.classic import ClassicGroup, State
from ottla.coordinator.group.coordinator import Commit, Committer, GroupCoordinator
from ottla.coordinator.group.decision import Decision
from ottla.coordinator.group.membership import Asker
from ottla.coordinator.group.offsets import CommittedOffset
from ottla.coordinator.group.rebalance import Settings
from ottla.coordinator.group.records import GroupCodec
from ottla.coordinator.group.timers import Now, Timers
from ottla.errors import codes
from ottla.protocol.codec import encode
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_11_join_group import JoinGroupRequest
from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest
from ottla.protocol.messages.api_13_leave_group import LeaveGroupRequest
from ottla.protocol.messages.api_14_sync_group import SyncGroupRequest
from ottla.protocol.messages.embedded_data import ConsumerProtocolSubscription

SESSION_MS = 10_000
REBALANCE_MS = 60_000
TOPIC_ID = bytes(range(16))

Log = list[tuple[bytes | None, bytes | None]]


def subscription(*topics: str) -> bytes:
    """Return what a consumer says that it reads."""
    return b"\0\0" + encode(ConsumerProtocolSubscription(topics=list(topics)), 0)


class Asked:
    """A request, and its response as soon as there is one."""

    def __init__(self) -> None:
        self.answers: list[ApiMessage] = []

    @property
    def is_answered(self) -> bool:
        return bool(self.answers)

    @property
    def response(self) -> Any:
        assert len(self.answers) == 1, self.answers
        return self.answers[0]

    @property
    def error(self) -> int:
        error: int = self.response.error_code
        return error


class Shard:
    """A shard, and whoever asks it.

    Attributes:
        failing: the error code of why nothing can be appended; 0 where it can.
    """

    def __init__(
        self,
        log: Log | None = None,
        clock: ManualClock | None = None,
        cluster: ClusterState | None = None,
        **settings: Any,
    ) -> None:
        self.clock = clock or ManualClock()
        self.timers = Timers()
        self.settings = settings
        self.log: Log = [] if log is None else log
        self.failing = 0
        self.cluster = cluster or ClusterState(1)
        self._numbers = itertools.count(1)
        self.coordinator = GroupCoordinator(
            self.timers.of_shard(5),
            Settings(**settings),
            lambda: str(next(self._numbers)),
            self.cluster,
            ("internal",),
        )
        for offset, record in enumerate(self.log):
            self._replay(record, offset, -1)
        self.do(self.coordinator.loaded(self.now))

    @property
    def now(self) -> Now:
        return Now(self.clock.now_ms(), self.clock.monotonic_ms())

    def _replay(
        self, record: tuple[bytes | None, bytes | None], offset: int, producer_id: int
    ) -> None:
        decoded = GroupCodec().decode(*record)
        assert decoded is not None
        self.coordinator.replay(decoded, offset, producer_id)

    def do(self, decision: Decision) -> None:
        if decision.records and self.failing:
            for reply in decision.replies:
                reply.answer(reply.refused(self.failing))
            if decision.refused is not None:
                self.do(decision.refused(self.failing))
            return
        for record in decision.records:
            self.log.append(GroupCodec().encode(record))
            self._replay(self.log[-1], len(self.log) - 1, -1)
        if decision.appended is not None:
            decision.appended()
        for reply in decision.replies:
            reply.answer(reply.response)
        if decision.records:
            self._check_what_is_loaded()

    def _check_what_is_loaded(self) -> None:
        again = self.reloaded()
        for group_id in self.coordinator.groups:
            if self._is_settled(group_id):
                assert again.known(group_id) == self.known(group_id)

    def _is_settled(self, group_id: str) -> bool:
        """Tell whether a group is what its last record says, and a start leaves it at that."""
        if not isinstance(self.coordinator.groups[group_id], ClassicGroup):
            return True
        group = self.group(group_id)
        is_whole = not self.coordinator.membership.leaves_something(group)
        return group.state in (State.EMPTY, State.STABLE) and is_whole

    def known(self, group_id: str = "g") -> object:
        """Return what a start would find of a group."""
        offsets = self.coordinator.offsets.committed.of_group(group_id)
        group = self.coordinator.groups.get(group_id)
        if not isinstance(group, ClassicGroup) or not group.is_stored:
            return offsets
        members = [
            (
                each.member_id,
                each.group_instance_id,
                each.assignment,
                each.protocols.get(group.protocol_name or ""),
                each.session_timeout_ms,
                each.rebalance_timeout_ms,
            )
            for each in group.members.values()
        ]
        return (
            offsets,
            group.state,
            group.generation_id,
            group.protocol_type,
            group.protocol_name,
            group.leader_id,
            group.state_timestamp_ms,
            group.subscribed_topics,
            members,
        )

    def reloaded(self) -> Shard:
        """Return the shard as it is after a start now."""
        again = type(self)(self.log[:], self.clock, self.cluster, **self.settings)
        again._numbers = self._numbers
        return again

    def advance(self, milliseconds: float) -> None:
        """Let time go by, and everything happen when it is due."""
        end_ms = self.clock.monotonic_ms() + milliseconds
        while True:
            deadline_ms = self.timers.next_deadline_ms()
            if deadline_ms is None or deadline_ms > end_ms:
                break
            self.clock.advance(max(deadline_ms - self.clock.monotonic_ms(), 0))
            for shard, action in self.timers.due(self.clock.monotonic_ms()):
                assert shard == 5
                self.do(action(self.now))
        self.clock.advance(end_ms - self.clock.monotonic_ms())

    def group(self, group_id: str = "g") -> ClassicGroup:
        group = self.coordinator.groups[group_id]
        assert isinstance(group, ClassicGroup)
        return group

    @property
    def state(self) -> str:
        return self.group().state_name

    # -- requests

    def _asker(self, asked: Asked, version: int) -> Asker:
        return Asker("c", "/here", version, asked.answers.append)

    def join(
        self,
        member_id: str = "",
        *,
        version: int = 9,
        instance: str | None = None,
        protocols: dict[str, bytes] | None = None,
        **fields: Any,
    ) -> Asked:
        """Ask to join the group "g" as a consumer that speaks "range"."""
        asked: Asked = Asked()
        spoken = {"range": subscription("t")} if protocols is None else protocols
        request = JoinGroupRequest(
            group_id=fields.pop("group_id", "g"),
            session_timeout_ms=fields.pop("session_ms", SESSION_MS),
            rebalance_timeout_ms=fields.pop("rebalance_ms", REBALANCE_MS),
            member_id=member_id,
            group_instance_id=instance,
            protocol_type=fields.pop("protocol_type", "consumer"),
            protocols=[
                JoinGroupRequest.JoinGroupRequestProtocol(name=name, metadata=metadata)
                for name, metadata in spoken.items()
            ],
        )
        assert not fields, fields
        asker = self._asker(asked, version)
        self.do(self.coordinator.join(request, asker, self.now))
        return asked

    def sync(
        self,
        member_id: str,
        generation: int,
        assignments: dict[str, bytes] | None = None,
        **fields: Any,
    ) -> Asked:
        asked: Asked = Asked()
        request = SyncGroupRequest(
            group_id=fields.pop("group_id", "g"),
            generation_id=generation,
            member_id=member_id,
            assignments=[
                SyncGroupRequest.SyncGroupRequestAssignment(member_id=member, assignment=assignment)
                for member, assignment in (assignments or {}).items()
            ],
            **fields,
        )
        self.do(self.coordinator.sync(request, self._asker(asked, 5), self.now))
        return asked

    def heartbeat(self, member_id: str, generation: int, instance: str | None = None) -> int:
        asked: Asked = Asked()
        request = HeartbeatRequest(
            group_id="g",
            generation_id=generation,
            member_id=member_id,
            group_instance_id=instance,
        )
        self.do(self.coordinator.heartbeat(request, self._asker(asked, 4), self.now))
        return asked.error

    def leave(self, *members: tuple[str, str | None]) -> Any:
        """Ask that members leave: (member id, instance id)."""
        asked: Asked = Asked()
        identities = [
            LeaveGroupRequest.MemberIdentity(member_id=member_id, group_instance_id=instance)
            for member_id, instance in members
        ]
        request = LeaveGroupRequest(group_id="g", members=identities)
        self.do(self.coordinator.leave(request, self._asker(asked, 5), self.now))
        return asked.response

    def commit(
        self, offset: int, *, topic: str = "t", metadata: str | None = "", **committer: Any
    ) -> int:
        """Commit an offset of partition 0."""
        who = Committer(committer.pop("group_id", "g"), **committer)
        commit = Commit(topic, TOPIC_ID, 0, offset, 3, metadata)
        errors, decision = self.coordinator.commit(who, [commit], self.now)
        self.do(decision)
        return errors[0]

    def committed(self, topic: str = "t", group_id: str = "g") -> int | None:
        found = self.coordinator.fetch(group_id, topic, 0, stable=False)
        return found.offset if isinstance(found, CommittedOffset) else None

    # -- what tests begin with

    def new_id(self) -> str:
        """Let somebody ask to join, and return the id that it is to join with."""
        asked = self.join()
        assert asked.error == codes.MEMBER_ID_REQUIRED
        member_id: str = asked.response.member_id
        return member_id

    def joined(self, count: int = 1) -> list[str]:
        """Let so many members join one generation, of which they have been told; the first leads.

        The first one begins alone, so with others it is the second generation.
        """
        members = [self.new_id() for _ in range(count)]
        first = self.join(members[0])
        assert first.error == codes.NONE
        if count > 1:
            others = [self.join(member) for member in members[1:]]
            again = self.join(members[0])
            generations = {each.response.generation_id for each in (again, *others)}
            assert generations == {self.group().generation_id}
        assert self.group().leader_id == members[0]
        return members

    def stable(self, count: int = 1) -> list[str]:
        """Let so many members form a stable group, each assigned its own id; the first leads."""
        members = self.joined(count)
        generation = self.group().generation_id
        followers = [self.sync(member, generation) for member in members[1:]]
        leader = self.sync(members[0], generation, {each: each.encode() for each in members})
        assigned = [each.response.assignment for each in (leader, *followers)]
        assert assigned == [each.encode() for each in members]
        assert self.state == "Stable"
        return members
