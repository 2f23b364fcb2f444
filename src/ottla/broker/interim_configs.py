"""Interim: a few configs with their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ottla.log.config import LogConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ottla.coordinator.cluster.state import ClusterState, Topic


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """Interim."""

    max_message_bytes: int = 1048588
    compression_type: str = "producer"
    message_timestamp_type: str = "CreateTime"
    message_timestamp_before_max_ms: int = (1 << 63) - 1
    message_timestamp_after_max_ms: int = 3600000
    cleanup_policy: frozenset[str] = frozenset({"delete"})
    log_config: LogConfig = field(default_factory=LogConfig)


class Configs:
    """Interim."""

    def __init__(self, cluster: ClusterState, settings: Mapping[str, str]) -> None:
        self.auto_create_topics_enable = True
        self.num_partitions = 1
        self.fetch_max_bytes = 57671680
        self.socket_request_max_bytes = 104857600
        self.connections_max_idle_ms = 600000
        self._durable = settings.get("ottla.durability", "disk") == "disk"

    def topic_config(self, topic: Topic) -> TopicConfig:
        """Interim."""
        return TopicConfig(log_config=LogConfig(durable=self._durable))
