# cython: boundscheck=False, wraparound=False
"""What was taken from the fetcher, and how much of it the user has, and has finished with.

A poll hands out many records at once, an iterator one after the other; both leave the rest for the
next call. What was handed out is finished with when the user asks for more.

    0 ... finished ... `current` ... with the user ... `index` ... not handed out yet ...

One thread hands out. Any thread may ask for positions: both numbers only grow, and `current` never
grows past a record that the user has.

Columns are handed out as a whole: of them only `begun` is known, where each partition's first
record stood that the user has not finished with.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import TYPE_CHECKING

from ottla.client.lookup import TopicPartition

if TYPE_CHECKING:
    from ottla.records.batch import Record


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
        handing: Handing = self._handing
        while self._attention.is_wanted or handing.index >= len(handing.records):
            following = self._following()
            if following is None:
                raise StopIteration
            handing = self._handing = following
        index = handing.index
        handing.index = index + 1
        record: Record = handing.records[index]
        return record
