"""Ottla's client, over TCP or with an embedded store; see `bench.clients.task`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

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
from ottla import Broker, Consumer, Producer

if TYPE_CHECKING:
    from ottla.records.columns import RecordColumns

_WAIT_S = 1.0


@contextlib.contextmanager
def _producer(task: Task) -> Iterator[Producer]:
    """Yield a producer that is connected and knows the topic."""
    with contextlib.ExitStack() as stack:
        address: object = task.address
        if not task.broker_pid:
            address = stack.enter_context(Broker(task.address, durability=task.durability))
        producer = stack.enter_context(Producer(address, **task.settings))
        producer.send(task.topic, WARM_UP)
        producer.flush()
        yield producer


def produce(task: Task) -> Result:
    """Send each value by a call of `send`, until `flush` returns."""
    values, result = values_of(task), Result()
    with _producer(task) as producer:
        with result.clock(task.broker_pid, task.bytes):
            topic, send = task.topic, producer.send
            for value in values:
                send(topic, value)
            delivered = producer.flush()
        result.acknowledged = delivered + 1
    return result


def produce_many(task: Task) -> Result:
    """Send all values by one call of `send_many`, until `flush` returns."""
    values, result = values_of(task), Result()
    with _producer(task) as producer:
        with result.clock(task.broker_pid, task.bytes):
            producer.send_many(task.topic, values)
            delivered = producer.flush()
        result.acknowledged = delivered + 1
    return result


def single_sends(task: Task) -> Result:
    """Send value after value, each with a `flush`."""
    values, result = iter(values_of(task)), Result()
    with _producer(task) as producer:
        topic, send, flush = task.topic, producer.send, producer.flush

        def single() -> None:
            send(topic, next(values))
            flush()

        with result.clock(task.broker_pid):
            singles(task.count, single, result)
        result.acknowledged = task.count + 1
    return result


def consume(task: Task) -> Result:
    """Iterate, and touch each value; then again for the checksum."""
    result = Result(read_before=1)
    with Consumer(task.address, task.topic, start="beginning", **task.settings) as consumer:
        read_bytes, left = len(next(iter(consumer)).value), task.count - 1
        with result.clock(task.broker_pid):
            for record in consumer:
                read_bytes += len(record.value)
                left -= 1
                if not left:
                    break
    result.read, result.read_bytes = task.count - left, read_bytes
    with Consumer(task.address, task.topic, start="beginning", **task.settings) as consumer:
        records = itertools.islice(consumer, task.count)
        result.checksum = checksum_of(record.value for record in records)
    return result


def consume_columns(task: Task) -> Result:
    """Take columns, and sum the values' lengths; then again for the checksum."""
    return _consume_columns(task, lambda columns: len(columns.values.data))


def consume_arrow(task: Task) -> Result:
    """Take columns as Arrow's record batches, and have Arrow sum the values' lengths."""
    from pyarrow import compute

    def length(columns: RecordColumns) -> int:
        values = columns.to_arrow().column("value")
        total: int = compute.sum(compute.binary_length(values)).as_py()
        return total

    return _consume_columns(task, length)


def _consume_columns(task: Task, length: Callable[[RecordColumns], int]) -> Result:
    result = Result(read_before=1)
    with Consumer(task.address, task.topic, start="beginning", **task.settings) as consumer:
        while not (columns := consumer.poll_batch(_WAIT_S, 1)):
            pass
        read_bytes, left = length(columns), task.count - 1
        with result.clock(task.broker_pid):
            while left:
                columns = consumer.poll_batch(_WAIT_S)
                if columns:
                    read_bytes += length(columns)
                    left -= len(columns)
    result.read, result.read_bytes = task.count - left, read_bytes
    with Consumer(task.address, task.topic, start="beginning", **task.settings) as consumer:
        values = (value for columns in consumer.batches() for value in columns.values)
        present = (value for value in values if value is not None)
        result.checksum = checksum_of(itertools.islice(present, task.count))
    return result


def first_of_groups(task: Task) -> Result:
    """Subscribe in group after group, and wait for the first record of each."""
    result = Result()
    for number in range(task.count):
        with Consumer(task.address, group=group_of(task, number), **task.settings) as consumer:

            def first(consumer: Consumer = consumer) -> None:
                consumer.subscribe(task.topic)
                while not consumer.poll(_WAIT_S):
                    pass

            singles(1, first, result)
    return result


if __name__ == "__main__":
    main(
        {
            "produce": produce,
            "produce_many": produce_many,
            "singles": single_sends,
            "consume": consume,
            "consume_columns": consume_columns,
            "consume_arrow": consume_arrow,
            "first_of_groups": first_of_groups,
        }
    )
