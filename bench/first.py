"""First figures, beside confluent-kafka against the same `ottla serve`.

    python bench/first.py [RECORDS]

Produces and consumes RECORDS records of 100 bytes (200,000 where it is not said), and sends single
records each followed by a flush. The clients alternate, five rounds; everything that was sent is
read back and compared by count and checksum before a figure is printed. The broker stores with
`ottla.durability=os`, except in the cases that say `disk`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

import ottla
from ottla import Admin, Consumer, Producer

ROUNDS = 5
SINGLES = 300
VALUE_BYTES = 100


@contextlib.contextmanager
def serving(durability: str) -> Iterator[str]:
    """Run `ottla serve` on a new folder and give its address."""
    code = "from ottla.cli.main import main; main()"
    with tempfile.TemporaryDirectory() as folder:
        command = ["serve", f"{folder}/store", "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(
            [sys.executable, "-c", code, *command, "--durability", durability],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


def values_of(count: int) -> list[bytes]:
    """Return different values of one size."""
    return [b"%0*d" % (VALUE_BYTES, number) for number in range(count)]


def ottla_produce(address: str, topic: str, values: list[bytes]) -> None:
    """Produce with `send`."""
    with Producer(address) as producer:
        for value in values:
            producer.send(topic, value)
        assert producer.flush() == len(values)


def ottla_produce_many(address: str, topic: str, values: list[bytes]) -> None:
    """Produce with `send_many`."""
    with Producer(address) as producer:
        producer.send_many(topic, values)
        assert producer.flush() == len(values)


def confluent_producer(address: str) -> confluent_kafka.Producer:
    """Return a producer with the settings that its documentation gives for throughput."""
    return confluent_kafka.Producer(
        {
            "bootstrap.servers": address,
            "enable.idempotence": True,
            "linger.ms": 5,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 2_000_000,
            "queue.buffering.max.kbytes": 2_000_000,
        }
    )


def confluent_produce(address: str, topic: str, values: list[bytes]) -> None:
    """Produce with confluent-kafka's `produce`."""
    producer = confluent_producer(address)
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(60) == 0


def ottla_consume(address: str, topic: str, count: int) -> tuple[int, int]:
    """Read a topic and return how many values there were, and their checksum."""
    found = checksum = 0
    with Consumer(address, topic, stop_at_end=True) as consumer:
        for record in consumer:
            checksum ^= zlib.crc32(record.value)
            found += 1
    return found, checksum


def confluent_consume(address: str, topic: str, count: int) -> tuple[int, int]:
    """The same with confluent-kafka's `consume`."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": address, "group.id": "bench", "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    found = checksum = 0
    while found < count:
        for message in consumer.consume(10_000, 1.0):
            checksum ^= zlib.crc32(message.value() or b"")
            found += 1
    consumer.close()
    return found, checksum


def singles_ottla(address: object) -> list[float]:
    """Send records one by one, each with a flush, and return what each took, in microseconds."""

    def single() -> None:
        producer.send("singles", b"x")
        producer.flush()

    with Producer(address) as producer:
        single()
        return [_timed(single) for _ in range(SINGLES)]


def singles_confluent(address: str) -> list[float]:
    """The same with confluent-kafka, without linger."""

    def single() -> None:
        producer.produce("singles", b"x")
        producer.flush()

    producer = confluent_kafka.Producer(
        {"bootstrap.servers": address, "enable.idempotence": True, "linger.ms": 0}
    )
    single()
    return [_timed(single) for _ in range(SINGLES)]


def _timed(action: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    action(*arguments)
    return (time.perf_counter() - start) * 1e6


def throughput(address: str, count: int) -> dict[str, list[float]]:
    """Return records per second by case, one figure a round."""
    values = values_of(count)
    expected = 0
    for value in values:
        expected ^= zlib.crc32(value)
    producers = {
        "produce: ottla send": ottla_produce,
        "produce: ottla send_many": ottla_produce_many,
        "produce: confluent-kafka": confluent_produce,
    }
    consumers = {
        "consume: ottla": ottla_consume,
        "consume: confluent-kafka": confluent_consume,
    }
    rates: dict[str, list[float]] = {name: [] for name in (*producers, *consumers)}
    for turn in range(ROUNDS):
        for number, (name, produce) in enumerate(producers.items()):
            topic = f"t{turn}-{number}"
            with Admin(address) as admin:
                admin.create_topic(topic, 1)
            rates[name].append(count / _timed(produce, address, topic, values) * 1e6)
            assert ottla_consume(address, topic, count) == (count, expected), name
        for name, consume in consumers.items():
            start = time.perf_counter()
            found = consume(address, f"t{turn}-0", count)
            rates[name].append(count / (time.perf_counter() - start))
            assert found == (count, expected), name
    return rates


def main() -> None:
    """Measure, and print tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    print(
        f"ottla {ottla.__version__}, confluent-kafka {confluent_kafka.__version__}, librdkafka "
        f"{confluent_kafka.libversion()[0]}, {platform.python_implementation()} "
        f"{platform.python_version()}, {platform.platform()}, {os.cpu_count()} CPUs"
    )
    with serving("os") as address:
        rates = throughput(address, count)
    print(f"\n{count} records of {VALUE_BYTES} B, one partition, medians of {ROUNDS} rounds")
    for name, found in rates.items():
        peer = rates[f"{name.split(':')[0]}: confluent-kafka"]
        ratio = statistics.median(found) / statistics.median(peer)
        print(f"{name:<26} {statistics.median(found):12,.0f} records/s  {ratio:5.2f}x")
    print(f"\none send + flush, {ROUNDS} rounds of {SINGLES}, microseconds")
    for durability in ("os", "disk"):
        taken: dict[str, list[float]] = {"ottla": [], "confluent-kafka": [], "ottla embedded": []}
        with serving(durability) as address, tempfile.TemporaryDirectory() as folder:
            broker = ottla.Broker(f"{folder}/store", durability=durability)
            for _ in range(ROUNDS):
                taken["ottla"] += singles_ottla(address)
                taken["confluent-kafka"] += singles_confluent(address)
                taken["ottla embedded"] += singles_ottla(broker)
            broker.close()
        for name, found in taken.items():
            found.sort()
            p50, p99 = found[len(found) // 2], found[len(found) * 99 // 100]
            print(f"{durability:<5} {name:<18} p50 {p50:8.0f}  p99 {p99:8.0f}")


if __name__ == "__main__":
    main()
