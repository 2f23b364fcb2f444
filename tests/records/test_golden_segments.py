"""Segments that a real Kafka wrote, read record by record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ottla.errors import CorruptRecords
from ottla.protocol.codec import decode
from ottla.protocol.messages.transaction_records import TransactionLogKey, TransactionLogValue
from ottla.records.batch import (
    BatchHeader,
    check_crc,
    iterate_headers,
    iterate_records,
    read_header,
)
from ottla.records.positions import position_of, whole_batches_size
from ottla.records.record import Record
from ottla.wire.compression import NAMES

FOLDER = Path(__file__).parent.parent / "data" / "segments"
SEGMENTS = sorted(FOLDER.glob("*/*.log"))

each_segment = pytest.mark.parametrize("segment", SEGMENTS, ids=lambda path: path.parent.name)


def batches(name: str) -> tuple[bytes, list[BatchHeader]]:
    data = (FOLDER / name / "00000000000000000000.log").read_bytes()
    return data, list(iterate_headers(data))


def records_of(data: bytes, header: BatchHeader) -> list[Record]:
    return list(iterate_records(data, header, "gold", 0))


def text(data: bytes | None) -> str | None:
    return None if data is None else data.decode()


def expected() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / "gold-expected.jsonl").read_text().splitlines()]


def test_there_are_four_segments() -> None:
    assert len(SEGMENTS) == 4


@each_segment
def test_a_segment_is_whole_batches_whose_checksums_and_records_are_right(segment: Path) -> None:
    data = segment.read_bytes()
    assert whole_batches_size(data) == len(data)
    next_offset = 0
    for header in iterate_headers(data):
        check_crc(data, header)
        assert header.base_offset == next_offset
        scan = iterate_records(data, header).scan()
        assert scan.max_timestamp == header.max_timestamp
        assert len(records_of(data, header)) == header.records_count
        assert position_of(data, header.last_offset) == header.position
        next_offset = header.last_offset + 1
    assert position_of(data, next_offset) == len(data)


def test_every_record_of_all_codecs_is_what_was_sent() -> None:
    data, headers = batches("gold-0")
    found = [
        {
            "offset": record.offset,
            "codec": NAMES[header.codec],
            "idempotent": header.producer_id >= 0,
            "timestamp": record.timestamp_ms,
            "key": text(record.key),
            "value": text(record.value),
            "headers": [[name, text(value)] for name, value in record.headers],
        }
        for header in headers
        for record in records_of(data, header)
    ]
    wanted = expected()
    assert len(found) == 250
    assert found == wanted
    assert {row["codec"] for row in wanted} == set(NAMES)


def test_every_record_is_found_by_its_offset() -> None:
    data, _ = batches("gold-0")
    for row in expected():
        header = read_header(data, position_of(data, row["offset"]))
        records: list[Record] = []
        assert iterate_records(data, header).take(records, 1, row["offset"]) == 1
        assert records[0].offset == row["offset"]
        assert text(records[0].value) == row["value"]


def test_transactions_are_records_and_markers() -> None:
    data, headers = batches("goldtx-0")
    wanted = json.loads((FOLDER / "goldtx-expected.json").read_text())
    found = [
        (record.offset, text(record.value))
        for header in headers
        if not header.is_control
        for record in records_of(data, header)
    ]
    assert found == [(row["offset"], row["value"]) for row in wanted]
    markers = [header for header in headers if header.is_control]
    assert [header.base_offset for header in markers] == [3, 7, 11]
    assert all(header.is_transactional for header in headers)
    assert all(header.producer_id >= 0 for header in headers)
    commits = [record.key for header in markers for record in records_of(data, header)]
    assert commits == [b"\0\0\0\1", b"\0\0\0\0", b"\0\0\0\1"]


def test_the_transactions_log_holds_the_messages_of_its_schema() -> None:
    data, headers = batches("__transaction_state-21")
    statuses = []
    for header in headers:
        for record in records_of(data, header):
            assert record.key[:2] == b"\0\0"
            version = int.from_bytes(record.value[:2], "big")
            assert decode(TransactionLogKey, record.key[2:], 0).transactional_id
            value = decode(TransactionLogValue, record.value[2:], version)
            statuses.append(value.transaction_status)
    assert len(statuses) == 10


@each_segment
def test_a_segment_of_the_old_formats_would_be_refused(segment: Path) -> None:
    """Kafka 4 has no such segments; a later magic is refused in the same way."""
    for magic in (0, 1, 3, 255):
        data = bytearray(segment.read_bytes())
        data[16] = magic
        with pytest.raises(CorruptRecords, match=f"magic {magic}: only batches of magic 2"):
            read_header(data)
        with pytest.raises(CorruptRecords, match=f"magic {magic}"):
            list(iterate_headers(data))
