"""The consumer: reads the records of topics, from where one wants, in the order of each partition.

A consumer has no thread of its own: `poll` and iterating do its work, and leave the next fetch on
its way when they return. It is used by one thread at a time; `close` may be called by any.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ottla.client.address import open_network
from ottla.client.cluster import Cluster
from ottla.client.config import ConsumerConfig, make_config
from ottla.client.driver import Driver
from ottla.client.fetcher import Fetcher
from ottla.client.lookup import EARLIEST, LATEST, Lookup, TopicPartition, problem_of_topic
from ottla.clock import SYSTEM
from ottla.errors import ClientError, Closed, ConfigError, Timeout

if TYPE_CHECKING:
    from types import TracebackType

    from ottla.records.batch import Record
    from ottla.trace import Life

Start = str | int | datetime
"""Where reading begins: "beginning", "end", an offset, or a time."""

_FOREVER_S = 3600.0
_API_TIMEOUT_S = 60.0


class Consumer:
    """Reads records.

    Args:
        address_and_topics: the address ("host:port[,host:port]", a folder with an embedded store,
            or a `Broker`), then the topics; only the topics where `bootstrap_servers` is given.
        start: where to begin in each partition: "beginning", "end", an offset, or a datetime
            (one without a time zone is local time).
        stop_at_end: whether iterating stops where the topics ended when it began.
        bootstrap_servers: the address under the name that other clients have for it.
        settings: see `ottla.client.config.ConsumerConfig`.

    Raises:
        ConfigError: an address or a setting cannot be.
        StorageError: the folder cannot be opened as a store.
    """

    def __init__(
        self,
        *address_and_topics: Any,
        start: Start = "beginning",
        stop_at_end: bool = False,
        bootstrap_servers: object = None,
        **settings: Any,
    ) -> None:
        config = make_config(ConsumerConfig, settings)
        if bootstrap_servers is None and address_and_topics:
            bootstrap_servers, *topics = address_and_topics
        else:
            topics = list(address_and_topics)
        _check_topics(topics)
        self._start = _as_start(start)
        self._stop_at_end = stop_at_end
        self._config = config
        self._clock = SYSTEM
        network = open_network(bootstrap_servers, config.client_id, self._clock)
        self._cluster = Cluster(network, config, self._clock, create_topics=False)
        self._fetcher = Fetcher(config, self._cluster, self._clock)
        self._driver = Driver(network, self, self._clock)
        self._topics: list[str] = []
        self._ends: dict[TopicPartition, int] | None = None
        self._using = threading.Lock()
        self._closed = False
        self._deserializes = bool(config.key_deserializer or config.value_deserializer)
        if topics:
            self.subscribe(topics)

    def __repr__(self) -> str:
        return f"<Consumer {self._cluster.address}: {len(self._fetcher.partitions)} partitions>"

    # -- Work

    def step(self) -> float | None:
        """Do what is due; returns when to look again, on the monotonic clock, or None."""
        due = [self._cluster.step()]
        self._follow_topics()
        due += [self._fetcher.step(), self._cluster.step()]
        if self._cluster.unreachable is not None:
            self._fetcher.error = self._cluster.unreachable
            self._cluster.try_again()
        known = [each for each in due if each is not None]
        return min(known) if known else None

    def has_work(self) -> bool:
        """Tell that nothing goes on when nobody asks."""
        return False

    def _follow_topics(self) -> None:
        """Read all partitions of the topics, those that are added later from their beginning."""
        found: list[TopicPartition] = []
        for topic in self._topics:
            info = self._cluster.topics.get(topic)
            if info is None:
                continue
            problem = problem_of_topic(self._cluster, self._clock, TopicPartition(topic, 0))
            if problem is not None:
                self._fetcher.error = problem
            found += [TopicPartition(topic, number) for number in range(len(info.leaders))]
        new = [where for where in found if where not in self._fetcher.partitions]
        if not new:
            return
        grown = {where.topic for where in self._fetcher.partitions}
        self._fetcher.assign(found, None)
        for where in new:
            start = EARLIEST if where.topic in grown else self._start
            self._begin(where, start)

    def _begin(self, where: TopicPartition, start: int) -> None:
        state = self._fetcher.partitions[where]
        if start >= 0 and self._starts_at_offset:
            state.seek(start)
        else:
            state.seek_by(start)

    @property
    def _starts_at_offset(self) -> bool:
        return not isinstance(self._start, _Milliseconds)

    # -- what to read

    def subscribe(self, topics: Iterable[str]) -> None:
        """Read all partitions of topics, from `start` on."""
        wanted = [topics] if isinstance(topics, str) else list(topics)
        _check_topics(wanted)
        with self._alone():
            self._topics = wanted
            self._ends = None
            self._fetcher.assign([], None)
            self._cluster.want(wanted)

    def assign(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Read exactly these partitions, those that are new from `start` on."""
        wanted = [TopicPartition(*each) for each in partitions]
        with self._alone():
            self._topics = []
            self._ends = None
            old = set(self._fetcher.partitions)
            self._fetcher.assign(wanted, None)
            for where in wanted:
                if where not in old:
                    self._begin(where, self._start)
            self._cluster.want(where.topic for where in wanted)

    @property
    def has_buffered(self) -> bool:
        """Whether records lie here that `poll` gives out without waiting."""
        return self._fetcher.has_records

    def assignment(self) -> list[TopicPartition]:
        """Return the partitions that are read."""
        return list(self._fetcher.partitions)

    def seek(self, topic: str, partition: int, to: Start) -> None:
        """Go on elsewhere in a partition.

        Args:
            topic: the topic.
            partition: the partition; it must be assigned.
            to: an offset, "beginning", "end", or a datetime: the first record at or after it.
        """
        start = _as_start(to)
        with self._alone():
            where = TopicPartition(topic, partition)
            self._await_assigned(where)
            state = self._fetcher.partitions[where]
            if start >= 0 and not isinstance(start, _Milliseconds):
                state.seek(start)
            else:
                state.seek_by(start)

    def _await_assigned(self, where: TopicPartition) -> None:
        if where.topic in self._topics:
            self._run(lambda: where in self._fetcher.partitions, _API_TIMEOUT_S, "a seek")
        elif where not in self._fetcher.partitions:
            raise ClientError(f"partition {where.partition} of {where.topic!r} is not assigned")

    def position(self, topic: str, partition: int) -> int:
        """Return the offset of the next record that is given out.

        Raises:
            ClientError: the partition is not assigned.
            Timeout: it could not be found out.
        """
        with self._alone():
            where = TopicPartition(topic, partition)
            self._await_assigned(where)
            state = self._fetcher.partitions[where]
            self._run(lambda: state.position is not None, _API_TIMEOUT_S, "a position")
            assert state.position is not None
            return state.position

    def positions(self) -> dict[TopicPartition, int | None]:
        """Return all positions; None where one is not known yet."""
        return {where: state.position for where, state in self._fetcher.partitions.items()}

    # -- what there is

    def partitions_for(self, topic: str, timeout: float = _API_TIMEOUT_S) -> list[int]:
        """Return the numbers of a topic's partitions; none where there is no such topic.

        Raises:
            BrokerUnavailable: no broker could be reached.
            Timeout: there was no answer in time, seconds.
        """
        with self._alone():
            self._cluster.want([topic])
            info = self._cluster.topics[topic]
            self._run(lambda: info.updated_ms > 0, timeout, f"the partitions of {topic!r}")
            return list(range(len(info.leaders)))

    def beginning_offsets(
        self, partitions: Iterable[tuple[str, int]] | None = None
    ) -> dict[TopicPartition, int]:
        """Return the first offset of partitions, the assigned ones where none are given."""
        return self._look_up(dict.fromkeys(self._given(partitions), EARLIEST))

    def end_offsets(
        self, partitions: Iterable[tuple[str, int]] | None = None
    ) -> dict[TopicPartition, int]:
        """Return the end of partitions, exclusive: the high watermark, or for read_committed the
        last stable offset."""
        return self._look_up(dict.fromkeys(self._given(partitions), LATEST))

    def offsets_at(
        self, times: Mapping[tuple[str, int], datetime]
    ) -> dict[TopicPartition, int | None]:
        """Return the first offset at or after a time, by partition; None where there is none."""
        wanted = {TopicPartition(*where): int(_as_start(time)) for where, time in times.items()}
        found = self._look_up(wanted)
        return {where: None if offset < 0 else offset for where, offset in found.items()}

    def _given(self, partitions: Iterable[tuple[str, int]] | None) -> list[TopicPartition]:
        if partitions is not None:
            return [TopicPartition(*each) for each in partitions]
        if self._topics and not self._fetcher.partitions:
            with self._alone():
                self._run(lambda: bool(self._fetcher.partitions), _API_TIMEOUT_S, "an assignment")
        return self.assignment()

    def _look_up(self, wanted: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        with self._alone():
            return self._look_up_alone(wanted)

    def _look_up_alone(self, wanted: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        self._cluster.want(where.topic for where in wanted)
        lookup = Lookup(
            self._cluster,
            self._clock,
            wanted,
            self._fetcher.isolation_level,
            self._config.retry_backoff_ms,
        )
        self._fetcher.lookups.append(lookup)
        try:
            self._run(lambda: lookup.is_done, _API_TIMEOUT_S, "offsets")
        finally:
            self._fetcher.lookups.remove(lookup)
        if lookup.error is not None:
            raise lookup.error
        return lookup.found

    # -- reading

    def poll(self, timeout: float = 1.0, max_records: int | None = None) -> list[Record]:
        """Return records that are there; it does not wait for more once there is one.

        Args:
            timeout: seconds to wait for the first.
            max_records: how many at most; None for `max_poll_records`.

        Raises:
            BrokerUnavailable: no broker was ever reached.
            CorruptRecords: a batch is damaged; the position is that of the batch.
            KafkaError: something else that will not pass by itself.
            Closed: the consumer is closed.
        """
        count = self._config.max_poll_records if max_records is None else max_records
        with self._alone():
            return self._poll(timeout, count)

    def _poll(self, timeout: float, count: int) -> list[Record]:
        fetcher = self._fetcher
        if not fetcher.partitions and not self._topics:
            raise ClientError(
                "nothing is assigned", next_steps=("Give topics, or call assign() before poll().",)
            )
        deadline = self._clock.monotonic_ms() + timeout * 1000
        while True:
            records = fetcher.take(count)
            if records:
                self._driver.push()
                return self._deserialized(records) if self._deserializes else records
            error = fetcher.take_error()
            if error is not None:
                raise error
            left = (deadline - self._clock.monotonic_ms()) / 1000
            if self._closed or not self._driver.run_until(self._has_news, max(left, 0.0)):
                return []

    def _has_news(self) -> bool:
        fetcher = self._fetcher
        return self._closed or fetcher.error is not None or fetcher.has_records

    def _deserialized(self, records: list[Record]) -> list[Record]:
        of_key, of_value = self._config.key_deserializer, self._config.value_deserializer
        for record in records:
            key, value = record.key, record.value
            if of_key is not None and key is not None:
                record._key = of_key(key)
            if of_value is not None and value is not None:
                record._value = of_value(value)
        return records

    def __iter__(self) -> Iterator[Record]:
        """Give out record after record; wait for more until the consumer is closed.

        With `stop_at_end` it stops where the topics ended when it began.
        """
        while not self._closed:
            if self._stop_at_end and self._is_at_end():
                return
            for record in self.poll(_FOREVER_S if not self._stop_at_end else 1.0):
                yield record
                if self._closed:
                    return

    def _is_at_end(self) -> bool:
        if self._ends is None:
            self._ends = self.end_offsets()
        for where, end in self._ends.items():
            if where in self._fetcher.partitions and self.position(*where) < end:
                return False
        return True

    def trace(self, record: Record) -> Life:
        """Return what was observed of a record's life; the consumer must be made with trace=True.

        Raises:
            ClientError: it was not, or the record was read too long ago.
        """
        if self._fetcher.fetches is None:
            raise ClientError(
                "nothing was recorded", next_steps=("Make the consumer with trace=True.",)
            )
        return self._fetcher.fetches.life_of(record)

    # -- the end

    def close(self) -> None:
        """Let go of everything; a `poll` that waits in another thread returns at once."""
        if self._closed:
            return
        self._closed = True
        self._driver.close()
        self._cluster.close()

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()

    def _run(self, reached: Callable[[], bool], timeout: float, what: str) -> None:
        """Work until something is reached.

        Raises:
            Timeout: it was not, within `timeout` seconds.
        """
        in_time = self._driver.run_until(
            lambda: reached() or self._closed or self._fetcher.error is not None, timeout
        )
        error = self._fetcher.take_error()
        if error is not None and not reached():
            raise error
        if self._closed:
            raise Closed("the consumer is closed")
        if not in_time:
            raise Timeout(f"no answer about {what} within {timeout:g} s")

    def _alone(self) -> _Alone:
        if self._closed:
            raise Closed("the consumer is closed")
        return _Alone(self._using)


class _Alone:
    """Keeps a second thread out, and says so."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise ClientError(
                "the consumer is in use by another thread",
                next_steps=("Give each thread a consumer of its own.",),
            )

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _Milliseconds(int):
    """A time, where an offset could be meant as well."""


def _as_start(start: Start) -> int:
    if start == "beginning":
        return EARLIEST
    if start == "end":
        return LATEST
    if isinstance(start, datetime):
        return _Milliseconds(start.astimezone(UTC).timestamp() * 1000)
    if isinstance(start, int) and not isinstance(start, bool) and start >= 0:
        return start
    raise ConfigError(f"{start!r} is neither 'beginning', 'end', an offset nor a datetime")


def _check_topics(topics: Iterable[object]) -> None:
    for topic in topics:
        if not isinstance(topic, str) or not topic:
            raise ConfigError(f"{topic!r} cannot name a topic")
