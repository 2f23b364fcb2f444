"""A store: one folder with all partitions' folders in it.

    .lock  .owner                       who owns it, and where that process listens
    meta.properties                     whose data it is
    .kafka_cleanshutdown                it was stopped cleanly; removed while it is open
    .reserve                            room for the deletes that a full disk needs
    recovery-point-offset-checkpoint    up to where each log is known to be good
    log-start-offset-checkpoint         where each log begins, where that is not its first segment
    cleaner-offset-checkpoint           up to where each log has been compacted
    TOPIC-PARTITION/                    one partition

Kafka: LogManager.
"""

from __future__ import annotations

import contextlib
import logging
import posixpath
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ottla.errors import DiskFull, StorageError, StoreUnusable
from ottla.log import checkpoints
from ottla.log.files import draft_of
from ottla.log.partition_log import PartitionLog

if TYPE_CHECKING:
    from ottla.clock import Clock
    from ottla.log.config import LogConfig
    from ottla.log.files import Files

CLEAN_SHUTDOWN = ".kafka_cleanshutdown"
RESERVE = ".reserve"
RESERVE_BYTES = 256 * 1024
"""What is held back to be able to delete something when the disk is full."""

_ROOM_BYTES = 4 * 1024 * 1024
"""What must be free besides before a disk that was full counts as one that has room."""

_CLEAN_SHUTDOWN_CONTENT = b'{"version":0,"brokerEpoch":-1}'
_EVERY_OFFSET = 1 << 63
_LOG = logging.getLogger("ottla.log")


