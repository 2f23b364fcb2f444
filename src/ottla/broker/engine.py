"""The broker's state, and the few operations that change more than one part of it.

    store           the folder with all partitions' logs
    metadata        the log of the cluster's metadata; `cluster` is the state replayed from it
    configs         what the settings of topics and broker come to
    commit          what must become durable in the next round of syncs
    waits           the deadlines of responses that come later
    groups          consumer groups and what they commit, once somebody has asked for one
    fetch_sessions  what consumers fetch, as far as they have sessions

Everything is guarded by one lock, `lock`: each method, and each method of the parts, is called with
it held. A change of the metadata is appended and seen at once; whoever asked for it is answered
when it is stored (`metadata.when_stored`).

Kafka: ReplicaManager, QuorumController, BrokerMetadataPublisher.
"""

from __future__ import annotations

import logging
import re
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from ottla.broker.configs import Configs
from ottla.broker.waits import Waits
from ottla.coordinator.cluster.records import MetadataCodec
from ottla.coordinator.cluster.state import TOPIC_RESOURCE, ClusterState, Decision, Topic
from ottla.coordinator.runtime import Runtime
from ottla.errors import CorruptLog, DiskFull, StorageError, codes
from ottla.log import checkpoints
from ottla.log.config import LogConfig
from ottla.log.group_commit import GroupCommit
from ottla.log.log_dir import LogDir
from ottla.protocol.messages.metadata_records import RemoveTopicRecord

if TYPE_CHECKING:
    from ottla.broker.fetch_sessions import FetchSessions
    from ottla.broker.groups import Groups
    from ottla.clock import Clock
    from ottla.log.files import Files
    from ottla.log.partition_log import PartitionLog
    from ottla.protocol.message import ApiMessage
    from ottla.records.batch import BatchHeader
    from ottla.wire import Buffer

METADATA_TOPIC = "__cluster_metadata"
METADATA_TOPIC_ID = bytes(15) + b"\x01"
"""Kafka: Uuid.METADATA_TOPIC_ID."""

UNCHECKED_BYTES_MAX = 128 * 1024 * 1024
"""When a log has grown by so much its recovery point is moved, so that a start checks no more."""

_TELL_AGAIN_MS = 10_000
_PARTITION_FOLDER = re.compile(r"(.+)-(\d+)")
_DELETED_FOLDER = re.compile(r"((.+)-\d+)\.[0-9a-f]{32}-delete")
_LOG = logging.getLogger("ottla.broker")


class Outcome(NamedTuple):
    """What became of a change.

    Attributes:
        error: an error code, `codes.NONE` where there is none.
        message: what is wrong.
        topic: the topic, where one was made or changed.
    """

    error: int = codes.NONE
    message: str | None = None
    topic: Topic | None = None


