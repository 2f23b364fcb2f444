"""Runs a state machine on its log: appends what was decided, replays it, tells when it is stored.

Kafka: CoordinatorRuntime, without its snapshots: one writer and a local log need no way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ottla.errors import CorruptLog, CorruptRecords
from ottla.records.batch import (
    check_crc,
    iterate_headers,
    iterate_records,
    read_header,
)
from ottla.records.builder import batch_of

if TYPE_CHECKING:
    from ottla.clock import Clock
    from ottla.log.group_commit import GroupCommit
    from ottla.log.partition_log import PartitionLog, Stored
    from ottla.records.batch import BatchHeader
    from ottla.records.record import Record
    from ottla.wire import Buffer

R = TypeVar("R")

_READ_BYTES = 1024 * 1024


class Codec(Protocol[R]):
    """How the records of a state machine stand in its log."""

    def encode(self, record: R) -> tuple[bytes | None, bytes | None]:
        """Return a record's key and value."""
        ...

    def decode(self, key: bytes | None, value: bytes | None) -> R | None:
        """Return the record, or None for one that is to be passed over.

        Raises:
            DecodeError: it is none.
        """
        ...


class Runtime(Generic[R]):
    """One state machine on one log.

    Args:
        log: its log.
        commit: what makes the log durable.
        codec: how its records are encoded.
        replay: changes its state; it cannot refuse.
        clock: where the records' timestamps come from.
    """

    def __init__(
        self,
        log: PartitionLog,
        commit: GroupCommit,
        codec: Codec[R],
        replay: Callable[[R], None],
        clock: Clock,
    ) -> None:
        self._log = log
        self._commit = commit
        self._codec = codec
        self._replay = replay
        self._clock = clock

    def load(self) -> None:
        """Replay the whole log.

        Raises:
            CorruptLog: it is damaged.
            DecodeError: it holds a record that is none of this state machine's.
        """
        offset = self._log.log_start_offset
        while data := self.read(offset):
            offset = self.replay_batches(data)

    def read(self, offset: int) -> Buffer:
        """Return some batches to replay, from `offset` on; nothing at the log's end.

        Raises:
            CorruptLog: the log is damaged there.
        """
        return self._log.read(offset, _READ_BYTES, at_least_one=True)

    def replay_batches(self, data: Buffer) -> int:
        """Replay batches that were read, and return the offset behind them.

        Raises:
            CorruptLog: they are damaged.
            DecodeError: they hold a record that is none of this state machine's.
        """
        offset = 0
        for header in iterate_headers(data):
            offset = header.last_offset + 1
            self._check(data, header)
            if header.is_control:
                self._replay_control(data, header)
            else:
                self._replay_batch(header, iterate_records(data, header))
        return offset

    def _check(self, data: Buffer, header: BatchHeader) -> None:
        try:
            check_crc(data, header)
        except CorruptRecords as error:
            what = f"the batch at offset {header.base_offset}: {error.what}"
            raise CorruptLog(self._log.folder, 0, what) from error

    def _replay_control(self, data: Buffer, header: BatchHeader) -> None:
        """Replay a control batch; who has no transactions in the log passes it over."""

    def _replay_batch(self, header: BatchHeader, records: Iterable[Record]) -> None:
        for record in records:
            decoded = self._codec.decode(record.key, record.value)
            if decoded is not None:
                self._replay_one(decoded, record.offset, header.producer_id)

    def _replay_one(self, record: R, offset: int, producer_id: int) -> None:
        """Replay one record; it stands at `offset`, and -1 is the id of no producer."""
        self._replay(record)

    def append(self, records: Sequence[R]) -> None:
        """Append records and replay them.

        Raises:
            StorageError: nothing was appended, and nothing has changed.
        """
        if not records:
            return
        batch = batch_of(map(self._codec.encode, records), self._clock.now_ms())
        base_offset = self._store(batch, read_header(batch))
        for offset, record in enumerate(records, base_offset):
            self._replay_one(record, offset, -1)

    def _store(self, batch: Buffer, header: BatchHeader) -> int:
        """Append a batch, have it synced, and return its base offset.

        Raises:
            StorageError: nothing was appended.
        """
        base_offset = self._log.append(batch, header)
        self._commit.add(self._log)
        return base_offset

    def when_stored(self, stored: Stored) -> None:
        """Call `stored` once everything that was appended so far is stored."""
        self._log.when_stored(self._log.log_end_offset, stored)
