"""The codecs of record batches: gzip, snappy, lz4 and zstd, all through libraries.

Inflating is bounded: nothing is inflated beyond `inflated_bytes_max`, whatever the input says of
its size, and no buffer is made for a size that the input only claims.

- lz4 is written as frames of independent blocks, the only ones that Kafka's Java client reads.
- snappy is written in snappy-java's framing, as the Java client does (a magic, two versions, then
  blocks with a length each); plain snappy, which librdkafka writes, is read as well.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ottla.errors import DecodeError

if TYPE_CHECKING:
    from ottla.wire import Buffer

NONE: Final = 0
GZIP: Final = 1
SNAPPY: Final = 2
LZ4: Final = 3
ZSTD: Final = 4

NAMES: Final = ("none", "gzip", "snappy", "lz4", "zstd")
"""The codecs' names by their number in a batch's attributes."""

LEVEL_DEFAULTS: Final = {GZIP: 6, LZ4: 1, ZSTD: 3}
"""The levels used where none is given; snappy has none."""

INFLATED_BYTES_MAX: Final = 128 * 1024 * 1024
"""What one batch may inflate to, unless the caller says otherwise."""

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = _XERIAL_MAGIC + b"\x00\x00\x00\x01\x00\x00\x00\x01"
_XERIAL_BLOCK_BYTES = 32 * 1024
_SNAPPY_RATIO_MAX = 64
_LZ4_FRAMES = (
    (64 * 1024, b"\x04\x22\x4d\x18\x60\x40\x82"),
    (256 * 1024, b"\x04\x22\x4d\x18\x60\x50\xfb"),
    (1024 * 1024, b"\x04\x22\x4d\x18\x60\x60\x51"),
    (4 * 1024 * 1024, b"\x04\x22\x4d\x18\x60\x70\x73"),
)
"""Largest block and frame header: magic, independent blocks without checksums, header checksum."""
_LZ4_PLAIN_BLOCK = 0x80000000
_LZ4_END = b"\x00\x00\x00\x00"
_GZIP_PIECE_BYTES = 4096
_GUESS_RATIO = 8
_GUESS_BYTES_MIN = 16 * 1024


def compress(codec: int, data: Buffer, level: int | None = None) -> bytes:
    """Compress `data`.

    Args:
        codec: one of GZIP, SNAPPY, LZ4 and ZSTD.
        data: what to compress.
        level: the codec's own level; None for `LEVEL_DEFAULTS`.
    """
    if level is None:
        level = LEVEL_DEFAULTS.get(codec)
    return _COMPRESSORS[codec](data, level)


def decompress(codec: int, data: Buffer, inflated_bytes_max: int = INFLATED_BYTES_MAX) -> Buffer:
    """Inflate `data`.

    Args:
        codec: one of GZIP, SNAPPY, LZ4 and ZSTD.
        data: what `compress` or another client made.
        inflated_bytes_max: the most bytes that may come out.

    Raises:
        DecodeError: the data is damaged, or inflates to more than is allowed.
    """
    try:
        return _DECOMPRESSORS[codec](data, inflated_bytes_max)
    except DecodeError:
        raise
    except Exception as error:  # each library has exceptions of its own
        raise DecodeError(f"damaged {NAMES[codec]} data: {error}") from error


def _too_large(codec: int, inflated_bytes_max: int) -> DecodeError:
    return DecodeError(f"{NAMES[codec]} data inflates to more than {inflated_bytes_max} bytes")


def _gzip(data: Buffer, level: int | None) -> bytes:
    deflate = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION if level is None else level, wbits=31)
    return deflate.compress(data) + deflate.flush()


def _gunzip(data: Buffer, inflated_bytes_max: int) -> Buffer:
    inflate = zlib.decompressobj(wbits=31)
    first = inflate.decompress(data, inflated_bytes_max + 1)
    if len(first) > inflated_bytes_max:
        raise _too_large(GZIP, inflated_bytes_max)
    if not inflate.eof:
        raise DecodeError("truncated gzip data")
    if not inflate.unused_data:
        return first
    return _gunzip_members(first, inflate.unused_data, inflated_bytes_max)


def _gunzip_members(first: bytes, rest: bytes, inflated_bytes_max: int) -> bytes:
    """Inflate what stands behind the first member.

    The input is fed in pieces: what is behind a member's end is copied, and with the whole rest
    copied for each of many small members that would be quadratic.
    """
    view = memoryview(rest)
    inflated = bytearray(first)
    position = 0
    while position < len(view):
        inflate = zlib.decompressobj(wbits=31)
        while not inflate.eof:
            piece = view[position : position + _GZIP_PIECE_BYTES]
            if not len(piece):
                raise DecodeError("truncated gzip data")
            inflated += inflate.decompress(piece, inflated_bytes_max - len(inflated) + 1)
            if len(inflated) > inflated_bytes_max:
                raise _too_large(GZIP, inflated_bytes_max)
            position += len(piece) - len(inflate.unused_data)
    return bytes(inflated)


def _snappy(data: Buffer, level: int | None) -> bytes:
    from cramjam import snappy

    view = memoryview(data)
    parts = [_XERIAL_HEADER]
    for start in range(0, len(view), _XERIAL_BLOCK_BYTES):
        block = bytes(snappy.compress_raw(view[start : start + _XERIAL_BLOCK_BYTES]))
        parts += [len(block).to_bytes(4, "big"), block]
    return b"".join(parts)


def _unsnappy(data: Buffer, inflated_bytes_max: int) -> Buffer:
    view = memoryview(data)
    if bytes(view[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
        return _unsnappy_block(view, inflated_bytes_max, inflated_bytes_max)
    if len(view) < len(_XERIAL_HEADER):
        raise DecodeError("truncated snappy data")
    blocks = []
    room = inflated_bytes_max
    position = len(_XERIAL_HEADER)
    while position < len(view):
        size = int.from_bytes(view[position : position + 4], "big")
        position += 4
        if position + size > len(view):
            raise DecodeError(f"a snappy block of {size} bytes ends behind the data")
        block = _unsnappy_block(view[position : position + size], room, inflated_bytes_max)
        room -= len(block)
        blocks.append(block)
        position += size
    return b"".join(blocks)


def _unsnappy_block(block: memoryview, room: int, inflated_bytes_max: int) -> bytes:
    from cramjam import snappy

    size = snappy.decompress_raw_len(block)
    if size > room:
        raise _too_large(SNAPPY, inflated_bytes_max)
    if size > _SNAPPY_RATIO_MAX * len(block):
        raise DecodeError(f"snappy data of {len(block)} bytes claims to hold {size}")
    return bytes(snappy.decompress_raw(block))


def _lz4(data: Buffer, level: int | None) -> bytes:
    from cramjam import lz4

    if level is not None and level > LEVEL_DEFAULTS[LZ4]:
        compressor = lz4.Compressor(level=level, content_checksum=False, block_linked=False)
        compressor.compress(bytes(data))
        return bytes(compressor.finish())
    view = memoryview(data)
    block_bytes_max, header = next(
        (frame for frame in _LZ4_FRAMES if len(view) <= frame[0]), _LZ4_FRAMES[-1]
    )
    parts = [header]
    for start in range(0, len(view), block_bytes_max):
        plain = view[start : start + block_bytes_max]
        block = bytes(lz4.compress_block(plain, store_size=False))
        if len(block) < len(plain):
            parts += [len(block).to_bytes(4, "little"), block]
        else:
            parts += [(len(plain) | _LZ4_PLAIN_BLOCK).to_bytes(4, "little"), bytes(plain)]
    parts.append(_LZ4_END)
    return b"".join(parts)


def _unlz4(data: Buffer, inflated_bytes_max: int) -> Buffer:
    from cramjam import lz4

    return _inflate_into(LZ4, lz4.decompress_into, data, inflated_bytes_max)


def _zstd(data: Buffer, level: int | None) -> bytes:
    from cramjam import zstd

    return bytes(zstd.compress(data, level))


def _unzstd(data: Buffer, inflated_bytes_max: int) -> Buffer:
    from cramjam import zstd

    return _inflate_into(ZSTD, zstd.decompress_into, data, inflated_bytes_max)


def _inflate_into(
    codec: int, inflate: Callable[[Any, Any], int], data: Buffer, inflated_bytes_max: int
) -> Buffer:
    """Inflate into a buffer that grows only when it has really been filled."""
    room = min(max(_GUESS_RATIO * len(data), _GUESS_BYTES_MIN), inflated_bytes_max)
    while True:
        output = bytearray(room)
        try:
            size = inflate(data, output)
        except Exception as error:
            if "failed to write whole buffer" not in str(error):
                raise
            if room >= inflated_bytes_max:
                raise _too_large(codec, inflated_bytes_max) from error
            room = min(room * 4, inflated_bytes_max)
        else:
            return memoryview(output)[:size]


_COMPRESSORS: dict[int, Callable[[Buffer, int | None], bytes]] = {
    GZIP: _gzip,
    SNAPPY: _snappy,
    LZ4: _lz4,
    ZSTD: _zstd,
}
_DECOMPRESSORS: dict[int, Callable[[Buffer, int], Buffer]] = {
    GZIP: _gunzip,
    SNAPPY: _unsnappy,
    LZ4: _unlz4,
    ZSTD: _unzstd,
}
