"""Other people's tools for groups: list, describe, reset and delete; and static members."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import aiokafka
import aiokafka.admin
import confluent_kafka
import kafka
import kafka.admin
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from ottla import Broker, Producer
from ottla.coordinator.group.classic import ClassicGroup
from tests.kafka.real_kafka import KafkaJars

TIMEOUT_S = 30
COMMAND = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(settings={"group.min.session.timeout.ms": "1000"}) as broker:
        broker.listen()
        admin = AdminClient({"bootstrap.servers": broker.address})
        admin.create_topics([NewTopic("t", 2)])["t"].result(TIMEOUT_S)
        with Producer(broker) as producer:
            for number in range(20):
                producer.send("t", b"%d" % number, partition=number % 2)
        yield broker


def consumer_of(broker: Broker, group: str, **config: Any) -> Any:
    """Return a consumer that has read everything and committed it."""
    dotted = {name.replace("_", "."): value for name, value in config.items()}
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **dotted,
        }
    )
    consumer.subscribe(["t"])
    count = 0
    deadline = time.monotonic() + TIMEOUT_S
    while count < 20 and time.monotonic() < deadline:
        count += len(consumer.consume(100, 0.5))
    assert count == 20
    consumer.commit(asynchronous=False)
    return consumer


def test_confluent_kafka_s_admin_manages_groups(broker: Broker) -> None:
    consumer = consumer_of(broker, "g")
    admin = AdminClient({"bootstrap.servers": broker.address})
    listed = admin.list_consumer_groups().result(TIMEOUT_S)
    assert [(each.group_id, each.state.name) for each in listed.valid] == [("g", "STABLE")]
    described = admin.describe_consumer_groups(["g"])["g"].result(TIMEOUT_S)
    assert described.state.name == "STABLE"
    assert described.partition_assignor == "range"
    (member,) = described.members
    assert member.host == "/127.0.0.1"
    assert len(member.assignment.topic_partitions) == 2
    consumer.close()
    wanted = ConsumerGroupTopicPartitions("g", [TopicPartition("t", 0, 3)])
    admin.alter_consumer_group_offsets([wanted])["g"].result(TIMEOUT_S)
    found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions("g")])["g"]
    offsets = {each.partition: each.offset for each in found.result(TIMEOUT_S).topic_partitions}
    assert offsets == {0: 3, 1: 10}
    admin.delete_consumer_groups(["g"])["g"].result(TIMEOUT_S)
    assert admin.list_consumer_groups().result(TIMEOUT_S).valid == []


def test_kafka_python_s_admin_manages_groups(broker: Broker) -> None:
    consumer_of(broker, "g").close()
    admin = kafka.admin.KafkaAdminClient(bootstrap_servers=broker.address)
    assert "'g'" in str(admin.list_groups())
    assert "Empty" in str(admin.describe_groups(["g"]))
    offsets = str(admin.list_group_offsets("g"))
    assert "offset=10" in offsets or "'offset': 10" in offsets, offsets
    admin.delete_groups(["g"])
    assert "'g'" not in str(admin.list_groups())
    admin.close()


def test_aiokafka_s_admin_manages_groups(broker: Broker) -> None:
    consumer_of(broker, "g").close()

    async def run() -> None:
        admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=broker.address)
        await admin.start()
        assert ("g", "consumer") in [each[:2] for each in await admin.list_consumer_groups()]
        (described,) = await admin.describe_consumer_groups(["g"])
        assert "Empty" in str(described)
        offsets = await admin.list_consumer_group_offsets("g")
        assert {each.partition: found.offset for each, found in offsets.items()} == {0: 10, 1: 10}
        await admin.close()

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_S))


def test_a_static_member_that_starts_again_costs_nobody_a_rebalance(broker: Broker) -> None:
    config = {"group_instance_id": "a", "session_timeout_ms": 10_000}
    consumer_of(broker, "g", **config).close()
    admin = AdminClient({"bootstrap.servers": broker.address})

    def members() -> list[tuple[str, str]]:
        described = admin.describe_consumer_groups(["g"])["g"].result(TIMEOUT_S)
        assert described.state.name == "STABLE"
        return [(each.group_instance_id, each.member_id) for each in described.members]

    ((name, member_id),) = members()
    assert name == "a"
    again = confluent_kafka.Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": "g",
            "group.instance.id": "a",
            "session.timeout.ms": 10_000,
        }
    )
    again.subscribe(["t"])
    deadline = time.monotonic() + TIMEOUT_S
    while not again.assignment() and time.monotonic() < deadline:
        again.poll(0.1)
    assert len(again.assignment()) == 2
    ((_, other_id),) = members()
    assert other_id != member_id
    with broker.engine.lock:
        shards = broker.engine.groups._shards.values()
        (group,) = [group for shard in shards for group in shard.coordinator.groups.values()]
    assert isinstance(group, ClassicGroup)
    assert group.generation_id == 1
    again.close()


@pytest.mark.kafka
def test_kafka_s_own_tool_manages_groups(broker: Broker, kafka_jars: KafkaJars) -> None:
    address = ("--bootstrap-server", broker.address)
    consumer = "org.apache.kafka.tools.consumer.ConsoleConsumer"
    read = kafka_jars.run(
        consumer,
        *address,
        "--topic",
        "t",
        "--group",
        "g",
        "--from-beginning",
        "--max-messages",
        "20",
    )
    assert {str(number) for number in range(20)} <= set(read.split())
    assert kafka_jars.run(COMMAND, *address, "--list").split() == ["g"]
    described = kafka_jars.run(COMMAND, *address, "--describe", "--group", "g")
    lags = [line.split()[3:6] for line in described.splitlines() if line.startswith("g ")]
    assert lags == [["10", "10", "0"], ["10", "10", "0"]]
    kafka_jars.run(
        COMMAND,
        *address,
        "--reset-offsets",
        "--to-offset",
        "4",
        "--group",
        "g",
        "--topic",
        "t",
        "--execute",
    )
    described = kafka_jars.run(COMMAND, *address, "--describe", "--group", "g")
    lags = [line.split()[3:6] for line in described.splitlines() if line.startswith("g ")]
    assert lags == [["4", "10", "6"], ["4", "10", "6"]]
    deleted = kafka_jars.run(COMMAND, *address, "--delete-offsets", "--group", "g", "--topic", "t")
    assert deleted.count("Successful") == 2
    assert "successful" in kafka_jars.run(COMMAND, *address, "--delete", "--group", "g")
    assert kafka_jars.run(COMMAND, *address, "--list").split() == []
