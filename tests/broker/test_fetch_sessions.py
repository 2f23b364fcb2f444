"""Fetch sessions: what is remembered, what is told, when one ends, and who gets a place."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ottla.broker.fetch_sessions import (
    EVICTION_MS,
    FetchSession,
    FetchSessions,
    SessionPartition,
    next_epoch,
)
from ottla.clock import ManualClock
from ottla.errors import codes
from ottla.protocol.messages.api_01_fetch import FetchRequest, FetchResponse
from ottla.records.batch import iterate_headers
from tests.broker.asking import Asking, batch_of_values, produce_request
from tests.broker.sessions import FIRST_VERSION_WITH_IDS, SessionConsumer, Told, Where

P0, P1, P2 = ("t", 0), ("t", 1), ("t", 2)
VERSIONS = (7, 12, 13, 18)


def broker(partitions: int = 3, slots: int = 1000) -> Asking:
    asking = Asking(max_incremental_fetch_session_cache_slots=f"{slots}")
    asking.create("t", partitions)
    return asking


def put(asking: Asking, where: Where, count: int = 1) -> None:
    for _ in range(count):
        asking.produce(where[0], batch_of_values(b"x" * 100), partition=where[1])


def offsets(told: FetchResponse.PartitionData) -> list[int]:
    return [header.base_offset for header in iterate_headers(told.records or b"")]


def begun(asking: Asking, version: int = 12) -> SessionConsumer:
    """Return a consumer whose session knows three partitions, and everything of them."""
    consumer = SessionConsumer(asking, version)
    assert set(consumer.fetch({P0: 0, P1: 0, P2: 0})) == {P0, P1, P2}
    assert consumer.session_id > 0
    return consumer


# -- what is told


@pytest.mark.parametrize("version", VERSIONS)
def test_the_first_fetch_tells_of_everything_and_the_next_of_nothing(version: int) -> None:
    consumer = begun(broker(), version)
    assert consumer.fetch() == {}
    assert consumer.fetch() == {}
    assert consumer.epoch == 3


@pytest.mark.parametrize("version", VERSIONS)
def test_only_what_has_records_is_told_from_the_offset_that_is_remembered(version: int) -> None:
    asking = broker()
    consumer = begun(asking, version)
    put(asking, P1)
    told = consumer.fetch()
    assert list(told) == [P1]
    assert (offsets(told[P1]), told[P1].high_watermark) == ([0], 1)
    put(asking, P1)
    told = consumer.fetch({P1: 1})
    assert offsets(told[P1]) == [1]
    assert consumer.fetch({P1: 2}) == {}


def test_records_that_are_not_taken_are_given_again() -> None:
    asking = broker()
    consumer = begun(asking)
    put(asking, P1)
    assert offsets(consumer.fetch()[P1]) == [0]
    assert offsets(consumer.fetch()[P1]) == [0]
    assert consumer.fetch({P1: 1}) == {}


def test_a_high_watermark_that_moves_is_told_without_records() -> None:
    asking = broker()
    consumer = begun(asking)
    asking.ask_nowait(produce_request("t", batch_of_values(b"a"), partition=1), 12)
    told = consumer.fetch_nowait({P1: 1})  # to be read from where nothing is durable yet
    assert consumer.take(told) == {}
    asking.sync()
    told = consumer.fetch()
    assert list(told) == [P1]
    assert (told[P1].high_watermark, offsets(told[P1])) == (1, [])
    assert consumer.fetch() == {}


def test_a_log_start_that_moves_is_told_without_records() -> None:
    asking = broker()
    put(asking, P2, 3)
    consumer = SessionConsumer(asking)
    consumer.fetch({P0: 0, P2: 3})
    log = asking.engine.log_of("t", 2)
    assert log is not None
    log.move_start(2)
    told = consumer.fetch()
    assert list(told) == [P2]
    assert told[P2].log_start_offset == 2
    assert consumer.fetch() == {}


def test_an_offset_that_falls_out_of_the_log_is_told_until_another_is_named() -> None:
    asking = broker()
    put(asking, P2, 3)
    consumer = SessionConsumer(asking)
    consumer.fetch({P0: 0, P2: 1}, max_bytes=0)
    log = asking.engine.log_of("t", 2)
    assert log is not None
    log.move_start(2)
    for _ in range(2):
        assert consumer.fetch()[P2].error_code == codes.OFFSET_OUT_OF_RANGE
    assert offsets(consumer.fetch({P2: 2})[P2]) == [2]


def test_what_there_was_no_room_for_is_told_by_the_next_fetches_in_turn() -> None:
    asking = broker()
    consumer = begun(asking)
    for where in (P0, P1, P2):
        put(asking, where, 2)
    at = {P0: 0, P1: 0, P2: 0}
    read: list[tuple[int, int]] = []
    named: dict[Where, int] = {}
    for _ in range(6):
        told = consumer.fetch(named, max_bytes=10)
        [(where, part)] = [(each, part) for each, part in told.items() if part.records]
        read += [(where[1], offset) for offset in offsets(part)]
        at[where] += 1
        named = {where: at[where]}
    assert read == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    assert consumer.fetch(named) == {}


def test_partitions_are_forgotten_and_named_again() -> None:
    asking = broker()
    consumer = begun(asking)
    assert consumer.fetch(forget=[P1, ("t", 9), ("u", 0)]) == {}
    put(asking, P1)
    assert consumer.fetch() == {}
    assert offsets(consumer.fetch({P1: 0})[P1]) == [0]
    assert list(consumer.session.partitions) == [P0, P2, P1]


def test_a_partition_that_is_named_anew_is_told_though_nothing_has_changed() -> None:
    consumer = SessionConsumer(broker())
    consumer.fetch({P0: 0})
    assert list(consumer.fetch({P1: 0})) == [P1]
    assert consumer.fetch() == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_an_error_is_told_until_it_is_gone_and_then_how_things_are(version: int) -> None:
    asking = broker()
    consumer = begun(asking, version)
    extra = ("t", 3)
    assert consumer.fetch({extra: 0})[extra].error_code == codes.UNKNOWN_TOPIC_OR_PARTITION
    assert list(consumer.fetch()) == [extra]
    asking.engine.create_partitions(asking.engine.cluster.topics["t"], 4)
    told = consumer.fetch()
    assert list(told) == [extra]
    assert (told[extra].error_code, told[extra].high_watermark) == (codes.NONE, 0)
    assert consumer.fetch() == {}


def test_a_fetch_looks_at_what_has_changed_and_at_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asking = broker(50)
    consumer = SessionConsumer(asking)
    consumer.fetch({("t", number): 0 for number in range(50)})
    looked: list[int] = []
    real = asking.engine.log_of

    def log_of(topic: str, partition: int) -> Any:
        looked.append(partition)
        return real(topic, partition)

    put(asking, ("t", 7))
    monkeypatch.setattr(asking.engine, "log_of", log_of)
    assert list(consumer.fetch()) == [("t", 7)]
    assert list(consumer.fetch({("t", 7): 1, ("t", 8): 0})) == []
    assert consumer.fetch() == {}
    assert looked == [7, 7, 8]


# -- topics that go and come


@pytest.mark.parametrize("version", [13, 18])
def test_a_topic_that_is_made_anew_is_not_the_one_of_the_session_by_id(version: int) -> None:
    asking = broker()
    put(asking, P0, 2)
    consumer = SessionConsumer(asking, version)
    consumer.fetch({P0: 2, P1: 0})
    asking.engine.delete_topic(asking.engine.cluster.topics["t"])
    asking.create("t", 3)
    put(asking, P0, 5)
    for _ in range(2):
        told = consumer.fetch()
        assert {part.error_code for part in told.values()} == {codes.UNKNOWN_TOPIC_ID}
        assert set(told) == {P0, P1}


@pytest.mark.parametrize("looks_between", [False, True])
def test_a_topic_that_is_made_anew_under_its_name_is_told_as_gone_before_it_is_read(
    looks_between: bool,
) -> None:
    asking = broker()
    put(asking, P0, 2)
    consumer = SessionConsumer(asking)
    consumer.fetch({P0: 2, P1: 0})
    asking.engine.delete_topic(asking.engine.cluster.topics["t"])
    if looks_between:
        told = consumer.fetch()
        assert told[P0].error_code == codes.UNKNOWN_TOPIC_OR_PARTITION
    asking.create("t", 3)
    put(asking, P0, 5)
    told = consumer.fetch()
    assert set(told) == {P0, P1}
    assert {part.error_code for part in told.values()} == {codes.UNKNOWN_TOPIC_OR_PARTITION}
    told = consumer.fetch({P0: 0})
    assert offsets(told[P0]) == [0, 1, 2, 3, 4]
    assert (told[P1].high_watermark, told[P1].error_code) == (0, codes.NONE)


def test_a_deleted_topic_s_log_is_let_go_by_a_session_that_nobody_uses() -> None:
    asking = broker()
    consumer = begun(asking)
    session = consumer.session
    asking.engine.delete_topic(asking.engine.cluster.topics["t"])
    assert [each.log for each in session.partitions.values()] == [None, None, None]


# -- waiting


def test_it_waits_for_records_and_wakes_when_they_are_durable() -> None:
    asking = broker()
    consumer = begun(asking)
    reply = consumer.fetch_nowait(min_bytes=1, max_wait_ms=500)
    asking.ask_nowait(produce_request("t", batch_of_values(b"a"), partition=2), 12)
    assert not reply.is_done
    asking.sync()
    told = consumer.take(reply)
    assert list(told) == [P2]
    assert offsets(told[P2]) == [0]


def test_what_was_written_before_a_session_s_fetch_came_wakes_it() -> None:
    asking = broker()
    consumer = begun(asking)
    asking.ask_nowait(produce_request("t", batch_of_values(b"a"), partition=2), 12)
    reply = consumer.fetch_nowait(min_bytes=1, max_wait_ms=500)
    assert not reply.is_done
    asking.sync()
    assert offsets(consumer.take(reply)[P2]) == [0]


def test_it_waits_until_there_is_enough_over_all_its_partitions() -> None:
    asking = broker()
    consumer = begun(asking)
    size = len(batch_of_values(b"x" * 100))
    reply = consumer.fetch_nowait(min_bytes=3 * size, max_wait_ms=500)
    for where in (P0, P1):
        put(asking, where)
        assert not reply.is_done
    put(asking, P0)
    told = consumer.take(reply)
    assert {where: offsets(part) for where, part in told.items()} == {P0: [0, 1], P1: [0]}


@pytest.mark.parametrize("is_first", [True, False])
def test_it_waits_no_longer_than_asked_for(is_first: bool) -> None:
    asking = broker()
    consumer = SessionConsumer(asking) if is_first else begun(asking)
    named = {P0: 0, P1: 0} if is_first else {}
    reply = consumer.fetch_nowait(named, min_bytes=100, max_wait_ms=500)
    asking.clock.advance(499)
    asking.engine.expire(asking.clock.monotonic_ms())
    assert not reply.is_done
    asking.clock.advance(1)
    asking.engine.expire(asking.clock.monotonic_ms())
    assert set(consumer.take(reply)) == set(named)
    assert consumer.fetch() == {}


def test_the_first_fetch_waits_too_and_tells_of_everything() -> None:
    asking = broker()
    consumer = SessionConsumer(asking)
    reply = consumer.fetch_nowait({P0: 0, P1: 0}, min_bytes=1, max_wait_ms=500)
    assert not reply.is_done
    put(asking, P1)
    told = consumer.take(reply)
    assert {where: offsets(part) for where, part in told.items()} == {P0: [], P1: [0]}
    assert consumer.fetch({P1: 1}) == {}


@pytest.mark.parametrize("version", [12, 13])
def test_a_topic_that_is_deleted_while_a_session_waits_is_told(version: int) -> None:
    asking = broker()
    consumer = begun(asking, version)
    reply = consumer.fetch_nowait(min_bytes=1, max_wait_ms=500)
    asking.engine.delete_topic(asking.engine.cluster.topics["t"])
    told = consumer.take(reply)
    assert told[P0].error_code in (codes.UNKNOWN_TOPIC_ID, codes.UNKNOWN_TOPIC_OR_PARTITION)
    assert set(consumer.fetch()) == {P0, P1, P2}


def test_an_offset_that_falls_out_of_the_log_meanwhile_is_told_at_once() -> None:
    asking = broker()
    put(asking, P2, 3)
    consumer = SessionConsumer(asking)
    consumer.fetch({P2: 1}, max_bytes=0)
    reply = consumer.fetch_nowait(min_bytes=100_000, max_wait_ms=500)
    assert not reply.is_done
    log = asking.engine.log_of("t", 2)
    assert log is not None
    log.move_start(2)
    assert consumer.take(reply)[P2].error_code == codes.OFFSET_OUT_OF_RANGE


def test_a_fetch_that_waits_is_answered_when_its_session_goes_on_without_it() -> None:
    asking = broker()
    consumer = begun(asking)
    reply = consumer.fetch_nowait(min_bytes=1, max_wait_ms=500)
    consumer.epoch += 1
    assert consumer.fetch() == {}
    assert reply.response.error_code == codes.INVALID_FETCH_SESSION_EPOCH
    put(asking, P0)
    assert list(consumer.fetch()) == [P0]


def test_a_fetch_that_waits_is_answered_when_its_session_is_closed() -> None:
    asking = broker()
    consumer = begun(asking)
    reply = consumer.fetch_nowait(min_bytes=1, max_wait_ms=500)
    consumer.epoch = -1
    consumer.fetch()
    assert reply.response.error_code == codes.FETCH_SESSION_ID_NOT_FOUND


def test_a_fetch_that_waits_is_answered_when_the_broker_stops() -> None:
    asking = broker()
    consumer = begun(asking)
    reply = consumer.fetch_nowait(min_bytes=1, max_wait_ms=500)
    asking.engine.close()
    assert reply.is_done


# -- ids and epochs


@pytest.mark.parametrize("version", VERSIONS)
def test_an_epoch_that_does_not_follow_is_refused_and_changes_nothing(version: int) -> None:
    asking = broker()
    consumer = begun(asking, version)
    put(asking, P0)
    good = consumer.epoch
    for bad in (good + 1, good + 5, good - 5, -7):
        consumer.epoch = bad
        assert consumer.error(named={P1: 7}) == codes.INVALID_FETCH_SESSION_EPOCH
    consumer.epoch = good
    assert list(consumer.fetch()) == [P0]
    consumer.epoch = good  # the same one once more
    assert consumer.error() == codes.INVALID_FETCH_SESSION_EPOCH


def test_epochs_begin_again_with_1() -> None:
    consumer = begun(broker())
    consumer.session.epoch = consumer.epoch = 2**31 - 1
    assert consumer.fetch() == {}
    assert consumer.epoch == 1
    assert consumer.fetch() == {}
    assert next_epoch(0) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_an_id_that_there_is_not_is_told(version: int) -> None:
    consumer = begun(broker(), version)
    consumer.session_id ^= 1
    assert consumer.error() == codes.FETCH_SESSION_ID_NOT_FOUND
    consumer.session_id = 0
    assert consumer.error() == codes.FETCH_SESSION_ID_NOT_FOUND


def test_a_session_is_by_name_or_by_id_and_not_both() -> None:
    asking = broker()
    consumer = begun(asking, 12)
    newer = SessionConsumer(asking, 13)
    newer.session_id, newer.epoch = consumer.session_id, consumer.epoch
    assert newer.error() == codes.FETCH_SESSION_TOPIC_ID_ERROR
    assert consumer.fetch() == {}


def test_epoch_0_with_an_id_ends_that_session_and_begins_another() -> None:
    asking = broker()
    consumer = begun(asking)
    old = consumer.session
    consumer.epoch = 0
    assert set(consumer.fetch({P0: 0, P1: 0})) == {P0, P1}
    assert consumer.session is not old
    assert len(asking.engine.fetch_sessions) == 1
    assert all(each.log is None for each in old.partitions.values())


def test_epoch_minus_1_with_an_id_ends_the_session() -> None:
    asking = broker()
    consumer = begun(asking)
    consumer.epoch = -1
    assert set(consumer.fetch({P0: 0})) == {P0}
    assert consumer.session_id == 0
    assert len(asking.engine.fetch_sessions) == 0
    log = asking.engine.log_of("t", 1)
    assert log is not None
    assert not log._watchers


def test_a_session_of_which_everything_is_forgotten_is_over() -> None:
    asking = broker()
    consumer = begun(asking)
    old_id = consumer.session_id
    assert consumer.fetch(forget=[P0, P1, P2]) == {}
    assert (consumer.session_id, len(asking.engine.fetch_sessions)) == (0, 0)
    consumer.session_id, consumer.epoch = old_id, 2
    assert consumer.error() == codes.FETCH_SESSION_ID_NOT_FOUND
    consumer.session_id = consumer.epoch = 0
    assert consumer.fetch() == {}
    assert consumer.session_id == 0


def test_who_wants_no_session_gets_none() -> None:
    asking = broker()
    for version in (4, 6, 7, 18):
        request = SessionConsumer(asking).request({P0: 0})
        request.session_epoch = -1
        response = asking.ask(request, version)
        assert (response.session_id, len(response.responses)) == (0, 1)
    assert len(asking.engine.fetch_sessions) == 0


# -- the cache


@pytest.mark.parametrize("slots", [0, 2])
def test_who_gets_no_place_is_served_without_a_session(slots: int) -> None:
    asking = broker(slots=slots)
    consumers = [begun(asking) for _ in range(slots)]
    late = SessionConsumer(asking)
    put(asking, P0)
    assert offsets(late.fetch({P0: 0, P1: 0})[P0]) == [0]
    assert late.session_id == 0
    assert len(asking.engine.fetch_sessions) == slots
    for consumer in consumers:
        assert list(consumer.fetch()) == [P0]


def session_of(size: int) -> FetchSession:
    session = FetchSession(by_id=False)
    for number in range(size):
        key = ("t", number)
        session.partitions[key] = SessionPartition(session, key, FetchRequest.FetchPartition())
    return session


def test_one_that_was_silent_for_long_makes_room_for_anybody() -> None:
    clock = ManualClock()
    cache = FetchSessions(2, clock)
    silent, used = session_of(100), session_of(100)
    assert cache.add(silent)
    assert cache.add(used)
    clock.advance(EVICTION_MS)
    cache.touch(used)
    assert not cache.add(session_of(1))
    clock.advance(1)
    new = session_of(1)
    assert cache.add(new)
    assert cache.get(silent.session_id) is None
    assert cache.get(used.session_id) is used
    assert len(cache) == 2


def test_a_larger_one_takes_the_place_of_the_smallest_that_had_its_time() -> None:
    clock = ManualClock()
    cache = FetchSessions(3, clock)
    sessions = [session_of(size) for size in (5, 3, 4)]
    for session in sessions:
        assert cache.add(session)
    assert not cache.add(session_of(1000))
    clock.advance(EVICTION_MS + 1)
    for session in sessions:
        cache.touch(session)
    assert not cache.add(session_of(3))
    assert cache.add(session_of(4))
    assert cache.get(sessions[1].session_id) is None
    assert not cache.add(session_of(4))


def test_ids_are_never_given_twice() -> None:
    ids = iter([7, 7, 7, 9])
    cache = FetchSessions(2, ManualClock(), lambda: next(ids))
    assert cache.add(session_of(1))
    second = session_of(1)
    assert cache.add(second)
    assert second.session_id == 9


def test_an_empty_session_gets_no_place() -> None:
    cache = FetchSessions(2, ManualClock())
    assert not cache.add(session_of(0))


# -- against fetches without a session


def summary(part: FetchResponse.PartitionData) -> tuple[int, int, int, int]:
    return (
        part.error_code,
        part.high_watermark,
        part.last_stable_offset,
        part.log_start_offset,
    )


class Random:
    """A consumer whose session is compared with what a fetch without one tells."""

    def __init__(self, seed: int, version: int) -> None:
        self.chance = random.Random(seed)
        self.asking = broker(4)
        self.asking.create("u", 2)
        self.consumer = SessionConsumer(self.asking, version)
        self.version = version
        self.at: dict[Where, int] = {}
        self.known: dict[Where, tuple[int, int, int, int]] = {}

    def change(self) -> None:
        """Do something to the topics."""
        engine, chance = self.asking.engine, self.chance
        topic = chance.choice(["t", "u"])
        known = engine.cluster.topics.get(topic)
        what = chance.choice(["put"] * 6 + ["write", "sync", "start", "delete", "create", "more"])
        partition = chance.randrange(known.partitions) if known is not None else 0
        batch = batch_of_values(b"x" * chance.randrange(300))
        if known is None:
            if what in ("create", "put"):
                self.asking.create(topic, chance.randrange(1, 4))
        elif what == "put":
            self.asking.produce(topic, batch, partition=partition)
        elif what == "write":
            self.asking.ask_nowait(produce_request(topic, batch, partition=partition), 12)
        elif what == "sync":
            self.asking.sync()
        elif what == "start":
            log = engine.log_of(topic, partition)
            assert log is not None
            log.move_start(chance.randint(log.log_start_offset, log.high_watermark))
        elif what == "delete" and chance.random() < 0.3:
            engine.delete_topic(known)
        elif what == "more" and known.partitions < 6:
            engine.create_partitions(known, known.partitions + 1)

    def fetch(self) -> None:
        """Fetch, in the session and without, and compare."""
        chance = self.chance
        everything = [(topic, number) for topic in ("t", "u") for number in range(6)]
        named = {
            where: self.at.get(where, 0) if chance.random() < 0.7 else chance.randrange(4)
            for where in chance.sample(everything, chance.randrange(4))
        }
        forget = [each for each in chance.sample(everything, 1) if each not in named]
        if chance.random() < 0.05:
            self.consumer.epoch = 0
            self.at.clear()
            self.known.clear()
            forget = []
        is_full = self.consumer.epoch == 0
        if is_full and not named:
            return
        self.at.update(named)
        for where in forget:
            self.at.pop(where, None)
            self.known.pop(where, None)
        max_bytes = chance.choice([1, 500, 1 << 20])
        told = self.consumer.take(self.consumer.fetch_nowait(named, forget, max_bytes=max_bytes))
        if self.consumer.session_id:
            self.compare(told, is_full=is_full)
        else:
            assert not self.at
        for where, part in told.items():
            read = offsets(part)
            if read and chance.random() < 0.8:
                self.at[where] = read[-1] + 1
                self.known[where] = summary(part)
                again = self.consumer.fetch_nowait({where: self.at[where]})
                self.compare(self.consumer.take(again), is_full=False)

    def compare(self, told: Told, *, is_full: bool) -> None:
        plain = SessionConsumer(self.asking, self.version)
        plain._ids = self.consumer._ids
        plain.epoch = -1
        expected = plain.take(plain.fetch_nowait(self.at))
        assert told.keys() <= expected.keys()
        assert not is_full or told.keys() == expected.keys()
        for where, part in told.items():
            self.known[where] = summary(part)
        anew: set[Where] = set()  # told once as not there, since its topic was made anew
        if self.version < FIRST_VERSION_WITH_IDS:
            unknown = codes.UNKNOWN_TOPIC_OR_PARTITION
            anew = {where for where, part in told.items() if part.error_code == unknown}
        for where, part in expected.items():
            if where in anew:
                continue
            assert self.known[where] == summary(part), where
            if part.error_code != codes.NONE:
                assert where in told
        has_records = any(part.records for where, part in expected.items() if where not in anew)
        assert has_records == any(part.records for part in told.values())


@pytest.mark.parametrize("version", [12, 18])
@pytest.mark.parametrize("seed", range(15))
def test_whatever_happens_a_session_s_consumer_knows_what_others_are_told(
    seed: int, version: int
) -> None:
    run = Random(seed, version)
    for _ in range(150):
        for _ in range(run.chance.randrange(4)):
            run.change()
        run.fetch()
