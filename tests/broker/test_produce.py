"""Produce: what is accepted, what is refused and how, and when it is answered."""

from __future__ import annotations

import struct

import pytest

from ottla.broker.requests import CloseConnection, Context, Pending
from ottla.errors import StorageError, codes
from ottla.protocol.messages.api_00_produce import ProduceRequest, ProduceResponse
from ottla.records.batch import check_crc, iterate_records, read_header
from ottla.wire.compression import GZIP, ZSTD
from ottla.wire.crc32c import crc32c
from tests.broker.asking import Asking, batch_of_values, fetch_request, produce_request

NOW = 1_700_000_000_000


def with_header(batch: memoryview, at: int, layout: str, value: int) -> bytes:
    """Change a field of a batch's header and make its checksum right again."""
    changed = bytearray(batch)
    struct.pack_into(layout, changed, at, value)
    struct.pack_into(">I", changed, 17, crc32c(memoryview(changed)[21:]))
    return bytes(changed)


def stored(asking: Asking, topic: str = "t") -> list[tuple[bytes | None, int]]:
    """Return (value, timestamp) of what can be read."""
    data = asking.fetch(topic).records or b""
    found = []
    while len(data):
        header = read_header(data)
        check_crc(data, header)
        found += [(each.value, each.timestamp_ms) for each in iterate_records(data, header)]
        data = memoryview(data)[header.size :]
    return found


def test_offsets_follow_each_other_and_what_was_sent_is_read() -> None:
    asking = Asking()
    asking.create("t")
    assert asking.produce("t", batch_of_values(b"a", b"b")).base_offset == 0
    answer = asking.produce("t", batch_of_values(b"c"))
    assert (answer.base_offset, answer.log_append_time_ms, answer.log_start_offset) == (2, -1, 0)
    assert [value for value, _ in stored(asking)] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("acks", [1, -1])
def test_it_is_answered_and_readable_only_when_it_is_durable(acks: int) -> None:
    asking = Asking()
    asking.create("t")
    request = produce_request("t", batch_of_values(b"a"), acks=acks)
    reply = asking.ask_nowait(request, 12)
    assert isinstance(reply, Pending)
    assert not reply.is_done
    assert asking.ask_nowait(fetch_request("t"), 12).responses[0].partitions[0].records == b""
    assert asking.after_power_cut().fetch("t").records == b""
    asking.sync()
    assert reply.is_done
    assert [value for value, _ in stored(asking)] == [b"a"]
    assert [value for value, _ in stored(asking.after_power_cut())] == [b"a"]


def test_under_os_it_is_answered_at_once() -> None:
    asking = Asking(ottla_durability="os")
    asking.create("t")
    reply = asking.ask_nowait(produce_request("t", batch_of_values(b"a")), 12)
    assert isinstance(reply, ProduceResponse)
    asking.create("safe", ottla_durability="disk")
    reply = asking.ask_nowait(produce_request("safe", batch_of_values(b"a")), 12)
    assert isinstance(reply, Pending)


def test_a_failed_sync_is_answered_with_a_storage_error_and_nothing_is_accepted_after_it() -> None:
    asking = Asking()
    asking.create("t")
    reply = asking.ask_nowait(produce_request("t", batch_of_values(b"a")), 12)
    begun = asking.engine.commit.begin()
    assert begun is not None
    asking.engine.commit.end([StorageError("the disk is gone")] * len(begun.parts))
    answer = reply.response.responses[0].partition_responses[0]
    assert answer.error_code == codes.KAFKA_STORAGE_ERROR
    assert "the disk is gone" in answer.error_message
    assert asking.produce("t", batch_of_values(b"b")).error_code == codes.KAFKA_STORAGE_ERROR
    assert stored(asking) == []


def test_acks_0_is_not_answered_and_a_failure_closes_the_connection() -> None:
    asking = Asking()
    asking.create("t")
    assert asking.ask(produce_request("t", batch_of_values(b"a"), acks=0), 12) is None
    asking.sync()
    assert [value for value, _ in stored(asking)] == [b"a"]
    with pytest.raises(CloseConnection, match="not stored"):
        asking.ask(produce_request("nothing", batch_of_values(b"a"), acks=0), 12)


def test_other_acks_are_refused() -> None:
    asking = Asking()
    asking.create("t")
    answer = asking.produce("t", batch_of_values(b"a"), acks=2)
    assert answer.error_code == codes.INVALID_REQUIRED_ACKS


