"""Brings the batches of the assigned partitions, and gives out their records lazily.

One fetch at a time is under way to each broker; it asks for the partitions of which no more than
one answer lies here unread, so that the next answer is on its way while this one is read. Where as
much lies here as one fetch may bring, of all partitions, none is sent until some is read. It names
those of which something has changed, where the broker has a session for us (`fetch_session`). An
answer is kept as it came: its batches are checked and opened one by one when their turn comes.

Kafka: Fetcher, CompletedFetch.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from ottla.client.fetch_session import FetchSession, Wanted
from ottla.client.lives import Fetches
from ottla.client.lookup import EARLIEST, LATEST, Lookup, TopicPartition, problem_of_topic
from ottla.client.network import Call
from ottla.client.node import NodeState
from ottla.errors import CorruptRecords, KafkaError, broker_error, codes
from ottla.protocol.message import ZERO_UUID
from ottla.protocol.messages.api_01_fetch import FetchRequest, FetchResponse
from ottla.records.batch import (
    BatchHeader,
    RecordIterator,
    check_crc,
    iterate_headers,
    iterate_records,
)
from ottla.records.columns_builder import ColumnsBuilder
from ottla.records.positions import whole_batches_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ottla.client.cluster import Cluster
    from ottla.client.config import ConsumerConfig
    from ottla.client.node import Node
    from ottla.clock import Clock
    from ottla.errors import BrokerError
    from ottla.records.record import Record

_LOG = logging.getLogger("ottla.client")
_TOPIC_ID_VERSION = 13
_ANSWERS_MAX = 2
_REST_MS = 50.0
_RESETS = {"earliest": EARLIEST, "latest": LATEST}
_ABORT = 0


class RecordList:
    """Collects records as objects, as `ColumnsBuilder` does as columns.

    Attributes:
        records: the records.
        is_full: never: how many are wanted is said with each call.
    """

    is_full = False

    def __init__(self) -> None:
        self.records: list[Record] = []

    def __len__(self) -> int:
        return len(self.records)

    def add(self, reader: RecordIterator, count: int, offset: int) -> int:
        """Add records of a batch; see `RecordIterator.take`.

        Raises:
            CorruptRecords: they are not what the batch's header says; none of this call's is added.
        """
        before = len(self.records)
        try:
            return reader.take(self.records, count, offset)
        except CorruptRecords:
            del self.records[before:]
            raise

    def end_run(self, topic: str, partition: int) -> None:
        """Take note that what was added is of a partition: the records say so themselves."""


class BatchList:
    """Collects batches, as `RecordList` does records.

    Attributes:
        readers: what reads them, each at the first record that is wanted.
        is_full: never.
    """

    is_full = False

    def __init__(self) -> None:
        self.readers: list[RecordIterator] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, reader: RecordIterator, count: int, offset: int) -> int:
        """Add what is left of a batch from an offset on, whatever the count.

        Raises:
            CorruptRecords: a record before the offset is damaged.
        """
        reader.pass_over(offset)
        if reader.left:
            self.readers.append(reader)
            self._count += reader.left
        return reader.left

    def end_run(self, topic: str, partition: int) -> None:
        """Take note that what was added is of a partition: the readers say so themselves."""


_Into = RecordList | BatchList | ColumnsBuilder


class _Answer:
    """One partition's part of a fetch response, and how far it was read."""

    __slots__ = ("aborted", "data", "headers")

    def __init__(
        self, data: memoryview, aborted: list[FetchResponse.AbortedTransaction] | None
    ) -> None:
        self.data = data
        self.headers: Iterator[BatchHeader] = iterate_headers(data)
        self.aborted = sorted(
            ((each.first_offset, each.producer_id) for each in aborted or ()), reverse=True
        )


