"""Tagged fields: unknown ones are passed over, and what breaks their rules is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ottla.errors import DecodeError, EncodeError
from ottla.protocol.codec import decode, encode
from ottla.protocol.messages.api_01_fetch import FetchRequest, FetchResponse
from ottla.protocol.messages.api_18_api_versions import ApiVersionsRequest, ApiVersionsResponse

EMPTY = encode(ApiVersionsResponse(), 3)[:-1]
"""A response without the count of its tagged fields, which is its last byte."""

EPOCH = b"\x01\x08\x00\x00\x00\x00\x00\x00\x00\x05"
"""Its tagged field 1, finalized_features_epoch, as 5."""


def test_the_bytes_taken_apart_here_are_the_codecs() -> None:
    assert encode(ApiVersionsResponse(finalized_features_epoch=5), 3) == EMPTY + b"\x01" + EPOCH
    assert decode(ApiVersionsResponse, EMPTY + b"\x00", 3) == ApiVersionsResponse()


def test_fields_with_unknown_tags_are_passed_over() -> None:
    for tagged in (
        b"\x02" + EPOCH + b"\x63\x03abc",
        b"\x02" + EPOCH + b"\xff\xff\xff\xff\x0f\x00",
        b"\x03" + EPOCH + b"\x63\x00\x64\x01x",
    ):
        decoded = decode(ApiVersionsResponse, EMPTY + tagged, 3)
        assert decoded == ApiVersionsResponse(finalized_features_epoch=5)


@pytest.mark.parametrize(
    ("tagged", "text"),
    [
        (b"\x02" + EPOCH + EPOCH, "tag 1 after tag 1"),
        (b"\x02\x63\x00" + EPOCH, "tag 1 after tag 99"),
        (b"\x06" + EPOCH, "6 tagged fields, 10 bytes remain"),
        (b"\xff\xff\xff\xff\x0f" + EPOCH, "4294967295 tagged fields, 10 bytes remain"),
        (b"\x01\x01\x07" + EPOCH[2:], "finalized_features_epoch is not 7 bytes long"),
        (b"\x01\x01\x09" + EPOCH[2:] + b"x", "finalized_features_epoch is not 9 bytes long"),
        (b"\x01\x63\x0b" + EPOCH, "11 bytes needed"),
        (b"\x01\x63\xff\xff\xff\xff\x0f" + EPOCH, "4294967295 bytes needed"),
    ],
)
def test_tagged_fields_that_break_the_rules_are_refused(tagged: bytes, text: str) -> None:
    with pytest.raises(DecodeError, match=f"^ApiVersionsResponse version 3: .*{text}"):
        decode(ApiVersionsResponse, EMPTY + tagged, 3)


def test_defaults_are_not_written_and_come_back_as_new_objects() -> None:
    assert encode(FetchRequest(), 12).endswith(b"\x00")
    first = decode(ApiVersionsResponse, EMPTY + b"\x00", 3)
    second = decode(ApiVersionsResponse, EMPTY + b"\x00", 3)
    first.supported_features.append(ApiVersionsResponse.SupportedFeatureKey())
    assert second.supported_features == []


def test_a_structure_that_cannot_be_none_is_not_written_as_none() -> None:
    nothing: Any = None
    partition = FetchResponse.PartitionData(diverging_epoch=nothing)
    with pytest.raises(EncodeError, match="diverging_epoch=None"):
        encode(partition, 12)


def test_versions_that_are_not_flexible_have_none() -> None:
    assert encode(ApiVersionsRequest(), 2) == b""
    with pytest.raises(DecodeError, match="1 bytes left over"):
        decode(ApiVersionsRequest, b"\x00", 2)
