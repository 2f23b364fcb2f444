"""Groups through the admin client, against a broker in this process, with members of others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import confluent_kafka
import pytest

from ottla import Admin, Broker, Producer
from ottla.client.lookup import EARLIEST, LATEST, TopicPartition
from ottla.client.offsets import OffsetAndMetadata
from ottla.errors import BrokerError, codes
from ottla.errors.broker import (
    GroupIdNotFound,
    GroupSubscribedToTopic,
    NonEmptyGroup,
    UnknownMemberId,
    UnknownTopicOrPartition,
)
from tests.kafka.real_kafka import RealKafka

PATIENCE_S = 30
P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(settings={"group.initial.rebalance.delay.ms": "0"}) as broker:
        broker.listen()
        with Admin(broker) as admin:
            admin.create_topic("t", 2)
        with Producer(broker) as producer:
            for number in range(20):
                producer.send("t", b"%d" % number, partition=number % 2)
        yield broker


@pytest.fixture(params=["embedded", "tcp"])
def admin(broker: Broker, request: pytest.FixtureRequest) -> Iterator[Admin]:
    with Admin(broker if request.param == "embedded" else broker.address) as admin:
        yield admin


@contextmanager
def member_of(group: str, address: str, protocol: str = "classic") -> Iterator[None]:
    """Have a member of confluent-kafka's in a group, which has both partitions of `t`."""
    member = confluent_kafka.Consumer(
        {
            "bootstrap.servers": address,
            "group.id": group,
            "group.protocol": protocol,
            "client.id": "other",
            "enable.auto.commit": False,
        }
    )
    try:
        member.subscribe(["t"])
        deadline = time.monotonic() + PATIENCE_S
        while len(member.assignment()) < 2:
            assert time.monotonic() < deadline
            member.poll(0.1)
        yield
    finally:
        member.close()


def test_a_group_that_has_only_committed_is_listed_and_described(admin: Admin) -> None:
    assert admin.list_groups() == []
    assert admin.committed_offsets("g") == {}
    assert admin.alter_group_offsets("g", {P0: 3, P1: OffsetAndMetadata(4, "note")}) == {}
    [listed] = admin.list_groups()
    assert (listed.group_id, listed.kind, listed.state) == ("g", "classic", "Empty")
    described = admin.describe_group("g")
    assert (described.state, described.members) == ("Empty", ())
    assert admin.committed_offsets("g") == {
        P0: OffsetAndMetadata(3),
        P1: OffsetAndMetadata(4, "note"),
    }


def test_members_are_described_with_what_they_read(admin: Admin, broker: Broker) -> None:
    with member_of("g", broker.address):
        described = admin.describe_group("g")
        assert (described.kind, described.state) == ("classic", "Stable")
        assert (described.protocol_type, described.assignor) == ("consumer", "range")
        (member,) = described.members
        assert (member.client_id, member.assignment) == ("other", (P0, P1))
        assert member.host == "/127.0.0.1"


def test_groups_of_the_consumer_protocol_are_described_too(admin: Admin, broker: Broker) -> None:
    with member_of("g", broker.address, "consumer"):
        [listed] = admin.list_groups()
        assert (listed.group_id, listed.kind) == ("g", "consumer")
        described = admin.describe_group("g")
        assert (described.kind, described.state) == ("consumer", "Stable")
        assert described.assignor == "uniform"
        (member,) = described.members
        assert (member.client_id, member.assignment) == ("other", (P0, P1))
        with pytest.raises(BrokerError):
            admin.alter_group_offsets("g", {P0: 5})
        with pytest.raises(NonEmptyGroup):
            admin.delete_group("g")
    assert admin.describe_group("g").members == ()
    admin.alter_group_offsets("g", {P0: 5})
    assert admin.committed_offsets("g") == {P0: OffsetAndMetadata(5)}


def test_a_group_with_members_is_neither_reset_nor_deleted(admin: Admin, broker: Broker) -> None:
    admin.alter_group_offsets("g", {P0: 3})
    with member_of("g", broker.address):
        with pytest.raises(UnknownMemberId, match="the offsets of group 'g' were not changed"):
            admin.alter_group_offsets("g", {P0: 5})
        with pytest.raises(NonEmptyGroup, match="group 'g' was not deleted"):
            admin.delete_group("g")
        with pytest.raises(GroupSubscribedToTopic):
            admin.delete_group_offsets("g", [P0])
    assert admin.committed_offsets("g") == {P0: OffsetAndMetadata(3)}


