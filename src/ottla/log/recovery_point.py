"""A recovery point: the offset at which the next start begins its check after a crash.

Everything before it is on the disk, the indexes lead to it, and the producers' state at it stands
in a snapshot. One is taken together with a sync; its files are written in another thread
meanwhile, and take their places with the owner's lock held, where the log is still what it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.errors import StorageError
from ottla.log.files import draft_of
from ottla.log.recovery import offsets_of
from ottla.log.segment import file_name

if TYPE_CHECKING:
    from ottla.log.files import Files
    from ottla.log.producer_state import ProducerState
    from ottla.log.segment import Segment
    from ottla.log.segments import Segments

_SNAPSHOTS_KEPT = 2
"""The newest one, and the one that belongs to the recovery point that is noted until then."""


class RecoveryPoint:
    """A recovery point and its files.

    Args:
        folder: the partition's folder.
        offset: the offset.
        segments: the segments whose indexes have changed since the last one.
        snapshot: the producers' state at the offset.
        others: the paths and contents of other files that are to be written with it.

    Attributes:
        offset: the offset.
        folder: the partition's folder.
        segments: the segments whose indexes are in it, and how large each was.
    """

    def __init__(
        self,
        folder: str,
        offset: int,
        segments: list[Segment],
        snapshot: bytes,
        others: list[tuple[str, bytes]],
    ) -> None:
        self.folder = folder
        self.offset = offset
        self.segments = {segment: segment.size for segment in segments}
        self._indexes = {segment: segment.indexes() for segment in segments}
        self._others = [(f"{folder}/{file_name(offset, '.snapshot')}", snapshot), *others]

    def write(self, files: Files) -> None:
        """Write the files, as drafts, in any thread.

        Raises:
            StorageError: one cannot be written; none is left then, lest they fill a full disk.
        """
        contents = [each for index_files in self._indexes.values() for each in index_files]
        contents += self._others
        try:
            for path, content in contents:
                files.write_draft(path, content)
        except StorageError:
            for path, _ in contents:
                files.remove(draft_of(path))
            raise

    def publish(self, files: Files, segments: Segments) -> None:
        """Put the files in their places; the owner does that.

        Args:
            files: where they are.
            segments: the segments that are still there.
        """
        for segment, index_files in self._indexes.items():
            for path, _ in index_files:
                if segment in segments:
                    files.rename(draft_of(path), path)
                else:
                    files.remove(draft_of(path))
        for path, _ in self._others:
            files.rename(draft_of(path), path)

    def finish(self, files: Files) -> None:
        """Make the files' names durable, and remove old snapshots, in any thread."""
        files.sync_folder(self.folder)
        for offset in offsets_of(files.list(self.folder), ".snapshot")[:-_SNAPSHOTS_KEPT]:
            files.remove(f"{self.folder}/{file_name(offset, '.snapshot')}")


class Beginnings:
    """The producers' states at the beginnings of segments, until a recovery point is behind them.

    What stands before a segment can only be removed when the state there stands in a snapshot;
    otherwise nobody would know after a crash which batches were stored before.

    Args:
        snapshots: those that were found when the log was opened, by offset.
    """

    def __init__(self, snapshots: dict[int, bytes]) -> None:
        self._snapshots = snapshots

    def note(self, offset: int, producers: ProducerState) -> None:
        """Take note of the state where a new segment begins."""
        self._snapshots[offset] = producers.snapshot()

    def forget(self, offset_end: int) -> None:
        """Forget the states at and before an offset."""
        for offset in [each for each in self._snapshots if each <= offset_end]:
            del self._snapshots[offset]

    def __contains__(self, offset: int) -> bool:
        return offset in self._snapshots

    def write(self, files: Files, folder: str, offset: int) -> list[str]:
        """Write the state at an offset durably, and return the paths of those before it.

        Raises:
            StorageError: it cannot be written.
        """
        snapshot = self._snapshots.get(offset)
        if snapshot is None:
            return []
        names = files.list(folder)
        older = [each for each in offsets_of(names, ".snapshot") if each < offset]
        files.write(f"{folder}/{file_name(offset, '.snapshot')}", snapshot)
        self.forget(offset)
        return [f"{folder}/{file_name(each, '.snapshot')}" for each in older]
