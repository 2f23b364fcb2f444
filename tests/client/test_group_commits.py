"""What members of groups commit and when, how they are stopped, and what poison does."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ottla import Broker, Consumer, Producer
from ottla.client.lookup import TopicPartition
from ottla.client.offsets import OffsetAndMetadata
from ottla.client.poison import dead_letters
from ottla.errors import (
    ClientError,
    Closed,
    CommitFailed,
    ConfigError,
    DeserializationFailed,
    Timeout,
    WokenUp,
)
from tests.client.grouped import (
    HEARTBEAT_MS,
    PATIENCE_S,
    QUICK,
    T0,
    T1,
    committed_by,
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
    settings = {"group.consumer.heartbeat.interval.ms": str(HEARTBEAT_MS)}
    with Broker(settings=settings) as broker:
        yield broker if request.param == "in memory" else broker.listen()


@pytest.fixture(params=["classic", "consumer"])
def member(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings of a member of either protocol that learns of a rebalance soon."""
    settings: dict[str, Any] = {"group_protocol": request.param}
    if request.param == "classic":
        settings["heartbeat_interval_ms"] = HEARTBEAT_MS
    return settings


# -- commits


def test_a_poll_commits_what_was_given_before_it_and_no_more(
    address: Any, member: dict[str, Any]
) -> None:
    fill(address, 10, partitions=1)
    where = TopicPartition("t", 0)
    with Consumer(address, "t", group="g", **member, auto_commit_interval_ms=1) as consumer:
        assert numbers(consumer.poll(PATIENCE_S, 3)) == [0, 1, 2]
        assert poll_committed(consumer)[where] == 0
        assert numbers(consumer.poll(PATIENCE_S, 3)) == [3, 4, 5]
        assert poll_committed(consumer)[where] == 3
        assert consumer.commit()[where] == 6, "what is committed by hand is what was given"
        assert consumer.lag() == {where: 4}


def poll_committed(consumer: Consumer) -> dict[TopicPartition, int | None]:
    """Return what is committed when a commit that is due has been made."""
    core = consumer._core
    with core.driver.held():
        core._next_commit_ms = 0
    core.driver.run_until(
        lambda: (
            core._next_commit_ms > 0 and core._auto_commit is not None and core._auto_commit.is_done
        ),
        PATIENCE_S,
    )
    return consumer.committed()


def test_an_iterator_commits_what_was_given_before_the_record_at_hand(
    address: Any, member: dict[str, Any]
) -> None:
    fill(address, 10, partitions=1)
    where = TopicPartition("t", 0)
    with pytest.raises(ZeroDivisionError), Consumer(address, "t", group="g", **member) as consumer:
        for record in consumer:
            if record.offset == 4:
                assert poll_committed(consumer)[where] == 4
                assert consumer.commit() == {where: 5}
                consumer.commit({where: 4})
                assert consumer.position("t", 0) == 5
            if record.offset == 6:
                raise ZeroDivisionError
    assert committed_by(address)[T0] == 6, "the record at hand was not finished"
    with Consumer(address, "t", group="g", **member) as consumer:
        for record in consumer:
            if record.offset == 8:
                break
        assert [each.offset for each in consumer.poll(PATIENCE_S)] == [9], "nothing was passed over"
        consumer.seek("t", 0, 9)
    assert committed_by(address)[T0] == 9


def test_records_offsets_and_notes_can_be_committed(address: Any, member: dict[str, Any]) -> None:
    fill(address, 10)
    with Consumer(address, "t", group="g", **member, enable_auto_commit=False) as consumer:
        records = consumer.poll(PATIENCE_S)
        while len(records) < 10:
            records += consumer.poll(PATIENCE_S)
        assert consumer.commit(records[0]) == {(records[0].topic, records[0].partition): 1}
        assert consumer.commit(records[:10]) == {T0: 5, T1: 5}
        noted = {T0: OffsetAndMetadata(3, "a note"), T1: OffsetAndMetadata(2)}
        assert consumer.commit(noted) == {T0: 3, T1: 2}
        assert consumer.committed() == {T0: 3, T1: 2}
        assert consumer.committed([("t", 0), ("t", 7)]) == {T0: 3, ("t", 7): None}
        for wrong in ({T0: -1}, {T0: True}, {T0: "1"}):
            with pytest.raises(ConfigError):
                consumer.commit(wrong)  # type: ignore[arg-type]  # what is wrong is the point
        with pytest.raises(CommitFailed, match="u/0"):
            consumer.commit({("u", 0): 1})
    assert committed_by(address) == {T0: 3, T1: 2}, "nothing goes by itself"


def test_commits_that_are_not_waited_for_are_stored_in_order_and_told_in_a_poll(
    address: Any,
    member: dict[str, Any],
) -> None:
    fill(address, 2)
    told: list[tuple[dict[TopicPartition, int], object]] = []
    with Consumer(address, "t", group="g", **member, enable_auto_commit=False) as consumer:
        read(consumer, 2)
        for offset in range(5):
            consumer.commit_async({T0: offset}, lambda *outcome: told.append(outcome))
        consumer.commit_async({("u", 0): 1}, lambda *outcome: told.append(outcome))
        poll_until(lambda: len(told) == 6, consumer)
        assert consumer.committed()[T0] == 4
    assert [offsets[T0] for offsets, error in told if error is None] == [0, 1, 2, 3, 4]
    assert [type(error) for _, error in told if error is not None] == [CommitFailed]