class LogDir:
    """An open store.

    Attributes:
        path: its folder.
        cluster_id: the id of the cluster that the data belongs to.
        node_id: the id of the broker that it belongs to.
        logs: the open logs by (topic, partition).
        offline: why a log could not be opened, by (topic, partition).
        was_clean: whether it had been stopped cleanly, or was new.
        all_checked: whether, after a stop that was not clean, all logs have been opened.
        cleaned: up to where each log has been compacted.
        full: why nothing is appended until there is room again, or None.
    """

    def __init__(self, files: Files, path: str, clock: Clock, unlock: Callable[[], None]) -> None:
        self.path = path
        self.cluster_id = ""
        self.node_id = 1
        self.logs: dict[tuple[str, int], PartitionLog] = {}
        self.offline: dict[tuple[str, int], StorageError] = {}
        self.was_clean = True
        self.all_checked = False
        self.full: StorageError | None = None
        self._files = files
        self._clock = clock
        self._unlock = unlock
        self._recovery_points: checkpoints.OffsetCheckpoint
        self._log_starts: checkpoints.OffsetCheckpoint
        self.cleaned: checkpoints.OffsetCheckpoint

    @classmethod
    def open(cls, files: Files, path: str, clock: Clock) -> LogDir:
        """Open a store, or make a new one of an empty or missing folder.

        Raises:
            StoreInUse: another process owns it.
            StoreUnusable: the folder holds something else, or cannot be written.
            CorruptLog: one of its checkpoints is damaged.
        """
        names = files.list(path)
        # A start that was killed may leave the draft of the first file that it wrote.
        draft = draft_of(checkpoints.META_PROPERTIES)
        others = [name for name in names if not name.startswith(".") and name != draft]
        if others and checkpoints.META_PROPERTIES not in others:
            raise StoreUnusable(
                f"the directory {path} is not a store: it holds {others[0]!r} and no "
                f"{checkpoints.META_PROPERTIES}",
                "Nothing was read or written.",
                ("Give an empty or a new directory.",),
            )
        unlock = files.lock(path)
        try:
            store = cls(files, path, clock, unlock)
            store._load()
        except BaseException:
            unlock()
            raise
        return store

    def _load(self) -> None:
        path = f"{self.path}/{checkpoints.META_PROPERTIES}"
        content = self._files.read(path)
        if content is None:
            self._create(path)
        else:
            properties = checkpoints.decode_properties(content)
            try:
                self.cluster_id = properties["cluster.id"]
                self.node_id = int(properties["node.id"])
            except (KeyError, ValueError) as error:
                raise StoreUnusable(
                    f"{path} cannot be read: no good {error}",
                    "Nothing was read or written.",
                    ("Put back the file that belongs to this data, or give another directory.",),
                ) from error
            marker = f"{self.path}/{CLEAN_SHUTDOWN}"
            self.was_clean = self._files.read(marker) is not None
            self._files.remove(marker)
            self._files.sync_folder(self.path)
        self._recovery_points = checkpoints.OffsetCheckpoint(
            self._files, f"{self.path}/{checkpoints.RECOVERY_POINTS}"
        )
        self._log_starts = checkpoints.OffsetCheckpoint(
            self._files, f"{self.path}/{checkpoints.LOG_STARTS}"
        )
        self.cleaned = checkpoints.OffsetCheckpoint(
            self._files, f"{self.path}/{checkpoints.CLEANER_OFFSETS}"
        )
        try:
            self._files.reserve(f"{self.path}/{RESERVE}", RESERVE_BYTES)
        except DiskFull as error:
            self.note_full(error)

    def _create(self, path: str) -> None:
        self.cluster_id = checkpoints.uuid_text(checkpoints.new_uuid())
        properties = {
            "version": "1",
            "cluster.id": self.cluster_id,
            "node.id": str(self.node_id),
            "directory.id": checkpoints.uuid_text(checkpoints.new_uuid()),
        }
        self._files.make_folder(self.path)
        self._files.sync_folder(posixpath.dirname(self.path) or ".")
        self._files.write(path, checkpoints.encode_properties(properties))

    def open_log(
        self, topic: str, partition: int, topic_id: bytes, config: LogConfig
    ) -> PartitionLog:
        """Open a partition's log, or create it; one that is damaged becomes `offline`.

        Raises:
            StorageError: it cannot be opened.
        """
        key = (topic, partition)
        try:
            if not self._files.list(f"{self.path}/{topic}-{partition}"):
                # What is noted is of a deleted topic that had this name.
                self._recovery_points.forget(topic, partition)
                self._log_starts.forget(topic, partition)
                self.cleaned.forget(topic, partition)
            log = PartitionLog.open(
                self._files,
                self.path,
                topic,
                partition,
                topic_id,
                config,
                self._clock,
                recovery_point=None
                if self.was_clean
                else self._recovery_points.get(topic, partition),
                log_start_offset=self._log_starts.get(topic, partition),
                log_end_offset_min=self._recovery_points.get(topic, partition),
                contiguous_from=_EVERY_OFFSET
                if config.compact
                else self.cleaned.get(topic, partition),
            )
        except StorageError as error:
            if str(self.offline.get(key)) != str(error):
                _LOG.error("%s", error)
            self.offline[key] = error
            raise
        self.offline.pop(key, None)
        for cut in log.cuts:
            _LOG.warning("%s", cut)
        if log.failed is not None:
            _LOG.error("%s", log.failed)
        self.logs[key] = log
        return log

    def close_log(self, topic: str, partition: int) -> None:
        """Close a log that is not needed any longer; it can be opened again.

        Raises:
            StorageError: something of it could not be synced.
        """
        self.logs.pop((topic, partition)).close()

    def delete_log(self, topic: str, partition: int, reason: StorageError) -> Callable[[], None]:
        """Forget a partition at once, and return what removes its folder, in any thread.

        The folder is renamed first, so that it is gone whatever happens to the removal.

        Args:
            topic: its topic.
            partition: its number.
            reason: what whoever waits for the partition is told.
        """
        key = (topic, partition)
        self.offline.pop(key, None)
        log = self.logs.pop(key, None)
        if log is not None:
            log.abandon(reason)
        for noted in (self._recovery_points, self._log_starts, self.cleaned):
            noted.drop(topic, partition)
        folder = f"{self.path}/{topic}-{partition}"
        doomed = f"{self.path}/{topic}-{partition}.{checkpoints.new_uuid().hex()}-delete"
        if self._files.list(folder):
            self._files.rename(folder, doomed)

        def remove() -> None:
            self._files.sync_folder(self.path)
            self._files.remove(doomed)

        return remove

    def remove_leftovers(self) -> None:
        """Finish the removal of deleted partitions that a stop interrupted."""
        for name in self._files.list(self.path):
            if name.endswith("-delete"):
                self._files.remove(f"{self.path}/{name}")

    def note_log_starts(self) -> Callable[[], None]:
        """Return what durably notes where the logs begin, in any thread."""
        return self._log_starts.note(
            {key: log.log_start_offset for key, log in self.logs.items() if log.log_start_offset}
        )

    def note_recovery_points(self) -> Callable[[], None]:
        """Return what durably notes up to where the logs are known to be good, in any thread."""
        return self._recovery_points.note(
            {key: log.recovery_point for key, log in self.logs.items()}
        )

    # -- a full disk

    def note_full(self, error: StorageError) -> None:
        """Append nothing until there is room again, and free what was held back for this case.

        So records can be deleted, which takes a little room at first.
        """
        if self.full is None:
            _LOG.error("%s", error)
        self.full = error
        self._files.remove(f"{self.path}/{RESERVE}")

    def heal(self) -> bool:
        """Tell whether there is room again; if so, some of it is held back, and all goes on."""
        path = f"{self.path}/{RESERVE}"
        try:
            self._files.reserve(path, RESERVE_BYTES + _ROOM_BYTES)
            self._files.remove(path)
            self._files.reserve(path, RESERVE_BYTES)
        except StorageError:
            self._files.remove(path)
            return False
        self.full = None
        return True

    def abandon(self, *, untouched: bool = False) -> None:
        """Let go of everything without a clean stop: the next start checks the logs.

        Args:
            untouched: nothing was written, so that a store that had been stopped cleanly still is:
                what could not be read this time is not taken for a crash's torn tail next time.
        """
        if untouched and self.was_clean:
            with contextlib.suppress(StorageError):
                self._files.write(f"{self.path}/{CLEAN_SHUTDOWN}", _CLEAN_SHUTDOWN_CONTENT)
        reason = StorageError(f"the store {self.path} was given up")
        for log in self.logs.values():
            log.abandon(reason)
        self.logs.clear()
        self._unlock()

    def close(self) -> None:
        """Stop cleanly: everything is synced, and the marker says so.

        Raises:
            StorageError: something could not be synced; the marker is not set then, and the next
                start checks everything. The store is closed all the same.
        """
        problems: list[StorageError] = []
        is_whole = (
            not self.offline
            and (self.was_clean or self.all_checked)
            and all(log.failed is None for log in self.logs.values())
        )
        try:
            _try_each((log.close for log in self.logs.values()), problems)
            _try_each((self.note_recovery_points(), self.note_log_starts()), problems)
            if not problems and is_whole:
                marker = f"{self.path}/{CLEAN_SHUTDOWN}"
                _try_each((lambda: self._files.write(marker, _CLEAN_SHUTDOWN_CONTENT),), problems)
        finally:
            self.logs.clear()
            self._unlock()
        if problems:
            raise problems[0]


def _try_each(actions: Iterable[Callable[[], None]], problems: list[StorageError]) -> None:
    for action in actions:
        try:
            action()
        except StorageError as error:
            problems.append(error)
