"""What a partition remembers of its idempotent producers: the last sequences of each.

A batch whose sequences are the next is appended; one that was appended before is answered with its
old offset; anything else is refused. The last five batches of each producer are remembered, since
a client may have five requests under way.

A client whose requests were not answered before a restart sends all of them again, and none may be
stored twice. So a snapshot holds all that are remembered: the segments that they lie in may be
gone. Kafka's own holds only the last batch of each producer; ours has an entry for each, the oldest
first, and who reads one entry for a producer is left with the last. What a snapshot leaves out is
looked up in the log when a batch comes that may be one of those (`may_have_forgotten`, `recall`).

Kafka: ProducerStateManager, ProducerAppendInfo, ProducerStateEntry; KIP-98, KIP-360.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import cython

from ottla.errors import CorruptLog, DecodeError, codes
from ottla.protocol.codec import decode, encode
from ottla.protocol.messages.storage_records import ProducerSnapshot
from ottla.records.batch import CONTROL, TRANSACTIONAL
from ottla.wire.crc32c import crc32c

if cython.compiled:
    from cython.cimports.ottla.records.batch import BatchHeader

if TYPE_CHECKING:
    from ottla.records.batch import BatchHeader
    from ottla.records.markers import Marker

BATCHES_REMEMBERED = 5
SEQUENCE_MAX = 0x7FFFFFFF
NO_EPOCH = -1

_NO_OFFSET = (1 << 63) - 1

_SNAPSHOT_VERSION = 1
_VERSION_BYTES = 2
_CRC_END = 6


class BatchMemory:
    """One remembered batch; offsets and sequences are inclusive."""

    def __init__(
        self, first_sequence: int, last_sequence: int, last_offset: int, timestamp: int
    ) -> None:
        self.first_sequence = first_sequence
        self.last_sequence = last_sequence
        self.last_offset = last_offset
        self.timestamp = timestamp


_NO_BATCH = BatchMemory(-1, -1, -1, -1)


class CompletedTransaction(NamedTuple):
    """A transaction that a marker has ended; its last offset, inclusive, is that of the marker."""

    producer_id: int
    first_offset: int
    last_offset: int
    is_aborted: bool


class ProducerEntry:
    """What is remembered of one producer id.

    Attributes:
        epoch: the producer's epoch.
        batches: its last batches, the oldest first.
        last_timestamp: the largest timestamp of its last batch.
        coordinator_epoch: epoch of the coordinator that wrote its last marker, or -1.
        current_txn_first_offset: where its open transaction began, or -1.
        is_incomplete: whether the log may hold batches of this epoch before the first of `batches`.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.batches: deque[BatchMemory] = deque(maxlen=BATCHES_REMEMBERED)
        self.last_timestamp = -1
        self.coordinator_epoch = -1
        self.current_txn_first_offset = -1
        self.is_incomplete = False

    @property
    def first_offset(self) -> int:
        """The first offset of the first remembered batch."""
        first = self.batches[0]
        return first.last_offset - ((first.last_sequence - first.first_sequence) & SEQUENCE_MAX)

    def set_epoch(self, epoch: int) -> None:
        """Go on with another epoch, whose sequences begin anew."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.batches.clear()
            self.is_incomplete = False


class Duplicate(NamedTuple):
    """A batch that was appended before: its offsets then, inclusive, and its timestamp."""

    base_offset: int
    last_offset: int
    timestamp: int


def follows(last: int, first: int) -> bool:
    """Tell whether sequence `first` is the one behind `last`; 0 follows 2**31 - 1."""
    return first == (0 if last == SEQUENCE_MAX else last + 1)


class ProducerState:
    """All producers of one partition."""

    def __init__(self) -> None:
        self._entries: dict[int, ProducerEntry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, producer_id: int) -> ProducerEntry | None:
        """Return what is remembered of a producer, or None."""
        return self._entries.get(producer_id)

    def check(self, header: BatchHeader) -> Duplicate | int:
        """Judge a batch before it is appended.

        Returns:
            `codes.NONE` where it may be appended, an error code where it may not, or the
            `Duplicate` that it is.
        """
        entry: ProducerEntry | None = self._entries.get(header.producer_id)
        batch: BatchMemory
        if entry is None:
            return codes.NONE
        if header.producer_epoch < entry.epoch:
            return codes.INVALID_PRODUCER_EPOCH
        if header.producer_epoch > entry.epoch:
            if header.base_sequence == 0 or entry.epoch == NO_EPOCH:
                return codes.NONE
            return codes.OUT_OF_ORDER_SEQUENCE_NUMBER
        batches = entry.batches
        if batches:
            batch = batches[-1]
            if header.base_sequence == batch.last_sequence + 1:
                return codes.NONE  # five batches do not go round all sequences: it is none of them
        wanted = (header.base_sequence, header.last_sequence)
        for batch in batches:
            if (batch.first_sequence, batch.last_sequence) == wanted:
                first_offset = batch.last_offset - header.last_offset_delta
                return Duplicate(first_offset, batch.last_offset, batch.timestamp)
        last_sequence = batches[-1].last_sequence if batches else -1
        if follows(last_sequence, header.base_sequence):
            return codes.NONE
        return codes.OUT_OF_ORDER_SEQUENCE_NUMBER

    def may_have_forgotten(self, header: BatchHeader) -> ProducerEntry | None:
        """Return the entry of a batch's producer where it may be one that only the log knows."""
        entry = self._entries.get(header.producer_id)
        if entry is None or not entry.is_incomplete or header.producer_epoch != entry.epoch:
            return None
        return entry if 0 < len(entry.batches) < BATCHES_REMEMBERED else None

    def recall(self, entry: ProducerEntry, headers: Iterable[BatchHeader]) -> None:
        """Remember the batches that the log has of a producer before those that are remembered.

        Args:
            entry: the producer's entry.
            headers: the last of its batches before them, the oldest first.
        """
        known = list(entry.batches)
        missing = BATCHES_REMEMBERED - len(known)
        recalled = [_memory_of(header, header.base_offset) for header in headers]
        entry.batches.clear()
        entry.batches.extend(recalled[-missing:] + known)
        entry.is_incomplete = False

    def update(
        self, header: BatchHeader, base_offset: cython.longlong, marker: Marker | None = None
    ) -> CompletedTransaction | None:
        """Remember a batch that was appended at `base_offset`.

        Args:
            header: its header.
            base_offset: its base offset.
            marker: what it says where it is a marker.

        Returns:
            The transaction that it ended, if any.
        """
        if header.producer_id < 0 or (header.attributes & CONTROL and marker is None):
            return None
        entry: ProducerEntry | None = self._entries.get(header.producer_id)
        if entry is None:
            entry = self._entries[header.producer_id] = ProducerEntry(header.producer_epoch)
        if entry.epoch != header.producer_epoch:
            entry.set_epoch(header.producer_epoch)
        entry.last_timestamp = header.max_timestamp
        if marker is not None:
            return self._end_transaction(header, entry, base_offset, marker)
        if header.attributes & TRANSACTIONAL and entry.current_txn_first_offset < 0:
            entry.current_txn_first_offset = base_offset
        entry.batches.append(_memory_of(header, base_offset))
        return None

    @staticmethod
    def _end_transaction(
        header: BatchHeader, entry: ProducerEntry, offset: int, marker: Marker
    ) -> CompletedTransaction | None:
        first_offset, entry.current_txn_first_offset = entry.current_txn_first_offset, -1
        entry.coordinator_epoch = marker.coordinator_epoch
        if first_offset < 0:
            return None
        return CompletedTransaction(header.producer_id, first_offset, offset, marker.is_abort)

    def first_open_offset(self) -> int:
        """Return where the oldest open transaction begins; a very large offset without one."""
        return min(
            (
                entry.current_txn_first_offset
                for entry in self._entries.values()
                if entry.current_txn_first_offset >= 0
            ),
            default=_NO_OFFSET,
        )

    def last_offsets(self) -> dict[int, int]:
        """Return the last offset of each producer, by producer id."""
        return {
            producer_id: entry.batches[-1].last_offset
            for producer_id, entry in self._entries.items()
            if entry.batches
        }

    def expire(self, now_ms: int, expiration_ms: int) -> None:
        """Forget producers that have sent nothing for `expiration_ms`."""
        limit = now_ms - expiration_ms
        for producer_id, entry in list(self._entries.items()):
            if entry.last_timestamp < limit and entry.current_txn_first_offset < 0:
                del self._entries[producer_id]

    def snapshot(self) -> bytes:
        """Return the state as the content of a `.snapshot` file."""
        entries = [
            _snapshot_of(producer_id, entry, batch)
            for producer_id, entry in self._entries.items()
            for batch in entry.batches or (_NO_BATCH,)
        ]
        body = encode(ProducerSnapshot(producer_entries=entries), _SNAPSHOT_VERSION)
        version = _SNAPSHOT_VERSION.to_bytes(_VERSION_BYTES, "big")
        entries_bytes = body[_CRC_END - _VERSION_BYTES :]
        return version + crc32c(entries_bytes).to_bytes(4, "big") + entries_bytes

    @classmethod
    def load(cls, content: bytes, path: str) -> ProducerState:
        """Read a `.snapshot` file.

        Raises:
            CorruptLog: it is damaged.
        """
        if int.from_bytes(content[:_VERSION_BYTES], "big") != _SNAPSHOT_VERSION:
            raise CorruptLog(path, 0, "a version that is not known")
        try:
            snapshot = decode(ProducerSnapshot, content[_VERSION_BYTES:], _SNAPSHOT_VERSION)
        except DecodeError as error:
            raise CorruptLog(path, _VERSION_BYTES, error.what) from error
        if crc32c(content[_CRC_END:]) != snapshot.crc:
            raise CorruptLog(path, _VERSION_BYTES, "the checksum is wrong")
        state: ProducerState = cls()
        for each in snapshot.producer_entries:
            entry = state._entries.setdefault(each.producer_id, ProducerEntry(each.epoch))
            entry.set_epoch(each.epoch)
            entry.last_timestamp = each.timestamp
            entry.coordinator_epoch = each.coordinator_epoch
            entry.current_txn_first_offset = each.current_txn_first_offset
            entry.is_incomplete = True
            if each.last_sequence >= 0:
                first = (each.last_sequence - each.offset_delta) & SEQUENCE_MAX
                entry.batches.append(
                    BatchMemory(first, each.last_sequence, each.last_offset, each.timestamp)
                )
        return state


def _snapshot_of(
    producer_id: int, entry: ProducerEntry, batch: BatchMemory
) -> ProducerSnapshot.ProducerEntry:
    is_last = not entry.batches or batch is entry.batches[-1]
    return ProducerSnapshot.ProducerEntry(
        producer_id=producer_id,
        epoch=entry.epoch,
        last_sequence=batch.last_sequence,
        last_offset=batch.last_offset,
        offset_delta=(batch.last_sequence - batch.first_sequence) & SEQUENCE_MAX,
        timestamp=entry.last_timestamp if is_last else batch.timestamp,
        coordinator_epoch=entry.coordinator_epoch,
        current_txn_first_offset=entry.current_txn_first_offset,
    )


def _memory_of(header: BatchHeader, base_offset: cython.longlong) -> BatchMemory:
    first: cython.longlong = header.base_sequence
    return BatchMemory(
        first,
        first if first < 0 else (first + header.last_offset_delta) & SEQUENCE_MAX,
        base_offset + header.last_offset_delta,
        header.max_timestamp,
    )
