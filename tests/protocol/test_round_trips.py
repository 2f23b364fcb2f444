"""Messages of any content: what is encoded is decoded to the same, for every version.

The values are drawn from the generated field tables: fields that the version has get any value of
their kind, the others keep their default.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.protocol import codec
from ottla.protocol.codec import Field, decode, encode
from tests.protocol.golden import message_class

IN_USE = (
    "Produce",
    "Fetch",
    "ListOffsets",
    "Metadata",
    "OffsetCommit",
    "OffsetFetch",
    "FindCoordinator",
    "JoinGroup",
    "Heartbeat",
    "LeaveGroup",
    "SyncGroup",
    "ApiVersions",
    "CreateTopics",
    "DeleteTopics",
    "DeleteRecords",
    "InitProducerId",
    "OffsetForLeaderEpoch",
    "DescribeConfigs",
    "IncrementalAlterConfigs",
    "CreatePartitions",
    "DescribeCluster",
)
NAMES = [f"{name}{part}" for name in IN_USE for part in ("Request", "Response")]

VALUES: dict[int, st.SearchStrategy[Any]] = {
    codec.BOOL: st.booleans(),
    codec.INT8: st.integers(-(1 << 7), (1 << 7) - 1),
    codec.INT16: st.integers(-(1 << 15), (1 << 15) - 1),
    codec.UINT16: st.integers(0, (1 << 16) - 1),
    codec.INT32: st.integers(-(1 << 31), (1 << 31) - 1),
    codec.UINT32: st.integers(0, (1 << 32) - 1),
    codec.INT64: st.integers(-(1 << 63), (1 << 63) - 1),
    codec.FLOAT64: st.floats(allow_nan=False),
    codec.STRING: st.text(max_size=20),
    codec.BYTES: st.binary(max_size=20),
    codec.RECORDS: st.one_of(st.binary(max_size=20), st.just(b"r" * 5000)),
    codec.UUID: st.binary(min_size=16, max_size=16),
}


def has(span: tuple[int, int], version: int) -> bool:
    return span[0] <= version <= span[1]


def one(kind: int, cls: Any, version: int) -> st.SearchStrategy[Any]:
    return messages(cls, version) if kind == codec.STRUCT else VALUES[kind]


def value_of(field: Field, version: int) -> st.SearchStrategy[Any]:
    if field.kind == codec.ARRAY:
        plain = isinstance(field.element, int)
        kind, cls = (field.element, None) if plain else (codec.STRUCT, field.element())
        values: st.SearchStrategy[Any] = st.lists(one(kind, cls, version), max_size=3)
    else:
        cls = field.element() if field.kind == codec.STRUCT else None
        values = one(field.kind, cls, version)
    return st.none() | values if has(field.nullable, version) else values


def messages(cls: Any, version: int) -> st.SearchStrategy[Any]:
    """Any message of a class that the version can carry."""
    fields = {
        field.name: value_of(field, version)
        for field in cls.SCHEMA.fields
        if has(field.versions, version)
    }
    return st.builds(cls, **fields)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_a_message_is_decoded_as_it_was_encoded(name: str, data: st.DataObject) -> None:
    cls = message_class(name)
    version = data.draw(st.integers(*cls.SCHEMA.versions))
    message = data.draw(messages(cls, version))
    encoded = encode(message, version)
    assert decode(cls, encoded, version) == message
    assert encode(decode(cls, encoded, version), version) == encoded
