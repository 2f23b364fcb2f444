"""A sync of a log: begun and ended by the log's owner, run in any thread in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import cython

from ottla.errors import StorageError

if cython.compiled:
    from cython.cimports.ottla.log.segment import Segment

if TYPE_CHECKING:
    from ottla.log.recovery_point import RecoveryPoint
    from ottla.log.segment import Segment


class Sync:
    """A sync under way: what to run, and what is stored when it has run.

    Attributes:
        written: the segments whose files it syncs.
        offset: everything before this offset is stored then.
        segment: the segment that was active.
        position: where in it the stored batches end.
        recovery_point: the one that was taken with it, or None.
    """

    __slots__ = ("_jobs", "offset", "position", "recovery_point", "segment", "written")

    def __init__(
        self,
        jobs: list[Callable[[], None]],
        written: list[Segment],
        offset: int,
        segment: Segment,
    ) -> None:
        self._jobs = jobs
        self.written = written
        self.offset = offset
        self.segment = segment
        self.position = segment.size
        self.recovery_point: RecoveryPoint | None = None

    def run(self) -> StorageError | None:
        """Run it, in any thread; returns why it failed, or None."""
        try:
            for job in self._jobs:
                job()
        except StorageError as error:
            return error
        return None
