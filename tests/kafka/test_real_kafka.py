"""The real Kafka that other tests compare with: it starts, works, and its tools read segments."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.kafka.real_kafka import KafkaJars, NoKafka, RealKafka

SEGMENTS = Path(__file__).parents[1] / "data" / "segments"


@pytest.mark.kafka
def test_a_record_comes_back_from_a_topic_of_a_real_kafka(real_kafka: RealKafka) -> None:
    admin = AdminClient({"bootstrap.servers": real_kafka.address})
    admin.create_topics([NewTopic("topic1", 1, 1)])["topic1"].result(timeout=30)
    producer = Producer({"bootstrap.servers": real_kafka.address})
    producer.produce("topic1", b"Hello Kafka", partition=0)
    assert producer.flush(30) == 0

    consumer = Consumer({"bootstrap.servers": real_kafka.address, "group.id": "g"})
    consumer.assign([TopicPartition("topic1", 0, 0)])
    message = consumer.poll(30)
    consumer.close()

    assert message is not None
    assert message.value() == b"Hello Kafka"


@pytest.mark.kafka
def test_its_dump_log_reads_segments_and_says_what_does_not_fit(
    kafka_jars: KafkaJars, tmp_path: Path
) -> None:
    folder = tmp_path / "gold-0"
    shutil.copytree(SEGMENTS / "gold-0", folder)

    assert "baseOffset: 0 lastOffset: " in kafka_jars.dump_log(folder)

    log = folder / "00000000000000000000.log"
    damaged = bytearray(log.read_bytes())
    damaged[70] ^= 0xFF
    log.write_bytes(damaged)
    with pytest.raises(AssertionError, match="isvalid: false"):
        kafka_jars.dump_log(folder)


def test_a_folder_without_jars_is_refused_with_how_to_fetch_them(tmp_path: Path) -> None:
    with pytest.raises(NoKafka, match=r"mvn .* dependency:copy-dependencies"):
        KafkaJars.find(str(tmp_path))
