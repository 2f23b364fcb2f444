"""The topics that a coordinator has named by their ids.

What is subscribed to by name is known from the metadata that the cluster keeps. Of others the name
is asked for by id, and from then on they are kept up as well. All is asked again and again: what
answers may not have heard yet of what the coordinator knows.

Kafka: ConsumerMetadata, MetadataRequest since version 12 (KIP-516).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.client.membership import FoundTopic
from ottla.client.network import Call
from ottla.errors import KafkaError, codes
from ottla.protocol.messages.api_03_metadata import MetadataRequest, MetadataResponse

if TYPE_CHECKING:
    from ottla.client.cluster import Cluster
    from ottla.client.config import ClientConfig
    from ottla.clock import Clock


class TopicIds:
    """Finds topics by their ids.

    Args:
        cluster: who is asked, and what is told which topics there are.
        config: the client's settings.
        clock: where time comes from.
    """

    def __init__(self, cluster: Cluster, config: ClientConfig, clock: Clock) -> None:
        self._cluster = cluster
        self._config = config
        self._clock = clock
        self._asking = False
        self._next_ask_ms = 0.0

    def find(self, ids: frozenset[bytes]) -> dict[bytes, FoundTopic]:
        """Return what is known of some topics."""
        return {
            info.topic_id: FoundTopic(name, len(info.leaders))
            for name, info in self._cluster.topics.items()
            if info.topic_id in ids
        }

    def ask(self, ids: frozenset[bytes], now: float) -> float | None:
        """Ask for more of topics of which too little is known; returns when to look again."""
        self._cluster.refresh()  # they may have been made anew, or have more partitions by now
        known = {info.topic_id for info in self._cluster.topics.values()}
        missing = ids - known
        return self._ask(missing, now) if missing else None

    def _ask(self, ids: frozenset[bytes], now: float) -> float | None:
        if self._asking:
            return None
        if now < self._next_ask_ms:
            return self._next_ask_ms
        node = self._cluster.connected_node()
        if node is None:
            return None
        self._asking = True
        self._next_ask_ms = now + self._config.retry_backoff_ms
        asked = [MetadataRequest.MetadataRequestTopic(topic_id=key, name=None) for key in ids]
        request = MetadataRequest(topics=asked, allow_auto_topic_creation=False)
        node.send(Call(request, MetadataResponse, self._learn))
        return None

    def _learn(self, response: MetadataResponse | None, error: KafkaError | None) -> None:
        self._asking = False
        for topic in () if response is None else response.topics:
            if topic.error_code == codes.NONE and topic.name:
                self._cluster.want([topic.name])
