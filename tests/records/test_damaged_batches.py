"""Batches that are cut off, flipped or lie: each is refused with an error that says what it is.

A checksum catches what happens to a batch on its way; what a peer means to do has a right checksum,
so most of these batches get theirs anew after they were damaged.
"""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest

from ottla._compiled import pure_on_purpose
from ottla.errors import CorruptRecords, DecodeError, InvalidRecords, UnsupportedCodec
from ottla.records.batch import (
    CONTROL,
    HEADER_BYTES,
    check_crc,
    iterate_records,
    read_header,
    validate,
)
from ottla.records.builder import BatchBuilder
from ottla.wire.compression import GZIP, LZ4, NAMES, NONE, SNAPPY, ZSTD, compress
from ottla.wire.crc32c import crc32c

CODECS = (NONE, GZIP, SNAPPY, LZ4, ZSTD)
STEP = 7 if pure_on_purpose() else 1
"""The uncompiled form flips every seventh byte only."""

BATCH_LENGTH, MAGIC, CRC, ATTRIBUTES, LAST_DELTA, COUNT = 8, 16, 17, 21, 23, 57

each_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: NAMES[codec])


def batch(codec: int = NONE, count: int = 5) -> bytearray:
    builder = BatchBuilder()
    for index in range(count):
        headers = [("name", b"value"), ("none", None)] if index % 2 else None
        builder.append(1000 + index, b"k" * index, b"value" * 40, headers, 1 << 30)
    built = bytearray(builder.build(codec))
    assert read_header(built).codec == codec
    return built


def with_crc(data: bytearray) -> bytearray:
    data[CRC : CRC + 4] = crc32c(data[ATTRIBUTES:]).to_bytes(4, "big")
    return data


def of_records(records: bytes, count: int, codec: int = NONE) -> bytearray:
    """Return a batch with any bytes as its records."""
    body = records if codec == NONE else compress(codec, records)
    data = bytearray(HEADER_BYTES) + body
    struct.pack_into(">qiibIh", data, 0, 0, len(data) - 12, -1, 2, 0, codec)
    struct.pack_into(">i", data, LAST_DELTA, count - 1)
    struct.pack_into(">qhi", data, 43, -1, -1, -1)
    struct.pack_into(">i", data, COUNT, count)
    return with_crc(data)


def varint(value: int) -> bytes:
    bits = ((value << 1) ^ (value >> 63)) & 0xFFFF_FFFF_FFFF_FFFF
    encoded = bytearray()
    while bits > 0x7F:
        encoded.append(bits & 0x7F | 0x80)
        bits >>= 7
    return bytes(encoded) + bytes([bits])


def record(body: bytes, offset: int = 0) -> bytes:
    """Return a record: its attributes, timestamp and offset in front of `body`."""
    whole = b"\x00" + varint(0) + varint(offset) + body
    return varint(len(whole)) + whole


NO_KEY_NO_VALUE = varint(-1) + varint(-1)
PLAIN = record(NO_KEY_NO_VALUE + varint(0))


def test_the_batches_that_are_damaged_here_are_right_before() -> None:
    for codec in CODECS:
        validate(batch(codec))
        validate(of_records(PLAIN + record(NO_KEY_NO_VALUE + varint(0), 1), 2, codec))


@each_codec
def test_a_batch_cut_off_anywhere_is_corrupt(codec: int) -> None:
    data = batch(codec)
    for size in range(len(data)):
        with pytest.raises(CorruptRecords):
            validate(data[:size])
        if size >= HEADER_BYTES:
            header = read_header(data[:size])
            with pytest.raises(CorruptRecords, match="cut off"):
                check_crc(data[:size], header)
            with pytest.raises(CorruptRecords, match="cut off"):
                iterate_records(data[:size], header)


@each_codec
def test_a_flipped_bit_behind_the_checksum_is_found_by_it(codec: int) -> None:
    data = batch(codec)
    for index in range(CRC, len(data), STEP):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[index] ^= 1 << bit
            with pytest.raises(CorruptRecords, match="the checksum of a batch is wrong"):
                validate(damaged)


def test_a_flipped_bit_before_the_checksum_is_refused_where_it_matters() -> None:
    for index in range(CRC):
        for bit in range(8):
            damaged = batch()
            damaged[index] ^= 1 << bit
            if 12 <= index < MAGIC:
                validate(damaged)  # the leader's epoch is the broker's to set
            else:
                with pytest.raises((CorruptRecords, InvalidRecords)):
                    validate(damaged)


