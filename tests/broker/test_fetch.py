"""Fetch: what is read, when it waits, and what is told where nothing can be read."""

from __future__ import annotations

import pytest

from ottla.broker.requests import Pending
from ottla.errors import codes
from ottla.protocol.messages.api_01_fetch import FetchRequest
from ottla.records.batch import iterate_headers
from ottla.wire import Buffer
from tests.broker.asking import Asking, batch_of_values, fetch_request, produce_request

BATCH_SIZE = len(batch_of_values(b"x" * 100))


def filled(batches: int = 5) -> Asking:
    """Return a broker with a topic of batches of one record each."""
    asking = Asking()
    asking.create("t")
    for _ in range(batches):
        asking.produce("t", batch_of_values(b"x" * 100))
    return asking


def offsets(records: Buffer | None) -> list[int]:
    return [header.base_offset for header in iterate_headers(records or b"")]


def test_whole_batches_come_from_the_offset_on() -> None:
    asking = filled()
    part = asking.fetch("t", 2)
    assert offsets(part.records) == [2, 3, 4]
    assert (part.high_watermark, part.last_stable_offset, part.log_start_offset) == (5, 5, 0)


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [0]), (BATCH_SIZE, [0]), (BATCH_SIZE * 2 + 5, [0, 1])]
)
@pytest.mark.parametrize("which", ["max_bytes", "partition_max_bytes"])
def test_limits_cut_between_batches_and_the_first_is_given_however_large(
    limit: int, expected: list[int], which: str
) -> None:
    asking = filled()
    assert offsets(asking.fetch("t", 0, **{which: limit}).records) == expected


def test_only_the_first_partition_that_has_anything_may_exceed_the_limits() -> None:
    asking = Asking()
    asking.create("t", 3)
    for partition in (1, 2):
        asking.produce("t", batch_of_values(b"x" * 100), partition=partition)
    partitions = [
        FetchRequest.FetchPartition(partition=number, partition_max_bytes=10) for number in range(3)
    ]
    topic = FetchRequest.FetchTopic(topic="t", partitions=partitions)
    response = asking.ask(FetchRequest(max_bytes=1 << 20, topics=[topic]), 12)
    assert [offsets(part.records) for part in response.responses[0].partitions] == [[], [0], []]


def test_nothing_to_read_is_empty_and_never_null() -> None:
    asking = filled(1)
    part = asking.fetch("t", 1)
    assert part.records is not None
    assert len(part.records) == 0
    assert part.error_code == codes.NONE


@pytest.mark.parametrize("offset", [-1, 6, 1000])
def test_offsets_outside_of_the_log_are_told(offset: int) -> None:
    part = filled().fetch("t", offset)
    assert part.error_code == codes.OFFSET_OUT_OF_RANGE
    assert (part.high_watermark, part.last_stable_offset) == (-1, -1)


def test_offsets_before_the_log_s_start_are_told() -> None:
    asking = filled()
    log = asking.engine.log_of("t", 0)
    assert log is not None
    log.move_start(3)
    assert asking.fetch("t", 2).error_code == codes.OFFSET_OUT_OF_RANGE
    assert offsets(asking.fetch("t", 3).records) == [3, 4]


def test_between_what_is_durable_and_the_log_s_end_there_is_nothing_and_no_error() -> None:
    asking = filled(1)
    asking.ask_nowait(produce_request("t", batch_of_values(b"a")), 12)
    response = asking.ask_nowait(fetch_request("t", 1), 12)
    [part] = response.responses[0].partitions
    assert (part.error_code, part.high_watermark) == (codes.NONE, 1)
    assert part.records == b""


def test_it_waits_for_min_bytes_and_wakes_as_soon_as_they_are_durable() -> None:
    asking = filled(1)
    reply = asking.ask_nowait(fetch_request("t", 1, min_bytes=1, max_wait_ms=500), 12)
    assert isinstance(reply, Pending)
    asking.ask_nowait(produce_request("t", batch_of_values(b"a")), 12)
    assert not reply.is_done
    asking.sync()
    assert reply.is_done
    assert offsets(reply.response.responses[0].partitions[0].records) == [1]


@pytest.mark.parametrize("segment_bytes", ["1073741824", "1048576"])
def test_what_was_written_before_it_came_wakes_it_as_soon_as_it_is_durable(
    segment_bytes: str,
) -> None:
    asking = Asking()
    asking.create("t", segment_bytes=segment_bytes)
    size = 700_000  # the second one begins a new segment where they are small
    asking.produce("t", batch_of_values(b"x" * size))
    asking.ask_nowait(produce_request("t", batch_of_values(b"y" * size)), 12)
    reply = asking.ask_nowait(fetch_request("t", 1, min_bytes=size, max_wait_ms=500), 12)
    assert not reply.is_done
    asking.sync()
    assert reply.is_done
    assert offsets(reply.response.responses[0].partitions[0].records) == [1]


