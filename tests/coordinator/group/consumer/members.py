"""A shard with topics, and members of the consumer protocol that ask it."""

from __future__ import annotations

from typing import Any

from ottla.coordinator.cluster.state import ClusterState
from ottla.coordinator.group.consumer.group import ConsumerGroup, Member
from ottla.coordinator.group.consumer.records import by_topic
from ottla.errors import codes
from ottla.protocol.messages.api_68_consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)
from ottla.protocol.messages.metadata_records import RemoveTopicRecord
from tests.coordinator.group.shards import Asked, Shard

SESSION_MS = 45_000
REBALANCE_MS = 60_000


class ConsumerShard(Shard):
    """A shard whose group "g" is one of the consumer protocol."""

    # -- topics

    def create(self, name: str, partitions: int = 1) -> bytes:
        """Make a topic, and return its id."""
        topic_id = len(self.cluster.topics_by_id).to_bytes(8, "big") + name.encode()[:8].ljust(8)
        for record in self.cluster.create_topic(name, topic_id, partitions, {}).records:
            self.cluster.replay(record)
        return topic_id

    def grow(self, name: str, partitions: int) -> None:
        topic = self.cluster.topics[name]
        for record in self.cluster.create_partitions(topic, partitions).records:
            self.cluster.replay(record)

    def delete(self, name: str) -> None:
        self.cluster.replay(RemoveTopicRecord(topic_id=self.cluster.topics[name].topic_id))

    # -- what is known

    def consumers(self, group_id: str = "g") -> ConsumerGroup:
        group = self.coordinator.groups[group_id]
        assert isinstance(group, ConsumerGroup)
        return group

    def member(self, member_id: str) -> Member:
        return self.consumers().members[member_id]

    def assigned(self, member_id: str) -> dict[str, list[int]]:
        """Return what a member is to have, by the topics' names."""
        found = by_topic(self.member(member_id).assigned)
        return {self.cluster.topics_by_id[key].name: value for key, value in found.items()}

    def known(self, group_id: str = "g") -> object:
        group = self.coordinator.groups.get(group_id)
        if not isinstance(group, ConsumerGroup):
            return super().known(group_id)
        return (
            self.coordinator.offsets.committed.of_group(group_id),
            group.group_epoch,
            group.metadata_hash,
            group.assignment_epoch,
            group.members,
            group.instances,
            group.target,
            group.owners,
            group.regexes,
        )

    # -- requests

    def beat(self, member_id: str, epoch: int, **fields: Any) -> ConsumerGroupHeartbeatResponse:
        """Send a heartbeat; `owned` are partitions by their topics' ids."""
        asked = Asked()
        owned = fields.pop("owned", None)
        topics = None
        if owned is not None:
            topics = [
                ConsumerGroupHeartbeatRequest.TopicPartitions(topic_id=key, partitions=list(value))
                for key, value in owned.items()
            ]
        request = ConsumerGroupHeartbeatRequest(
            group_id=fields.pop("group_id", "g"),
            member_id=member_id,
            member_epoch=epoch,
            topic_partitions=topics,
            **fields,
        )
        asker = self._asker(asked, 1)
        self.do(self.coordinator.consumers.heartbeat(request, asker, self.now))
        response: ConsumerGroupHeartbeatResponse = asked.response
        return response

    def enter(self, member_id: str, *topics: str, **fields: Any) -> ConsumerGroupHeartbeatResponse:
        """Join, subscribed to topics."""
        fields.setdefault("rebalance_timeout_ms", REBALANCE_MS)
        if "subscribed_topic_regex" not in fields:
            fields["subscribed_topic_names"] = list(topics or ("t",))
        return self.beat(member_id, 0, owned={}, **fields)


def told(response: ConsumerGroupHeartbeatResponse) -> dict[bytes, list[int]] | None:
    """Return what a member is told to have; None: nothing new."""
    assert response.error_code == codes.NONE, response.error_message
    if response.assignment is None:
        return None
    return {each.topic_id: each.partitions for each in response.assignment.topic_partitions}


class Client:
    """A member that does as it is told.

    Attributes:
        is_unsure: whether an answer was lost; then it says all that it is, and is told all.
    """

    def __init__(self, shard: ConsumerShard, member_id: str, **fields: Any) -> None:
        self.shard = shard
        self.member_id = member_id
        self.epoch = 0
        self.owned: dict[bytes, list[int]] = {}
        self.fields: dict[str, Any] = {"subscribed_topic_names": ["t"], **fields}
        self.is_unsure = False

    @property
    def partitions(self) -> set[tuple[bytes, int]]:
        return {(key, index) for key, value in self.owned.items() for index in value}

    def join(self) -> int:
        """Join with nothing; returns the error code."""
        self.owned = {}
        return self._take(self.shard.enter(self.member_id, **self.fields))

    def beat(self, **fields: Any) -> int:
        """Say what it has, and do what it is told; returns the error code."""
        if self.epoch == 0:
            return self.join()
        if self.is_unsure:
            fields = {**self.fields, "rebalance_timeout_ms": REBALANCE_MS, **fields}
        return self._take(self.shard.beat(self.member_id, self.epoch, owned=self.owned, **fields))

    def _take(self, response: ConsumerGroupHeartbeatResponse) -> int:
        if response.error_code in (codes.FENCED_MEMBER_EPOCH, codes.UNKNOWN_MEMBER_ID):
            self.epoch, self.owned = 0, {}
        if response.error_code == codes.NONE:
            self.epoch = response.member_epoch
            self.is_unsure = False
            assignment = told(response)
            if assignment is not None:
                self.owned = assignment
        return response.error_code


def settle(*clients: Client) -> None:
    """Let members send heartbeats until nothing is left to be done."""
    for _ in range(20):
        before = [(each.epoch, each.partitions) for each in clients]
        for each in clients:
            assert each.beat() == codes.NONE
        if before == [(each.epoch, each.partitions) for each in clients]:
            return
    raise AssertionError("the members come to no end")


def shard_of(*topics: tuple[str, int], **settings: Any) -> ConsumerShard:
    """Return a shard with topics."""
    shard = ConsumerShard(cluster=ClusterState(1), **settings)
    for name, partitions in topics:
        shard.create(name, partitions)
    return shard
