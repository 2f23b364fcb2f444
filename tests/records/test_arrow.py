"""Columns as Arrow record batches: what pyarrow reads out of them are the records."""

from __future__ import annotations

import gc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.errors import CorruptRecords
from ottla.records.batch import iterate_records, read_header
from ottla.records.columns import RecordColumns
from ottla.records.columns_builder import NO_RECORDS, ColumnsBuilder, columns_of
from ottla.records.record import Record
from ottla.wire.memory import Memory
from tests.records.test_columns import (
    CODECS,
    NO_LIMIT,
    ROWS,
    SEGMENTS,
    Row,
    both_of,
    build,
    with_crc,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

SCHEMA = pyarrow.schema(
    [
        ("topic", pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
        ("partition", pyarrow.int32()),
        ("offset", pyarrow.int64()),
        ("timestamp", pyarrow.timestamp("ms", "UTC")),
        ("key", pyarrow.binary()),
        ("value", pyarrow.binary()),
        (
            "headers",
            pyarrow.list_(
                pyarrow.struct([("name", pyarrow.string()), ("value", pyarrow.binary())])
            ),
        ),
    ]
)


def rows_of(records: list[Record]) -> list[dict[str, Any]]:
    """Return what pyarrow's `to_pylist` is to give."""
    return [
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": None
            if record.timestamp_ms < 0
            else EPOCH + timedelta(milliseconds=record.timestamp_ms),
            "key": record.key,
            "value": record.value,
            "headers": [{"name": name, "value": value} for name, value in record.headers],
        }
        for record in records
    ]


def assert_is(columns: RecordColumns, records: list[Record]) -> None:
    batch = columns.to_arrow()
    batch.validate(full=True)
    assert batch.schema == SCHEMA
    found = batch.to_pylist()
    for row in found:  # pyarrow's own time zone compares equal, but is not datetime's
        if row["timestamp"] is not None:
            row["timestamp"] = row["timestamp"].astimezone(UTC)
    assert found == rows_of(records)


@pytest.mark.parametrize("segment", SEGMENTS, ids=lambda path: path.parent.name)
def test_a_real_kafkas_segments_are_the_same_rows(segment: Path) -> None:
    assert_is(*both_of(segment))


@given(batches=st.lists(st.tuples(st.sampled_from(CODECS), ROWS), max_size=3))
def test_any_batches_are_the_same_rows(batches: list[tuple[int, list[Row]]]) -> None:
    builder = ColumnsBuilder(Memory(1 << 20))
    records: list[Record] = []
    for partition, (codec, rows) in enumerate(batches):
        data = build(rows, codec)
        builder.add(iterate_records(data, read_header(data)), NO_LIMIT, 0)
        builder.end_run(f"topic-{partition % 2}", partition)
        records += iterate_records(data, read_header(data), f"topic-{partition % 2}", partition)
    assert_is(builder.finish(), records)


def test_no_records_are_an_empty_batch_of_the_same_schema() -> None:
    assert_is(NO_RECORDS, [])
    assert_is(columns_of([Record("t", 0, 5, -1)], Memory(0)), [Record("t", 0, 5, -1)])


def test_a_record_batch_lies_in_the_same_memory_and_keeps_it() -> None:
    memory = Memory(1 << 20)
    records = [Record("t", 0, index, index, b"k", b"%05d" % index) for index in range(1000)]
    columns = columns_of(records, memory)
    batch = columns.to_arrow()
    address = pyarrow.py_buffer(columns.values.data).address
    assert batch.column("value").buffers()[2].address == address
    del columns
    gc.collect()
    for _ in range(40):
        columns_of([Record("t", 0, 1, 1, b"x", b"x" * 5000)], memory)
    assert batch.column("value").to_pylist() == [record.value for record in records]
    assert batch.column("offset").to_pylist() == list(range(1000))


def test_headers_that_lie_are_corrupt_in_arrow_too() -> None:
    data = build([(0, None, b"v", [("name", b"value")])])
    data[data.index(b"name")] = 0xFF  # no UTF-8
    with_crc(data)
    builder = ColumnsBuilder(Memory(0))
    builder.add(iterate_records(data, read_header(data)), NO_LIMIT, 0)
    builder.end_run("t", 0)
    with pytest.raises(CorruptRecords, match="not UTF-8"):
        builder.finish().to_arrow()
