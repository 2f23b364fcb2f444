"""What a member of a group of the consumer protocol does, without sockets, threads or clocks.

There is one request, ConsumerGroupHeartbeat. With epoch 0 it joins, with -1 it leaves, with -2 a
static member leaves for a while; with its epoch a member says that it is alive, and whatever has
changed. The broker answers with its epoch, and with what it is to read where that has changed.

The first heartbeat says everything, and so does each one after an answer that was lost or an error,
for nobody knows then what the broker knows. It is sent at the interval that the broker gives, and
at once where something waits for it: a wish for other topics, or the word that partitions were
given back. That word is due whenever something was taken from what the member had been told to
read, whether it had begun with it or not; it is given when the user's thread reads none of it any
more. What a member was given needs no word, and counts as owned at once: what it does not name when
it gives its word is somebody else's, and the user's thread may begin with it in that moment.

The broker names topics by their ids. A topic that was deleted and made anew is another one: what
was read of the first is given back before the second is begun with.

Kafka: ConsumerMembershipManager, ConsumerHeartbeatRequestManager, KIP-848.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ottla.client.lookup import TopicPartition
from ottla.client.membership import LATER, MOVED, Change, Identity, Kind
from ottla.errors import FencedMember, KafkaError, broker_error, codes
from ottla.protocol.messages.api_68_consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)

if TYPE_CHECKING:
    from ottla.client.config import ConsumerConfig
    from ottla.client.membership import FoundTopic
    from ottla.protocol.message import ApiMessage

_LOG = logging.getLogger("ottla.client")
JOINING = 0
LEAVING = -1
LEAVING_FOR_A_WHILE = -2
_NOTHING: frozenset[TopicPartition] = frozenset()
_ANSWER_MS = 20_000.0
"""After so long an answer counts as lost, in time to be asked for again in a session of 45 s."""

_OUT = (
    codes.UNKNOWN_MEMBER_ID,
    codes.FENCED_MEMBER_EPOCH,
    codes.ILLEGAL_GENERATION,
    codes.GROUP_ID_NOT_FOUND,
)
"""What a broker says to a member that is none any more, or not as it thinks."""

_NO_CONSUMER_PROTOCOL = (codes.GROUP_ID_NOT_FOUND, codes.UNSUPPORTED_VERSION)
"""What a broker says where a group cannot be joined with this protocol."""


class _Wish(NamedTuple):
    """What a member wants to read: topics, or what matches for the broker."""

    topics: frozenset[str] = frozenset()
    pattern: str = ""


class ConsumerMembership:
    """A place in a group of the consumer protocol.

    Attributes:
        member_id: its id, which it keeps for as long as it lives.
        epoch: how far it has come, as the broker says; 0 while it is no member.
        pattern: what the broker is to match; "" for nothing.

    Args:
        group_id: the group.
        config: the consumer's settings.
        member_id: an id that nobody else has.
    """

    def __init__(self, group_id: str, config: ConsumerConfig, member_id: str) -> None:
        self.error: KafkaError | None = None
        self.loses_coordinator = False
        self.wants_classic = False
        self.member_id = member_id
        self.epoch = JOINING
        self.is_out = True
        self.why_out = "it has not joined yet"
        self.topics_to_know: frozenset[str] = frozenset()
        self._group_id = group_id
        self._config = config
        self._wish = _Wish()
        self._had_pattern = False
        self._owned: dict[TopicPartition, bytes] = {}
        self._told: frozenset[tuple[bytes, int]] = frozenset()
        self._topics: dict[bytes, FoundTopic] = {}
        self._ids_to_know: frozenset[bytes] = frozenset()
        self._lost = _NOTHING
        self._revoked = _NOTHING
        self._new: dict[TopicPartition, bytes] = {}
        self._owes_word = False
        self._is_joining = False
        self._answers = 0
        self._said: _Wish | None = None
        self._said_owned: frozenset[tuple[bytes, int]] = frozenset()
        self._sent: ApiMessage | None = None
        self._may_be_member = False
        self._leaving: ConsumerGroupHeartbeatRequest | None = None
        self._interval_ms = 0.0
        self._heartbeat_ms = 0.0
        self._not_before_ms = 0.0
        self._polled_ms = 0.0
        self._waits_for_poll = False

    # -- what is so

    @property
    def pattern(self) -> str:
        return self._wish.pattern

    @property
    def owned(self) -> frozenset[TopicPartition]:
        return frozenset(self._owned)

    @property
    def identity(self) -> Identity | None:
        if self.epoch <= JOINING:
            return None
        return Identity(self.epoch, self.member_id, self._config.group_instance_id)

    @property
    def is_settled(self) -> bool:
        is_waiting = self.is_out or self._is_joining or self._owes_word or self.has_change()
        # Who has just joined may be given nothing until others have given it back.
        return not is_waiting and not self._ids_to_know and bool(self._told or self._answers > 1)

    @property
    def ids_to_know(self) -> frozenset[bytes]:
        return self._ids_to_know

    # -- wishes

    def subscribe(self, topics: frozenset[str], pattern: str = "") -> None:
        wish = _Wish(topics, pattern)
        if wish == self._wish:
            return
        self._wish = wish
        self._had_pattern = self._had_pattern or bool(pattern)
        if wish == _Wish():
            self._out("it has left the group")
        elif self.is_out and not self._waits_for_poll:
            self._join()

    def take_leave(self) -> ConsumerGroupHeartbeatRequest | None:
        leaving, self._leaving = self._leaving, None
        return leaving

    def _join(self) -> None:
        """Join with nothing, as soon as that can be sent."""
        if self._waits_for_poll or self._wish == _Wish():
            return
        self.is_out = False
        self._is_joining = True
        self._answers = 0
        self.epoch = JOINING
        self._said = None
        self._sent = None
        self._not_before_ms = 0.0

    def _out(self, why: str) -> None:
        """Be no member any more: what it had may be somebody else's."""
        if self._may_be_member:
            instance_id = self._config.group_instance_id
            self._leaving = ConsumerGroupHeartbeatRequest(
                group_id=self._group_id,
                member_id=self.member_id,
                member_epoch=LEAVING if instance_id is None else LEAVING_FOR_A_WHILE,
                instance_id=instance_id,
            )
        self._lose(why)
        self._may_be_member = False
        self.is_out = True
        self._is_joining = False
        self._sent = None

    def _lose(self, why: str) -> None:
        self.why_out = why
        self._lost |= self.owned
        self._owned = {}
        self._told = frozenset()
        self._owes_word = False
        self.epoch = JOINING
        self._look()

    # -- what is to be read

    def _is_known(self, topic_id: bytes, number: int) -> bool:
        """Tell whether a partition can be read: the metadata must not be older than it is."""
        topic = self._topics.get(topic_id)
        return topic is not None and number < topic.partitions

    def _look(self) -> None:
        """See what of what is owned was taken away, and what is new."""
        told = self._told
        known = {each for each in told if self._is_known(*each)}
        self._ids_to_know = frozenset(key for key, _ in told - known)
        target = {TopicPartition(self._topics[key].name, number): key for key, number in known}
        self._revoked = frozenset(
            where for where, key in self._owned.items() if (key, where.partition) not in told
        )
        self._new = {where: key for where, key in target.items() if where not in self._owned}

    def _tell(self, assignment: ConsumerGroupHeartbeatResponse.Assignment) -> None:
        told = frozenset(
            (topic.topic_id, number)
            for topic in assignment.topic_partitions
            for number in topic.partitions
        )
        if self._told - told:
            self._owes_word = True
        self._told = told
        used = {key for key, _ in told} | set(self._owned.values())
        self._topics = {key: topic for key, topic in self._topics.items() if key in used}
        self._look()

    def topics_known(self, partitions: Mapping[str, int]) -> None:
        pass

    def topics_found(self, topics: Mapping[bytes, FoundTopic]) -> None:
        self._topics |= {key: topic for key, topic in topics.items() if key in self._ids_to_know}
        self._look()

    # -- the user's thread

    def polled(self, now: float) -> None:
        self._polled_ms = now
        if self._waits_for_poll:
            self._waits_for_poll = False
            not_before_ms = self._not_before_ms
            self._join()
            self._not_before_ms = not_before_ms

    def has_change(self) -> bool:
        return bool(self._lost or self._revoked or self._new)

    def take_change(self) -> Change | None:
        if self._lost:
            lost, self._lost = self._lost, _NOTHING
            return Change(Kind.LOST, lost)
        if self._revoked:
            return Change(Kind.REVOKED, self._revoked)
        if not self._new:
            return None
        new, self._new = self._new, {}
        self._owned |= new
        return Change(Kind.ASSIGNED, frozenset(new))

    def given_back(self, partitions: frozenset[TopicPartition]) -> None:
        self._lost -= partitions
        for where in partitions:
            self._owned.pop(where, None)
        self._look()

    # -- time

    def step(self, now: float) -> float | None:
        if self.is_out:
            return None
        late_ms = self._polled_ms + self._config.max_poll_interval_ms
        if now >= late_ms:
            self._too_late(now)
            return None
        if self._sent is not None:
            return late_ms
        due_ms = self._not_before_ms
        if not self._has_news():
            due_ms = max(due_ms, self._heartbeat_ms)
        # What is due already waits for the connection, and that will tell.
        return min(late_ms, due_ms) if due_ms > now else late_ms

    def _too_late(self, now: float) -> None:
        seconds = (now - self._polled_ms) / 1000
        _LOG.warning(
            "member %s leaves group %r: nothing was polled for %.1f s (max_poll_interval_ms); it "
            "joins again at the next poll, and what it has not committed is read again",
            self.member_id,
            self._group_id,
            seconds,
        )
        limit = self._config.max_poll_interval_ms / 1000
        self._out(f"nothing was polled for more than {limit:g} s (max_poll_interval_ms)")
        self._not_before_ms = 0.0
        self._waits_for_poll = True

    def _has_news(self) -> bool:
        """Tell whether there is something that is not to wait for the next heartbeat."""
        if self._is_joining or (self._owes_word and not self._revoked):
            return True
        return self._said is not None and self._said != self._wish

    def next_request(self, now: float) -> ApiMessage | None:
        if self.is_out or self._sent is not None or self.wants_classic:
            return None
        if now < self._not_before_ms or (now < self._heartbeat_ms and not self._has_news()):
            return None
        self._sent = self._heartbeat()
        self._may_be_member = True
        return self._sent

    def timeout_ms(self, request: ApiMessage) -> float | None:
        return min(self._config.request_timeout_ms, _ANSWER_MS)

    def _heartbeat(self) -> ConsumerGroupHeartbeatRequest:
        request = ConsumerGroupHeartbeatRequest(
            group_id=self._group_id,
            member_id=self.member_id,
            member_epoch=self.epoch,
            instance_id=self._config.group_instance_id,
        )
        says_all = self._said is None
        if says_all:
            request.rebalance_timeout_ms = int(self._config.max_poll_interval_ms)
            request.server_assignor = self._config.group_remote_assignor
        if self._said != self._wish:
            request.subscribed_topic_names = sorted(self._wish.topics)
            # "" takes back a pattern; brokers that know none must not be sent any.
            request.subscribed_topic_regex = self._wish.pattern if self._had_pattern else None
        # What it was told to read the user may begin with at any moment, before the answer comes.
        owned = frozenset((key, where.partition) for where, key in self._owned.items())
        owned |= self._told
        has_word = self._owes_word and not self._revoked
        if says_all or has_word or owned != self._said_owned:
            topics: dict[bytes, list[int]] = {}
            for key, number in sorted(owned):
                topics.setdefault(key, []).append(number)
            request.topic_partitions = [
                ConsumerGroupHeartbeatRequest.TopicPartitions(topic_id=key, partitions=numbers)
                for key, numbers in topics.items()
            ]
        if has_word:
            self._owes_word = False
        self._said, self._said_owned = self._wish, owned
        return request

    # -- answers

    def failed(self, request: ApiMessage, now: float) -> None:
        if request is self._sent:
            self._again_later(now)

    def _again_later(self, now: float) -> None:
        self._sent = None
        self._said = None
        self._not_before_ms = self._heartbeat_ms = now + self._config.retry_backoff_ms

    def answered(self, request: ApiMessage, response: ApiMessage, now: float) -> None:
        if request is not self._sent:
            return  # it has left, or begun anew, since
        assert isinstance(response, ConsumerGroupHeartbeatResponse)
        self._sent = None
        if response.error_code != codes.NONE:
            self._refused(response.error_code, now, response.error_message)
            return
        self.member_id = response.member_id or self.member_id
        self.epoch = response.member_epoch
        self._is_joining = False
        self._answers += 1
        self._not_before_ms = 0.0
        self._heartbeat_ms = now + response.heartbeat_interval_ms
        if response.assignment is not None:
            self._tell(response.assignment)

    def commit_refused(self, identity: Identity, code: int) -> None:
        if identity != self.identity:
            return
        if code == codes.STALE_MEMBER_EPOCH:
            if self._sent is None:  # the answer that brings the new epoch was lost
                self._said = None
                self._heartbeat_ms = 0.0
        elif code in _OUT or code == codes.FENCED_INSTANCE_ID:
            self._sent = None
            self._refused(code, self._polled_ms, "a commit was refused")

    def unsupported(self, now: float) -> None:
        self._refused(codes.UNSUPPORTED_VERSION, now, None)

    def _refused(self, code: int, now: float, message: str | None) -> None:
        self._said = None
        if code in LATER:
            self.loses_coordinator = self.loses_coordinator or code in MOVED
            self._again_later(now)
        elif code in _OUT and self.epoch > JOINING:
            reason = f"the group has gone on without it: {message or broker_error(code).what}"
            if self._owned:
                _LOG.warning("member %s of %r: %s", self.member_id, self._group_id, reason)
            self._lose(reason)
            self._join()
        elif code == codes.FENCED_INSTANCE_ID:
            self._fenced()
        elif code in _NO_CONSUMER_PROTOCOL and self._config.protocol is None:
            _LOG.info("group %r is joined with the classic protocol: %s", self._group_id, message)
            self._may_be_member = False
            self._out("it joins with the classic protocol")
            self.wants_classic = True
        elif code == codes.UNKNOWN_MEMBER_ID:
            self._again_later(now)
        else:
            self._fail(code, now, message)

    def _fail(self, code: int, now: float, message: str | None) -> None:
        """Tell the user, and try again when that polls again."""
        what = f"group {self._group_id!r} does not take it"
        if message:
            what += f": {message.rstrip('.')}"
        if self.epoch <= JOINING:
            self._may_be_member = False
        self.error = broker_error(code, what, "Nothing is read.", self._steps(code))
        self._out(self.error.what)
        self._waits_for_poll = True
        self._not_before_ms = now + self._config.retry_backoff_ms

    def _steps(self, code: int) -> tuple[str, ...]:
        config = self._config
        if code == codes.UNRELEASED_INSTANCE_ID:
            return (
                f"Stop the other member with group_instance_id={config.group_instance_id!r}, or "
                "give this one a group_instance_id of its own.",
                "Where the other has died, poll again: its place is free after the broker's "
                "group.consumer.session.timeout.ms.",
            )
        if code == codes.UNSUPPORTED_ASSIGNOR:
            return (
                f"Give a group_remote_assignor that the broker has; it is "
                f"{config.group_remote_assignor!r} now, and its group.consumer.assignors says "
                "which it has.",
            )
        if code == codes.GROUP_MAX_SIZE_REACHED:
            return ("Stop another member, or raise the broker's group.consumer.max.size.",)
        if code == codes.INVALID_REGULAR_EXPRESSION:
            return (
                f"Write {self.pattern!r} in RE2's syntax, which has neither look-around nor back "
                "references; or subscribe to re.compile(...), which is matched here.",
            )
        if code == codes.GROUP_ID_NOT_FOUND:
            return (
                "Leave group_protocol out, or give group_protocol='classic': the group has "
                "members of the classic protocol.",
                "Or let it go over: the broker's group.consumer.migration.policy=bidirectional.",
            )
        if code == codes.UNSUPPORTED_VERSION:
            return (
                "Leave group_protocol out, or give group_protocol='classic': this broker's "
                "consumer protocol is too old, or not switched on.",
            )
        return ()

    def _fenced(self) -> None:
        instance_id = self._config.group_instance_id
        self._wish = _Wish()
        self._may_be_member = False
        self._waits_for_poll = False
        self._out(f"another member has joined as {instance_id!r}")
        self.error = FencedMember(
            f"another member of group {self._group_id!r} has joined with the group_instance_id "
            f"{instance_id!r}",
            "This one reads nothing any more; what it has not committed is read by the other.",
            ("Give every member a group_instance_id of its own, and stop this one.",),
        )
