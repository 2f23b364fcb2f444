"""Other people's admin clients: topics, partitions, configs and records."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import aiokafka.admin
import kafka.admin
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewPartitions, NewTopic

from ottla import Admin, Broker, Producer

TIMEOUT_S = 30


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        broker.listen()
        yield broker


def test_confluent_kafka_manages_topics(broker: Broker) -> None:
    admin = AdminClient({"bootstrap.servers": broker.address})
    new = NewTopic("t", num_partitions=2, replication_factor=1, config={"retention.ms": "5000"})
    admin.create_topics([new])["t"].result(TIMEOUT_S)
    admin.create_partitions([NewPartitions("t", 3)])["t"].result(TIMEOUT_S)
    assert len(admin.list_topics(timeout=TIMEOUT_S).topics["t"].partitions) == 3
    resource = ConfigResource(ResourceType.TOPIC, "t")
    configs = admin.describe_configs([resource])[resource].result(TIMEOUT_S)
    assert configs["retention.ms"].value == "5000"
    assert configs["cleanup.policy"].value == "delete"
    assert configs["retention.ms"].synonyms
    change = ConfigEntry("retention.ms", "6000", incremental_operation=AlterConfigOpType.SET)
    altered = ConfigResource(ResourceType.TOPIC, "t", incremental_configs=[change])
    admin.incremental_alter_configs([altered])[altered].result(TIMEOUT_S)
    configs = admin.describe_configs([resource])[resource].result(TIMEOUT_S)
    assert configs["retention.ms"].value == "6000"
    with Producer(broker) as producer:
        for _ in range(5):
            producer.send("t", b"x", partition=0)
    where = TopicPartition("t", 0, 3)
    deleted = admin.delete_records([where])[where].result(TIMEOUT_S)
    assert deleted.low_watermark == 3
    cluster = admin.describe_cluster().result(TIMEOUT_S)
    assert [node.port for node in cluster.nodes] == [int(broker.address.rpartition(":")[2])]
    admin.delete_topics(["t"])["t"].result(TIMEOUT_S)
    with Admin(broker) as own:
        assert own.list_topics() == []


def test_kafka_python_manages_topics(broker: Broker) -> None:
    admin = kafka.admin.KafkaAdminClient(bootstrap_servers=broker.address)
    try:
        new = kafka.admin.NewTopic(name="t", num_partitions=2, replication_factor=1)
        admin.create_topics([new])
        assert admin.list_topics() == ["t"]
        admin.create_partitions({"t": kafka.admin.NewPartitions(total_count=3)})
        [described] = admin.describe_topics(["t"])
        assert len(described["partitions"]) == 3
        admin.delete_topics(["t"])
        assert admin.list_topics() == []
    finally:
        admin.close()


def test_aiokafka_manages_topics(broker: Broker) -> None:
    async def run() -> None:
        admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=broker.address)
        await admin.start()
        try:
            new = aiokafka.admin.NewTopic(name="t", num_partitions=2, replication_factor=1)
            await admin.create_topics([new])
            assert await admin.list_topics() == ["t"]
            await admin.create_partitions({"t": aiokafka.admin.NewPartitions(total_count=3)})
            [described] = await admin.describe_topics(["t"])
            assert len(described["partitions"]) == 3
            await admin.delete_topics(["t"])
            assert await admin.list_topics() == []
        finally:
            await admin.close()

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_S))
