"""Commits a group's offsets, and asks for what is committed.

One commit is under way at a time, so that a later one never lands before an earlier one; those that
wait meanwhile go together, the later offset of a partition over the earlier. A commit is made as
the member that the consumer is when it is sent: where the group has rebalanced in between, it goes
for the partitions that are still this member's, and fails for the others.

Kafka: ConsumerCoordinator, CommitRequestManager, KIP-447.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ottla.client.lookup import TopicPartition
from ottla.client.membership import NO_MEMBER, Identity
from ottla.client.network import Call
from ottla.errors import CommitFailed, FencedMember, KafkaError, broker_error, codes
from ottla.protocol.messages.api_08_offset_commit import OffsetCommitRequest, OffsetCommitResponse
from ottla.protocol.messages.api_09_offset_fetch import OffsetFetchRequest, OffsetFetchResponse

if TYPE_CHECKING:
    from ottla.client.config import ConsumerConfig
    from ottla.client.coordinator import Coordinator
    from ottla.client.node import Node
    from ottla.clock import Clock

NO_GENERATION = -1
_VERSION_MAX = 9
"""The last version in which topics have names; 10 has their ids."""

_FIRST_VERSION_OF_SEVERAL = 8
_FIRST_VERSION_OF_STABLE = 7

_MOVED = (codes.NOT_COORDINATOR, codes.COORDINATOR_NOT_AVAILABLE)
_LATER = (
    *_MOVED,
    codes.COORDINATOR_LOAD_IN_PROGRESS,
    codes.REQUEST_TIMED_OUT,
    codes.REBALANCE_IN_PROGRESS,
    codes.UNSTABLE_OFFSET_COMMIT,
)
_NO_MEMBER_ANY_MORE = (
    codes.UNKNOWN_MEMBER_ID,
    codes.ILLEGAL_GENERATION,
    codes.FENCED_INSTANCE_ID,
    codes.GROUP_ID_NOT_FOUND,
)
_NOT_AS_THIS_MEMBER = (*_NO_MEMBER_ANY_MORE, codes.STALE_MEMBER_EPOCH)


class OffsetAndMetadata(NamedTuple):
    """What is committed for a partition: the next offset to be read, and a note with it."""

    offset: int
    metadata: str = ""


Offsets = dict[TopicPartition, OffsetAndMetadata]


class Commit:
    """Some offsets on their way.

    Attributes:
        offsets: what is to be committed.
        is_done: whether it was, or will not be.
        error: why not, or None.
        delay: why it was not yet, as far as a coordinator said so.
        done: is called when it is done.
    """

    __slots__ = ("delay", "done", "error", "is_done", "offsets")

    def __init__(self, offsets: Offsets, done: Callable[[Commit], None] | None = None) -> None:
        self.offsets = offsets
        self.is_done = False
        self.error: KafkaError | None = None
        self.delay: KafkaError | None = None
        self.done = done

    def end(self, error: KafkaError | None) -> None:
        """Take note of the outcome."""
        self.is_done = True
        self.error = error
        if self.done is not None:
            self.done(self)


class Member(Protocol):
    """As who is committed."""

    @property
    def identity(self) -> Identity | None:
        """As who; None while that is not possible."""
        ...

    @property
    def owned(self) -> frozenset[TopicPartition]:
        """For what; nothing else is committed."""
        ...

    @property
    def why_out(self) -> str:
        """Why for nothing else."""
        ...

    def commit_refused(self, identity: Identity, code: int) -> None:
        """Take note of what the coordinator says to a commit."""
        ...


class GroupOffsets:
    """Commits and fetches a group's offsets.

    Args:
        group_id: the group.
        coordinator: who is asked.
        config: the consumer's settings.
        clock: where time comes from.
    """

    def __init__(
        self, group_id: str, coordinator: Coordinator, config: ConsumerConfig, clock: Clock
    ) -> None:
        self.member: Member | None = None
        self._group_id = group_id
        self._coordinator = coordinator
        self._config = config
        self._clock = clock
        self._waiting: list[Commit] = []
        self._under_way: list[Commit] = []
        self._fetches: list[CommittedLookup] = []
        self._next_ms = 0.0

    # -- wishes

    def commit(self, commit: Commit) -> None:
        """Put a commit on its way."""
        refusal = self._refusal(commit)
        if refusal is not None:
            commit.end(refusal)
        elif not commit.offsets:
            commit.end(None)
        else:
            self._waiting.append(commit)

    def forget(self, commit: Commit) -> None:
        """Do not send a commit any more; one that is under way may still arrive."""
        for commits in (self._waiting, self._under_way):
            if commit in commits:
                commits.remove(commit)

    def fetch(self, partitions: list[TopicPartition]) -> CommittedLookup:
        """Ask for what is committed for partitions."""
        lookup = CommittedLookup(partitions)
        self._fetches.append(lookup)
        return lookup

    def drop(self, lookup: CommittedLookup) -> None:
        """Do not ask any more."""
        if lookup in self._fetches:
            self._fetches.remove(lookup)

    def _refusal(self, commit: Commit) -> KafkaError | None:
        """Return why a commit cannot be: it is for partitions that are not this member's."""
        member = self.member
        if member is None:
            return None
        foreign = sorted(commit.offsets.keys() - member.owned)
        if not foreign:
            return None
        names = ", ".join(f"{topic}/{number}" for topic, number in foreign[:5])
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        if member.identity is None and not member.owned:
            reason = f"this consumer is no member of group {self._group_id!r}: {member.why_out}"
        else:
            reason = f"not assigned to this member of group {self._group_id!r}"
        return CommitFailed(
            f"the offsets of {names}{more} were not committed: {reason}",
            "What was read of them since the last commit is read again, by whoever has them now.",
            (
                "Commit before on_revoked returns, and expect records twice after a rebalance.",
                "Where handling takes long, poll fewer records (max_poll_records), or allow more "
                "time (max_poll_interval_ms).",
            ),
            partitions=foreign,
        )

    # -- time

    def step(self, now: float) -> float | None:
        """Do what is due; returns when to look again, on the monotonic clock, or None."""
        if not self._waiting and not self._fetches:
            return None
        if now < self._next_ms:
            return self._next_ms
        node = self._coordinator.node_for_commits()
        if node is None:
            return None
        if self._waiting and not self._under_way:
            self._send_commits(node)
        for lookup in self._fetches:
            if not lookup.is_under_way:
                self._send_fetch(node, lookup)
        return None

    def _later(self, code: int | None = None) -> None:
        if code in _MOVED:
            self._coordinator.forget()
        self._next_ms = self._clock.monotonic_ms() + self._config.retry_backoff_ms

    # -- commits

    def _send_commits(self, node: Node) -> None:
        identity: Identity | None = Identity(NO_GENERATION, NO_MEMBER, None)
        if self.member is not None:
            self._refuse_foreign()
            identity = self.member.identity
        if identity is None or not self._waiting:
            return
        self._under_way, self._waiting = self._waiting, []
        offsets: Offsets = {}
        for commit in self._under_way:
            offsets |= commit.offsets
        topics: dict[str, OffsetCommitRequest.OffsetCommitRequestTopic] = {}
        for (topic, number), committed in offsets.items():
            asked = topics.setdefault(
                topic, OffsetCommitRequest.OffsetCommitRequestTopic(name=topic)
            )
            asked.partitions.append(
                OffsetCommitRequest.OffsetCommitRequestPartition(
                    partition_index=number,
                    committed_offset=committed.offset,
                    committed_metadata=committed.metadata,
                )
            )
        request = OffsetCommitRequest(
            group_id=self._group_id,
            generation_id_or_member_epoch=identity.generation_id,
            member_id=identity.member_id,
            group_instance_id=identity.instance_id,
            topics=list(topics.values()),
        )
        as_who = identity

        def done(response: OffsetCommitResponse | None, error: KafkaError | None) -> None:
            self._committed(as_who, response, error)

        node.send(Call(request, OffsetCommitResponse, done), _VERSION_MAX)

    def _refuse_foreign(self) -> None:
        waiting, self._waiting = self._waiting, []
        for commit in waiting:
            refusal = self._refusal(commit)
            if refusal is None:
                self._waiting.append(commit)
            else:
                commit.end(refusal)

    def _committed(
        self,
        identity: Identity,
        response: OffsetCommitResponse | None,
        error: KafkaError | None,
    ) -> None:
        commits, self._under_way = self._under_way, []
        if response is None:
            self._later()
            if error is None or isinstance(error, ConnectionError):
                self._again(commits, error)
            else:
                _end_all(commits, error)
            return
        found = {
            TopicPartition(topic.name, each.partition_index): each.error_code
            for topic in response.topics
            for each in topic.partitions
        }
        for commit in commits:
            self._end(commit, identity, {where: found.get(where, 0) for where in commit.offsets})

    def _again(self, commits: list[Commit], why: KafkaError | None) -> None:
        for commit in commits:
            commit.delay = why
        self._waiting[:0] = commits

    def _end(self, commit: Commit, identity: Identity, found: Mapping[TopicPartition, int]) -> None:
        bad = {where: code for where, code in found.items() if code != codes.NONE}
        if not bad:
            commit.end(None)
            return
        code = next(iter(bad.values()))
        member = self.member
        if code in _NOT_AS_THIS_MEMBER and member is not None:
            if member.identity in (identity, None):
                member.commit_refused(identity, code)
            # Where it is another generation by now, what is still this member's is committed there.
            refusal = self._refusal(commit)
            if refusal is not None:
                commit.end(refusal)
                return
            code = codes.REBALANCE_IN_PROGRESS
        if code in _LATER:
            self._later(code)
            self._again([commit], broker_error(code, "not committed yet"))
            return
        commit.end(self._named(code, sorted(bad)))

    def _named(self, code: int, partitions: list[TopicPartition]) -> KafkaError:
        names = ", ".join(f"{topic}/{number}" for topic, number in partitions[:5])
        what = f"the offsets of {names} were not committed to group {self._group_id!r}"
        effect = "What was read since the last commit is read again."
        if code == codes.FENCED_INSTANCE_ID:
            return FencedMember(f"{what}: another member has its group_instance_id", effect)
        if code in _NO_MEMBER_ANY_MORE:
            return CommitFailed(
                f"{what}: the group has members, and this consumer is none of them",
                effect,
                ("Stop the group's members, or subscribe to topics instead of assigning them.",),
                partitions=partitions,
            )
        return broker_error(code, what, effect)

    # -- what is committed

    def _send_fetch(self, node: Node, lookup: CommittedLookup) -> None:
        version = node.best_version(OffsetFetchRequest, _VERSION_MAX)
        request = _fetch_request(self._group_id, lookup.wanted, version)
        lookup.is_under_way = True

        def done(response: OffsetFetchResponse | None, error: KafkaError | None) -> None:
            lookup.is_under_way = False
            if response is None:
                self._later()
                if error is not None and not isinstance(error, ConnectionError):
                    lookup.error = error
            else:
                self._fetched(lookup, response)
            if lookup.is_done:
                self.drop(lookup)

        node.send(Call(request, OffsetFetchResponse, done), _VERSION_MAX)

    def _fetched(self, lookup: CommittedLookup, response: OffsetFetchResponse) -> None:
        group = response.groups[0] if response.groups else response
        worst = group.error_code
        for topic in group.topics:
            for each in topic.partitions:
                if each.error_code == codes.NONE:
                    lookup.learn(TopicPartition(topic.name, each.partition_index), each)
                elif worst == codes.NONE:
                    worst = each.error_code
        if worst in _LATER:
            self._later(worst)
        elif worst != codes.NONE:
            lookup.error = broker_error(
                worst, f"what group {self._group_id!r} has committed is not known"
            )


