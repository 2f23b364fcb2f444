"""Fetch sessions: what a consumer fetches is remembered, so that only changes are told (KIP-227).

A session knows its partitions, from where each is read, and what was told of each. A partition that
may have something to tell is *dirty*; the logs' watchers make it so. A fetch looks at those that
are dirty and at nothing else: what it costs depends on what changed, not on what there is.

    dirty   named in the request; or its log has moved since (high watermark, start, failure); or it
            had more to give than was read; or an error, which is told until it is gone
    clean   everything was told: there is nothing to read, and the client knows high watermark, last
            stable offset and log start offset

A session belongs to the id that was given out, not to a connection. From version 13 on topics are
known by their ids, before by their names: one that was made anew under its name is told as not
there once, so that the client looks again before it reads on at an offset of the old one.

The cache holds so many sessions and no more. Who has been silent for two minutes makes room for
anybody; otherwise one with more partitions takes the place of the smallest that has had its two
minutes. Nobody is privileged: there are no followers. Who gets no session is served without one.

Kafka: FetchSession, FetchSessionCache, FetchManager.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ottla.errors import codes
from ottla.protocol.messages.api_01_fetch import FetchRequest, FetchResponse

if TYPE_CHECKING:
    from ottla.clock import Clock
    from ottla.log.partition_log import PartitionLog

EVICTION_MS = 120_000
"""How long a session is safe. Kafka: MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS."""

FIRST_EPOCH = 1
"""The epoch of the first fetch after the one that has made a session."""

_EPOCH_MAX = 2**31 - 1
_ID_MAX = 2**31 - 1
_NOT_TOLD = -1

Key: TypeAlias = tuple[str | bytes, int]
"""A topic's name or id, and the number of a partition."""

Found: TypeAlias = FetchResponse.PartitionData


def next_epoch(epoch: int) -> int:
    """Return the epoch that follows; there is no 0 but for the fetch that makes a session."""
    return FIRST_EPOCH if epoch >= _EPOCH_MAX else epoch + 1


class Fetching(Protocol):
    """A fetch of a session that waits."""

    def moved(self, partition: SessionPartition) -> None:
        """Take note that a partition may have something to tell."""
        ...

    def refuse(self, error: int) -> None:
        """Answer with an error: the session has gone on without it, or is closed."""
        ...


class SessionPartition:
    """One partition of a session.

    Attributes:
        key: which one it is.
        asked: what the client has said of it last.
        topic_id: the id of the topic that it was found to be of; None before it was found.
        log: the log that is watched, or None.
        bytes_seen: what `PartitionLog.bytes_from` said when it was looked at last.
    """

    __slots__ = ("_session", "_told", "asked", "bytes_seen", "key", "log", "topic_id")

    def __init__(self, session: FetchSession, key: Key, asked: FetchRequest.FetchPartition) -> None:
        self.key = key
        self.asked = asked
        self.topic_id: bytes | None = None
        self.log: PartitionLog | None = None
        self.bytes_seen = 0
        self._session = session
        self._told = (_NOT_TOLD, _NOT_TOLD, _NOT_TOLD)

    def watch(self, log: PartitionLog | None) -> None:
        """Have it dirty whenever the log moves; of another log nothing was told yet."""
        if log is self.log:
            return
        self.unwatch()
        self.log = log
        self._told = (_NOT_TOLD, _NOT_TOLD, _NOT_TOLD)
        if log is not None:
            log.watch(self._moved)

    def unwatch(self) -> None:
        """Let go of the log."""
        if self.log is not None:
            self.log.unwatch(self._moved)
            self.log = None

    def _moved(self) -> None:
        if self.log is not None and self.log.failed is not None:
            self.unwatch()  # it may be of a deleted topic, and nobody else needs it
        self._session.mark(self)

    def has_news(self, found: Found) -> bool:
        """Tell whether what was found is to be told."""
        return bool(
            found.records
            or found.error_code
            or found.diverging_epoch.epoch >= 0
            or self._told != _state_of(found)
        )

    def tell(self, found: Found) -> bool:
        """Take note that it is told; returns whether there is nothing left to tell."""
        if found.error_code or found.diverging_epoch.epoch >= 0:
            self._told = (_NOT_TOLD, _NOT_TOLD, _NOT_TOLD)  # what follows is told in any case
            return False
        self._told = _state_of(found)
        return self.log is not None and self.asked.fetch_offset >= self.log.high_watermark


def _state_of(found: Found) -> tuple[int, int, int]:
    return found.high_watermark, found.last_stable_offset, found.log_start_offset


