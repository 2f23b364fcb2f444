"""What the configs of topics and broker come to, and where each value comes from.

A topic's config is, in this order: what was set for the topic; what was set for the broker while it
ran, under the broker's name of it; what the broker was started with; Kafka's default. Some broker
configs stand for one topic config in another unit (`log.roll.hours` for `segment.ms`): the first
name that has a value counts.

Two names are our own: `ottla.durability` of a topic and of the broker, "disk" or "os". One default
is not Kafka's: nobody waits for more members before a new group's first rebalance
(`group.initial.rebalance.delay.ms`), which a broker on one machine has no reason to.

Kafka: LogConfig, ConfigHelper, DynamicBrokerConfig, TopicConfigSynonyms; the facts are generated.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

from ottla.broker.config_facts import BROKER_CONFIGS, BROKER_SYNONYMS, TOPIC_CONFIGS, ConfigFact
from ottla.errors import ConfigError
from ottla.log.config import LogConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ottla.coordinator.cluster.state import ClusterState, Topic

TOPIC_SOURCE, BROKER_SOURCE, BROKERS_SOURCE, STATIC_SOURCE, DEFAULT_SOURCE = 1, 2, 3, 4, 5
"""Kafka: DescribeConfigsResponse.ConfigSource."""

DURABILITY = "ottla.durability"
ASSIGNOR_NAMES = ("uniform", "range")
"""The names of the coordinator's `ASSIGNORS`; those are imported when there is a group."""

_DURABILITY_FACT = ConfigFact(DURABILITY, "STRING", "disk", choices=("disk", "os"))
_TOPIC_FACTS = {fact.name: fact for fact in (*TOPIC_CONFIGS, _DURABILITY_FACT)}
_OUR_DEFAULTS = {"group.initial.rebalance.delay.ms": "0"}
_BROKER_FACTS = {
    fact.name: fact._replace(default=_OUR_DEFAULTS.get(fact.name, fact.default))
    for fact in (*BROKER_CONFIGS, _DURABILITY_FACT)
}
_SYNONYMS = {**BROKER_SYNONYMS, DURABILITY: (DURABILITY,)}
_CHANGEABLE = {names[0] for names in _SYNONYMS.values()}
"""What can be set while the broker runs: what gives topics their defaults."""

_NOT_TOLD = {"listeners", "advertised.listeners", "queued.max.request.bytes"}
"""Facts about what this broker does not have, or has otherwise."""

_UNITS_MS = {"hours": 3_600_000, "minutes": 60_000}
_NUMBERS = {"INT": 31, "LONG": 63}
LIST_TYPE = 7
_TYPES = {"BOOLEAN": 1, "STRING": 2, "INT": 3, "LONG": 5, "DOUBLE": 6, "LIST": LIST_TYPE}


class Synonym(NamedTuple):
    """One of the values that a config could have: the first in a list is the one that counts."""

    name: str
    value: str | None
    source: int


class Entry(NamedTuple):
    """A config as it is described.

    Attributes:
        name: its name.
        value: its value as text.
        source: where the value comes from.
        type: Kafka's number for its type.
        is_read_only: whether it cannot be changed while the broker runs.
        synonyms: what counts, and what would count without it.
    """

    name: str
    value: str | None
    source: int
    type: int
    is_read_only: bool
    synonyms: list[Synonym]


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """The configs of one topic that the broker acts on; Kafka's names with underscores."""

    max_message_bytes: int
    compression_type: str
    message_timestamp_type: str
    message_timestamp_before_max_ms: int
    message_timestamp_after_max_ms: int
    cleanup_policy: frozenset[str]
    log_config: LogConfig


