"""Configs: what they come to, where they come from, and what they may be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ottla.broker.config_facts import TOPIC_CONFIGS
from ottla.broker.configs import (
    ASSIGNOR_NAMES,
    BROKER_SOURCE,
    DEFAULT_SOURCE,
    STATIC_SOURCE,
    TOPIC_SOURCE,
    Configs,
    Entry,
    Synonym,
    validate_broker,
    validate_topic,
)
from ottla.coordinator.cluster.state import ClusterState, Topic
from ottla.coordinator.group.consumer.assignors import ASSIGNORS
from ottla.errors import ConfigError

FACTS = Path(__file__).parents[2] / "codegen" / "facts"


def configs(
    settings: dict[str, str] | None = None, changed: dict[str, str] | None = None
) -> Configs:
    cluster = ClusterState(1)
    cluster.broker_configs.update(changed or {})
    return Configs(cluster, settings or {}, {"node.id": "1"})


def entry(found: list[Entry], name: str) -> Entry:
    return next(each for each in found if each.name == name)


def test_every_topic_config_of_kafka_is_told_with_its_default() -> None:
    [path] = FACTS.glob("*topic*.jsonl")
    facts = [json.loads(line) for line in path.read_text().splitlines()]
    expected = {each["name"]: each["default"] for each in facts if not each.get("internal")}
    found = {each.name: each.value for each in configs().describe_topic({})}
    assert found.pop("ottla.durability") == "disk"
    assert {name: found[name] for name in expected if name in found} == {
        name: value for name, value in expected.items() if name in found
    }
    assert {fact.name for fact in TOPIC_CONFIGS} == set(found)
    assert len(found) > 30


def test_the_value_is_the_topic_s_then_the_broker_s_then_the_default() -> None:
    name, broker_name = "retention.bytes", "log.retention.bytes"

    def found(
        own: dict[str, str], changed: dict[str, str], settings: dict[str, str]
    ) -> tuple[str | None, int]:
        told = entry(configs(settings, changed).describe_topic(own), name)
        return told.value, told.source

    assert found({}, {}, {}) == ("-1", DEFAULT_SOURCE)
    assert found({}, {}, {broker_name: "4"}) == ("4", STATIC_SOURCE)
    assert found({}, {broker_name: "3"}, {broker_name: "4"}) == ("3", BROKER_SOURCE)
    assert found({name: "2"}, {broker_name: "3"}, {broker_name: "4"}) == ("2", TOPIC_SOURCE)


def test_synonyms_are_listed_as_kafka_lists_them() -> None:
    known = configs({"log.roll.hours": "2"}, {"log.roll.ms": "5"})
    assert entry(known.describe_topic({"segment.ms": "9"}), "segment.ms").synonyms == [
        Synonym("segment.ms", "9", TOPIC_SOURCE),
        Synonym("log.roll.ms", "5", BROKER_SOURCE),
        Synonym("log.roll.hours", "2", STATIC_SOURCE),
        Synonym("log.roll.hours", "168", DEFAULT_SOURCE),
    ]
    assert entry(known.describe_topic({}), "segment.bytes").synonyms == [
        Synonym("log.segment.bytes", "1073741824", DEFAULT_SOURCE)
    ]


@pytest.mark.parametrize(
    ("settings", "segment_ms", "retention_ms"),
    [
        ({}, "604800000", "604800000"),
        ({"log.roll.hours": "2"}, "7200000", "604800000"),
        ({"log.roll.hours": "2", "log.roll.ms": "5"}, "5", "604800000"),
        ({"log.retention.minutes": "3"}, "604800000", "180000"),
        ({"log.retention.hours": "1", "log.retention.minutes": "3"}, "604800000", "180000"),
    ],
)
def test_hours_and_minutes_come_to_milliseconds_and_the_finest_unit_counts(
    settings: dict[str, str], segment_ms: str, retention_ms: str
) -> None:
    known = configs(settings)
    assert known.value_of("segment.ms", {}) == segment_ms
    assert known.value_of("retention.ms", {}) == retention_ms


def test_a_topic_s_configs_are_typed_and_followed_when_they_change() -> None:
    known = configs({"ottla.durability": "os"})
    topic = Topic("t", b"i" * 16, configs={"cleanup.policy": "compact,delete"})
    config = known.topic_config(topic)
    assert config.cleanup_policy == {"compact", "delete"}
    assert config.max_message_bytes == 1048588
    assert not config.log_config.durable
    topic.configs["ottla.durability"] = "disk"
    known.changed()
    assert known.topic_config(topic).log_config.durable


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("no.such", "1", "Unknown topic config name: no.such"),
        ("retention.ms", "soon", "Not a number of type LONG"),
        ("retention.ms", "-2", "Value must be at least -1"),
        ("retention.ms", str(1 << 63), "Not a number of type LONG"),
        ("max.message.bytes", str(1 << 31), "Not a number of type INT"),
        ("min.cleanable.dirty.ratio", "1.5", "Value must be no more than 1"),
        ("min.cleanable.dirty.ratio", "nan", "Not a number of type DOUBLE"),
        ("preallocate", "yes", "Expected value to be either true or false"),
        ("cleanup.policy", "compact,shred", "String must be one of: compact, delete"),
        ("compression.type", "brotli", "String must be one of: uncompressed"),
        ("ottla.durability", "ram", "String must be one of: disk, os"),
        ("retention.ms", None, "Null value not supported"),
    ],
)
def test_what_a_topic_config_cannot_be_is_told(name: str, value: str | None, reason: str) -> None:
    problem = validate_topic(name, value)
    assert problem is not None
    assert reason in problem


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention.ms", "-1"),
        ("cleanup.policy", "compact, delete"),
        ("preallocate", "TRUE"),
        ("min.cleanable.dirty.ratio", "0.25"),
        ("compression.gzip.level", "9"),
    ],
)
def test_what_a_topic_config_can_be_is_taken(name: str, value: str) -> None:
    assert validate_topic(name, value) is None


def test_settings_that_cannot_be_keep_a_broker_from_starting() -> None:
    with pytest.raises(ConfigError, match=r"Unknown broker config name: num\.partition"):
        configs({"num.partition": "3"})
    with pytest.raises(ConfigError, match=r"num\.partitions: Value must be at least 1"):
        configs({"num.partitions": "0"})
    assert validate_broker("listeners", "x") is not None


def test_the_broker_s_configs_say_what_can_be_changed() -> None:
    found = configs({"num.partitions": "3"}, {"log.retention.ms": "5"}).describe_broker()
    partitions, retention = entry(found, "num.partitions"), entry(found, "log.retention.ms")
    assert (partitions.value, partitions.source) == ("3", STATIC_SOURCE)
    assert partitions.is_read_only
    assert (retention.value, retention.source) == ("5", BROKER_SOURCE)
    assert not retention.is_read_only
    assert entry(found, "node.id").value == "1"


def test_the_assignors_that_can_be_set_are_those_that_there_are() -> None:
    assert sorted(ASSIGNOR_NAMES) == sorted(ASSIGNORS)
