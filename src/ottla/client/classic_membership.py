"""What a member of a classic group does, without sockets, threads or clocks.

    OUT        it is no member, and does not want to be
    GIVING     it is to join again, when the user has given back what an eager protocol demands
    JOINING    JoinGroup: the answer comes when everybody has joined
    ASSIGNING  it leads, and has to know how many partitions the topics have
    SYNCING    SyncGroup: the answer comes when the leader has assigned
    STABLE     it knows what it reads, and sends heartbeats

A static leader that takes its former place is told not to assign anything (KIP-814), and does not
learn what its members have. While it was away, or since it assigned, topics may have grown, and
what was to change hands may be nobody's: so it asks the coordinator (DescribeGroups), once, and
joins again where something is left over. Java's consumer does not ask.

With a cooperative assignor a member keeps what it has while it joins again. Whether it may is the
group's to say: an answer to a join that names an eager protocol means that others may read the same
from now on, and everything is lost.

Kafka: AbstractCoordinator, ConsumerCoordinator, KIP-62, KIP-394, KIP-429, KIP-814.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ottla.client.assignors import (
    ASSIGNORS,
    NO_GENERATION,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from ottla.client.lookup import TopicPartition
from ottla.client.membership import LATER, MOVED, NO_MEMBER, Change, Identity, Kind
from ottla.errors import ClientError, DecodeError, FencedMember, KafkaError, broker_error, codes
from ottla.protocol.messages.api_11_join_group import JoinGroupRequest, JoinGroupResponse
from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest, HeartbeatResponse
from ottla.protocol.messages.api_13_leave_group import LeaveGroupRequest
from ottla.protocol.messages.api_14_sync_group import SyncGroupRequest, SyncGroupResponse
from ottla.protocol.messages.api_15_describe_groups import (
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)

if TYPE_CHECKING:
    from ottla.client.assignors import Members
    from ottla.client.config import ConsumerConfig
    from ottla.client.membership import FoundTopic
    from ottla.protocol.message import ApiMessage

_LOG = logging.getLogger("ottla.client")
_PROTOCOL_TYPE = "consumer"
_STABLE = "Stable"
_NOTHING: frozenset[TopicPartition] = frozenset()


class State(enum.Enum):
    """How far a member of a classic group is."""

    OUT = "out"
    GIVING = "giving back"
    JOINING = "joining"
    ASSIGNING = "assigning"
    SYNCING = "syncing"
    STABLE = "stable"


class ClassicMembership:
    """A place in a classic group.

    Args:
        group_id: the group.
        config: the consumer's settings.
    """

    def __init__(self, group_id: str, config: ConsumerConfig) -> None:
        self.state = State.OUT
        self.error: KafkaError | None = None
        self.loses_coordinator = False
        self.member_id = NO_MEMBER
        self.generation_id = NO_GENERATION
        self.why_out = "it has not joined yet"
        self.topics_to_know: frozenset[str] = frozenset()
        self.ids_to_know: frozenset[bytes] = frozenset()
        self.wants_classic = False
        self._group_id = group_id
        self._config = config
        self._assignors = [ASSIGNORS[name] for name in config.assignors]
        self._topics: frozenset[str] = frozenset()
        self._pattern = ""
        self._owned = _NOTHING
        self._owned_since = NO_GENERATION
        self._target = _NOTHING
        self._lost = _NOTHING
        self._protocol = ""
        self._is_cooperative = False
        self._gave_back = False
        self._members: Members | None = None
        self._partitions: Mapping[str, int] | None = None
        self._assignments: list[SyncGroupRequest.SyncGroupRequestAssignment] = []
        self._sent: ApiMessage | None = None
        self._not_before_ms = 0.0
        self._heartbeat_ms = 0.0
        self._polled_ms = 0.0
        self._waits_for_poll = False
        self._is_outdated = False
        self._has_to_look = False
        self._strays_until_ms = 0.0
        self._leaving = NO_MEMBER
        self._reason = "it is new"

    # -- what is so

    @property
    def owned(self) -> frozenset[TopicPartition]:
        return self._owned

    @property
    def identity(self) -> Identity | None:
        if self.generation_id == NO_GENERATION:
            return None
        return Identity(self.generation_id, self.member_id, self._config.group_instance_id)

    @property
    def is_settled(self) -> bool:
        return self.state is State.STABLE and self._owned == self._target and not self._gave_back

    @property
    def is_out(self) -> bool:
        return self.state is State.OUT

    # -- wishes

    def subscribe(self, topics: frozenset[str], pattern: str = "") -> None:
        if pattern and pattern != self._pattern:
            self._pattern = pattern
            self._out("it has left the group")
            self.error = _no_pattern(self._group_id)
        if pattern or topics == self._topics:
            return
        self._pattern = ""
        self._topics = topics
        if not topics:
            self._out("it has left the group")
            return
        self._is_outdated = isinstance(self._sent, JoinGroupRequest)
        self._rejoin("it is new" if self.state is State.OUT else "it wants other topics")

    def take_leave(self) -> LeaveGroupRequest | None:
        member_id, self._leaving = self._leaving, NO_MEMBER
        if not member_id:
            return None
        identity = LeaveGroupRequest.MemberIdentity(member_id=member_id, reason=self.why_out)
        return LeaveGroupRequest(group_id=self._group_id, members=[identity])

    def _rejoin(self, reason: str) -> None:
        if self._waits_for_poll or not self._topics:
            return
        self._reason = reason
        self._gave_back = False
        self._not_before_ms = 0.0
        gives = self._owned and not self._is_cooperative
        self.state = State.GIVING if gives else State.JOINING

    def _out(self, why: str) -> None:
        """Be no member any more: what it had may be somebody else's."""
        self._lose(why)
        self.state = State.OUT
        if self._config.group_instance_id is None:  # static members keep their place (KIP-345)
            self._leaving = self.member_id
        self.member_id = NO_MEMBER
        self._sent = None

    def _lose(self, why: str) -> None:
        self.why_out = why
        self._lost |= self._owned
        self._owned = self._target = _NOTHING
        self._gave_back = False
        self.generation_id = self._owned_since = NO_GENERATION
        self._members = None
        self.topics_to_know = frozenset()

    # -- the user's thread

    def polled(self, now: float) -> None:
        self._polled_ms = now
        if self._waits_for_poll:
            self._waits_for_poll = False
            self._rejoin("it polls again")

    def topics_known(self, partitions: Mapping[str, int]) -> None:
        if self._members is None:
            return
        if self.state is State.ASSIGNING:
            self._assign(self._members, partitions)
        elif self.state is State.STABLE and partitions != self._partitions:
            if self._partitions is None:  # it leads, but had nothing to assign
                self._partitions = dict(partitions)
            else:
                self._rejoin("topics have other partitions than before")

    def topics_found(self, topics: Mapping[bytes, FoundTopic]) -> None:
        pass

    def has_change(self) -> bool:
        if self._lost or self.state is State.GIVING:
            return True
        return self.state is State.STABLE and self._owned != self._target

    def take_change(self) -> Change | None:
        if self._lost:
            lost, self._lost = self._lost, _NOTHING
            return Change(Kind.LOST, lost)
        if self.state is State.GIVING:
            return Change(Kind.REVOKED, self._owned)
        if self.state is not State.STABLE:
            return None
        if self._owned - self._target:
            return Change(Kind.REVOKED, self._owned - self._target)
        new = self._target - self._owned
        self._owned = self._target
        return Change(Kind.ASSIGNED, new) if new else None

    def given_back(self, partitions: frozenset[TopicPartition]) -> None:
        self._owned -= partitions
        self._lost -= partitions
        if self.state is State.GIVING and not self._owned:
            self.state = State.JOINING
        elif self.state is State.STABLE:
            self._gave_back = True

    # -- time

    def step(self, now: float) -> float | None:
        if self.state is State.OUT:
            return None
        late_ms = self._polled_ms + self._config.max_poll_interval_ms
        if now >= late_ms:
            self._too_late(now)
            return None
        if self._gave_back and self._owned == self._target:
            self._rejoin("it has given back what is another's now")
        if self._sent is not None or self.state is State.ASSIGNING:
            return late_ms
        is_quiet = self.state in (State.STABLE, State.GIVING)
        due_ms = self._heartbeat_ms if is_quiet else self._not_before_ms
        # What is due already waits for the connection, and that will tell.
        return min(late_ms, due_ms) if due_ms > now else late_ms

    def _too_late(self, now: float) -> None:
        seconds = (now - self._polled_ms) / 1000
        _LOG.warning(
            "member %s leaves group %r: nothing was polled for %.1f s (max_poll_interval_ms); it "
            "joins again at the next poll, and what it has not committed is read again",
            self.member_id or "(new)",
            self._group_id,
            seconds,
        )
        limit = self._config.max_poll_interval_ms / 1000
        self._out(f"nothing was polled for more than {limit:g} s (max_poll_interval_ms)")
        self._waits_for_poll = True

    def next_request(self, now: float) -> ApiMessage | None:
        if self._sent is not None or now < self._not_before_ms:
            return None
        if self.state is State.JOINING:
            self._sent = self._join_request()
        elif self.state is State.SYNCING:
            self._sent = self._sync_request()
        elif self.state is State.STABLE and self._has_to_look and self._partitions is not None:
            self._has_to_look = False
            self._sent = DescribeGroupsRequest(groups=[self._group_id])
        elif self.state in (State.STABLE, State.GIVING) and now >= self._heartbeat_ms:
            self._heartbeat_ms = now + self._config.heartbeat_interval_ms
            if self.generation_id != NO_GENERATION:
                self._sent = HeartbeatRequest(
                    group_id=self._group_id,
                    generation_id=self.generation_id,
                    member_id=self.member_id,
                    group_instance_id=self._config.group_instance_id,
                )
        return self._sent

    def timeout_ms(self, request: ApiMessage) -> float | None:
        config = self._config
        if isinstance(request, HeartbeatRequest | DescribeGroupsRequest):
            return min(config.request_timeout_ms, config.session_timeout_ms / 2)
        return config.max_poll_interval_ms + config.request_timeout_ms

    def _join_request(self) -> JoinGroupRequest:
        subscription = encode_subscription(
            Subscription(self._topics, self._owned, self._owned_since)
        )
        return JoinGroupRequest(
            group_id=self._group_id,
            session_timeout_ms=int(self._config.session_timeout_ms),
            rebalance_timeout_ms=int(self._config.max_poll_interval_ms),
            member_id=self.member_id,
            group_instance_id=self._config.group_instance_id,
            protocol_type=_PROTOCOL_TYPE,
            protocols=[
                JoinGroupRequest.JoinGroupRequestProtocol(name=each.name, metadata=subscription)
                for each in self._assignors
            ],
            reason=self._reason,
        )

    def _sync_request(self) -> SyncGroupRequest:
        return SyncGroupRequest(
            group_id=self._group_id,
            generation_id=self.generation_id,
            member_id=self.member_id,
            group_instance_id=self._config.group_instance_id,
            protocol_type=_PROTOCOL_TYPE,
            protocol_name=self._protocol,
            assignments=self._assignments,
        )

    def unsupported(self, now: float) -> None:
        self._refused(codes.UNSUPPORTED_VERSION, now, "the broker is too old")

    # -- answers

    def failed(self, request: ApiMessage, now: float) -> None:
        if request is not self._sent:
            return
        self._sent = None
        self._not_before_ms = now + self._config.retry_backoff_ms
        if isinstance(request, SyncGroupRequest):
            self._rejoin("the answer to a sync was lost")
            self._not_before_ms = now + self._config.retry_backoff_ms
        elif isinstance(request, HeartbeatRequest):
            self._heartbeat_ms = self._not_before_ms
        elif isinstance(request, DescribeGroupsRequest):
            self._has_to_look = True
        elif isinstance(request, JoinGroupRequest) and not request.member_id:
            self._strays_until_ms = now + self._config.session_timeout_ms

    def answered(self, request: ApiMessage, response: ApiMessage, now: float) -> None:
        if request is not self._sent:
            return  # it has left, or begun anew, since
        self._sent = None
        if isinstance(response, JoinGroupResponse):
            self._joined(response, now)
        elif isinstance(response, SyncGroupResponse):
            self._synced(response, now)
        elif isinstance(response, DescribeGroupsResponse):
            self._look(response)
        elif isinstance(response, HeartbeatResponse) and response.error_code != codes.NONE:
            self._refused(response.error_code, now, "a heartbeat was refused")

    def _joined(self, response: JoinGroupResponse, now: float) -> None:
        if response.error_code == codes.MEMBER_ID_REQUIRED:
            self.member_id = response.member_id
            return
        if response.error_code != codes.NONE:
            self._refused(response.error_code, now, "the group does not take it")
            return
        if self._is_outdated:
            self._is_outdated = False
            self.member_id = response.member_id
            return  # it joins again, for it wants other topics since
        assignor = ASSIGNORS.get(response.protocol_name or "")
        if assignor is None:
            self._fail(KafkaError(f"the group chose the protocol {response.protocol_name!r}"), now)
            return
        if self._owned and not assignor.is_cooperative:
            self._lose("the group has changed to an assignor that takes everything from everybody")
        self.member_id = response.member_id
        self.generation_id = response.generation_id
        self._protocol = assignor.name
        self._is_cooperative = assignor.is_cooperative
        self._members, self._partitions = None, None
        self._assignments = []
        self._has_to_look = False
        self.topics_to_know = frozenset()
        self.state = State.SYNCING
        if response.leader == response.member_id:
            self._lead(response, now)

    def _lead(self, response: JoinGroupResponse, now: float) -> None:
        try:
            self._members = {
                each.member_id: decode_subscription(bytes(each.metadata), each.group_instance_id)
                for each in response.members
            }
        except DecodeError as error:
            self._fail(error, now)
            return
        self.topics_to_know = frozenset().union(*(each.topics for each in self._members.values()))
        self._has_to_look = response.skip_assignment
        if not response.skip_assignment:
            self.state = State.ASSIGNING

    def _look(self, response: DescribeGroupsResponse) -> None:
        """Join again where something that the members subscribed to is nobody's."""
        groups = [each for each in response.groups if each.group_state == _STABLE]
        try:
            assigned = [
                decode_assignment(bytes(member.member_assignment))
                for group in groups
                for member in group.members
            ]
        except DecodeError:
            return
        known = self._partitions or {}
        wanted = {TopicPartition(name, n) for name, count in known.items() for n in range(count)}
        if assigned and not wanted <= frozenset().union(*assigned):
            self._rejoin("partitions are nobody's")

    def _assign(self, members: Members, partitions: Mapping[str, int]) -> None:
        assignment = ASSIGNORS[self._protocol].assign(members, partitions)
        self._partitions = dict(partitions)
        self._assignments = [
            SyncGroupRequest.SyncGroupRequestAssignment(
                member_id=member_id, assignment=encode_assignment(assigned)
            )
            for member_id, assigned in assignment.items()
        ]
        self.state = State.SYNCING

    def _synced(self, response: SyncGroupResponse, now: float) -> None:
        if response.error_code != codes.NONE:
            self._refused(response.error_code, now, "the group has gone on without it")
            return
        if self.state is not State.SYNCING:
            return
        try:
            self._target = decode_assignment(bytes(response.assignment))
        except DecodeError as error:
            self._fail(error, now)
            return
        self._owned_since = self.generation_id
        self._heartbeat_ms = now + self._config.heartbeat_interval_ms
        self._not_before_ms = 0.0
        self.state = State.STABLE

    def commit_refused(self, identity: Identity, code: int) -> None:
        if identity == self.identity and code in (
            codes.UNKNOWN_MEMBER_ID,
            codes.ILLEGAL_GENERATION,
            codes.FENCED_INSTANCE_ID,
            codes.GROUP_ID_NOT_FOUND,
        ):
            self._sent = None
            code = codes.UNKNOWN_MEMBER_ID if code == codes.GROUP_ID_NOT_FOUND else code
            self._refused(code, self._polled_ms, "a commit was refused")

    def _refused(self, code: int, now: float, what: str) -> None:
        if code in LATER:
            self.loses_coordinator = self.loses_coordinator or code in MOVED
            self._try_later(now)
        elif code == codes.REBALANCE_IN_PROGRESS:
            if self.state is not State.GIVING:
                self._rejoin("the group rebalances")
        elif code in (codes.UNKNOWN_MEMBER_ID, codes.ILLEGAL_GENERATION):
            name = broker_error(code).what
            if self._owned:
                _LOG.warning("member %s of %r: %s: %s", self.member_id, self._group_id, what, name)
            self._lose(f"{what}: {name}")
            if code == codes.UNKNOWN_MEMBER_ID:
                self.member_id = NO_MEMBER
            self._rejoin("it was out")
        elif code == codes.FENCED_INSTANCE_ID:
            self._fenced(now)
        else:
            steps: Sequence[str] = ()
            if code == codes.INVALID_SESSION_TIMEOUT:
                given = self._config.session_timeout_ms
                steps = (
                    f"Give a session_timeout_ms that the broker allows; it is {given:g} now, and "
                    "the broker's group.min.session.timeout.ms and .max say what may be.",
                )
            if code == codes.INCONSISTENT_GROUP_PROTOCOL:
                names = ", ".join(each.name for each in self._assignors)
                steps = (f"Give all members a common assignor; this one has: {names}.",)
            refusal = broker_error(
                code, f"group {self._group_id!r}: {what}", "Nothing was read.", steps
            )
            self._fail(refusal, now)

    def _try_later(self, now: float) -> None:
        if self.state in (State.SYNCING, State.ASSIGNING):
            self._rejoin("the coordinator has moved")
        self._not_before_ms = self._heartbeat_ms = now + self._config.retry_backoff_ms

    def _fail(self, error: KafkaError, now: float) -> None:
        """Tell the user, and try again when that polls again."""
        self.error = error
        self._lose(error.what)
        self.state = State.OUT
        self._waits_for_poll = True
        self._not_before_ms = now + self._config.retry_backoff_ms

    def _fenced(self, now: float) -> None:
        instance_id = self._config.group_instance_id
        if now < self._strays_until_ms:
            # A join of its own, whose answer was lost, may have come late and have put it out.
            self._strays_until_ms = 0.0
            self._lose(f"a join as {instance_id!r} has come late")
            self.member_id = NO_MEMBER
            self._rejoin("a join of its own has come late")
            return
        self._topics = frozenset()
        self._waits_for_poll = False
        self._out(f"another member has joined as {instance_id!r}")
        self.error = FencedMember(
            f"another member of group {self._group_id!r} has joined with the group_instance_id "
            f"{instance_id!r}",
            "This one reads nothing any more; what it has not committed is read by the other.",
            ("Give every member a group_instance_id of its own, and stop this one.",),
        )


def _no_pattern(group_id: str) -> KafkaError:
    return ClientError(
        f"group {group_id!r} is joined with the classic protocol, in which no broker matches a "
        "SubscriptionPattern",
        "Nothing is read.",
        ("Subscribe to a compiled regular expression, re.compile(...), which is matched here.",),
    )