def test_offsets_and_groups_are_deleted(admin: Admin) -> None:
    admin.alter_group_offsets("g", {P0: 3, P1: 4})
    assert admin.delete_group_offsets("g", [P1]) == {}
    assert list(admin.committed_offsets("g")) == [P0]
    admin.delete_group("g")
    assert admin.list_groups() == []
    with pytest.raises(GroupIdNotFound, match="there is no group 'g'"):
        admin.describe_group("g")
    with pytest.raises(GroupIdNotFound):
        admin.delete_group("g")
    with pytest.raises(GroupIdNotFound):
        admin.delete_group_offsets("g", [P1])


def test_what_was_done_in_part_is_told_by_partition(admin: Admin) -> None:
    missing = TopicPartition("no-such", 0)
    failed = admin.alter_group_offsets("g", {P0: 3, missing: 4})
    assert failed == {missing: codes.UNKNOWN_TOPIC_OR_PARTITION}
    with pytest.raises(UnknownTopicOrPartition):
        admin.alter_group_offsets("g", {missing: 4})
    assert admin.delete_group_offsets("g", [P0, missing]) == {
        missing: codes.UNKNOWN_TOPIC_OR_PARTITION
    }
    assert admin.alter_group_offsets("g", {}) == {}


def test_the_lag_is_told_in_records_and_in_time(admin: Admin, broker: Broker) -> None:
    old_ms = int(time.time() * 1000) - 3_600_000
    with Producer(broker) as producer:
        producer.send("t", b"old", partition=0, timestamp_ms=old_ms)
        producer.send("t", b"new", partition=0)
    admin.alter_group_offsets("g", {P0: 10, P1: 10})
    lag = admin.group_lag("g", [("t", 1), ("u", 0)])
    assert (lag[P0].lag, lag[P0].end_offset) == (2, 12)
    behind_ms = lag[P0].behind_ms
    assert behind_ms is not None
    assert behind_ms >= 3_600_000
    assert (lag[P1].lag, lag[P1].behind_ms) == (0, 0)
    missing = lag[TopicPartition("u", 0)]
    assert (missing.committed, missing.end_offset, missing.lag) == (None, None, None)
    assert admin.group_lag("g", ages=False)[P0].behind_ms is None


def test_the_lag_behind_records_that_are_gone_is_that_of_the_first_there_is(
    admin: Admin, broker: Broker
) -> None:
    admin.alter_group_offsets("g", {P0: 2})
    admin.delete_records("t", 0, 5)
    lag = admin.group_lag("g")[P0]
    assert lag.lag == 8
    assert lag.behind_ms is not None
    admin.delete_records("t", 0, -1)
    assert admin.group_lag("g")[P0].behind_ms is None


def test_offsets_are_listed_by_place_and_by_time(admin: Admin) -> None:
    now_ms = int(time.time() * 1000)
    assert admin.list_offsets({("t", 0): EARLIEST, ("t", 1): LATEST}) == {P0: 0, P1: 10}
    assert admin.list_offsets({P0: now_ms - 3_600_000}) == {P0: 0}
    assert admin.list_offsets({P0: now_ms + 3_600_000}) == {P0: -1}
    assert admin.partitions_of(["t", "no-such"]) == [P0, P1]


def test_a_coordinator_that_moves_is_looked_for_again(admin: Admin) -> None:
    admin.alter_group_offsets("g", {P0: 3})
    answers = [codes.NOT_COORDINATOR, codes.COORDINATOR_LOAD_IN_PROGRESS]
    real = admin._exchange

    def exchange(*arguments: object) -> object:
        answer = real(*arguments)  # type: ignore[arg-type, var-annotated]  # passed on as it came
        if answers:
            answer.groups[0].error_code = answers.pop(0)
        return answer

    admin._exchange = exchange  # type: ignore[assignment, method-assign]  # a faulty broker
    assert admin.committed_offsets("g") == {P0: OffsetAndMetadata(3)}
    assert answers == []


@pytest.mark.kafka
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_groups_of_a_real_kafka_are_described(protocol: str, real_kafka: RealKafka) -> None:
    group = f"admin-{protocol}"
    with Admin(real_kafka.address) as admin:
        if "t" not in admin.list_topics():
            admin.create_topic("t", 2)
        with member_of(group, real_kafka.address, protocol):
            described = admin.describe_group(group)
            assert (described.kind, described.state) == (protocol, "Stable")
            assert [each.assignment for each in described.members] == [(P0, P1)]
            with pytest.raises(BrokerError):
                admin.alter_group_offsets(group, {P0: 0})
            kinds = {each.group_id: each.kind for each in admin.list_groups()}
            assert kinds[group] == protocol
        admin.alter_group_offsets(group, {P0: 0})
        assert admin.committed_offsets(group) == {P0: OffsetAndMetadata(0)}
        admin.delete_group(group)
        with pytest.raises(GroupIdNotFound):
            admin.describe_group(group)
        admin.delete_topic("t")  # other tests make one of their own
