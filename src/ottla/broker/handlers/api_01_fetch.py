"""Fetch, versions 4-18: read record batches, and wait for them.

    5   log_start_offset
    7   sessions; none is ever opened (the session id is always 0), so every fetch names all that it
        wants
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

from ottla.broker.handlers.api_23_offset_for_leader_epoch import epoch_error
from ottla.broker.requests import Pending
from ottla.errors import StorageError, codes
from ottla.protocol.messages.api_01_fetch import FetchRequest, FetchResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context
    from ottla.coordinator.cluster.state import Topic
    from ottla.log.partition_log import PartitionLog

MIN_VERSION = 4
MAX_VERSION = 18

_FIRST_VERSION_WITH_IDS = 13
_FINAL_EPOCH = -1
_READ_COMMITTED = 1

_Asked: TypeAlias = FetchRequest.FetchPartition
_Found: TypeAlias = FetchResponse.PartitionData


def handle(
    engine: Engine, request: FetchRequest, version: int, context: Context
) -> FetchResponse | Pending:
    """Read now, or wait until there is enough."""
    if request.session_id != 0 and request.session_epoch != _FINAL_EPOCH:
        return FetchResponse(error_code=codes.FETCH_SESSION_ID_NOT_FOUND)
    fetch = _Fetch(engine, request, version)
    if fetch.read() or request.max_wait_ms <= 0:
        return fetch.response
    return fetch.wait()


class _Fetch:
    """One request; it is read again whenever there may be enough for it.

    Attributes:
        response: what was found by the last reading.
    """

    def __init__(self, engine: Engine, request: FetchRequest, version: int) -> None:
        self.response = FetchResponse()
        self._engine = engine
        self._request = request
        self._version = version
        self._size = 0
        self._failed = False
        self._logs: list[tuple[PartitionLog, int]] = []
        self._bytes = 0
        self._pending = Pending()

    def read(self) -> bool:
        """Read everything; tells whether it is to be answered at once."""
        request = self._request
        self._size = 0
        self._failed = False
        self._logs = []
        self.response.responses = [
            FetchResponse.FetchableTopicResponse(
                topic=asked.topic, topic_id=asked.topic_id, partitions=self._read_topic(asked)
            )
            for asked in request.topics
        ]
        return self._failed or self._size >= request.min_bytes or not request.topics

    def _read_topic(self, asked: FetchRequest.FetchTopic) -> list[_Found]:
        engine = self._engine
        if self._version >= _FIRST_VERSION_WITH_IDS:
            topic = engine.cluster.topics_by_id.get(asked.topic_id)
            unknown = codes.UNKNOWN_TOPIC_ID
        else:
            topic = engine.cluster.topics.get(asked.topic)
            unknown = codes.UNKNOWN_TOPIC_OR_PARTITION
        return [
            self._error(partition, unknown)
            if topic is None
            else self._read_partition(topic, partition)
            for partition in asked.partitions
        ]

    def _error(self, asked: _Asked, error: int) -> _Found:
        self._failed = True
        return _Found(
            partition_index=asked.partition,
            error_code=error,
            high_watermark=-1,
            aborted_transactions=None,
            records=b"",
        )

    def _read_partition(self, topic: Topic, asked: _Asked) -> _Found:
        log = self._engine.log_of(topic.name, asked.partition)
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
                self._failed = True
                return found
        if not log.log_start_offset <= asked.fetch_offset <= log.log_end_offset:
            return self._error(asked, codes.OFFSET_OUT_OF_RANGE)
        try:
            records = self._records(log, asked)
        except StorageError:
            return self._error(asked, codes.KAFKA_STORAGE_ERROR)
        self._logs.append((log, asked.fetch_offset))
        self._size += len(records)
        found.records = records
        return found

    def _records(self, log: PartitionLog, asked: _Asked) -> bytes:
        request = self._request
        bytes_max = min(request.max_bytes, self._engine.configs.fetch_max_bytes)
        room = min(asked.partition_max_bytes, bytes_max - self._size)
        return log.read(asked.fetch_offset, room, at_least_one=self._size == 0)

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
        if self._size + grown >= self._request.min_bytes or is_failed:
            self._unwatch()
            if self.read() or is_failed:
                self._pending.finish(self.response)
            else:
                self._watch()

    def _expire(self) -> None:
        self._unwatch()
        self.read()
        self._pending.finish(self.response)
