"""Kafka's own tool reads what we write of consumer groups."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from ottla import Admin, Broker
from ottla.broker.groups import partition_of
from ottla.broker.internal_topics import GROUPS_TOPIC
from tests.kafka.real_kafka import KafkaJars

WAIT_S = 30.0


def consumer_of(broker: Broker, **config: Any) -> Any:
    """Return a consumer that has been assigned something."""
    dotted = {name.replace("_", "."): value for name, value in config.items()}
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": broker.address, "group.id": "g", **dotted}
    )
    regex = "^t+$" if dotted.get("group.protocol") else "t"
    consumer.subscribe([regex])
    return consumer


@pytest.mark.kafka
def test_a_real_kafka_s_tool_reads_every_record_of_a_consumer_group(
    kafka_jars: KafkaJars, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    settings = {
        "group.consumer.heartbeat.interval.ms": "200",
        "group.min.session.timeout.ms": "1000",
    }
    with Broker(folder, settings=settings) as broker:
        broker.listen()
        with Admin(broker.address) as admin:
            admin.create_topic("t", 4)
        static = consumer_of(broker, group_protocol="consumer", group_instance_id="one")
        classic = consumer_of(broker, heartbeat_interval_ms=200, session_timeout_ms=3000)
        members = [static, classic]
        deadline = time.monotonic() + WAIT_S
        while [len(each.assignment()) for each in members] != [2, 2]:
            assert time.monotonic() < deadline
            for each in members:
                each.poll(0.05)
        classic.close()
        static.close()
    log = folder / f"{GROUPS_TOPIC}-{partition_of('g', 50)}"
    dumped = kafka_jars.dump_records(log, "offsets")
    assert "Could not decode" not in dumped
    assert "unknown" not in dumped.lower()
    types = {int(each) for each in re.findall(r'"?key"?: ?\{"type":"?(\d+)"?', dumped)}
    assert types >= {3, 5, 6, 7, 8, 16}, dumped[:3000]
    member = next(line for line in dumped.splitlines() if '{"type":"5"' in line)
    assert '"subscribedTopicRegex":"(^t+$)"' in member, member
    assert '"instanceId":"one"' in dumped
    assert '"classicMemberMetadata":{"sessionTimeoutMs":3000' in dumped
