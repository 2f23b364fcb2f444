"""A log to write to, on files that model power cuts."""

from __future__ import annotations

from ottla.clock import ManualClock
from ottla.log.config import LogConfig
from ottla.log.memory_files import MemoryFiles
from ottla.log.partition_log import PartitionLog
from ottla.protocol.codec import decode
from ottla.protocol.messages.storage_records import ProducerSnapshot
from ottla.records.batch import iterate_headers, iterate_records, read_header
from ottla.records.builder import BatchBuilder

TOPIC_ID = bytes(range(16))
NOW = 1_700_000_000_000


def batch(
    *values: bytes, timestamp_ms: int = NOW, producer: tuple[int, int, int] = (-1, -1, -1)
) -> memoryview:
    """Build a batch; `producer` is producer id, epoch and base sequence."""
    builder = BatchBuilder()
    for value in values:
        builder.append(timestamp_ms, None, value, None, 1 << 30)
    return builder.build(0, None, *producer)


def open_log(
    files: MemoryFiles,
    config: LogConfig | None = None,
    *,
    recovery_point: int | None = 0,
    log_start_offset: int = 0,
    log_end_offset_min: int = 0,
    contiguous_from: int = 0,
) -> PartitionLog:
    """Open the log of t-0 in the folder `root`; recovery_point None: it was stopped cleanly."""
    return PartitionLog.open(
        files,
        "root",
        "t",
        0,
        TOPIC_ID,
        config or LogConfig(),
        ManualClock(),
        recovery_point=recovery_point,
        log_start_offset=log_start_offset,
        log_end_offset_min=log_end_offset_min,
        contiguous_from=contiguous_from,
    )


def new_log(config: LogConfig | None = None) -> tuple[PartitionLog, MemoryFiles]:
    """Return a new log, and the files that it is on."""
    files = MemoryFiles(model_power_cuts=True)
    return open_log(files, config, recovery_point=None), files


def append(log: PartitionLog, *values: bytes, timestamp_ms: int = NOW) -> int:
    """Append one batch and return its base offset; nothing is synced."""
    data = batch(*values, timestamp_ms=timestamp_ms)
    return log.append(data, read_header(data))


def sync(log: PartitionLog) -> None:
    """Make everything durable."""
    begun = log.begin_sync()
    log.end_sync(begun, begun.run())


def save(log: PartitionLog, files: MemoryFiles) -> None:
    """Make everything durable, and move the recovery point to the end."""
    log.recovery_point_wanted = True
    sync(log)
    point = log.taken_recovery_point()
    assert point is not None
    point.write(files)
    log.publish(point)
    point.finish(files)
    log.move_recovery_point(point)


def values_of(log: PartitionLog, offset: int | None = None) -> list[bytes]:
    """Return the values that can be read, from an offset on."""
    found = []
    at = log.log_start_offset if offset is None else offset
    while data := log.read(at, 1000, at_least_one=True):
        for header in iterate_headers(data):
            found += [each.value for each in iterate_records(data, header) if each.offset >= at]
            at = header.last_offset + 1
    return found


def last_of_each_producer(snapshot: bytes) -> dict[int, ProducerSnapshot.ProducerEntry]:
    """Return what Kafka takes from a snapshot: of the entries for one producer the last."""
    assert snapshot[:2] == b"\0\1"
    entries = decode(ProducerSnapshot, snapshot[2:], 1).producer_entries
    return {each.producer_id: each for each in entries}
