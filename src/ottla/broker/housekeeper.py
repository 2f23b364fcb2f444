"""What a broker does by itself, in a thread of its own: recovery points, retention, room on disk.

    recovery points   once a minute, and for a log that has grown much, so that little is to be
                      checked after a crash (log.flush.offset.checkpoint.interval.ms)
    the first look    logs are opened when they are first used; after a crash all are, one by one,
                      so that damage is found soon
    retention         what is old or too much is removed (log.retention.check.interval.ms), and so
                      are the files of what was deleted
    a full disk       once a second it is tried whether there is room again
    compaction        a thread is begun for it as soon as there is a compacted topic
    groups            they are loaded soon after a start, where nobody has asked for them before,
                      and what they committed long ago is removed
                      (offsets.retention.check.interval.ms)

Whatever takes long runs without the broker's lock.

Kafka: LogManager's scheduled tasks.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ottla.broker.internal_topics import GROUPS_TOPIC
from ottla.errors import Closed, KafkaError, StorageError
from ottla.log.group_commit import round_of

if TYPE_CHECKING:
    from ottla.broker.cleaner import Cleaner
    from ottla.broker.engine import Engine
    from ottla.log.partition_log import PartitionLog

_FULL_CHECK_S = 1.0
_GROWN_FOR_S = 1.0
"""How long a log that has grown much may grow on: more syncs would take the disk's time, and the
processor's, from who writes just now, and it is checked in about as long after a crash."""

_FIRST_GROUPS_S = 1.0
"""A store that is open for less, as by `ottla send`, does without them."""

_FIRST_RETENTION_S = 30.0
_LOGS_AT_ONCE = 100
_DRIVE_S = 0.1
_LOG = logging.getLogger("ottla.broker")


class Driven(Protocol):
    """What the housekeeper needs of a broker.

    Attributes:
        path: the folder of its store; None where that is in memory.
        engine: its state.
    """

    path: str | None
    engine: Engine

    def wake(self) -> None:
        """Have the next round of syncs begun, and end a `drive` that waits."""
        ...

    def drive(self, timeout_s: float) -> None:
        """Do one unit of the work that is waiting, or wait for others to do it."""
        ...


