"""The usual Produce request: answered from bytes to bytes, as the handler would, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ottla.broker.appending import USUAL_VERSIONS, answer_usual
from ottla.broker.internal_topics import GROUPS_TOPIC
from ottla.protocol.codec import encode
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_00_produce import ProduceRequest, ProduceResponse
from ottla.records.builder import batch_of, stamp_producer
from ottla.wire.cursor import Reader, Writer
from tests.broker.asking import Asking, batch_of_values, produce_request

FIRST, LAST = USUAL_VERSIONS
NOW = 1_700_000_000_000


def asking(**configs: str) -> Asking:
    broker = Asking(ottla_durability="os")
    broker.create("t", 2, **configs)
    return broker


def of_producer(sequence: int, *, producer_id: int = 7) -> bytes:
    batch = batch_of([(None, b"value")], NOW)
    stamp_producer(batch, producer_id, 0, sequence)
    return bytes(batch)


def with_id(broker: Asking, request: ProduceRequest) -> ProduceRequest:
    """Name a request's topics by their ids as well, which is how version 13 names them."""
    for data in request.topic_data:
        topic = broker.engine.cluster.topics.get(data.name)
        data.topic_id = topic.topic_id if topic is not None else b"unknown".ljust(16)
    return request


def with_id_of(broker: Asking, response: ApiMessage | None) -> ProduceResponse:
    """Return another broker's answer with the ids that this one has given."""
    assert isinstance(response, ProduceResponse)
    for topic in response.responses:
        topic.topic_id = broker.engine.cluster.topics["t"].topic_id
    return response


def answered(broker: Asking, request: ProduceRequest, version: int) -> bytes | None:
    """Answer a request if it is a usual one."""
    writer = Writer()
    with broker.engine.lock:
        reader = Reader(encode(request, version))
        if not answer_usual(broker.engine, reader, version, writer):
            assert writer.size() == 0
            return None
    return writer.joined()


def ends(broker: Asking) -> list[int]:
    logs = [broker.engine.log_of("t", partition) for partition in range(2)]
    return [log.log_end_offset for log in logs if log is not None]


@pytest.mark.parametrize("version", range(FIRST, LAST + 1))
@pytest.mark.parametrize("acks", [-1, 1])
@pytest.mark.parametrize("stamped", ["CreateTime", "LogAppendTime"])
def test_the_answer_is_the_handler_s(version: int, acks: int, stamped: str) -> None:
    usual, handled = (asking(message_timestamp_type=stamped) for _ in range(2))
    for batch in (of_producer(0), of_producer(1), of_producer(0), bytes(batch_of_values(b"a"))):
        request = produce_request("t", batch, partition=1, acks=acks)
        expected = handled.ask_nowait(with_id(handled, request), version)
        found = answered(usual, with_id(usual, request), version)
        assert found == encode(with_id_of(usual, expected), version)
    assert ends(usual) == ends(handled) == [0, 3]


def with_two_partitions(request: ProduceRequest) -> None:
    request.topic_data[0].partition_data *= 2


def with_two_topics(request: ProduceRequest) -> None:
    request.topic_data *= 2


def without_topics(request: ProduceRequest) -> None:
    request.topic_data = []


def without_partitions(request: ProduceRequest) -> None:
    request.topic_data[0].partition_data = []


def of_a_transaction(request: ProduceRequest) -> None:
    request.transactional_id = "t"


def without_an_answer(request: ProduceRequest) -> None:
    request.acks = 0


def with_unknown_acks(request: ProduceRequest) -> None:
    request.acks = 2


def for_another_topic(request: ProduceRequest) -> None:
    request.topic_data[0].name = "u"


def for_the_groups(request: ProduceRequest) -> None:
    request.topic_data[0].name = GROUPS_TOPIC


def for_another_partition(request: ProduceRequest) -> None:
    request.topic_data[0].partition_data[0].index = 2


def without_records(request: ProduceRequest) -> None:
    request.topic_data[0].partition_data[0].records = None


def with_empty_records(request: ProduceRequest) -> None:
    request.topic_data[0].partition_data[0].records = b""


def with_a_wrong_checksum(request: ProduceRequest) -> None:
    batch = bytearray(of_producer(0))
    batch[-1] ^= 1
    request.topic_data[0].partition_data[0].records = bytes(batch)


def out_of_order(request: ProduceRequest) -> None:
    request.topic_data[0].partition_data[0].records = of_producer(5)


UNUSUAL = [
    with_two_partitions,
    with_two_topics,
    without_topics,
    without_partitions,
    of_a_transaction,
    without_an_answer,
    with_unknown_acks,
    for_another_topic,
    for_the_groups,
    for_another_partition,
    without_records,
    with_empty_records,
    with_a_wrong_checksum,
    out_of_order,
]


@pytest.mark.parametrize("change", UNUSUAL)
@pytest.mark.parametrize("version", [8, 9, 13])
def test_nothing_is_done_with_what_is_not_usual(
    change: Callable[[ProduceRequest], None], version: int
) -> None:
    broker = asking()
    broker.create(GROUPS_TOPIC)
    broker.produce("t", of_producer(0, producer_id=1))
    broker.produce("t", of_producer(0))
    request = produce_request("t", of_producer(1))
    change(request)
    with_id(broker, request)
    assert answered(broker, request, version) is None
    assert ends(broker) == [2, 0]


@pytest.mark.parametrize("version", [FIRST - 1, LAST + 1])
def test_other_versions_are_not_usual(version: int) -> None:
    broker = asking()
    request = with_id(broker, produce_request("t", of_producer(0)))
    reader = Reader(encode(request, LAST))
    assert not answer_usual(broker.engine, reader, version, Writer())
    assert ends(broker) == [0, 0]


def test_what_waits_for_a_sync_is_not_usual() -> None:
    broker = Asking()
    broker.create("t", 2)
    request = with_id(broker, produce_request("t", of_producer(0)))
    assert answered(broker, request, LAST) is None
    broker.engine.configs.changed()
    assert ends(broker) == [0, 0]


@pytest.mark.parametrize("version", [8, 9, 13])
def test_a_request_that_is_cut_off_is_left_to_the_handler(version: int) -> None:
    broker = asking()
    whole = encode(with_id(broker, produce_request("t", of_producer(0))), version)
    for size in range(len(whole)):
        assert not answer_usual(broker.engine, Reader(whole[:size]), version, Writer())
    assert ends(broker) == [0, 0]


def test_tagged_fields_are_not_usual() -> None:
    broker = asking()
    whole = encode(with_id(broker, produce_request("t", of_producer(0))), LAST)
    assert whole.endswith(bytes(3))
    for at in (-1, -2, -3):
        tagged = bytearray(whole)
        tagged[at : at + 1 or None] = b"\x01\x63\x00"  # one field, with tag 99, of no bytes
        assert not answer_usual(broker.engine, Reader(bytes(tagged)), LAST, Writer())
    assert ends(broker) == [0, 0]