def flipped(batch: memoryview) -> bytes:
    damaged = bytearray(batch)
    damaged[-1] ^= 1
    return bytes(damaged)


@pytest.mark.parametrize(
    ("batch", "error"),
    [
        (None, codes.INVALID_RECORD),
        (b"", codes.INVALID_RECORD),
        (batch_of_values(b"a").tobytes() * 2, codes.INVALID_RECORD),
        (flipped(batch_of_values(b"a")), codes.CORRUPT_MESSAGE),
        (batch_of_values(b"a")[:-3], codes.CORRUPT_MESSAGE),
        (b"\0" * 16 + b"\1" + b"\0" * 60, codes.INVALID_RECORD),
        (with_header(batch_of_values(b"a"), 0, ">q", 7), codes.INVALID_RECORD),
        (with_header(batch_of_values(b"a", b"b"), 23, ">i", 5), codes.INVALID_RECORD),
        (with_header(batch_of_values(b"a"), 21, ">h", 0x20), codes.INVALID_RECORD),
        (with_header(batch_of_values(b"a"), 21, ">h", 0x10), codes.INVALID_TXN_STATE),
        (with_header(batch_of_values(b"a"), 21, ">h", 0x08), codes.INVALID_TIMESTAMP),
        (with_header(batch_of_values(b"a"), 21, ">h", 0x07), codes.UNSUPPORTED_COMPRESSION_TYPE),
        (batch_of_values(b"x" * 2000), codes.MESSAGE_TOO_LARGE),
        (batch_of_values(b"a", timestamp_ms=NOW + 3_700_000), codes.INVALID_TIMESTAMP),
    ],
)
def test_what_is_wrong_has_its_error_and_nothing_of_it_is_stored(
    batch: bytes | None, error: int
) -> None:
    asking = Asking()
    asking.create("t", max_message_bytes="1000")
    answer = asking.produce("t", batch)
    assert (answer.error_code, answer.base_offset) == (error, -1)
    assert answer.error_message
    assert stored(asking) == []


@pytest.mark.parametrize("version", [0, 1, 2])
def test_versions_before_magic_2_are_refused_partition_by_partition(version: int) -> None:
    asking = Asking()
    asking.create("t")
    response = asking.ask(produce_request("t", batch_of_values(b"a")), version)
    assert response.responses[0].partition_responses[0].error_code == codes.INVALID_RECORD


def test_zstd_needs_version_7() -> None:
    asking = Asking()
    asking.create("t")
    batch = batch_of_values(b"a" * 500, codec=ZSTD)
    assert asking.produce("t", batch, version=6).error_code == codes.UNSUPPORTED_COMPRESSION_TYPE
    assert asking.produce("t", batch, version=7).error_code == codes.NONE


def test_a_compacted_topic_refuses_records_without_a_key_and_names_them() -> None:
    asking = Asking()
    asking.create("t", cleanup_policy="compact")
    answer = asking.produce("t", batch_of_values(b"a", b"b", key=None))
    assert answer.error_code == codes.INVALID_RECORD
    assert [each.batch_index for each in answer.record_errors] == [0, 1]
    assert asking.produce("t", batch_of_values(b"a")).error_code == codes.NONE


def test_a_topic_may_stamp_its_records() -> None:
    asking = Asking()
    asking.create("t", message_timestamp_type="LogAppendTime")
    asking.clock.advance(5000)
    answer = asking.produce("t", batch_of_values(b"a", timestamp_ms=1))
    assert answer.log_append_time_ms == NOW + 5000
    assert stored(asking) == [(b"a", NOW + 5000)]


def test_a_largest_timestamp_that_lies_is_corrected() -> None:
    asking = Asking()
    asking.create("t")
    asking.produce("t", with_header(batch_of_values(b"a", timestamp_ms=NOW), 35, ">q", NOW + 999))
    header = read_header(asking.fetch("t").records or b"")
    assert header.max_timestamp == NOW
    assert stored(asking) == [(b"a", NOW)]


def test_a_topic_may_want_another_codec() -> None:
    asking = Asking()
    asking.create("t", compression_type="gzip")
    asking.produce("t", batch_of_values(b"a" * 500, b"b" * 500, producer=(5, 0, 0)))
    header = read_header(asking.fetch("t").records or b"")
    assert (header.codec, header.producer_id, header.base_sequence) == (GZIP, 5, 0)
    assert [value for value, _ in stored(asking)] == [b"a" * 500, b"b" * 500]