class Housekeeper:
    """The thread; its tasks can be called without it.

    Args:
        broker: the broker.
    """

    def __init__(self, broker: Driven) -> None:
        self._broker = broker
        self._engine = broker.engine
        self._files = self._engine.files.for_thread()
        self._woken = threading.Event()
        self._cleaner: Cleaner | None = None
        self._stopping = False
        self._grown_until_s: float | None = None  # when those that have grown are saved
        self._thread = threading.Thread(target=self._run, name="ottla-housekeeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._engine.wake_housekeeper = self._woken.set
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for it."""
        self._stopping = True
        self._woken.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        if self._cleaner is not None:
            self._cleaner.stop()

    # -- the thread

    def _run(self) -> None:
        configs, clock = self._engine.configs, self._engine.clock
        checkpoint_s = configs.log_flush_offset_checkpoint_interval_ms / 1000
        retention_s = configs.log_retention_check_interval_ms / 1000
        offsets_s = configs.offsets_retention_check_interval_ms / 1000
        now_s = clock.monotonic_ms() / 1000
        due = {
            self.load_groups: now_s + _FIRST_GROUPS_S,
            self.save_all: now_s + checkpoint_s,
            self.apply_retention: now_s + min(_FIRST_RETENTION_S, retention_s),
            self.expire_offsets: now_s + offsets_s,
        }
        every = {
            self.load_groups: math.inf,
            self.save_all: checkpoint_s,
            self.apply_retention: retention_s,
            self.expire_offsets: offsets_s,
        }
        self._guarded(self.look_at_all)
        self._guarded(self._start_cleaner)
        while not self._stopping:
            is_full = self._engine.store.full is not None
            now_s = clock.monotonic_ms() / 1000
            wait_s = min(due.values()) - now_s
            if self._grown_until_s is not None:
                wait_s = min(wait_s, self._grown_until_s - now_s)
            self._woken.wait(max(0.0, min(wait_s, _FULL_CHECK_S) if is_full else wait_s))
            self._woken.clear()
            if self._stopping:
                return
            self._guarded(self._engine.remove_files)
            self._guarded(self.heal)
            self._guarded(self._save_grown)
            self._guarded(self._start_cleaner)
            self._guarded(self._load_waiting_groups)
            now_s = clock.monotonic_ms() / 1000
            for task, at_s in due.items():
                if at_s <= now_s and not self._stopping:
                    self._guarded(task)
                    due[task] = clock.monotonic_ms() / 1000 + every[task]

    def _guarded(self, task: Callable[[], None]) -> None:
        """Run a task; what fails is logged, and tried again when its time comes."""
        try:
            task()
        except Closed:
            self._stopping = True
        except KafkaError as error:
            _LOG.error("%s", error)
        except Exception:
            _LOG.exception("a task of the housekeeper failed")

    def heal(self) -> None:
        """Go on after the disk was full, if there is room again."""
        engine = self._engine
        with engine.lock:
            if engine.store.full is not None and engine.store.heal():
                _LOG.warning("there is room again where %s is: writing goes on", engine.store.path)

    def _start_cleaner(self) -> None:
        if self._cleaner is not None or not self._engine.configs.log_cleaner_enable:
            return
        if self._engine.compacted_topics():
            from ottla.broker.cleaner import Cleaner

            self._cleaner = Cleaner(self._engine)
            self._cleaner.start()

    def look_at_all(self) -> None:
        """Open all logs after a stop that was not clean: what is damaged is told now."""
        engine = self._engine
        if engine.store.was_clean:
            return
        for topic, partition in engine.partitions():
            if self._stopping:
                return
            with engine.lock:
                engine.log_of(topic, partition)
        engine.store.all_checked = True
        self.save_all()

    # -- groups

    def load_groups(self) -> None:
        """Load what is known of groups, and let their members' sessions begin."""
        if GROUPS_TOPIC in self._engine.cluster.topics:
            self._engine.groups.load_all()
            self._broker.wake()

    def _load_waiting_groups(self) -> None:
        if self._engine.loaded_groups is not None:
            self._engine.loaded_groups.load_waiting()

    def expire_offsets(self) -> None:
        """Remove offsets that are kept no longer."""
        if self._engine.loaded_groups is not None:
            self._engine.loaded_groups.expire_offsets()
            self._broker.wake()

    # -- recovery points

    def _save_grown(self) -> None:
        """Move the recovery points of logs that have grown much, when the first of them has had
        its time."""
        if not self._engine.has_grown_logs:
            return
        now_s = self._engine.clock.monotonic_ms() / 1000
        if self._grown_until_s is None:
            self._grown_until_s = now_s + _GROWN_FOR_S
        if now_s < self._grown_until_s:
            return
        self._grown_until_s = None
        with self._engine.lock:
            grown = self._engine.grown_logs()
        self._save(grown)

    def save_all(self) -> None:
        """Move the recovery points of all logs that have grown."""
        with self._engine.lock:
            unsaved = [log for log in self._engine.all_logs() if log.has_unsaved]
        self._save(unsaved)

    def _save(self, logs: list[PartitionLog]) -> None:
        """Move the recovery points of some logs to where they end now."""
        if self._broker.path is None or not logs:
            return
        for start in range(0, len(logs), _LOGS_AT_ONCE):
            if self._stopping:
                return
            self._save_part(logs[start : start + _LOGS_AT_ONCE])
        with self._engine.lock:
            note = self._engine.store.note_recovery_points()
        note()

    def _save_part(self, logs: list[PartitionLog]) -> None:
        engine = self._engine
        ended = threading.Event()
        for log in logs:
            if not log.config.durable:
                self._write_back(log)

        def note_end(error: StorageError | None) -> None:
            ended.set()
            self._broker.wake()

        with engine.lock:
            for log in logs:
                log.recovery_point_wanted = True
                engine.commit.add(log)
            engine.commit.add_job(lambda: None, note_end)
        self._broker.wake()
        while not ended.is_set() and not self._stopping:
            self._broker.drive(_DRIVE_S)
        for log in logs:
            with engine.lock:
                point = log.taken_recovery_point()
            if point is None:
                continue
            try:
                point.write(self._files)
                with engine.lock:
                    if log.failed is not None:
                        continue
                    log.publish(point)
                point.finish(self._files)
            except StorageError as error:
                with engine.lock:
                    if log.failed is None:
                        _LOG.error("%s", error)
                continue
            with engine.lock:
                log.move_recovery_point(point)

    def _write_back(self, log: PartitionLog) -> None:
        """Sync a log that nobody waits for, so that the round of its recovery point, which others
        may wait for, has little left to write."""
        with self._engine.lock:
            written_back = round_of([log], [])
        errors = written_back.run()
        with self._engine.lock:
            written_back.end(errors)

    # -- retention

    def apply_retention(self) -> None:
        """Remove what is too old or too much."""
        engine = self._engine
        for topic, partition in engine.partitions():
            if self._stopping:
                return
            with engine.lock:
                engine.remove_soon(engine.apply_retention(topic, partition))
            engine.remove_files()
