"""The parts of a consumer, and how they work together; `ottla.client.consumer` is what users see.

Turns may be done by any thread: by the user's in a poll, and for a member of a group by the
consumer's own while nobody polls. What turns change is looked at with the driver held. What the
user sees - the assignment, and what was handed out - is changed by the user's thread alone.

A position is known from a seek, from a lookup by time or end, or from what the group has committed;
a partition that is assigned in a group begins with the last, and where nothing is committed with
`start`.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ottla.client.cluster import Cluster
from ottla.client.driver import Driver
from ottla.client.fetcher import BatchList, Fetcher
from ottla.client.group import Group
from ottla.client.handing import NOTHING, Attention, Batches, Handing
from ottla.client.lookup import EARLIEST, LATEST, TopicPartition, problem_of_topic
from ottla.client.offsets import Commit, OffsetAndMetadata
from ottla.client.poison import Deserializers
from ottla.errors import (
    ClientError,
    Closed,
    CorruptRecords,
    DeserializationFailed,
    KafkaError,
    NoCommittedOffset,
)
from ottla.records.columns_builder import ColumnsBuilder, columns_of
from ottla.wire.memory import Memory

if TYPE_CHECKING:
    import re

    from ottla.client.config import ConsumerConfig
    from ottla.client.network import Network
    from ottla.client.offsets import CommittedLookup, Offsets
    from ottla.clock import Clock
    from ottla.records.batch import BatchHeader
    from ottla.records.columns import RecordColumns
    from ottla.records.record import Record

_LOG = logging.getLogger("ottla.client")
_TICK_S = 0.1
"""How soon the consumer's own thread looks after its membership when nobody polls any more."""

_ABANDON_TIMEOUT_S = 5.0
_COLUMNS_BYTES = 1024 * 1024
"""No batch is added to columns that are so many bytes."""

_COLUMNS_KEPT_BYTES_MAX = 32 * 1024 * 1024


class Milliseconds(int):
    """A time, where an offset could be meant as well."""


