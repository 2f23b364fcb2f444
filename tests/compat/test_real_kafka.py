"""Our client against a real Apache Kafka, and its tools on what we wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla import Admin, Broker, Consumer, Producer
from ottla.errors.broker import TopicAlreadyExists
from tests.compat.peers import PRODUCERS, READERS
from tests.compat.test_round_trips import CODECS, records_of
from tests.kafka.real_kafka import KafkaJars, RealKafka, eventually


@pytest.mark.kafka
@pytest.mark.parametrize("producer", PRODUCERS)
def test_what_anybody_produces_to_a_real_kafka_we_read_and_the_other_way_round(
    producer: str, real_kafka: RealKafka
) -> None:
    topic = f"round-{producer}"
    expected = [record for codec in CODECS for record in records_of(codec)]
    with Admin(real_kafka.address) as admin:
        admin.create_topic(topic, 1)
    for codec in CODECS:
        PRODUCERS[producer](real_kafka.address, topic, records_of(codec), codec)
    readers = READERS if producer == "ottla" else {"ottla": READERS["ottla"]}
    for name, read in readers.items():
        assert read(real_kafka.address, topic, len(expected)) == expected, name


@pytest.mark.kafka
def test_the_admin_manages_topics_of_a_real_kafka(real_kafka: RealKafka) -> None:
    with Admin(real_kafka.address) as admin:
        admin.create_topic("managed", 2, configs={"retention.ms": "1000000"})
        with pytest.raises(TopicAlreadyExists):
            admin.create_topic("managed", 2)
        eventually(lambda: "managed" in admin.list_topics())  # the broker hears of it a bit later
        assert len(admin.describe_topic("managed").partitions) == 2
        assert admin.describe_configs("managed")["retention.ms"].value == "1000000"
        admin.alter_configs("managed", {"retention.ms": None})
        admin.create_partitions("managed", 3)
        admin.delete_topic("managed")


@pytest.mark.kafka
def test_keys_go_to_the_same_partitions_as_from_java_s_default(real_kafka: RealKafka) -> None:
    with Admin(real_kafka.address) as admin:
        admin.create_topic("keyed", 7)
    with Producer(real_kafka.address) as producer:
        ours = {
            key: producer.send("keyed", b"", key=key) for key in (b"", b"a", b"foobar", b"\xff")
        }
        producer.flush()
    with Consumer(real_kafka.address, "keyed", stop_at_end=True) as consumer:
        found = {record.key: record.partition for record in consumer}
    assert found == {key: delivery.partition for key, delivery in ours.items()}


@pytest.mark.kafka
def test_kafka_dump_log_reads_a_partition_that_we_wrote(
    kafka_jars: KafkaJars, tmp_path: Path
) -> None:
    with Broker(tmp_path / "store", settings={"log.segment.bytes": "1048576"}) as broker:
        address = broker.listen()
        with Admin(address) as admin:
            admin.create_topic("dumped", 1)
        for name, produce in PRODUCERS.items():
            for codec in CODECS:
                produce(address, "dumped", records_of(codec), codec)
                assert name
    folder = tmp_path / "store" / "dumped-0"
    count = len(PRODUCERS) * sum(len(records_of(codec)) for codec in CODECS)
    dump = kafka_jars.dump_log(folder)
    assert len(list(folder.glob("*.log"))) > 1
    assert dump.count("| offset: ") == count
