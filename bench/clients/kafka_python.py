"""kafka-python; see `bench.clients.task`."""

from __future__ import annotations

from typing import Any

import kafka
from kafka import TopicPartition

from bench.clients.task import WARM_UP, Result, Task, checksum_of, main, values_of

_FLUSH_S = 120.0
_AT_ONCE = 10_000
_WAIT_MS = 1000


def produce(task: Task) -> Result:
    """Send each value by a call of `send`, until `flush` returns."""
    values, result = values_of(task), Result()
    producer = kafka.KafkaProducer(bootstrap_servers=task.address, **task.settings)
    producer.send(task.topic, WARM_UP).get(_FLUSH_S)
    with result.clock(task.broker_pid, task.bytes):
        topic, send = task.topic, producer.send
        futures = [send(topic, value) for value in values]
        producer.flush(_FLUSH_S)
    result.acknowledged = sum(each.succeeded() for each in futures) + 1
    producer.close()
    return result


def consume(task: Task) -> Result:
    """Read by `poll`, and touch each value; then again for the checksum."""
    result = Result(read_before=1)
    consumer = _consumer(task)
    read = read_bytes = 0
    while not read:
        for records in consumer.poll(timeout_ms=_WAIT_MS, max_records=1).values():
            read, read_bytes = 1, len(records[0].value)
    with result.clock(task.broker_pid):
        while read < task.count:
            for records in consumer.poll(timeout_ms=_WAIT_MS, max_records=_AT_ONCE).values():
                for record in records:
                    read_bytes += len(record.value)
                    read += 1
    consumer.close()
    result.read, result.read_bytes = read, read_bytes
    consumer = _consumer(task)
    read = 0
    while read < task.count:
        for records in consumer.poll(timeout_ms=_WAIT_MS, max_records=_AT_ONCE).values():
            result.checksum += checksum_of(record.value for record in records)
            read += len(records)
    consumer.close()
    return result


def _consumer(task: Task) -> Any:
    """Return a consumer that begins to read the topic."""
    where = TopicPartition(task.topic, 0)
    consumer = kafka.KafkaConsumer(bootstrap_servers=task.address, **task.settings)
    consumer.assign([where])
    consumer.seek_to_beginning(where)
    return consumer


if __name__ == "__main__":
    main({"produce": produce, "consume": consume})
