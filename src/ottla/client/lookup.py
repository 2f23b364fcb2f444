"""Asks for offsets: the first, the last, or the first at or after a time.

A lookup asks the leaders of its partitions, asks again what was refused for now, and is done when
all have answered.

Kafka: OffsetsRequestManager, ListOffsetsRequest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ottla.client.network import Call
from ottla.errors import KafkaError, broker_error, codes
from ottla.protocol.messages.api_02_list_offsets import ListOffsetsRequest, ListOffsetsResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ottla.client.cluster import Cluster
    from ottla.client.node import Node
    from ottla.clock import Clock

EARLIEST = -2
LATEST = -1
UNKNOWN_TOPIC_MS = 5000.0
"""How long a topic may be unknown to the broker before it counts as not there."""


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


class Lookup:
    """One question about some partitions.

    Attributes:
        found: the offsets so far; -1 where no record is at or after the time.
        error: why there will be no answer, or None.

    Args:
        cluster: who leads the partitions.
        clock: where time comes from.
        wanted: `EARLIEST`, `LATEST` or milliseconds since 1970, by partition.
        isolation_level: 0 for read_uncommitted, 1 for read_committed.
        retry_backoff_ms: how long to wait before something is asked again.
    """

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        wanted: Mapping[TopicPartition, int],
        isolation_level: int,
        retry_backoff_ms: float,
    ) -> None:
        self.found: dict[TopicPartition, int] = {}
        self.error: KafkaError | None = None
        self._cluster = cluster
        self._clock = clock
        self._wanted = dict(wanted)
        self._isolation_level = isolation_level
        self._retry_backoff_ms = retry_backoff_ms
        self._asked: set[TopicPartition] = set()
        self._next_ms = 0.0

    @property
    def is_done(self) -> bool:
        """Whether all answers are there, or none will be."""
        return self.error is not None or not self._wanted

    def step(self, now: float) -> float | None:
        """Ask what is to be asked; returns when to look again, or None."""
        if now < self._next_ms:
            return self._next_ms
        leaders: dict[Node, list[TopicPartition]] = {}
        for wanted in self._wanted.keys() - self._asked:
            node = self._cluster.leader_of(*wanted)
            problem = self._cluster.problem_of(node) or problem_of_topic(
                self._cluster, self._clock, wanted
            )
            if problem is not None:
                self.error = problem
                return None
            if node is None:
                self._cluster.want([wanted.topic])
                self._cluster.refresh()
            else:
                leaders.setdefault(node, []).append(wanted)
        for node, partitions in leaders.items():
            if node.is_ready():  # asked once: whoever asks may find that the connection is gone
                self._ask(node, partitions)
        return None

    def _ask(self, node: Node, partitions: list[TopicPartition]) -> None:
        topics: dict[str, ListOffsetsRequest.ListOffsetsTopic] = {}
        for topic, partition in partitions:
            asked = topics.setdefault(topic, ListOffsetsRequest.ListOffsetsTopic(name=topic))
            timestamp = self._wanted[TopicPartition(topic, partition)]
            asked.partitions.append(
                ListOffsetsRequest.ListOffsetsPartition(
                    partition_index=partition, timestamp=timestamp
                )
            )
        self._asked.update(partitions)
        request = ListOffsetsRequest(
            replica_id=-1, isolation_level=self._isolation_level, topics=list(topics.values())
        )

        def answered(response: ListOffsetsResponse | None, error: KafkaError | None) -> None:
            self._asked.difference_update(partitions)
            if response is None:
                self._try_later()
                if error is not None and not isinstance(error, ConnectionError):
                    self.error = error
                return
            for topic in response.topics:
                for each in topic.partitions:
                    self._learn(TopicPartition(topic.name, each.partition_index), each)

        node.send(Call(request, ListOffsetsResponse, answered))

    def _learn(
        self,
        where: TopicPartition,
        answer: ListOffsetsResponse.ListOffsetsPartitionResponse,
    ) -> None:
        if answer.error_code == codes.NONE:
            self.found[where] = answer.offset
            self._wanted.pop(where, None)
            return
        error = broker_error(
            answer.error_code, f"no offset of {where.topic!r}, partition {where.partition}"
        )
        if error.retriable:
            self._try_later()
        else:
            self.error = error

    def _try_later(self) -> None:
        self._cluster.refresh()
        self._next_ms = self._clock.monotonic_ms() + self._retry_backoff_ms


def problem_of_topic(cluster: Cluster, clock: Clock, where: TopicPartition) -> KafkaError | None:
    """Return why a partition cannot be read, where that will not pass by itself."""
    info = cluster.topics.get(where.topic)
    if info is None:
        return None
    if info.error == codes.NONE:
        if info.leaders and where.partition >= len(info.leaders):
            return broker_error(
                codes.UNKNOWN_TOPIC_OR_PARTITION,
                f"topic {where.topic!r} has {len(info.leaders)} partitions: there is no partition "
                f"{where.partition}",
            )
        return None
    late = clock.monotonic_ms() - info.error_since_ms >= UNKNOWN_TOPIC_MS
    if info.error == codes.UNKNOWN_TOPIC_OR_PARTITION:
        error = broker_error(
            info.error,
            f"there is no topic {where.topic!r}",
            "Nothing was read.",
            (f"Create it:  ottla topics create {where.topic}",),
        )
    else:
        error = broker_error(info.error, f"topic {where.topic!r} cannot be read")
    return error if late or not error.retriable else None