class FetchSession:
    """What one consumer fetches.

    Attributes:
        session_id: its id; 0 before it has a place in the cache.
        epoch: the epoch of the next fetch.
        by_id: whether topics are named by their ids.
        partitions: everything.
        dirty: what is looked at, in this order.
        waiting: the fetch that waits, or None.
        created_ms: when it got its place, on the monotonic clock.
        used_ms: when it was used last.
    """

    def __init__(self, *, by_id: bool) -> None:
        self.session_id = 0
        self.epoch = FIRST_EPOCH
        self.by_id = by_id
        self.partitions: dict[Key, SessionPartition] = {}
        self.dirty: dict[Key, SessionPartition] = {}
        self.waiting: Fetching | None = None
        self.created_ms = 0.0
        self.used_ms = 0.0

    def update(self, request: FetchRequest) -> None:
        """Take over what a request names, and what it forgets."""
        for topic in request.topics:
            name = topic.topic_id if self.by_id else topic.topic
            for asked in topic.partitions:
                key = (name, asked.partition)
                partition = self.partitions.get(key)
                if partition is None:
                    partition = self.partitions[key] = SessionPartition(self, key, asked)
                partition.asked = asked
                partition.topic_id = None
                self.dirty[key] = partition
        for forgotten in request.forgotten_topics_data:
            name = forgotten.topic_id if self.by_id else forgotten.topic
            for number in forgotten.partitions:
                partition = self.partitions.pop((name, number), None)
                if partition is not None:
                    partition.unwatch()
                    self.dirty.pop(partition.key, None)

    def mark(self, partition: SessionPartition) -> None:
        """Have a partition looked at."""
        self.dirty[partition.key] = partition
        if self.waiting is not None:
            self.waiting.moved(partition)

    def tell(self, partition: SessionPartition, found: Found) -> None:
        """Take note that something is told; a partition that had records comes last next time."""
        if partition.tell(found):
            self.dirty.pop(partition.key, None)
        elif found.records:
            self.dirty[partition.key] = self.dirty.pop(partition.key, partition)

    def refuse(self, error: int) -> None:
        """Answer a fetch that waits with an error, if there is one."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.refuse(error)

    def close(self) -> None:
        """Let go of all logs; a fetch that waits is told that there is no such session."""
        for partition in self.partitions.values():
            partition.unwatch()
        self.refuse(codes.FETCH_SESSION_ID_NOT_FOUND)


class FetchSessions:
    """All sessions.

    Args:
        slots: how many there may be.
        clock: where time comes from.
        new_id: makes ids; two calls may give the same one.
    """

    def __init__(
        self,
        slots: int,
        clock: Clock,
        new_id: Callable[[], int] = lambda: secrets.randbelow(_ID_MAX) + 1,
    ) -> None:
        self._slots = slots
        self._clock = clock
        self._new_id = new_id
        self._sessions: dict[int, FetchSession] = {}  # the one used last comes last

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, session_id: int) -> FetchSession | None:
        """Return a session, or None where there is none of that id any more."""
        return self._sessions.get(session_id)

    def has_place_for(self, size: int) -> bool:
        """Tell whether a session of so many partitions would get a place now."""
        return size > 0 and (len(self._sessions) < self._slots or self._least(size) is not None)

    def _least(self, size: int) -> FetchSession | None:
        """Return the session that makes room for one of so many partitions, or None."""
        if not self._sessions:
            return None
        now = self._clock.monotonic_ms()
        silent = next(iter(self._sessions.values()))
        if now - silent.used_ms > EVICTION_MS:
            return silent
        old = [each for each in self._sessions.values() if now - each.created_ms > EVICTION_MS]
        least = min(old, key=lambda each: (len(each.partitions), each.session_id), default=None)
        return least if least is not None and len(least.partitions) < size else None

    def add(self, session: FetchSession) -> bool:
        """Give a session a place and an id, if there is one for it."""
        size = len(session.partitions)
        if not self.has_place_for(size):
            return False
        if len(self._sessions) >= self._slots:
            least = self._least(size)
            assert least is not None
            self.remove(least)
        while session.session_id == 0 or session.session_id in self._sessions:
            session.session_id = self._new_id()
        session.created_ms = session.used_ms = self._clock.monotonic_ms()
        self._sessions[session.session_id] = session
        return True

    def touch(self, session: FetchSession) -> None:
        """Take note that a session is used."""
        session.used_ms = self._clock.monotonic_ms()
        self._sessions[session.session_id] = self._sessions.pop(session.session_id)

    def remove(self, session: FetchSession) -> None:
        """Close a session."""
        self._sessions.pop(session.session_id, None)
        session.close()