@pytest.mark.slow
@each_codec
def test_a_flipped_bit_with_a_right_checksum_is_an_error_or_other_records(codec: int) -> None:
    data = batch(codec)
    for index in range(ATTRIBUTES, len(data), STEP):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[index] ^= 1 << bit
            with_crc(damaged)
            read_all(damaged)
            try:
                header, _ = validate(damaged)
            except DecodeError:
                continue
            assert header.records_count == 5
            assert [each.offset for each in iterate_records(damaged, header)] == list(range(5))


def read_all(data: bytearray) -> None:
    """Read all that a consumer could ask for; only DecodeError may come of it."""
    with suppress(DecodeError):
        for each in iterate_records(data, read_header(data), inflated_bytes_max=1 << 20):
            assert each.key is None or len(each.key) <= 1 << 20
            assert each.value is None or len(each.value) <= 1 << 20
            assert len(each.headers) <= 1 << 20


@pytest.mark.parametrize("magic", [0, 1])
def test_the_old_formats_are_refused_as_invalid(magic: int) -> None:
    data = batch()
    data[MAGIC] = magic
    with pytest.raises(InvalidRecords, match=f"magic {magic}: only batches of magic 2"):
        validate(data)
    with pytest.raises(InvalidRecords, match=f"magic {magic}"):
        validate(data[:26])
    with pytest.raises(CorruptRecords, match=f"magic {magic}"):
        read_header(data)


def test_a_magic_that_there_is_not_is_corrupt() -> None:
    for magic in (3, 127, 255):
        data = batch()
        data[MAGIC] = magic
        with pytest.raises(CorruptRecords, match=f"magic {magic}"):
            validate(data)


@pytest.mark.parametrize("position", [-1, 1, 1 << 40])
def test_no_header_is_read_outside_of_the_data(position: int) -> None:
    data = batch()[:HEADER_BYTES]
    with pytest.raises(CorruptRecords, match="cannot hold a batch's header"):
        read_header(data, position)


@pytest.mark.parametrize("length", [0, -1, 48, -(1 << 31), (1 << 31) - 1])
def test_a_length_that_lies_is_refused(length: int) -> None:
    data = batch()
    data[BATCH_LENGTH : BATCH_LENGTH + 4] = length.to_bytes(4, "big", signed=True)
    with pytest.raises(CorruptRecords):
        validate(data)


def test_two_batches_or_bytes_behind_one_are_invalid() -> None:
    for rest in (batch(), b"\x00"):
        with pytest.raises(InvalidRecords, match="more than one batch"):
            validate(batch() + rest)


@pytest.mark.parametrize(
    ("position", "value", "text"),
    [
        (0, (1).to_bytes(8, "big"), "base offset 1"),
        (0, b"\xff" * 8, "base offset -1"),
        (ATTRIBUTES, CONTROL.to_bytes(2, "big"), "a control batch"),
        (COUNT, bytes(4), "a batch of 0 records"),
        (COUNT, b"\xff" * 4, "a batch of -1 records"),
        (COUNT, (4).to_bytes(4, "big"), "last offset delta of 4"),
        (LAST_DELTA, (5).to_bytes(4, "big"), "last offset delta of 5"),
        (LAST_DELTA, b"\xff" * 4, "last offset delta of -1"),
    ],
)
def test_a_header_that_says_what_cannot_be_is_invalid(
    position: int, value: bytes, text: str
) -> None:
    data = batch()
    data[position : position + len(value)] = value
    with pytest.raises(InvalidRecords, match=text):
        validate(with_crc(data))


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_a_codec_that_there_is_not_is_unsupported(codec: int) -> None:
    data = batch()
    data[ATTRIBUTES + 1] |= codec
    with pytest.raises(UnsupportedCodec, match=f"codec {codec}"):
        validate(with_crc(data))


