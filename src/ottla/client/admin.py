"""The admin client: topics and their configs.

Kafka: KafkaAdminClient.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ottla.client.address import open_network
from ottla.client.cluster import Cluster
from ottla.client.config import ClientConfig, make_config
from ottla.client.driver import Driver
from ottla.client.network import Call
from ottla.clock import SYSTEM
from ottla.errors import BrokerError, Closed, KafkaError, Timeout, broker_error, codes
from ottla.protocol.messages.api_03_metadata import MetadataRequest, MetadataResponse
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
    from types import TracebackType

    from ottla.client.node import Node
    from ottla.protocol.message import ApiMessage

_TOPIC = 2
_SET, _DELETE = 0, 1
_SOURCES = {
    1: "topic",
    2: "broker",
    3: "brokers",
    4: "broker file",
    5: "default",
}
R = TypeVar("R", bound="ApiMessage")


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


class Admin:
    """Creates, lists, describes and deletes topics, and changes their configs.

    Args:
        address: as for `Producer`.
        bootstrap_servers: the same under the name that other clients have for it.
        timeout: seconds that each call may take.
        settings: see `ottla.client.config.ClientConfig`.

    Every method raises `BrokerUnavailable` where no broker can be reached, `Timeout` where there is
    no answer in time, and the `BrokerError` that the broker answers.
    """

    def __init__(
        self,
        address: object = None,
        *,
        bootstrap_servers: object = None,
        timeout: float = 30.0,
        **settings: Any,
    ) -> None:
        config = make_config(ClientConfig, settings)
        given = address if address is not None else bootstrap_servers
        self._clock = SYSTEM
        self._timeout = timeout
        self._config = config
        network = open_network(given, config.client_id, self._clock)
        self._cluster = Cluster(network, config, self._clock, create_topics=False)
        self._driver = Driver(network, self, self._clock)
        self._closed = False

    # -- Work

    def step(self) -> float | None:
        """Do what is due; returns when to look again, on the monotonic clock, or None."""
        return self._cluster.step()

    def has_work(self) -> bool:
        """Tell that nothing goes on when nobody asks."""
        return False

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
        _check(result.error_code, result.error_message, f"topic {name!r} was not created")

    def delete_topic(self, name: str) -> None:
        """Delete a topic with all its records."""
        request = DeleteTopicsRequest(
            topics=[DeleteTopicsRequest.DeleteTopicState(name=name)], timeout_ms=self._timeout_ms
        )
        by_name = DeleteTopicsRequest(topic_names=[name], timeout_ms=self._timeout_ms)
        result = self._ask_controller(request, DeleteTopicsResponse, by_name).responses[0]
        _check(result.error_code, result.error_message, f"topic {name!r} was not deleted")

    def create_partitions(self, name: str, total: int) -> None:
        """Give a topic more partitions, `total` of them."""
        topic = CreatePartitionsRequest.CreatePartitionsTopic(
            name=name, count=total, assignments=None
        )
        request = CreatePartitionsRequest(topics=[topic], timeout_ms=self._timeout_ms)
        result = self._ask_controller(request, CreatePartitionsResponse).results[0]
        _check(result.error_code, result.error_message, f"topic {name!r} was not changed")

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
        _check(topic.error_code, None, f"no topic {name!r}")
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

    def _metadata(self, names: list[str] | None) -> MetadataResponse:
        topics = None
        if names is not None:
            topics = [MetadataRequest.MetadataRequestTopic(name=name) for name in names]
        request = MetadataRequest(topics=topics, allow_auto_topic_creation=False)
        return self._ask(self._cluster.connected_node, request, MetadataResponse)

    # -- configs

    def describe_configs(self, topic: str) -> dict[str, ConfigEntry]:
        """Return all configs of a topic, the defaults included, by name."""
        resource = DescribeConfigsRequest.DescribeConfigsResource(
            resource_type=_TOPIC, resource_name=topic, configuration_keys=None
        )
        request = DescribeConfigsRequest(resources=[resource])
        response = self._ask(self._cluster.connected_node, request, DescribeConfigsResponse)
        result = response.results[0]
        _check(result.error_code, result.error_message, f"no configs of {topic!r}")
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
        _check(result.error_code, result.error_message, f"configs of {topic!r} were not changed")

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
        _check(result.error_code, None, f"records of {topic}/{partition} were not deleted")
        return result.low_watermark

    # -- asking

    @property
    def _timeout_ms(self) -> int:
        return int(self._timeout * 1000)

    def _ask_controller(
        self, request: ApiMessage, response_class: type[R], older: ApiMessage | None = None
    ) -> R:
        def controller() -> Node | None:
            node = self._cluster.nodes.get(self._cluster.controller_id)
            if node is None:
                return self._cluster.connected_node() if self._cluster.cluster_id else None
            return node if node.is_ready() else None

        return self._ask(controller, request, response_class, older)

    def _ask(
        self,
        find_node: Callable[[], Node | None],
        request: ApiMessage,
        response_class: type[R],
        older: ApiMessage | None = None,
    ) -> R:
        """Send a request to a node as soon as there is one, and wait for the answer.

        Args:
            find_node: finds the node.
            request: what is sent.
            response_class: the class of the answer.
            older: what is sent to a node that does not speak the newest version of the request.
        """
        if self._closed:
            raise Closed("the admin client is closed")
        answers: list[R] = []
        errors: list[KafkaError] = []
        deadline = self._clock.monotonic_ms() + self._timeout * 1000

        def done(response: R | None, error: KafkaError | None) -> None:
            if response is not None:
                answers.append(response)
            elif error is not None:
                errors.append(error)

        def left() -> float:
            return (deadline - self._clock.monotonic_ms()) / 1000

        nodes: list[Node] = []

        def found() -> bool:
            node = find_node()
            if node is not None:
                nodes.append(node)
            return node is not None or self._cluster.unreachable is not None

        in_time = self._driver.run_until(found, left())
        if self._cluster.unreachable is not None:
            error = self._cluster.unreachable
            self._cluster.try_again()
            raise error
        if in_time:
            newest = request.SCHEMA.versions[1]
            if older is not None and nodes[-1].best_version(type(request)) < newest:
                request = older
            nodes[-1].send(Call(request, response_class, done))
            in_time = self._driver.run_until(lambda: bool(answers or errors), left())
        if errors:
            raise errors[0]
        if not in_time:
            raise Timeout(
                f"no answer from {self._cluster.address} within {self._timeout:g} s",
                "It is not known whether what was asked for was done.",
            )
        return answers[0]

    # -- the end

    def close(self) -> None:
        """Let go of everything."""
        if not self._closed:
            self._closed = True
            self._driver.close()
            self._cluster.close()

    def __enter__(self) -> Admin:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()


def _check(code: int, message: str | None, what: str) -> None:
    """Raise the broker's error, where there is one."""
    if code != codes.NONE:
        error: BrokerError = broker_error(code, f"{what}: {message}" if message else what)
        raise error