def test_what_is_sent_again_is_stored_once_and_answered_with_its_first_offset() -> None:
    asking = Asking()
    asking.create("t")
    first = batch_of_values(b"a", b"b", producer=(7, 0, 0))
    second = batch_of_values(b"c", producer=(7, 0, 2))
    assert asking.produce("t", first).base_offset == 0
    assert asking.produce("t", second).base_offset == 2
    assert asking.produce("t", first).base_offset == 0
    assert asking.produce("t", second).base_offset == 2
    assert [value for value, _ in stored(asking)] == [b"a", b"b", b"c"]


def test_what_is_sent_again_before_it_is_durable_waits_for_the_same_sync() -> None:
    asking = Asking()
    asking.create("t")
    request = produce_request("t", batch_of_values(b"a", producer=(7, 0, 0)))
    first, again = asking.ask_nowait(request, 12), asking.ask_nowait(request, 12)
    assert not first.is_done
    assert not again.is_done
    asking.sync()
    for reply in (first, again):
        answer = reply.response.responses[0].partition_responses[0]
        assert (answer.error_code, answer.base_offset) == (codes.NONE, 0)


def test_what_is_sent_again_after_a_power_cut_is_stored_once() -> None:
    asking = Asking()
    asking.create("t")
    batch = batch_of_values(b"a", producer=(7, 0, 0))
    asking.produce("t", batch)
    again = asking.after_power_cut()
    assert again.produce("t", batch).base_offset == 0
    assert [value for value, _ in stored(again)] == [b"a"]


def test_sequences_with_a_gap_and_old_epochs_are_refused() -> None:
    asking = Asking()
    asking.create("t")
    asking.produce("t", batch_of_values(b"a", producer=(7, 1, 0)))
    gap = asking.produce("t", batch_of_values(b"b", producer=(7, 1, 5)))
    assert gap.error_code == codes.OUT_OF_ORDER_SEQUENCE_NUMBER
    old = asking.produce("t", batch_of_values(b"b", producer=(7, 0, 1)))
    assert old.error_code == codes.INVALID_PRODUCER_EPOCH
    late = asking.produce("t", batch_of_values(b"b", producer=(7, 2, 3)))
    assert late.error_code == codes.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert asking.produce("t", batch_of_values(b"b", producer=(7, 2, 0))).base_offset == 1


def test_topics_and_partitions_that_are_not_there_are_told() -> None:
    asking = Asking()
    asking.create("t")
    unknown = codes.UNKNOWN_TOPIC_OR_PARTITION
    assert asking.produce("nothing", batch_of_values(b"a")).error_code == unknown
    assert asking.produce("t", batch_of_values(b"a"), partition=3).error_code == unknown
    assert asking.produce("__cluster_metadata", batch_of_values(b"a")).error_code == unknown


def test_version_13_names_topics_by_their_id() -> None:
    asking = Asking()
    topic_id = asking.create("t")
    data = ProduceRequest.PartitionProduceData(index=0, records=batch_of_values(b"a"))
    topics = [
        ProduceRequest.TopicProduceData(topic_id=each, partition_data=[data])
        for each in (topic_id, b"\1" * 16)
    ]
    response = asking.ask(ProduceRequest(acks=-1, topic_data=topics), 13)
    good, bad = (each.partition_responses[0] for each in response.responses)
    assert (good.error_code, good.base_offset) == (codes.NONE, 0)
    assert bad.error_code == codes.UNKNOWN_TOPIC_ID


def test_one_bad_partition_does_not_keep_another_from_being_stored() -> None:
    asking = Asking()
    asking.create("t", 2)
    request = produce_request("t", batch_of_values(b"a"))
    bad = ProduceRequest.PartitionProduceData(index=1, records=b"garbage")
    request.topic_data[0].partition_data.append(bad)
    first, second = asking.ask(request, 12).responses[0].partition_responses
    assert first.error_code == codes.NONE
    assert second.error_code != codes.NONE
    assert [value for value, _ in stored(asking)] == [b"a"]


def test_whoever_looks_is_told_when_it_was_accepted_stored_and_available() -> None:
    asking = Asking()
    asking.create("t")
    context = Context(events=[])
    reply = asking.ask_nowait(produce_request("t", batch_of_values(b"a")), 12, context)
    assert [name for name, _ in context.events or ()] == ["accepted"]
    asking.sync()
    assert reply.is_done
    names = [name for name, _ in context.events or ()]
    assert names[0] == "accepted"
    assert set(names) == {"accepted", "stored", "available"}
