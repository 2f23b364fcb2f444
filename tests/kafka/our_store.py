"""A store with a topic for everything that can happen to a partition, for Kafka to look at.

    compacted     compacted several times
    horizon       compacted, with tombstones that wait for their delete horizon
    buried        compacted, with tombstones whose time has come
    retained      its oldest segments are gone, by `retention.bytes`
    started       its first records were deleted, up to the middle of a segment
    idempotent    batches of producers, whose last sequences stand in a snapshot
    relaxed       `ottla.durability=os`
    crashed       a torn tail, without indexes, was recovered, and written on: it has two epochs

Beside them are `__consumer_offsets`, where a group has committed, and the folder of the partition
TRANSACTIONS, into whose log the transactions of `tests/data/segments` were appended.
"""

from __future__ import annotations

import random
from pathlib import Path

from confluent_kafka import Consumer as GroupConsumer
from confluent_kafka import TopicPartition

from ottla import Admin, Broker, Consumer, Producer
from ottla.clock import SYSTEM
from ottla.log.config import LogConfig
from ottla.log.files import OsFiles
from ottla.log.partition_log import PartitionLog
from ottla.protocol.codec import decode
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_00_produce import ProduceResponse
from ottla.records.batch import iterate_headers, read_header
from tests.broker.asking import batch_of_values, produce_request
from tests.broker.test_connection import Peer
from tests.kafka.real_kafka import eventually

WAIT_S = 30.0
SEGMENT = str(1 << 20)
VALUE = 30_000
RECORDS = 200
KEYS = 7
DELETED = 37
DELETE_HORIZON = 0x40
PRODUCERS = ((70_001, 0), (70_002, 3))
"""Producer ids and epochs of the topic idempotent."""

BATCHES = 8
"""How many batches each of them wrote; each has two records."""

_COMPACT = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"}
TOPICS: dict[str, dict[str, str]] = {
    "compacted": _COMPACT,
    "horizon": _COMPACT,
    "buried": {**_COMPACT, "delete.retention.ms": "0"},
    "retained": {"retention.bytes": SEGMENT},
    "started": {},
    "idempotent": {},
    "relaxed": {"ottla.durability": "os"},
    "crashed": {},
}
GROUP = "group1"
TRANSACTIONS = "transactions"
_GOLD = Path(__file__).parents[1] / "data" / "segments" / "goldtx-0" / "00000000000000000000.log"
_SETTINGS = {"log.cleaner.backoff.ms": "20", "log.retention.check.interval.ms": "20"}
_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

Found = list[tuple[int, int, bytes | None, bytes | None]]
"""Offset, timestamp, key and value of each record that a consumer finds."""


def read(address: object, topic: str, isolation_level: str = "read_uncommitted") -> Found:
    """Return all records of a topic with one partition."""
    with Consumer(address, topic, stop_at_end=True, isolation_level=isolation_level) as consumer:
        return [(each.offset, each.timestamp_ms, each.key, each.value) for each in consumer]


def ask(address: str, request: ApiMessage, response: type[ApiMessage], version: int) -> ApiMessage:
    """Ask a broker something, at a version that is not flexible."""
    with Peer(address) as peer:
        peer.send(request, version)
        return decode(response, peer.receive()[4:], version)


def produce_again(
    address: str, topic: str, producer: tuple[int, int], sequence: int
) -> tuple[int, int]:
    """Send a producer's batch with a base sequence; returns error code and base offset."""
    values = (b"%d" % sequence, b"%d" % (sequence + 1))
    # A producer whose last batch is old is forgotten, by its timestamp.
    now_ms = SYSTEM.now_ms()
    batch = batch_of_values(*values, timestamp_ms=now_ms, producer=(*producer, sequence))
    answer = ask(address, produce_request(topic, batch), ProduceResponse, 8)
    assert isinstance(answer, ProduceResponse)
    told = answer.responses[0].partition_responses[0]
    return told.error_code, told.base_offset


