"""Metadata, ListOffsets, InitProducerId and OffsetForLeaderEpoch."""

from __future__ import annotations

from typing import Any

import pytest

from ottla.broker.requests import Context, Pending
from ottla.errors import StorageError, codes
from ottla.log.memory_files import MemoryFile
from ottla.protocol.messages.api_02_list_offsets import ListOffsetsRequest
from ottla.protocol.messages.api_03_metadata import MetadataRequest
from ottla.protocol.messages.api_10_find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.api_22_init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.api_23_offset_for_leader_epoch import OffsetForLeaderEpochRequest
from tests.broker.asking import Asking, batch_of_values

NOW = 1_700_000_000_000


def metadata(*names: str, create: bool = True) -> MetadataRequest:
    topics = [MetadataRequest.MetadataRequestTopic(name=name) for name in names]
    return MetadataRequest(topics=topics, allow_auto_topic_creation=create)


def names_of(response: Any) -> list[str]:
    return [topic.name for topic in response.topics]


def test_the_address_that_the_client_came_to_is_advertised_unless_one_is_set() -> None:
    asking = Asking()
    context = Context("10.0.0.5", 9999)
    [broker] = asking.ask(metadata(), context=context).brokers
    assert (broker.host, broker.port, broker.node_id) == ("10.0.0.5", 9999, 1)
    asking.engine.advertised = ("kafka.example", 1234)
    response = asking.ask(metadata(), context=context)
    assert (response.brokers[0].host, response.brokers[0].port) == ("kafka.example", 1234)
    assert response.controller_id == 1
    assert response.cluster_id == asking.engine.cluster_id != ""


def test_null_means_all_topics_and_empty_means_none_but_in_version_0() -> None:
    asking = Asking()
    asking.create("a")
    asking.create("b")
    everything = MetadataRequest(topics=None)
    assert names_of(asking.ask(everything, 1)) == ["a", "b"]
    assert names_of(asking.ask(everything)) == ["a", "b"]
    assert names_of(asking.ask(metadata(), 1)) == []
    assert names_of(asking.ask(metadata(), 0)) == ["a", "b"]


def test_a_topic_is_created_by_asking_and_answered_ready_when_that_is_durable() -> None:
    asking = Asking(num_partitions="3")
    reply = asking.ask_nowait(metadata("t"))
    assert isinstance(reply, Pending)
    asking.sync()
    [topic] = reply.response.topics  # type: ignore[union-attr]  # a MetadataResponse
    assert (topic.error_code, len(topic.partitions)) == (codes.NONE, 3)
    assert {partition.leader_id for partition in topic.partitions} == {1}
    again = asking.after_power_cut().ask(metadata("t"))
    assert again.topics[0].topic_id == topic.topic_id


def test_two_who_ask_at_once_get_one_topic() -> None:
    asking = Asking()
    first, second = asking.ask_nowait(metadata("t")), asking.ask_nowait(metadata("t"))
    asking.sync()
    assert first.response.topics[0].topic_id == second.response.topics[0].topic_id


def test_a_topic_that_could_not_be_made_durable_is_not_told_as_there() -> None:
    asking = Asking()
    reply = asking.ask_nowait(metadata("t"))
    begun = asking.engine.commit.begin()
    assert begun is not None
    asking.engine.commit.end([StorageError("gone")] * len(begun.parts))
    assert reply.response.topics[0].error_code == codes.KAFKA_STORAGE_ERROR


@pytest.mark.parametrize("allowed_by", ["broker", "client"])
def test_nothing_is_created_where_that_is_not_allowed(allowed_by: str) -> None:
    setting = "false" if allowed_by == "broker" else "true"
    asking = Asking(auto_create_topics_enable=setting)
    response = asking.ask(metadata("t", create=allowed_by == "broker"))
    assert response.topics[0].error_code == codes.UNKNOWN_TOPIC_OR_PARTITION
    assert names_of(asking.ask(MetadataRequest(topics=None))) == []


