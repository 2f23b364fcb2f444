"""Committed offsets, and those that wait for the end of a transaction.

An offset that was committed in a transaction becomes visible with the transaction's marker, and
then only where no plain commit stands later in the log.

Kafka: OffsetMetadataManager, OffsetAndMetadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ottla.protocol.message import ZERO_UUID
from ottla.protocol.messages.group_records import OffsetCommitValue

NO_EXPIRY = -1
"""Stands for "expires by the broker's rules"."""

NO_PRODUCER = -1


class CommittedOffset(NamedTuple):
    """One committed offset.

    Attributes:
        offset: the next offset to be read.
        leader_epoch: of the record before it, or -1.
        metadata: whatever the client noted with it.
        commit_timestamp_ms: when it was committed.
        expire_timestamp_ms: when it expires, where the client said so, or `NO_EXPIRY`.
        topic_id: the topic's id; zeros where it was not noted.
        record_offset: where its record stands in the log.
    """

    offset: int
    leader_epoch: int
    metadata: str
    commit_timestamp_ms: int
    expire_timestamp_ms: int
    topic_id: bytes = ZERO_UUID
    record_offset: int = -1

    @classmethod
    def from_value(cls, value: OffsetCommitValue, record_offset: int) -> CommittedOffset:
        """Make it of its record."""
        return cls(
            value.offset,
            value.leader_epoch,
            value.metadata,
            value.commit_timestamp,
            value.expire_timestamp,
            value.topic_id,
            record_offset,
        )

    def to_value(self) -> OffsetCommitValue:
        """Make its record."""
        return OffsetCommitValue(
            offset=self.offset,
            leader_epoch=self.leader_epoch,
            metadata=self.metadata,
            commit_timestamp=self.commit_timestamp_ms,
            expire_timestamp=self.expire_timestamp_ms,
            topic_id=self.topic_id,
        )


TopicOffsets = dict[str, dict[int, CommittedOffset]]
"""The offsets of one group, by topic and partition."""


class OffsetsByGroup:
    """Offsets by group, topic and partition; what is empty is not kept."""

    def __init__(self) -> None:
        self._groups: dict[str, TopicOffsets] = {}

    def of_group(self, group_id: str) -> TopicOffsets:
        """Return what a group has; not to be changed."""
        return self._groups.get(group_id, {})

    def group_ids(self) -> Iterator[str]:
        """Return the groups that have any."""
        return iter(self._groups)

    def get(self, group_id: str, topic: str, partition: int) -> CommittedOffset | None:
        """Return one offset, or None."""
        return self.of_group(group_id).get(topic, {}).get(partition)

    def put(self, group_id: str, topic: str, partition: int, offset: CommittedOffset) -> None:
        """Keep one."""
        topics = self._groups.setdefault(group_id, {})
        topics.setdefault(topic, {})[partition] = offset

    def remove(self, group_id: str, topic: str, partition: int) -> None:
        """Forget one."""
        topics = self._groups.get(group_id, {})
        partitions = topics.get(topic, {})
        partitions.pop(partition, None)
        if not partitions:
            topics.pop(topic, None)
        if not topics:
            self._groups.pop(group_id, None)


class Offsets:
    """All offsets of a shard.

    Attributes:
        committed: what is fetched.
    """

    def __init__(self) -> None:
        self.committed = OffsetsByGroup()
        self._pending: dict[int, OffsetsByGroup] = {}
        self._producers: dict[str, set[int]] = {}

    # -- what is asked

    def has_open_transaction(self, group_id: str) -> bool:
        """Tell whether some transaction has offsets of a group, and has not ended."""
        return group_id in self._producers

    def is_pending(self, group_id: str, topic: str, partition: int) -> bool:
        """Tell whether some transaction may still change an offset."""
        return any(
            self._pending[producer].get(group_id, topic, partition) is not None
            for producer in self._producers.get(group_id, ())
        )

    def all_of(self, group_id: str) -> list[tuple[str, int]]:
        """Return topic and partition of every offset of a group, the pending ones too."""
        found: dict[tuple[str, int], None] = {}
        stores = [self.committed]
        stores += [self._pending[producer] for producer in self._producers.get(group_id, ())]
        for store in stores:
            for topic, partitions in store.of_group(group_id).items():
                found.update(dict.fromkeys((topic, partition) for partition in partitions))
        return list(found)

    # -- replay

    def replay(
        self,
        group_id: str,
        topic: str,
        partition: int,
        committed: CommittedOffset | None,
        producer_id: int,
    ) -> None:
        """Take note of a commit; None: there is none any more, be it plain or pending."""
        if committed is None:
            self.committed.remove(group_id, topic, partition)
            for producer in self._producers.get(group_id, ()):
                self._pending[producer].remove(group_id, topic, partition)
        elif producer_id == NO_PRODUCER:
            self.committed.put(group_id, topic, partition, committed)
        else:
            pending = self._pending.setdefault(producer_id, OffsetsByGroup())
            pending.put(group_id, topic, partition, committed)
            self._producers.setdefault(group_id, set()).add(producer_id)

    def replay_end_of_transaction(self, producer_id: int, *, is_commit: bool) -> None:
        """Take note that a transaction has ended."""
        pending = self._pending.pop(producer_id, None)
        if pending is None:
            return
        for group_id in [each for each in self._producers if producer_id in self._producers[each]]:
            self._producers[group_id].discard(producer_id)
            if not self._producers[group_id]:
                del self._producers[group_id]
        if not is_commit:
            return
        for group_id in pending.group_ids():
            for topic, partitions in pending.of_group(group_id).items():
                for partition, committed in partitions.items():
                    known = self.committed.get(group_id, topic, partition)
                    if known is None or committed.record_offset > known.record_offset:
                        self.committed.put(group_id, topic, partition, committed)