def write_store(folder: Path) -> dict[str, Found]:
    """Write a store, and return what a reader finds in each topic."""
    with Broker(folder, settings=_SETTINGS) as broker:
        with Admin(broker) as admin:
            for topic, configs in TOPICS.items():
                own = {"segment.bytes": SEGMENT, "compression.type": "producer", **configs}
                admin.create_topic(topic, configs=own)
            for topic in set(TOPICS) - {"idempotent"}:
                _write(broker, topic, RECORDS)
            _write_sequences(broker.listen())
            _commit(broker.address)
            admin.delete_records("started", 0, before_offset=DELETED)
        _compact(broker)
        eventually(lambda: _log_of(broker, "retained").log_start_offset > 0)
        eventually(lambda: not list(folder.glob("*/*.deleted")))
    _tear(folder)
    with Broker(folder, settings={"log.cleaner.enable": "false"}) as broker:
        assert not broker.engine.store.was_clean
        assert _log_of(broker, "crashed").cuts
        for topic in ("crashed", "relaxed"):
            _write(broker, topic, 10)
        return {topic: read(broker, topic) for topic in TOPICS}


def _commit(address: str) -> None:
    consumer = GroupConsumer({"bootstrap.servers": address, "group.id": GROUP})
    consumer.commit(offsets=[TopicPartition("relaxed", 0, DELETED)], asynchronous=False)
    consumer.close()


def write_transactions(folder: Path) -> None:
    """Write the log of the partition TRANSACTIONS, as a broker that has transactions will."""
    log = PartitionLog.open(
        OsFiles(),
        str(folder),
        TRANSACTIONS,
        0,
        bytes(15) + b"t",
        LogConfig(),
        SYSTEM,
        recovery_point=None,
    )
    data = memoryview(_GOLD.read_bytes())
    for found in iterate_headers(data):
        batch = data[found.position : found.position + found.size]
        log.append(batch, read_header(batch))
    log.close()


def _log_of(broker: Broker, topic: str) -> PartitionLog:
    with broker.engine.lock:
        log = broker.engine.log_of(topic, 0)
    assert log is not None
    return log


def _write(address: object, topic: str, count: int) -> None:
    for first in range(0, count, 20):
        codec = _CODECS[first // 20 % len(_CODECS)]
        with Producer(address, compression_type=codec) as producer:
            for number in range(first, min(first + 20, count)):
                value = b"%d-" % number + random.Random(number).randbytes(VALUE)
                producer.send(topic, value, key=b"%d" % (number % KEYS), headers=[("n", b"x")])


def _write_sequences(address: str) -> None:
    for number in range(BATCHES):
        for producer in PRODUCERS:
            error, _ = produce_again(address, "idempotent", producer, 2 * number)
            assert error == 0


def _compact(broker: Broker) -> None:
    """Have tombstones written, compacted with their horizon, and compacted once more."""
    for topic in ("horizon", "buried"):
        with Producer(broker) as producer:
            for key in range(3):
                producer.send(topic, None, key=b"t%d" % key)
        _write(broker, topic, RECORDS)
    logs = [_log_of(broker, topic) for topic in ("compacted", "horizon", "buried")]
    eventually(lambda: all(log.size < 80 * VALUE for log in logs))
    eventually(lambda: _has_horizon(_log_of(broker, "horizon")))
    _write(broker, "buried", RECORDS)
    eventually(lambda: all(value is not None for *_, value in read(broker, "buried")))


def _has_horizon(log: PartitionLog) -> bool:
    offset = log.log_start_offset
    while data := log.read(offset, 1 << 20, at_least_one=True):
        for header in iterate_headers(data):
            if header.attributes & DELETE_HORIZON:
                return True
            offset = header.last_offset + 1
    return False


def _tear(folder: Path) -> None:
    """Leave the store as a crash in the midst of a write would."""
    (folder / ".kafka_cleanshutdown").unlink()
    last = max((folder / "crashed-0").glob("*.log"))
    with last.open("rb+") as file:
        file.truncate(last.stat().st_size - 100)
    (folder / "recovery-point-offset-checkpoint").unlink()
    for index in (folder / "crashed-0").glob("*.index"):
        index.unlink()
