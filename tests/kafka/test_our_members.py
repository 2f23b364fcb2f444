"""Our members of consumer groups on a real Kafka: they die, come back, and are in a tool's way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ottla import Admin, Consumer, Producer
from ottla.cli.main import main
from ottla.client.lookup import TopicPartition
from tests.compat.crowd import Crowd, Writer, committed
from tests.compat.member import HEARTBEAT_MS, SESSION_MS
from tests.kafka.real_kafka import KafkaJars, RealKafka, eventually

PARTITIONS = 4
_CONSUMER: dict[str, Any] = {"group_protocol": "consumer"}
_SETTINGS = {
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": f"{SESSION_MS}",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": f"{HEARTBEAT_MS}",
}


@pytest.fixture(scope="module")
def kafka(kafka_jars: KafkaJars, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealKafka]:
    """A Kafka that misses members soon."""
    running = RealKafka(kafka_jars, tmp_path_factory.mktemp("quick"), _SETTINGS)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def create(address: str, topic: str) -> None:
    with Admin(address) as admin:
        admin.create_topic(topic, PARTITIONS)


@pytest.mark.kafka
@pytest.mark.parametrize("client", ["ottla", "ottla-consumer-protocol"])
def test_what_a_killed_member_had_is_taken_over_and_nothing_is_skipped(
    kafka: RealKafka, client: str
) -> None:
    topic = f"killed-{client}"
    create(kafka.address, topic)
    writer = Writer(kafka.address, topic, PARTITIONS)
    crowd = Crowd(client, kafka.address, topic, PARTITIONS)
    try:
        crowd.start(2)
        crowd.wait_until_shared()
        writer.write()
        crowd.wait("reading everything", lambda: crowd.read >= writer.written)
        crowd.kill_one()
        writer.write()
        crowd.wait_until_shared()
        crowd.wait("reading everything", lambda: crowd.read >= writer.written)
    finally:
        crowd.stop()
    each = len(writer.written) // PARTITIONS
    assert committed(kafka.address, topic, PARTITIONS) == [each] * PARTITIONS


@pytest.mark.kafka
def test_a_static_member_comes_back_to_its_own_and_the_others_do_not_notice(
    kafka: RealKafka,
) -> None:
    create(kafka.address, "static")
    changes: list[list[TopicPartition]] = []

    def note(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        changes.append(partitions)

    static = {**_CONSUMER, "group": "static", "group_instance_id": "one"}
    with Consumer(kafka.address, group="static", **_CONSUMER) as other:
        other.subscribe("static", on_assigned=note, on_revoked=note)
        first = Consumer(kafka.address, "static", **static)
        while not len(first.assignment()) == len(other.assignment()) == PARTITIONS // 2:
            first.poll(0.1)
            other.poll(0.1)
        had = first.assignment()
        first.close()
        changes.clear()
        with Consumer(kafka.address, "static", **static) as again:
            while again.assignment() != had:
                again.poll(0.1)
                other.poll(0.1)
            with Producer(kafka.address) as producer:
                for number in range(PARTITIONS):
                    producer.send("static", f"{number}", partition=number)
            found: set[int] = set()
            while len(found) < PARTITIONS:
                found |= {record.partition for record in other.poll(0.1) + again.poll(0.1)}
        assert changes == []


@pytest.mark.kafka
def test_a_static_leader_that_comes_back_to_a_topic_that_has_grown_assigns_what_is_new(
    kafka: RealKafka,
) -> None:
    create(kafka.address, "grown")
    static: dict[str, Any] = {
        "group": "grown",
        "group_instance_id": "one",
        "group_protocol": "classic",
    }
    with Consumer(kafka.address, "grown", **static) as first:
        while len(first.assignment()) < PARTITIONS:
            first.poll(0.1)
    with Admin(kafka.address) as admin:
        admin.create_partitions("grown", PARTITIONS + 1)
        eventually(lambda: len(admin.describe_topic("grown").partitions) == PARTITIONS + 1)
    with Consumer(kafka.address, "grown", **static) as again:
        eventually(lambda: bool(again.poll(0.1) or len(again.assignment()) == PARTITIONS + 1))


@pytest.mark.kafka
def test_a_group_is_neither_reset_nor_deleted_while_our_members_live(
    kafka: RealKafka, capfd: pytest.CaptureFixture[str]
) -> None:
    create(kafka.address, "managed")

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as caught:
            main(["groups", *arguments, "--yes", "-b", kafka.address])
        assert isinstance(caught.value.code, int)
        return caught.value.code

    with Producer(kafka.address) as producer:
        for number in range(2 * PARTITIONS):
            producer.send("managed", f"{number}", partition=number % PARTITIONS)
    with Consumer(kafka.address, "managed", group="managed", **_CONSUMER) as consumer:
        found = 0
        while found < 2 * PARTITIONS:
            found += len(consumer.poll(0.1))
        consumer.commit()
        assert run("reset", "managed", "--to-beginning") == 5
        assert "has 1 member" in capfd.readouterr().err
        assert run("delete", "managed") != 0
        assert "has 1 member" in capfd.readouterr().err
        assert committed(kafka.address, "managed", PARTITIONS) == [2] * PARTITIONS
    assert run("reset", "managed", "--to-beginning") == 0
    assert committed(kafka.address, "managed", PARTITIONS) == [0] * PARTITIONS
    assert run("delete", "managed") == 0
    with Admin(kafka.address) as admin:
        assert "managed" not in {each.group_id for each in admin.list_groups()}
