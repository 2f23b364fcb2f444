"""The codecs there and back, and what is damaged, cut off or inflates too far."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from cramjam import lz4, snappy, zstd
from hypothesis import given
from hypothesis import strategies as st

from ottla.errors import DecodeError
from ottla.wire.compression import (
    GZIP,
    INFLATED_BYTES_MAX,
    LZ4,
    NAMES,
    SNAPPY,
    ZSTD,
    compress,
    decompress,
)

CODECS = (GZIP, SNAPPY, LZ4, ZSTD)
MIXED = bytes(range(256)) * 20 + b"a" * 100_000 + bytes(range(255, -1, -1)) * 20
XERIAL_HEADER = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"

each_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: NAMES[codec])


@each_codec
@given(data=st.binary(max_size=5000), repeats=st.integers(1, 40))
def test_data_comes_back(codec: int, data: bytes, repeats: int) -> None:
    wanted = data * repeats
    assert bytes(decompress(codec, compress(codec, wanted))) == wanted


@each_codec
@pytest.mark.parametrize("size", [0, 1, 32767, 32768, 32769, 65536, 65537, 300_000, 5_000_000])
def test_data_of_every_size_of_block_comes_back(codec: int, size: int) -> None:
    data = (MIXED * (size // len(MIXED) + 1))[:size]
    for kind in (bytes, bytearray, memoryview):
        packed = compress(codec, kind(data))
        assert bytes(decompress(codec, kind(packed))) == data


@pytest.mark.parametrize(
    ("codec", "level"), [(GZIP, 1), (GZIP, 9), (LZ4, 1), (LZ4, 9), (LZ4, 17), (ZSTD, 1), (ZSTD, 22)]
)
def test_data_comes_back_at_every_level(codec: int, level: int) -> None:
    assert bytes(decompress(codec, compress(codec, MIXED, level))) == MIXED


@pytest.mark.parametrize(
    ("codec", "packed"),
    [
        (GZIP, gzip.compress(MIXED)),
        (SNAPPY, bytes(snappy.compress_raw(MIXED))),
        (LZ4, bytes(lz4.compress(MIXED))),
        (ZSTD, bytes(zstd.compress(MIXED))),
    ],
    ids=NAMES[1:],
)
def test_what_other_writers_make_is_read(codec: int, packed: bytes) -> None:
    assert bytes(decompress(codec, packed)) == MIXED


def test_snappy_is_written_in_blocks_of_snappy_java_and_lz4_in_independent_blocks() -> None:
    packed = compress(SNAPPY, MIXED)
    assert packed.startswith(XERIAL_HEADER)
    size = int.from_bytes(packed[16:20], "big")
    assert snappy.decompress_raw_len(packed[20 : 20 + size]) == 32 * 1024
    for level in (1, 9):
        packed = compress(LZ4, MIXED, level)
        assert packed[:4] == b"\x04\x22\x4d\x18"
        assert packed[4] & 0b0010_0000, "blocks depend on each other"


def test_gzip_of_several_members_is_read() -> None:
    members = [b"first", b"", b"x" * 50_000, b"last"]
    packed = b"".join(gzip.compress(member) for member in members)
    assert bytes(decompress(GZIP, packed)) == b"".join(members)
    for size in range(len(gzip.compress(b"first")) + 1, len(packed)):
        with suppress(DecodeError):
            assert b"".join(members).startswith(decompress(GZIP, packed[:size]))


@each_codec
def test_data_cut_off_anywhere_is_an_error_or_whole_blocks(codec: int) -> None:
    packed = compress(codec, MIXED)
    for size in range(len(packed)):
        try:
            found = bytes(decompress(codec, packed[:size]))
        except DecodeError:
            continue
        assert codec == SNAPPY, "only snappy's framing does not say where it ends"
        assert len(found) % (32 * 1024) == 0
        assert MIXED.startswith(found)


@each_codec
def test_a_flipped_bit_is_an_error_or_other_data(codec: int) -> None:
    packed = compress(codec, MIXED)
    for index in range(len(packed)):
        damaged = bytearray(packed)
        damaged[index] ^= 1 << (index % 8)
        with suppress(DecodeError):
            assert len(decompress(codec, damaged, 2 * len(MIXED))) <= 2 * len(MIXED)


@each_codec
@given(data=st.binary(max_size=200))
def test_garbage_is_an_error(codec: int, data: bytes) -> None:
    heads = (b"", compress(codec, b"")[:7], XERIAL_HEADER)
    for head in heads:
        try:
            assert len(decompress(codec, head + data, 100_000)) <= 100_000
        except DecodeError as error:
            assert NAMES[codec] in error.what


@each_codec
def test_nothing_at_all_is_an_error(codec: int) -> None:
    with pytest.raises(DecodeError):
        decompress(codec, b"")


@each_codec
def test_data_behind_the_end_is_an_error(codec: int) -> None:
    with pytest.raises(DecodeError):
        decompress(codec, compress(codec, MIXED) + b"\x00behind")


@each_codec
def test_exactly_what_is_allowed_comes_out_and_not_a_byte_more(codec: int) -> None:
    for data in (b"", b"a", MIXED):
        packed = compress(codec, data)
        assert bytes(decompress(codec, packed, len(data))) == data
        if data:
            with pytest.raises(DecodeError, match="inflates to more than"):
                decompress(codec, packed, len(data) - 1)


def bomb(codec: int, size: int) -> bytes:
    """Return data of `size` zeros, packed."""
    packed = compress(codec, bytes(size))
    assert len(packed) < size // 15
    return packed


@each_codec
@pytest.mark.parametrize("inflated_bytes_max", [0, 1000, 1_000_000])
def test_a_bomb_is_refused_without_inflating_it_all(codec: int, inflated_bytes_max: int) -> None:
    packed = bomb(codec, 64 * 1024 * 1024)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="inflates to more than"):
            decompress(codec, packed, inflated_bytes_max)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * (len(packed) + inflated_bytes_max) + 300_000


def test_bombs_in_many_members_and_blocks_are_refused_too() -> None:
    members = gzip.compress(bytes(10_000)) * 1000
    block = bytes(snappy.compress_raw(bytes(10_000)))
    blocks = XERIAL_HEADER + (len(block).to_bytes(4, "big") + block) * 1000
    for codec, packed in ((GZIP, members), (SNAPPY, blocks)):
        assert len(decompress(codec, packed)) == 10_000_000
        with pytest.raises(DecodeError, match="inflates to more than 9999999 bytes"):
            decompress(codec, packed, 9_999_999)


def test_the_members_of_gzip_are_not_copied_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many small members must not cost the square of their number."""
    copied = 0
    make = zlib.decompressobj

    class Counting:
        def __init__(self, wbits: int) -> None:
            self._inner = make(wbits=wbits)

        def decompress(self, data: bytes, limit: int) -> bytes:
            nonlocal copied
            inflated = self._inner.decompress(data, limit)
            copied += len(self._inner.unused_data)
            return inflated

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    packed = gzip.compress(b"") * 5000
    assert decompress(GZIP, packed) == b""
    assert copied < 5000 * 5000


def test_a_size_that_snappy_only_claims_is_refused_before_memory_is_made_for_it() -> None:
    claims = b"\x80\x80\x80\x40\x00a"
    assert snappy.decompress_raw_len(claims) == INFLATED_BYTES_MAX
    with pytest.raises(DecodeError, match=f"6 bytes claims to hold {INFLATED_BYTES_MAX}"):
        decompress(SNAPPY, claims)
    with pytest.raises(DecodeError, match="inflates to more than"):
        decompress(SNAPPY, b"\xff\xff\xff\xff\x07\x00a")


def test_a_snappy_header_cut_off_or_a_block_that_is_not_there_is_an_error() -> None:
    for size in range(8, 16):
        with pytest.raises(DecodeError):
            decompress(SNAPPY, XERIAL_HEADER[:size])
    for rest in (b"\x00", b"\x00\x00\x00\x01", b"\xff\xff\xff\xffxx"):
        with pytest.raises(DecodeError):
            decompress(SNAPPY, XERIAL_HEADER + rest)
