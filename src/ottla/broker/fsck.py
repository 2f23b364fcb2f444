"""The check of a store, with what the metadata says of its topics: `ottla fsck`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.broker.configs import Configs
from ottla.broker.engine import METADATA_TOPIC, METADATA_TOPIC_ID
from ottla.coordinator.cluster.records import MetadataCodec
from ottla.coordinator.cluster.state import ClusterState
from ottla.log.fsck.findings import Metadata, TopicFacts, Topics
from ottla.log.fsck.store import check_store
from ottla.protocol.messages.metadata_records import RemoveTopicRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ottla.log.files import Files
    from ottla.log.fsck.findings import Report
    from ottla.records.record import Record


def check(
    files: Files, path: str, *, repair: bool = False, settings: Mapping[str, str] | None = None
) -> Report:
    """Check a store that no broker has open; see `ottla.log.fsck`.

    Args:
        files: where it is.
        path: its folder.
        repair: whether to repair what can be repaired.
        settings: the broker configs that it is served with: some are defaults of topics.

    Raises:
        StoreInUse: a process has it open.
        StoreUnusable: it is no store.
        StorageError: a repair failed; what was repaired until then is, and nothing is worse.
        ConfigError: a setting has a value that cannot be.
    """
    given = settings or {}
    Configs(ClusterState(0), given, {})  # a bad setting is told before anything is read

    def learn(records: Iterable[Record]) -> Topics:
        cluster = ClusterState(0)
        removed: dict[bytes, str] = {}
        codec = MetadataCodec()
        for each in records:
            record = codec.decode(each.key, each.value)
            if isinstance(record, RemoveTopicRecord):
                removed[record.topic_id] = cluster.topics_by_id[record.topic_id].name
            cluster.replay(record)
        configs = Configs(cluster, given, {})
        topics = {
            name: TopicFacts(
                topic.topic_id, topic.partitions, configs.topic_config(topic).log_config
            )
            for name, topic in cluster.topics.items()
        }
        return Topics(topics, removed)

    return check_store(
        files, path, Metadata(METADATA_TOPIC, METADATA_TOPIC_ID, learn), repair=repair
    )
