"""What the tests of groups share: topics of numbers, and members that poll."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ottla import Admin, Consumer, Producer, Record
from ottla.client.lookup import TopicPartition

PATIENCE_S = 60
T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
HEARTBEAT_MS = 50
SESSION_MS = 1000
QUICK: dict[str, Any] = {
    "heartbeat_interval_ms": HEARTBEAT_MS,
    "session_timeout_ms": SESSION_MS,
}
"""A member that learns of a rebalance soon, and is missed soon."""

QUICK_MEMBERS: dict[str, dict[str, Any]] = {
    "classic": {"group_protocol": "classic", **QUICK},
    "consumer": {"group_protocol": "consumer"},
}
"""The same for both protocols, with a broker of these settings."""

QUICK_BROKER = {
    "group.min.session.timeout.ms": "100",
    "group.consumer.session.timeout.ms": str(SESSION_MS),
    "group.consumer.heartbeat.interval.ms": str(HEARTBEAT_MS),
}


def create(address: object, topic: str = "t", partitions: int = 2) -> None:
    with Admin(address) as admin:
        admin.create_topic(topic, partitions)


def fill(address: object, count: int, topic: str = "t", partitions: int = 2) -> None:
    """Write records whose values are numbers to the partitions in turn."""
    create(address, topic, partitions)
    write(address, range(count), topic, partitions)


def write(
    address: object, numbers: range | list[int], topic: str = "t", partitions: int = 2
) -> None:
    with Producer(address) as producer:
        for number in numbers:
            producer.send(topic, f"{number}", partition=number % partitions)


def numbers(records: list[Record]) -> list[int]:
    return sorted(int(record.value) for record in records)


def read(consumer: Consumer, count: int) -> list[int]:
    """Poll until so many records were read."""
    found: list[Record] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {len(found)} of {count}"
        found += consumer.poll(1)
    return numbers(found)


def poll_until(reached: Callable[[], bool], *consumers: Consumer) -> list[int]:
    """Poll consumers in turn until something is so; returns what they read meanwhile."""
    found: list[Record] = []
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, [each.assignment() for each in consumers]
        for consumer in consumers:
            found += consumer.poll(0.02)
    return numbers(found)


def share(*consumers: Consumer, partitions: int = 2) -> list[int]:
    """Poll until the partitions are shared among all."""
    each = partitions // len(consumers)
    return poll_until(
        lambda: (
            all(len(one.assignment()) == each for one in consumers)
            and len({where for one in consumers for where in one.assignment()}) == partitions
        ),
        *consumers,
    )


def committed_by(address: object, group: str = "g") -> dict[TopicPartition, int | None]:
    with Consumer(address, group=group) as consumer:
        return consumer.committed([T0, T1])
