"""The cluster's state machine: what is decided, and what is known after replaying its log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.clock import ManualClock
from ottla.coordinator.cluster.records import MetadataCodec
from ottla.coordinator.cluster.state import (
    BROKER_RESOURCE,
    PARTITIONS_MAX,
    TOPIC_RESOURCE,
    ClusterState,
    Decision,
    is_topic_name,
)
from ottla.coordinator.runtime import Runtime
from ottla.errors import DecodeError, codes
from ottla.log.config import LogConfig
from ottla.log.group_commit import GroupCommit
from ottla.log.memory_files import MemoryFiles
from ottla.log.partition_log import PartitionLog
from ottla.protocol.message import ApiMessage


class Cluster:
    """A state and its log."""

    def __init__(self, files: MemoryFiles, *, recovery_point: int | None = None) -> None:
        self.files = files
        self.state = ClusterState(1)
        self.commit = GroupCommit()
        clock = ManualClock()
        self.log = PartitionLog.open(
            files,
            "root",
            "meta",
            0,
            bytes(16),
            LogConfig(),
            clock,
            recovery_point=recovery_point,
        )
        self.runtime: Runtime[ApiMessage] = Runtime(
            self.log, self.commit, MetadataCodec(), self.state.replay, clock
        )
        self.runtime.load()

    def apply(self, decision: Decision) -> int:
        if decision.error == codes.NONE:
            self.runtime.append(decision.records)
        return decision.error

    def sync(self) -> None:
        begun = self.commit.begin()
        if begun is not None:
            self.commit.end(begun.run())

    def known(self) -> object:
        topics = [
            (topic.name, topic.topic_id, topic.partitions, topic.configs)
            for topic in self.state.topics.values()
        ]
        ids = {topic_id: topic.name for topic_id, topic in self.state.topics_by_id.items()}
        return topics, ids, self.state.broker_configs, self.state.next_producer_id


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "delete", "grow", "config", "broker", "ids"]),
        st.sampled_from("abc"),
        st.integers(1, 5),
    ),
    max_size=25,
)


@given(STEPS)
def test_what_is_loaded_is_what_was_known(steps: list[tuple[str, str, int]]) -> None:
    cluster = Cluster(MemoryFiles(model_power_cuts=True))
    for step, name, number in steps:
        state = cluster.state
        topic = state.topics.get(name)
        if step == "create":
            topic_id = bytes([ord(name), number]) * 8
            cluster.apply(state.create_topic(name, topic_id, number, {"retention.ms": "1"}))
        elif step == "broker":
            change = {"log.retention.ms": None if number == 1 else str(number)}
            cluster.apply(state.set_configs(BROKER_RESOURCE, "", change))
        elif step == "ids":
            cluster.apply(state.reserve_producer_ids())
        elif topic is not None and step == "delete":
            cluster.apply(state.delete_topic(topic))
        elif topic is not None and step == "grow":
            cluster.apply(state.create_partitions(topic, number))
        elif topic is not None:
            change = {"retention.ms": None if number == 1 else str(number)}
            cluster.apply(state.set_configs(TOPIC_RESOURCE, name, change))
    cluster.sync()
    again = Cluster(cluster.files.after_power_cut(), recovery_point=0)
    assert again.known() == cluster.known()


def test_a_decision_changes_nothing() -> None:
    cluster = Cluster(MemoryFiles())
    before = cluster.known()
    assert cluster.state.create_topic("t", bytes(16), 3, {}).records
    assert cluster.known() == before


def test_what_cannot_be_is_refused_with_kafka_s_codes() -> None:
    cluster = Cluster(MemoryFiles())
    state = cluster.state
    assert cluster.apply(state.create_topic("a.b", bytes(16), 2, {})) == codes.NONE
    assert state.create_topic("a.b", bytes(16), 2, {}).error == codes.TOPIC_ALREADY_EXISTS
    assert state.create_topic("a_b", bytes(16), 2, {}).error == codes.INVALID_TOPIC_EXCEPTION
    assert state.create_topic("a b", bytes(16), 2, {}).error == codes.INVALID_TOPIC_EXCEPTION
    for partitions in (0, -1, PARTITIONS_MAX + 1):
        assert state.create_topic("t", bytes(16), partitions, {}).error == codes.INVALID_PARTITIONS
    topic = state.topics["a.b"]
    for count in (1, 2, PARTITIONS_MAX + 1):
        assert state.create_partitions(topic, count).error == codes.INVALID_PARTITIONS


@pytest.mark.parametrize("name", ["a", "A-b_c.d9", "x" * 249, "..."])
def test_names_that_kafka_takes(name: str) -> None:
    assert is_topic_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 250, "a b", "ü", "a/b", "a\n"])
def test_names_that_kafka_refuses(name: str) -> None:
    assert not is_topic_name(name)


def test_a_change_is_answered_when_it_is_durable() -> None:
    cluster = Cluster(MemoryFiles())
    cluster.apply(cluster.state.create_topic("t", bytes(16), 1, {}))
    stored: list[object] = []
    cluster.runtime.when_stored(stored.append)
    assert stored == []
    cluster.sync()
    assert stored == [None]


@pytest.mark.parametrize("value", [None, b"", b"\x01\x02", b"\x09\x02\x00", b"\x01\x7f\x00"])
def test_a_record_that_is_none_of_ours_is_an_error(value: bytes | None) -> None:
    with pytest.raises(DecodeError):
        MetadataCodec().decode(None, value)
