"""Other people's consumers in groups: they join, die, come back, and the broker restarts.

Whatever happens, every record is read and committed by somebody, all partitions are somebody's, and
what was committed is still so after a `kill -9`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.compat.crowd import CANNOT_WAIT, PATIENCE_S, Crowd, Writer, committed
from tests.compat.member import HEARTBEAT_MS, MEMBERS, SESSION_MS
from tests.compat.serving import Serving

PARTITIONS = 6


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    settings = (
        "group.min.session.timeout.ms=1000",
        f"group.consumer.session.timeout.ms={SESSION_MS}",
        f"group.consumer.heartbeat.interval.ms={HEARTBEAT_MS}",
    )
    options = [part for each in settings for part in ("--set", each)]
    with Serving(tmp_path / "store", *options) as serving:
        admin = AdminClient({"bootstrap.servers": serving.address})
        admin.create_topics([NewTopic("g", PARTITIONS)])["g"].result(PATIENCE_S)
        yield serving


@pytest.mark.slow
@pytest.mark.parametrize("client", MEMBERS)
def test_a_group_lives_through_deaths_of_members_and_of_the_broker(
    serving: Serving, client: str
) -> None:
    writer = Writer(serving.address, "g", PARTITIONS)
    crowd = Crowd(client, serving.address, "g", PARTITIONS)

    def all_is_read() -> None:
        writer.write()
        crowd.wait("reading everything", lambda: crowd.read >= writer.written)

    def restart(how: signal.Signals) -> None:
        if client in CANNOT_WAIT:
            crowd.stop()
        serving.stop(how)
        serving.start()
        if client in CANNOT_WAIT:
            crowd.start(3)

    try:
        crowd.start(3)
        crowd.wait_until_shared()
        all_is_read()
        crowd.kill_one()
        crowd.wait_until_shared()
        all_is_read()
        crowd.start()
        crowd.wait_until_shared()
        all_is_read()
        restart(signal.SIGTERM)
        all_is_read()
        crowd.wait_until_shared()
        restart(signal.SIGKILL)
        all_is_read()
        crowd.wait_until_shared()
    finally:
        crowd.stop()
    ends = [len(writer.written) // PARTITIONS] * PARTITIONS
    assert committed(serving.address, "g", PARTITIONS) == ends
    serving.stop(signal.SIGKILL)
    serving.start()
    assert committed(serving.address, "g", PARTITIONS) == ends
    admin = AdminClient({"bootstrap.servers": serving.address})
    described = admin.describe_consumer_groups(["g"])["g"].result(PATIENCE_S)
    assert described.state.name == "EMPTY"


def kind_of(address: str) -> str:
    """Return of which protocol the group is."""
    admin = AdminClient({"bootstrap.servers": address})
    (group,) = admin.list_consumer_groups().result(PATIENCE_S).valid
    name: str = group.type.name
    return name


@pytest.mark.slow
@pytest.mark.parametrize("old", ["confluent-kafka", "confluent-kafka-cooperative", "aiokafka"])
def test_a_group_goes_over_to_the_consumer_protocol_and_back_while_it_reads(
    serving: Serving, old: str
) -> None:
    writer = Writer(serving.address, "g", PARTITIONS)
    crowd = Crowd(old, serving.address, "g", PARTITIONS)
    new = "confluent-kafka-consumer-protocol"

    def replace_one(client: str) -> None:
        crowd.start(client=client)
        crowd.wait_until_shared()
        writer.write()
        crowd.wait("reading everything", lambda: crowd.read >= writer.written)
        crowd.stop_one()
        crowd.wait_until_shared()

    try:
        crowd.start(2)
        crowd.wait_until_shared()
        assert kind_of(serving.address) == "CLASSIC"
        replace_one(new)
        assert kind_of(serving.address) == "CONSUMER"
        replace_one(new)
        serving.stop(signal.SIGKILL)
        serving.start()
        crowd.wait_until_shared()
        replace_one(old)
        assert kind_of(serving.address) == "CONSUMER"
        replace_one(old)
        assert kind_of(serving.address) == "CLASSIC"
        writer.write()
        crowd.wait("reading everything", lambda: crowd.read >= writer.written)
    finally:
        crowd.stop()
    assert (
        committed(serving.address, "g", PARTITIONS)
        == [len(writer.written) // PARTITIONS] * PARTITIONS
    )
