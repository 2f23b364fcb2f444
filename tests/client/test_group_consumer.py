"""Members of groups: where they begin, how they share, and what happens when something fails."""

from __future__ import annotations

import contextlib
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ottla import Admin, Broker, Consumer
from ottla.client.fetcher import PartitionState
from ottla.client.lookup import TopicPartition
from ottla.client.node import Node
from ottla.embedded import EmbeddedNetwork
from ottla.errors import (
    CommitFailed,
    FencedMember,
    NoCommittedOffset,
)
from ottla.errors.broker import UnknownTopicOrPartition, UnreleasedInstanceId
from ottla.protocol.message import ApiMessage
from tests.client.grouped import (
    HEARTBEAT_MS,
    PATIENCE_S,
    QUICK_BROKER,
    QUICK_MEMBERS,
    SESSION_MS,
    T0,
    T1,
    create,
    fill,
    numbers,
    poll_until,
    read,
    share,
    write,
)


@pytest.fixture(params=["in memory", "over TCP"])
def address(request: pytest.FixtureRequest) -> Iterator[Any]:
    with Broker(settings=QUICK_BROKER) as broker:
        yield broker if request.param == "in memory" else broker.listen()


@pytest.fixture(params=["classic", "consumer"])
def quick(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings of a member of either protocol."""
    settings: dict[str, Any] = QUICK_MEMBERS[request.param]
    return settings


# -- where it begins, and goes on


def test_a_new_group_reads_everything_and_the_next_member_goes_on_behind_it(
    address: Any, quick: dict[str, Any]
) -> None:
    fill(address, 10)
    with Consumer(address, "t", group="g", **quick) as consumer:
        assert read(consumer, 10) == list(range(10))
        assert consumer.assignment() == [T0, T1]
    write(address, [10, 11])
    with Consumer(address, "t", group="g", **quick, stop_at_end=True) as consumer:
        assert numbers(list(consumer)) == [10, 11]
    with Consumer(address, "t", group="h", **quick, stop_at_end=True) as consumer:
        assert numbers(list(consumer)) == list(range(12))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"start": "end"}, []),
        ({"auto_offset_reset": "latest"}, []),
        ({"start": 2, "auto_offset_reset": "latest"}, [4, 5, 6, 7, 8, 9]),
        ({}, list(range(10))),
    ],
)
def test_where_nothing_is_committed_it_begins_as_it_is_told(
    address: Any, settings: dict[str, Any], expected: list[int], quick: dict[str, Any]
) -> None:
    fill(address, 10)
    with Consumer(address, "t", group="g", **quick, stop_at_end=True, **settings) as consumer:
        assert numbers(list(consumer)) == expected
    with Consumer(address, "t", group="g", **quick, start=1, stop_at_end=True) as consumer:
        assert list(consumer) == [], "where it began is committed, and counts from then on"


def test_nothing_committed_and_nothing_chosen_is_raised_until_somebody_chooses(
    address: Any,
    quick: dict[str, Any],
) -> None:
    fill(address, 10)
    with Consumer(address, "t", group="g", **quick, auto_offset_reset="none") as consumer:
        for _ in range(2):
            with pytest.raises(NoCommittedOffset, match="t/0, t/1") as caught:
                consumer.poll(PATIENCE_S)
            assert sorted(caught.value.partitions) == [T0, T1]
        consumer.seek("t", 0, 0)
        consumer.seek("t", 1, 3)
        assert read(consumer, 7) == [0, 2, 4, 6, 7, 8, 9]


def test_a_committed_offset_that_is_gone_is_logged_with_how_many_records_are(
    address: Any, caplog: pytest.LogCaptureFixture, quick: dict[str, Any]
) -> None:
    fill(address, 10)
    with Consumer(address, "t", group="g", **quick) as consumer:
        consumer.poll(PATIENCE_S)
        consumer.commit({T0: 1, T1: 1})
        consumer.seek("t", 0, 1)
        consumer.seek("t", 1, 1)
    with Admin(address) as admin:
        admin.delete_records("t", 0, 4)
    with caplog.at_level(logging.WARNING), Consumer(address, "t", group="g", **quick) as consumer:
        assert read(consumer, 5) == [3, 5, 7, 8, 9]
    assert "t/0 has no offset 1: reading goes on at 4" in caplog.text
    assert "the 3 before it can be read no more" in caplog.text


def test_partitions_that_a_topic_is_given_are_read_from_their_beginning(
    address: Any, quick: dict[str, Any]
) -> None:
    create(address)
    settings: dict[str, Any] = {"start": "end", "metadata_max_age_ms": 50}
    with Consumer(address, "t", group="g", **quick, **settings) as consumer:
        share(consumer)
        with Admin(address) as admin:
            admin.create_partitions("t", 4)
        write(address, [2, 3], partitions=4)
        assert read(consumer, 2) == [2, 3]


def test_topics_that_match_are_found_also_when_they_are_made_later(
    address: Any, quick: dict[str, Any]
) -> None:
    fill(address, 2, "a-1")
    fill(address, 2, "b-1")
    with Consumer(address, group="g", **quick, metadata_max_age_ms=50) as consumer:
        consumer.subscribe(re.compile(r"^a-\d$"))
        assert read(consumer, 2) == [0, 1]
        fill(address, 3, "a-2")
        assert read(consumer, 3) == [0, 1, 2]
        assert {where.topic for where in consumer.assignment()} == {"a-1", "a-2"}
        with Admin(address) as admin:
            admin.delete_topic("a-1")
        poll_until(lambda: {where.topic for where in consumer.assignment()} == {"a-2"}, consumer)


def test_a_pattern_without_a_group_reads_all_topics_that_match(address: Any) -> None:
    fill(address, 2, "a-1")
    fill(address, 3, "b-1")
    with Consumer(address, stop_at_end=True) as consumer:
        consumer.subscribe(re.compile("^a"))
        assert numbers(consumer.poll(PATIENCE_S)) == [0, 1]


# -- sharing


def test_members_share_and_a_newcomer_takes_only_its_part(
    address: Any, quick: dict[str, Any]
) -> None:
    fill(address, 0, partitions=4)
    told: list[tuple[str, str, list[int]]] = []

    def tell(who: str, what: str) -> Callable[..., None]:
        def note(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            told.append((who, what, [each.partition for each in partitions]))

        return note

    def member(who: str) -> Consumer:
        consumer = Consumer(address, group="g", **quick)
        consumer.subscribe("t", on_assigned=tell(who, "assigned"), on_revoked=tell(who, "revoked"))
        return consumer

    with member("a") as a, member("b") as b:
        share(a, partitions=4)
        share(a, b, partitions=4)
        assert told == [
            ("a", "assigned", [0, 1, 2, 3]),
            ("a", "revoked", [2, 3]),
            ("b", "assigned", [2, 3]),
        ]
        b.close()
        share(a, partitions=4)
        assert told[3:] == [("b", "revoked", [2, 3]), ("a", "assigned", [2, 3])]


def test_a_member_that_goes_without_a_word_is_missed_and_what_it_had_is_read_again(
    address: Any,
    quick: dict[str, Any],
) -> None:
    fill(address, 100)
    a = Consumer(address, "t", group="g", **quick, enable_auto_commit=False)
    with Consumer(address, "t", group="g", **quick) as b:
        share(a, b)
        [where] = a.assignment()
        a.commit({where: 10})
        a._core.is_closing = True  # as if its process had been killed
        a._core.close()
        found = share(b)
        while len(of_a := [each for each in found if each % 2 == where.partition]) < 40:
            found += numbers(b.poll(1))
        assert of_a == list(range(where.partition, 100, 2))[10:]
        assert b.position(*where) == 50


def test_heartbeats_keep_a_member_whose_user_is_busy(
    address: Any, quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(address, 4)
    with Consumer(address, "t", group="g", **quick) as a:
        read(a, 4)
        assert a._core.group is not None
        membership = a._core.group.membership
        answers: list[object] = []
        has_outlived_a_session = threading.Event()
        take = membership.answered

        def count(request: ApiMessage, response: ApiMessage, now: float) -> None:
            take(request, response, now)
            answers.append(response)
            if len(answers) > SESSION_MS / HEARTBEAT_MS:
                has_outlived_a_session.set()

        monkeypatch.setattr(membership, "answered", count)
        assert has_outlived_a_session.wait(PATIENCE_S), "the user polls nothing meanwhile"
        assert a.commit() == {T0: 2, T1: 2}


def test_a_member_that_does_not_poll_leaves_and_its_commit_fails_with_the_cause(
    address: Any, caplog: pytest.LogCaptureFixture, quick: dict[str, Any]
) -> None:
    fill(address, 4)
    lost: list[list[TopicPartition]] = []
    with Consumer(address, group="g", **quick, max_poll_interval_ms=300) as slow:
        slow.subscribe("t", on_lost=lambda consumer, partitions: lost.append(partitions))
        read(slow, 4)
        with caplog.at_level(logging.WARNING), Consumer(address, "t", group="g", **quick) as other:
            found = share(other)
            found += read(other, 4 - len(found))
            assert found == [0, 1, 2, 3], "nothing of it was committed"
            with pytest.raises(CommitFailed, match="max_poll_interval_ms"):
                slow.commit()
        assert "leaves group 'g'" in caplog.text
        poll_until(lambda: lost == [[T0, T1]] and len(slow.assignment()) == 2, slow)


def test_a_second_member_with_one_static_id_takes_the_place_of_the_first(address: Any) -> None:
    fill(address, 4)
    quick = QUICK_MEMBERS["classic"]
    settings: dict[str, Any] = {"group": "g", **quick, "group_instance_id": "one"}
    with Consumer(address, "t", **settings) as first:
        read(first, 4)
        with Consumer(address, "t", **settings) as second:
            share(second)
            with pytest.raises(FencedMember, match="'one'"):
                poll_until(lambda: False, first)
            with pytest.raises(FencedMember):
                first.poll(0)
            with pytest.raises(FencedMember):
                first.commit({T0: 1})
            assert second.commit({T0: 2}) == {T0: 2}


def test_a_second_member_with_one_static_id_waits_for_the_first_in_the_consumer_protocol(
    address: Any,
) -> None:
    fill(address, 4)
    settings: dict[str, Any] = {"group": "g", "group_instance_id": "one"}
    with Consumer(address, "t", **settings, **QUICK_MEMBERS["consumer"]) as first:
        read(first, 4)
        with Consumer(address, "t", **settings, **QUICK_MEMBERS["consumer"]) as second:
            for _ in range(2):
                with pytest.raises(UnreleasedInstanceId, match="'one'"):
                    second.poll(PATIENCE_S)
            assert first.commit() == {T0: 2, T1: 2}
            assert first.poll(0) == []
            first.close()
            found: list[TopicPartition] = []
            while found != [T0, T1]:
                with contextlib.suppress(UnreleasedInstanceId):
                    second.poll(1)
                found = second.assignment()


def test_a_static_member_that_starts_again_in_time_has_its_partitions_at_once(
    address: Any,
    quick: dict[str, Any],
) -> None:
    create(address)
    revoked: list[object] = []
    static: dict[str, Any] = {"group_instance_id": "one"}
    with Consumer(address, group="g", **quick) as other:
        other.subscribe("t", on_revoked=lambda consumer, partitions: revoked.append(partitions))
        with Consumer(address, "t", group="g", **quick, **static) as one:
            share(one, other)
            mine = one.assignment()
        revoked.clear()
        with Consumer(address, "t", group="g", **quick, **static) as again:
            share(again, other)
            assert again.assignment() == mine
        assert revoked == []


# -- failures


def test_answers_that_are_there_at_once_do_not_keep_a_commit_from_being_stored(
    monkeypatch: pytest.MonkeyPatch,
    quick: dict[str, Any],
) -> None:
    with Broker(settings=QUICK_BROKER) as broker:
        fill(broker, 10, partitions=1)
        with Consumer(broker, "t", group="g", **quick) as consumer:
            consumer.poll(PATIENCE_S, 1)
            core = consumer._core
            network, step = core.network, core.step
            assert isinstance(network, EmbeddedNetwork)

            def step_with_an_answer() -> float | None:
                network.post(lambda: None)
                return step()

            monkeypatch.setattr(core, "step", step_with_an_answer)
            assert consumer.commit(timeout=PATIENCE_S) == {T0: 1}


def test_a_member_whose_user_is_busy_does_not_fetch_over_and_over(
    monkeypatch: pytest.MonkeyPatch,
    quick: dict[str, Any],
) -> None:
    with Broker(settings=QUICK_BROKER) as broker:
        fill(broker, 10, partitions=1)
        with Consumer(broker, "t", group="g", **quick) as consumer:
            consumer.poll(PATIENCE_S, 1)
            fetched: list[object] = []
            fetch = consumer._fetcher._fetch

            def counted(node: Node, states: list[PartitionState]) -> None:
                fetched.append(node)
                fetch(node, states)

            monkeypatch.setattr(consumer._fetcher, "_fetch", counted)
            consumer._driver.run_until(lambda: False, 0.5)
            assert 1 <= len(fetched) < 15


def test_a_topic_that_is_deleted_is_told_and_others_go_on(
    address: Any, quick: dict[str, Any]
) -> None:
    fill(address, 2)
    fill(address, 2, "u")
    with Consumer(address, "t", "u", group="g", **quick, metadata_max_age_ms=50) as consumer:
        read(consumer, 4)
        with Admin(address) as admin:
            admin.delete_topic("t")
        with pytest.raises(UnknownTopicOrPartition, match="there is no topic 't'"):
            consumer.poll(PATIENCE_S)
        write(address, [2, 3], "u")
        found: list[int] = []
        while len(found) < 2:
            try:
                found += numbers(consumer.poll(1))
            except UnknownTopicOrPartition:
                continue
        assert found == [2, 3]


def test_a_group_lives_through_a_restart_of_its_coordinator(
    tmp_path: Path, quick: dict[str, Any]
) -> None:
    # Nobody is to be missed here, on a machine that is slow either.
    settings = QUICK_BROKER | {"group.consumer.session.timeout.ms": f"{PATIENCE_S * 1000}"}
    if "session_timeout_ms" in quick:
        quick = quick | {"session_timeout_ms": PATIENCE_S * 1000}
    broker = Broker(tmp_path, settings=settings)
    address = broker.listen()
    fill(address, 4)
    a = Consumer(address, "t", group="g", **quick)
    b = Consumer(address, "t", group="g", **quick)
    share(a, b)
    for first in range(4, 20, 4):
        broker.close()
        if first % 8:
            a.poll(0.3)
        broker = Broker(tmp_path, settings=settings)
        host, _, port = address.rpartition(":")
        broker.listen(host, int(port))
        write(address, range(first, first + 4))
        missing = set(range(first, first + 4))
        while missing:
            missing -= set(numbers(a.poll(0.05) + b.poll(0.05)))
    a.close()
    b.close()
    with Consumer(address, "t", group="g", **quick, stop_at_end=True) as consumer:
        assert list(consumer) == [], "everything is committed"
    broker.close()


def test_ctrl_c_ends_an_iterator_and_the_group_is_left(quick: dict[str, Any]) -> None:
    with Broker(settings=QUICK_BROKER) as broker:
        address = broker.listen()
        fill(address, 2)
        code = (
            "import sys, ottla\n"
            "with ottla.Consumer(\n"
            "    sys.argv[1], 't', group='g', group_protocol=sys.argv[2]\n"
            ") as consumer:\n"
            "    for record in consumer:\n"
            "        print(record.value, flush=True)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, address, quick["group_protocol"]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert sorted(process.stdout.readline() for _ in range(2)) == ["b'0'\n", "b'1'\n"]
            process.send_signal(2)
            _, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
        assert "KeyboardInterrupt" in errors
        with Consumer(address, "t", group="g", **quick) as other:
            share(other)
