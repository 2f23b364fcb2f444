"""A coordinator of the consumer protocol without a broker: a test answers its heartbeats."""

from __future__ import annotations

from typing import Any

from ottla.protocol.messages.api_03_metadata import MetadataRequest, MetadataResponse
from ottla.protocol.messages.api_68_consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)
from tests.client.scripted_group import VERSIONS, GroupScript

INTERVAL_MS = 5000
HEARTBEAT = ConsumerGroupHeartbeatRequest.API_KEY


def id_of(topic: str) -> bytes:
    return topic.encode().ljust(16, b"-")


class ConsumerGroupScript(GroupScript):
    """A consumer's core in a group of the consumer protocol.

    Attributes:
        unheard: ids of topics that no broker has heard of yet.
        again: ids of topics that were made anew, by name.
    """

    def __init__(
        self, *topics: str, heartbeat_versions: tuple[int, int] | None = (0, 1), **how: Any
    ) -> None:
        self.unheard: set[bytes] = set()
        self.again: dict[str, bytes] = {}
        self.versions = dict(VERSIONS)
        if heartbeat_versions is not None:
            self.versions[HEARTBEAT] = heartbeat_versions
        super().__init__(*topics, **how)

    @property
    def asked(self) -> ConsumerGroupHeartbeatRequest:
        """The heartbeat that waits for its answer."""
        request: ConsumerGroupHeartbeatRequest = self.next(ConsumerGroupHeartbeatRequest)
        return request

    @property
    def says_owned(self) -> list[tuple[str, list[int]]] | None:
        """What the heartbeat that waits says is owned, by topic; None where it says nothing."""
        owned = self.asked.topic_partitions
        if owned is None:
            return None
        return [(each.topic_id.decode().rstrip("-"), each.partitions) for each in owned]

    @property
    def is_quiet(self) -> bool:
        return self.waiting == []

    def tell(self, epoch: int, *numbers: int, topic: str = "t", **more: list[int]) -> None:
        """Answer the heartbeat that waits with partitions of a topic, and of others by name."""
        assigned = {topic: list(numbers), **more}
        self.answer(
            ConsumerGroupHeartbeatResponse(
                member_id=self.asked.member_id,
                member_epoch=epoch,
                heartbeat_interval_ms=INTERVAL_MS,
                assignment=ConsumerGroupHeartbeatResponse.Assignment(
                    topic_partitions=[
                        ConsumerGroupHeartbeatResponse.TopicPartitions(
                            topic_id=id_of(name), partitions=partitions
                        )
                        for name, partitions in assigned.items()
                        if partitions
                    ]
                ),
            )
        )

    def stay(self, epoch: int) -> None:
        """Answer the heartbeat that waits, with nothing new but perhaps the epoch."""
        self.answer(
            ConsumerGroupHeartbeatResponse(
                member_id=self.asked.member_id,
                member_epoch=epoch,
                heartbeat_interval_ms=INTERVAL_MS,
            )
        )

    def refuse(self, code: int, message: str | None = None) -> None:
        self.answer(ConsumerGroupHeartbeatResponse(error_code=code, error_message=message))

    def beat(self) -> ConsumerGroupHeartbeatRequest:
        """Let it be time for the next heartbeat."""
        assert self.is_quiet
        self.run(INTERVAL_MS)
        return self.asked

    def enter(self, *numbers: int, epoch: int = 1) -> None:
        """Join, and be assigned partitions."""
        self.poll()
        self.tell(epoch, *numbers)
        self.poll()
        assert self.is_quiet

    def _metadata(self, request: MetadataRequest) -> MetadataResponse:
        for each in request.topics or ():
            if each.name is None and each.topic_id not in self.unheard:
                names = {key: name for name, key in self.again.items()}
                each.name = names.get(each.topic_id) or each.topic_id.decode().rstrip("-")
        unheard = [each for each in request.topics or () if each.name is None]
        request.topics = [each for each in request.topics or () if each.name is not None]
        response = super()._metadata(request)
        for topic in response.topics:
            topic.topic_id = self.again.get(topic.name or "") or id_of(topic.name or "")
        response.topics += [
            MetadataResponse.MetadataResponseTopic(
                name=None, topic_id=each.topic_id, error_code=100
            )
            for each in unheard
        ]
        return response