def test_old_segments_that_go_meanwhile_do_not_keep_it_waiting() -> None:
    asking = Asking()
    asking.create("t", segment_bytes="1048576")
    for _ in range(3):
        asking.produce("t", batch_of_values(b"x" * 700_000))
    reply = asking.ask_nowait(fetch_request("t", 3, min_bytes=1, max_wait_ms=500), 12)
    log = asking.engine.log_of("t", 0)
    assert log is not None
    log.move_start(2)
    asking.engine.remove_old_segments(log)
    assert not reply.is_done
    asking.produce("t", batch_of_values(b"y"))
    assert reply.is_done


def test_it_waits_until_there_is_enough_over_all_partitions() -> None:
    asking = filled(1)
    wanted = 2 * BATCH_SIZE
    reply = asking.ask_nowait(fetch_request("t", 0, min_bytes=wanted, max_wait_ms=500), 12)
    assert isinstance(reply, Pending)
    asking.produce("t", batch_of_values(b"x" * 100))
    assert reply.is_done


def test_it_waits_no_longer_than_asked_for() -> None:
    asking = filled(1)
    reply = asking.ask_nowait(fetch_request("t", 1, min_bytes=1, max_wait_ms=500), 12)
    asking.clock.advance(499)
    asking.engine.expire(asking.clock.monotonic_ms())
    assert not reply.is_done
    asking.clock.advance(1)
    asking.engine.expire(asking.clock.monotonic_ms())
    assert reply.is_done
    assert reply.response.responses[0].partitions[0].records == b""


def test_an_error_does_not_wait() -> None:
    asking = filled(1)
    request = fetch_request("t", 99, min_bytes=1, max_wait_ms=500)
    assert not isinstance(asking.ask_nowait(request, 12), Pending)


def test_a_topic_that_is_deleted_while_somebody_waits_is_told() -> None:
    asking = filled(1)
    reply = asking.ask_nowait(fetch_request("t", 1, min_bytes=1, max_wait_ms=500), 12)
    asking.engine.delete_topic(asking.engine.cluster.topics["t"])
    assert reply.is_done
    [part] = reply.response.responses[0].partitions
    assert part.error_code == codes.UNKNOWN_TOPIC_OR_PARTITION


def test_leader_epochs_of_the_past_and_of_the_future_are_told() -> None:
    asking = filled().after_power_cut()
    log = asking.engine.log_of("t", 0)
    assert log is not None
    assert log.leader_epoch == 1
    assert asking.fetch("t", current_leader_epoch=1).error_code == codes.NONE
    assert asking.fetch("t", current_leader_epoch=0).error_code == codes.FENCED_LEADER_EPOCH
    assert asking.fetch("t", current_leader_epoch=2).error_code == codes.UNKNOWN_LEADER_EPOCH


def test_a_log_that_diverges_from_what_was_read_is_told() -> None:
    asking = filled(3).after_power_cut()
    request = fetch_request("t", 9)
    request.topics[0].partitions[0].last_fetched_epoch = 0
    [part] = asking.ask(request, 12).responses[0].partitions
    assert (part.diverging_epoch.epoch, part.diverging_epoch.end_offset) == (0, 3)


def test_from_version_13_topics_are_named_by_their_id() -> None:
    asking = Asking()
    topic_id = asking.create("t")
    asking.produce("t", batch_of_values(b"a"))
    partition = FetchRequest.FetchPartition(partition=0, partition_max_bytes=1000)
    topics = [
        FetchRequest.FetchTopic(topic_id=each, partitions=[partition])
        for each in (topic_id, b"\1" * 16)
    ]
    good, bad = asking.ask(FetchRequest(max_bytes=1000, topics=topics), 13).responses
    assert offsets(good.partitions[0].records) == [0]
    assert bad.partitions[0].error_code == codes.UNKNOWN_TOPIC_ID


@pytest.mark.parametrize("version", range(4, 19))
def test_every_version_reads(version: int) -> None:
    asking = Asking()
    topic_id = asking.create("t")
    asking.produce("t", batch_of_values(b"a"))
    request = fetch_request("t")
    request.topics[0].topic_id = topic_id
    [topic] = asking.ask(request, version).responses
    assert offsets(topic.partitions[0].records) == [0]
