"""Group commit: everybody who waits for the disk shares one round of syncs.

Logs that were written are collected; a round takes all of them, syncs them side by side in worker
threads or one after the other in the thread of a single caller, and is ended by the owner, who
thereby moves their high watermarks. What is written during a round waits for the next one.

The owner of the logs calls `add`, `begin` and `end`; a round's `run` may be called in any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import cython

from ottla.errors import StorageError

if cython.compiled:
    from cython.cimports.ottla.log.partition_log import PartitionLog
    from cython.cimports.ottla.log.sync import Sync

if TYPE_CHECKING:
    from ottla.log.partition_log import PartitionLog
    from ottla.log.sync import Sync

_LOG = logging.getLogger("ottla.log")
Done = Callable[[StorageError | None], None]


class Round:
    """One round: its parts may run side by side, each in a thread of its own.

    Attributes:
        parts: what to run; each returns why it failed, or None.
        is_one_sync: whether all that there is to do is to sync one log.
    """

    def __init__(
        self,
        syncs: list[tuple[PartitionLog, Sync]],
        jobs: list[tuple[Callable[[], None], Done]],
    ) -> None:
        self._syncs = syncs
        self._jobs = jobs
        self.parts: list[Callable[[], StorageError | None]] = []
        for _, sync in syncs:
            self.parts.append(sync.run)
        for job, _ in jobs:
            self.parts.append(_guarded(job))
        self.is_one_sync = len(syncs) == 1 and not jobs

    def run(self) -> list[StorageError | None]:
        """Run all parts one after the other, and return how each ended."""
        return [part() for part in self.parts]

    def end(self, errors: list[StorageError | None]) -> None:
        """Tell the logs, and those who gave jobs, how the parts ended."""
        log: PartitionLog
        sync: Sync
        for index, (log, sync) in enumerate(self._syncs):
            if index == len(errors):
                break
            error = errors[index]
            was_good = log.failed is None
            log.end_sync(sync, error)
            if was_good and log.failed is not None:
                _LOG.error("%s", log.failed)
        if self._jobs:
            for (_, done), error in zip(self._jobs, errors[len(self._syncs) :], strict=True):
                done(error)


def round_of(logs: Iterable[PartitionLog], jobs: list[tuple[Callable[[], None], Done]]) -> Round:
    """Begin the syncs of logs, of those that have something to be synced; the owner does that.

    A log that has failed is left out: whoever waited for it knows, and its files may be gone.
    """
    syncs: list[tuple[PartitionLog, Sync]] = []
    log: PartitionLog
    for log in logs:
        if log.failed is None and (log.is_dirty or log.recovery_point_wanted):
            try:
                syncs.append((log, log.begin_sync()))
            except StorageError as error:
                log.sync_failed(error)
                _LOG.error("%s", log.failed)
    return Round(syncs, jobs)


def _guarded(job: Callable[[], None]) -> Callable[[], StorageError | None]:
    def run() -> StorageError | None:
        try:
            job()
        except StorageError as error:
            return error
        return None

    return run


class GroupCommit:
    """Collects what must become durable.

    Args:
        logs_max: how many logs are synced in one round; what is more waits for the next one.
    """

    def __init__(self, logs_max: int = 1 << 30) -> None:
        self._logs_max = logs_max
        self._dirty: dict[PartitionLog, None] = {}
        self._jobs: list[tuple[Callable[[], None], Done]] = []
        self._running: Round | None = None

    def add(self, log: PartitionLog) -> None:
        """Have a log synced that was written."""
        self._dirty[log] = None

    def add_job(self, job: Callable[[], None], done: Done) -> None:
        """Have something else done with the next round, and be told how it ended.

        Args:
            job: runs in a worker thread; it raises `StorageError` where it fails.
            done: is called by the owner's thread when the round ends.
        """
        self._jobs.append((job, done))

    @property
    def is_waiting(self) -> bool:
        """Whether there is something for a next round."""
        return bool(self._dirty or self._jobs)

    @property
    def is_running(self) -> bool:
        """Whether a round was begun and not ended."""
        return self._running is not None

    def begin(self) -> Round | None:
        """Begin a round; None where one is under way or there is nothing to do."""
        if self._running is not None or not (self._dirty or self._jobs):
            return None
        jobs, self._jobs = self._jobs, []
        logs: list[PartitionLog] = list(self._dirty)[: self._logs_max]
        for log in logs:
            del self._dirty[log]
        self._running = round_of(logs, jobs)
        return self._running

    def end(self, errors: list[StorageError | None]) -> None:
        """End the round that is under way."""
        ended, self._running = self._running, None
        if ended is not None:
            ended.end(errors)
