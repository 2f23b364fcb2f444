"""Our consumer in one group with other people's: whoever leads, all is read, by one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from ottla import Admin, Consumer, Producer
from tests.compat.crowd import PATIENCE_S, Crowd, Writer, committed
from tests.compat.serving import Serving
from tests.compat.test_groups import PARTITIONS
from tests.kafka.real_kafka import RealKafka

OTHERS = ["confluent-kafka", "confluent-kafka-cooperative", "kafka-python", "aiokafka"]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with Serving(tmp_path / "store", "--set", "group.min.session.timeout.ms=1000") as serving:
        admin = AdminClient({"bootstrap.servers": serving.address})
        admin.create_topics([NewTopic("g", PARTITIONS)])["g"].result(PATIENCE_S)
        yield serving


@pytest.mark.slow
@pytest.mark.parametrize("first", ["ottla", "the other"])
@pytest.mark.parametrize("other", OTHERS)
def test_we_share_a_group_with_another_client_whoever_leads(
    serving: Serving, other: str, first: str
) -> None:
    writer = Writer(serving.address, "g", PARTITIONS)
    crowd = Crowd("ottla", serving.address, "g", PARTITIONS)
    clients = ("ottla", other) if first == "ottla" else (other, "ottla")

    def all_is_read() -> None:
        writer.write()
        crowd.wait("reading everything", lambda: crowd.read >= writer.written)

    try:
        crowd.start(client=clients[0])
        crowd.wait_until_shared()
        all_is_read()
        crowd.start(client=clients[1])
        crowd.wait_until_shared()
        all_is_read()
        crowd.start(client="ottla")
        crowd.wait_until_shared()
        all_is_read()
        crowd.kill_one()
        crowd.wait_until_shared()
        all_is_read()
    finally:
        crowd.stop()
    assert (
        committed(serving.address, "g", PARTITIONS)
        == [len(writer.written) // PARTITIONS] * PARTITIONS
    )


def test_offsets_that_others_commit_are_ours_and_the_other_way_round(serving: Serving) -> None:
    with Producer(serving.address) as producer:
        for number in range(10):
            producer.send("g", f"{number}", partition=0)
    theirs = confluent_kafka.Consumer(
        {"bootstrap.servers": serving.address, "group.id": "g", "enable.auto.commit": False}
    )
    offset = confluent_kafka.TopicPartition("g", 0, 4, metadata="a note")
    theirs.commit(offsets=[offset], asynchronous=False)
    with Consumer(serving.address, "g", group="g", stop_at_end=True) as consumer:
        assert [int(record.value) for record in consumer] == [4, 5, 6, 7, 8, 9]
    [found] = theirs.committed([confluent_kafka.TopicPartition("g", 0)], PATIENCE_S)
    assert found.offset == 10
    theirs.close()


@pytest.mark.kafka
def test_a_group_of_a_real_kafka_is_joined_shared_and_left(real_kafka: RealKafka) -> None:
    address = real_kafka.address
    with Admin(address) as admin:
        admin.create_topic("grouped", 4)
    with Producer(address) as producer:
        for number in range(100):
            producer.send("grouped", f"{number}", partition=number % 4)
    settings: dict[str, Any] = {"group": "ours", "heartbeat_interval_ms": 200}
    revoked: list[object] = []
    with Consumer(address, **settings) as a, Consumer(address, "grouped", **settings) as b:
        a.subscribe("grouped", on_revoked=lambda consumer, partitions: revoked.extend(partitions))
        found: list[int] = []
        while len(found) < 100:
            found += [int(record.value) for record in a.poll(1)]
        while not len(a.assignment()) == len(b.assignment()) == 2:
            assert a.poll(0.1) == b.poll(0.1) == []
        assert len(revoked) == 2
        b.close()
        while len(a.assignment()) < 4:
            assert a.poll(0.1) == []
        assert sorted(a.committed().values(), key=str) == [25] * 4
    assert sorted(found) == list(range(100))
    static: dict[str, Any] = {"group": "ours", "group_instance_id": "one", "stop_at_end": True}
    for _ in range(2):
        with Consumer(address, "grouped", **static) as consumer:
            assert list(consumer) == []
            assert len(consumer.assignment()) == 4


@pytest.mark.kafka
@pytest.mark.parametrize("assignor", ["range", "roundrobin", "cooperative-sticky"])
def test_a_group_of_a_real_kafka_is_shared_with_confluent_kafka(
    real_kafka: RealKafka, assignor: str
) -> None:
    address, topic, group = real_kafka.address, f"mixed-{assignor}", f"mixed-{assignor}"
    with Admin(address) as admin:
        admin.create_topic(topic, 4)
    theirs = confluent_kafka.Consumer(
        {
            "bootstrap.servers": address,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "heartbeat.interval.ms": 200,
            "partition.assignment.strategy": assignor,
        }
    )
    theirs.subscribe([topic])
    settings: dict[str, Any] = {
        "heartbeat_interval_ms": 200,
        "partition_assignment_strategy": (assignor,),
    }
    with Consumer(address, topic, group=group, **settings) as ours:
        while not len(ours.assignment()) == len(theirs.assignment()) == 2:
            ours.poll(0.1)
            theirs.poll(0.1)
        with Producer(address) as producer:
            for number in range(100):
                producer.send(topic, f"{number}", partition=number % 4)
        found: list[int] = []
        while len(found) < 100:
            found += [int(record.value) for record in ours.poll(0.1)]
            found += [int(each.value() or b"") for each in theirs.consume(100, 0.1)]
    theirs.close()
    assert sorted(found) == list(range(100))
