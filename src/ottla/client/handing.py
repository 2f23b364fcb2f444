# cython: boundscheck=False, wraparound=False
"""What was taken from the fetcher, and how much of it the user has, and has finished with.

A poll hands out many records at once, an iterator one after the other; both leave the rest for the
next call. What was handed out is finished with when the user asks for more. For an iterator whole
batches are taken, and each record is made when the user asks for it: one that was made long before
is in no cache any more, and made at once they have the garbage collector look at them.

    0 ... finished ... `current` ... with the user ... `index` ... not handed out yet ...

One thread hands out. Any thread may ask for positions: both numbers only grow, and `current` never
grows past a record that the user has. Of batches there are no such numbers: how far each was read
is known, and the offset of the one record that the user has.

Columns are handed out as a whole: of them only `begun` is known, where each partition's first
record stood that the user has not finished with.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import TYPE_CHECKING

import cython

from ottla.client.lookup import TopicPartition
from ottla.errors import CorruptRecords

if TYPE_CHECKING:
    from ottla.records.batch import BatchHeader, RecordIterator
    from ottla.records.record import Record

    Damaged = Callable[[TopicPartition, BatchHeader, int, CorruptRecords], CorruptRecords]


class Attention:
    """Whether an iterator is to look up from what lies before it; any thread may set it."""

    def __init__(self) -> None:
        self.is_wanted = False


class Handing:
    """Some records on their way to the user.

    Attributes:
        records: all of them; never changed.
        one_by_one: whether only the last one that was handed out is not finished with.
        index: the first one that the user does not have.
        read: the first one that no deserializer has seen.
        readable: what deserializers have read, and was not handed out yet.
        begun: where what was handed out as columns, and is not finished with, begins.
    """

    def __init__(
        self, records: list[Record], begun: Mapping[TopicPartition, int] | None = None
    ) -> None:
        self.records = records
        self.begun: dict[TopicPartition, int] = dict(begun) if begun else {}
        self.one_by_one = False
        self.index = 0
        self._finished = 0
        self.read = 0
        self.readable: list[Record] = []

    @property
    def has_more(self) -> bool:
        """Whether something is left to be handed out."""
        return self.index < len(self.records)

    @property
    def current(self) -> int:
        """The first one that the user has not finished with."""
        return max(self.index - 1, self._finished) if self.one_by_one else self._finished

    def finish(self) -> None:
        """Take note that the user has finished with what was handed out."""
        self._finished = self.index
        self.one_by_one = False
        if self.begun:
            self.begun = {}

    def hand_out(self, count: int) -> list[Record]:
        """Hand out the next ones, `count` at most.

        Raises:
            CorruptRecords: the next one cannot be read.
        """
        end = min(self.index + count, len(self.records))
        records = self.records[self.index : end]
        self.index = end
        return records

    def _next(self) -> Record | None:
        """Hand out the next one; None where there is none."""
        if self.index >= len(self.records):
            return None
        self.index += 1
        record: Record = self.records[self.index - 1]
        return record

    def without(self, partitions: Container[TopicPartition]) -> Handing:
        """Return the same, without what of some partitions was not handed out yet.

        What was handed out stays as unfinished as it is.
        """
        index = self.index
        with_user = self.records[self.current : index]
        left = [
            each
            for each in self.records[index:]
            if TopicPartition(each.topic, each.partition) not in partitions
        ]
        kept = Handing(with_user + left, self.begun)
        kept.index = kept.read = len(with_user)
        return kept

    def first_not_handed_out(self) -> dict[TopicPartition, int]:
        """Return the offset of each partition's first record that the user does not have."""
        return _first_offsets(self.records, self.index)

    def first_unfinished(self) -> dict[TopicPartition, int]:
        """Return the offset of each partition's first record that is not finished with."""
        return _first_offsets(self.records, self.current) | self.begun


def _first_offsets(records: list[Record], start: int) -> dict[TopicPartition, int]:
    first: dict[TopicPartition, int] = {}
    for index in range(start, len(records)):
        record = records[index]
        where = TopicPartition(record.topic, record.partition)
        if where not in first:
            first[where] = record.offset
    return first


NOTHING = Handing([])
"""Nothing is on its way to the user."""


