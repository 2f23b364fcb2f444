"""Records as columns are what iterating gives, and what iterating refuses."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla._compiled import pure_on_purpose
from ottla.errors import CorruptRecords, DecodeError
from ottla.records.batch import (
    CRC_START,
    LOG_APPEND_TIME,
    iterate_headers,
    iterate_records,
    read_header,
)
from ottla.records.builder import BatchBuilder, batch_of
from ottla.records.columns import RecordColumns, Run
from ottla.records.columns_builder import NO_RECORDS, ColumnsBuilder, columns_of
from ottla.records.compaction import LatestOffsets, filter_batch
from ottla.records.record import Record
from ottla.wire.compression import GZIP, LZ4, NAMES, NONE, SNAPPY, ZSTD
from ottla.wire.crc32c import crc32c
from ottla.wire.memory import Memory

Row = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]

SEGMENTS = sorted((Path(__file__).parent.parent / "data" / "segments").glob("*/*.log"))
CODECS = (NONE, GZIP, SNAPPY, LZ4, ZSTD)
NO_LIMIT = 0x7FFFFFFF
STEP = 7 if pure_on_purpose() else 1
"""The uncompiled form flips every seventh byte only."""

CRC, ATTRIBUTES = 17, 21

TIMESTAMPS = st.integers(0, 100) | st.integers(-1, 1 << 45)
VALUES = st.none() | st.binary(max_size=80) | st.just(b"v" * 9000)
NONE_AT_ALL: list[tuple[str, bytes | None]] = []
HEADERS = st.just(NONE_AT_ALL) | st.lists(st.tuples(st.text(max_size=8), VALUES), max_size=3)
ROWS = st.lists(st.tuples(TIMESTAMPS, VALUES, VALUES, HEADERS), min_size=1, max_size=60)

each_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: NAMES[codec])


def build(rows: list[Row], codec: int = NONE, attributes: int = 0) -> bytearray:
    builder = BatchBuilder()
    for timestamp, key, value, headers in rows:
        builder.append(timestamp, key, value, headers or None, NO_LIMIT)
    data = bytearray(builder.build(codec))
    data[ATTRIBUTES + 1] |= attributes
    return with_crc(data)


def with_crc(data: bytearray) -> bytearray:
    data[CRC : CRC + 4] = crc32c(data[CRC_START:]).to_bytes(4, "big")
    return data


def iterated(data: Any, offset: int = 0) -> list[Record]:
    return [each for each in iterate_records(data, read_header(data), "t") if each.offset >= offset]


def collected(
    data: Any, offset: int = 0, at_once: int = NO_LIMIT, memory: Memory | None = None
) -> RecordColumns:
    """Return the columns of one batch, of the records from `offset` on."""
    builder = ColumnsBuilder(memory or Memory(0), 1, 1)
    reader = iterate_records(data, read_header(data), "t")
    while reader.left:
        builder.add(reader, at_once, offset)
    builder.end_run("t", 0)
    return builder.finish()


def assert_same(columns: RecordColumns, records: list[Record]) -> None:
    """Columns hold exactly these records, by each way that they can be asked."""
    assert list(columns.records()) == records
    assert len(columns) == len(records)
    assert columns.offsets.tolist() == [each.offset for each in records]
    assert columns.timestamps.tolist() == [each.timestamp_ms for each in records]
    assert [columns.headers(index) for index in range(len(records))] == [
        each.headers for each in records
    ]
    for column, wanted in (
        (columns.keys, [each.key for each in records]),
        (columns.values, [each.value for each in records]),
    ):
        assert list(column) == wanted
        assert bytes(column.data) == b"".join(each or b"" for each in wanted)
        assert column.null_count == wanted.count(None)
        assert (column.validity is None) == (None not in wanted)
        assert column.offsets[0] == 0
        assert len(column.offsets) == len(records) + 1


def both_of(segment: Path) -> tuple[RecordColumns, list[Record]]:
    """Return the columns of all batches of a segment, and their records."""
    data = segment.read_bytes()
    builder = ColumnsBuilder(Memory(0))
    records: list[Record] = []
    for header in iterate_headers(data):
        builder.add(iterate_records(data, header, "t"), NO_LIMIT, 0)
        records += iterate_records(data, header, "t")
    builder.end_run("t", 0)
    return builder.finish(), records


@pytest.mark.parametrize("segment", SEGMENTS, ids=lambda path: path.parent.name)
def test_the_columns_of_a_real_kafkas_segments_are_their_records(segment: Path) -> None:
    assert_same(*both_of(segment))


@each_codec
@given(rows=ROWS, offset=st.integers(0, 70), at_once=st.integers(1, 70))
def test_columns_are_the_records_of_any_batch(
    codec: int, rows: list[Row], offset: int, at_once: int
) -> None:
    data = build(rows, codec)
    assert_same(collected(data, offset, at_once), iterated(data, offset))


@pytest.mark.parametrize("nulls", [0, 1, 7, 8, 250, 700])
@pytest.mark.parametrize("gap", [1, 9])
def test_columns_are_the_records_also_where_many_in_a_row_have_no_key_or_value(
    nulls: int, gap: int
) -> None:
    rows: list[Row] = []
    for index in range(900):
        is_null = index % (nulls + gap) < nulls
        sized = b"%d" % index * (30_000 if index == 500 else index % 40)
        rows.append((index * 20, None if is_null else sized, sized if is_null else None, []))
    data = build(rows)
    assert_same(collected(data), iterated(data))
    assert_same(collected(data, 300, 301), iterated(data, 300))


def test_columns_are_the_records_of_a_batch_with_numbers_of_every_length() -> None:
    stamps = (0, 63, 64, 8191, 8192, (1 << 20) - 1, 1 << 20, 1 << 40)
    rows: list[Row] = [(stamp, None, None, []) for stamp in stamps]
    rows += [(0, b"", b"v" * (index % 3), []) for index in range(9000)]
    rows += [(stamp, None, None, []) for stamp in stamps[::-1]]
    data = build(rows)
    columns = collected(data)
    assert columns.timestamps[: len(stamps)].tolist() == list(stamps)
    assert_same(columns, iterated(data))


def test_what_compaction_has_left_keeps_its_offsets() -> None:
    data = build([(index, b"%d" % (index % 3), b"value %d" % index, []) for index in range(6)])
    header, latest = read_header(data), LatestOffsets(lambda count: None)
    for key, offset in ((b"0", 3), (b"1", 1), (b"2", 5)):
        latest.note(key, offset)
    kept = filter_batch(data, header, latest, 6, 0, 0)
    assert kept is not None
    columns = collected(kept)
    assert columns.offsets.tolist() == [1, 3, 4, 5]
    assert_same(columns, iterated(kept))


@given(rows=ROWS)
def test_the_brokers_time_is_that_of_all_records_of_a_batch(rows: list[Row]) -> None:
    data = build(rows, attributes=LOG_APPEND_TIME)
    columns = collected(data)
    assert set(columns.timestamps) == {max(row[0] for row in rows)}
    assert_same(columns, iterated(data))


@given(batches=st.lists(st.tuples(st.sampled_from(CODECS), ROWS), max_size=4))
def test_batches_of_several_partitions_follow_each_other(
    batches: list[tuple[int, list[Row]]],
) -> None:
    builder = ColumnsBuilder(Memory(1 << 20), 1, 1)
    records: list[Record] = []
    runs = []
    for partition, (codec, rows) in enumerate(batches):
        data = build(rows, codec)
        builder.add(iterate_records(data, read_header(data)), NO_LIMIT, 0)
        builder.end_run("t", partition)
        runs.append(Run("t", partition, len(records), len(records) + len(rows)))
        records += iterate_records(data, read_header(data), "t", partition)
    columns = builder.finish()
    assert columns.runs == runs
    assert_same(columns, records)
    assert_same(columns_of(records, Memory(0)), records)
    assert columns_of(records, Memory(0)).runs == runs


def test_records_that_are_objects_already_make_the_same_columns() -> None:
    records = [
        Record("t", 0, 5, 7, b"k", None, [("name", b"value"), ("none", None)]),
        Record("t", 0, 6, -1, None, b"v"),
        Record("u", 3, 0, 8, b"", b""),
    ]
    columns = columns_of(records, Memory(0))
    assert_same(columns, records)
    assert columns.runs == [Run("t", 0, 0, 2), Run("u", 3, 2, 3)]
    assert columns.has_headers
    for index in (3, -4):
        for ask in (columns.headers, columns.keys.__getitem__):
            with pytest.raises(IndexError, match="of 3 records"):
                ask(index)
    assert columns.values[-1] == b""
    assert "t/0 [5..6], u/3 [0..0]" in repr(columns)


def test_no_records_are_columns_too() -> None:
    assert_same(NO_RECORDS, [])
    assert not NO_RECORDS
    assert NO_RECORDS.runs == []
    assert not NO_RECORDS.has_headers


# -- batches that are damaged or lie


def outcome(read: Any) -> object:
    """Return what `read` gives, or what it refuses with."""
    try:
        return read()
    except DecodeError as error:
        return type(error)


def sample(codec: int) -> bytearray:
    rows: list[Row] = []
    for index in range(6):
        headers: list[tuple[str, bytes | None]] = [("name", b"value")] if index == 3 else []
        key = None if index == 4 else b"k" * index
        rows.append((1000 + index, key, b"value" * (40 if index % 2 else 2), headers))
    return build(rows, codec)


@pytest.mark.slow
@each_codec
def test_a_flipped_bit_is_the_same_error_or_the_same_records_as_iterating_gives(codec: int) -> None:
    data = sample(codec)
    errors = 0
    for index in range(ATTRIBUTES, len(data), STEP):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[index] ^= 1 << bit
            with_crc(damaged)
            records = outcome(lambda damaged=damaged: iterated(damaged))
            columns = outcome(lambda damaged=damaged: collected(damaged))
            if isinstance(columns, RecordColumns):
                assert isinstance(records, list)
                with suppress(CorruptRecords):  # headers are looked at when they are asked for
                    columns = list(columns.records())
                    assert columns == records
            else:
                assert columns == records
                errors += 1
    assert errors


def test_a_batch_that_is_refused_in_the_middle_leaves_the_columns_as_they_were() -> None:
    whole = build([(5, None if index == 2 else b"k", b"v", []) for index in range(11)])
    damaged = sample(NONE)
    damaged[-1] = 1  # the last record claims to have a header more than it has
    damaged[-2 - len(b"value" * 40)] ^= 0x40
    with_crc(damaged)
    builder = ColumnsBuilder(Memory(0), 1, 1)
    for _ in range(3):
        builder.add(iterate_records(whole, read_header(whole)), NO_LIMIT, 0)
        with pytest.raises(CorruptRecords):
            builder.add(iterate_records(damaged, read_header(damaged)), NO_LIMIT, 0)
    builder.end_run("t", 0)
    records = list(iterate_records(whole, read_header(whole), "t"))
    assert_same(builder.finish(), records * 3)


# -- memory


def test_columns_of_records_without_a_byte_are_full_as_well() -> None:
    builder = ColumnsBuilder(Memory(0), 1, 1, 24 * 30)
    data = build([(0, None, None, [])] * 20)
    added = 0
    while not builder.is_full:
        added += builder.add(iterate_records(data, read_header(data)), NO_LIMIT, 0)
    assert added == 40


def test_columns_stay_as_they_are_while_others_are_made_in_the_same_memory() -> None:
    memory, kept = Memory(1 << 20), []
    for round_number in range(60):
        rows: list[Row] = [
            (round_number, b"%d" % index, b"%d" % round_number * index, [])
            for index in range(round_number)
        ]
        if not rows:
            continue
        columns = collected(build(rows), memory=memory)
        if round_number % 3 == 0:
            kept.append((columns.keys.data, columns.values, columns.offsets[1:], iterated_of(rows)))
        del columns
        gc.collect()
    for keys, values, offsets, rows_read in kept:
        assert bytes(keys) == b"".join(each.key for each in rows_read)
        assert list(values) == [each.value for each in rows_read]
        assert offsets.tolist() == [each.offset for each in rows_read][1:]


def iterated_of(rows: list[Row]) -> list[Record]:
    return iterated(build(rows))


def test_columns_in_a_cycle_are_let_go_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    memory = Memory(1 << 20)
    data = batch_of([(b"k", b"v"), (b"l", None)] * 3, 0)
    survivor = None
    for _ in range(20):
        columns = collected(data, memory=memory)
        cycle: dict[str, object] = {"columns": columns, "view": columns.values.data[1:]}
        cycle["self"] = cycle
        survivor = columns.keys.data[2:]
        del columns, cycle
        gc.collect()
        collected(data, memory=memory)
        assert survivor == b"klkl"
    assert complaints == []


def test_records_that_the_collector_does_not_follow_are_let_go_with_their_buffer() -> None:
    buffer = bytearray(batch_of([(b"k", b"v")] * 3, 0))
    records = list(iterate_records(buffer, read_header(buffer)))
    gc.collect()
    with pytest.raises(BufferError):
        buffer.append(0)  # it is held
    assert [each.value for each in records] == [b"v"] * 3
    del records
    buffer.append(0)


def test_no_column_can_be_written_to() -> None:
    columns = collected(build([(1, b"k", None, [])]))
    assert columns.values.validity is not None
    for view in (
        columns.offsets,
        columns.timestamps,
        columns.keys.data,
        columns.keys.offsets,
        columns.values.validity,
    ):
        assert view.readonly
        assert view.contiguous
    assert (columns.offsets.format, columns.keys.offsets.format) == ("q", "i")