@pytest.mark.parametrize("name", ["a b", "", ".", "..", "x" * 250, "ä", "a/b"])
def test_invalid_names_are_told_and_not_created(name: str) -> None:
    asking = Asking()
    [topic] = asking.ask(metadata(name)).topics
    assert topic.error_code == codes.INVALID_TOPIC_EXCEPTION
    assert asking.engine.cluster.topics == {}


def test_topics_can_be_asked_for_by_id() -> None:
    asking = Asking()
    topic_id = asking.create("t")
    topics = [
        MetadataRequest.MetadataRequestTopic(name=None, topic_id=each)
        for each in (topic_id, b"\1" * 16)
    ]
    good, bad = asking.ask(MetadataRequest(topics=topics, allow_auto_topic_creation=False)).topics
    assert (good.name, good.error_code) == ("t", codes.NONE)
    assert bad.error_code == codes.UNKNOWN_TOPIC_ID


def test_a_topic_that_is_made_again_has_another_id_and_nothing_of_the_old_one() -> None:
    asking = Asking()
    old = asking.create("t")
    asking.produce("t", batch_of_values(b"a", producer=(7, 0, 0)))
    asking.engine.delete_topic(asking.engine.cluster.topics["t"])
    asking.sync()
    assert asking.create("t") != old
    assert asking.produce("t", batch_of_values(b"b", producer=(7, 0, 0))).base_offset == 0
    assert asking.fetch("t").high_watermark == 1


@pytest.mark.parametrize("version", range(14))
def test_every_version_of_metadata_answers(version: int) -> None:
    asking = Asking()
    asking.create("t")
    assert names_of(asking.ask(metadata("t"), version)) == ["t"]


def offset_of(asking: Asking, timestamp: int, version: int = 11, **settings: int) -> Any:
    partition = ListOffsetsRequest.ListOffsetsPartition(timestamp=timestamp, **settings)
    topic = ListOffsetsRequest.ListOffsetsTopic(name="t", partitions=[partition])
    response = asking.ask(ListOffsetsRequest(replica_id=-1, topics=[topic]), version)
    return response.topics[0].partitions[0]


def stamped(*timestamps: int) -> Asking:
    asking = Asking()
    asking.create("t")
    for timestamp in timestamps:
        asking.produce("t", batch_of_values(b"x", timestamp_ms=timestamp))
    return asking


def test_the_ends_of_a_log_are_found() -> None:
    asking = stamped(NOW, NOW + 1)
    log = asking.engine.log_of("t", 0)
    assert log is not None
    log.move_start(1)
    assert offset_of(asking, -2).offset == 1
    assert offset_of(asking, -1).offset == 2


@pytest.mark.parametrize(
    ("timestamp", "offset", "found"),
    [(0, 0, NOW), (NOW, 0, NOW), (NOW + 1, 1, NOW + 20), (NOW + 20, 1, NOW + 20)],
)
def test_the_first_record_at_or_after_a_time_is_found(
    timestamp: int, offset: int, found: int
) -> None:
    # Timestamps need not grow: the first record that is not before the time counts.
    answer = offset_of(stamped(NOW, NOW + 20, NOW + 10), timestamp)
    assert (answer.offset, answer.timestamp) == (offset, found)


def test_times_behind_the_last_record_and_empty_logs_have_no_offset() -> None:
    answer = offset_of(stamped(NOW), NOW + 1)
    assert (answer.offset, answer.timestamp, answer.error_code) == (-1, -1, codes.NONE)
    assert offset_of(stamped(), 0).offset == -1


def test_the_record_with_the_largest_timestamp_is_found_from_version_7_on() -> None:
    asking = stamped(NOW, NOW + 20, NOW + 10)
    answer = offset_of(asking, -3)
    assert (answer.offset, answer.timestamp) == (1, NOW + 20)
    assert offset_of(asking, -3, 6).error_code == codes.UNSUPPORTED_VERSION


def test_version_0_gives_several_offsets() -> None:
    asking = stamped(NOW, NOW)
    assert offset_of(asking, -1, 0, max_num_offsets=2).old_style_offsets == [2, 0]
    assert offset_of(asking, -2, 0, max_num_offsets=1).old_style_offsets == [0]


