"""librdkafka's producer and consumer, as confluent-kafka has them.

    python -m bench.loads.librdkafka JSON        the fields of `Produce` or of `Consume`

The producer is handed lists of messages (`produce_batch`), and the consumer hands lists out
(`consume`), so that as little as possible of what is measured is Python's.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from bench.loads.process import Meter, Outcome, serve
from bench.resources import ready_page_cache

MODULE = "bench.loads.librdkafka"
PRODUCER = {
    "enable.idempotence": True,
    "linger.ms": 5,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 10_000_000,
    "queue.buffering.max.kbytes": 2_000_000,
}
"""What its documentation gives for throughput; all messages fit into its queue."""
CONSUMER = {
    "group.id": "bench",
    "enable.auto.commit": False,
    "fetch.wait.max.ms": 500,
    "queued.min.messages": 1_000_000,
    "queued.max.messages.kbytes": 262_144,
}

_FLUSH_TIMEOUT_S = 300
_POLL_TIMEOUT_S = 60.0
_AT_ONCE = 10_000
_NUMBERED = struct.Struct(">IQ")


@dataclass(frozen=True)
class Produce:
    """What a producer sends.

    Attributes:
        address: "host:port" of the broker.
        topic: where to; it exists.
        partitions: how many it has; messages take turns, a list at a time.
        records: how many.
        value_bytes: how large they are.
        number: of the producer; makes its messages different.
    """

    address: str
    topic: str
    partitions: int
    records: int
    value_bytes: int
    number: int


@dataclass(frozen=True)
class Consume:
    """What a consumer reads.

    Attributes:
        address: "host:port" of the broker.
        topic: what.
        chosen: which of its partitions.
        records: how many there are in them.
    """

    address: str
    topic: str
    chosen: list[int]
    records: int


def _producer(load: Produce) -> Callable[[], Outcome]:
    producer = Producer({"bootstrap.servers": load.address, **PRODUCER})
    filler = random.Random(5).randbytes(load.value_bytes - _NUMBERED.size)
    checksum = 0
    lists: list[tuple[int, list[dict[str, bytes]]]] = []
    for start in range(0, load.records, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, load.records))
        values = [_NUMBERED.pack(load.number, each) + filler for each in numbers]
        checksum += sum(map(zlib.crc32, values))
        partition = (load.number + len(lists)) % load.partitions
        lists.append((partition, [{"value": value} for value in values]))
    producer.list_topics(load.topic, _POLL_TIMEOUT_S)
    confirmed = 0

    def count(error: object, message: object) -> None:
        nonlocal confirmed
        assert error is None, error
        confirmed += 1

    first = next(iter(lists))[1][:1]
    producer.produce(load.topic, first[0]["value"], partition=0, on_delivery=count)
    producer.flush(_FLUSH_TIMEOUT_S)
    checksum += zlib.crc32(first[0]["value"])
    ready_page_cache(load.records * load.value_bytes)

    def run() -> Outcome:
        meter = Meter()
        for partition, messages in lists:
            queued = producer.produce_batch(load.topic, messages, partition=partition)
            assert queued == len(messages), "its queue is full"
        left = producer.flush(_FLUSH_TIMEOUT_S)
        assert left == 0, f"{left} messages were not confirmed"
        size = load.records * load.value_bytes
        return meter.outcome(load.records, size, checksum, stored=load.records + 1)

    return run


def _consumer(load: Consume) -> Callable[[], Outcome]:
    consumer = Consumer({"bootstrap.servers": load.address, **CONSUMER})
    consumer.list_topics(load.topic, _POLL_TIMEOUT_S)
    assignment = [TopicPartition(load.topic, each, OFFSET_BEGINNING) for each in load.chosen]

    def run() -> Outcome:
        meter = Meter()
        consumer.assign(assignment)
        lists = []
        found = 0
        while found < load.records:
            # It waits until there are as many as it is asked for.
            messages = consumer.consume(min(_AT_ONCE, load.records - found), _POLL_TIMEOUT_S)
            assert messages, "nothing comes"
            lists.append([message.value() or b"" for message in messages])
            found += len(messages)
        outcome = meter.outcome(found, sum(len(each) for values in lists for each in values))
        outcome.checksum = sum(sum(map(zlib.crc32, values)) for values in lists)
        return outcome

    return run


def prepare(settings: dict[str, Any]) -> Callable[[], Outcome]:
    """Connect, and make what is sent."""
    if "chosen" in settings:
        return _consumer(Consume(**settings))
    return _producer(Produce(**settings))


if __name__ == "__main__":
    serve(prepare)
