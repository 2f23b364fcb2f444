"""Batches of any records: built, validated and read back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.records.batch import (
    HEADER_BYTES,
    LOG_APPEND_TIME,
    NO_TIMESTAMP,
    TRANSACTIONAL,
    check_crc,
    iterate_records,
    read_header,
    validate,
)
from ottla.records.builder import FULL, BatchBuilder, batch_of, pack_headers, stamp_producer
from ottla.records.record import Record
from ottla.wire.compression import GZIP, LZ4, NAMES, NONE, SNAPPY, ZSTD

Row = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]

CODECS = (NONE, GZIP, SNAPPY, LZ4, ZSTD)
NO_LIMIT = 0x7FFFFFFF

TIMESTAMPS = st.integers(-1, 1 << 45)
VALUES = st.none() | st.binary(max_size=40) | st.just(b"v" * 300)
HEADERS = st.lists(st.tuples(st.text(max_size=8), VALUES), max_size=3)
ROWS = st.lists(st.tuples(TIMESTAMPS, VALUES, VALUES, HEADERS), min_size=1, max_size=200)

each_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: NAMES[codec])


def build(rows: list[Row], codec: int = NONE, **fields: Any) -> memoryview:
    builder = BatchBuilder(16)
    for index, (timestamp, key, value, headers) in enumerate(rows):
        assert builder.append(timestamp, key, value, headers or None, NO_LIMIT) == index
    return builder.build(codec, **fields)


def read(batch: memoryview) -> list[Row]:
    header = read_header(batch)
    return [
        (record.timestamp_ms, record.key, record.value, record.headers)
        for record in iterate_records(batch, header)
    ]


@each_codec
@given(rows=ROWS)
def test_records_are_read_as_they_were_appended(codec: int, rows: list[Row]) -> None:
    batch = build(rows, codec)
    header, scan = validate(batch)
    assert read(batch) == rows
    assert header.size == len(batch)
    assert header.codec in (codec, NONE)
    assert (header.base_offset, header.last_offset) == (0, len(rows) - 1)
    assert header.records_count == len(rows)
    timestamps = [row[0] for row in rows]
    assert header.base_timestamp == timestamps[0]
    assert header.max_timestamp == scan.max_timestamp == max(timestamps)
    assert scan.max_timestamp_offset == timestamps.index(max(timestamps))
    assert scan.min_timestamp == min(timestamps)
    keys = [row[1] for row in rows]
    assert scan.first_null_key == (keys.index(None) if None in keys else -1)


def test_numbers_of_every_length_are_read_as_they_were_appended() -> None:
    stamps = (0, 63, 64, 8191, 8192, (1 << 20) - 1, 1 << 20, 1 << 40)
    rows: list[Row] = [(stamp, None, None, []) for stamp in stamps]
    rows += [(0, b"k" * (index % 3), None, []) for index in range(9000)]
    rows += [(9, b"k" * size, b"v" * size, []) for size in (63, 64, 8191, 8192, 1 << 20)]
    rows += [(stamp, None, None, []) for stamp in stamps[::-1]]
    batch = build(rows)
    assert read(batch) == rows
    assert validate(batch)[1].max_timestamp_offset == len(stamps) - 1
    offsets = [record.offset for record in iterate_records(batch, read_header(batch))]
    assert offsets == list(range(len(rows)))


@each_codec
def test_what_compresses_well_is_compressed_and_what_does_not_is_left_plain(codec: int) -> None:
    batch = build([(0, b"key", b"v" * 10_000, [])], codec)
    assert read_header(batch).codec == codec
    assert read_header(build([(0, None, b"v", [])], codec)).codec == NONE
    assert read(batch) == [(0, b"key", b"v" * 10_000, [])]


@given(
    producer_id=st.integers(-1, (1 << 63) - 1),
    producer_epoch=st.integers(-1, (1 << 15) - 1),
    base_sequence=st.integers(-1, (1 << 31) - 1),
    attributes=st.sampled_from([0, TRANSACTIONAL]),
)
def test_the_producers_fields_are_in_the_header(
    producer_id: int, producer_epoch: int, base_sequence: int, attributes: int
) -> None:
    rows: list[Row] = [(5, None, b"v", []), (6, None, b"w", [])]
    built = build(
        rows,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        attributes=attributes,
    )
    stamped = build(rows, attributes=attributes)
    stamp_producer(stamped, producer_id, producer_epoch, base_sequence)
    assert stamped == built
    header, _ = validate(stamped)
    assert header.producer_id == producer_id
    assert header.producer_epoch == producer_epoch
    assert header.base_sequence == base_sequence
    assert header.is_transactional == bool(attributes)
    assert not header.is_control


def test_sequences_go_on_at_0_after_the_largest() -> None:
    rows: list[Row] = [(0, None, b"", [])] * 4
    for base, last in ((0, 3), (0x7FFFFFFF - 3, 0x7FFFFFFF), (0x7FFFFFFE, 1), (-1, -1)):
        assert read_header(build(rows, base_sequence=base)).last_sequence == last


def test_a_batch_is_full_when_the_next_record_would_not_fit_and_stays_as_it_was() -> None:
    builder = BatchBuilder(64)
    assert builder.append(1, None, b"x" * 500, None, 100) == 0, "the first is taken in any case"
    size = builder.size
    assert builder.append(9, None, b"y", None, size + 7) == FULL
    assert (builder.size, builder.count, builder.max_timestamp) == (size, 1, 1)
    assert builder.append(9, None, b"y", None, size + 8) == 1
    assert builder.size == size + 8
    batch = builder.build()
    assert len(batch) == builder.size
    assert read(batch) == [(1, None, b"x" * 500, []), (9, None, b"y", [])]


@given(ROWS)
def test_the_size_while_building_is_that_of_the_plain_batch(rows: list[Row]) -> None:
    builder = BatchBuilder()
    assert builder.size == HEADER_BYTES
    for timestamp, key, value, headers in rows:
        builder.append(timestamp, key, value, headers, NO_LIMIT)
    assert builder.count == len(rows)
    assert builder.size == len(builder.build())


@given(HEADERS)
def test_packed_headers_serve_as_well_as_pairs(headers: list[tuple[str, bytes | None]]) -> None:
    packed = BatchBuilder()
    packed.append(0, None, None, pack_headers(headers), NO_LIMIT)
    pairs = BatchBuilder()
    pairs.append(0, None, None, headers, NO_LIMIT)
    batch = packed.build()
    assert batch == pairs.build()
    assert read(batch) == [(0, None, None, headers)]


def test_a_batch_of_pairs_has_one_timestamp() -> None:
    batch = batch_of([(b"k", None), (None, b"v")], 77)
    assert read(batch) == [(77, b"k", None, []), (77, None, b"v", [])]
    validate(batch)


def test_extreme_timestamps_come_back() -> None:
    for first, second in ((0, (1 << 62)), ((1 << 62), 0), (NO_TIMESTAMP, 5)):
        rows: list[Row] = [(first, None, b"", []), (second, None, b"", [])]
        assert read(build(rows)) == rows


def test_records_stamped_by_the_broker_all_have_its_time() -> None:
    batch = build([(1, None, b"a", []), (2, None, b"b", [])], attributes=LOG_APPEND_TIME)
    assert read_header(batch).is_log_append_time
    assert [row[0] for row in read(batch)] == [2, 2]


def test_offsets_count_from_the_base_offset_which_the_checksum_does_not_cover() -> None:
    batch = build([(1, None, b"a", []), (2, None, b"b", [])])
    batch[:8] = (1 << 40).to_bytes(8, "big")
    batch[12:16] = (7).to_bytes(4, "big")
    header = read_header(batch)
    check_crc(batch, header)
    records = list(iterate_records(batch, header, "topic", 3))
    assert [record.offset for record in records] == [1 << 40, (1 << 40) + 1]
    assert {(record.topic, record.partition) for record in records} == {("topic", 3)}
    assert (header.leader_epoch, header.last_offset) == (7, (1 << 40) + 1)


def test_a_batch_is_found_behind_other_bytes_and_in_every_kind_of_buffer() -> None:
    batch = build([(1, b"k", b"a", [("h", None)])], GZIP)
    for data in (b"..." + batch, bytearray(b"...") + batch, memoryview(b"..." + batch + b"...")):
        header = read_header(data, 3)
        check_crc(data, header)
        (record,) = iterate_records(data, header, "t", 1)
        assert record == Record("t", 1, 0, 1, b"k", b"a", [("h", None)])


def test_records_say_what_they_are_and_equal_those_with_the_same_content() -> None:
    (record,) = iterate_records(*_one_record())
    text = (
        "Record(topic='', partition=0, offset=0, timestamp_ms=1, key=b'k', value=b'a', headers=[])"
    )
    assert repr(record) == text
    assert record == Record("", 0, 0, 1, b"k", b"a")
    assert record != Record("", 0, 0, 1, b"k", b"b")
    assert record != "record"
    assert record.value is record.value, "copied once"


def _one_record() -> tuple[memoryview, Any]:
    batch = build([(1, b"k", b"a", [])])
    return batch, read_header(batch)


def test_records_stay_readable_when_nothing_else_holds_the_batch() -> None:
    batch = build([(1, b"k" * 100, b"v" * 100, [("h", b"x")])] * 100, ZSTD)
    records = list(iterate_records(batch, read_header(batch)))
    del batch
    assert all(record.key == b"k" * 100 for record in records)
    assert all(record.headers == [("h", b"x")] for record in records)