def test_what_is_revoked_can_be_committed_by_its_listener_and_not_afterwards(
    address: Any,
    member: dict[str, Any],
) -> None:
    fill(address, 20)
    revoked: list[TopicPartition] = []

    def on_revoked(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.commit(dict.fromkeys(partitions, 7))
        revoked.extend(partitions)

    with Consumer(address, group="g", **member, enable_auto_commit=False) as a:
        a.subscribe("t", on_revoked=on_revoked)
        read(a, 20)
        with Consumer(address, "t", group="g", **member, enable_auto_commit=False) as b:
            found = share(a, b)
            assert len(revoked) == 1
            found += read(b, 3 - len(found))
            assert len(found) == 3
            with pytest.raises(CommitFailed, match="not assigned to this member") as caught:
                a.commit({revoked[0]: 20})
            assert caught.value.partitions == (revoked[0],)
            assert b.committed() == {revoked[0]: 7}


def test_without_a_group_there_is_nothing_to_commit_to(address: Any) -> None:
    create(address)
    with Consumer(address, "t") as consumer:
        with pytest.raises(ClientError, match="needs a group"):
            consumer.commit()
        with pytest.raises(ClientError, match="needs a group"):
            consumer.committed()


def test_partitions_assigned_by_hand_use_the_group_s_offsets_while_it_has_no_members(
    address: Any,
    member: dict[str, Any],
) -> None:
    fill(address, 10)
    with Consumer(address, group="g", **member) as consumer:
        consumer.assign([T1])
        assert read(consumer, 5) == [1, 3, 5, 7, 9]
    assert committed_by(address) == {T0: None, T1: 5}
    with (
        Consumer(address, "t", group="g", **member) as subscribed,
        Consumer(address, group="g", **member) as other,
    ):
        assert read(subscribed, 5) == [0, 2, 4, 6, 8]
        other.assign([T0])
        with pytest.raises(CommitFailed, match="the group has members"):
            other.commit({T0: 1})


# -- pause, wake up, close


def test_a_paused_partition_stays_assigned_and_gives_nothing(
    address: Any, member: dict[str, Any]
) -> None:
    fill(address, 6)
    with Consumer(address, "t", group="g", **member) as consumer:
        assert len(consumer.poll(PATIENCE_S, 1)) == 1
        consumer.seek("t", 0, 0)
        consumer.seek("t", 1, 0)
        consumer.pause(("t", 0))
        assert consumer.paused() == [T0]
        assert read(consumer, 3) == [1, 3, 5]
        assert consumer.poll(0.05) == []
        consumer.resume()
        assert read(consumer, 3) == [0, 2, 4]
        with pytest.raises(ClientError, match="not assigned"):
            consumer.pause(("t", 9))


def test_pausing_inside_of_an_iterator_holds_back_what_lies_here(
    address: Any, member: dict[str, Any]
) -> None:
    fill(address, 6)
    with Consumer(address, "t", group="g", **member, stop_at_end=True) as consumer:
        found = []
        for record in consumer:
            found.append((record.partition, record.offset))
            if len(found) == 1:
                consumer.pause(("t", record.partition))
            if len(found) == 4:
                consumer.resume()
    first = found[0][0]
    assert found == [(first, 0), *((1 - first, each) for each in range(3)), (first, 1), (first, 2)]


def test_wakeup_ends_a_poll_and_an_iterator_with_an_error_and_nothing_is_passed_over(
    address: Any,
    member: dict[str, Any],
) -> None:
    fill(address, 4)
    with Consumer(address, "t", group="g", **member) as consumer:
        consumer.wakeup()
        with pytest.raises(WokenUp):
            consumer.poll(PATIENCE_S)
        found = read(consumer, 4)
        thread = threading.Thread(target=consumer.wakeup)
        with pytest.raises(WokenUp):
            thread.start()
            for record in consumer:
                raise AssertionError(record)
        thread.join()
        write(address, [4])
        assert found + read(consumer, 1) == [0, 1, 2, 3, 4]


def test_close_in_another_thread_ends_an_iterator_and_leaves_the_group(
    address: Any, member: dict[str, Any]
) -> None:
    fill(address, 3)
    consumer = Consumer(address, "t", group="g", **member)
    enough = threading.Event()
    found: list[int] = []

    def run() -> None:
        for record in consumer:
            found.append(int(record.value))
            if len(found) == 3:
                enough.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert enough.wait(PATIENCE_S)
    consumer.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    with pytest.raises(Closed):
        consumer.poll(0)
    consumer.close()
    with Consumer(address, "t", group="g", **member) as other:
        share(other)
    assert sorted(found) == [0, 1, 2]


def test_a_consumer_that_nobody_holds_leaves_its_group(
    address: Any, member: dict[str, Any]
) -> None:
    create(address)
    consumer = Consumer(address, "t", group="g", **member)
    share(consumer)
    del consumer
    gc.collect()
    with Consumer(address, "t", group="g", **member) as other:
        share(other)


def test_close_is_bounded_when_the_coordinator_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    with Broker() as broker:
        fill(broker, 2)
        consumer = Consumer(broker.listen(), "t", group="g")
        read(consumer, 2)
    with pytest.raises(Timeout):
        consumer.commit(timeout=0.2)
    with caplog.at_level(logging.WARNING):
        consumer.close(timeout=0.2)
    assert "closed before the commit for t/0, t/1 was confirmed" in caplog.text


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_process_that_ends_leaves_the_groups_of_consumers_that_it_did_not_close(
    tmp_path: Path,
) -> None:
    settings = {"group.min.session.timeout.ms": "100"}
    with Broker(tmp_path, settings=settings) as broker:
        fill(broker, 4)
        code = (
            "import sys, ottla\n"
            "consumer = ottla.Consumer(sys.argv[1], 't', group='g', session_timeout_ms=600000)\n"
            "assert consumer.poll(30, 1) and consumer.poll(30, 1)\n"
        )
        run_python(code, broker.listen())
        with Consumer(broker, "t", group="g", **QUICK) as other:
            assert len(read(other, 3)) == 3, "only the first record was finished with"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_member_cannot_be_used_after_a_fork_and_the_parent_s_goes_on(tmp_path: Path) -> None:
    with Producer(tmp_path) as producer:
        producer.send("t", b"1")
    code = (
        "import os, sys, warnings, ottla, ottla.errors\n"
        "warnings.simplefilter('ignore')\n"
        "consumer = ottla.Consumer(sys.argv[1], 't', group='g')\n"
        "consumer.poll(30)\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        consumer.poll(30)\n"
        "    except ottla.errors.Forked:\n"
        "        print('forked', flush=True)\n"
        "    del consumer\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(consumer.commit())\n"
    )
    assert run_python(code, str(tmp_path)).splitlines() == [
        "forked",
        "{TopicPartition(topic='t', partition=0): 1}",
    ]


# -- poison


def integer(data: bytes) -> int:
    return int(data)


def poisoned(address: object) -> None:
    create(address, partitions=1)
    with Producer(address) as producer:
        for value in ("0", "1", "poison", "3", "poison", "5"):
            producer.send("t", value, "key")


def test_a_record_that_cannot_be_read_is_raised_once_and_passed(
    address: Any, member: dict[str, Any]
) -> None:
    poisoned(address)
    with Consumer(address, "t", group="g", **member, value_deserializer=integer) as consumer:
        found: list[int] = []
        failed: list[DeserializationFailed] = []
        while len(found) < 4:
            assert len(failed) <= 2, "the position does not move"
            try:
                found += [record.value for record in consumer.poll(PATIENCE_S)]
            except DeserializationFailed as error:
                failed.append(error)
        assert found == [0, 1, 3, 5]
        assert [each.record.offset for each in failed] == [2, 4]
        assert failed[0].record.value == b"poison"
        assert "t/0: the value of the record at offset 2 cannot be deserialized" in str(failed[0])
    assert committed_by(address)[T0] == 6
    with Consumer(address, "t", group="h", **member, value_deserializer=integer) as consumer:
        found = []
        while len(found) < 4:
            assert len(failed) <= 4, "the position does not move"
            try:
                for record in consumer:
                    found.append(record.value)
                    if record.value == 5:
                        break
            except DeserializationFailed as error:
                failed.append(error)
        assert found == [0, 1, 3, 5]
        assert [each.record.offset for each in failed[2:]] == [2, 4]


def test_records_that_cannot_be_read_can_be_left_out(
    address: Any, member: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    poisoned(address)
    settings: dict[str, Any] = {"value_deserializer": integer, "on_poison": "skip"}
    with Consumer(address, "t", group="g", **member, stop_at_end=True, **settings) as consumer:
        assert [record.value for record in consumer] == [0, 1, 3, 5]
    assert caplog.text.count("cannot be deserialized") == 2


def test_records_that_cannot_be_read_can_be_stored_elsewhere_as_they_are(
    address: Any, member: dict[str, Any]
) -> None:
    poisoned(address)
    with Producer(address) as producer:
        settings: dict[str, Any] = {"on_poison": dead_letters(producer, "dead")}
        with Consumer(
            address,
            "t",
            group="g",
            **member,
            stop_at_end=True,
            value_deserializer=integer,
            **settings,
        ) as consumer:
            assert [record.value for record in consumer] == [0, 1, 3, 5]
    with Consumer(address, "dead", stop_at_end=True) as consumer:
        dead = list(consumer)
    assert [(each.key, each.value) for each in dead] == [(b"key", b"poison")] * 2
    assert dict(dead[0].headers)["ottla.offset"] == b"2"
