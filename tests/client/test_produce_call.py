"""A Produce request's own bytes, and the answer that it reads by itself, beside the general way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.client.delivery import Batch
from ottla.client.produce_call import ProduceCall
from ottla.protocol.codec import decode, encode
from ottla.protocol.message import ZERO_UUID
from ottla.protocol.messages.api_00_produce import ProduceRequest, ProduceResponse
from ottla.wire.cursor import Reader, Writer

VERSIONS = range(3, 14)
TOPIC_ID = bytes(range(16))

_Topic = ProduceResponse.TopicProduceResponse
_Partition = ProduceResponse.PartitionProduceResponse
_Wrong = ProduceResponse.BatchIndexAndErrorMessage
_Leader = ProduceResponse.LeaderIdAndEpoch

names = st.text("abcä.-_", min_size=1, max_size=200)
int64s = st.integers(-1, 2**63 - 1)


class _NoWaiter:
    def wait(self, reached: object, timeout: float | None) -> bool:
        raise AssertionError("nobody waits here")


def batch_to(topic: str, partition: int, data: bytes) -> Batch:
    """Return a batch that is ready to be sent."""
    batch = Batch(topic, partition, _NoWaiter(), 0.0, 0)
    batch.data = memoryview(data)
    return batch


def call_with(batches: list[Batch], version: int, acks: int = -1) -> ProduceCall:
    """Return the call that sends batches."""
    ids = {batch.topic: TOPIC_ID for batch in batches}
    call = ProduceCall(batches, ids, acks, 30_000, lambda *_: None)
    call.version = version
    return call


def response_to(call: ProduceCall, offsets: list[int]) -> ProduceResponse:
    """Return the usual answer: every batch is stored."""
    parts = [
        _Partition(index=batch.partition, base_offset=offset, log_append_time_ms=offset // 2)
        for batch, offset in zip(call.batches, offsets, strict=True)
    ]
    topic = _Topic(name=call.batches[0].topic, topic_id=TOPIC_ID, partition_responses=parts)
    return ProduceResponse(responses=[topic], throttle_time_ms=3)


@given(
    names,
    st.dictionaries(st.integers(0, 2**31 - 1), st.binary(min_size=1, max_size=9000), min_size=1),
    st.sampled_from(VERSIONS),
    st.sampled_from([-1, 0, 1]),
)
def test_its_own_bytes_are_those_of_the_request_as_an_object(
    topic: str, batches: dict[int, bytes], version: int, acks: int
) -> None:
    ready = [batch_to(topic, partition, data) for partition, data in batches.items()]
    call = call_with(ready, version, acks)
    writer = Writer()
    assert call.write(writer)
    assert writer.joined() == encode(call.request, version)


def test_batches_of_several_topics_are_left_to_the_general_way() -> None:
    call = call_with([batch_to("a", 0, b"x"), batch_to("b", 0, b"x")], 12)
    writer = Writer()
    assert not call.write(writer)
    assert writer.joined() == b""
    request = call.request
    assert isinstance(request, ProduceRequest)
    assert [topic.name for topic in request.topic_data] == ["a", "b"]


@given(
    names,
    st.dictionaries(st.integers(0, 2**31 - 1), int64s, min_size=1, max_size=5),
    st.sampled_from(VERSIONS),
)
def test_a_usual_answer_is_read_as_the_object_would_say(
    topic: str, stored: dict[int, int], version: int
) -> None:
    call = call_with([batch_to(topic, each, b"x") for each in stored], version)
    data = encode(response_to(call, list(stored.values())), version)
    assert call.read(Reader(data))
    parts = decode(ProduceResponse, data, version).responses[0].partition_responses
    expected = [number for each in parts for number in (each.base_offset, each.log_append_time_ms)]
    assert call.stored == expected


def _first(response: ProduceResponse) -> _Partition:
    return response.responses[0].partition_responses[0]


def _rename(response: ProduceResponse) -> None:
    response.responses[0].name = "other"
    response.responses[0].topic_id = bytes(15) + b"\x01"


UNUSUAL: dict[str, tuple[int, Callable[[ProduceResponse], object]]] = {
    "an error": (3, lambda response: setattr(_first(response), "error_code", 6)),
    "another partition": (3, lambda response: setattr(_first(response), "index", 5)),
    "another topic": (3, _rename),
    "nothing of a partition": (3, lambda it: it.responses[0].partition_responses.pop()),
    "one topic more": (3, lambda response: response.responses.append(_Topic(name="u"))),
    "another order": (3, lambda it: it.responses[0].partition_responses.reverse()),
    "a message": (8, lambda response: setattr(_first(response), "error_message", "hm")),
    "a wrong record": (8, lambda it: _first(it).record_errors.append(_Wrong(batch_index=0))),
    "another leader": (10, lambda it: setattr(_first(it), "current_leader", _Leader(leader_id=4))),
}
"""What an answer may have to tell, and the first version that can."""


@pytest.mark.parametrize(
    ("what", "version"),
    [(what, version) for what in UNUSUAL for version in VERSIONS if version >= UNUSUAL[what][0]],
)
def test_an_answer_with_anything_else_to_tell_is_left_to_the_general_way(
    what: str, version: int
) -> None:
    call = call_with([batch_to("t", 0, b"x"), batch_to("t", 1, b"x")], version)
    response = response_to(call, [7, 8])
    UNUSUAL[what][1](response)
    reader = Reader(b"head" + encode(response, version))
    reader.skip(4)
    assert not call.read(reader)
    assert (call.stored, reader.position) == (None, 4)


@given(st.sampled_from(VERSIONS), st.integers(0, 200), st.binary(max_size=3))
def test_damaged_answers_are_left_to_the_general_way(version: int, cut: int, more: bytes) -> None:
    call = call_with([batch_to("t", 0, b"x")], version)
    whole = encode(response_to(call, [7]), version)
    data = whole[:cut] + more
    assert call.read(Reader(data)) == (data == whole)


def test_without_a_topics_id_only_versions_with_names_are_sent() -> None:
    batches = [batch_to("t", 0, b"x")]
    with_id = ProduceCall(batches, {"t": TOPIC_ID}, -1, 1, lambda *_: None)
    without = ProduceCall(batches, {"t": ZERO_UUID}, -1, 1, lambda *_: None)
    assert (with_id.version_max(), without.version_max()) == (13, 12)