class CommittedLookup:
    """A question about what is committed.

    Attributes:
        wanted: the partitions that there is no answer for yet.
        found: what is committed by partition; None where nothing is.
        error: why there will be no answer, or None.
        is_under_way: whether it was asked, and not answered yet.
    """

    def __init__(self, partitions: list[TopicPartition]) -> None:
        self.wanted = set(partitions)
        self.found: dict[TopicPartition, OffsetAndMetadata | None] = {}
        self.error: KafkaError | None = None
        self.is_under_way = False

    @property
    def is_done(self) -> bool:
        """Whether all answers are there, or none will be."""
        return self.error is not None or not self.wanted

    def learn(
        self,
        where: TopicPartition,
        answer: OffsetFetchResponse.OffsetFetchResponsePartition
        | OffsetFetchResponse.OffsetFetchResponsePartitions,
    ) -> None:
        """Take the answer for a partition."""
        self.wanted.discard(where)
        offset = answer.committed_offset
        committed = OffsetAndMetadata(offset, answer.metadata or "")
        self.found[where] = None if offset < 0 else committed


def _fetch_request(
    group_id: str, partitions: set[TopicPartition], version: int
) -> OffsetFetchRequest:
    topics: dict[str, list[int]] = {}
    for topic, number in sorted(partitions):
        topics.setdefault(topic, []).append(number)
    if version >= _FIRST_VERSION_OF_SEVERAL:
        several = [
            OffsetFetchRequest.OffsetFetchRequestTopics(name=name, partition_indexes=numbers)
            for name, numbers in topics.items()
        ]
        group = OffsetFetchRequest.OffsetFetchRequestGroup(group_id=group_id, topics=several)
        return OffsetFetchRequest(groups=[group], require_stable=True)
    single = [
        OffsetFetchRequest.OffsetFetchRequestTopic(name=name, partition_indexes=numbers)
        for name, numbers in topics.items()
    ]
    return OffsetFetchRequest(
        group_id=group_id, topics=single, require_stable=version >= _FIRST_VERSION_OF_STABLE
    )


def _end_all(commits: list[Commit], error: KafkaError) -> None:
    for commit in commits:
        commit.end(error)