@each_codec
@pytest.mark.parametrize("count", [1, 4, 6, 200_000, 0x7FFFFFFF])
def test_a_count_of_records_that_lies_is_corrupt_and_takes_no_memory(
    codec: int, count: int
) -> None:
    data = batch(codec)
    data[COUNT : COUNT + 4] = count.to_bytes(4, "big")
    data[LAST_DELTA : LAST_DELTA + 4] = (count - 1).to_bytes(4, "big")
    with_crc(data)
    why = f"claims to hold {count} records" if count > 6 else None
    tracemalloc.start()
    try:
        with pytest.raises(CorruptRecords, match=why):
            validate(data)
        with pytest.raises(CorruptRecords):
            list(iterate_records(data, read_header(data)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000


def test_a_negative_count_of_records_is_corrupt() -> None:
    data = batch()
    data[COUNT : COUNT + 4] = b"\xff" * 4
    with pytest.raises(CorruptRecords, match="claims to hold -1 records"):
        iterate_records(data, read_header(data))


@each_codec
@pytest.mark.parametrize(
    "records",
    [
        b"",
        varint(1 << 40) + b"x" * 20,
        varint(-5) + b"x" * 20,
        varint(5) + b"x" * 20,
        b"\xff" * 20,
        PLAIN[:-1],
        PLAIN + b"\x00",
        record(varint(100) + b"k" + varint(-1) + varint(0)),
        record(varint(-2) + varint(-1) + varint(0)),
        record(varint(-1) + varint(-2) + varint(0)),
        record(varint(-1) + varint(1 << 62) + varint(0)),
        record(varint(-(1 << 63)) + varint(-1) + varint(0)),
        record(varint((1 << 63) - 1) + varint(-1) + varint(0)),
        record(b"\x80" * 11 + b"\x00"),
    ],
    ids=range(14),
)
def test_a_record_that_lies_is_corrupt(codec: int, records: bytes) -> None:
    data = of_records(records, 1, codec)
    with pytest.raises(CorruptRecords):
        validate(data)
    with pytest.raises(CorruptRecords):
        list(iterate_records(data, read_header(data)))


@pytest.mark.parametrize(
    "headers",
    [
        varint(-1),
        varint(1),
        varint(1 << 40),
        varint((1 << 63) - 1),
        varint(1) + varint(-1) + varint(-1),
        varint(1) + varint(100) + b"name",
        varint(1) + varint(1) + b"n" + varint(100) + b"v",
        varint(1) + varint(1) + b"n" + varint(-2),
        varint(0) + b"left over",
        varint(1) + varint(1) + b"n" + varint(-1) + b"left over",
    ],
    ids=range(10),
)
def test_headers_that_lie_are_corrupt(headers: bytes) -> None:
    data = of_records(record(NO_KEY_NO_VALUE + headers), 1)
    with pytest.raises(CorruptRecords):
        validate(data)
    if not headers.endswith(b"left over"):
        (found,) = iterate_records(data, read_header(data))
        with pytest.raises(CorruptRecords):
            found.headers  # noqa: B018 - they are read where they are asked for


def test_a_headers_name_that_is_not_utf_8_is_corrupt() -> None:
    headers = varint(1) + varint(2) + b"\xff\xff" + varint(-1)
    data = of_records(record(NO_KEY_NO_VALUE + headers), 1)
    (found,) = iterate_records(data, read_header(data))
    with pytest.raises(CorruptRecords, match="not UTF-8"):
        found.headers  # noqa: B018 - they are read where they are asked for


@pytest.mark.parametrize("offsets", [(1,), (0, 0), (0, 2), (1, 0), (0, -1), (0, 1 << 62)])
def test_offsets_that_do_not_count_up_from_0_are_invalid(offsets: tuple[int, ...]) -> None:
    rows = [record(NO_KEY_NO_VALUE + varint(0), offset) for offset in offsets]
    with pytest.raises(InvalidRecords, match="has an offset delta that is not"):
        validate(of_records(b"".join(rows), len(rows)))


@pytest.mark.parametrize("codec", CODECS[1:], ids=NAMES[1:])
def test_a_bomb_is_refused(codec: int) -> None:
    records = record(varint(-1) + varint(1_000_000) + bytes(1_000_000) + varint(0))
    data = of_records(records, 1, codec)
    assert len(data) < 60_000
    validate(data, len(records))
    reads: tuple[Callable[[], object], ...] = (
        lambda: validate(data, len(records) - 1),
        lambda: iterate_records(data, read_header(data), inflated_bytes_max=len(records) - 1),
    )
    for read in reads:
        with pytest.raises(CorruptRecords, match="inflates to more than"):
            read()


@pytest.mark.parametrize("codec", CODECS[1:], ids=NAMES[1:])
def test_compressed_garbage_is_corrupt(codec: int) -> None:
    for body in (b"", b"garbage", b"\x00" * 50):
        data = of_records(body, 1)
        data[ATTRIBUTES + 1] |= codec
        with pytest.raises(CorruptRecords):
            validate(with_crc(data))


def test_iterating_on_after_an_error_stays_within_the_batch() -> None:
    rows = [record(NO_KEY_NO_VALUE + varint(0), offset) for offset in range(50)]
    records = bytearray(b"".join(rows))
    records[len(rows[0]) * 20 + 4] = 0x7F
    data = of_records(bytes(records), 50)
    iterator = iterate_records(data, read_header(data))
    errors = 0
    for _ in range(200):
        try:
            next(iterator)
        except CorruptRecords:
            errors += 1
        except StopIteration:
            break
    assert errors
