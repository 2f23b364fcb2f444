"""Every decoder against damaged bytes: it answers with DecodeError or decodes them to something.

The golden vectors of every message at every version are cut off at every length, have every bit
flipped, and get every place overwritten with counts and lengths that lie. The uncompiled form goes
through every ninth vector only.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from ottla._compiled import pure_on_purpose
from ottla.errors import DecodeError
from ottla.protocol.codec import ARRAY, decode, encode
from tests.protocol.golden import Vector, message_class, vectors

STEP = 9 if pure_on_purpose() else 1
SAMPLE = vectors()[::STEP]
TRACED = vectors()[:: 9 * STEP]

LIES = (
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\xfe",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\x07",
    b"\xff\xff\xff\xff\xff\xff",
    b"\x7f\xff",
    b"\x80\x00",
)
"""Huge, negative and endless, as int32, varint and int16."""

FIXED_BYTES_MAX = 20_000
"""What an error may cost, whatever the size of the input: texts, tracebacks, plans."""

RATIO_MAX = 100
"""How many bytes of Python objects one of input may become: on the wire an empty string is one
byte, and few bytes are enough for an object with several arrays that are filled with defaults."""


def attempt(vector: Vector, data: bytes | bytearray) -> None:
    """Decode what may be damaged; any exception but DecodeError goes through."""
    try:
        decode(message_class(vector.message), data, vector.version)
    except DecodeError as error:
        assert error.what.startswith(f"{vector.message} version {vector.version}: ")


def lying(encoded: bytes) -> Iterator[bytes]:
    """Yield the bytes with each of the lies in each place."""
    for start in range(len(encoded)):
        for lie in LIES:
            yield encoded[:start] + lie + encoded[start + len(lie) :]


@pytest.mark.slow
def test_a_message_cut_off_anywhere_is_an_error() -> None:
    for vector in SAMPLE:
        for size in range(len(vector.encoded)):
            with pytest.raises(DecodeError):
                decode(message_class(vector.message), vector.encoded[:size], vector.version)


def test_a_message_with_bytes_behind_it_is_an_error() -> None:
    for vector in SAMPLE:
        with pytest.raises(DecodeError, match="1 bytes left over"):
            decode(message_class(vector.message), vector.encoded + b"\x00", vector.version)


@pytest.mark.slow
def test_a_flipped_bit_is_an_error_or_another_message() -> None:
    for vector in SAMPLE:
        for index in range(len(vector.encoded)):
            for bit in range(8):
                damaged = bytearray(vector.encoded)
                damaged[index] ^= 1 << bit
                attempt(vector, damaged)


@pytest.mark.slow
def test_counts_and_lengths_that_lie_are_errors_or_another_message() -> None:
    for vector in SAMPLE:
        for damaged in lying(vector.encoded):
            attempt(vector, damaged)


@pytest.mark.slow
def test_counts_and_lengths_that_lie_take_no_memory() -> None:
    for vector in TRACED:
        attempt(vector, vector.encoded)
        peak = 0
        tracemalloc.start()
        try:
            for damaged in lying(vector.encoded):
                attempt(vector, damaged)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < FIXED_BYTES_MAX + RATIO_MAX * (len(vector.encoded) + 6), vector.id


@pytest.mark.slow
def test_the_densest_arrays_take_a_small_multiple_of_their_bytes() -> None:
    dense = 0
    for vector in SAMPLE:
        cls = message_class(vector.message)
        for field in cls.SCHEMA.fields:
            exists = field.versions[0] <= vector.version <= field.versions[1]
            if vector.case != "defaults" or field.kind != ARRAY or not exists:
                continue
            message = cls()
            if isinstance(field.element, int):
                continue
            setattr(message, field.name, [field.element()() for _ in range(500)])
            encoded = encode(message, vector.version)
            tracemalloc.start()
            try:
                decode(cls, encoded, vector.version)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak < FIXED_BYTES_MAX + RATIO_MAX * len(encoded), (vector.id, field.name)
            dense += 1
    assert dense >= 400 // STEP


@pytest.mark.slow
def test_a_count_beyond_what_the_bytes_could_hold_is_refused_before_anything_is_made() -> None:
    refused = 0
    for vector in SAMPLE:
        cls = message_class(vector.message)
        if not cls.SCHEMA.fields:
            continue
        plain = cls.SCHEMA.fields[0]
        if plain.kind != ARRAY or isinstance(plain.element, int) or plain.tagged <= vector.version:
            continue
        if not plain.versions[0] <= vector.version <= plain.versions[1]:
            continue
        if vector.version >= cls.SCHEMA.flexible:
            head = b"\x81\x80\x80\x08"
        else:
            head = (1 << 24).to_bytes(4, "big")
        with pytest.raises(DecodeError, match=f"array {plain.name} has a count of 16777216"):
            decode(cls, head + bytes(1000), vector.version)
        refused += 1
    assert refused >= 50 // STEP


def test_a_version_that_there_is_not_is_refused() -> None:
    for name in ("ProduceRequest", "FetchResponse", "ApiVersionsRequest"):
        cls = message_class(name)
        for version in (-1, cls.SCHEMA.versions[1] + 1, 32767):
            with pytest.raises(Exception, match=f"{name} has no version {version}"):
                decode(cls, b"", version)
