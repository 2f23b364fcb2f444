"""Compacts the logs of compacted topics, in a thread of its own, the dirtiest first.

It takes its time: it works at most half of the time and a tenth of a millisecond at once, since
whoever produces or fetches meanwhile may wait for the interpreter as long, several times a request;
and it reads and writes no more than `log.cleaner.io.max.bytes.per.second`.

Kafka: LogCleaner, LogCleanerManager.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from ottla.errors import KafkaError, StorageError
from ottla.log.compaction import Compaction, Group, Plan
from ottla.log.recovery import SWAP
from ottla.log.segment import SUFFIXES, file_name

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.clock import Clock
    from ottla.log.partition_log import PartitionLog

_WORK_MS = 0.1
_LOG = logging.getLogger("ottla.broker")


class Cleaner:
    """The thread.

    Args:
        engine: the broker.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._files = engine.files.for_thread()
        self._stopping = threading.Event()
        self._hopeless: set[PartitionLog] = set()
        self._thread = threading.Thread(target=self._run, name="ottla-cleaner", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for it; what was half done is done again another time."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                has_cleaned = self.clean_one()
            except KafkaError as error:  # such as a disk that cannot be read now
                _LOG.error("nothing is compacted now: %s", error)
                has_cleaned = False
            if not has_cleaned:
                self._stopping.wait(max(self._engine.configs.log_cleaner_backoff_ms, 1) / 1000)

    def clean_one(self) -> bool:
        """Compact the log that needs it most; tells whether there was one."""
        found = self._dirtiest()
        if found is None:
            return False
        log, plan = found
        try:
            self._compact(log, plan)
        except _Stopped:
            pass
        except KafkaError as error:
            self._hopeless.add(log)
            with self._engine.lock:
                if log.failed is None:
                    _LOG.error("%s-%d is not compacted: %s", log.topic, log.partition, error)
        return True

    def _dirtiest(self) -> tuple[PartitionLog, Plan] | None:
        engine = self._engine
        dirtiest: tuple[PartitionLog, Plan] | None = None
        for topic, partition in engine.compacted_partitions():
            with engine.lock:
                log = engine.log_of(topic, partition)
                if log is None or log in self._hopeless:
                    continue
                plan = log.plan_compaction(engine.store.cleaned.get(topic, partition))
            if plan is None or not plan.is_due:
                continue
            if dirtiest is None or plan.dirty_ratio > dirtiest[1].dirty_ratio:
                dirtiest = (log, plan)
        return dirtiest

    def _compact(self, log: PartitionLog, plan: Plan) -> None:
        engine = self._engine
        configs = engine.configs
        pace = Pace(engine.clock, configs.log_cleaner_io_max_bytes_per_second, self._stopping)
        compaction = Compaction(
            self._files, plan, engine.clock.now_ms(), configs.log_cleaner_dedupe_buffer_size, pace
        )
        ends = {old.base_offset: old.end_offset for old in plan.segments}
        for group in compaction.run():
            until = min(compaction.clean_until, ends[group.replaced[-1]])
            if not self._replace(log, group, max(until, plan.first_dirty)):
                return
        with engine.lock:
            if log.failed is not None:
                return
            offsets = {(log.topic, log.partition): compaction.clean_until}
            note = engine.store.cleaned.note(offsets)
        note()

    def _replace(self, log: PartitionLog, group: Group, clean_until: int) -> bool:
        with self._engine.lock:
            is_armed = log.arm(group)
        if not is_armed:
            return False
        try:
            self._files.sync_folder(log.folder)
            with self._engine.lock:
                note = self._engine.store.cleaned.note({(log.topic, log.partition): clean_until})
            note()  # offsets are missing from now on, even if the topic is not compacted any more
        except StorageError:
            for suffix in SUFFIXES:
                name = file_name(group.base_offset, suffix)
                self._files.remove(f"{log.folder}/{name}{SWAP}")
            raise
        with self._engine.lock:
            if log.failed is not None:
                return False
            remove = log.replace(group)
        remove()
        return True


class _Stopped(Exception):
    """The cleaner is to stop."""


class Pace:
    """Keeps work in the background from being in the way.

    Args:
        clock: where time comes from.
        bytes_per_second: how much may be read and written.
        stopping: set when the work is to end; the next call raises then.
    """

    def __init__(self, clock: Clock, bytes_per_second: float, stopping: threading.Event) -> None:
        self._clock = clock
        self._bytes_per_second = bytes_per_second
        self._stopping = stopping
        self._since_ms = clock.monotonic_ms()
        self._bytes = 0

    def __call__(self, count: int) -> None:
        """Take note of so many bytes, and sleep where it is time to."""
        self._bytes += count
        worked_ms = self._clock.monotonic_ms() - self._since_ms
        if worked_ms < _WORK_MS and self._bytes < self._bytes_per_second / 1000:
            return
        if self._stopping.is_set():
            raise _Stopped
        wanted_ms = self._bytes * 1000 / self._bytes_per_second
        self._clock.sleep(max(worked_ms, wanted_ms - worked_ms) / 1000)
        self._bytes = 0
        self._since_ms = self._clock.monotonic_ms()
