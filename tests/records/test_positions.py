"""Finding batches and records by offset and timestamp."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.errors import CorruptRecords
from ottla.records.batch import (
    HEADER_BYTES,
    RecordIterator,
    iterate_headers,
    iterate_records,
    read_header,
)
from ottla.records.builder import BatchBuilder
from ottla.records.positions import position_of, whole_batches_size
from ottla.records.record import Record


def batch_at(base_offset: int, count: int, timestamps: list[int] | None = None) -> bytes:
    builder = BatchBuilder()
    for index in range(count):
        builder.append(timestamps[index] if timestamps else 0, None, b"v" * index, None, 1 << 30)
    batch = builder.build()
    batch[:8] = base_offset.to_bytes(8, "big")
    return bytes(batch)


def log_of(counts: list[int], start: int = 0) -> tuple[bytes, list[tuple[int, int, int]]]:
    """Return a log and (position, base offset, last offset) of each of its batches."""
    log, places, offset = b"", [], start
    for count in counts:
        places.append((len(log), offset, offset + count - 1))
        log += batch_at(offset, count)
        offset += count
    return log, places


COUNTS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(COUNTS, st.integers(0, 1 << 40))
def test_headers_are_those_of_the_whole_batches(counts: list[int], start: int) -> None:
    log, places = log_of(counts, start)
    for size in range(len(log) - 70, len(log) + 1):
        headers = list(iterate_headers(log[: max(size, 0)]))
        found = [(header.position, header.base_offset, header.last_offset) for header in headers]
        assert found == places[: len(found)]
        end = headers[-1].position + headers[-1].size if headers else 0
        assert whole_batches_size(log[: max(size, 0)]) == end
        assert end <= max(size, 0)
        if size == len(log):
            assert found == places


def test_whole_batches_at_every_length() -> None:
    log, places = log_of([1, 2, 3])
    ends = [place[0] for place in places[1:]] + [len(log)]
    for size in range(len(log) + 1):
        wanted = max([end for end in ends if end <= size], default=0)
        assert whole_batches_size(log[:size]) == wanted
        assert whole_batches_size(memoryview(log)[:size]) == wanted


@given(COUNTS, st.integers(0, 1 << 40))
def test_whole_batches_end_before_the_first_one_at_or_behind_the_end(
    counts: list[int], start: int
) -> None:
    log, places = log_of(counts, start)
    last = places[-1][2]
    for offset_end in range(start - 1, last + 3):
        wanted = next((place[0] for place in places if place[1] >= offset_end), len(log))
        assert whole_batches_size(log, offset_end) == wanted


@given(COUNTS, st.integers(0, 1 << 40))
def test_the_position_of_an_offset_is_that_of_the_batch_that_holds_it(
    counts: list[int], start: int
) -> None:
    log, places = log_of(counts, start)
    assert position_of(log, start - 1) == 0
    for position, first, last in places:
        for offset in range(first, last + 1):
            assert position_of(log, offset) == position
    assert position_of(log, places[-1][2] + 1) == len(log)


def test_an_offset_in_a_gap_is_found_in_the_batch_behind_the_gap() -> None:
    first, second = batch_at(10, 2), batch_at(20, 2)
    for offset in range(12, 20):
        assert position_of(first + second, offset) == len(first)


def test_a_position_may_lie_at_or_behind_the_end_of_what_is_there() -> None:
    first, second = batch_at(0, 2), batch_at(2, 2)
    log = first + second
    assert position_of(log[: len(first) + HEADER_BYTES], 4) == len(log)
    for cut in range(len(first), len(first) + HEADER_BYTES):
        assert position_of(log[:cut], 3) == len(first)


def test_nothing_is_found_in_nothing() -> None:
    assert whole_batches_size(b"") == 0
    assert position_of(b"", 5) == 0
    assert list(iterate_headers(b"")) == []


@pytest.mark.parametrize("length", [0, -1, 48, -(1 << 31)])
def test_a_batch_whose_size_cannot_be_is_an_error(length: int) -> None:
    log = bytearray(batch_at(0, 1) + batch_at(1, 1))
    start = len(log) // 2
    log[start + 8 : start + 12] = length.to_bytes(4, "big", signed=True)
    with pytest.raises(CorruptRecords, match="claims to be"):
        whole_batches_size(log)
    with pytest.raises(CorruptRecords, match="claims to be"):
        position_of(log, 1)
    with pytest.raises(CorruptRecords, match="claims to be"):
        list(iterate_headers(log))


def records_of(base_offset: int, count: int, timestamps: list[int] | None = None) -> RecordIterator:
    batch = batch_at(base_offset, count, timestamps)
    return iterate_records(batch, read_header(batch))


def test_records_are_taken_in_portions() -> None:
    iterator = records_of(100, 10)
    records: list[Record] = []
    assert iterator.take(records, 0, 0) == 0
    assert iterator.take(records, 4, 0) == 4
    assert iterator.take(records, 4, 0) == 4
    assert iterator.take(records, 4, 0) == 2
    assert iterator.take(records, 4, 0) == 0
    assert [record.offset for record in records] == list(range(100, 110))
    assert [len(record.value) for record in records] == list(range(10))


@given(st.integers(90, 120), st.integers(1, 12))
def test_records_before_the_offset_are_passed_over(offset: int, count: int) -> None:
    records: list[Record] = []
    wanted = [each for each in range(100, 110) if each >= offset][:count]
    assert records_of(100, 10).take(records, count, offset) == len(wanted)
    assert [record.offset for record in records] == wanted


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.integers(-1, 21), st.data())
def test_the_first_record_at_or_after_a_timestamp(
    timestamps: list[int], wanted: int, data: st.DataObject
) -> None:
    offset = data.draw(st.integers(98, 100 + len(timestamps) + 1))
    found = records_of(100, len(timestamps), timestamps).first_at_or_after(wanted, offset)
    pairs = enumerate(timestamps, 100)
    assert found == next((pair for pair in pairs if pair[1] >= wanted and pair[0] >= offset), None)