class Batches(Handing):
    """Batches on their way to the user, whose records are made one by one.

    Args:
        readers: what reads the batches; each has records left.
        damaged: is told of a record that cannot be read - its partition, its batch, the offset to
            go on from and what is wrong - and returns what is to be raised.
        begun: what was handed out and is not finished with.
    """

    def __init__(
        self,
        readers: list[RecordIterator],
        damaged: Damaged,
        begun: Mapping[TopicPartition, int] | None = None,
    ) -> None:
        super().__init__([], begun)
        self._readers = readers
        self._damaged = damaged
        self._reader = readers[0]
        self._turn = 0
        self._last: Record | None = None
        self._last_but_one: Record | None = None
        self._given = -1  # offset of the record that an iterator's user has, in this batch

    @property
    def has_more(self) -> bool:
        """Whether something is left to be handed out."""
        return self._reader._left > 0 or self._turn + 1 < len(self._readers)

    def finish(self) -> None:
        """Take note that the user has finished with what was handed out."""
        self._given = -1
        self.begun = {}

    def hand_out(self, count: int) -> list[Record]:
        """Hand out the next ones, `count` at most.

        Raises:
            CorruptRecords: the next one cannot be read.
        """
        begun = self.first_not_handed_out()
        self.begun = begun | self.begun
        records: list[Record] = []
        try:
            while len(records) < count:
                record = self._next()
                if record is None:
                    break
                records.append(record)
        except CorruptRecords:
            if not records:
                raise  # else the next call says so
        self._given = -1
        return records

    def _next(self) -> Record | None:
        """Hand out the next one; None where there is none.

        Raises:
            CorruptRecords: it cannot be read.
        """
        spare: Record | None = None
        if cython.compiled:
            # The user has the last one until this returns; the one before that perhaps nobody has.
            spare = self._last_but_one
            self._last_but_one = self._last
            if spare is not None and Py_REFCNT(spare) != 1:  # noqa: F821 - handing.pxd has it
                spare = None
        record: Record | None = self._reader._quick(spare)
        self._last = record
        if record is None:
            return self._next_slowly()
        self._given = self._reader._offset
        self.index += 1
        return record

    def _next_slowly(self) -> Record | None:
        """Hand out the next one, which is in the next batch or not as most are."""
        reader: RecordIterator = self._reader
        if reader._left == 0:
            if self._turn + 1 >= len(self._readers):
                return None
            self._given = -1
            self._turn += 1
            reader = self._reader = self._readers[self._turn]
        try:
            record: Record = reader._next()
        except CorruptRecords as error:
            where = _where(reader)
            raise self._damaged(where, reader._header, reader._offset + 1, error) from error
        self._given = reader._offset
        self.index += 1
        return record

    def without(self, partitions: Container[TopicPartition]) -> Handing:
        """Return the same, without what of some partitions was not handed out yet.

        What was handed out stays as unfinished as it is.
        """
        begun = self._with_user() | self.begun
        left: list[RecordIterator] = []
        for index in range(self._turn, len(self._readers)):
            reader: RecordIterator = self._readers[index]
            where = _where(reader)
            if reader._left and where not in partitions:
                left.append(reader)
        return Batches(left, self._damaged, begun) if left else Handing([], begun)

    def first_not_handed_out(self) -> dict[TopicPartition, int]:
        """Return the offset of each partition's first record that the user does not have."""
        first: dict[TopicPartition, int] = {}
        for index in range(self._turn, len(self._readers)):
            reader: RecordIterator = self._readers[index]
            if reader._left:
                where = _where(reader)
                first.setdefault(where, reader._offset + 1)
        return first

    def first_unfinished(self) -> dict[TopicPartition, int]:
        """Return the offset of each partition's first record that is not finished with."""
        with_user = self._with_user()
        return self.first_not_handed_out() | with_user | self.begun

    def _with_user(self) -> dict[TopicPartition, int]:
        if self._given < 0:
            return {}
        return {_where(self._reader): self._given}


def _where(reader: RecordIterator) -> TopicPartition:
    return TopicPartition(reader._lot.topic, reader._lot.partition)


class EachRecord:
    """Iterates over the records of one handing after the other.

    Args:
        attention: is looked at before each record.
        following: waits for the next handing; returns None where there will be no more.
    """

    def __init__(self, attention: Attention, following: Callable[[], Handing | None]) -> None:
        self._attention = attention
        self._following = following
        self._handing = NOTHING
        attention.is_wanted = True

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        while True:
            if not self._attention.is_wanted:
                handing: Handing = self._handing
                record = handing._next()
                if record is not None:
                    return record
            following = self._following()
            if following is None:
                raise StopIteration
            self._handing = following