class Engine:
    """All of a broker but its network.

    Attributes:
        lock: guards everything.
        files: where the store is.
        wake_housekeeper: called when there is something to do for it.
        advertised: the address that clients are told; None for the one that they connected to.
        loaded_groups: `groups`, or None as long as nobody has asked for one.
        node_id: the broker's id.
        cluster_id: the cluster's.
    """

    def __init__(
        self, files: Files, store: LogDir, clock: Clock, settings: Mapping[str, str]
    ) -> None:
        self.lock = threading.RLock()
        self.store = store
        self.clock = clock
        self.commit = GroupCommit(files.syncs_max)
        self.waits = Waits()
        self.node_id = store.node_id
        self.cluster_id = store.cluster_id
        self.advertised: tuple[str, int] | None = None
        self.cluster = ClusterState(self.node_id)
        told = {
            "node.id": str(self.node_id),
            "broker.id": str(self.node_id),
            "log.dirs": store.path,
        }
        self.configs = Configs(self.cluster, settings, told)
        self.loaded_groups: Groups | None = None
        self.metadata: Runtime[ApiMessage]
        self._metadata_log: PartitionLog
        self._closing = False
        self.files = files
        self.wake_housekeeper: Callable[[], None] = lambda: None
        self._grown: dict[PartitionLog, None] = {}
        self._told_ms: weakref.WeakKeyDictionary[PartitionLog, float] = weakref.WeakKeyDictionary()
        self._removals: deque[Callable[[], None]] = deque()
        self._settings = settings
        self._producer_ids = iter(range(0))

    @classmethod
    def open(
        cls, files: Files, path: str, clock: Clock, settings: Mapping[str, str] | None = None
    ) -> Engine:
        """Open the store in a folder, or make a new one.

        Args:
            files: where the folder is.
            path: the folder.
            clock: where time comes from.
            settings: broker configs under Kafka's names.

        Raises:
            StorageError: it cannot be opened. A partition that cannot be opened is no reason.
            ConfigError: a setting has a value that cannot be.
        """
        store = LogDir.open(files, path, clock)
        try:
            engine = cls(files, store, clock, settings or {})
            engine._load()
        except BaseException:
            store.abandon(untouched=True)
            raise
        return engine

    def _load(self) -> None:
        durable = self._settings.get("ottla.durability", "disk") == "disk"
        log = self.store.open_log(METADATA_TOPIC, 0, METADATA_TOPIC_ID, LogConfig(durable=durable))
        if log.failed is not None:
            raise log.failed
        removed: dict[bytes, str] = {}

        def replay(record: ApiMessage) -> None:
            if isinstance(record, RemoveTopicRecord):
                removed[record.topic_id] = self.cluster.topics_by_id[record.topic_id].name
            self.cluster.replay(record)

        Runtime(log, self.commit, MetadataCodec(), replay, self.clock).load()
        self.metadata = Runtime(log, self.commit, MetadataCodec(), self.cluster.replay, self.clock)
        self._metadata_log = log
        log.watch(self._check_metadata)
        self._take_back_deletions()
        self.store.remove_leftovers()
        self._put_strays_aside(removed)

    def _check_metadata(self) -> None:
        """Confirm nothing more once the metadata may not be on the disk.

        Topics may be gone at the next start then, and what was stored in them with them.
        """
        error = self._metadata_log.failed
        if error is not None and not self._closing:
            for log in self.all_logs():
                if log is not self._metadata_log:
                    log.sync_failed(error)

    def _take_back_deletions(self) -> None:
        """Give their names back to the folders of a topic whose deletion was not stored.

        A power cut may take back the record that says so, and not the folders' new names.
        """
        names = self.files.list(self.store.path)
        for name in names:
            found = _DELETED_FOLDER.fullmatch(name)
            topic = self.cluster.topics.get(found[2]) if found is not None else None
            if found is None or topic is None or found[1] in names:
                continue
            path = f"{self.store.path}/{name}/{checkpoints.PARTITION_METADATA}"
            content = self.files.read(path)
            if checkpoints.decode_partition_metadata(content, path) == topic.topic_id:
                self.files.rename(f"{self.store.path}/{name}", f"{self.store.path}/{found[1]}")
                self.files.sync_folder(self.store.path)
                _LOG.warning("the deletion of %s was not stored: it is there again", found[1])

    def _put_strays_aside(self, removed: dict[bytes, str]) -> None:
        """Rename the folders of partitions that the metadata does not know; Kafka: LogManager.

        Those of topics that were deleted go; a stop came before they were. What is left is data
        that nobody asked to delete, so it stays where someone may look at it.
        """
        names_removed = set(removed.values())
        for name in self.files.list(self.store.path):
            found = _PARTITION_FOLDER.fullmatch(name)
            if found is None or found[1] == METADATA_TOPIC:
                continue
            if found[1] in self.cluster.topics and found[1] not in names_removed:
                continue
            path = f"{self.store.path}/{name}/{checkpoints.PARTITION_METADATA}"
            topic_id = checkpoints.decode_partition_metadata(self.files.read(path), path)
            topic = self.cluster.topics.get(found[1])
            if topic is not None and topic_id in (None, topic.topic_id):
                continue
            if topic_id is None or topic_id in removed:
                reason = StorageError(f"the topic {found[1]} was deleted")
                self.store.delete_log(found[1], int(found[2]), reason)()
                continue
            aside = f"{self.store.path}/{name}.{checkpoints.uuid_text(topic_id)}-stray"
            self.files.rename(f"{self.store.path}/{name}", aside)
            _LOG.warning(
                "%s/%s belongs to no topic that the metadata knows: it is now %s",
                self.store.path,
                name,
                aside,
            )

    # -- what is imported when it is first used

    @property
    def groups(self) -> Groups:
        """Consumer groups; the lock need not be held."""
        if self.loaded_groups is None:
            from ottla.broker.groups import Groups

            with self.lock:
                if self.loaded_groups is None:
                    self.loaded_groups = Groups(self, self.configs)
        return self.loaded_groups

    @cached_property
    def fetch_sessions(self) -> FetchSessions:
        """What consumers fetch."""
        from ottla.broker.fetch_sessions import FetchSessions

        return FetchSessions(self.configs.fetch_session_slots, self.clock)

    # -- partitions

    def log_of(self, topic: str, partition: int) -> PartitionLog | None:
        """Return a partition's log, opened or made at its first use, or None.

        `why_not` says why. A log that could not be opened is tried again each time, unless what is
        on the disk is wrong.
        """
        log = self.store.logs.get((topic, partition))
        if log is None:
            return self._open_log(topic, partition)
        return None if topic == METADATA_TOPIC else log

    def _open_log(self, name: str, partition: int) -> PartitionLog | None:
        topic = self.cluster.topics.get(name)
        if topic is None or not 0 <= partition < topic.partitions:
            return None
        if self.is_offline(name, partition):
            return None
        config = self.configs.topic_config(topic).log_config
        try:
            return self.store.open_log(name, partition, topic.topic_id, config)
        except StorageError:
            return None  # the store has logged it, and remembers it as offline

    def is_offline(self, topic: str, partition: int) -> bool:
        """Tell whether a partition cannot be opened, and will not be before a restart."""
        return isinstance(self.store.offline.get((topic, partition)), CorruptLog)

    def has_log(self, topic: str, partition: int) -> bool:
        """Tell whether a partition's log has been made, open or not."""
        is_open = (topic, partition) in self.store.logs
        return is_open or bool(self.files.list(f"{self.store.path}/{topic}-{partition}"))

    def partitions(self) -> list[tuple[str, int]]:
        """Return all partitions whose logs have been made."""
        with self.lock:
            return self._made(self.cluster.topics.values())

    def compacted_partitions(self) -> list[tuple[str, int]]:
        """Return those of topics that are compacted."""
        with self.lock:
            return self._made(self.compacted_topics())

    def compacted_topics(self) -> list[Topic]:
        """Return the topics that are compacted."""
        with self.lock:
            return [
                topic
                for topic in self.cluster.topics.values()
                if "compact" in self.configs.topic_config(topic).cleanup_policy
            ]

    def _made(self, topics: Iterable[Topic]) -> list[tuple[str, int]]:
        made = set(self.files.list(self.store.path))
        return [
            (topic.name, partition)
            for topic in topics
            for partition in range(topic.partitions)
            if f"{topic.name}-{partition}" in made
        ]

    def all_logs(self) -> list[PartitionLog]:
        """Return all logs that are open, that of the metadata too."""
        return list(self.store.logs.values())

    def why_not(self, topic: str, partition: int) -> tuple[int, str]:
        """Return error code and message for a partition that has no open log."""
        known = self.cluster.topics.get(topic)
        if known is None:
            return codes.UNKNOWN_TOPIC_OR_PARTITION, f"There is no topic {topic!r}."
        if not 0 <= partition < known.partitions:
            return (
                codes.UNKNOWN_TOPIC_OR_PARTITION,
                f"Topic {topic!r} has {known.partitions} partition(s), and none with number "
                f"{partition}.",
            )
        error = self.store.offline.get((topic, partition))
        return codes.KAFKA_STORAGE_ERROR, str(error or "The partition is offline.")

    def append(self, log: PartitionLog, batch: Buffer, header: BatchHeader) -> int:
        """Append a batch, have it synced where its topic wants that, and return its base offset.

        Raises:
            StorageError: nothing was appended.
        """
        if self._metadata_log.failed is not None:
            raise self._metadata_log.failed
        if self.store.full is not None:
            raise self.store.full
        try:
            base_offset = log.append(batch, header)
        except DiskFull as error:
            self.note_full(error)
            raise
        except StorageError as error:
            self._tell_now_and_then(log, error)
            raise
        if log.config.durable:
            self.commit.add(log)
        if log.bytes_unchecked >= UNCHECKED_BYTES_MAX and log not in self._grown:
            self._grown[log] = None
            self.wake_housekeeper()
        return base_offset

    def note_full(self, error: DiskFull) -> None:
        """Take note that the disk is full: what was held back is free now, for what makes room."""
        self.store.note_full(error)
        self.wake_housekeeper()

    def _tell_now_and_then(self, log: PartitionLog, error: StorageError) -> None:
        """Log why a partition takes nothing, not more often than anybody can read it."""
        now_ms = self.clock.monotonic_ms()
        if now_ms - self._told_ms.get(log, -_TELL_AGAIN_MS) >= _TELL_AGAIN_MS:
            self._told_ms[log] = now_ms
            _LOG.error("%s", error)

    @property
    def has_grown_logs(self) -> bool:
        """Whether there are logs whose recovery points should move."""
        return bool(self._grown)

    def grown_logs(self) -> list[PartitionLog]:
        """Return the logs whose recovery points should move, once."""
        grown, self._grown = self._grown, {}
        return [log for log in grown if log.has_unsaved]

    def remove_soon(self, remove: Callable[[], None] | None) -> None:
        """Have files removed by the housekeeper."""
        if remove is not None:
            self._removals.append(remove)
            self.wake_housekeeper()

    def remove_old_segments(self, log: PartitionLog) -> None:
        """Have removed what lies before a log's start; where that fails, retention tries again."""
        try:
            self.remove_soon(log.remove_old_segments())
        except StorageError as error:
            _LOG.error("%s", error)

    def remove_files(self) -> None:
        """Remove what was left to be removed; the lock need not be held."""
        while self._removals:
            try:
                self._removals.popleft()()
            except StorageError as error:  # the next start finds it, and removes it
                _LOG.error("%s", error)

    def apply_retention(self, topic: str, partition: int) -> Callable[[], None] | None:
        """Let go of what a partition keeps no longer.

        Returns:
            What removes it from the disk, in any thread, or None where there is nothing.
        """
        was_open = (topic, partition) in self.store.logs
        log = self.log_of(topic, partition)
        if log is None:
            return None
        remove = None
        try:
            if log.failed is None:
                remove = log.apply_retention()
        except StorageError as error:  # the next time tries again
            _LOG.error("%s", error)
        if not was_open and self.store.was_clean:
            self.store.close_log(topic, partition)
        return remove

    # -- changes of the metadata

    def _append_metadata(self, records: Sequence[ApiMessage], *, makes_room: bool = False) -> None:
        """Append to the metadata; what makes room may use what was held back for a full disk.

        Raises:
            StorageError: nothing was appended.
        """
        try:
            self.metadata.append(records)
        except DiskFull as error:
            self.note_full(error)
            if not makes_room:
                raise
            self.metadata.append(records)

    def _apply(self, decision: Decision, *, makes_room: bool = False) -> Outcome:
        if decision.error == codes.NONE:
            try:
                self._append_metadata(decision.records, makes_room=makes_room)
            except StorageError as error:
                return Outcome(codes.KAFKA_STORAGE_ERROR, str(error))
        return Outcome(decision.error, decision.message)

    def create_topic(
        self, name: str, partitions: int, configs: dict[str, str], *, validate_only: bool = False
    ) -> Outcome:
        """Create a topic; its logs are made when they are first used.

        Args:
            name: its name.
            partitions: how many it gets.
            configs: its configs, which have been validated.
            validate_only: tell only whether it could be done.
        """
        if name == METADATA_TOPIC:
            return Outcome(codes.INVALID_TOPIC_EXCEPTION, f"{name!r} is the broker's own")
        topic_id = checkpoints.new_uuid()
        decision = self.cluster.create_topic(name, topic_id, partitions, configs)
        if validate_only:
            return Outcome(decision.error, decision.message)
        outcome = self._apply(decision)
        if outcome.error != codes.NONE:
            return outcome
        self.wake_housekeeper()
        return outcome._replace(topic=self.cluster.topics[name])

    def delete_topic(self, topic: Topic) -> Outcome:
        """Delete a topic: its logs are gone at once, their files when that is stored."""
        outcome = self._apply(self.cluster.delete_topic(topic), makes_room=True)
        if outcome.error != codes.NONE:
            return outcome
        reason = StorageError(f"the topic {topic.name} was deleted")
        removals: list[Callable[[], None]] = []
        for partition in range(topic.partitions):
            try:
                removals.append(self.store.delete_log(topic.name, partition, reason))
            except StorageError as error:  # the next start finds the folder and removes it
                _LOG.error("%s", error)

        def stored(error: StorageError | None) -> None:
            # Until then a power cut takes the deletion back, and the records must be there.
            for remove in removals if error is None else ():
                self.remove_soon(remove)

        self.metadata.when_stored(stored)
        if self.loaded_groups is not None:
            self.loaded_groups.topic_deleted(topic)
        return outcome

    def create_partitions(
        self, topic: Topic, count: int, *, validate_only: bool = False
    ) -> Outcome:
        """Give a topic more partitions, `count` altogether."""
        decision = self.cluster.create_partitions(topic, count)
        if validate_only:
            return Outcome(decision.error, decision.message)
        return self._apply(decision)._replace(topic=topic)

    def apply_config_change(
        self, resource_type: int, resource_name: str, changes: dict[str, str | None]
    ) -> Outcome:
        """Set configs that have been validated; None takes one back to its default.

        Args:
            resource_type: `TOPIC_RESOURCE` or `BROKER_RESOURCE` of the cluster's state.
            resource_name: the topic, or the broker's id or "".
            changes: the new values.
        """
        outcome = self._apply(self.cluster.set_configs(resource_type, resource_name, changes))
        if outcome.error != codes.NONE:
            return outcome
        if resource_type == TOPIC_RESOURCE:
            changed = [self.cluster.topics[resource_name]]
        else:
            changed = list(self.cluster.topics.values())
        self.configs.changed()
        self.wake_housekeeper()
        for topic in changed:
            config = self.configs.topic_config(topic).log_config
            for partition in range(topic.partitions):
                log = self.store.logs.get((topic.name, partition))
                if log is not None:
                    log.configure(config)
                    if log.is_dirty and config.durable:
                        self.commit.add(log)
        return outcome

    def reserve_producer_id(self, then: Callable[[int, StorageError | None], None]) -> None:
        """Call `then` with a producer id that nobody else gets, once that is durably noted.

        Raises:
            StorageError: nothing can be written.
        """
        producer_id = next(self._producer_ids, None)
        if producer_id is None:
            first = self.cluster.next_producer_id
            self._append_metadata(self.cluster.reserve_producer_ids().records)
            self._producer_ids = iter(range(first, self.cluster.next_producer_id))
            producer_id = next(self._producer_ids)
        self.metadata.when_stored(lambda error: then(producer_id, error))

    # -- time

    def has_work(self) -> bool:
        """Tell, once, whether there is something to be made durable, or a deadline that is new."""
        groups = self.loaded_groups
        return self.commit.is_waiting or (groups is not None and groups.has_new_deadlines())

    def next_deadline_ms(self) -> float | None:
        """Return when `expire` must be called next, on the monotonic clock, or None."""
        waits_ms, groups = self.waits.next_deadline_ms(), self.loaded_groups
        groups_ms = None if groups is None else groups.next_deadline_ms()
        if waits_ms is None or groups_ms is None:
            return groups_ms if waits_ms is None else waits_ms
        return min(waits_ms, groups_ms)

    def expire(self, now_ms: float) -> None:
        """Do what is due at `now_ms` of the monotonic clock."""
        self.waits.expire(now_ms)
        if self.loaded_groups is not None:
            self.loaded_groups.expire(now_ms)

    def close(self) -> None:
        """Stop cleanly: everything is synced, and what still waits is told so.

        Raises:
            StorageError: something could not be synced.
        """
        running = self.commit.begin()
        if running is not None:
            self.commit.end(running.run())
        if self.loaded_groups is not None:
            self.loaded_groups.close()
        self._closing = True
        self.remove_files()
        self.store.close()
