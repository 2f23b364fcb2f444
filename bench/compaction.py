"""Topics that are worth compacting: how they are built, compacted, and compared afterwards."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ottla import Admin, Broker, Consumer, Producer

if TYPE_CHECKING:
    from pathlib import Path

CHECKPOINT = "cleaner-offset-checkpoint"

_KEYS = 50_000
_SEGMENT_BYTES = 16 << 20
_RECORDS_AT_ONCE = 100_000
_NUMBER = struct.Struct(">Q")
_VALUE_FILLER = b"v" * 12
_CLEANER_BACKOFF_MS = 100
_POLL_S = 0.005
_COMPACTION_TIMEOUT_S = 600
SETTINGS = {
    "log.cleaner.backoff.ms": str(_CLEANER_BACKOFF_MS),
    "log.retention.check.interval.ms": "3600000",
}


@dataclass
class Built:
    """A topic that is to be compacted.

    Attributes:
        name: the topic.
        records: how many it was built with.
        cleanable_bytes: how many bytes are in the segments that compaction may touch.
    """

    name: str
    records: int
    cleanable_bytes: int = 0


def key_of(number: int) -> bytes:
    """Return the key of a topic's record of that number: each comes again and again."""
    return b"key%07d" % (number % _KEYS)


def build(folder: Path, topics: int, megabytes: float, codec: str) -> list[Built]:
    """Make a store with topics that are worth compacting; they are not compacted yet."""
    built = []
    configs = {"segment.bytes": str(_SEGMENT_BYTES), "retention.ms": "-1"}
    with Broker(folder, durability="os") as broker:
        with Admin(broker) as admin:
            for number in range(topics):
                admin.create_topic(f"compacted{number}", 1, configs=configs)
        for number in range(topics):
            topic = Built(f"compacted{number}", 0)
            partition = folder / f"{topic.name}-0"
            with Producer(broker, compression_type=codec) as producer:
                while not partition.exists() or _bytes_of(partition) < megabytes * 1e6:
                    numbers = range(topic.records, topic.records + _RECORDS_AT_ONCE)
                    producer.send_many(
                        topic.name,
                        [(key_of(each), _NUMBER.pack(each) + _VALUE_FILLER) for each in numbers],
                    )
                    producer.flush()
                    topic.records = numbers.stop
            topic.cleanable_bytes = sum(
                path.stat().st_size for path in sorted(partition.glob("*.log"))[:-1]
            )
            built.append(topic)
    return built


def _bytes_of(partition: Path) -> int:
    return sum(path.stat().st_size for path in partition.glob("*.log"))


def compact(admin: Admin, folder: Path, topic: Built) -> float:
    """Have a topic compacted, wait until it is, and return how long that took, in seconds."""
    begun = time.perf_counter()
    admin.alter_configs(topic.name, {"cleanup.policy": "compact"})
    line = f"{topic.name} 0 "
    checkpoint = folder / CHECKPOINT
    while not checkpoint.exists() or line not in checkpoint.read_text():
        assert time.perf_counter() - begun < _COMPACTION_TIMEOUT_S, "nothing was compacted"
        time.sleep(_POLL_S)
    return time.perf_counter() - begun


def check_compacted(address: str, topic: Built) -> int:
    """Read a compacted topic, compare it, and return how many records there are."""
    latest: dict[bytes, int] = {}
    found = 0
    offset = -1
    with Consumer(address, topic.name, stop_at_end=True) as consumer:
        for record in consumer:
            assert record.offset > offset, f"{topic.name}: {record.offset} comes after {offset}"
            offset = record.offset
            latest[record.key] = _NUMBER.unpack_from(record.value)[0]
            assert latest[record.key] == offset, f"{topic.name}: another record at {offset}"
            found += 1
    for number in range(topic.records - _KEYS, topic.records):
        assert latest[key_of(number)] == number, f"{topic.name}: the last of a key is lost"
    assert found < topic.records, f"{topic.name} was not compacted"
    return found
