"""A real Kafka opens the partitions that we wrote: after compaction, retention and a crash."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ottla import Broker, Consumer, Producer
from ottla.client.admin import Admin
from ottla.log.partition_log import PartitionLog
from tests.kafka.real_kafka import KafkaJars, RealKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

TOPICS = ("compacted", "retained", "crashed")
WAIT_S = 30.0
VALUE = 30_000
SEGMENT = str(1 << 20)
_SETTINGS = {"log.cleaner.backoff.ms": "20", "log.retention.check.interval.ms": "20"}
Found = list[tuple[int, bytes | None, bytes | None]]


def eventually(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(int(WAIT_S / 0.02)):
        if condition():
            return
        waiting.wait(0.02)
    raise AssertionError("it did not happen")


def log_of(broker: Broker, topic: str) -> PartitionLog:
    with broker.engine.lock:
        log = broker.engine.log_of(topic, 0)
    assert log is not None
    return log


def write(address: object, topic: str, count: int, keys: int) -> None:
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")
    for first in range(0, count, 20):
        codec = codecs[first // 20 % len(codecs)]
        with Producer(address, compression_type=codec) as producer:
            for number in range(first, min(first + 20, count)):
                value = b"%d-" % number + random.Random(number).randbytes(VALUE)
                producer.send(topic, value, key=b"%d" % (number % keys), headers=[("n", b"x")])


def read(address: object, topic: str) -> Found:
    with Consumer(address, topic, stop_at_end=True) as consumer:
        return [(record.offset, record.key, record.value) for record in consumer]


def our_store(folder: Path) -> dict[str, Found]:
    """Write the three topics, and return what a reader finds in each."""
    with Broker(folder, settings=_SETTINGS) as broker:
        configs = {"segment.bytes": SEGMENT, "compression.type": "producer"}
        with Admin(broker) as admin:
            admin.create_topic("compacted", configs={**configs, "cleanup.policy": "compact"})
            admin.create_topic("retained", configs={**configs, "retention.bytes": SEGMENT})
            admin.create_topic("crashed", configs=configs)
        for topic in TOPICS:
            write(broker, topic, 200, 7)
        compacted, retained = log_of(broker, "compacted"), log_of(broker, "retained")
        eventually(lambda: compacted.size < 80 * VALUE)
        eventually(lambda: retained.log_start_offset > 0)
        eventually(lambda: not list(folder.glob("*/*.deleted")))
    crash(folder)
    with Broker(folder, settings={"log.cleaner.enable": "false"}) as broker:
        assert not broker.engine.store.was_clean
        assert log_of(broker, "crashed").cuts
        write(broker, "crashed", 10, 7)
        return {topic: read(broker, topic) for topic in TOPICS}


def crash(folder: Path) -> None:
    """Leave the store as a crash in the midst of a write would."""
    (folder / ".kafka_cleanshutdown").unlink()
    last = max((folder / "crashed-0").glob("*.log"))
    with last.open("rb+") as file:
        file.truncate(last.stat().st_size - 100)
    (folder / "recovery-point-offset-checkpoint").unlink()
    for index in (folder / "crashed-0").glob("*.index"):
        index.unlink()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Found]]:
    folder = tmp_path_factory.mktemp("ours") / "store"
    return folder, our_store(folder)


@pytest.mark.parametrize("topic", TOPICS)
def test_kafka_dump_log_has_nothing_to_say_about_what_we_wrote(
    written: tuple[Path, dict[str, Found]], kafka_jars: KafkaJars, topic: str
) -> None:
    folder, found = written
    dump = kafka_jars.dump_log(folder / f"{topic}-0")
    assert dump.count("| offset: ") >= len(found[topic]) > 0


@pytest.fixture(scope="module")
def own_kafka(
    kafka_jars: KafkaJars, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealKafka]:
    kafka = RealKafka(kafka_jars, tmp_path_factory.mktemp("adopting"))
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.stop()


def test_a_real_kafka_serves_the_partitions_that_we_wrote(
    written: tuple[Path, dict[str, Found]], own_kafka: RealKafka
) -> None:
    folder, found = written
    with Admin(own_kafka.address) as admin:
        for topic in TOPICS:
            admin.create_topic(topic, 1, configs={"segment.bytes": SEGMENT})
    own_kafka.stop()
    for topic in TOPICS:
        theirs = own_kafka.data / f"{topic}-0"
        for path in theirs.iterdir():
            if path.name != "partition.metadata":
                path.unlink()
        for path in (folder / f"{topic}-0").iterdir():
            if path.name != "partition.metadata":
                shutil.copy(path, theirs / path.name)
    (own_kafka.data / ".kafka_cleanshutdown").unlink(missing_ok=True)
    own_kafka.start()
    for topic in TOPICS:
        assert read(own_kafka.address, topic) == found[topic], topic
        with Producer(own_kafka.address) as producer:
            stored = producer.send(topic, b"new").result(WAIT_S)
        assert stored.offset == found[topic][-1][0] + 1
