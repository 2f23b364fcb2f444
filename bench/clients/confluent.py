"""confluent-kafka, which is librdkafka; see `bench.clients.task`."""

from __future__ import annotations

from typing import Any

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from bench.clients.task import (
    WARM_UP,
    Result,
    Task,
    checksum_of,
    group_of,
    main,
    singles,
    values_of,
)

_AT_ONCE = 1000
"""How many messages a call of `consume` asks for: more of them were slower."""
_WAIT_S = 1.0
_FLUSH_S = 120.0


def _producer(task: Task) -> confluent_kafka.Producer:
    """Return a producer that is connected and knows the topic."""
    producer = confluent_kafka.Producer({"bootstrap.servers": task.address, **task.settings})
    producer.produce(task.topic, WARM_UP)
    assert producer.flush(_FLUSH_S) == 0
    return producer


def produce(task: Task) -> Result:
    """Send each value by a call of `produce`, until `flush` returns."""
    values, result = values_of(task), Result()
    producer = _producer(task)
    with result.clock(task.broker_pid, task.bytes):
        topic, send = task.topic, producer.produce
        for value in values:
            send(topic, value)
        left = producer.flush(_FLUSH_S)
    result.acknowledged = len(values) - left + 1
    return result


def produce_many(task: Task) -> Result:
    """Send all values by one call of `produce_batch`, until `flush` returns."""
    values, result = values_of(task), Result()
    producer = _producer(task)
    with result.clock(task.broker_pid, task.bytes):
        # It takes dictionaries; who has values has to make them.
        queued = producer.produce_batch(task.topic, [{"value": value} for value in values])
        left = producer.flush(_FLUSH_S)
    result.acknowledged = queued - left + 1
    return result


def single_sends(task: Task) -> Result:
    """Send value after value, each with a `flush`."""
    values, result = iter(values_of(task)), Result()
    producer = _producer(task)
    topic, send, flush = task.topic, producer.produce, producer.flush

    def single() -> None:
        send(topic, next(values))
        flush()

    with result.clock(task.broker_pid):
        singles(task.count, single, result)
    result.acknowledged = task.count + 1
    return result


def consume(task: Task) -> Result:
    """Read by `consume`, and touch each value; then again for the checksum."""
    result = Result(read_before=1)
    consumer = _consumer(task)
    (first,) = _consumed(consumer, 1)
    read, read_bytes = 1, len(first.value() or b"")
    with result.clock(task.broker_pid):
        while read < task.count:
            for message in _consumed(consumer, min(_AT_ONCE, task.count - read)):
                read_bytes += len(message.value())
                read += 1
    consumer.close()
    result.read, result.read_bytes = read, read_bytes
    result.checksum = _checksum(task)
    return result


def _consumer(task: Task) -> confluent_kafka.Consumer:
    """Return a consumer that begins to read the topic."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": task.address, **task.settings})
    consumer.assign([TopicPartition(task.topic, 0, OFFSET_BEGINNING)])
    return consumer


def _consumed(consumer: confluent_kafka.Consumer, count: int) -> list[Any]:
    """Return messages; waits for the first of them, and for more only where `consume` does."""
    while not (messages := consumer.consume(count, _WAIT_S)):
        pass
    if (error := messages[-1].error()) is not None:
        raise confluent_kafka.KafkaException(error)
    return messages


def first_of_groups(task: Task) -> Result:
    """Subscribe in group after group, and wait for the first record of each."""
    result = Result()
    for number in range(task.count):
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": task.address, "group.id": group_of(task, number), **task.settings}
        )

        def first(consumer: confluent_kafka.Consumer = consumer) -> None:
            consumer.subscribe([task.topic])
            _consumed(consumer, 1)

        singles(1, first, result)
        consumer.close()
    return result


def _checksum(task: Task) -> int:
    consumer = _consumer(task)
    read = total = 0
    while read < task.count:
        messages = _consumed(consumer, min(_AT_ONCE, task.count - read))
        total += checksum_of(message.value() for message in messages)
        read += len(messages)
    consumer.close()
    return total


if __name__ == "__main__":
    main(
        {
            "produce": produce,
            "produce_many": produce_many,
            "singles": single_sends,
            "consume": consume,
            "first_of_groups": first_of_groups,
        }
    )