class Configs:
    """All configs.

    Args:
        cluster: has what was set while the broker ran.
        settings: what the broker was started with.
        told: what the broker tells besides of itself, such as `node.id`.

    Raises:
        ConfigError: a setting does not exist, or has a value that cannot be.
    """

    def __init__(
        self, cluster: ClusterState, settings: Mapping[str, str], told: Mapping[str, str]
    ) -> None:
        for name, value in settings.items():
            problem = validate_broker(name, value)
            if problem is not None:
                raise ConfigError(problem)
        self._cluster = cluster
        self._static = {**told, **settings}
        self._told = told
        self._topics: dict[bytes, TopicConfig] = {}
        self.auto_create_topics_enable = self._flag("auto.create.topics.enable")
        self.delete_topic_enable = self._flag("delete.topic.enable")
        self.num_partitions = self._number("num.partitions")
        self.default_replication_factor = self._number("default.replication.factor")
        self.fetch_max_bytes = self._number("fetch.max.bytes")
        self.fetch_session_slots = self._number("max.incremental.fetch.session.cache.slots")
        self.socket_request_max_bytes = self._number("socket.request.max.bytes")
        self.log_cleaner_enable = self._flag("log.cleaner.enable")
        self.log_cleaner_backoff_ms = self._number("log.cleaner.backoff.ms")
        self.log_cleaner_dedupe_buffer_size = self._number("log.cleaner.dedupe.buffer.size")
        self.log_cleaner_io_max_bytes_per_second = float(
            self._text("log.cleaner.io.max.bytes.per.second")
        )
        self.max_connections = self._number("max.connections")
        self.connections_max_idle_ms = self._number("connections.max.idle.ms")
        self.log_flush_offset_checkpoint_interval_ms = self._number(
            "log.flush.offset.checkpoint.interval.ms"
        )
        self.log_retention_check_interval_ms = self._number("log.retention.check.interval.ms")
        self.group_initial_rebalance_delay_ms = self._number("group.initial.rebalance.delay.ms")
        self.group_min_session_timeout_ms = self._number("group.min.session.timeout.ms")
        self.group_max_session_timeout_ms = self._number("group.max.session.timeout.ms")
        self.group_max_size = self._number("group.max.size")
        self.group_consumer_session_timeout_ms = self._number("group.consumer.session.timeout.ms")
        self.group_consumer_heartbeat_interval_ms = self._number(
            "group.consumer.heartbeat.interval.ms"
        )
        self.group_consumer_max_size = self._number("group.consumer.max.size")
        self.group_consumer_assignors = _assignors(self._text("group.consumer.assignors"))
        self.group_consumer_migration_policy = self._text("group.consumer.migration.policy").lower()
        self.offset_metadata_max_bytes = self._number("offset.metadata.max.bytes")
        self.offsets_retention_ms = self._number("offsets.retention.minutes") * 60_000
        self.offsets_retention_check_interval_ms = self._number(
            "offsets.retention.check.interval.ms"
        )
        self.offsets_topic_num_partitions = self._number("offsets.topic.num.partitions")
        self.offsets_topic_segment_bytes = self._number("offsets.topic.segment.bytes")

    def _text(self, name: str) -> str:
        return self._static.get(name) or _BROKER_FACTS[name].default or ""

    def _flag(self, name: str) -> bool:
        return self._text(name).lower() == "true"

    def _number(self, name: str) -> int:
        return int(self._text(name))

    def changed(self) -> None:
        """Take note that something was set."""
        self._topics.clear()

    # -- topics

    def topic_config(self, topic: Topic) -> TopicConfig:
        """Return what the configs of a topic come to."""
        config = self._topics.get(topic.topic_id)
        if config is None:
            config = self._topics[topic.topic_id] = self._resolve(topic.configs)
        return config

    def _resolve(self, own: Mapping[str, str]) -> TopicConfig:
        def text(name: str) -> str:
            return self.value_of(name, own) or ""

        def number(name: str) -> int:
            return int(text(name))

        policies = frozenset(each.strip() for each in text("cleanup.policy").split(","))
        return TopicConfig(
            max_message_bytes=number("max.message.bytes"),
            compression_type=text("compression.type"),
            message_timestamp_type=text("message.timestamp.type"),
            message_timestamp_before_max_ms=number("message.timestamp.before.max.ms"),
            message_timestamp_after_max_ms=number("message.timestamp.after.max.ms"),
            cleanup_policy=policies,
            log_config=LogConfig(
                segment_bytes=number("segment.bytes"),
                segment_ms=number("segment.ms"),
                segment_index_bytes=number("segment.index.bytes"),
                index_interval_bytes=number("index.interval.bytes"),
                durable=text(DURABILITY) == "disk",
                delete="delete" in policies,
                compact="compact" in policies,
                retention_ms=number("retention.ms"),
                retention_bytes=number("retention.bytes"),
                delete_retention_ms=number("delete.retention.ms"),
                min_compaction_lag_ms=number("min.compaction.lag.ms"),
                max_compaction_lag_ms=number("max.compaction.lag.ms"),
                min_cleanable_dirty_ratio=float(text("min.cleanable.dirty.ratio")),
                producer_expiration_ms=self._number("producer.id.expiration.ms"),
            ),
        )

    def value_of(self, name: str, own: Mapping[str, str]) -> str | None:
        """Return the value of a topic config, in the topic config's unit.

        Args:
            name: the topic config.
            own: what was set for the topic.
        """
        if name in own:
            return own[name]
        for synonym in _SYNONYMS.get(name, ()):
            value = self._cluster.broker_configs.get(synonym, self._static.get(synonym))
            if value is not None:
                unit = _UNITS_MS.get(synonym.rpartition(".")[2], 1)
                return str(int(value) * unit) if unit != 1 else value
        return _TOPIC_FACTS[name].default

    def describe_topic(self, own: Mapping[str, str]) -> list[Entry]:
        """Return all configs of a topic.

        Args:
            own: what was set for it.
        """
        entries = []
        for name, fact in _TOPIC_FACTS.items():
            synonyms = self._broker_synonyms(_SYNONYMS.get(name, ()))
            if name in own:
                synonyms.insert(0, Synonym(name, own[name], TOPIC_SOURCE))
            source = synonyms[0].source if synonyms else DEFAULT_SOURCE
            value = self.value_of(name, own)
            entries.append(Entry(name, value, source, _TYPES[fact.type], False, synonyms))
        return entries

    def _broker_synonyms(self, names: Sequence[str]) -> list[Synonym]:
        dynamic = self._cluster.broker_configs
        found = [Synonym(name, dynamic[name], BROKER_SOURCE) for name in names if name in dynamic]
        found += [
            Synonym(name, self._static[name], STATIC_SOURCE)
            for name in names
            if name in self._static
        ]
        defaults = [(name, _BROKER_FACTS[name].default) for name in names]
        found += [
            Synonym(name, default, DEFAULT_SOURCE)
            for name, default in defaults
            if default is not None
        ]
        return found

    # -- the broker

    def describe_broker(self) -> list[Entry]:
        """Return all configs of the broker."""
        entries = []
        for name, fact in _BROKER_FACTS.items():
            if name in _NOT_TOLD:
                continue
            synonyms = self._broker_synonyms((name,))
            value = synonyms[0].value if synonyms else None
            source = synonyms[0].source if synonyms else DEFAULT_SOURCE
            is_read_only = name not in _CHANGEABLE
            entries.append(Entry(name, value, source, _TYPES[fact.type], is_read_only, synonyms))
        return entries

    def describe_brokers(self) -> list[Entry]:
        """Return what was set for all brokers while they ran."""
        return [
            Entry(
                name,
                value,
                BROKERS_SOURCE,
                _TYPES[_BROKER_FACTS[name].type],
                False,
                [Synonym(name, value, BROKERS_SOURCE)],
            )
            for name, value in self._cluster.broker_configs.items()
        ]


