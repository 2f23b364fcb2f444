"""Where each leader epoch of a partition began: the file `leader-epoch-checkpoint`.

A partition with one broker needs no elections; its epoch counts how often records may have been
lost. A start that had to check the log begins a new one at the log's end, and so does one that
finds the log to end before an epoch's beginning. A consumer that knows an epoch is told where it
ended, and so learns that what it has read behind that is gone.

The file is written before a record is, so no batch has an epoch that is not in it. Where it is
missing it is made anew from the batches, which tell the epoch that they were written in. So that of
a new log, which says no more than they do, is written with the log's first recovery point.

Kafka: LeaderEpochFileCache; KIP-101, KIP-320.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ottla.errors import CorruptLog, DiskFull
from ottla.log import checkpoints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ottla.log.files import Files
    from ottla.log.segment import Segment

UNKNOWN = (-1, -1)


class LeaderEpochs:
    """The epochs of one partition.

    Args:
        files: where the partition's folder is.
        folder: the folder.
        segments: the partition's segments.

    Attributes:
        is_ready: whether a record may be written: the file holds all of them, or may wait.
        current: the current leader epoch.

    Raises:
        CorruptLog: the file is damaged.
    """

    def __init__(self, files: Files, folder: str, segments: Sequence[Segment]) -> None:
        self._files = files
        self._path = f"{folder}/{checkpoints.LEADER_EPOCHS}"
        found = checkpoints.decode_epochs(files.read(self._path), self._path)
        self.is_ready = bool(found)
        self._is_waiting = False
        self._entries = found or _of_batches(segments) or [(0, 0)]
        self.current = self._entries[-1][0]

    def settle(self, log_end_offset: int, *, bump: bool) -> None:
        """Make the file agree with where the log ends now, durably; that of a new log may wait.

        A full disk is no reason not to open the log: the file is written before the next record is.

        Args:
            log_end_offset: where the log ends.
            bump: whether a new epoch begins there in any case.
        """
        if bump or self._entries[-1][1] > log_end_offset:
            following = (self.current + 1, log_end_offset)
            kept = [entry for entry in self._entries if entry[1] < log_end_offset]
            self._entries = [*kept, following]
            self.current = following[0]
            self.is_ready = False
        if not self.is_ready and log_end_offset == 0 and self._entries == [(0, 0)]:
            self.is_ready = self._is_waiting = True
        with contextlib.suppress(DiskFull):
            self.write()

    def write(self) -> None:
        """Write the file, durably, where that has not been done.

        Raises:
            StorageError: it cannot be written.
        """
        if not self.is_ready:
            self._files.write(self._path, checkpoints.encode_epochs(self._entries))
            self.is_ready = True

    def waiting(self) -> list[tuple[str, bytes]]:
        """Return the file's path and content where it waits for a recovery point."""
        if not self._is_waiting:
            return []
        return [(self._path, checkpoints.encode_epochs(self._entries))]

    def saved(self) -> None:
        """Take note that what was waiting is in its place."""
        self._is_waiting = False

    def end_of(self, leader_epoch: int, log_end_offset: int) -> tuple[int, int]:
        """Return (epoch, end offset) of the largest epoch that is not larger than the one given.

        Of an epoch before all that are known the end is where those begin: what it wrote is gone.
        Of one that has not begun it is (-1, -1). Kafka: LeaderEpochFileCache.endOffsetFor.
        """
        if not 0 <= leader_epoch <= self.current:
            return UNKNOWN
        found, end = leader_epoch, log_end_offset
        for epoch, start in reversed(self._entries):
            if epoch <= leader_epoch:
                found = epoch
                break
            end = min(end, start)
        return found, end


def _of_batches(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """Return the epochs that batches were written in, as far as they can be read."""
    entries: list[tuple[int, int]] = []
    for segment in segments:
        with contextlib.suppress(CorruptLog):
            for _, header, _ in segment.headers():
                if header.leader_epoch > (entries[-1][0] if entries else -1):
                    entries.append((header.leader_epoch, header.base_offset))
    return entries
