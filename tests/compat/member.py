"""A member of a consumer group as a process of its own, with somebody else's client, or ours.

    python -m tests.compat.member CLIENT ADDRESS GROUP TOPIC

It commits what it has read before it reads on, and prints a line of JSON for whatever happens:
{"assigned": [0, 1]} whenever that changes, {"seen": ["value", ..]} when that is read, and {"read":
["value", ..]} when it is committed. SIGTERM lets it leave the group.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

import aiokafka
import aiokafka.errors
import confluent_kafka
import kafka
import kafka.errors

import ottla
import ottla.errors

SESSION_MS = 3000
HEARTBEAT_MS = 200
_POLL_MS = 200
_FOREVER_MS = 3_600_000


class Telling:
    """What is printed, and whether the process is to end."""

    def __init__(self) -> None:
        self.is_over = False
        self._assigned: list[int] | None = None
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, *_: object) -> None:
        self.is_over = True

    def assigned(self, partitions: list[int]) -> None:
        if partitions != self._assigned:
            self._assigned = partitions
            self._tell(assigned=partitions)

    def seen(self, values: list[bytes]) -> None:
        if values:
            self._tell(seen=[each.decode() for each in values])

    def read(self, values: list[bytes]) -> None:
        if values:
            self._tell(read=[each.decode() for each in values])

    def _tell(self, **what: object) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def confluent(
    telling: Telling, address: str, group: str, topic: str, config: dict[str, str | int]
) -> None:
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": address,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "reconnect.backoff.max.ms": 500,
            **config,
        }
    )
    consumer.subscribe([topic])
    while not telling.is_over:
        messages = consumer.consume(1000, _POLL_MS / 1000)
        good = [each for each in messages if each.error() is None]
        telling.assigned(sorted(each.partition for each in consumer.assignment()))
        if not good:
            continue
        values = [each.value() or b"" for each in good]
        telling.seen(values)
        try:
            consumer.commit(asynchronous=False)
        except confluent_kafka.KafkaException:
            continue
        telling.read(values)
    consumer.close()


def _classic(strategy: str) -> dict[str, str | int]:
    return {
        "session.timeout.ms": SESSION_MS,
        "heartbeat.interval.ms": HEARTBEAT_MS,
        "partition.assignment.strategy": strategy,
    }


def eager(telling: Telling, address: str, group: str, topic: str) -> None:
    confluent(telling, address, group, topic, _classic("range,roundrobin"))


def cooperative(telling: Telling, address: str, group: str, topic: str) -> None:
    confluent(telling, address, group, topic, _classic("cooperative-sticky"))


def consumer_protocol(telling: Telling, address: str, group: str, topic: str) -> None:
    confluent(telling, address, group, topic, {"group.protocol": "consumer"})


def consumer_protocol_by_regex(telling: Telling, address: str, group: str, topic: str) -> None:
    confluent(telling, address, group, f"^{topic}+$", {"group.protocol": "consumer"})


class _Over(BaseException):
    """SIGTERM came while a poll was waiting; not what a client's `except Exception` may take."""


def kafka_python(telling: Telling, address: str, group: str, topic: str) -> None:
    """Poll without a limit, until SIGTERM.

    In version 3.0.12 a poll whose time is over while it joins leaves the rest to the background,
    and the next one takes it for done: the assignment is never used, and no heartbeat is sent.
    """

    class Listener(kafka.ConsumerRebalanceListener):  # type: ignore[misc]  # it has no types
        def on_partitions_revoked(self, revoked: Any) -> None:
            telling.assigned([])

        def on_partitions_assigned(self, assigned: Any) -> None:
            telling.assigned(sorted(each.partition for each in assigned))

    def end(*_: object) -> None:
        raise _Over

    consumer = kafka.KafkaConsumer(
        bootstrap_servers=address,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=HEARTBEAT_MS,
        reconnect_backoff_max_ms=500,
    )
    consumer.subscribe([topic], listener=Listener())
    signal.signal(signal.SIGTERM, end)
    try:
        while True:
            found = consumer.poll(timeout_ms=_FOREVER_MS)
            values = [each.value for records in found.values() for each in records]
            telling.seen(values)
            try:
                consumer.commit()
            except kafka.errors.KafkaError:
                continue
            telling.read(values)
    except _Over:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    consumer.close()


def with_aiokafka(telling: Telling, address: str, group: str, topic: str) -> None:
    async def run() -> None:
        consumer = aiokafka.AIOKafkaConsumer(
            topic,
            bootstrap_servers=address,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
        )
        await consumer.start()
        while not telling.is_over:
            found: dict[Any, list[Any]] = await consumer.getmany(timeout_ms=_POLL_MS)
            telling.assigned(sorted(each.partition for each in consumer.assignment()))
            values = [each.value for records in found.values() for each in records]
            if not values:
                continue
            telling.seen(values)
            try:
                await consumer.commit()
            except aiokafka.errors.KafkaError:
                continue
            telling.read(values)
        await consumer.stop()

    asyncio.run(run())


def ours(telling: Telling, address: str, group: str, topic: str, config: dict[str, Any]) -> None:
    consumer = ottla.Consumer(address, topic, group=group, enable_auto_commit=False, **config)
    while not telling.is_over:
        records = consumer.poll(_POLL_MS / 1000)
        telling.assigned(sorted(each.partition for each in consumer.assignment()))
        values = [each.value or b"" for each in records]
        telling.seen(values)
        try:
            consumer.commit(records)
        except ottla.errors.CommitFailed:
            continue
        telling.read(values)
    consumer.close()


def ours_classic(telling: Telling, address: str, group: str, topic: str) -> None:
    """Offer all assignors: some of the others have only one."""
    config = {
        "group_protocol": "classic",
        "session_timeout_ms": SESSION_MS,
        "heartbeat_interval_ms": HEARTBEAT_MS,
        "partition_assignment_strategy": ("cooperative-sticky", "range", "roundrobin"),
    }
    ours(telling, address, group, topic, config)


def ours_consumer_protocol(telling: Telling, address: str, group: str, topic: str) -> None:
    ours(telling, address, group, topic, {"group_protocol": "consumer"})


MEMBERS: dict[str, Callable[[Telling, str, str, str], None]] = {
    "confluent-kafka": eager,
    "confluent-kafka-cooperative": cooperative,
    "confluent-kafka-consumer-protocol": consumer_protocol,
    "confluent-kafka-consumer-protocol-regex": consumer_protocol_by_regex,
    "kafka-python": kafka_python,
    "aiokafka": with_aiokafka,
    "ottla": ours_classic,
    "ottla-consumer-protocol": ours_consumer_protocol,
}

if __name__ == "__main__":
    MEMBERS[sys.argv[1]](Telling(), *sys.argv[2:5])
