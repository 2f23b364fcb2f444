"""The shard of the groups whose records are in one partition of `__consumer_offsets`.

It decides and replays; who runs it appends the records, lets the replies go when they are stored,
and calls what its timers hold when that is due. Replaying is all that happens at a start, and all
that changes what a start would find. `loaded` begins the members' sessions then.

Groups are of two kinds, classic ones and those of the consumer protocol; a group goes over from one
to the other with its members in it. `Group` is what both answer; what members of the classic
protocol ask for goes where their group is.

Kafka: GroupCoordinatorShard, GroupMetadataManager, OffsetMetadataManager.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ottla.coordinator.group.classic import ClassicGroup, State
from ottla.coordinator.group.consumer.changes import Planner
from ottla.coordinator.group.consumer.classic_members import ClassicMembers
from ottla.coordinator.group.consumer.departures import Departures
from ottla.coordinator.group.consumer.group import ConsumerGroup
from ottla.coordinator.group.consumer.membership import ConsumerMembership
from ottla.coordinator.group.consumer.records import CONSUMER_KEYS
from ottla.coordinator.group.decision import Decision
from ottla.coordinator.group.membership import Membership
from ottla.coordinator.group.offsets import NO_EXPIRY, CommittedOffset, Offsets
from ottla.coordinator.group.rebalance import Rebalances, Settings
from ottla.coordinator.group.records import GroupRecord, offset_record
from ottla.errors import codes
from ottla.protocol.messages.group_records import (
    ConsumerGroupMetadataKey,
    GroupMetadataKey,
    GroupMetadataValue,
    OffsetCommitKey,
    OffsetCommitValue,
)

if TYPE_CHECKING:
    from ottla.coordinator.group.consumer.changes import Topics
    from ottla.coordinator.group.group import Group
    from ottla.coordinator.group.membership import Asker
    from ottla.coordinator.group.timers import Now, ShardTimers
    from ottla.protocol.messages.api_11_join_group import JoinGroupRequest
    from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest
    from ottla.protocol.messages.api_13_leave_group import LeaveGroupRequest
    from ottla.protocol.messages.api_14_sync_group import SyncGroupRequest

_FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND = 9


@dataclass(slots=True)
class Commit:
    """One offset that somebody wants to commit.

    Attributes:
        topic: the topic.
        topic_id: its id.
        partition: the partition.
        offset: the next offset to be read.
        leader_epoch: of the record before it, or -1.
        metadata: whatever is to be noted with it.
    """

    topic: str
    topic_id: bytes
    partition: int
    offset: int
    leader_epoch: int
    metadata: str | None


@dataclass(frozen=True, slots=True)
class Committer:
    """Who commits offsets.

    Attributes:
        group_id: its group.
        member_id: its member id; "" for who is no member.
        group_instance_id: its instance id.
        generation: the generation that it is in; negative for who is no member.
        version: of the request.
        retention_ms: how long it wants the offsets to be kept; negative: as the broker does.
        commit_timestamp_ms: when it says that it was; negative: now.
    """

    group_id: str
    member_id: str = ""
    group_instance_id: str | None = None
    generation: int = -1
    version: int = 9
    retention_ms: int = -1
    commit_timestamp_ms: int = -1


class GroupCoordinator:
    """One shard.

    Attributes:
        groups: by their id.
        offsets: what they have committed.
        membership: what answers members of classic groups.
        consumers: what answers members of the consumer protocol.

    Args:
        timers: its deadlines.
        settings: the broker's.
        new_id: makes what is random of a member's id.
        topics: the topics that there are.
        internal_topics: the names of those that no regular expression matches.
    """

    def __init__(
        self,
        timers: ShardTimers,
        settings: Settings,
        new_id: Callable[[], str],
        topics: Topics,
        internal_topics: Collection[str] = (),
    ) -> None:
        self.groups: dict[str, Group] = {}
        self.offsets = Offsets()
        self._settings = settings
        self._rebalances = Rebalances(timers, settings, self._forget)
        self.membership = Membership(self.groups, self._rebalances, settings, topics, new_id)
        planner = Planner(topics, internal_topics, settings.group_consumer_assignors)
        self._departures = Departures(self.groups, timers, planner, self._rebalances, settings)
        self.consumers = ConsumerMembership(
            self.groups, planner, self._departures, self._rebalances, settings, new_id
        )
        self._classic_members = ClassicMembers(planner, self._departures, settings, new_id)

    # -- members

    def join(self, request: JoinGroupRequest, asker: Asker, now: Now) -> Decision:
        """Let a member of the classic protocol join, or join again."""
        group = self.groups.get(request.group_id)
        if isinstance(group, ConsumerGroup) and not group.is_empty:
            return self._classic_members.join(group, request, asker, now)
        return self.membership.join(request, asker, now)

    def sync(self, request: SyncGroupRequest, asker: Asker, now: Now) -> Decision:
        """Tell a member of the classic protocol what it is assigned."""
        group = self.groups.get(request.group_id)
        if isinstance(group, ConsumerGroup):
            return self._classic_members.sync(group, request, asker, now)
        return self.membership.sync(request, asker, now)

    def heartbeat(self, request: HeartbeatRequest, asker: Asker, now: Now) -> Decision:
        """Take note that a member of the classic protocol is alive."""
        group = self.groups.get(request.group_id)
        if isinstance(group, ConsumerGroup):
            return self._classic_members.heartbeat(group, request, asker, now)
        return self.membership.heartbeat(request, asker, now)

    def leave(self, request: LeaveGroupRequest, asker: Asker, now: Now) -> Decision:
        """Let members leave, of whatever protocol."""
        group = self.groups.get(request.group_id)
        if isinstance(group, ConsumerGroup):
            return self._classic_members.leave(group, request, asker, now)
        return self.membership.leave(request, asker, now)

    # -- replay

    def replay(self, record: GroupRecord, offset: int, producer_id: int) -> None:
        """Change the state.

        Args:
            record: what is so from now on.
            offset: where it stands in the log.
            producer_id: whose transaction it belongs to, or -1.
        """
        key, value = record
        if isinstance(key, OffsetCommitKey):
            committed = None
            if isinstance(value, OffsetCommitValue):
                committed = CommittedOffset.from_value(value, offset)
                if key.group not in self.groups:
                    self.groups[key.group] = ClassicGroup(key.group)
            self.offsets.replay(key.group, key.topic, key.partition, committed, producer_id)
        elif isinstance(key, GroupMetadataKey):
            self._replay_group(key.group, value)
        elif isinstance(key, CONSUMER_KEYS):
            self._replay_consumer_group(key.group_id, record)

    def _replay_consumer_group(self, group_id: str, record: GroupRecord) -> None:
        group = self.groups.get(group_id)
        if not isinstance(group, ConsumerGroup):
            if record.value is None:
                return
            if isinstance(group, ClassicGroup):
                group.state = State.DEAD
            group = self.groups[group_id] = ConsumerGroup(group_id)
        group.replay(record)
        if isinstance(record.key, ConsumerGroupMetadataKey) and record.value is None:
            del self.groups[group_id]

    def _replay_group(self, group_id: str, value: object) -> None:
        group = self.groups.get(group_id)
        if not isinstance(value, GroupMetadataValue):
            if isinstance(group, ClassicGroup):
                group.state = State.DEAD
                del self.groups[group_id]
            return
        if not isinstance(group, ClassicGroup):
            group = self.groups[group_id] = ClassicGroup(group_id)
        group.settle(value)

    def replay_end_of_transaction(self, producer_id: int, *, is_commit: bool) -> None:
        """Take note that a transaction with offsets has ended."""
        self.offsets.replay_end_of_transaction(producer_id, is_commit=is_commit)

    def loaded(self, now: Now) -> Decision:
        """Begin the sessions of all members, and rebalance groups that are not what they should be.

        Such are groups that are too large now, and classic ones in which something is nobody's: the
        rebalance that was to give it to somebody is forgotten, and not all members knew of it.
        """
        decision = Decision()
        for group in list(self.groups.values()):
            if isinstance(group, ConsumerGroup):
                for each in group.members.values():
                    self._departures.keep_session(group.group_id, each, now)
                    self._departures.expect_revocation(group.group_id, each, now)
            if not isinstance(group, ClassicGroup):
                continue
            for member in group.members.values():
                self._rebalances.keep_session(group, member, now)
            is_too_large = len(group.members) > self._settings.group_max_size
            if is_too_large or self.membership.leaves_something(group):
                self._rebalances.prepare(group, now, decision)
        return decision

    def unloaded(self, error: int) -> Decision:
        """Answer with an error whoever waits; the shard is not used any more."""
        decision = Decision()
        for group in self.groups.values():
            if isinstance(group, ClassicGroup):
                for member in group.members.values():
                    self._rebalances.refuse_join(member, error, member.member_id, decision)
                    self._rebalances.refuse_sync(member, error, decision)
        return decision

    def _forget(self, group: ClassicGroup) -> None:
        """Forget a group that the log does not know, and nobody else does."""
        if (
            group.is_empty
            and not group.is_expected
            and not group.is_stored
            and not self.offsets.all_of(group.group_id)
            and self.groups.get(group.group_id) is group
        ):
            group.move_to(State.DEAD)
            del self.groups[group.group_id]

    # -- offsets

    def commit(
        self, committer: Committer, commits: list[Commit], now: Now
    ) -> tuple[list[int], Decision]:
        """Commit offsets.

        Returns:
            An error code for each of them, and what is decided.
        """
        decision = Decision()
        error = self._commit_problem(committer)
        if error != codes.NONE:
            return [error] * len(commits), decision
        group = self.groups.get(committer.group_id)
        if isinstance(group, ClassicGroup) and group.state in (
            State.STABLE,
            State.PREPARING_REBALANCE,
        ):
            member = group.members.get(committer.member_id)
            if member is not None:
                self._rebalances.keep_session(group, member, now)
        errors = []
        for each in commits:
            error = codes.NONE
            if group is not None:
                error = group.check_commit_of(
                    committer.member_id, committer.generation, (each.topic_id, each.partition)
                )
            if error != codes.NONE:
                errors.append(error)
                continue
            metadata = each.metadata or ""
            if len(metadata) > self._settings.offset_metadata_max_bytes:
                errors.append(codes.OFFSET_METADATA_TOO_LARGE)
                continue
            errors.append(codes.NONE)
            timestamp_ms = committer.commit_timestamp_ms
            if timestamp_ms < 0:
                timestamp_ms = now.wall_ms
            expires = committer.retention_ms >= 0
            committed = CommittedOffset(
                each.offset,
                each.leader_epoch,
                metadata,
                timestamp_ms,
                timestamp_ms + committer.retention_ms if expires else NO_EXPIRY,
                each.topic_id,
            )
            decision.records.append(
                offset_record(committer.group_id, each.topic, each.partition, committed.to_value())
            )
        return errors, decision

    def _commit_problem(self, committer: Committer) -> int:
        group = self.groups.get(committer.group_id)
        if group is not None:
            return group.check_commit(
                committer.member_id,
                committer.group_instance_id,
                committer.generation,
                committer.version,
            )
        if committer.generation < 0:
            return codes.NONE
        if committer.version >= _FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND:
            return codes.GROUP_ID_NOT_FOUND
        return codes.ILLEGAL_GENERATION

    def fetch(
        self, group_id: str, topic: str, partition: int, *, stable: bool
    ) -> CommittedOffset | int | None:
        """Return a committed offset, None where there is none, or an error code.

        Args:
            group_id: the group.
            topic: the topic.
            partition: the partition.
            stable: refuse what a transaction may still change.
        """
        if stable and self.offsets.is_pending(group_id, topic, partition):
            return codes.UNSTABLE_OFFSET_COMMIT
        return self.offsets.committed.get(group_id, topic, partition)

    def delete_offsets(
        self, group_id: str, partitions: list[tuple[str, int]]
    ) -> tuple[int, list[int], Decision]:
        """Delete committed offsets.

        Returns:
            An error code, another one for each partition, and what is decided.
        """
        decision = Decision(waits=True)
        group = self.groups.get(group_id)
        error = codes.GROUP_ID_NOT_FOUND if group is None else group.check_delete_offsets()
        if group is None or error != codes.NONE:
            return error, [], decision
        known = set(self.offsets.all_of(group_id))
        errors = []
        for topic, partition in partitions:
            is_read = group.is_subscribed_to(topic)
            errors.append(codes.GROUP_SUBSCRIBED_TO_TOPIC if is_read else codes.NONE)
            if not is_read and (topic, partition) in known:
                decision.records.append(offset_record(group_id, topic, partition, None))
        return codes.NONE, errors, decision

    def expire_offsets(self, now: Now) -> Iterator[Decision]:
        """Decide what is kept no longer, group by group: offsets, and empty groups without any.

        Nothing expires that a transaction may still change, nor while a group is rebalancing, nor
        what a stable group reads. An offset without members counts from its commit, and that of a
        group that became empty not from before that; where a client said when it expires, then.
        """
        for group in list(self.groups.values()):
            group_id = group.group_id
            kept = self.offsets.has_open_transaction(group_id)
            decision = Decision()
            for topic, partitions in self.offsets.committed.of_group(group_id).items():
                for partition, committed in partitions.items():
                    if self._is_expired(group, topic, partition, committed, now):
                        decision.records.append(offset_record(group_id, topic, partition, None))
                    else:
                        kept = True
            if not kept and group.is_empty and not group.is_expected:
                decision.records += group.records_of_end()
            if decision.records:
                yield decision

    def _is_expired(
        self, group: Group, topic: str, partition: int, committed: CommittedOffset, now: Now
    ) -> bool:
        if group.is_subscribed_to(topic):
            return False
        begins_ms = group.retention_begins_ms(committed)
        if begins_ms is None or self.offsets.is_pending(group.group_id, topic, partition):
            return False
        if committed.expire_timestamp_ms != NO_EXPIRY:
            return now.wall_ms >= committed.expire_timestamp_ms
        return now.wall_ms - begins_ms >= self._settings.offsets_retention_ms

    def forget_topics(self, is_there: Callable[[str, bytes], bool]) -> Iterator[Decision]:
        """Decide, group by group, that offsets of topics that are gone are gone too.

        Args:
            is_there: tells whether there is a topic of this name and this id; the id is zeros
                where it was not noted.
        """
        for group_id in list(self.groups):
            decision = Decision()
            for topic, partition in self.offsets.all_of(group_id):
                committed = self.offsets.committed.get(group_id, topic, partition)
                topic_id = bytes(16) if committed is None else committed.topic_id
                if not is_there(topic, topic_id):
                    decision.records.append(offset_record(group_id, topic, partition, None))
            if decision.records:
                yield decision

    # -- groups as a whole

    def delete_group(self, group_id: str) -> tuple[int, Decision]:
        """Delete a group without members, with its offsets.

        Returns:
            An error code, and what is decided.
        """
        group = self.groups.get(group_id)
        error = codes.GROUP_ID_NOT_FOUND if group is None else group.check_delete()
        decision = Decision(waits=True)
        if group is not None and error == codes.NONE:
            decision.records += [
                offset_record(group_id, topic, partition, None)
                for topic, partition in self.offsets.all_of(group_id)
            ]
            decision.records += group.records_of_end()
        return error, decision

    def listed(self, states: Collection[str], kinds: Collection[str]) -> list[Group]:
        """Return the groups in some states and of some kinds; both in small letters, none: all."""
        return [
            group
            for group in self.groups.values()
            if (not states or group.state_name.lower() in states)
            and (not kinds or group.kind in kinds)
        ]
