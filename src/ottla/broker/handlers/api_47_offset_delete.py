"""OffsetDelete, version 0: delete what a group has committed for some partitions.

What its members read cannot be deleted, nor anything of a group of which that is not known.
Kafka: KafkaApis.handleOffsetDeleteRequest, OffsetMetadataManager.deleteOffsets, KIP-496.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ottla.errors import codes
from ottla.protocol.messages.api_47_offset_delete import OffsetDeleteRequest, OffsetDeleteResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.coordinator.group.coordinator import GroupCoordinator
    from ottla.coordinator.group.decision import Answer, Decision
    from ottla.coordinator.group.timers import Now


_Partition: TypeAlias = OffsetDeleteResponse.OffsetDeleteResponsePartition
_Topic: TypeAlias = OffsetDeleteResponse.OffsetDeleteResponseTopic


def handle(engine: Engine, request: OffsetDeleteRequest, version: int, context: Context) -> Reply:
    """Delete what can be deleted."""
    response = OffsetDeleteResponse()
    asked: list[tuple[str, int]] = []
    told: list[_Partition] = []
    for topic in request.topics:
        partitions = [_Partition(partition_index=each.partition_index) for each in topic.partitions]
        response.topics.append(_Topic(name=topic.name, partitions=partitions))
        if topic.name in engine.cluster.topics:
            asked += [(topic.name, each.partition_index) for each in partitions]
            told += partitions
        else:
            for partition in partitions:
                partition.error_code = codes.UNKNOWN_TOPIC_OR_PARTITION

    def decide(coordinator: GroupCoordinator, answer: Answer, now: Now) -> Decision:
        error, errors, decision = coordinator.delete_offsets(request.group_id, asked)
        for partition, each in zip(told, errors, strict=False):
            partition.error_code = each
        decision.reply(answer, response if error == codes.NONE else _refused(error), _refused)
        return decision

    return engine.groups.ask(request.group_id, decide, _refused)


def _refused(error: int) -> OffsetDeleteResponse:
    return OffsetDeleteResponse(error_code=error)
