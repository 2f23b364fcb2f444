"""The admin client, against a broker in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ottla import Admin, Broker, Consumer, Producer
from ottla.errors import Closed
from ottla.errors.broker import (
    InvalidConfig,
    InvalidPartitions,
    InvalidTopic,
    TopicAlreadyExists,
    UnknownTopicOrPartition,
)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture(params=["embedded", "tcp"])
def admin(broker: Broker, request: pytest.FixtureRequest) -> Iterator[Admin]:
    with Admin(broker if request.param == "embedded" else broker.listen()) as admin:
        yield admin


def test_a_topic_is_created_listed_described_and_deleted(admin: Admin) -> None:
    assert admin.list_topics() == []
    admin.create_topic("t", 3, configs={"retention.ms": "5000"})
    admin.create_topic("one")
    assert admin.list_topics() == ["one", "t"]
    described = admin.describe_topic("t")
    assert described.name == "t"
    assert [each.partition for each in described.partitions] == [0, 1, 2]
    assert {each.leader for each in described.partitions} == {1}
    assert described.topic_id.int != 0
    admin.delete_topic("t")
    assert admin.list_topics() == ["one"]
    with pytest.raises(UnknownTopicOrPartition, match="no topic 't'"):
        admin.describe_topic("t")
    admin.create_topic("t")
    assert admin.describe_topic("t").topic_id != described.topic_id


def test_what_cannot_be_created_is_raised_as_the_broker_says_it(admin: Admin) -> None:
    admin.create_topic("t")
    with pytest.raises(TopicAlreadyExists, match="already exists"):
        admin.create_topic("t")
    with pytest.raises(InvalidTopic):
        admin.create_topic("a/b")
    with pytest.raises(InvalidPartitions):
        admin.create_topic("u", 0)
    with pytest.raises(InvalidConfig, match=r"Unknown topic config name: no\.such"):
        admin.create_topic("u", configs={"no.such": "1"})
    admin.create_topic("u", validate_only=True)
    assert admin.list_topics() == ["t"]


def test_configs_are_described_with_their_sources_and_changed(admin: Admin) -> None:
    admin.create_topic("t", configs={"retention.ms": "5000"})
    configs = admin.describe_configs("t")
    assert (configs["retention.ms"].value, configs["retention.ms"].source) == ("5000", "topic")
    assert configs["cleanup.policy"].source == "default"
    assert configs["ottla.durability"].value == "disk"
    admin.alter_configs("t", {"retention.ms": None, "ottla.durability": "os"})
    configs = admin.describe_configs("t")
    assert configs["retention.ms"].value == "604800000"
    assert (configs["ottla.durability"].value, configs["ottla.durability"].source) == (
        "os",
        "topic",
    )
    with pytest.raises(InvalidConfig, match="Not a number of type LONG"):
        admin.alter_configs("t", {"retention.ms": "soon"})


def test_partitions_are_added_and_never_taken_away(admin: Admin) -> None:
    admin.create_topic("t")
    admin.create_partitions("t", 4)
    assert len(admin.describe_topic("t").partitions) == 4
    with pytest.raises(InvalidPartitions):
        admin.create_partitions("t", 2)


def test_records_are_deleted_up_to_an_offset(admin: Admin, broker: Broker) -> None:
    with Producer(broker) as producer:
        for number in range(5):
            producer.send("t", f"{number}")
    assert admin.delete_records("t", 0, 2) == 2
    with Consumer(broker, "t", stop_at_end=True) as consumer:
        assert [record.value for record in consumer] == [b"2", b"3", b"4"]
    assert admin.delete_records("t", 0, -1) == 5


def test_a_closed_admin_says_so(broker: Broker) -> None:
    admin = Admin(broker)
    admin.close()
    admin.close()
    with pytest.raises(Closed):
        admin.list_topics()