def test_old_and_future_leader_epochs_are_refused() -> None:
    asking = stamped(NOW).after_power_cut()
    assert offset_of(asking, -1, current_leader_epoch=1).leader_epoch == 1
    assert offset_of(asking, -1, current_leader_epoch=0).error_code == codes.FENCED_LEADER_EPOCH
    assert offset_of(asking, -1, current_leader_epoch=2).error_code == codes.UNKNOWN_LEADER_EPOCH


@pytest.mark.parametrize("version", range(1, 12))
def test_every_version_of_list_offsets_answers(version: int) -> None:
    assert offset_of(stamped(NOW), -1, version).offset == 1


def test_the_end_of_a_leader_epoch_is_told() -> None:
    asking = stamped(NOW, NOW).after_power_cut()
    asking.produce("t", batch_of_values(b"x"))
    partition = OffsetForLeaderEpochRequest.OffsetForLeaderPartition
    topic = OffsetForLeaderEpochRequest.OffsetForLeaderTopic(
        topic="t", partitions=[partition(partition=0, leader_epoch=epoch) for epoch in (0, 1, 9)]
    )
    response = asking.ask(OffsetForLeaderEpochRequest(replica_id=-1, topics=[topic]))
    found = [(each.leader_epoch, each.end_offset) for each in response.topics[0].partitions]
    assert found == [(0, 2), (1, 3), (-1, -1)]


def test_producer_ids_are_never_given_twice_not_even_after_a_power_cut() -> None:
    asking = Asking()
    given = [
        asking.ask(InitProducerIdRequest(transactional_id=None)).producer_id for _ in range(1500)
    ]
    again = asking.after_power_cut()
    given += [
        again.ask(InitProducerIdRequest(transactional_id=None)).producer_id for _ in range(10)
    ]
    assert len(set(given)) == len(given)


def test_a_producer_id_is_answered_when_it_is_durable() -> None:
    asking = Asking()
    reply = asking.ask_nowait(InitProducerIdRequest(transactional_id=None))
    assert isinstance(reply, Pending)
    assert not reply.is_done
    asking.sync()
    assert reply.is_done


def test_a_known_producer_gets_the_next_epoch_and_a_new_id_when_epochs_run_out() -> None:
    asking = Asking()
    first = asking.ask(InitProducerIdRequest(transactional_id=None))
    bumped = asking.ask(
        InitProducerIdRequest(
            transactional_id=None, producer_id=first.producer_id, producer_epoch=4
        )
    )
    assert (bumped.producer_id, bumped.producer_epoch) == (first.producer_id, 5)
    last = asking.ask(
        InitProducerIdRequest(
            transactional_id=None, producer_id=first.producer_id, producer_epoch=32766
        )
    )
    assert last.producer_id != first.producer_id
    assert last.producer_epoch == 0


def test_transactions_are_refused_honestly() -> None:
    response = Asking().ask(InitProducerIdRequest(transactional_id="tx"))
    assert response.error_code != codes.NONE
    assert response.producer_id == -1


@pytest.mark.parametrize("version", range(7))
def test_the_only_broker_is_every_coordinator(version: int) -> None:
    several = version >= 4
    request = FindCoordinatorRequest(
        key="" if several else "g", coordinator_keys=["g", "h"] if several else []
    )
    response = Asking().ask(request, version)
    for found in response.coordinators if several else [response]:
        assert (found.error_code, found.node_id) == (codes.NONE, 1)
        assert (found.host, found.port) == ("here", 9092)


def test_other_kinds_of_coordinators_are_refused() -> None:
    request = FindCoordinatorRequest(key_type=7, coordinator_keys=["g"])
    [found] = Asking().ask(request).coordinators
    assert (found.error_code, found.node_id) == (codes.INVALID_REQUEST, -1)


def test_a_disk_that_cannot_be_read_is_told_where_an_offset_is_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asking = stamped(NOW)

    def fail(*_: object) -> bytes:
        raise StorageError("reading it failed: Input/output error")

    monkeypatch.setattr(MemoryFile, "read", fail)
    assert offset_of(asking, NOW).error_code == codes.KAFKA_STORAGE_ERROR
