"""Other people's consumers and fetch sessions: who has one, and that nothing is missed in it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

import confluent_kafka
import kafka
import pytest

from ottla import Admin, Broker, Producer
from ottla.broker.fetch_sessions import FetchSession
from tests.kafka.real_kafka import KafkaJars

PATIENCE_S = 60
PARTITIONS = 30


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        broker.listen()
        with Admin(broker) as admin:
            admin.create_topic("t", PARTITIONS)
        yield broker


def sessions_of(broker: Broker) -> list[FetchSession]:
    with broker.engine.lock:
        return list(broker.engine.fetch_sessions._sessions.values())


def read_all(consumer: kafka.KafkaConsumer, expected: set[bytes]) -> Counter[bytes]:
    """Poll until all of it was read."""
    found: Counter[bytes] = Counter()
    deadline = time.monotonic() + PATIENCE_S
    while not expected <= found.keys() and time.monotonic() < deadline:
        for records in consumer.poll(100).values():
            found.update(each.value for each in records)
    return found


def test_kafka_python_reads_everything_in_one_session(broker: Broker) -> None:
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=broker.address, group_id=None, auto_offset_reset="earliest"
    )
    ids = set()
    with contextlib.closing(consumer), Producer(broker) as producer:
        consumer.assign([kafka.TopicPartition("t", number) for number in range(PARTITIONS)])
        for turn in range(20):
            values = {b"%d-%d" % (turn, number) for number in range(turn % 7 + 1)}
            for number, value in enumerate(sorted(values)):
                producer.send("t", value, partition=(turn * 11 + number) % PARTITIONS)
            producer.flush()
            assert read_all(consumer, values) == Counter(values)
            [session] = sessions_of(broker)
            ids.add(session.session_id)
    assert len(ids) == 1
    assert session.epoch >= 20  # one fetch for each turn, and the first makes the session
    assert len(session.partitions) == PARTITIONS


def test_kafka_python_goes_on_while_topics_change_and_sessions_are_lost(broker: Broker) -> None:
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=broker.address,
        group_id=None,
        auto_offset_reset="earliest",
        metadata_max_age_ms=500,
    )
    consumer.assign([kafka.TopicPartition("t", number) for number in range(PARTITIONS)])
    sent: set[bytes] = set()
    is_over = threading.Event()

    def disturb() -> None:
        number = 0
        with Producer(broker) as producer, Admin(broker) as admin:
            while not is_over.wait(0.02) and number < 200:
                value = b"%d" % number
                producer.send("t", value, partition=number % PARTITIONS)
                producer.flush()
                sent.add(value)
                if number % 20 == 5:
                    for session in sessions_of(broker):
                        with broker.engine.lock:
                            broker.engine.fetch_sessions.remove(session)
                if number % 50 == 7:
                    admin.create_topic(f"u{number}")
                    admin.delete_topic(f"u{number}")
                number += 1

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        found: Counter[bytes] = Counter()
        deadline = time.monotonic() + PATIENCE_S
        while (thread.is_alive() or sent - found.keys()) and time.monotonic() < deadline:
            for records in consumer.poll(100).values():
                found.update(each.value for each in records)
    finally:
        is_over.set()
        thread.join()
        consumer.close()
    assert found == Counter(sent)


def test_confluent_kafka_wants_no_session_and_has_none(broker: Broker) -> None:
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": broker.address, "group.id": "g", "auto.offset.reset": "earliest"}
    )
    consumer.assign([confluent_kafka.TopicPartition("t", number, 0) for number in range(3)])
    with Producer(broker) as producer:
        producer.send("t", b"a", partition=1)
    deadline = time.monotonic() + PATIENCE_S
    found = None
    while found is None and time.monotonic() < deadline:
        found = consumer.poll(0.5)
    assert found is not None
    assert found.value() == b"a"
    assert sessions_of(broker) == []
    consumer.close()


@pytest.mark.kafka
def test_kafka_s_own_consumer_reads_in_a_session(broker: Broker, kafka_jars: KafkaJars) -> None:
    seen: list[FetchSession] = []
    real = broker.engine.fetch_sessions.add

    def add(session: FetchSession) -> bool:
        seen.append(session)
        return real(session)

    broker.engine.fetch_sessions.add = add  # type: ignore[method-assign]  # to look at them
    with Producer(broker) as producer:
        for number in range(100):
            producer.send("t", b"%d" % number, partition=number % PARTITIONS)
    read = kafka_jars.run(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        "--bootstrap-server",
        broker.address,
        "--topic",
        "t",
        "--from-beginning",
        "--max-messages",
        "100",
    )
    assert {str(number) for number in range(100)} <= set(read.split())
    assert seen
    assert all(session.by_id for session in seen)
    assert sessions_of(broker) == []  # it closes them
