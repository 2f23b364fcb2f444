"""Every byte of a small log flipped, and every length of its files.

What is read afterwards is what was written, record for record, or it is an error; it is never
something else. What stands before the damage is still there, and nothing that stands behind it is
hidden: it is read as well, or the partition says that it is damaged. What may go without that is
what a crash can leave unfinished: after one, the last batch where it is damaged, and what was cut
off behind the recovery point.

    flipped       each byte of each file, with one bit and with all bits changed
    cut           each file at each length

Each is tried with a store that was stopped cleanly and with one that was not, whose recovery point
lies in the midst of the log or at its beginning.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from ottla.clock import ManualClock
from ottla.errors import CorruptLog, CorruptRecords, StorageError
from ottla.log.config import LogConfig
from ottla.log.memory_files import MemoryFiles
from ottla.log.partition_log import PartitionLog
from ottla.records.batch import iterate_headers, iterate_records, read_header
from ottla.records.builder import BatchBuilder
from tests.crash.report import Row
from tests.log.writing import NOW, TOPIC_ID, save, sync

ROOT, FOLDER = "root", "root/t-0"
CONFIG = LogConfig(segment_bytes=600, index_interval_bytes=1)
RECORDS_PER_BATCH = 2
CODECS = (0, 1, 2, 3, 4)
BATCHES = 10
ALL = BATCHES * RECORDS_PER_BATCH
SAVED = 6
SAMPLE = 7
"""The short form tries each so manieth byte."""

Found = dict[int, tuple[bytes | None, bytes | None, int]]
Contents = dict[str, bytes]


class Stop(NamedTuple):
    """How the log was left: its recovery point, None after a clean stop."""

    name: str
    recovery_point: int | None


STOPS = (
    Stop("clean stop", None),
    Stop("crash", SAVED * RECORDS_PER_BATCH),
    Stop("crash, nothing saved", 0),
)


def written(stop: Stop) -> tuple[Contents, Found]:
    """Return the files of a log, and what is in it."""
    files = MemoryFiles(model_power_cuts=True)
    log = opened(files, None, 0)
    found: Found = {}
    for number in range(BATCHES):
        builder = BatchBuilder()
        for each in range(RECORDS_PER_BATCH):
            record = b"k%d" % each, b"value %d of batch %d" % (each, number), NOW + number
            found[number * RECORDS_PER_BATCH + each] = record
            builder.append(record[2], record[0], record[1], [("h", b"x")], 1 << 30)
        data = builder.build(CODECS[number % len(CODECS)], None, 7, 0, number * RECORDS_PER_BATCH)
        log.append(data, read_header(data))
        if number + 1 == SAVED:
            save(log, files)
    if stop.recovery_point is None:
        log.close()
    else:
        sync(log)
        files = files.after_power_cut()
    paths = [f"{FOLDER}/{name}" for name in files.list(FOLDER)]
    return {path: files.read(path) or b"" for path in paths}, found


def opened(files: MemoryFiles, recovery_point: int | None, log_end_offset_min: int) -> PartitionLog:
    return PartitionLog.open(
        files,
        ROOT,
        "t",
        0,
        TOPIC_ID,
        CONFIG,
        ManualClock(),
        recovery_point=recovery_point,
        log_end_offset_min=log_end_offset_min,
    )


class Change(NamedTuple):
    """One way to damage a file.

    Attributes:
        path: the file.
        position: the first byte that is wrong, or missing.
        is_cut: whether the file ends there.
        content: what stands in the file then.
    """

    path: str
    position: int
    is_cut: bool
    content: bytes

    def may_go(self, stop: Stop) -> set[int]:
        """Return the offsets that may be gone in silence."""
        if stop.recovery_point is None:
            return set()
        is_last = range(stop.recovery_point if self.is_cut else ALL - RECORDS_PER_BATCH, ALL)
        return set(is_last)


def changes(path: str, content: bytes, step: int) -> Iterator[Change]:
    """Iterate over all ways to damage a file."""
    for position in range(0, len(content), step):
        for mask in (0x01, 0xFF):
            flipped = bytearray(content)
            flipped[position] ^= mask
            yield Change(path, position, False, bytes(flipped))
        yield Change(path, position, True, content[:position])


def read_all(log: PartitionLog) -> tuple[Found, bool]:
    """Read offset by offset, and tell whether something could not be read."""
    found: Found = {}
    is_damaged = False
    offset = log.log_start_offset
    while offset < min(log.high_watermark, 2 * ALL):
        try:
            data = log.read(offset, 300, at_least_one=True)
        except CorruptLog:
            is_damaged = True
            offset += 1
            continue
        if not data:
            break
        for header in iterate_headers(data):
            for record in iterate_records(data, header):
                if record.offset >= offset:
                    found[record.offset] = (record.key, record.value, record.timestamp_ms)
            offset = max(offset, header.last_offset + 1)
    return found, is_damaged


def wrong_with(contents: Contents, records: Found, stop: Stop, change: Change) -> str:
    """Return what is wrong with the way in which a damaged log is read, or ""."""
    files = MemoryFiles()
    for name, content in {**contents, change.path: change.content}.items():
        files.write(name, content)
    stored = ALL if stop.recovery_point is None else stop.recovery_point
    try:
        log = opened(files, stop.recovery_point, stored)
        found, is_damaged = read_all(log)
    except StorageError:
        # Nothing of the partition is served, and it is told why. That is right where the damage is
        # in a file without which nothing is known.
        return "nothing can be read" if change.path.endswith((".log", "index")) else ""
    except CorruptRecords as error:
        return f"something is served that is no records: {error.what}"
    if log.high_watermark > ALL:
        return f"the log claims to end at offset {log.high_watermark}"
    if any(records.get(offset) != record for offset, record in found.items()):
        return "something is read that was not written"
    missing = set(records) - set(found)
    if is_damaged or log.failed is not None or missing <= change.may_go(stop):
        return ""
    return f"offsets {sorted(missing)} are missing, and nobody is told"


def run(stop: Stop, step: int) -> Row:
    """Damage each file of a log in each way."""
    row = Row(f"bytes, {stop.name}")
    began = time.perf_counter()
    contents, records = written(stop)
    for path, content in contents.items():
        for change in changes(path, content, step):
            row.tried += 1
            problem = wrong_with(contents, records, stop, change)
            if problem:
                row.bad += 1
                row.problems.append(f"{path}, byte {change.position}: {problem}")
    if step == 1:
        row.exist = 3 * sum(map(len, contents.values()))
    row.acknowledged = len(records)
    row.seconds = time.perf_counter() - began
    return row


def rows(full: bool) -> list[Row]:
    """Run it for each way to stop."""
    return [run(stop, 1 if full else SAMPLE) for stop in STOPS]
