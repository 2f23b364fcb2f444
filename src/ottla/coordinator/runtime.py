"""Runs a state machine on its log: appends what was decided, replays it, tells when it is stored.

Kafka: CoordinatorRuntime, without its snapshots: one writer and a local log need no way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ottla.errors import CorruptLog, CorruptRecords
from ottla.records.batch import (
    Record,
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
        while data := self._log.read(offset, _READ_BYTES, at_least_one=True):
            for header in iterate_headers(data):
                offset = header.last_offset + 1
                self._check(data, header)
                if not header.is_control:
                    self._replay_batch(iterate_records(data, header))

    def _check(self, data: bytes, header: BatchHeader) -> None:
        try:
            check_crc(data, header)
        except CorruptRecords as error:
            what = f"the batch at offset {header.base_offset}: {error.what}"
            raise CorruptLog(self._log.folder, 0, what) from error

    def _replay_batch(self, records: Iterable[Record]) -> None:
        for record in records:
            decoded = self._codec.decode(record.key, record.value)
            if decoded is not None:
                self._replay(decoded)

    def append(self, records: Sequence[R]) -> None:
        """Append records and replay them.

        Raises:
            StorageError: nothing was appended, and nothing has changed.
        """
        if not records:
            return
        batch = batch_of(map(self._codec.encode, records), self._clock.now_ms())
        self._log.append(batch, read_header(batch))
        self._commit.add(self._log)
        for record in records:
            self._replay(record)

    def when_stored(self, stored: Stored) -> None:
        """Call `stored` once everything that was appended so far is stored."""
        self._log.when_stored(self._log.log_end_offset, stored)
