"""The log of one partition: append, read, and how far readers may see.

Offsets, each exclusive but the first:

    log_start_offset <= high_watermark <= log_end_offset

`log_end_offset` is the next to be written. `high_watermark` is where readers stop: under
`durable` it is what a sync has made durable, so nobody ever reads what a power cut could take
back; otherwise it is the log's end. Whoever waits for an offset to be stored, or for anything new,
is called when the high watermark moves; state changes only in the thread that owns the log.

A sync is begun and ended by the owner (`begin_sync`, `end_sync`) and runs in between, in any
thread; what is appended meanwhile waits for the next one. After a failed sync nobody knows what is
on the disk: the log refuses everything until it is opened again.

Kafka: UnifiedLog, LocalLog.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import cython

from ottla.errors import CorruptLog, StorageError, codes
from ottla.log import checkpoints
from ottla.log.files import draft_of, interrupted
from ottla.log.leader_epochs import LeaderEpochs
from ottla.log.recovery import CLEANED, SWAP, Cut, aborted_transaction, load, unwritable
from ottla.log.recovery_point import Beginnings, RecoveryPoint
from ottla.log.retention import expired
from ottla.log.segment import SUFFIXES, Segment, file_name
from ottla.log.segments import Segments, TimestampedOffset
from ottla.log.sync import Sync
from ottla.records.batch import CONTROL
from ottla.records.markers import read_marker

if cython.compiled:
    from cython.cimports.ottla.log.segment import Segment
    from cython.cimports.ottla.log.sync import Sync
    from cython.cimports.ottla.records.batch import BatchHeader

if TYPE_CHECKING:
    from ottla.clock import Clock
    from ottla.log.compaction import Group, Plan
    from ottla.log.config import LogConfig
    from ottla.log.files import Files
    from ottla.log.producer_state import Duplicate, ProducerState
    from ottla.records.batch import BatchHeader
    from ottla.wire import Buffer

_PREFIX = struct.Struct(">qii")
_PREFIX_BYTES = _PREFIX.size
_BATCH_CHECK_BYTES = 1024

Stored = Callable[[StorageError | None], None]
"""Called when what was waited for is stored, or with the reason why it never will be."""


class PartitionLog:
    """One partition's log.

    Attributes:
        topic: its topic.
        partition: its number.
        topic_id: the topic's id, 16 bytes.
        log_start_offset: the first offset that can be read.
        log_end_offset: the next offset to be written.
        high_watermark: where readers stop, exclusive.
        recovery_point: where the next start begins its check after a crash.
        recovery_point_wanted: whether one is to be taken with the next sync.
        bytes_unchecked: how many bytes were appended since the last recovery point; a batch
            counts as `_BATCH_CHECK_BYTES` more, for it takes as long to be checked.
        leader_epoch: counts how often records may have been lost in an unclean stop.
        producers: what is known of idempotent producers.
        failed: why nothing can be written any more, or None.
        cuts: what was cut off when the log was opened.
    """

    if not cython.compiled:  # `open` reads them; for the compiled form partition_log.pxd says so
        producers: ProducerState
        _epochs: LeaderEpochs
        _segments: Segments
        _stored_segment: Segment
        _beginnings: Beginnings

    def __init__(
        self,
        files: Files,
        root: str,
        topic: str,
        partition: int,
        topic_id: bytes,
        config: LogConfig,
        clock: Clock,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.topic_id = topic_id
        self.config = config
        self.folder = f"{root}/{topic}-{partition}"
        self.log_start_offset = 0
        self.log_end_offset = 0
        self.high_watermark = 0
        self.recovery_point = 0
        self.recovery_point_wanted = False
        self.bytes_unchecked = 0
        self.failed: StorageError | None = None
        self.cuts: list[Cut] = []
        self._files = files
        self._root = root
        self._clock = clock
        self._stored_position = 0
        self._unsynced: dict[Segment, None] = {}
        self._new_names = True
        self._new_folder = True  # who made it may have ended before its name was durable
        self._unsaved: dict[Segment, None] = {}
        self._taken: RecoveryPoint | None = None
        self._waiting: deque[tuple[int, Stored]] = deque()
        self._watchers: dict[Callable[[], None], None] = {}

    # -- opening and closing

    @classmethod
    def open(
        cls,
        files: Files,
        root: str,
        topic: str,
        partition: int,
        topic_id: bytes,
        config: LogConfig,
        clock: Clock,
        *,
        recovery_point: int | None,
        log_start_offset: int = 0,
        log_end_offset_min: int = 0,
        contiguous_from: int = 0,
    ) -> PartitionLog:
        """Open a partition's log, or create it.

        Args:
            files: where its folder is.
            root: the folder of all partitions.
            topic: its topic.
            partition: its number.
            topic_id: the topic's id, 16 bytes.
            config: the topic's settings.
            clock: where time comes from.
            recovery_point: everything before this offset is known to be good; None where the
                store was stopped cleanly.
            log_start_offset: the first offset that can be read, as far as it was noted elsewhere.
            log_end_offset_min: everything before this offset is known to have been stored.
            contiguous_from: from this offset on no offset is missing: compaction came so far.

        Raises:
            CorruptLog: there is damage that leaves nothing to be read. Where the damage is only in
                some batches, the log is opened for reading, and `failed` says why.
        """
        log: PartitionLog = cls(files, root, topic, partition, topic_id, config, clock)
        metadata = f"{log.folder}/{checkpoints.PARTITION_METADATA}"
        found = checkpoints.decode_partition_metadata(files.read(metadata), metadata)
        if found is None:
            log._create(metadata)
        elif found != topic_id:
            raise StorageError(
                f"{log.folder} belongs to another topic of that name: its id is "
                f"{checkpoints.uuid_text(found)}, and not {checkpoints.uuid_text(topic_id)}",
                "Nothing of it was read or written.",
                ("Put it aside, or put back the metadata that it belongs to.",),
            )
        recovered = load(files, log.folder, config, recovery_point, contiguous_from)
        log._set_segments(recovered.segments)
        log.producers = recovered.producers
        log.producers.expire(clock.now_ms(), config.producer_expiration_ms)
        log._beginnings = Beginnings(recovered.beginnings)
        log.cuts = recovered.cuts
        log.log_end_offset = recovered.next_offset
        log.log_start_offset = max(log_start_offset, log._segments.first.base_offset)
        log.recovery_point = log.log_end_offset if recovery_point is None else recovery_point
        log._epochs = LeaderEpochs(files, log.folder, recovered.segments)
        end_offset = max(log.log_end_offset, log.log_start_offset)
        log._make_durable(recovered.checked)
        if recovered.damage is not None:
            log.failed = recovered.damage
        elif end_offset < log_end_offset_min:
            what = f"the log ends at offset {end_offset}, and had been stored up to "
            log.failed = unwritable(
                CorruptLog(log._active.path, log._active.size, f"{what}{log_end_offset_min}")
            )
        else:
            log._make_writable(recovered.checked, was_clean=recovery_point is None)
        log._advance(log.log_end_offset, log._active, log._active.size)
        return log

    def _make_durable(self, checked: list[Segment]) -> None:
        """Sync what was found after a crash, and its names: readers see all of it from now on."""
        for segment in checked:
            segment.log.begin_sync()()
            segment.log.end_sync()
        if checked:
            self._files.sync_folder(self.folder)
            self._files.sync_folder(self._root)

    def _make_writable(self, checked: list[Segment], *, was_clean: bool) -> None:
        """Begin a new epoch where something may be lost, and note what is to be saved."""
        if self.log_end_offset < self.log_start_offset:
            self._restart_at(self.log_start_offset)
            checked = []
        self._epochs.settle(self.log_end_offset, bump=not was_clean and self.log_end_offset > 0)
        for segment in checked:
            self._unsaved[segment] = None
            self.bytes_unchecked += segment.size

    def _create(self, metadata: str) -> None:
        """Make the folder; names in it become durable with the first sync."""
        self._files.make_folder(self.folder)
        self._files.write_draft(metadata, checkpoints.encode_partition_metadata(self.topic_id))
        self._files.rename(draft_of(metadata), metadata)

    def _set_segments(self, segments: list[Segment]) -> None:
        self._segments = Segments(segments)
        self._stored_segment = segments[-1]

    def _restart_at(self, offset: int) -> None:
        """Go on at an offset behind everything that is there. Kafka: truncateFullyAndStartAt."""
        for segment in self._segments:
            segment.delete()
        self._unsaved.clear()
        self._set_segments([Segment.create(self._files, self.folder, offset, self.config)])
        self.log_end_offset = offset

    @property
    def leader_epoch(self) -> int:
        """The current leader epoch."""
        return self._epochs.current

    @property
    def size(self) -> int:
        """Bytes of all batches."""
        return self._segments.size

    def close(self) -> None:
        """Sync everything and write the indexes and the producers' snapshot.

        Raises:
            StorageError: something of it failed; the store was not stopped cleanly then.
        """
        sync = self.begin_sync()
        error = sync.run()
        self.end_sync(sync, error)
        if error is not None:
            raise error
        if self.failed is None and self._unsaved:
            point = self._take_recovery_point()
            point.write(self._files)
            self.publish(point)
            point.finish(self._files)
            self.recovery_point = point.offset
        for segment in self._segments:
            segment.close()
        self._fail(StorageError(f"the log of {self.topic}-{self.partition} is closed"))

    def configure(self, config: LogConfig) -> None:
        """Go on with other settings; what waits for a sync is stored where none is wanted now."""
        self.config = config
        for segment in self._segments:
            segment.config = config
        if not config.durable and self.failed is None:
            self._advance(self.log_end_offset, self._active, self._active.size)

    def abandon(self, reason: StorageError) -> None:
        """Let go of the files of a deleted partition; whoever waits is told the reason."""
        for segment in self._segments:
            segment.close()
        self._fail(reason)

    # -- writing

    @property
    def _active(self) -> Segment:
        return self._segments.active

    def check_producer(self, header: BatchHeader) -> Duplicate | int:
        """Judge a batch by its producer's sequences; see `ProducerState.check`."""
        found = self.producers.check(header)
        if found == codes.OUT_OF_ORDER_SEQUENCE_NUMBER:
            entry = self.producers.may_have_forgotten(header)
            if entry is not None:
                last = self._segments.last_batches_of(header, entry.first_offset)
                self.producers.recall(entry, last)
                found = self.producers.check(header)
        return found

    def append(self, batch: Buffer, header: BatchHeader) -> int:
        """Append one batch that has been validated.

        Args:
            batch: its bytes; its base offset and leader epoch are replaced.
            header: its header.

        Returns:
            The offset of its first record.

        Raises:
            DiskFull: there is no space; nothing was appended.
            StorageError: the write failed, or the log has failed before.
        """
        if self.failed is not None:
            raise self.failed
        if not self._epochs.is_ready:
            self._epochs.write()
        base_offset: cython.longlong = self.log_end_offset
        last_offset: cython.longlong = base_offset + header.last_offset_delta
        size: cython.longlong = header.size
        now_ms: cython.longlong = self._clock.now_ms()
        prefix = _PREFIX.pack(base_offset, size - 12, self._epochs.current)
        rest = memoryview(batch)[_PREFIX_BYTES:]
        active: Segment = self._segments.active
        try:
            if active.must_roll(size, last_offset, header.max_timestamp, now_ms):
                active = self._roll()
            active.append([prefix, rest], header, last_offset)
            self._unsynced[active] = None
            self._unsaved[active] = None
            self.bytes_unchecked += size + _BATCH_CHECK_BYTES
            self.log_end_offset = last_offset + 1
            if header.producer_id >= 0:
                self._note_producer(batch, header, base_offset)
        except StorageError as error:
            if self._active.log.is_torn:  # only a start that checks everything cuts it off
                self._fail(error)
            raise
        except BaseException as error:
            self._fail(interrupted(f"{self.topic}-{self.partition}", error))
            raise
        if not self.config.durable:
            self._advance(self.log_end_offset, active, active.size)
        return base_offset

    def _note_producer(
        self, batch: Buffer, header: BatchHeader, base_offset: cython.longlong
    ) -> None:
        marker = read_marker(batch, header) if header.attributes & CONTROL else None
        completed = self.producers.update(header, base_offset, marker)
        if completed is not None and completed.is_aborted:
            self._active.aborted.append(aborted_transaction(completed, self.producers))

    def _roll(self) -> Segment:
        segment = Segment.create(self._files, self.folder, self.log_end_offset, self.config)
        self._segments.append(segment)
        self._new_names = True
        if len(self.producers):
            self._beginnings.note(segment.base_offset, self.producers)
        return segment

    # -- durability

    @property
    def is_dirty(self) -> bool:
        """Whether something was written that no sync has covered."""
        return bool(self._unsynced)

    def begin_sync(self) -> Sync:
        """Begin to make everything durable that was written so far.

        Raises:
            StorageError: a file cannot be opened; whoever began it calls `sync_failed`.
        """
        segments = list(self._unsynced)
        self._unsynced.clear()
        segment: Segment
        jobs: list[Callable[[], None]] = []
        try:
            for segment in segments:
                jobs.append(segment.log.begin_sync())
        except StorageError:
            for segment in segments[: len(jobs)]:
                segment.log.end_sync()
            raise
        if segments and self._new_names:
            self._new_names = False
            jobs.append(partial(self._files.sync_folder, self.folder))
        if segments and self._new_folder:
            self._new_folder = False
            jobs.append(partial(self._files.sync_folder, self._root))
        sync = Sync(jobs, segments, self.log_end_offset, self._active)
        if self.recovery_point_wanted:
            self.recovery_point_wanted = False
            sync.recovery_point = self._take_recovery_point()
        return sync

    def end_sync(self, sync: Sync, error: StorageError | None) -> None:
        """Take note of how a sync ended; whoever waited for it is called."""
        segment: Segment
        for segment in sync.written:
            segment.log.end_sync()
        if error is not None:
            self.sync_failed(error)
        if self.failed is not None:
            return
        if sync.recovery_point is not None:
            self._taken = sync.recovery_point
        if sync.offset > self.high_watermark:
            self._advance(sync.offset, sync.segment, sync.position)

    def sync_failed(self, error: StorageError) -> None:
        """Refuse everything from now on: nobody knows what is on the disk."""
        self._fail(
            StorageError(
                f"the log of {self.topic}-{self.partition} could not be made durable: {error.what}",
                "Records since the last good sync were not acknowledged and may be lost.",
                ("Restart the broker: it recovers from what is on the disk.",),
            )
        )

    # -- recovery points

    @property
    def has_unsaved(self) -> bool:
        """Whether there is something behind the recovery point."""
        return bool(self._unsaved) and self.failed is None

    def _take_recovery_point(self) -> RecoveryPoint:
        self.producers.expire(self._clock.now_ms(), self.config.producer_expiration_ms)
        self.bytes_unchecked = 0
        offset, unsaved, producers = self.log_end_offset, list(self._unsaved), self.producers
        epochs = self._epochs.waiting()
        return RecoveryPoint(self.folder, offset, unsaved, producers.snapshot(), epochs)

    def taken_recovery_point(self) -> RecoveryPoint | None:
        """Return the recovery point that was taken with a sync that has ended well, once.

        Whoever asks writes its files, calls `publish`, finishes it, and calls
        `move_recovery_point`.
        """
        taken, self._taken = self._taken, None
        return taken if self.failed is None else None

    def publish(self, point: RecoveryPoint) -> None:
        """Put a recovery point's files in their places."""
        point.publish(self._files, self._segments)
        self._epochs.saved()
        for segment, size in point.segments.items():
            if segment.size == size:
                self._unsaved.pop(segment, None)

    def move_recovery_point(self, point: RecoveryPoint) -> None:
        """Take note that a recovery point's files are durable."""
        self._beginnings.forget(self.recovery_point)
        self.recovery_point = max(self.recovery_point, point.offset)
        for segment, _ in self._segments.closed():
            if segment not in self._unsaved:
                segment.drop_indexes()

    def _fail(self, error: StorageError) -> None:
        if self.failed is None:
            self.failed = error
        waiting, self._waiting = self._waiting, deque()
        for _, stored in waiting:
            stored(self.failed)
        self._call_watchers()

    def _advance(
        self, offset: cython.longlong, segment: Segment, position: cython.longlong
    ) -> None:
        """Move the high watermark, and call whoever waits for it.

        Readers see all of the segments before `segment`, and of that what is before `position`.
        """
        self._stored_segment = segment
        self._stored_position = position
        self.high_watermark = offset
        while self._waiting and self._waiting[0][0] <= offset:
            self._waiting.popleft()[1](None)
        if self._watchers:
            self._call_watchers()

    def _call_watchers(self) -> None:
        for watcher in list(self._watchers):
            watcher()

    def when_stored(self, offset_end: cython.longlong, stored: Stored) -> None:
        """Call `stored` once everything before `offset_end` is stored; at once where it is."""
        if self.failed is not None:
            stored(self.failed)
        elif offset_end <= self.high_watermark:
            stored(None)
        else:
            self._waiting.append((offset_end, stored))

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` when high watermark or start move, and on failure, until `unwatch`."""
        self._watchers[watcher] = None

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Stop calling `watcher`."""
        self._watchers.pop(watcher, None)

    # -- reading

    def read(self, offset: int, bytes_max: int, *, at_least_one: bool) -> Buffer:
        """Read whole batches from `offset` up to the high watermark, out of one segment.

        Args:
            offset: the first offset wanted; between the log's start and its end.
            bytes_max: how many bytes at most.
            at_least_one: read the first batch even where it is larger than `bytes_max`.

        Returns:
            The batches; the first may begin before `offset`. Nothing where `offset` is the high
            watermark.

        Raises:
            CorruptLog: there is damage where the batches should be.
        """
        if offset >= self.high_watermark or (bytes_max <= 0 and not at_least_one):
            return b""
        for segment in self._segments.reaching(offset):
            if offset < segment.base_offset and segment.is_contiguous:
                break
            is_last = segment is self._stored_segment
            end = self._stored_position if is_last else segment.size
            position = segment.position_of(offset)
            if position < end:
                return segment.read(position, bytes_max, end, at_least_one)
            if is_last:
                break
        segment = self._segments.reaching(offset)[0]
        raise CorruptLog(segment.path, segment.size, f"offset {offset} is not there")

    def bytes_from(self, offset: int) -> int:
        """Return how many bytes can be read from the segment on that an offset is in."""
        return self._segments.bytes_from(offset, self._stored_segment, self._stored_position)

    def offset_at(self, timestamp_ms: int) -> TimestampedOffset | None:
        """Return the first record stamped `timestamp_ms` or later, below the high watermark."""
        for segment in self._segments:
            found = segment.first_at_or_after(timestamp_ms, self.log_start_offset)
            if found is not None:
                return TimestampedOffset(*found) if found[0] < self.high_watermark else None
        return None

    def max_timestamp(self) -> TimestampedOffset | None:
        """Return the first record that has the largest timestamp; None in an empty log."""
        largest = max(segment.max_timestamp for segment in self._segments)
        return self.offset_at(largest) if largest >= 0 else None

    def end_of_epoch(self, leader_epoch: int) -> tuple[int, int]:
        """Return (epoch, end offset) of a leader epoch; see `LeaderEpochs.end_of`."""
        return self._epochs.end_of(leader_epoch, self.log_end_offset)

    # -- removing

    def move_start(self, offset: int) -> None:
        """Make everything before `offset` unreadable.

        The caller notes the new start durably, and calls `remove_old_segments` then.

        Args:
            offset: the new first offset; at most the high watermark.
        """
        self.log_start_offset = max(self.log_start_offset, offset)
        self._call_watchers()

    def apply_retention(self) -> Callable[[], None] | None:
        """Move the start behind what is too old or too much; see `remove_old_segments`.

        Only whole segments go, and only what readers could see. A segment is as old as the newest
        record in it says.
        Kafka: UnifiedLog.deleteOldSegments.
        """
        if self.config.delete:
            ends = [*self._segments.closed(), (self._active, self.log_end_offset)]
            readable = [segment for segment, end in ends if end <= self.high_watermark]
            count = expired(readable, self.size, self.config, self._clock.now_ms())
            if count:
                self.move_start(ends[count - 1][1])
        return self.remove_old_segments()

    def remove_old_segments(self) -> Callable[[], None] | None:
        """Let go of the segments that end before the log's start.

        Their files are renamed at once; where nothing is left, a new segment is begun. What must
        stay until the next recovery point, since the producers' state behind it stands in no
        snapshot, goes with a later call.

        Returns:
            What removes the files, in any thread, or None where there are none.

        Raises:
            StorageError: a file cannot be written or renamed; what is left goes with a later call.
        """
        if (
            self.log_start_offset == self.high_watermark == self.log_end_offset
            and self._active.size
            and self.failed is None
        ):
            self._roll()
        until = self._removable_until()
        doomed = self._beginnings.write(self._files, self.folder, until)
        for segment, end in self._segments.closed():
            if end > until:
                break
            doomed += segment.hide()
            self._segments.take_before(end)
            self._unsynced.pop(segment, None)
            self._unsaved.pop(segment, None)
            if segment is self._stored_segment:
                self._stored_segment, self._stored_position = self._segments.first, 0
        return partial(self._remove, doomed) if doomed else None

    def _removable_until(self) -> int:
        """Return where the first segment begins that must stay."""
        until = self._segments.first.base_offset
        for _, end in self._segments.closed():
            is_known = end in self._beginnings or end <= self.recovery_point
            if end <= self.log_start_offset and (is_known or not len(self.producers)):
                until = end
        return until

    # -- compaction

    @property
    def last_stable_offset(self) -> int:
        """The first offset that an open transaction holds back; the high watermark without one."""
        return min(self.high_watermark, self.producers.first_open_offset())

    def plan_compaction(self, first_dirty: int) -> Plan | None:
        """Return what compaction could do now, or None where there is nothing.

        Args:
            first_dirty: everything before this offset has been compacted.
        """
        config = self.config
        if self.failed is not None or not config.compact:
            return None
        segments: list[tuple[Segment, int]] = []
        for segment, end in self._segments.closed():
            if end > self.last_stable_offset or segment is self._stored_segment:
                break
            segments.append((segment, end))
        first_dirty = first_dirty if first_dirty <= self.log_end_offset else 0
        now_ms = self._clock.now_ms()
        from ottla.log.compaction import plan

        return plan(self.folder, config, segments, first_dirty, self.producers, now_ms)

    def arm(self, group: Group) -> bool:
        """Let a cleaned segment be what a crash from now on leaves; tells whether it may be.

        The caller makes the folder durable then, and calls `replace`.
        """
        if not self._replaced(group):
            return False
        self._rename_all(group.base_offset, CLEANED, SWAP)
        return True

    def _replaced(self, group: Group) -> list[Segment]:
        """Return what a group replaces; nothing where that is no longer possible."""
        return [] if self.failed is not None else self._segments.of_group(group)

    def _rename_all(self, base_offset: int, old: str, new: str) -> None:
        """Change the suffix of a segment's files; the batches come last."""
        names = self._files.list(self.folder)
        for suffix in reversed(SUFFIXES):
            name = file_name(base_offset, suffix)
            if name + old in names:
                self._files.rename(f"{self.folder}/{name}{old}", f"{self.folder}/{name}{new}")

    def replace(self, group: Group) -> Callable[[], None]:
        """Put a cleaned segment in the place of those that it replaces, if they are still there.

        Returns:
            What removes the files that are needed no longer, in any thread.
        """
        replaced = self._replaced(group)
        if not replaced:
            names = [f"{file_name(group.base_offset, suffix)}{SWAP}" for suffix in SUFFIXES]
            return partial(self._remove, [f"{self.folder}/{name}" for name in names])
        doomed: list[str] = []
        for segment in replaced:
            self._unsynced.pop(segment, None)
            self._unsaved.pop(segment, None)
            doomed += segment.hide()
        self._rename_all(group.base_offset, SWAP, "")
        cleaned = Segment.open(self._files, self.folder, group.base_offset, self.config)
        self._segments.replace(replaced, cleaned)
        return partial(self._remove, doomed)

    def _remove(self, paths: list[str]) -> None:
        self._files.sync_folder(self.folder)
        for path in paths:
            self._files.remove(path)
