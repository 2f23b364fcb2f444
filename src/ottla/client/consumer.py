"""The consumer: reads the records of topics, from where one wants, in the order of each partition.

Without a group a consumer has no thread of its own: `poll` and iterating do its work, and leave the
next fetch on its way when they return. A member of a group has one, for heartbeats and rebalances
while the user is busy. A consumer is used by one thread at a time; `close` and `wakeup` may be
called by any.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ottla.client.address import open_network
from ottla.client.committing import Committing
from ottla.client.config import ConsumerConfig, make_config
from ottla.client.consumer_core import ConsumerCore, Milliseconds
from ottla.client.handing import EachRecord
from ottla.client.lookup import EARLIEST, LATEST, Lookup, TopicPartition
from ottla.client.membership import SubscriptionPattern
from ottla.client.rebalancing import Listeners, Rebalancing
from ottla.client.using import Using
from ottla.clock import SYSTEM
from ottla.errors import ClientError, Closed, ConfigError, Forked, KafkaError, Timeout, WokenUp
from ottla.records.columns_builder import NO_RECORDS

if TYPE_CHECKING:
    from types import TracebackType

    from ottla.client.handing import Handing
    from ottla.client.rebalancing import Listener
    from ottla.records.columns import RecordColumns
    from ottla.records.record import Record
    from ottla.trace import Life

Start = str | int | datetime
"""Where reading begins: "beginning", "end", an offset, or a time."""

_FOREVER_S = 3600.0
_LOOK_AT_END_MS = 50
_PUSH_MS = 10.0
_RECORDS_AT_ONCE = 1000
_NO_LIMIT = 0x7FFFFFFF
_API_TIMEOUT_S = 60.0
_CLOSE_TIMEOUT_S = 5.0
_EXIT_TIMEOUT_S = 1.0
_STARTS = {"beginning": EARLIEST, "earliest": EARLIEST, "end": LATEST, "latest": LATEST}


class Consumer(Committing):
    """Reads records.

    Args:
        address_and_topics: the address ("host:port[,host:port]", a folder with an embedded store,
            or a `Broker`), then the topics; only the topics where `bootstrap_servers` is given.
        group: the group that it is a member of: the members share the partitions, and go on where
            the group has committed; what was finished is committed by itself, unless
            `enable_auto_commit` is False. None for no group.
        start: where to begin in each partition: "beginning", "end", an offset, or a datetime
            (one without a time zone is local time). In a group only where nothing is committed.
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
        group: str | None = None,
        start: Start | None = None,
        stop_at_end: bool = False,
        bootstrap_servers: object = None,
        **settings: Any,
    ) -> None:
        if group is not None:
            settings["group_id"] = group
        config = make_config(ConsumerConfig, settings)
        if bootstrap_servers is None and address_and_topics:
            bootstrap_servers, *topics = address_and_topics
        else:
            topics = list(address_and_topics)
        _check_topics(topics)
        first = None if start is None else _as_start(start)
        self._stop_at_end = stop_at_end
        self._config = config
        self._clock = SYSTEM
        network = open_network(bootstrap_servers, config.client_id, self._clock)
        core = self._core = ConsumerCore(network, config, self._clock, first)
        _CORES.add(core)
        self._fetcher = core.fetcher
        if stop_at_end:  # where the end is must not wait for records behind it
            core.fetcher.max_wait_ms = min(core.fetcher.max_wait_ms, _LOOK_AT_END_MS)
        self._driver = core.driver
        self._rebalancing = Rebalancing(core)
        self._using = Using(core)
        self._ends: dict[TopicPartition, int] = {}
        self._woken = False
        self._next_push_ms = 0.0
        if topics:
            self.subscribe(topics)

    def __repr__(self) -> str:
        group = "" if self._config.group_id is None else f" in group {self._config.group_id!r}"
        count = len(self._fetcher.partitions)
        return f"<Consumer {self._core.cluster.address}{group}: {count} partitions>"

    # -- what to read

    def subscribe(
        self,
        topics: str | re.Pattern[str] | SubscriptionPattern | Iterable[str],
        *,
        on_assigned: Listener | None = None,
        on_revoked: Listener | None = None,
        on_lost: Listener | None = None,
    ) -> None:
        """Read topics: all of their partitions, or in a group this member's share of them.

        The listeners are for groups. They are called in a poll, by the thread that polls, with this
        consumer and a list of partitions.

        Args:
            topics: their names, or a regular expression that is searched for in all names; topics
                that are created later are found when metadata is asked for again
                (`metadata_max_age_ms`). A `SubscriptionPattern` is matched by the broker, which
                sees such topics at once; it needs a group of the consumer protocol.
            on_assigned: is called when partitions are assigned; it may seek in them.
            on_revoked: is called before partitions are given back; they can be committed until it
                returns.
            on_lost: is called when partitions were lost, and can be committed no more; without it
                `on_revoked` is.
        """
        pattern = topics if isinstance(topics, re.Pattern) else None
        broker_pattern = ""
        wanted: list[str] = []
        if isinstance(topics, str):
            wanted = [topics]
        elif isinstance(topics, SubscriptionPattern):
            broker_pattern = topics.pattern
            if self._core.group is None:
                raise ConfigError("a SubscriptionPattern needs a group")
        elif not isinstance(topics, re.Pattern):
            wanted = list(topics)
        _check_topics(wanted)
        if not wanted and pattern is None and not broker_pattern:
            raise ConfigError("no topic to subscribe to")
        with self._using, self._driver.held():
            self._rebalancing.listeners = Listeners(on_assigned, on_revoked, on_lost)
            self._ends.clear()
            self._core.subscribe(wanted, pattern, broker_pattern)

    def assign(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Read exactly these partitions, those that are new from `start` on.

        With a group nothing is shared with its members; what it has committed is used, and
        committing is possible while it has no members.
        """
        wanted = [TopicPartition(*each) for each in partitions]
        with self._using, self._driver.held():
            self._ends.clear()
            self._core.assign(wanted)

    @property
    def has_buffered(self) -> bool:
        """Whether records lie here that `poll` gives out without waiting."""
        return self._core.handing.has_more or self._fetcher.has_records

    def assignment(self) -> list[TopicPartition]:
        """Return the partitions that are read."""
        return list(self._fetcher.partitions)

    def pause(self, *partitions: tuple[str, int]) -> None:
        """Give out nothing of partitions, all assigned ones where none are given.

        They stay this member's; a poll gives out those of the others.
        """
        self._pause(partitions, is_paused=True)

    def resume(self, *partitions: tuple[str, int]) -> None:
        """Go on with partitions that are paused, all where none are given."""
        self._pause(partitions, is_paused=False)

    def _pause(self, partitions: tuple[tuple[str, int], ...], *, is_paused: bool) -> None:
        with self._using, self._driver.held():
            for where in [TopicPartition(*each) for each in partitions] or self.assignment():
                self._check_assigned(where)
                self._core.pause(where, is_paused=is_paused)

    def paused(self) -> list[TopicPartition]:
        """Return the partitions that are paused."""
        return [where for where, state in self._fetcher.partitions.items() if state.is_paused]

    def seek(self, topic: str, partition: int, to: Start) -> None:
        """Go on elsewhere in a partition.

        Args:
            topic: the topic.
            partition: the partition; it must be assigned.
            to: an offset, "beginning", "end", or a datetime: the first record at or after it.
        """
        start = _as_start(to)
        with self._using:
            where = TopicPartition(topic, partition)
            self._await_assigned(where)
            with self._driver.held():
                self._core.seek(where, start)

    def _await_assigned(self, where: TopicPartition) -> None:
        core = self._core
        if core.group is None and where.topic in core.topics:
            self._run(lambda: where in self._fetcher.partitions, _API_TIMEOUT_S, "a seek")
        else:
            self._check_assigned(where)

    def _check_assigned(self, where: TopicPartition) -> None:
        if where not in self._fetcher.partitions:
            raise ClientError(f"partition {where.partition} of {where.topic!r} is not assigned")

    def position(self, topic: str, partition: int) -> int:
        """Return the offset of the next record that is given out.

        Raises:
            ClientError: the partition is not assigned.
            Timeout: it could not be found out.
        """
        with self._using:
            where = TopicPartition(topic, partition)
            self._await_assigned(where)
            state = self._fetcher.partitions[where]
            self._run(lambda: state.position is not None, _API_TIMEOUT_S, "a position")
            with self._driver.held():
                position = self._core.position(where)
            assert position is not None
            return position

    def positions(self) -> dict[TopicPartition, int | None]:
        """Return all positions; None where one is not known yet."""
        with self._driver.held():
            return {where: self._core.position(where) for where in self._fetcher.partitions}

    # -- what there is

    def partitions_for(self, topic: str, timeout: float = _API_TIMEOUT_S) -> list[int]:
        """Return the numbers of a topic's partitions; none where there is no such topic.

        Raises:
            BrokerUnavailable: no broker could be reached.
            Timeout: there was no answer in time, seconds.
        """
        with self._using:
            with self._driver.held():
                self._core.cluster.want([topic])
                info = self._core.cluster.topics[topic]
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

    def lag(self) -> dict[TopicPartition, int]:
        """Return how many offsets the assigned partitions have that were not given out yet."""
        ends = self.end_offsets()
        return {where: max(end - self.position(*where), 0) for where, end in ends.items()}

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
        if self._core.group is None and self._core.topics and not self._fetcher.partitions:
            with self._using:
                self._run(lambda: bool(self._fetcher.partitions), _API_TIMEOUT_S, "an assignment")
        return self.assignment()

    def _look_up(self, wanted: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        with self._using:
            lookup = Lookup(
                self._core.cluster,
                self._clock,
                wanted,
                self._fetcher.isolation_level,
                self._config.retry_backoff_ms,
            )
            with self._driver.held():
                self._core.cluster.want(where.topic for where in wanted)
                self._fetcher.lookups.append(lookup)
            try:
                self._run(lambda: lookup.is_done, _API_TIMEOUT_S, "offsets")
            finally:
                with self._driver.held():
                    self._fetcher.lookups.remove(lookup)
            if lookup.error is not None:
                raise lookup.error
            return lookup.found

    # -- reading

    def poll(self, timeout: float = 1.0, max_records: int | None = None) -> list[Record]:
        """Return records that are there; it does not wait for more once there is one.

        What was given out before is finished with, and may be committed from now on.

        Args:
            timeout: seconds to wait for the first.
            max_records: how many at most; None for `max_poll_records`.

        Raises:
            BrokerUnavailable: no broker was ever reached.
            CorruptRecords: a batch is damaged; the position is that of the batch.
            DeserializationFailed: a record cannot be read, and on_poison is "raise"; the position
                is behind it.
            NoCommittedOffset: a group has committed nothing, and auto_offset_reset is "none".
            FencedMember: another member has the same group_instance_id.
            WokenUp: another thread called `wakeup`.
            KafkaError: something else that will not pass by itself.
            Closed: the consumer is closed.
        """
        count = self._config.max_poll_records if max_records is None else max_records
        deadline = self._clock.monotonic_ms() + timeout * 1000
        core = self._core
        with self._using:
            while self._await_records(deadline, lambda: core.take(count)):
                core.attention = True  # for an iterator that is asked later
                self._maybe_push()
                records = core.hand_out(count)
                if records:
                    return records
            return []

    def poll_batch(self, timeout: float = 1.0, max_records: int | None = None) -> RecordColumns:
        """Return records that are there as columns, without a Python object for each of them.

        As `poll` it waits for no more once there is one, and what was given out before is finished
        with. It gives about a megabyte at once: whole batches, of one partition after the other.

        Keys and values are bytes, also where there are deserializers: these only say which records
        they can read, and on_poison what becomes of the others - which takes an object for each
        record after all, so leave them out where that is not wanted.

        Args:
            timeout: seconds to wait for the first.
            max_records: how many at most; None for what there is. `max_poll_records` is for `poll`.

        Returns:
            The columns; none (`len` is 0) where nothing came in time. See `RecordColumns`:
            `offsets` and `timestamps` are int64, `keys` and `values` a buffer with int32 offsets
            and a bitmap, and `to_arrow()` makes a `pyarrow.RecordBatch` of them.

        Raises:
            KafkaError: for the same reasons as `poll`.
        """
        count = _NO_LIMIT if max_records is None else max_records
        deadline = self._clock.monotonic_ms() + timeout * 1000
        core = self._core
        with self._using:
            try:
                while self._await_records(deadline, lambda: core.take_columns(count)):
                    core.attention = True
                    self._maybe_push()
                    columns = core.hand_out_columns(count)
                    if columns is not None:
                        return columns
            except BaseException:
                if core.columns is not None:  # Ctrl-C: nobody got them
                    with self._driver.held():
                        core.take_back(core.handing.begun)
                raise
            return NO_RECORDS

    def batches(self, max_records: int | None = None) -> Iterator[RecordColumns]:
        """Give out columns after columns, as iterating gives out records; see `poll_batch`.

        With `stop_at_end` it stops where the topics ended when it began. What was given is finished
        with when the next is asked for. All of a topic as one Arrow table:

            pyarrow.Table.from_batches(each.to_arrow() for each in consumer.batches())
        """
        core = self._core
        while not core.is_closing:
            if self._stop_at_end and not core.handing.has_more and self._is_at_end():
                return
            columns = self.poll_batch(self._wait_s, max_records)
            if columns:
                yield columns

    def _maybe_push(self) -> None:
        """Do a turn where that brings something, or none was done for a while.

        What is asked for meanwhile waits in the socket; a turn for each poll would cost more than
        the records of the poll.
        """
        now = self._clock.monotonic_ms()
        if self._fetcher.is_due or now >= self._next_push_ms:
            self._next_push_ms = now + _PUSH_MS
            self._driver.push()

    def _await_records(self, deadline: float, take: Callable[[], bool]) -> bool:
        """Wait until `take` has found records, and do meanwhile what only the user's thread may."""
        core, fetcher = self._core, self._fetcher
        core.attention = False
        core.handing.finish()
        if not fetcher.partitions and not core.is_subscribed:
            raise ClientError(
                "nothing is assigned", next_steps=("Give topics, or call assign() before poll().",)
            )
        if core.group is not None:
            with self._driver.held():
                core.group.membership.polled(self._clock.monotonic_ms())
                core.decide_again()
        while True:
            left = max((deadline - self._clock.monotonic_ms()) / 1000, 0.0)
            if not self._rebalancing.carry_out(self, left):
                return False
            while core.ended:
                core.ended.pop(0)()
            if self._woken:
                self._woken = False
                raise WokenUp("another thread called wakeup()", "No record was passed over.")
            with self._driver.held():
                is_ready = take()
                error = None if is_ready else core.take_error()
            if is_ready:
                return True
            if error is not None:
                raise error
            core.is_waiting = True
            try:
                in_time = self._driver.run_until(self._has_news, left)
            finally:
                core.is_waiting = False
            if core.is_closing or not in_time:
                return False

    def _has_news(self) -> bool:
        core = self._core
        return (
            core.is_closing
            or self._woken
            or self._fetcher.has_records
            or core.has_error
            or bool(core.ended)
            or (core.group is not None and core.group.membership.has_change())
        )

    def __iter__(self) -> Iterator[Record]:
        """Give out record after record; wait for more until the consumer is closed.

        A record is finished with when the next one is asked for. With `stop_at_end` it stops where
        the topics ended when it began. It ends for no other reason: whatever else there is raises.
        """
        if self._core.deserializes:
            return self._each_readable()
        return EachRecord(self._core.signal, self._following)

    @property
    def _wait_s(self) -> float:
        return _LOOK_AT_END_MS / 1000 if self._stop_at_end else _FOREVER_S

    def _following(self) -> Handing | None:
        """Wait for what an iterator is to give out next; None where there will be no more."""
        core = self._core
        take_some = core.take if core.deserializes else core.take_batches
        take = partial(take_some, _RECORDS_AT_ONCE)
        while not core.is_closing:
            if self._stop_at_end and not core.handing.has_more and self._is_at_end():
                return None
            deadline = self._clock.monotonic_ms() + self._wait_s * 1000
            with self._using:
                if self._await_records(deadline, take):
                    self._maybe_push()
                    core.handing.one_by_one = True
                    return core.handing
        return None

    def _each_readable(self) -> Iterator[Record]:
        """Give out record after record as deserializers make them."""
        core = self._core
        while (handing := self._following()) is not None:
            handing.one_by_one = False
            while handing.has_more and not core.attention:
                yield from core.hand_out(1)
                handing.finish()

    def _is_at_end(self) -> bool:
        """Tell whether everything was read that was there when reading began."""
        if self._core.group is not None and not self._has_settled():
            return False
        new = [where for where in self.assignment() if where not in self._ends]
        if new or (not self._ends and self._core.group is None):
            self._ends |= self.end_offsets(new or None)
        with self._driver.held():
            for where in self._fetcher.partitions:
                position = self._core.position(where)
                if position is None or position < self._ends.get(where, 0):
                    return False
        return True

    def _has_settled(self) -> bool:
        group = self._core.group
        return group is None or not group.is_member or group.membership.is_settled

    def wakeup(self) -> None:
        """Have a `poll` that waits, or the next one, raise `WokenUp`; any thread may call it."""
        self._woken = True
        self._core.attention = True
        self._driver.interrupt()

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

    def close(self, timeout: float = _CLOSE_TIMEOUT_S) -> None:
        """Commit what was finished, leave the group, and let go of everything.

        Any thread may call it; a `poll` that waits in another one returns at once, and iterating
        ends. What was given out counts as finished where the thread that got it closes. A commit
        that cannot be made is logged: what it was for is read again.

        Args:
            timeout: seconds that the group's coordinator may take.
        """
        is_mine = self._using.thread == threading.get_ident()
        self._close(timeout, has_finished=is_mine)

    def _close(self, timeout: float, *, has_finished: bool) -> None:
        core = self._core
        if core.is_closing:
            return
        core.closer = threading.get_ident()
        core.is_closing = core.attention = True
        if core.refusal is not None:
            return
        core.refusal = Closed("the consumer is closed")
        self._driver.interrupt()
        deadline = self._clock.monotonic_ms() + timeout * 1000
        is_inside = self._using.take_over(timeout)
        try:
            if has_finished and is_inside:
                core.handing.finish()
            if core.group is not None:
                self._rebalancing.leave(self if is_inside else None, deadline)
        finally:
            core.close()
            if is_inside:
                self._using.__exit__()

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        is_mine = self._using.thread == threading.get_ident()
        self._close(_CLOSE_TIMEOUT_S, has_finished=is_mine and error is None)

    def __del__(self) -> None:
        core: ConsumerCore | None = getattr(self, "_core", None)
        if core is not None and not core.is_closing:
            core.abandon()

    def _run(self, reached: Callable[[], bool], timeout: float, what: str) -> None:
        """Work until something is reached.

        Raises:
            Timeout: it was not, within `timeout` seconds.
        """
        core = self._core
        in_time = self._driver.run_until(
            lambda: reached() or core.is_closed_by_another or core.has_error, timeout
        )
        if reached():
            return
        error = core.take_error()
        if error is not None:
            raise error
        if core.is_closed_by_another:
            raise Closed("the consumer is closed")
        if not in_time:
            raise Timeout(f"no answer about {what} within {timeout:g} s")


_CORES: weakref.WeakSet[ConsumerCore] = weakref.WeakSet()


def _as_start(start: Start) -> int:
    if isinstance(start, str) and start in _STARTS:
        return _STARTS[start]
    if isinstance(start, datetime):
        return Milliseconds(start.astimezone(UTC).timestamp() * 1000)
    if isinstance(start, int) and not isinstance(start, bool) and start >= 0:
        return start
    raise ConfigError(f"{start!r} is neither 'beginning', 'end', an offset nor a datetime")


def _check_topics(topics: Iterable[object]) -> None:
    for topic in topics:
        if not isinstance(topic, str) or not topic:
            raise ConfigError(f"{topic!r} cannot name a topic")


def _at_exit() -> None:
    """Leave the groups that this process is still a member of, for a bounded time."""
    for core in list(_CORES):
        if not core.is_closing:
            deadline = core.clock.monotonic_ms() + _EXIT_TIMEOUT_S * 1000
            core.closer = threading.get_ident()
            core.is_closing = core.attention = True
            core.refusal = Closed("the consumer was closed when the process ended")
            try:
                core.commit_at_the_end(deadline)
                core.leave(deadline)
                core.close()
            except KafkaError as error:
                sys.stderr.write(f"ottla: when the process ended: {error}\n")


def _after_fork() -> None:
    for core in list(_CORES):
        core.refusal = Forked(
            "the consumer was made before a fork and cannot be used in the child",
            "Nothing was read.",
            ("Make a consumer of its own in the child.",),
        )
        core.is_closing = True  # what is to be closed is the parent's


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