class ConsumerCore:
    """What a consumer consists of.

    Attributes:
        signal: whether an iterator is to look up from what lies before it.
        handing: what was taken from the fetcher for the user.
        columns: what was made of it, where the user wants columns; it counts as handed out.
        ended: commits that the user wants to hear of: what to call.
        is_waiting: whether the user's thread waits in a poll.
        refusal: why the consumer cannot be used any more, or None.
        is_closing: whether whoever waits is to come to an end.
        closer: the thread that closes, and may still wait.

    Args:
        network: what opens connections.
        config: the settings.
        clock: where time comes from.
        start: where to begin; None for what the settings say.
    """

    def __init__(
        self, network: Network, config: ConsumerConfig, clock: Clock, start: int | None
    ) -> None:
        self.config = config
        self.network = network
        self.clock = clock
        self.cluster = Cluster(network, config, clock, create_topics=False)
        self.fetcher = Fetcher(config, self.cluster, clock)
        self.driver = Driver(network, self, clock, _TICK_S)
        self.group: Group | None = None
        if config.group_id is not None:
            self.group = Group(config.group_id, self.cluster, config, clock)
        self.topics: list[str] = []
        self.pattern: re.Pattern[str] | None = None
        self.broker_pattern = ""
        self.signal = Attention()
        self.handing: Handing = NOTHING
        self.columns: RecordColumns | None = None
        self._memory = Memory(_COLUMNS_KEPT_BYTES_MAX)
        self._columns_expected = (512, 4096)
        self.ended: list[Callable[[], object]] = []
        self.is_waiting = False
        self.refusal: ClientError | None = None
        self.is_closing = False
        self.closer = 0
        self._deserializers = Deserializers(config)
        self._start = start
        self._first_counts: dict[str, int] = {}
        self._committed: CommittedLookup | None = None
        self._committed_since: dict[TopicPartition, int] = {}
        self._known_commits: dict[TopicPartition, int] = {}
        self._auto_commit: Commit | None = None
        self._next_commit_ms = clock.monotonic_ms() + config.auto_commit_interval_ms
        self._progress: tuple[Handing, int] = (NOTHING, 0)

    @property
    def attention(self) -> bool:
        """Whether an iterator is to look up from what lies before it."""
        return self.signal.is_wanted

    @attention.setter
    def attention(self, is_wanted: bool) -> None:
        self.signal.is_wanted = is_wanted

    @property
    def is_closed_by_another(self) -> bool:
        """Whether another thread closes it, so that this one is not to wait any more."""
        return self.is_closing and self.closer != threading.get_ident()

    @property
    def start(self) -> int:
        """Where to begin in a partition that has no position."""
        if self._start is not None:
            return self._start
        return LATEST if self.config.auto_offset_reset == "latest" else EARLIEST

    # -- Work

    def step(self) -> float | None:
        """Do what is due; returns when to look again, on the monotonic clock, or None."""
        now = self.clock.monotonic_ms()
        due = [self.cluster.step()]
        self._follow_topics()
        group = self.group
        if group is not None:
            self._note_progress(group, now)
            self._find_committed(group)
            due += [self._maybe_commit(group, now), group.step(now)]
            if group.has_error or group.membership.has_change():
                self.attention = True
        due += [self.fetcher.step(), self.cluster.step()]
        if self.cluster.unreachable is not None:
            self.fetcher.error = self.cluster.unreachable
            self.cluster.try_again()
        known = [each for each in due if each is not None]
        return min(known) if known else None

    def has_work(self) -> bool:
        """Tell whether something is to go on though nobody polls: membership in a group."""
        return self.group is not None and (self.group.is_member or not self.group.has_left)

    def _note_progress(self, group: Group, now: float) -> None:
        """Tell the membership that the user waits in a poll, or goes on in an iterator."""
        progress = (self.handing, self.handing.index)
        if self.is_waiting or progress != self._progress:
            self._progress = progress
            group.membership.polled(now)

    def take_error(self) -> KafkaError | None:
        """Return what the user must be told, once."""
        error = None if self.group is None else self.group.take_error()
        return error or self.fetcher.take_error()

    @property
    def has_error(self) -> bool:
        """Whether there is something that the user must be told."""
        return self.fetcher.error is not None or (self.group is not None and self.group.has_error)

    # -- what to read

    @property
    def is_subscribed(self) -> bool:
        """Whether topics are wanted, by name or as far as they match."""
        return bool(self.topics or self.pattern is not None or self.broker_pattern)

    def subscribe(
        self, topics: list[str], pattern: re.Pattern[str] | None, broker_pattern: str = ""
    ) -> None:
        """Read topics, or those that match, here or for the broker."""
        self.topics, self.pattern, self.broker_pattern = topics, pattern, broker_pattern
        self.cluster.want_matching(None if pattern is None else pattern.search)
        self.cluster.want(topics)
        self._first_counts.clear()
        self.attention = True
        if self.group is None:
            self._let_go_of_all()
            return
        if not self.group.is_member:
            self._let_go_of_all()
        self.group.membership.polled(self.clock.monotonic_ms())
        if pattern is None:
            self.group.subscribe(frozenset(topics), broker_pattern)
        else:
            self.group.is_member = True

    def assign(self, partitions: list[TopicPartition]) -> None:
        """Read exactly these partitions; with a group, from what it has committed on."""
        self.topics, self.pattern, self.broker_pattern = [], None, ""
        self.attention = True
        if self.group is not None:
            self.group.no_member()
        old = set(self.fetcher.partitions)
        self.fetcher.assign(partitions, None)
        self.handing = self.handing.without(old - set(partitions))
        self.cluster.want_matching(None)
        self.cluster.want(where.topic for where in partitions)
        if self.group is None:
            for where in set(partitions) - old:
                self.begin(where, self.start)

    def _let_go_of_all(self) -> None:
        self.fetcher.assign([], None)
        self.handing = NOTHING

    def _follow_topics(self) -> None:
        """Want what matches; without a group read all of it, added partitions from the start."""
        topics = self.topics
        if self.pattern is not None:
            if self.cluster.matching is None:
                return
            topics = sorted(self.cluster.matching)
            if self.group is not None and self.group.is_member:
                self.group.subscribe(self.cluster.matching)
        found: list[TopicPartition] = []
        for topic in topics:
            info = self.cluster.topics.get(topic)
            if info is None or not info.updated_ms:
                continue
            if self.pattern is None:
                problem = problem_of_topic(self.cluster, self.clock, TopicPartition(topic, 0))
                if problem is not None:
                    self.fetcher.error = problem
            if info.leaders:
                self._first_counts.setdefault(topic, len(info.leaders))
            found += [TopicPartition(topic, number) for number in range(len(info.leaders))]
        if self.group is not None or not (self.topics or self.pattern):
            return
        if self.fetcher.partitions.keys() != set(found):
            new = [where for where in found if where not in self.fetcher.partitions]
            self.fetcher.assign(found, None)
            for where in new:
                self.begin(where, self.start_of(where))

    def start_of(self, where: TopicPartition) -> int:
        """Return where to begin: partitions that a topic was given later are read as a whole."""
        info = self.cluster.topics.get(where.topic)
        if info is not None and info.leaders:  # which the broker has found, where that matches
            self._first_counts.setdefault(where.topic, len(info.leaders))
        was_added = where.partition >= self._first_counts.get(where.topic, where.partition + 1)
        return EARLIEST if was_added else self.start

    def begin(self, where: TopicPartition, start: int) -> None:
        """Go on in a partition at an offset, or where a lookup says."""
        state = self.fetcher.partitions[where]
        if start >= 0 and not isinstance(start, Milliseconds):
            state.seek(start)
        else:
            state.seek_by(start)

    def seek(self, where: TopicPartition, to: int) -> None:
        """Go on elsewhere; what lies here of the partition is let go."""
        self.handing = self.handing.without({where})
        self.attention = True
        self.begin(where, to)

    def pause(self, where: TopicPartition, *, is_paused: bool) -> None:
        """Fetch and give out nothing of a partition, or go on with it."""
        state = self.fetcher.partitions[where]
        if is_paused and not state.is_paused:
            offset = self.handing.first_not_handed_out().get(where)
            if offset is not None:
                self.seek(where, offset)
        state.is_paused = is_paused

    def take_over(self, partitions: frozenset[TopicPartition]) -> None:
        """Read partitions that a group has assigned."""
        self.fetcher.assign(sorted({*self.fetcher.partitions, *partitions}), None)

    def let_go(self, partitions: frozenset[TopicPartition]) -> None:
        """Read partitions no more."""
        kept = [where for where in self.fetcher.partitions if where not in partitions]
        self.fetcher.assign(kept, None)
        self.handing = self.handing.without(partitions)
        for where in partitions:
            self._known_commits.pop(where, None)

    # -- positions

    def position(self, where: TopicPartition) -> int | None:
        """Return the offset of the next record that is handed out; None while it is not known."""
        waiting = self.handing.first_not_handed_out().get(where)
        return self.fetcher.partitions[where].position if waiting is None else waiting

    def given(self) -> Offsets:
        """Return where everything that the user has ends."""
        return self._offsets(self.handing.first_not_handed_out())

    def finished(self) -> Offsets:
        """Return where what the user has finished with ends."""
        return self._offsets(self.handing.first_unfinished())

    def _offsets(self, first: dict[TopicPartition, int]) -> Offsets:
        offsets = {}
        for where, state in self.fetcher.partitions.items():
            offset = first.get(where, state.position)
            if offset is not None:
                offsets[where] = OffsetAndMetadata(offset)
        return offsets

    def _find_committed(self, group: Group) -> None:
        """Begin in partitions that have no position where the group has committed."""
        lookup = self._committed
        if lookup is None:
            states = self.fetcher.partitions.values()
            wanted = [
                state.where
                for state in states
                if state.position is None and state.reset is None and not state.is_undecided
            ]
            if not wanted:
                return
            self._committed_since = {
                where: self.fetcher.partitions[where].generation for where in wanted
            }
            self._committed = group.offsets.fetch(wanted)
        elif lookup.is_done:
            self._committed = None
            if lookup.error is not None:
                self.fetcher.error = lookup.error
                undecided = list(self._committed_since)
            else:
                undecided = self._begin_at(lookup.found)
                if undecided:
                    self.fetcher.error = self._no_start(group, undecided)
            for where in undecided:
                state = self.fetcher.partitions.get(where)
                if state is not None and state.position is None:
                    state.is_undecided = True

    def _begin_at(
        self, found: dict[TopicPartition, OffsetAndMetadata | None]
    ) -> list[TopicPartition]:
        """Begin where the group has committed; returns where nobody says where to begin."""
        undecided = []
        for where, committed in found.items():
            state = self.fetcher.partitions.get(where)
            if state is None or state.generation != self._committed_since[where]:
                continue
            if committed is not None:
                state.seek(committed.offset)
                self._known_commits[where] = committed.offset
            elif self._start is None and self.config.auto_offset_reset == "none":
                undecided.append(where)
            else:
                self.begin(where, self.start_of(where))
        return undecided

    def _no_start(self, group: Group, partitions: list[TopicPartition]) -> NoCommittedOffset:
        names = ", ".join(f"{topic}/{number}" for topic, number in sorted(partitions)[:5])
        return NoCommittedOffset(
            f"group {self.config.group_id!r} has committed nothing for {names}, and "
            "auto_offset_reset='none' says not to choose",
            "Nothing was read of them.",
            ("Seek to where reading shall begin, or give start='beginning' or 'end'.",),
            partitions=partitions,
        )

    def decide_again(self) -> None:
        """Look again for what had nowhere to begin."""
        for state in self.fetcher.partitions.values():
            state.is_undecided = False

    # -- commits

    def commit(self, offsets: Offsets, done: Callable[[Commit], None] | None = None) -> Commit:
        """Put a commit on its way."""
        assert self.group is not None

        def ended(commit: Commit) -> None:
            if commit.error is None:
                for where, committed in commit.offsets.items():
                    self._known_commits[where] = committed.offset
            if done is not None:
                done(commit)

        commit = Commit(offsets, ended)
        self.group.offsets.commit(commit)
        return commit

    def commit_finished(self) -> Commit:
        """Put a commit of what was finished, and is not committed yet, on its way."""
        assert self.group is not None
        member = self.group.offsets.member
        known = self._known_commits
        offsets = {
            where: committed
            for where, committed in self.finished().items()
            if known.get(where) != committed.offset and (member is None or where in member.owned)
        }
        return self.commit(offsets, _log_failure)

    def _maybe_commit(self, group: Group, now: float) -> float | None:
        if not self.config.enable_auto_commit or not self.fetcher.partitions:
            return None
        if self._auto_commit is not None and not self._auto_commit.is_done:
            return None
        if now >= self._next_commit_ms:
            self._next_commit_ms = now + self.config.auto_commit_interval_ms
            self._auto_commit = self.commit_finished()
        return self._next_commit_ms

    # -- handing out

    def take(self, count: int) -> bool:
        """Have something lie ready to be handed out, if there is anything; the driver is held.

        Raises:
            CorruptRecords: a batch is damaged, and nothing comes before it.
        """
        if self.handing.has_more:
            return True
        records = self.fetcher.take(count)
        if records:
            self.handing = Handing(records)
        return bool(records)

    def take_batches(self, count: int) -> bool:
        """Have batches lie ready for an iterator, if there are any; the driver is held.

        Raises:
            CorruptRecords: a batch is damaged, and nothing comes before it.
        """
        if self.handing.has_more:
            return True
        batches = BatchList()
        self.fetcher.take_into(batches, count)
        if batches.readers:
            self.handing = Batches(batches.readers, self._damaged)
        return bool(batches.readers)

    def _damaged(
        self, where: TopicPartition, header: BatchHeader, offset: int, error: CorruptRecords
    ) -> CorruptRecords:
        """Go back to a record that cannot be read; returns what is raised until somebody seeks."""
        with self.driver.held():
            self.handing = self.handing.without({where})
            self.attention = True
            state = self.fetcher.partitions.get(where)
            return error if state is None else state.fail(header, offset, error)

    def take_columns(self, count: int) -> bool:
        """Have columns lie ready, or records for them, if there are any; the driver is held.

        They are made of the batches as they lie, but for records that are objects already, or that
        deserializers are to look at.

        Raises:
            CorruptRecords: a batch is damaged, and nothing comes before it.
        """
        if self.handing.has_more or self._deserializers:
            return self.take(min(count, self.config.max_poll_records))
        if not self.fetcher.has_records:
            return False
        builder = ColumnsBuilder(self._memory, *self._columns_expected, _COLUMNS_BYTES)
        begun = self.fetcher.take_into(builder, count)
        if not len(builder):
            return False
        self.handing = Handing([], begun)
        columns = self.columns = builder.finish()
        self._columns_expected = (len(columns), len(columns.values.data))
        return True

    def hand_out_columns(self, count: int) -> RecordColumns | None:
        """Hand out what lies ready; None where all of it was left out.

        Raises:
            DeserializationFailed: the next record cannot be read; it counts as handed out.
        """
        columns, self.columns = self.columns, None
        if columns is not None:
            return columns
        if self.handing.readable:  # objects by now, that nobody got: their bytes are fetched again
            with self.driver.held():
                self.take_back(self.handing.first_not_handed_out())
            return None
        records = self.hand_out(count, as_bytes=True)
        return columns_of(records, self._memory) if records else None

    def take_back(self, begun: dict[TopicPartition, int]) -> None:
        """Go back to where partitions were: nobody got what was taken since; the driver is held."""
        self.columns = None
        self.handing = self.handing.without(begun)
        self.handing.begun = {}
        for where, offset in begun.items():
            if where in self.fetcher.partitions:
                self.fetcher.partitions[where].seek(offset)

    def hand_out(self, count: int, *, as_bytes: bool = False) -> list[Record]:
        """Hand out what lies ready, `count` at most; nothing where all of it was left out.

        Args:
            count: how many.
            as_bytes: whether deserializers only say which records they can read.

        Raises:
            DeserializationFailed: the next record cannot be read; it counts as handed out.
        """
        handing = self.handing
        if not self._deserializers:
            return handing.hand_out(count)
        return self._hand_out_readable(handing, count, as_bytes=as_bytes)

    def _hand_out_readable(self, handing: Handing, count: int, *, as_bytes: bool) -> list[Record]:
        # `index` moves at the end: what Ctrl-C interrupts is handed out by the next call.
        readable = handing.readable
        while len(readable) < count and handing.read < len(handing.records):
            try:
                is_readable = self._deserializers.can_read(
                    handing.records[handing.read], as_bytes=as_bytes
                )
            except DeserializationFailed:
                if readable:
                    break
                handing.read += 1
                handing.index = handing.read
                raise
            if is_readable:
                readable.append(handing.records[handing.read])
            handing.read += 1
        handing.readable = []
        handing.index = handing.read
        return readable

    @property
    def deserializes(self) -> bool:
        """Whether keys or values are made of bytes."""
        return bool(self._deserializers)

    # -- the end

    def _left_s(self, deadline: float) -> float:
        return max((deadline - self.clock.monotonic_ms()) / 1000, 0.0)

    def commit_at_the_end(self, deadline: float) -> None:
        """Commit what was finished, where that goes by itself."""
        if self.group is None or not self.config.enable_auto_commit:
            return
        if not self.fetcher.partitions:
            return
        with self.driver.held():
            commit = self.commit_finished()
        if not self.driver.run_until(lambda: commit.is_done, self._left_s(deadline)):
            names = ", ".join(f"{topic}/{number}" for topic, number in sorted(commit.offsets))
            _LOG.warning(
                "closed before the commit for %s was confirmed: what was read since the last one "
                "may be read again",
                names,
            )

    def leave(self, deadline: float) -> None:
        """Leave the group."""
        group = self.group
        if group is not None:
            with self.driver.held():
                group.leave()
            self.driver.run_until(lambda: group.has_left_for_good, self._left_s(deadline))

    def abandon(self) -> None:
        """Close without anybody waiting for it: nobody holds the consumer any more."""
        self.is_closing = self.attention = True

        def close() -> None:
            deadline = self.clock.monotonic_ms() + _ABANDON_TIMEOUT_S * 1000
            try:
                self.commit_at_the_end(deadline)
                self.leave(deadline)
            finally:
                self.close()

        if sys.is_finalizing():
            return  # nothing can be waited for any more
        if self.group is None:
            self.close()
            return
        self.refusal = Closed("the consumer is closed")
        with contextlib.suppress(RuntimeError):  # the interpreter is about to end
            threading.Thread(target=close, name="ottla-close", daemon=True).start()

    def close(self) -> None:
        """Close everything, at once."""
        with self.driver.held():
            self.fetcher.close()
        self.driver.close()
        if self.group is not None:
            self.group.close()
        self.cluster.close()


def _log_failure(commit: Commit) -> None:
    if commit.error is not None:
        _LOG.warning("%s", commit.error)


def by_partition(records: Iterable[Record]) -> Offsets:
    """Return the offsets that say that records were read: behind the last of each partition."""
    offsets: Offsets = {}
    for record in records:
        where = TopicPartition(record.topic, record.partition)
        end = record.offset + 1
        if where not in offsets or offsets[where].offset < end:
            offsets[where] = OffsetAndMetadata(end)
    return offsets
