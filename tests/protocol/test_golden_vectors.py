"""Every message at every version, against the bytes that Apache Kafka's own classes made."""

from __future__ import annotations

import pytest

from ottla.protocol.codec import decode, encode
from tests.protocol.golden import Vector, collect_records, message_class, to_message, vectors


def test_there_are_1443_vectors() -> None:
    assert len(vectors()) == 1443


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector.id)
def test_vector_decodes_to_its_value_and_encodes_to_its_bytes(vector: Vector) -> None:
    decoded = decode(message_class(vector.message), vector.encoded, vector.version)
    assert decoded == to_message(vector, collect_records(decoded))
    assert encode(decoded, vector.version) == vector.encoded
    assert encode(to_message(vector, collect_records(decoded)), vector.version) == vector.encoded
