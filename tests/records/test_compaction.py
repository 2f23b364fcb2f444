"""A batch with only the records that stay: their content, and the header around them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.records.batch import check_crc, iterate_records, read_header
from ottla.records.builder import BatchBuilder
from ottla.records.compaction import (
    DELETE_HORIZON,
    LatestOffsets,
    empty_batch,
    filter_batch,
    index_keys,
    with_delete_horizon,
)
from ottla.wire import Buffer

NOW = 1_700_000_000_000
Record = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]] | None]


def built(*records: Record, codec: int = 0) -> memoryview:
    builder = BatchBuilder()
    for number, (key, value, headers) in enumerate(records):
        builder.append(NOW + number, key, value, headers, 1 << 30)
    return builder.build(codec, None, 7, 3, 100)


def noted(offsets: dict[bytes, int]) -> LatestOffsets:
    latest = LatestOffsets(lambda count: None)
    for key, offset in offsets.items():
        latest.note(key, offset)
    return latest


def content(batch: Buffer) -> list[tuple[int, int, bytes | None, bytes | None, object]]:
    """Return (offset, timestamp, key, value, headers) of each record."""
    header = read_header(batch)
    check_crc(batch, header)
    return [
        (each.offset, each.timestamp_ms, each.key, each.value, each.headers)
        for each in iterate_records(batch, header)
    ]


KEYS = st.sampled_from([None, b"", b"a", b"b", b"c" * 200])
VALUES = st.one_of(st.none(), st.binary(max_size=80))
HEADERS = st.lists(st.tuples(st.text(max_size=4), VALUES), max_size=2)


@given(st.lists(st.tuples(KEYS, VALUES, HEADERS), min_size=1, max_size=8), st.integers(0, 4))
def test_what_stays_is_what_was_there_with_its_offset_and_time(
    records: list[Record], codec: int
) -> None:
    batch = built(*records, codec=codec)
    header = read_header(batch)
    latest = noted({})
    index_keys(batch, header, latest, 0)
    last = {key: number for number, (key, _, _) in enumerate(records) if key is not None}
    assert {key: latest.of(key) for key in last} == last
    assert len(latest) == len(last)
    kept = filter_batch(batch, header, latest, len(records), NOW, 1000)
    expected = [each for each in content(batch) if each[0] in last.values()]
    if kept is None:
        assert not expected
        return
    assert content(kept) == expected
    found = read_header(kept)
    assert (found.base_offset, found.last_offset) == (header.base_offset, header.last_offset)
    assert (found.producer_id, found.producer_epoch, found.base_sequence) == (7, 3, 100)
    assert found.last_sequence == header.last_sequence
    has_deletes = any(value is None for _, _, _, value, _ in expected)
    assert (found.attributes & DELETE_HORIZON != 0) == has_deletes
    if has_deletes:
        assert found.base_timestamp == NOW + 1000
        again = filter_batch(kept, found, latest, len(records), NOW + 999, 1000)
        assert again is not None
        assert bytes(again) == bytes(kept)
        last_time = filter_batch(kept, found, latest, len(records), NOW + 1000, 1000)
        values = [] if last_time is None else [each[3] for each in content(last_time)]
        assert values == [each[3] for each in expected if each[3] is not None]


def test_a_batch_that_loses_nothing_is_not_written_anew() -> None:
    batch = built((b"a", b"1", None), (b"b", b"2", None))
    header = read_header(batch)
    kept = filter_batch(batch, header, noted({b"a": 0, b"b": 1}), 2, NOW, 1000)
    assert kept is not None
    assert bytes(kept) == bytes(batch)


def test_what_lies_behind_the_noted_keys_stays() -> None:
    batch = built((b"a", b"1", None), (b"a", b"2", None), (b"a", b"3", None))
    kept = filter_batch(batch, read_header(batch), noted({b"a": 1}), 2, NOW, 1000)
    assert kept is not None
    assert [each[0] for each in content(kept)] == [1, 2]


def test_keys_before_an_offset_are_not_noted() -> None:
    batch = built((b"a", b"1", None), (b"b", b"2", None))
    latest = noted({})
    assert index_keys(batch, read_header(batch), latest, 1) > 0
    assert (latest.of(b"a"), latest.of(b"b"), len(latest)) == (-1, 1, 1)
    assert index_keys(batch, read_header(batch), latest, 1) == 0


@pytest.mark.parametrize("value", [b"1", None])
def test_a_walk_over_a_large_batch_pauses_again_and_again(value: bytes | None) -> None:
    pauses: list[int] = []
    latest = LatestOffsets(pauses.append)
    batch = built(*[(b"%d" % number, value, None) for number in range(2000)])
    header = read_header(batch)

    index_keys(batch, header, latest, 0)
    assert len(pauses) == 7

    latest.note(b"0", 5000)
    kept = filter_batch(batch, header, latest, 5000, NOW, 1000)
    assert kept is not None
    assert len(content(kept)) == 1999
    assert len(pauses) == (14 if value else 21)  # those with a delete horizon are encoded again


def test_keys_are_spread_and_forgotten_part_by_part() -> None:
    pauses: list[int] = []
    latest = LatestOffsets(pauses.append)
    for number in range(5000):
        latest.note(b"%d" % number, number)
    assert [latest.of(b"%d" % number) for number in range(5000)] == list(range(5000))

    latest.forget()

    assert (len(latest), latest.of(b"1")) == (0, -1)
    assert len(pauses) > 100


def test_records_of_a_batch_that_the_broker_stamped_get_its_time() -> None:
    builder = BatchBuilder()
    for number, key in enumerate((b"a", b"b")):
        builder.append(NOW - number, key, b"1", None, 1 << 30)
    batch = builder.build(attributes=0x08)
    kept = filter_batch(batch, read_header(batch), noted({b"a": 1, b"b": 1}), 2, NOW, 1000)
    assert kept is not None
    assert [each[:3] for each in content(kept)] == [(1, NOW, b"b")]
    plain = bytearray(kept)
    plain[22] = 0  # what the record says itself
    assert [each.timestamp_ms for each in iterate_records(plain, read_header(plain))] == [NOW]


def test_an_empty_batch_keeps_offsets_sequences_and_producer() -> None:
    batch = built((b"a", b"1", None), (b"b", b"2", None), codec=1)
    header = read_header(batch)
    empty = empty_batch(header)
    found = read_header(empty)
    assert content(empty) == []
    assert len(memoryview(empty)) == 61
    assert (found.base_offset, found.last_offset, found.last_sequence) == (0, 1, 101)
    assert found.codec == 0


@pytest.mark.parametrize("codec", range(5))
def test_a_delete_horizon_changes_nothing_but_itself(codec: int) -> None:
    batch = built((b"a", b"1" * 100, [("h", b"x")]), (b"b", None, None), codec=codec)
    marked = with_delete_horizon(batch, read_header(batch), NOW + 5)
    assert content(marked) == content(batch)
    found = read_header(marked)
    assert (found.base_timestamp, found.max_timestamp) == (NOW + 5, NOW + 1)
    assert found.attributes & DELETE_HORIZON
