"""Records as columns: offsets, timestamps, keys and values, each in one piece of memory.

The layout is Arrow's, so that whoever reads Arrow reads it as it lies: fixed columns of int64, and
for keys and values one buffer of bytes, n + 1 int32 offsets into it, and a bitmap of what is there
where something is missing. No Python object is made for a record, and headers are decoded only for
those that somebody looks at.

Arrow: Columnar format, "Variable-size Binary Layout".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ottla.records.record import Record, read_headers

if TYPE_CHECKING:
    from ottla.records.record import Header


class Run(NamedTuple):
    """Records that lie one behind the other in one partition.

    Attributes:
        topic: their topic.
        partition: their partition.
        start: index of the first in the columns.
        stop: index behind the last.
    """

    topic: str
    partition: int
    start: int
    stop: int


class BytesColumn:
    """Keys or values: `data[offsets[i]:offsets[i + 1]]` is the one of record i.

    Attributes:
        data: all of them, one behind the other; a read-only memoryview of bytes.
        offsets: where each begins, and behind the last where that ends: int32, one more than there
            are records; a read-only memoryview of format "i".
        validity: Arrow's bitmap: bit i % 8 of byte i // 8 is 1 where record i has one. None where
            all have.
        null_count: how many have none.
    """

    __slots__ = ("data", "null_count", "offsets", "validity")

    def __init__(
        self, data: memoryview, offsets: memoryview, validity: memoryview | None, null_count: int
    ) -> None:
        self.data = data
        self.offsets = offsets
        self.validity = validity
        self.null_count = null_count

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes | None:
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} records")
        if self.validity is not None and not self.validity[index >> 3] >> (index & 7) & 1:
            return None
        return bytes(self.data[self.offsets[index] : self.offsets[index + 1]])

    def __iter__(self) -> Iterator[bytes | None]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"<BytesColumn: {len(self)} of {len(self.data)} bytes, {self.null_count} null>"


class RecordColumns:
    """Records as columns, without an object for each; false where there are none.

    All memoryviews are read-only, contiguous and free of copies: `numpy.asarray(columns.offsets)`
    is an array of int64 over the same memory. They stay valid for as long as somebody has them.

    Attributes:
        runs: which records are of which partition, in the order of the columns.
        offsets: the records' offsets: int64, a memoryview of format "q".
        timestamps: milliseconds since 1970, -1 for none: int64, a memoryview of format "q".
        keys: the keys.
        values: the values.
    """

    __slots__ = ("_headers", "keys", "offsets", "runs", "timestamps", "values")

    def __init__(
        self,
        runs: list[Run],
        offsets: memoryview,
        timestamps: memoryview,
        keys: BytesColumn,
        values: BytesColumn,
        headers: BytesColumn | None = None,
    ) -> None:
        self.runs = runs
        self.offsets = offsets
        self.timestamps = timestamps
        self.keys = keys
        self.values = values
        self._headers = headers

    def __len__(self) -> int:
        return len(self.offsets)

    def __repr__(self) -> str:
        places = ", ".join(
            f"{run.topic}/{run.partition} [{self.offsets[run.start]}..{self.offsets[run.stop - 1]}]"
            for run in self.runs
        )
        return f"<RecordColumns: {len(self)} records{': ' if places else ''}{places}>"

    @property
    def has_headers(self) -> bool:
        """Whether any record has headers."""
        return self._headers is not None

    def headers(self, index: int) -> list[Header]:
        """Return the headers of one record in their order, as (name, value).

        Raises:
            CorruptRecords: they are not what the format says.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} records")
        if self._headers is None:
            return []
        packed = self._headers[index]
        return read_headers(packed) if packed else []

    def records(self) -> Iterator[Record]:
        """Give the records one by one, as objects."""
        for run in self.runs:
            for index in range(run.start, run.stop):
                yield Record(
                    run.topic,
                    run.partition,
                    self.offsets[index],
                    self.timestamps[index],
                    self.keys[index],
                    self.values[index],
                    self.headers(index),
                )

    def to_arrow(self) -> Any:
        """Return a `pyarrow.RecordBatch` over the same memory; extra `ottla[arrow]`.

        Its columns: `topic` (dictionary of string), `partition` (int32), `offset` (int64),
        `timestamp` (timestamp[ms, UTC], null for none), `key` and `value` (binary), `headers`
        (list of struct of `name`, a string, and `value`, binary).

        Raises:
            MissingExtra: pyarrow is not installed.
            CorruptRecords: headers are not what the format says.
        """
        from ottla.records.arrow import record_batch

        return record_batch(self)
