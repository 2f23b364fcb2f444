"""The cluster's state machine: what topics there are, with which configs, and the next producer id.

Kafka: ReplicationControlManager, ConfigurationControlManager, ProducerIdControlManager.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ottla.errors import codes
from ottla.protocol.messages.metadata_records import (
    ConfigRecord,
    PartitionRecord,
    ProducerIdsRecord,
    RemoveTopicRecord,
    TopicRecord,
)

if TYPE_CHECKING:
    from ottla.protocol.message import ApiMessage

TOPIC_RESOURCE = 2
BROKER_RESOURCE = 4
PRODUCER_IDS_BLOCK = 1000
"""How many producer ids one record reserves. Kafka: ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE."""

PARTITIONS_MAX = 10_000
"""The most partitions of one topic; a larger number is taken for a mistake."""

_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def is_topic_name(name: str) -> bool:
    """Tell whether a topic may have this name. Kafka: Topic.validate."""
    return _NAME.fullmatch(name) is not None and name not in (".", "..")


@dataclass
class Topic:
    """One topic.

    Attributes:
        name: its name.
        topic_id: its id, 16 bytes; a topic that is made again has another one.
        partitions: how many it has.
        configs: the configs that were set for it.
    """

    name: str
    topic_id: bytes
    partitions: int = 0
    configs: dict[str, str] = field(default_factory=dict)


class Decision(NamedTuple):
    """What is to be appended, or why nothing is.

    Attributes:
        records: the records.
        error: an error code, `codes.NONE` where there is none.
        message: what is wrong.
    """

    records: list[ApiMessage]
    error: int = codes.NONE
    message: str | None = None


class ClusterState:
    """Topics, configs and producer ids.

    Attributes:
        topics: by their name.
        topics_by_id: the same by their id.
        broker_configs: the configs that were set for the broker while it ran.
        next_producer_id: the first producer id that no block has reserved.
        topics_version: goes on whenever a topic comes, goes or grows.

    Args:
        node_id: the broker's node id, leader of every partition.
    """

    def __init__(self, node_id: int) -> None:
        self.topics: dict[str, Topic] = {}
        self.topics_by_id: dict[bytes, Topic] = {}
        self.broker_configs: dict[str, str] = {}
        self.next_producer_id = 0
        self.topics_version = 0
        self._node_id = node_id

    # -- decisions

    def create_topic(
        self, name: str, topic_id: bytes, partitions: int, configs: dict[str, str]
    ) -> Decision:
        """Decide on a new topic; its configs have been validated."""
        if not is_topic_name(name):
            return Decision([], codes.INVALID_TOPIC_EXCEPTION, f"{name!r} cannot name a topic")
        if name in self.topics:
            return Decision([], codes.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
        twin = self._colliding(name)
        if twin is not None:
            return Decision(
                [],
                codes.INVALID_TOPIC_EXCEPTION,
                f"Topic '{name}' collides with existing topic '{twin}': "
                "'.' and '_' are the same in the names of metrics",
            )
        if not 0 < partitions <= PARTITIONS_MAX:
            return Decision([], codes.INVALID_PARTITIONS, _partitions_message(partitions))
        records: list[ApiMessage] = [TopicRecord(name=name, topic_id=topic_id)]
        records += [self._partition(topic_id, number) for number in range(partitions)]
        records += [
            ConfigRecord(resource_type=TOPIC_RESOURCE, resource_name=name, name=config, value=value)
            for config, value in configs.items()
        ]
        return Decision(records)

    def _colliding(self, name: str) -> str | None:
        if "." not in name and "_" not in name:
            return None
        plain = name.replace(".", "_")
        return next((other for other in self.topics if other.replace(".", "_") == plain), None)

    def _partition(self, topic_id: bytes, number: int) -> PartitionRecord:
        nodes = [self._node_id]
        return PartitionRecord(
            partition_id=number,
            topic_id=topic_id,
            replicas=nodes,
            isr=list(nodes),
            leader=self._node_id,
            leader_epoch=0,
            partition_epoch=0,
        )

    def delete_topic(self, topic: Topic) -> Decision:
        """Decide on the end of a topic."""
        return Decision([RemoveTopicRecord(topic_id=topic.topic_id)])

    def create_partitions(self, topic: Topic, count: int) -> Decision:
        """Decide on a larger number of partitions."""
        if count <= topic.partitions or count > PARTITIONS_MAX:
            return Decision(
                [],
                codes.INVALID_PARTITIONS,
                f"The topic {topic.name} currently has {topic.partitions} partition(s); "
                f"{count} would not be an increase."
                if count <= topic.partitions
                else _partitions_message(count),
            )
        numbers = range(topic.partitions, count)
        return Decision([self._partition(topic.topic_id, number) for number in numbers])

    def set_configs(
        self, resource_type: int, resource_name: str, changes: dict[str, str | None]
    ) -> Decision:
        """Decide on configs that have been validated; None takes one back to its default."""
        return Decision(
            [
                ConfigRecord(
                    resource_type=resource_type, resource_name=resource_name, name=name, value=value
                )
                for name, value in changes.items()
            ]
        )

    def reserve_producer_ids(self) -> Decision:
        """Decide on the next block of producer ids, which begins at `next_producer_id`."""
        return Decision(
            [
                ProducerIdsRecord(
                    broker_id=self._node_id,
                    broker_epoch=0,
                    next_producer_id=self.next_producer_id + PRODUCER_IDS_BLOCK,
                )
            ]
        )

    # -- replay

    def replay(self, record: ApiMessage) -> None:
        """Change the state; the only code that does."""
        if isinstance(record, (TopicRecord, PartitionRecord, RemoveTopicRecord)):
            self.topics_version += 1
        if isinstance(record, TopicRecord):
            topic = Topic(record.name, record.topic_id)
            self.topics[topic.name] = topic
            self.topics_by_id[topic.topic_id] = topic
        elif isinstance(record, PartitionRecord):
            topic = self.topics_by_id[record.topic_id]
            topic.partitions = max(topic.partitions, record.partition_id + 1)
        elif isinstance(record, ConfigRecord):
            self._replay_config(record)
        elif isinstance(record, RemoveTopicRecord):
            topic = self.topics_by_id.pop(record.topic_id)
            del self.topics[topic.name]
        elif isinstance(record, ProducerIdsRecord):
            self.next_producer_id = record.next_producer_id

    def _replay_config(self, record: ConfigRecord) -> None:
        if record.resource_type == TOPIC_RESOURCE:
            configs = self.topics[record.resource_name].configs
        else:
            configs = self.broker_configs
        if record.value is None:
            configs.pop(record.name, None)
        else:
            configs[record.name] = record.value


def _partitions_message(partitions: int) -> str:
    return f"{partitions} partitions: the number must be larger than 0 and at most {PARTITIONS_MAX}"
