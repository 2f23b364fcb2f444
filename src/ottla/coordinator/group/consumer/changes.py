"""What a decision makes of a group, record by record: what members want, the target, who has what.

A `Change` is a group as it will be. It starts as the group that there is; the first record makes it
a copy, and every record is replayed on that copy as it will be on the group itself. So each step
sees what the ones before it decided, and nothing has changed if the records cannot be stored.

    subscribe     a member becomes what it says that it is
    look          at the topics: expressions are matched anew, and the group's epoch goes on where
                  topics came, went or grew
    assign        makes the target of the group's epoch
    reconcile     lets one member go a step towards it

The target is made at once whenever the epoch went on, as in a Kafka whose
`group.consumer.assignment.interval.ms` is 0.

Kafka: GroupMetadataManager, the part of consumer groups; TargetAssignmentBuilder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ottla.coordinator.group.consumer.assignors import ASSIGNORS, Subscriber
from ottla.coordinator.group.consumer.group import (
    JOINING,
    ConsumerGroup,
    Member,
    ResolvedRegex,
)
from ottla.coordinator.group.consumer.patterns import InvalidPattern, TopicPattern
from ottla.coordinator.group.consumer.reconciliation import Goal, MustRejoin, reconciled
from ottla.coordinator.group.consumer.records import (
    assignment_epoch_record,
    current_record,
    group_epoch_record,
    member_record,
    records_of_no_member,
    regex_record,
    target_record,
)
from ottla.errors import codes

if TYPE_CHECKING:
    from ottla.coordinator.group.consumer.records import Partitions
    from ottla.coordinator.group.records import GroupRecord
    from ottla.coordinator.group.timers import Now


class KnownTopic(Protocol):
    """A topic, as far as groups want to know."""

    @property
    def name(self) -> str: ...

    @property
    def topic_id(self) -> bytes: ...

    @property
    def partitions(self) -> int: ...


class Topics(Protocol):
    """The topics that there are.

    Attributes:
        topics: by their name.
        topics_by_id: the same by their id.
        topics_version: goes on whenever a topic comes, goes or grows.
    """

    @property
    def topics(self) -> Mapping[str, KnownTopic]: ...

    @property
    def topics_by_id(self) -> Mapping[bytes, KnownTopic]: ...

    @property
    def topics_version(self) -> int: ...


class Refused(Exception):
    """A request that cannot be granted.

    Attributes:
        code: why, as an error code.
        message: why, in words.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Change:
    """A group as it will be.

    Attributes:
        group: the group; not to be changed but by `add`.
        records: what makes it that.
        topics_version: of the topics that it was compared with.
    """

    def __init__(self, group: ConsumerGroup) -> None:
        self.group = group
        self.records: list[GroupRecord] = []
        self.topics_version = group.topics_version
        self._is_copy = False

    def add(self, records: Iterable[GroupRecord]) -> None:
        """Decide on records."""
        for record in records:
            if not self._is_copy:
                self.group = self.group.copy()
                self._is_copy = True
            self.records.append(record)
            self.group.replay(record)


