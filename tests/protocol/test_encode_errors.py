"""Values that a version cannot carry, or that do not fit their field, are not written."""

from __future__ import annotations

from typing import Any

import pytest

from ottla.errors import EncodeError
from ottla.protocol import codec
from ottla.protocol.codec import Field, decode, encode
from ottla.protocol.message import Message
from ottla.protocol.messages.api_00_produce import ProduceRequest
from ottla.protocol.messages.api_01_fetch import FetchRequest
from ottla.protocol.messages.api_03_metadata import MetadataRequest, MetadataResponse
from ottla.protocol.messages.api_18_api_versions import ApiVersionsResponse
from tests.protocol.golden import message_class, vectors

OTHER: dict[int, Any] = {
    codec.BOOL: (True, False),
    codec.INT8: (1, 2),
    codec.INT16: (1, 2),
    codec.UINT16: (1, 2),
    codec.INT32: (1, 2),
    codec.UINT32: (1, 2),
    codec.INT64: (1, 2),
    codec.FLOAT64: (1.0, 2.0),
    codec.STRING: ("a", "b"),
    codec.BYTES: (b"a", b"b"),
    codec.RECORDS: (b"a", b"b"),
    codec.UUID: (b"a" * 16, b"b" * 16),
}
"""Two values of each kind: one of them is not a field's default."""

WRONG: dict[int, tuple[Any, ...]] = {
    codec.INT8: (-129, 128, None, "1", 1.5),
    codec.INT16: (-(1 << 15) - 1, 1 << 15, None, "1", 1.5),
    codec.UINT16: (-1, 1 << 16, None, "1", 1.5),
    codec.INT32: (-(1 << 31) - 1, 1 << 31, None, "1", 1.5),
    codec.UINT32: (-1, 1 << 32, None, "1", 1.5),
    codec.INT64: (-(1 << 63) - 1, 1 << 63, None, "1", 1.5),
    codec.FLOAT64: (None, "1"),
    codec.STRING: (b"bytes", 7, "\ud800"),
    codec.BYTES: ("text", 7, "t" * 5000),
    codec.RECORDS: ("text", 7, "t" * 5000, [1]),
    codec.UUID: (None, b"short", "sixteen letters!", b"x" * 17),
    codec.STRUCT: (7, "text", ProduceRequest()),
    codec.ARRAY: (7, ProduceRequest()),
}

LATEST = sorted({vector.message for vector in vectors()})


def not_default(field: Field) -> Any:
    if field.kind == codec.STRUCT:
        return field.element()()
    if field.kind == codec.ARRAY:
        element = field.element
        return [OTHER[element][0] if isinstance(element, int) else element()()]
    first, second = OTHER[field.kind]
    return second if field.default == first else first


def absent_fields(cls: Any, version: int) -> list[Field]:
    return [
        field
        for field in cls.SCHEMA.fields
        if not field.versions[0] <= version <= field.versions[1]
    ]


def test_a_value_that_the_version_cannot_carry_is_refused_or_dropped_as_the_schema_says() -> None:
    refused = dropped = 0
    for vector in vectors():
        if vector.case != "defaults":
            continue
        cls = message_class(vector.message)
        for field in absent_fields(cls, vector.version):
            message: Any = decode(cls, vector.encoded, vector.version)
            value = not_default(field)
            default = getattr(message, field.name)
            if value == default:
                continue
            setattr(message, field.name, value)
            if field.ignorable:
                assert encode(message, vector.version) == vector.encoded
                dropped += 1
            else:
                with pytest.raises(EncodeError, match=f"cannot carry {field.name}="):
                    encode(message, vector.version)
                refused += 1
    assert refused > 100
    assert dropped > 100


@pytest.mark.parametrize("name", LATEST)
def test_a_value_that_does_not_fit_its_field_is_refused_and_the_field_named(name: str) -> None:
    cls = message_class(name)
    version = cls.SCHEMA.versions[1]
    for field in cls.SCHEMA.fields:
        if not field.versions[0] <= version <= field.versions[1]:
            continue
        nullable = field.nullable[0] <= version <= field.nullable[1]
        for value in (*WRONG.get(field.kind, ()), *(() if nullable else (None,))):
            if value is None and (nullable or field.kind == codec.BOOL):
                continue
            message: Any = cls()
            setattr(message, field.name, value)
            with pytest.raises(EncodeError, match=f"^{name} version {version}: .*{field.name}"):
                encode(message, version)


def test_elements_of_arrays_are_checked_too() -> None:
    topics: list[Any] = [[None], ["a", 7], [ProduceRequest.TopicProduceData()]]
    for value in topics:
        with pytest.raises(EncodeError, match="topics"):
            encode(MetadataRequest(topics=value), 1)
    with pytest.raises(EncodeError, match="node_id=2147483648"):
        encode(
            MetadataResponse(brokers=[MetadataResponse.MetadataResponseBroker(node_id=1 << 31)]), 1
        )


def test_a_text_of_more_than_32767_bytes_fits_flexible_versions_only() -> None:
    for text in ("x" * 32768, "é" * 16384):
        topics = [MetadataRequest.MetadataRequestTopic(name=text)]
        with pytest.raises(EncodeError, match="name="):
            encode(MetadataRequest(topics=topics), 8)
        decoded = decode(MetadataRequest, encode(MetadataRequest(topics=topics), 9), 9)
        assert decoded.topics is not None
        assert decoded.topics[0].name == text


def test_none_is_refused_where_the_version_has_no_none() -> None:
    assert decode(MetadataRequest, encode(MetadataRequest(topics=None), 1), 1).topics is None
    with pytest.raises(EncodeError, match="topics cannot be None"):
        encode(MetadataRequest(topics=None), 0)


def test_a_version_that_there_is_not_is_refused() -> None:
    messages: list[Message] = [ProduceRequest(), FetchRequest(), ApiVersionsResponse()]
    for message in messages:
        for version in (-1, message.SCHEMA.versions[1] + 1):
            with pytest.raises(EncodeError, match="has no version"):
                encode(message, version)


def test_any_buffer_serves_as_bytes_and_counts_in_bytes() -> None:
    records = b"\x01\x02\x03\x04" * 3
    wanted = encode(ProduceRequest.PartitionProduceData(records=records), 9)
    for buffer in (bytearray(records), memoryview(records), memoryview(records).cast("I")):
        assert encode(ProduceRequest.PartitionProduceData(records=buffer), 9) == wanted