def _assignors(text: str) -> tuple[str, ...]:
    """Return the names of assignors; a class of one's own cannot be loaded here."""
    names = tuple(each.strip() for each in text.split(","))
    for name in names:
        if name not in ASSIGNOR_NAMES:
            raise ConfigError(
                f"Invalid value {text} for configuration group.consumer.assignors: "
                f"there is no {name!r}, only {', '.join(ASSIGNOR_NAMES)}"
            )
    return names


def validate_topic(name: str, value: str | None) -> str | None:
    """Return what is wrong with a topic config, or None."""
    fact = _TOPIC_FACTS.get(name)
    if fact is None:
        return f"Unknown topic config name: {name}"
    return _validate(fact, value)


def validate_broker(name: str, value: str | None) -> str | None:
    """Return what is wrong with a broker config, or None."""
    fact = _BROKER_FACTS.get(name)
    if fact is None or name in _NOT_TOLD:
        return f"Unknown broker config name: {name}"
    return _validate(fact, value)


def is_changeable(name: str) -> bool:
    """Tell whether a broker config can be set while the broker runs."""
    return name in _CHANGEABLE


def is_list(name: str) -> bool:
    """Tell whether a config is a list, to which can be appended."""
    fact = _TOPIC_FACTS.get(name) or _BROKER_FACTS.get(name)
    return fact is not None and fact.type == "LIST"


def default_of(name: str) -> str | None:
    """Return a topic config's or a broker config's default."""
    fact = _TOPIC_FACTS.get(name) or _BROKER_FACTS.get(name)
    return None if fact is None else fact.default


def _validate(fact: ConfigFact, value: str | None) -> str | None:
    problem = "Null value not supported" if value is None else _problem(fact, value.strip())
    if problem is None:
        return None
    return f"Invalid value {value} for configuration {fact.name}: {problem}"


def _problem(fact: ConfigFact, value: str) -> str | None:
    if fact.type == "BOOLEAN":
        good = value.lower() in ("true", "false")
        return None if good else "Expected value to be either true or false"
    if fact.type in _NUMBERS or fact.type == "DOUBLE":
        return _number_problem(fact, value)
    given = [each.strip() for each in value.split(",")] if fact.type == "LIST" else [value]
    if fact.choices and any(each not in fact.choices for each in given):
        return f"String must be one of: {', '.join(fact.choices)}"
    return None


def _number_problem(fact: ConfigFact, value: str) -> str | None:
    try:
        number = float(value) if fact.type == "DOUBLE" else int(value)
    except ValueError:
        return f"Not a number of type {fact.type}"
    bits = _NUMBERS.get(fact.type)
    if not isfinite(number) or (bits is not None and not -(1 << bits) <= number < 1 << bits):
        return f"Not a number of type {fact.type}"
    if fact.least is not None and number < fact.least:
        return f"Value must be at least {fact.least:g}"
    if fact.most is not None and number > fact.most:
        return f"Value must be no more than {fact.most:g}"
    return None
