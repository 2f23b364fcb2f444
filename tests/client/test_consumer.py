"""The consumer, against a broker in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ottla import Admin, Broker, Consumer, KafkaConsumer, Producer, Record
from ottla.client.lookup import TopicPartition
from ottla.errors import ClientError, Closed, ConfigError, CorruptRecords
from ottla.errors.broker import OffsetOutOfRange, UnknownTopicOrPartition
from tests.client.damaged import damage_the_second_of_three

FIRST = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


def fill(broker: Broker, topic: str, count: int, partitions: int = 1) -> None:
    """Write records whose values are numbers, a second apart, to the partitions in turn."""
    with Admin(broker) as admin:
        admin.create_topic(topic, partitions)
    with Producer(broker) as producer:
        for number in range(count):
            stamp = int((FIRST + timedelta(seconds=number)).timestamp() * 1000)
            partition = number % partitions
            producer.send(topic, f"{number}", partition=partition, timestamp_ms=stamp)


def numbers(records: list[Record]) -> list[int]:
    return [int(record.value) for record in records]


def test_records_come_in_the_order_of_each_partition_and_stop_at_the_end(broker: Broker) -> None:
    fill(broker, "t", 100, partitions=3)
    with Consumer(broker, "t", stop_at_end=True) as consumer:
        records = list(consumer)
        assert {tuple(where): at for where, at in consumer.positions().items()} == {
            ("t", 0): 34,
            ("t", 1): 33,
            ("t", 2): 33,
        }
    assert sorted(numbers(records)) == list(range(100))
    for partition in range(3):
        own = [record for record in records if record.partition == partition]
        assert numbers(own) == list(range(partition, 100, 3))
        assert [record.offset for record in own] == list(range(len(own)))


def test_an_empty_topic_ends_at_once(broker: Broker) -> None:
    fill(broker, "t", 0, partitions=2)
    with Consumer(broker, "t", stop_at_end=True) as consumer:
        assert list(consumer) == []


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("beginning", [0, 1, 2, 3, 4]),
        ("end", []),
        (3, [3, 4]),
        (FIRST + timedelta(seconds=1, milliseconds=1), [2, 3, 4]),
        (FIRST - timedelta(days=1), [0, 1, 2, 3, 4]),
        (FIRST + timedelta(days=1), []),
    ],
)
def test_reading_begins_where_it_is_told(
    broker: Broker, start: str | int | datetime, expected: list[int]
) -> None:
    fill(broker, "t", 5)
    with Consumer(broker, "t", start=start, stop_at_end=True) as consumer:
        assert numbers(list(consumer)) == expected


@pytest.mark.parametrize("start", ["middle", -5, True, 1.5])
def test_what_is_no_start_is_refused(broker: Broker, start: object) -> None:
    with pytest.raises(ConfigError, match="neither"):
        Consumer(broker, "t", start=start)  # type: ignore[arg-type]  # what is wrong is the point


def test_poll_gives_what_is_there_and_no_more_than_asked_for(broker: Broker) -> None:
    fill(broker, "t", 10)
    with Consumer(broker, "t") as consumer:
        assert numbers(consumer.poll(10, max_records=4)) == [0, 1, 2, 3]
        assert consumer.position("t", 0) == 4
        assert numbers(consumer.poll(10)) == [4, 5, 6, 7, 8, 9]
        assert consumer.poll(0) == []


def test_polling_without_ever_waiting_reads_everything(broker: Broker) -> None:
    fill(broker, "t", 10)
    with Consumer(broker.listen(), "t") as consumer:
        found: list[Record] = []
        while len(found) < 10:
            found += consumer.poll(0)
    assert numbers(found) == list(range(10))


def test_seek_goes_to_offsets_ends_and_times(broker: Broker) -> None:
    fill(broker, "t", 10)
    with Consumer(broker, "t") as consumer:
        consumer.seek("t", 0, 7)
        assert numbers(consumer.poll(10)) == [7, 8, 9]
        consumer.seek("t", 0, "beginning")
        assert numbers(consumer.poll(10, 1)) == [0]
        consumer.seek("t", 0, FIRST + timedelta(seconds=5))
        assert numbers(consumer.poll(10, 1)) == [5]
        consumer.seek("t", 0, "end")
        assert consumer.position("t", 0) == 10
        with pytest.raises(ClientError, match="not assigned"):
            consumer.seek("other", 0, 0)


def test_offsets_and_times_can_be_asked_for(broker: Broker) -> None:
    fill(broker, "t", 10)
    where = TopicPartition("t", 0)
    with Admin(broker) as admin:
        admin.delete_records("t", 0, 3)
    with Consumer(broker, "t") as consumer:
        assert consumer.beginning_offsets() == {where: 3}
        assert consumer.end_offsets([("t", 0)]) == {where: 10}
        assert consumer.offsets_at({("t", 0): FIRST + timedelta(seconds=5)}) == {where: 5}
        assert consumer.offsets_at({("t", 0): FIRST + timedelta(days=1)}) == {where: None}
        assert consumer.partitions_for("t") == [0]
        assert consumer.partitions_for("nothing") == []
        assert numbers(consumer.poll(10)) == list(range(3, 10))


def test_single_partitions_can_be_assigned(broker: Broker) -> None:
    fill(broker, "t", 10, partitions=2)
    with Consumer(broker) as consumer:
        with pytest.raises(ClientError, match="nothing is assigned"):
            consumer.poll(0)
        consumer.assign([("t", 1)])
        assert numbers(consumer.poll(10)) == [1, 3, 5, 7, 9]
        assert consumer.assignment() == [TopicPartition("t", 1)]


def test_what_is_sent_while_a_consumer_waits_arrives(broker: Broker) -> None:
    fill(broker, "t", 0)
    with Consumer(broker, "t") as consumer, Producer(broker) as producer:
        assert consumer.poll(0.1) == []
        thread = threading.Thread(target=lambda: producer.send("t", b"1").result())
        thread.start()
        assert numbers(consumer.poll(30)) == [1]
        thread.join()


def test_iterating_waits_for_more_until_another_thread_closes(broker: Broker) -> None:
    fill(broker, "t", 3)
    consumer = Consumer(broker, "t")
    found: list[Record] = []
    enough = threading.Event()

    def read() -> None:
        for record in consumer:
            found.append(record)
            if len(found) == 3:
                enough.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert enough.wait(30)
    consumer.close()
    thread.join(30)
    assert not thread.is_alive()
    assert numbers(found) == [0, 1, 2]
    with pytest.raises(Closed):
        consumer.poll(0)


def test_partitions_that_are_added_are_read_from_their_beginning(broker: Broker) -> None:
    fill(broker, "t", 2)
    with (
        Admin(broker) as admin,
        Consumer(broker, "t", start="end", metadata_max_age_ms=1) as consumer,
    ):
        assert consumer.poll(0.05) == []
        admin.create_partitions("t", 2)
        with Producer(broker) as producer:
            producer.send("t", b"9", partition=1)
        found: list[Record] = []
        while not found:
            found = consumer.poll(0.05)
        assert [(int(record.value), record.partition) for record in found] == [(9, 1)]


def test_deserializers_make_values_of_bytes(broker: Broker) -> None:
    with Producer(broker, value_serializer=lambda value: b"%d" % value) as producer:
        producer.send("t", 5, key="k")
        producer.send("t", 6)
    with Consumer(
        broker, "t", stop_at_end=True, key_deserializer=bytes.decode, value_deserializer=int
    ) as consumer:
        assert [(record.key, record.value) for record in consumer] == [("k", 5), (None, 6)]


def test_the_names_that_people_know_take_topics_first(broker: Broker) -> None:
    fill(broker, "t", 2)
    consumer = KafkaConsumer("t", bootstrap_servers=broker.listen(), stop_at_end=True)
    assert numbers(list(consumer)) == [0, 1]
    consumer.close()


@pytest.mark.parametrize(("policy", "expected"), [("earliest", [3, 4]), ("latest", [])])
def test_a_position_that_is_gone_goes_where_the_policy_says(
    broker: Broker, policy: str, expected: list[int]
) -> None:
    fill(broker, "t", 5)
    with Admin(broker) as admin:
        admin.delete_records("t", 0, 3)
    with Consumer(broker, "t", start=1, auto_offset_reset=policy) as consumer:
        assert numbers(consumer.poll(0.2)) == expected


def test_a_position_that_is_gone_is_raised_where_that_is_wanted(broker: Broker) -> None:
    fill(broker, "t", 5)
    with Consumer(broker, "t", start=50, auto_offset_reset="none") as consumer:
        with pytest.raises(OffsetOutOfRange, match="no offset 50"):
            consumer.poll(30)
        consumer.seek("t", 0, 4)
        assert numbers(consumer.poll(30)) == [4]


def test_a_topic_or_partition_that_is_not_there_is_raised(broker: Broker) -> None:
    fill(broker, "t", 1)
    with Consumer(broker) as consumer:
        consumer.assign([("t", 5)])
        with pytest.raises(UnknownTopicOrPartition, match="no partition 5"):
            consumer.poll(30)


def test_two_threads_cannot_use_one_consumer_at_once(broker: Broker) -> None:
    fill(broker, "t", 0)
    with Consumer(broker, "t") as consumer:
        thread = threading.Thread(target=lambda: consumer.poll(30))
        thread.start()
        with pytest.raises(ClientError, match="another thread"):
            while True:
                consumer.poll(0)
        consumer.close()
        thread.join()


def test_a_damaged_batch_is_raised_with_its_place_and_can_be_passed(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        damage_the_second_of_three(broker, tmp_path)
        with Consumer(broker, "t") as consumer:
            assert numbers(consumer.poll(30)) == [0]
            for _ in range(2):
                with pytest.raises(CorruptRecords, match="t/0: the batch at offset 1 is damaged"):
                    consumer.poll(30)
            consumer.seek("t", 0, 2)
            assert numbers(consumer.poll(30)) == [2]


def test_a_consumer_lives_through_a_restart_of_its_broker(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    address = broker.listen()
    with Producer(address) as producer:
        producer.send("t", b"1")
    with Consumer(address, "t") as consumer:
        assert numbers(consumer.poll(30)) == [1]
        broker.close()
        assert consumer.poll(0.2) == []
        broker = Broker(tmp_path)
        host, _, port = address.rpartition(":")
        broker.listen(host, int(port))
        with Producer(address) as producer:
            producer.send("t", b"2")
        assert numbers(consumer.poll(30)) == [2]
    broker.close()


def test_when_a_record_was_fetched_can_be_traced(broker: Broker) -> None:
    fill(broker, "t", 3)
    with Consumer(broker, "t", stop_at_end=True, trace=True) as consumer:
        records = list(consumer)
        life = consumer.trace(records[1])
        assert (life.topic, life.partition, life.offset, life.value) == ("t", 0, 1, b"1")
        assert [event.name for event in life.events] == ["fetched"]
        assert "available to consumers" in life.text()
        with pytest.raises(ClientError, match="nothing is known"):
            consumer.trace(Record("t", 0, 77, 0))
    consumer = Consumer(broker, "t", stop_at_end=True)
    with consumer, pytest.raises(ClientError, match="nothing was recorded"):
        consumer.trace(next(iter(consumer)))
