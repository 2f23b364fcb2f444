"""Every primitive type there and back, and every way in which bytes can be too few or too many."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ottla.errors import DecodeError
from ottla.wire.cursor import Reader, Writer


@dataclass(frozen=True)
class Primitive:
    """A primitive type: how it is written and read, and what it can hold."""

    name: str
    write: Callable[[Writer, Any], object]
    read: Callable[[Reader], Any]
    low: int
    high: int
    layout: str = ""


INTEGERS = (
    Primitive("int8", Writer.int8, Reader.int8, -(1 << 7), (1 << 7) - 1, ">b"),
    Primitive("int16", Writer.int16, Reader.int16, -(1 << 15), (1 << 15) - 1, ">h"),
    Primitive("uint16", Writer.uint16, Reader.uint16, 0, (1 << 16) - 1, ">H"),
    Primitive("int32", Writer.int32, Reader.int32, -(1 << 31), (1 << 31) - 1, ">i"),
    Primitive("uint32", Writer.uint32, Reader.uint32, 0, (1 << 32) - 1, ">I"),
    Primitive("int64", Writer.int64, Reader.int64, -(1 << 63), (1 << 63) - 1, ">q"),
    Primitive("uvarint", Writer.uvarint, Reader.uvarint, 0, (1 << 32) - 1),
    Primitive("varint", Writer.varint, Reader.varint, -(1 << 31), (1 << 31) - 1),
    Primitive("varlong", Writer.varint, Reader.varlong, -(1 << 63), (1 << 63) - 1),
)
FIXED = [primitive for primitive in INTEGERS if primitive.layout]

each_integer = pytest.mark.parametrize("kind", INTEGERS, ids=lambda kind: kind.name)


def written(kind: Primitive, value: Any) -> bytes:
    writer = Writer()
    kind.write(writer, value)
    assert writer.size() == len(writer.joined())
    return writer.joined()


@each_integer
@given(data=st.data())
def test_an_integer_is_read_as_it_was_written(kind: Primitive, data: st.DataObject) -> None:
    value = data.draw(st.integers(kind.low, kind.high))
    encoded = written(kind, value)
    reader = Reader(encoded)
    assert kind.read(reader) == value
    reader.finish()
    if kind.layout:
        assert encoded == struct.pack(kind.layout, value)


@each_integer
def test_the_limits_of_an_integer_are_read_as_they_were_written(kind: Primitive) -> None:
    for value in (kind.low, kind.low + 1, 0, 1, 63, 64, 127, kind.high - 1, kind.high):
        assert kind.read(Reader(written(kind, value))) == value


@pytest.mark.parametrize("kind", FIXED, ids=lambda kind: kind.name)
def test_a_fixed_integer_beyond_its_limits_is_not_written(kind: Primitive) -> None:
    for value in (kind.low - 1, kind.high + 1, 1 << 70, -(1 << 70)):
        writer = Writer()
        with pytest.raises(OverflowError):
            kind.write(writer, value)
        assert writer.joined() == b""


def test_a_varint_beyond_64_bits_is_not_written() -> None:
    for value in (-1, 1 << 64):
        with pytest.raises(OverflowError):
            Writer().uvarint(value)
    for value in (-(1 << 63) - 1, 1 << 63):
        with pytest.raises(OverflowError):
            Writer().varint(value)


@each_integer
def test_an_integer_cut_off_anywhere_is_an_error(kind: Primitive) -> None:
    for value in (kind.low, kind.high):
        encoded = written(kind, value)
        for size in range(len(encoded)):
            with pytest.raises(DecodeError, match="needed at position"):
                kind.read(Reader(encoded[:size]))


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (0x7FFFFFFF, "ffffffff07"),
        (0xFFFFFFFF, "ffffffff0f"),
    ],
)
def test_unsigned_varints_have_kafkas_bytes(value: int, encoded: str) -> None:
    writer = Writer()
    writer.uvarint(value)
    assert writer.joined().hex() == encoded


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (-1, "01"),
        (1, "02"),
        (63, "7e"),
        (-64, "7f"),
        (64, "8001"),
        (-(1 << 31), "ffffffff0f"),
        ((1 << 63) - 1, "feffffffffffffffff01"),
        (-(1 << 63), "ffffffffffffffffff01"),
    ],
)
def test_zigzag_varints_have_kafkas_bytes(value: int, encoded: str) -> None:
    writer = Writer()
    writer.varint(value)
    assert writer.joined().hex() == encoded
    assert Reader(bytes.fromhex(encoded)).varlong() == value


@pytest.mark.parametrize("encoded", ["ffffffff10", "ffffffff1f", "ffffffff7f"])
def test_a_varint_of_more_than_32_bits_is_an_error(encoded: str) -> None:
    for read in (Reader.uvarint, Reader.varint):
        with pytest.raises(DecodeError, match="exceeds 32 bits"):
            read(Reader(bytes.fromhex(encoded)))


def test_a_varint_that_does_not_end_is_an_error() -> None:
    for read in (Reader.uvarint, Reader.varint):
        with pytest.raises(DecodeError, match="exceeds 5 bytes"):
            read(Reader(b"\x80" * 20))
    with pytest.raises(DecodeError, match="exceeds 10 bytes"):
        Reader(b"\x80" * 20).varlong()


def test_a_varint_may_be_longer_than_it_must() -> None:
    assert Reader(b"\x81\x80\x00").uvarint() == 1


@given(st.floats(allow_nan=False))
def test_a_double_is_read_as_it_was_written(value: float) -> None:
    writer = Writer()
    writer.float64(value)
    assert writer.joined() == struct.pack(">d", value)
    assert Reader(writer.joined()).float64() == value


def test_not_a_number_stays_that_and_a_double_cut_off_is_an_error() -> None:
    writer = Writer()
    writer.float64(math.nan)
    assert math.isnan(Reader(writer.joined()).float64())
    for size in range(8):
        with pytest.raises(DecodeError):
            Reader(writer.joined()[:size]).float64()


@given(st.binary(), st.text())
def test_bytes_and_text_are_read_as_they_were_written(data: bytes, text: str) -> None:
    writer = Writer()
    writer.raw(data)
    writer.raw(text.encode())
    reader = Reader(writer.joined())
    view = reader.view(len(data))
    assert reader.text(len(text.encode())) == text
    reader.finish()
    assert view == data
    assert Reader(writer.joined()).raw(len(data)) == data


def test_text_that_is_not_utf_8_is_an_error() -> None:
    for encoded in (b"\xff", b"\xc3", b"\xed\xa0\x80"):
        with pytest.raises(DecodeError, match="not UTF-8"):
            Reader(encoded).text(len(encoded))


@pytest.mark.parametrize("method", [Reader.raw, Reader.view, Reader.text, Reader.skip, Reader.need])
@pytest.mark.parametrize("size", [-1, 5, 1 << 31, (1 << 63) - 1, -(1 << 63)])
def test_a_size_that_is_not_there_is_an_error_and_nothing_is_read(
    method: Callable[[Reader, int], object], size: int
) -> None:
    reader = Reader(b"\x01four")
    reader.int8()
    with pytest.raises(DecodeError, match=r"needed at position 1, 4 remain"):
        method(reader, size)
    assert reader.position == 1
    assert reader.raw(4) == b"four"


def test_bytes_left_over_are_an_error() -> None:
    reader = Reader(b"\x00\x00\x00")
    reader.int16()
    assert reader.remaining() == 1
    with pytest.raises(DecodeError, match="1 bytes left over at 2"):
        reader.finish()


def test_a_reader_takes_every_kind_of_buffer_and_keeps_it_from_being_resized() -> None:
    owner = bytearray(b"\x00\x07")
    for data in (bytes(owner), owner, memoryview(b"\xff\x00\x07")[1:]):
        assert Reader(data).int16() == 7
    reader = Reader(owner)
    with pytest.raises(BufferError):
        owner.append(0)
    assert reader.int16() == 7


def test_a_view_shows_the_buffer_itself() -> None:
    owner = bytearray(b"abcd")
    view = Reader(owner).view(4)
    owner[0] = ord("x")
    assert view == b"xbcd"


CHUNKS = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.sampled_from([4095, 4096, 4097, 9000]).map(lambda size: b"x" * size),
    )
)


@given(CHUNKS, st.sampled_from([bytes, bytearray, memoryview]))
@example([b"a", b"x" * 4096, b"", b"x" * 4096, b"b"], bytes)
def test_parts_and_joined_are_what_was_written(chunks: list[bytes], kind: Any) -> None:
    first, second = Writer(), Writer()
    for chunk in chunks:
        first.raw(kind(chunk))
        second.raw(kind(chunk))
    wanted = b"".join(chunks)
    assert first.size() == len(wanted)
    assert b"".join(first.parts()) == wanted
    assert second.joined() == wanted


def test_large_values_are_kept_by_reference() -> None:
    large = bytearray(b"x" * 4096)
    writer = Writer()
    writer.int32(1)
    writer.raw(large)
    writer.int8(2)
    large[0] = ord("y")
    assert writer.parts() == [b"\x00\x00\x00\x01", b"y" + b"x" * 4095, b"\x02"]


def test_a_frame_begins_with_its_size_and_is_one_buffer_where_all_values_are_small() -> None:
    writer = Writer()
    writer.int32(0)
    writer.raw(b"x" * 300)
    assert writer.framed() == [struct.pack(">i", 300) + b"x" * 300]


def test_a_frame_keeps_large_values_by_reference() -> None:
    large = bytearray(b"x" * 4096)
    writer = Writer()
    writer.int32(0)
    writer.int8(1)
    writer.raw(large)
    writer.int8(2)
    large[0] = ord("y")
    size = struct.pack(">i", 4098)
    assert writer.framed() == [size + b"\x01", b"y" + b"x" * 4095, b"\x02"]


@pytest.mark.parametrize("count", [3, 4096])
def test_only_buffers_are_written_and_a_buffer_counts_in_bytes(count: int) -> None:
    wrong: list[Any] = ["x" * count, list(range(3)), None, 7]
    for value in wrong:
        writer = Writer()
        with pytest.raises(TypeError):
            writer.raw(value)
        assert writer.joined() == b""
    wide = memoryview(bytes(4 * count)).cast("I")
    writer = Writer()
    writer.raw(wide)
    writer.int8(1)
    assert writer.size() == 4 * count + 1
    assert writer.joined() == bytes(4 * count) + b"\x01"
