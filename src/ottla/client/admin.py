"""The admin client: topics and their configs, and what `admin_groups` adds of groups.

Kafka: KafkaAdminClient.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ottla.client.admin_core import check
from ottla.client.admin_groups import GroupAdmin
from ottla.protocol.messages.api_19_create_topics import CreateTopicsRequest, CreateTopicsResponse
from ottla.protocol.messages.api_20_delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from ottla.protocol.messages.api_21_delete_records import (
    DeleteRecordsRequest,
    DeleteRecordsResponse,
)
from ottla.protocol.messages.api_32_describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResponse,
)
from ottla.protocol.messages.api_37_create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
)
from ottla.protocol.messages.api_44_incremental_alter_configs import (
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)

if TYPE_CHECKING:
    from ottla.client.node import Node

_TOPIC = 2
_SET, _DELETE = 0, 1
_SOURCES = {
    1: "topic",
    2: "broker",
    3: "brokers",
    4: "broker file",
    5: "default",
}


class ConfigEntry(NamedTuple):
    """One config of a topic.

    Attributes:
        name: its name.
        value: its value; None where it is sensitive or has none.
        source: where the value comes from: "topic", "broker", "brokers", "broker file", "default".
        is_read_only: whether it cannot be changed.
    """

    name: str
    value: str | None
    source: str
    is_read_only: bool


class PartitionDescription(NamedTuple):
    """One partition of a topic.

    Attributes:
        partition: its number.
        leader: the leader's node id, or -1.
        leader_epoch: the leader's epoch, or -1.
        replicas: node ids.
        isr: node ids of the replicas that are in sync.
    """

    partition: int
    leader: int
    leader_epoch: int
    replicas: list[int]
    isr: list[int]


class TopicDescription(NamedTuple):
    """A topic.

    Attributes:
        name: its name.
        topic_id: its id.
        is_internal: whether the broker made it for itself.
        partitions: its partitions in order.
    """

    name: str
    topic_id: uuid.UUID
    is_internal: bool
    partitions: list[PartitionDescription]


class Admin(GroupAdmin):
    """Creates, lists, describes and deletes topics, and changes their configs; looks after groups.

    Args:
        address: as for `Producer`.
        bootstrap_servers: the same under the name that other clients have for it.
        timeout: seconds that each call may take.
        settings: see `ottla.client.config.ClientConfig`.

    Every method raises `BrokerUnavailable` where no broker can be reached, `Timeout` where there is
    no answer in time, and the `BrokerError` that the broker answers.
    """

    # -- topics

    def create_topic(
        self,
        name: str,
        partitions: int = -1,
        *,
        replication_factor: int = -1,
        configs: Mapping[str, str] | None = None,
        validate_only: bool = False,
    ) -> None:
        """Create a topic.

        Args:
            name: its name.
            partitions: how many; -1 for the broker's `num.partitions`.
            replication_factor: how many replicas; -1 for the broker's default.
            configs: its configs.
            validate_only: check everything and create nothing.

        Raises:
            TopicAlreadyExists: there is one.
        """
        topic = CreateTopicsRequest.CreatableTopic(
            name=name,
            num_partitions=partitions,
            replication_factor=replication_factor,
            configs=[
                CreateTopicsRequest.CreatableTopicConfig(name=key, value=str(value))
                for key, value in (configs or {}).items()
            ],
        )
        request = CreateTopicsRequest(
            topics=[topic], timeout_ms=self._timeout_ms, validate_only=validate_only
        )
        response = self._ask_controller(request, CreateTopicsResponse)
        result = response.topics[0]
        check(result.error_code, result.error_message, f"topic {name!r} was not created")

    def delete_topic(self, name: str) -> None:
        """Delete a topic with all its records."""
        request = DeleteTopicsRequest(
            topics=[DeleteTopicsRequest.DeleteTopicState(name=name)], timeout_ms=self._timeout_ms
        )
        by_name = DeleteTopicsRequest(topic_names=[name], timeout_ms=self._timeout_ms)
        result = self._ask_controller(request, DeleteTopicsResponse, by_name).responses[0]
        check(result.error_code, result.error_message, f"topic {name!r} was not deleted")

    def create_partitions(self, name: str, total: int) -> None:
        """Give a topic more partitions, `total` of them."""
        topic = CreatePartitionsRequest.CreatePartitionsTopic(
            name=name, count=total, assignments=None
        )
        request = CreatePartitionsRequest(topics=[topic], timeout_ms=self._timeout_ms)
        result = self._ask_controller(request, CreatePartitionsResponse).results[0]
        check(result.error_code, result.error_message, f"topic {name!r} was not changed")

    def list_topics(self, *, internal: bool = False) -> list[str]:
        """Return the names of all topics, sorted; the broker's own too where `internal` says so."""
        response = self._metadata(None)
        return sorted(
            topic.name or "" for topic in response.topics if internal or not topic.is_internal
        )

    def describe_topic(self, name: str) -> TopicDescription:
        """Return a topic's partitions.

        Raises:
            UnknownTopicOrPartition: there is no such topic.
        """
        topic = self._metadata([name]).topics[0]
        check(topic.error_code, None, f"no topic {name!r}")
        partitions = [
            PartitionDescription(
                each.partition_index,
                each.leader_id,
                each.leader_epoch,
                each.replica_nodes,
                each.isr_nodes,
            )
            for each in sorted(topic.partitions, key=lambda each: each.partition_index)
        ]
        topic_id = uuid.UUID(bytes=bytes(topic.topic_id))
        return TopicDescription(name, topic_id, topic.is_internal, partitions)

    # -- configs

    def describe_configs(self, topic: str) -> dict[str, ConfigEntry]:
        """Return all configs of a topic, the defaults included, by name."""
        resource = DescribeConfigsRequest.DescribeConfigsResource(
            resource_type=_TOPIC, resource_name=topic, configuration_keys=None
        )
        request = DescribeConfigsRequest(resources=[resource])
        response = self._ask(self._cluster.connected_node, request, DescribeConfigsResponse)
        result = response.results[0]
        check(result.error_code, result.error_message, f"no configs of {topic!r}")
        return {
            each.name: ConfigEntry(
                each.name,
                each.value,
                _SOURCES.get(each.config_source, "unknown"),
                each.read_only,
            )
            for each in result.configs
        }

    def alter_configs(self, topic: str, changes: Mapping[str, str | None]) -> None:
        """Change configs of a topic; None takes one back to its default.

        Kafka: KIP-339, IncrementalAlterConfigs.
        """
        resource = IncrementalAlterConfigsRequest.AlterConfigsResource(
            resource_type=_TOPIC,
            resource_name=topic,
            configs=[
                IncrementalAlterConfigsRequest.AlterableConfig(
                    name=name,
                    config_operation=_DELETE if value is None else _SET,
                    value=None if value is None else str(value),
                )
                for name, value in changes.items()
            ],
        )
        request = IncrementalAlterConfigsRequest(resources=[resource])
        result = self._ask_controller(request, IncrementalAlterConfigsResponse).responses[0]
        check(result.error_code, result.error_message, f"configs of {topic!r} were not changed")

    # -- records

    def delete_records(self, topic: str, partition: int, before_offset: int) -> int:
        """Delete the records of a partition before an offset; -1 for all that can be read.

        Returns:
            The partition's new first offset.
        """
        where = DeleteRecordsRequest.DeleteRecordsPartition(
            partition_index=partition, offset=before_offset
        )
        request = DeleteRecordsRequest(
            topics=[DeleteRecordsRequest.DeleteRecordsTopic(name=topic, partitions=[where])],
            timeout_ms=self._timeout_ms,
        )
        self._cluster.want([topic])

        def leader() -> Node | None:
            node = self._cluster.leader_of(topic, partition)
            return node if node is not None and node.is_ready() else None

        result = self._ask(leader, request, DeleteRecordsResponse).topics[0].partitions[0]
        check(result.error_code, None, f"records of {topic}/{partition} were not deleted")
        return result.low_watermark