class PartitionState:
    """Where reading a partition has come to.

    Attributes:
        where: the partition.
        position: offset of the next record that is given out; None until it is known.
        reset: what the position is to be looked up with: `EARLIEST`, `LATEST` or milliseconds.
        high_watermark: what the broker said last, -1 before.
        is_paused: whether nothing of it is fetched or given out.
        is_undecided: whether nothing says where to begin, and the user has to.
        node: the broker that it was fetched from last, or None.
    """

    def __init__(self, where: TopicPartition) -> None:
        self.where = where
        self.position: int | None = None
        self.reset: int | None = None
        self.high_watermark = -1
        self.is_paused = False
        self.is_undecided = False
        self.node: Node | None = None
        self.generation = 0
        self._fetch_offset = 0
        self._answers: deque[_Answer] = deque()
        self._records: RecordIterator | None = None
        self._header: BatchHeader | None = None
        self._aborting: set[int] = set()
        self._damage: CorruptRecords | None = None

    @property
    def fetch_offset(self) -> int:
        """The offset that the next fetch begins at."""
        return self._fetch_offset

    @property
    def wants_more(self) -> bool:
        """Whether another answer is to be fetched."""
        if self.position is None or self.is_paused:
            return False
        return len(self._answers) < _ANSWERS_MAX

    @property
    def has_records(self) -> bool:
        """Whether there is something to be read."""
        return (self._records is not None or bool(self._answers)) and not self.is_paused

    @property
    def unread_bytes(self) -> int:
        """How much lies here that is given out as soon as somebody reads."""
        if self.is_paused or self._damage is not None:
            return 0
        return sum(len(answer.data) for answer in self._answers)

    def seek(self, position: int) -> None:
        """Go on at an offset; what lies here unread is let go."""
        self.generation += 1
        self.position = self._fetch_offset = position
        self.reset = None
        self._forget()

    def seek_by(self, reset: int) -> None:
        """Go on where a lookup says."""
        self.generation += 1
        self.position = None
        self.reset = reset
        self._forget()

    def _forget(self) -> None:
        self.is_undecided = False
        self._answers.clear()
        self._records = self._header = None
        self._aborting.clear()
        self._damage = None

    def add(self, part: FetchResponse.PartitionData) -> None:
        """Take an answer."""
        self.high_watermark = part.high_watermark
        records = part.records
        if records is None or not len(records):
            return
        data = memoryview(records)
        data = data[: whole_batches_size(data)]
        if len(data):
            self._fetch_offset = deque(iterate_headers(data), maxlen=1)[0].last_offset + 1
            self._answers.append(_Answer(data, part.aborted_transactions))

    def take(self, into: _Into, count: int, *, committed_only: bool) -> None:
        """Add records, `count` at most, and move the position behind them.

        Raises:
            CorruptRecords: a batch is damaged; the position is that of its first record that was
                not given out.
        """
        while count > 0 and not into.is_full:
            if self._records is None and not self._open_next(committed_only):
                return
            reader, header = self._records, self._header
            assert reader is not None and header is not None and self.position is not None
            try:
                count -= into.add(reader, count, self.position)
            except CorruptRecords as error:
                self._records = self._header = None
                raise self._damaged(header, error) from error
            if reader.left and not isinstance(into, BatchList):
                self.position = reader.next_offset
            else:
                self.position = header.last_offset + 1
                self._records = self._header = None

    def _open_next(self, committed_only: bool) -> bool:
        """Open the next batch that holds records to be given out; False where there is none."""
        if self._damage is not None:  # until somebody seeks: nothing is passed over in silence
            raise self._damage
        while self._answers:
            answer = self._answers[0]
            for header in answer.headers:
                if self.position is not None and header.last_offset < self.position:
                    continue
                if self._is_open(answer, header, committed_only):
                    return True
                self.position = header.last_offset + 1
            self._answers.popleft()
        return False

    def _is_open(self, answer: _Answer, header: BatchHeader, committed_only: bool) -> bool:
        topic, partition = self.where
        try:
            check_crc(answer.data, header)
            if committed_only and self._is_aborted(answer, header):
                return False
            if header.is_control:
                return False
            self._records = iterate_records(answer.data, header, topic, partition)
        except CorruptRecords as error:
            raise self._damaged(header, error) from error
        self._header = header
        return True

    def fail(self, header: BatchHeader, offset: int, error: CorruptRecords) -> CorruptRecords:
        """Go back to a record of a batch that is damaged; returns what is raised from now on."""
        self.seek(offset)
        return self._damaged(header, error)

    def _damaged(self, header: BatchHeader, error: CorruptRecords) -> CorruptRecords:
        """Make what is raised until somebody seeks."""
        topic, partition = self.where
        self._damage = CorruptRecords(
            f"{topic}/{partition}: the batch at offset {header.base_offset} is damaged: "
            f"{error.what}",
            f"Its records, up to offset {header.last_offset}, cannot be read.",
            (f"Go on behind it:  consumer.seek({topic!r}, {partition}, {header.last_offset + 1})",),
        )
        return self._damage

    def _is_aborted(self, answer: _Answer, header: BatchHeader) -> bool:
        """Keep track of aborted transactions. Kafka: CompletedFetch.isBatchAborted."""
        while answer.aborted and answer.aborted[-1][0] <= header.last_offset:
            self._aborting.add(answer.aborted.pop()[1])
        if header.is_control:
            for marker in iterate_records(answer.data, header):
                if int.from_bytes((marker.key or b"")[2:4], "big") == _ABORT:
                    self._aborting.discard(header.producer_id)
            return True
        return header.is_transactional and header.producer_id in self._aborting


