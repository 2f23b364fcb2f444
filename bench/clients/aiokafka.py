"""aiokafka, on uvloop; see `bench.clients.task`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiokafka
import uvloop
from aiokafka import TopicPartition

from bench.clients.task import WARM_UP, Result, Task, checksum_of, group_of, main, values_of

_WAIT_MS = 1000


@contextlib.asynccontextmanager
async def _producer(task: Task) -> AsyncIterator[Any]:
    """Yield a producer that is connected and knows the topic."""
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=task.address, **task.settings)
    await producer.start()
    await producer.send_and_wait(task.topic, WARM_UP)
    try:
        yield producer
    finally:
        await producer.stop()


async def produce(task: Task) -> Result:
    """Send each value by `await send`, until all of their futures are done."""
    values, result = values_of(task), Result()
    async with _producer(task) as producer:
        with result.clock(task.broker_pid, task.bytes):
            futures = [await producer.send(task.topic, value) for value in values]
            await producer.flush()
        result.acknowledged = sum(each.exception() is None for each in futures) + 1
    return result


async def produce_many(task: Task) -> Result:
    """Send all values in batches of `create_batch`, until all of their futures are done."""
    values, result = values_of(task), Result()
    futures, counts = [], []
    async with _producer(task) as producer:
        with result.clock(task.broker_pid, task.bytes):
            batch = producer.create_batch()
            for value in values:
                if batch.append(key=None, value=value, timestamp=None) is None:
                    counts.append(batch.record_count())
                    futures.append(await producer.send_batch(batch, task.topic, partition=0))
                    batch = producer.create_batch()
                    batch.append(key=None, value=value, timestamp=None)
            counts.append(batch.record_count())
            futures.append(await producer.send_batch(batch, task.topic, partition=0))
            await producer.flush()
        done = [each.exception() is None for each in futures]
    result.acknowledged = sum(count for count, is_done in zip(counts, done, strict=True) if is_done)
    result.acknowledged += 1
    return result


async def consume(task: Task) -> Result:
    """Read by `getmany`, and touch each value; then again for the checksum."""
    result = Result(read_before=1)
    read = read_bytes = 0
    async with _consumer(task) as consumer:
        while not read:
            for records in (await consumer.getmany(timeout_ms=_WAIT_MS, max_records=1)).values():
                read, read_bytes = 1, len(records[0].value)
        with result.clock(task.broker_pid):
            while read < task.count:
                for records in (await consumer.getmany(timeout_ms=_WAIT_MS)).values():
                    for record in records:
                        read_bytes += len(record.value)
                        read += 1
    result.read, result.read_bytes = read, read_bytes
    async with _consumer(task) as consumer:
        read = 0
        while read < task.count:
            for records in (await consumer.getmany(timeout_ms=_WAIT_MS)).values():
                result.checksum += checksum_of(record.value for record in records)
                read += len(records)
    return result


@contextlib.asynccontextmanager
async def _consumer(task: Task) -> AsyncIterator[Any]:
    """Yield a consumer that begins to read the topic."""
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=task.address, auto_offset_reset="earliest", **task.settings
    )
    await consumer.start()
    consumer.assign([TopicPartition(task.topic, 0)])
    try:
        yield consumer
    finally:
        await consumer.stop()


async def first_of_groups(task: Task) -> Result:
    """Subscribe in group after group, and wait for the first record of each."""
    result = Result()
    for number in range(task.count):
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=task.address, group_id=group_of(task, number), **task.settings
        )
        await consumer.start()
        begin = time.perf_counter_ns()
        consumer.subscribe([task.topic])
        while not await consumer.getmany(timeout_ms=_WAIT_MS):
            pass
        result.taken_us.append((time.perf_counter_ns() - begin) / 1000)
        await consumer.stop()
    return result


def _on_a_loop(work: Callable[[Task], Coroutine[Any, Any, Result]]) -> Callable[[Task], Result]:
    return lambda task: uvloop.run(work(task))


if __name__ == "__main__":
    main(
        {
            "produce": _on_a_loop(produce),
            "produce_many": _on_a_loop(produce_many),
            "consume": _on_a_loop(consume),
            "first_of_groups": _on_a_loop(first_of_groups),
        }
    )
