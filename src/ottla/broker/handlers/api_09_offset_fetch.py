"""OffsetFetch, versions 0-10: up to where groups have read.

    2   None means all topics; an error code for the whole response
    5   leader epochs
    7   offsets that a transaction may still change are refused, where that is wanted (KIP-447)
    8   several groups at once
    9   member and epoch, of groups of the consumer protocol; others are not asked for it
    10  topics by their id

What was never committed is -1, which is no error; so is what a group has that is not there.
Kafka: KafkaApis.handleOffsetFetchRequest, OffsetMetadataManager.fetchOffsets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ottla.broker.groups import merged
from ottla.coordinator.group.decision import Decision
from ottla.errors import codes
from ottla.protocol.message import ZERO_UUID
from ottla.protocol.messages.api_09_offset_fetch import OffsetFetchRequest, OffsetFetchResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.coordinator.group.coordinator import GroupCoordinator
    from ottla.coordinator.group.decision import Answer
    from ottla.coordinator.group.timers import Now
    from ottla.protocol.message import ApiMessage


_FIRST_VERSION_WITH_ERROR = 2
_FIRST_VERSION_OF_SEVERAL = 8
_FIRST_VERSION_WITH_IDS = 10
_NO_OFFSET = -1

_AskedGroup: TypeAlias = OffsetFetchRequest.OffsetFetchRequestGroup
_AskedTopic: TypeAlias = OffsetFetchRequest.OffsetFetchRequestTopics
_Group: TypeAlias = OffsetFetchResponse.OffsetFetchResponseGroup
_Topic: TypeAlias = OffsetFetchResponse.OffsetFetchResponseTopics
_Partition: TypeAlias = OffsetFetchResponse.OffsetFetchResponsePartitions


def handle(engine: Engine, request: OffsetFetchRequest, version: int, context: Context) -> Reply:
    """Tell what was committed."""
    groups = request.groups
    if version < _FIRST_VERSION_OF_SEVERAL:
        groups = [_AskedGroup(group_id=request.group_id, topics=_as_later(request.topics))]
    fetch = _Fetch(engine, version, stable=request.require_stable)
    replies = [fetch.ask(group) for group in groups]

    def merge(responses: list[ApiMessage]) -> OffsetFetchResponse:
        found: list[_Group] = []
        for response in responses:
            assert isinstance(response, OffsetFetchResponse)
            found += response.groups
        if version < _FIRST_VERSION_OF_SEVERAL:
            return _as_earlier(found[0], groups[0], version)
        return OffsetFetchResponse(groups=found)

    return merged(replies, merge)


def _as_later(
    topics: list[OffsetFetchRequest.OffsetFetchRequestTopic] | None,
) -> list[_AskedTopic] | None:
    if topics is None:
        return None
    return [
        _AskedTopic(name=each.name, partition_indexes=each.partition_indexes) for each in topics
    ]


class _Fetch:
    """One request.

    Args:
        engine: the broker.
        version: the request's.
        stable: refuse what a transaction may still change.
    """

    def __init__(self, engine: Engine, version: int, *, stable: bool) -> None:
        self._engine = engine
        self._by_id = version >= _FIRST_VERSION_WITH_IDS
        self._stable = stable

    def ask(self, group: _AskedGroup) -> Reply:
        """Ask for one group's offsets."""

        def refused(error: int) -> OffsetFetchResponse:
            return OffsetFetchResponse(groups=[_Group(group_id=group.group_id, error_code=error)])

        def decide(coordinator: GroupCoordinator, answer: Answer, now: Now) -> Decision:
            known = coordinator.groups.get(group.group_id)
            error = codes.NONE
            if known is not None:
                error = known.check_fetch(group.member_id, group.member_epoch)
            if error != codes.NONE:
                decision = Decision(waits=True)
                decision.reply(answer, refused(error), refused)
                return decision
            if group.topics is None:
                topics = self._all(coordinator, group.group_id)
            else:
                topics = [self._topic(coordinator, group.group_id, each) for each in group.topics]
            found = _Group(group_id=group.group_id, topics=topics)
            decision = Decision(waits=True)
            decision.reply(answer, OffsetFetchResponse(groups=[found]), refused)
            return decision

        return self._engine.groups.ask(group.group_id, decide, refused)

    def _all(self, coordinator: GroupCoordinator, group_id: str) -> list[_Topic]:
        topics = []
        for name, partitions in coordinator.offsets.committed.of_group(group_id).items():
            topic = self._engine.cluster.topics.get(name)
            topic_id = ZERO_UUID if topic is None else topic.topic_id
            if self._by_id and topic is None:
                continue
            found = [self._partition(coordinator, group_id, name, each) for each in partitions]
            topics.append(_Topic(name=name, topic_id=topic_id, partitions=found))
        return topics

    def _topic(self, coordinator: GroupCoordinator, group_id: str, asked: _AskedTopic) -> _Topic:
        name = asked.name
        if self._by_id:
            topic = self._engine.cluster.topics_by_id.get(asked.topic_id)
            if topic is None:
                unknown = [
                    _nothing(each, codes.UNKNOWN_TOPIC_ID) for each in asked.partition_indexes
                ]
                return _Topic(topic_id=asked.topic_id, partitions=unknown)
            name = topic.name
        found = [
            self._partition(coordinator, group_id, name, each) for each in asked.partition_indexes
        ]
        return _Topic(name=name, topic_id=asked.topic_id, partitions=found)

    def _partition(
        self, coordinator: GroupCoordinator, group_id: str, topic: str, partition: int
    ) -> _Partition:
        found = coordinator.fetch(group_id, topic, partition, stable=self._stable)
        if found is None or isinstance(found, int):
            return _nothing(partition, found or codes.NONE)
        return _Partition(
            partition_index=partition,
            committed_offset=found.offset,
            committed_leader_epoch=found.leader_epoch,
            metadata=found.metadata,
        )


def _nothing(partition: int, error: int) -> _Partition:
    return _Partition(
        partition_index=partition, committed_offset=_NO_OFFSET, metadata="", error_code=error
    )


def _as_earlier(found: _Group, asked: _AskedGroup, version: int) -> OffsetFetchResponse:
    """Make a response of one group, whose error the first versions tell with each partition."""
    topics = found.topics
    if found.error_code != codes.NONE and version < _FIRST_VERSION_WITH_ERROR:
        topics = [
            _Topic(
                name=each.name,
                partitions=[_nothing(index, found.error_code) for index in each.partition_indexes],
            )
            for each in asked.topics or ()
        ]
    return OffsetFetchResponse(
        error_code=found.error_code,
        topics=[
            OffsetFetchResponse.OffsetFetchResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetFetchResponse.OffsetFetchResponsePartition(
                        partition_index=each.partition_index,
                        committed_offset=each.committed_offset,
                        committed_leader_epoch=each.committed_leader_epoch,
                        metadata=each.metadata,
                        error_code=each.error_code,
                    )
                    for each in topic.partitions
                ],
            )
            for topic in topics
        ],
    )
