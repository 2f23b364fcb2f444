"""Other people's clients, behind one small face: produce records, read them back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import aiokafka
import confluent_kafka
import kafka

from ottla import Consumer, Producer

TIMEOUT_S = 60


class Sent(NamedTuple):
    """A record as it was given, or read back."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


Produce = Callable[[str, str, Sequence[Sent], str], None]
"""Produces records to partition 0 of a topic: (address, topic, records, codec)."""

Read = Callable[[str, str, int], list[Sent]]
"""Reads so many records of partition 0 of a topic: (address, topic, count)."""


def produce_ottla(address: str, topic: str, records: Sequence[Sent], codec: str) -> None:
    with Producer(address, compression_type=codec) as producer:
        for record in records:
            producer.send(topic, record.value, record.key, list(record.headers), partition=0)
        assert producer.flush() == len(records)


def read_ottla(address: str, topic: str, count: int) -> list[Sent]:
    with Consumer(address, topic, stop_at_end=True) as consumer:
        return [Sent(each.key, each.value, tuple(each.headers)) for each in consumer]


def produce_confluent(address: str, topic: str, records: Sequence[Sent], codec: str) -> None:
    failed: list[object] = []

    def report(error: object, message: object) -> None:
        if error is not None:
            failed.append(error)

    producer = confluent_kafka.Producer(
        {"bootstrap.servers": address, "compression.type": codec, "enable.idempotence": True}
    )
    for record in records:
        producer.produce(
            topic,
            record.value,
            record.key,
            0,
            on_delivery=report,
            headers=list(record.headers),
        )
        producer.poll(0)
    assert producer.flush(TIMEOUT_S) == 0
    assert failed == []


def read_confluent(address: str, topic: str, count: int) -> list[Sent]:
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": address, "group.id": "g", "enable.auto.commit": False}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    found: list[Sent] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(found) < count and time.monotonic() < deadline:
        for message in consumer.consume(1000, 1.0):
            assert message.error() is None, message.error()
            headers: Any = message.headers() or ()
            found.append(Sent(message.key(), message.value(), tuple(headers)))
    consumer.close()
    return found


def produce_kafka_python(address: str, topic: str, records: Sequence[Sent], codec: str) -> None:
    producer = kafka.KafkaProducer(
        bootstrap_servers=address, compression_type=None if codec == "none" else codec
    )
    futures = [
        producer.send(topic, record.value, record.key, list(record.headers), 0)
        for record in records
    ]
    producer.flush(TIMEOUT_S)
    for future in futures:
        future.get(TIMEOUT_S)
    producer.close()


def read_kafka_python(address: str, topic: str, count: int) -> list[Sent]:
    consumer = kafka.KafkaConsumer(bootstrap_servers=address, group_id=None)
    partition = kafka.TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    found: list[Sent] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(found) < count and time.monotonic() < deadline:
        for records in consumer.poll(1000, 1000).values():
            found += [Sent(each.key, each.value, tuple(each.headers)) for each in records]
    consumer.close()
    return found


def produce_aiokafka(address: str, topic: str, records: Sequence[Sent], codec: str) -> None:
    async def run() -> None:
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=address, compression_type=None if codec == "none" else codec
        )
        await producer.start()
        try:
            waiting: list[Any] = [
                await producer.send(
                    topic, record.value, record.key, 0, headers=list(record.headers)
                )
                for record in records
            ]
            await asyncio.gather(*waiting)
        finally:
            await producer.stop()

    asyncio.run(asyncio.wait_for(run(), TIMEOUT_S))


def read_aiokafka(address: str, topic: str, count: int) -> list[Sent]:
    async def run() -> list[Sent]:
        consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=address, group_id=None)
        await consumer.start()
        try:
            partition = aiokafka.TopicPartition(topic, 0)
            consumer.assign([partition])
            await consumer.seek_to_beginning(partition)
            found: list[Sent] = []
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=1000)).values():
                    found += [Sent(each.key, each.value, tuple(each.headers)) for each in records]
            return found
        finally:
            await consumer.stop()

    return asyncio.run(asyncio.wait_for(run(), TIMEOUT_S))


PRODUCERS: dict[str, Produce] = {
    "ottla": produce_ottla,
    "confluent-kafka": produce_confluent,
    "kafka-python": produce_kafka_python,
    "aiokafka": produce_aiokafka,
}

READERS: dict[str, Read] = {
    "ottla": read_ottla,
    "confluent-kafka": read_confluent,
    "kafka-python": read_kafka_python,
    "aiokafka": read_aiokafka,
}