class Fetcher:
    """Fetches for the assigned partitions.

    Attributes:
        partitions: the assigned partitions.
        error: what the user must be told, or None; it is taken with `take_error`.
        fetches: what was fetched when, or None where nobody looks.
        is_due: whether what was taken last has made place for a fetch that can be sent.
        max_wait_ms: how long a broker may wait for records; what is asked meanwhile waits as well.
    """

    def __init__(self, config: ConsumerConfig, cluster: Cluster, clock: Clock) -> None:
        self.partitions: dict[TopicPartition, PartitionState] = {}
        self.error: KafkaError | None = None
        self.is_due = False
        self.lookups: list[Lookup] = []
        self.fetches = Fetches() if config.trace else None
        self.max_wait_ms = int(config.fetch_max_wait_ms)
        self._config = config
        self._cluster = cluster
        self._clock = clock
        self._committed_only = config.isolation_level == "read_committed"
        self._resets: Lookup | None = None
        self._resetting: dict[TopicPartition, int] = {}
        self._fetching: set[Node] = set()
        self._sessions: dict[Node, FetchSession] = {}
        self._not_before_ms: dict[TopicPartition, float] = {}
        self._unreadable_since_ms: dict[TopicPartition, float] = {}
        self._turn: deque[PartitionState] = deque()
        self._gone: dict[TopicPartition, int] = {}
        self._rests_until_ms = 0.0

    @property
    def isolation_level(self) -> int:
        """0 for read_uncommitted, 1 for read_committed."""
        return int(self._committed_only)

    def assign(self, partitions: list[TopicPartition], reset: int | None) -> None:
        """Read exactly these partitions; new ones begin where a lookup with `reset` says."""
        kept = {}
        for where in partitions:
            state = self.partitions.get(where)
            if state is None:
                state = PartitionState(where)
                if reset is not None:
                    state.seek_by(reset)
            kept[where] = state
        self.partitions = kept
        self._gone = {where: gone for where, gone in self._gone.items() if where in kept}
        since = self._unreadable_since_ms
        self._unreadable_since_ms = {where: since[where] for where in kept if where in since}
        self._turn = deque(kept.values())

    def take_error(self) -> KafkaError | None:
        """Return what the user must be told, once."""
        error, self.error = self.error, None
        return error

    @property
    def has_records(self) -> bool:
        """Whether there is something to be read."""
        return any(state.has_records for state in self.partitions.values())

    def take(self, count: int) -> list[Record]:
        """Give out records, `count` at most, one partition after the other.

        Raises:
            CorruptRecords: a batch is damaged, and nothing comes before it.
        """
        into = RecordList()
        self.take_into(into, count)
        return into.records

    def take_into(self, into: _Into, count: int) -> dict[TopicPartition, int]:
        """Add records, `count` at most, one partition after the other.

        Returns:
            Where the position of each partition was that gave something.

        Raises:
            CorruptRecords: a batch is damaged, and nothing comes before it.
        """
        begun: dict[TopicPartition, int] = {}
        self.is_due = False
        for _ in range(len(self._turn)):
            state, before = self._turn[0], len(into)
            position = state.position
            if state.is_paused or not state.has_records or position is None:
                self._turn.rotate(-1)
                continue
            is_damaged = False
            try:
                state.take(into, count - before, committed_only=self._committed_only)
            except CorruptRecords:
                if not len(into):
                    raise
                is_damaged = True  # the next call says so
            except BaseException:  # Ctrl-C, or no memory: nobody gets what was added
                for where, offset in (begun | {state.where: position}).items():
                    self.partitions[where].seek(offset)
                raise
            if len(into) > before:
                into.end_run(*state.where)
                begun[state.where] = position
            if state.wants_more and state.node not in self._fetching:
                self.is_due = True
            if is_damaged or len(into) >= count or into.is_full:
                break
            self._turn.rotate(-1)
        return begun

    # -- time

    def step(self) -> float | None:
        """Do what is due; returns when to look again, on the monotonic clock, or None."""
        now = self._clock.monotonic_ms()
        due = [lookup.step(now) for lookup in self.lookups if not lookup.is_done]
        due.append(self._step_resets(now))
        due.append(self._step_fetches(now))
        known = [each for each in due if each is not None]
        return min(known) if known else None

    def _step_resets(self, now: float) -> float | None:
        lookup = self._resets
        if lookup is None:
            wanted = {
                where: state.reset
                for where, state in self.partitions.items()
                if state.position is None and state.reset is not None
            }
            if not wanted:
                return None
            self._resetting = {where: self.partitions[where].generation for where in wanted}
            lookup = self._resets = Lookup(
                self._cluster,
                self._clock,
                wanted,
                self.isolation_level,
                self._config.retry_backoff_ms,
            )
        due = lookup.step(now)
        if lookup.is_done:
            self._end_resets(lookup)
        return due

    def _end_resets(self, lookup: Lookup) -> None:
        self._resets = None
        if lookup.error is not None:
            self.error = lookup.error
            return
        for where, offset in lookup.found.items():
            state = self.partitions.get(where)
            if state is None or state.generation != self._resetting[where]:
                continue
            if offset < 0:
                state.seek_by(LATEST)
                continue
            state.seek(offset)
            gone = self._gone.pop(where, None)
            if gone is not None:
                self._tell_gone(where, gone, offset)

    def _tell_gone(self, where: TopicPartition, gone: int, offset: int) -> None:
        """Say that a position was not in the log, and what that means."""
        topic, partition = where
        effect = f"the {offset - gone} before it can be read no more"
        if offset <= gone:
            effect = "the log ends before that: records may come twice"
        _LOG.warning(
            "%s/%d has no offset %d: reading goes on at %d, as auto_offset_reset=%r says; %s",
            *(topic, partition, gone, offset, self._config.auto_offset_reset, effect),
        )

    def _step_fetches(self, now: float) -> float | None:
        due: float | None = None
        if now < self._rests_until_ms and self.has_records:
            return self._rests_until_ms
        by_node: dict[Node, list[PartitionState]] = {}
        for where, state in self.partitions.items():
            if not state.wants_more:
                continue
            not_before = self._not_before_ms.get(where, 0.0)
            if not_before > now:
                due = not_before if due is None else min(due, not_before)
                continue
            node = self._cluster.leader_of(*where)
            problem = self._cluster.problem_of(node) or problem_of_topic(
                self._cluster, self._clock, where
            )
            if problem is not None:
                self.error = problem
            elif node is None:
                self._cluster.want([where.topic])
                self._cluster.refresh()
            elif node not in self._fetching:
                by_node.setdefault(node, []).append(state)
        if by_node and self._has_enough():
            return due
        for node, states in by_node.items():
            if node.is_ready():  # asked once: whoever asks may find that the connection is gone
                self._fetch(node, states)
        return due

    def _has_enough(self) -> bool:
        """Tell whether as much as one fetch may bring lies here, so that none is sent ahead."""
        unread = sum(state.unread_bytes for state in self.partitions.values())
        return unread >= self._config.fetch_max_bytes

    def _fetch(self, node: Node, states: list[PartitionState]) -> None:
        config = self._config
        version_max = 0x7FFF
        wanted = {}
        asked = {}
        # Where something is unread, a fetch that waits would be in the way of the next one.
        waits = not self.has_records
        for state in states:
            topic, partition = state.where
            info = self._cluster.topics[topic]
            if info.topic_id == ZERO_UUID:
                version_max = _TOPIC_ID_VERSION - 1
            wanted[state.where] = Wanted(
                info.topic_id, info.leader_epochs[partition], state.fetch_offset
            )
            state.node = node
            asked[state.where] = (state, state.generation)
        request = FetchRequest(
            max_wait_ms=self.max_wait_ms if waits else 0,
            min_bytes=config.fetch_min_bytes,
            max_bytes=config.fetch_max_bytes,
            isolation_level=self.isolation_level,
        )
        session = self._sessions.get(node)
        if session is None:
            session = self._sessions[node] = FetchSession(config.max_partition_fetch_bytes)
        session.ask(wanted, request)
        self._fetching.add(node)
        node.send(
            Call(
                request,
                FetchResponse,
                lambda response, error: self._answered(node, asked, response, error, waited=waits),
            ),
            version_max,
        )

    def close(self) -> None:
        """Have the brokers that are connected close our sessions; no answer is waited for.

        Where a fetch waits this comes behind it, and may come too late over TCP: the broker closes
        the session when it has not heard of it for long and needs the room.
        """
        for node, session in self._sessions.items():
            if session.session_id and node.state is NodeState.READY:
                node.send(Call(session.farewell(), FetchResponse, lambda response, error: None))

    # -- answers

    def _answered(
        self,
        node: Node,
        asked: dict[TopicPartition, tuple[PartitionState, int]],
        response: FetchResponse | None,
        error: KafkaError | None,
        *,
        waited: bool,
    ) -> None:
        self._fetching.discard(node)
        session = self._sessions[node]
        if response is None:
            session.lost()
            self._cluster.refresh()
            if error is not None and not isinstance(error, ConnectionError):
                self.error = error
            return
        if response.error_code != codes.NONE:
            if not session.refused(response.error_code):
                self._later(broker_error(response.error_code, f"{node.peer} gives nothing"), asked)
            return
        session.answered(response)
        if not waited and not any(
            part.records for topic in response.responses for part in topic.partitions
        ):
            # It would be asked over and over until the user has read what lies here.
            self._rests_until_ms = self._clock.monotonic_ms() + _REST_MS
        names = {info.topic_id: info.name for info in self._cluster.topics.values()}
        has_more = False
        for topic in response.responses:
            name = topic.topic or names.get(topic.topic_id, "")
            for part in topic.partitions:
                where = TopicPartition(name, part.partition_index)
                if part.records or part.error_code != codes.NONE:
                    session.tells(where)
                state, generation = asked.get(where, (None, 0))
                if state is None or state.generation != generation:
                    continue
                if part.error_code == codes.NONE:
                    self._unreadable_since_ms.pop(where, None)
                    has_more |= self._add(state, part, node)
                else:
                    self._refused(state, part.error_code)
        if has_more:  # what comes next is on its way while this is read
            self._step_fetches(self._clock.monotonic_ms())

    def _add(self, state: PartitionState, part: FetchResponse.PartitionData, node: Node) -> bool:
        """Take an answer; tells whether it has left something that is wanted now."""
        first_offset = state.fetch_offset
        try:
            state.add(part)
            if self.fetches is not None and state.fetch_offset > first_offset:
                now_ns = self._clock.monotonic_ns()
                self.fetches.fetched(
                    state.where, first_offset, state.fetch_offset, now_ns, node.peer
                )
        except CorruptRecords as error:
            topic, partition = state.where
            self.error = CorruptRecords(
                f"{topic}/{partition}: the answer to a fetch at offset {state.fetch_offset} is "
                f"damaged: {error.what}"
            )
        end = part.last_stable_offset if self._committed_only else part.high_watermark
        return first_offset < state.fetch_offset < end and state.wants_more

    def _refused(self, state: PartitionState, code: int) -> None:
        topic, partition = state.where
        if code == codes.OFFSET_OUT_OF_RANGE:
            reset = _RESETS.get(self._config.auto_offset_reset)
            if reset is not None:
                self._gone[state.where] = state.fetch_offset
                state.seek_by(reset)
                return
            self.error = broker_error(
                code,
                f"{topic}/{partition} has no offset {state.fetch_offset}",
                "Nothing was skipped: the position stays where it is.",
                (
                    "Seek to where reading shall go on, or set auto_offset_reset to "
                    "'earliest' or 'latest'.",
                ),
            )
            return
        if code == codes.KAFKA_STORAGE_ERROR and self._is_unreadable_for_good(state.where):
            self.error = broker_error(
                code,
                f"{topic}/{partition} cannot be read at offset {state.fetch_offset}",
                "Nothing was skipped: the position stays where it is, and reading is tried again.",
                ("Read in the broker's log what is wrong with that partition or its disk.",),
            )
        self._later(broker_error(code, f"{topic}/{partition} cannot be read"), [state.where])

    def _is_unreadable_for_good(self, where: TopicPartition) -> bool:
        """Whether its disk has been at fault for so long that no other broker has taken over."""
        now = self._clock.monotonic_ms()
        since = self._unreadable_since_ms.setdefault(where, now)
        if now - since < self._config.request_timeout_ms:
            return False
        self._unreadable_since_ms[where] = now
        return True

    def _later(self, error: BrokerError, partitions: Iterable[TopicPartition]) -> None:
        """Try again after a while, or tell the user where that is of no use."""
        if error.retriable:
            self._cluster.refresh()
            not_before = self._clock.monotonic_ms() + self._config.retry_backoff_ms
            self._not_before_ms.update(dict.fromkeys(partitions, not_before))
        else:
            self.error = error