class Planner:
    """Makes changes.

    Args:
        topics: the topics that there are.
        internal: those among them that no expression matches.
        assignors: the names of the assignors that members may ask for; the first one is taken
            where nobody does.
    """

    def __init__(
        self, topics: Topics, internal: Collection[str], assignors: tuple[str, ...]
    ) -> None:
        self.topics = topics
        self.assignors = assignors
        self._internal = internal

    # -- members

    def subscribe(self, change: Change, before: Member | None, after: Member, now: Now) -> bool:
        """Let a member become another, or a new one; tells whether it subscribed differently.

        Raises:
            Refused: its regular expression cannot be one.
        """
        is_new_regex = after.topic_regex and after.topic_regex not in change.group.regexes
        pattern = _pattern(after.topic_regex) if is_new_regex else None
        if before is not None and before == after:
            return False
        change.add([member_record(change.group.group_id, after)])
        if pattern is not None:
            self._resolve(change, after.topic_regex, pattern, now)
        self._drop_unused_regexes(change)
        return (
            before is None
            or before.topic_names != after.topic_names
            or before.topic_regex != after.topic_regex
        )

    def remove(self, change: Change, members: Iterable[Member]) -> None:
        """Remove members; the group's epoch goes on."""
        group_id = change.group.group_id
        for member in members:
            change.add(records_of_no_member(group_id, member.member_id))
        self._drop_unused_regexes(change)
        metadata_hash = self._hash_of(change.group.subscribed_topics())
        change.add([group_epoch_record(group_id, change.group.group_epoch + 1, metadata_hash)])

    def replace(self, change: Change, old: Member, member_id: str) -> Member:
        """Let a static member have another id; it keeps what it has, and begins anew."""
        group_id = change.group.group_id
        new = replace(old, member_id=member_id, member_epoch=JOINING, previous_member_epoch=JOINING)
        target = change.group.target.get(old.member_id, frozenset())
        change.add(records_of_no_member(group_id, old.member_id))
        change.add(
            [
                member_record(group_id, new),
                target_record(group_id, member_id, target),
                current_record(group_id, new),
            ]
        )
        return new

    # -- topics

    def _resolve(self, change: Change, regex: str, pattern: TopicPattern, now: Now) -> None:
        """Note what an expression comes to, where that is not what is known."""
        found = frozenset(
            name
            for name in self.topics.topics
            if name not in self._internal and pattern.matches(name)
        )
        known = change.group.regexes.get(regex)
        if known is None or known.topics != found:
            resolved = ResolvedRegex(found, self.topics.topics_version, now.wall_ms)
            change.add([regex_record(change.group.group_id, regex, resolved)])

    def _drop_unused_regexes(self, change: Change) -> None:
        if change.group.regexes:
            used = {each.topic_regex for each in change.group.members.values()}
            unused = [each for each in change.group.regexes if each not in used]
            change.add(regex_record(change.group.group_id, each, None) for each in unused)

    def look(self, change: Change, now: Now, *, has_changed: bool) -> None:
        """Look at the topics, where they or the members' subscriptions have changed."""
        version = self.topics.topics_version
        has_new_topics = change.topics_version != version
        if not has_changed and not has_new_topics:
            return
        change.topics_version = version
        if has_new_topics:
            for regex in list(change.group.regexes):
                try:
                    pattern = TopicPattern(regex)
                except InvalidPattern:  # of a Kafka whose log this was: what it matched stays
                    continue
                self._resolve(change, regex, pattern, now)
        metadata_hash = self._hash_of(change.group.subscribed_topics())
        if has_changed or metadata_hash != change.group.metadata_hash:
            epoch = change.group.group_epoch + 1
            change.add([group_epoch_record(change.group.group_id, epoch, metadata_hash)])

    def _hash_of(self, names: Collection[str]) -> int:
        """Return a number that tells topics from others; it is not the one that Kafka makes."""
        digest = hashlib.blake2b(digest_size=8)
        for name in sorted(names):
            topic = self.topics.topics.get(name)
            if topic is not None:
                digest.update(b"%s %s %d;" % (name.encode(), topic.topic_id, topic.partitions))
        return int.from_bytes(digest.digest(), "big", signed=True)

    def topic_ids_of(self, group: ConsumerGroup, member: Member) -> frozenset[bytes]:
        """Return the topics that a member subscribed to, of those that there are."""
        found = (self.topics.topics.get(name) for name in group.topics_of(member))
        return frozenset(topic.topic_id for topic in found if topic is not None)

    # -- the target

    def assign(self, change: Change, now: Now) -> None:
        """Make the target of the group's epoch, where there is none."""
        group = change.group
        if group.group_epoch <= group.assignment_epoch:
            return
        subscribers = {
            member_id: Subscriber(
                member.instance_id,
                self.topic_ids_of(group, member),
                group.target.get(member_id, frozenset()),
            )
            for member_id, member in group.members.items()
        }
        counts = {each.topic_id: each.partitions for each in self.topics.topics.values()}
        name = group.preferred_assignor()
        if name not in self.assignors:
            name = self.assignors[0]
        target = ASSIGNORS[name](subscribers, counts)
        change.add(
            target_record(group.group_id, member_id, partitions)
            for member_id, partitions in target.items()
            if group.target.get(member_id) != partitions
        )
        change.add([assignment_epoch_record(group.group_id, group.group_epoch, now.wall_ms)])

    def reconcile(
        self, change: Change, member_id: str, owned: Partitions | None, *, has_changed: bool
    ) -> bool:
        """Let a member go a step towards the target; tells whether it did.

        Args:
            change: the group.
            member_id: the member.
            owned: what it says that it has; None: it does not say.
            has_changed: whether it subscribed differently just now.

        Raises:
            Refused: it has to join again.
        """
        group = change.group
        member = group.members[member_id]
        if member.is_reconciled_to(group.assignment_epoch) and not has_changed:
            return False
        goal = Goal(
            group.assignment_epoch,
            group.target.get(member_id, frozenset()),
            self.topic_ids_of(group, member),
            group.owners,
        )
        try:
            after = reconciled(member, goal, owned)
        except MustRejoin:
            raise Refused(
                codes.FENCED_MEMBER_EPOCH,
                "The consumer group member is in a unknown state. "
                "The member must abandon all its partitions and rejoin.",
            ) from None
        if after == member:
            return False
        change.add([current_record(group.group_id, after)])
        return True


def _pattern(regex: str) -> TopicPattern:
    try:
        return TopicPattern(regex)
    except InvalidPattern as problem:
        raise Refused(
            codes.INVALID_REGULAR_EXPRESSION,
            f"SubscribedTopicRegex `{regex}` is not a valid regular expression: {problem}.",
        ) from None
