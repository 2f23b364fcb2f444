"""Fetch, versions 4-18: read record batches, and wait for them.

    5   log_start_offset
    7   sessions: see `fetch_sessions`
    9   the client's own idea of the leader epoch is checked
    11  a replica that is nearer; there is none
    12  the epoch of the last record fetched is checked: where the log diverges is told
    13  topics by their id
    15  replica_state; whoever fetches is served as a consumer
    18  high_watermark

The first partition that has anything gives at least one whole batch, however large; the others give
whole batches within the limits. Where there is less than min_bytes altogether, the response waits
for more, up to max_wait_ms; an error does not wait. Batches are given as they are stored.
Kafka: ReplicaManager.fetchMessages, DelayedFetch, KIP-227, KIP-320, KIP-516, KIP-595.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ottla.broker.fetch_sessions import FetchSession, next_epoch
from ottla.broker.handlers.api_23_offset_for_leader_epoch import epoch_error
from ottla.broker.requests import Pending
from ottla.errors import StorageError, codes
from ottla.protocol.messages.api_01_fetch import FetchRequest, FetchResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.fetch_sessions import SessionPartition
    from ottla.broker.requests import Context
    from ottla.coordinator.cluster.state import Topic
    from ottla.log.partition_log import PartitionLog
    from ottla.wire import Buffer


_FIRST_VERSION_WITH_IDS = 13
_INITIAL_EPOCH, _FINAL_EPOCH = 0, -1
_READ_COMMITTED = 1

_Asked: TypeAlias = FetchRequest.FetchPartition
_Found: TypeAlias = FetchResponse.PartitionData


def handle(
    engine: Engine, request: FetchRequest, version: int, context: Context
) -> FetchResponse | Pending:
    """Read now, or wait until there is enough."""
    sessions = engine.fetch_sessions
    by_id = version >= _FIRST_VERSION_WITH_IDS
    session = sessions.get(request.session_id)
    if request.session_epoch in (_INITIAL_EPOCH, _FINAL_EPOCH):
        if session is not None:
            sessions.remove(session)
        size = sum(len(topic.partitions) for topic in request.topics)
        if request.session_epoch == _FINAL_EPOCH or not sessions.has_place_for(size):
            return _answer(_Fetch(engine, request, version), request)
        session = FetchSession(by_id=by_id)
        session.update(request)
        return _answer(_SessionFetch(engine, request, version, session), request)
    if session is None:
        return FetchResponse(error_code=codes.FETCH_SESSION_ID_NOT_FOUND)
    if session.epoch != request.session_epoch:
        return FetchResponse(error_code=codes.INVALID_FETCH_SESSION_EPOCH)
    if session.by_id != by_id:
        return FetchResponse(error_code=codes.FETCH_SESSION_TOPIC_ID_ERROR)
    session.refuse(codes.INVALID_FETCH_SESSION_EPOCH)
    session.update(request)
    if not session.partitions:
        sessions.remove(session)
        return _answer(_Fetch(engine, request, version), request)
    sessions.touch(session)
    session.epoch = next_epoch(session.epoch)
    return _answer(_SessionFetch(engine, request, version, session), request)


def _answer(fetch: _Fetch | _SessionFetch, request: FetchRequest) -> FetchResponse | Pending:
    if fetch.read() or request.max_wait_ms <= 0:
        return fetch.finished()
    return fetch.wait()


class _Reader:
    """Reads partitions for one request, within its limits.

    Attributes:
        size: how many bytes were read.
        failed: whether there was an error, which does not wait.
    """

    def __init__(self, engine: Engine, request: FetchRequest, version: int) -> None:
        self.size = 0
        self.failed = False
        self._engine = engine
        self._request = request
        self._by_id = version >= _FIRST_VERSION_WITH_IDS

    def begin(self) -> None:
        """Begin anew."""
        self.size = 0
        self.failed = False

    @property
    def is_enough(self) -> bool:
        """Whether there is to be an answer at once."""
        return self.failed or self.size >= self._request.min_bytes

    def topic_of(self, name: str | bytes) -> Topic | None:
        """Return a topic by its name, or by its id where the version has ids."""
        cluster = self._engine.cluster
        if isinstance(name, str):
            return cluster.topics.get(name)
        return cluster.topics_by_id.get(name)

    def unknown(self, asked: _Asked) -> _Found:
        """Tell that there is no such topic."""
        error = codes.UNKNOWN_TOPIC_ID if self._by_id else codes.UNKNOWN_TOPIC_OR_PARTITION
        return self._error(asked, error)

    def _error(self, asked: _Asked, error: int) -> _Found:
        self.failed = True
        return _Found(
            partition_index=asked.partition,
            error_code=error,
            high_watermark=-1,
            aborted_transactions=None,
            records=b"",
        )

    def read(self, topic: Topic, log: PartitionLog | None, asked: _Asked) -> _Found:
        """Read from a partition of a topic; `log` is its log, None where there is none."""
        if log is None:
            return self._error(asked, self._engine.why_not(topic.name, asked.partition)[0])
        error = epoch_error(log, asked.current_leader_epoch)
        if error != codes.NONE:
            return self._error(asked, error)
        found = _Found(
            partition_index=asked.partition,
            high_watermark=log.high_watermark,
            last_stable_offset=log.high_watermark,
            log_start_offset=log.log_start_offset,
            aborted_transactions=[] if self._request.isolation_level == _READ_COMMITTED else None,
            records=b"",
        )
        if asked.last_fetched_epoch >= 0:
            epoch, end_offset = log.end_of_epoch(asked.last_fetched_epoch)
            if epoch < 0:
                return self._error(asked, codes.OFFSET_OUT_OF_RANGE)
            if epoch < asked.last_fetched_epoch or end_offset < asked.fetch_offset:
                found.diverging_epoch = FetchResponse.EpochEndOffset(
                    epoch=epoch, end_offset=end_offset
                )
                self.failed = True
                return found
        if not log.log_start_offset <= asked.fetch_offset <= log.log_end_offset:
            return self._error(asked, codes.OFFSET_OUT_OF_RANGE)
        try:
            found.records = self._records(log, asked)
        except StorageError:
            return self._error(asked, codes.KAFKA_STORAGE_ERROR)
        self.size += len(found.records)
        return found

    def _records(self, log: PartitionLog, asked: _Asked) -> Buffer:
        bytes_max = min(self._request.max_bytes, self._engine.configs.fetch_max_bytes)
        room = min(asked.partition_max_bytes, bytes_max - self.size)
        return log.read(asked.fetch_offset, room, at_least_one=self.size == 0)


class _Fetch:
    """A fetch without a session; everything is read again whenever there may be enough for it."""

    def __init__(self, engine: Engine, request: FetchRequest, version: int) -> None:
        self._engine = engine
        self._request = request
        self._reader = _Reader(engine, request, version)
        self._by_id = version >= _FIRST_VERSION_WITH_IDS
        self._response = FetchResponse()
        self._logs: list[tuple[PartitionLog, int]] = []
        self._bytes = 0
        self._pending = Pending()

    def read(self) -> bool:
        """Read everything; tells whether it is to be answered at once."""
        self._reader.begin()
        self._logs = []
        self._response.responses = [
            FetchResponse.FetchableTopicResponse(
                topic=asked.topic, topic_id=asked.topic_id, partitions=self._read_topic(asked)
            )
            for asked in self._request.topics
        ]
        return self._reader.is_enough or not self._request.topics

    def _read_topic(self, asked: FetchRequest.FetchTopic) -> list[_Found]:
        topic = self._reader.topic_of(asked.topic_id if self._by_id else asked.topic)
        if topic is None:
            return [self._reader.unknown(partition) for partition in asked.partitions]
        found = []
        for partition in asked.partitions:
            log = self._engine.log_of(topic.name, partition.partition)
            found.append(self._reader.read(topic, log, partition))
            if log is not None:
                self._logs.append((log, partition.fetch_offset))
        return found

    def finished(self) -> FetchResponse:
        """Return what was found by the last reading."""
        return self._response

    # -- waiting

    def wait(self) -> Pending:
        """Wait until there is enough, something fails or time is over."""
        deadline_ms = self._engine.clock.monotonic_ms() + self._request.max_wait_ms
        self._pending = Pending(deadline_ms, self._expire)
        self._watch()
        return self._pending

    def _watch(self) -> None:
        self._bytes = self._readable()
        for log, _ in self._logs:
            log.watch(self._look)

    def _unwatch(self) -> None:
        for log, _ in self._logs:
            log.unwatch(self._look)

    def _readable(self) -> int:
        """Return how many bytes could be read, and those before them in the same segments."""
        return sum(log.bytes_from(offset) for log, offset in self._logs)

    def _look(self) -> None:
        """Read again if there may be enough now.

        What has become readable since is an upper bound for what can be read more, so no log is
        read for nothing again and again. A log that failed, or is of a deleted topic, is looked at.
        """
        if self._pending.is_done:
            return
        grown = self._readable() - self._bytes
        is_failed = any(log.failed is not None for log, _ in self._logs)
        if self._reader.size + grown >= self._request.min_bytes or is_failed:
            self._unwatch()
            if self.read() or is_failed:
                self._pending.finish(self._response)
            else:
                self._watch()

    def _expire(self) -> None:
        self._unwatch()
        self.read()
        self._pending.finish(self._response)


class _SessionFetch:
    """A fetch of a session; what is dirty is read again whenever there may be enough for it.

    The one that makes the session tells of all its partitions; the session gets its place in the
    cache with the response.
    """

    def __init__(
        self, engine: Engine, request: FetchRequest, version: int, session: FetchSession
    ) -> None:
        self._engine = engine
        self._request = request
        self._reader = _Reader(engine, request, version)
        self._session = session
        self._found: list[tuple[SessionPartition, _Found]] = []
        self._grown = 0
        self._pending = Pending()

    def read(self) -> bool:
        """Read all that is dirty; tells whether it is to be answered at once."""
        self._reader.begin()
        self._grown = 0
        self._found = [(each, self._read(each)) for each in list(self._session.dirty.values())]
        return self._reader.is_enough

    def _read(self, partition: SessionPartition) -> _Found:
        asked = partition.asked
        topic = self._reader.topic_of(partition.key[0])
        if topic is None:
            partition.watch(None)
            return self._reader.unknown(asked)
        is_another = partition.topic_id not in (None, topic.topic_id)
        partition.topic_id = topic.topic_id
        log = self._engine.log_of(topic.name, asked.partition)
        partition.watch(log)
        if is_another:
            return self._reader.unknown(asked)
        if log is not None:
            partition.bytes_seen = log.bytes_from(asked.fetch_offset)
        return self._reader.read(topic, log, asked)

    def finished(self) -> FetchResponse:
        """Make the response; what it tells counts as told."""
        session, sessions = self._session, self._engine.fetch_sessions
        is_full = session.session_id == 0
        topics: dict[str | bytes, FetchResponse.FetchableTopicResponse] = {}
        for partition, found in self._found:
            if is_full or partition.has_news(found):
                name = partition.key[0]
                topic = topics.get(name)
                if topic is None:
                    topic = topics[name] = FetchResponse.FetchableTopicResponse()
                    if isinstance(name, str):
                        topic.topic = name
                    else:
                        topic.topic_id = name
                topic.partitions.append(found)
            session.tell(partition, found)
        session.waiting = None
        if is_full and not sessions.add(session):
            session.close()
        return FetchResponse(session_id=session.session_id, responses=list(topics.values()))

    # -- waiting

    def wait(self) -> Pending:
        """Wait until there is enough, something fails or time is over."""
        deadline_ms = self._engine.clock.monotonic_ms() + self._request.max_wait_ms
        self._pending = Pending(deadline_ms, self._expire)
        self._session.waiting = self
        return self._pending

    def moved(self, partition: SessionPartition) -> None:
        """Read again if there may be enough now; see `_Fetch`."""
        log, offset = partition.log, partition.asked.fetch_offset
        is_failed = log is None
        if log is not None:
            readable = log.bytes_from(offset)
            self._grown += readable - partition.bytes_seen
            partition.bytes_seen = readable
            is_failed = log.log_start_offset > offset
        is_enough = self._reader.size + self._grown >= self._request.min_bytes
        if (is_enough or is_failed) and (self.read() or is_failed):
            self._pending.finish(self.finished())

    def refuse(self, error: int) -> None:
        """Answer with an error: the session has gone on without it, or is closed."""
        self._pending.finish(FetchResponse(error_code=error, session_id=self._session.session_id))

    def _expire(self) -> None:
        self.read()
        self._pending.finish(self.finished())
