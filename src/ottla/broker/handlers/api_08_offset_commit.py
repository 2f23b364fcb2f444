"""OffsetCommit, versions 0-10: note up to where a group has read.

    0   no generation and no member
    1   the client says when the commit was made
    2   the client says for how long it is to be kept, up to version 4
    6   leader epochs
    7   static members (KIP-345)
    9   a group that is not there is told as such
    10  topics by their id

What is answered is stored. Somebody who is no member (generation -1, no member id) may commit for a
group without members, which is made where it does not exist. A partition need not exist, its topic
must.
Kafka: KafkaApis.handleOffsetCommitRequest, OffsetMetadataManager.commitOffset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ottla.coordinator.group.coordinator import Commit, Committer
from ottla.errors import codes
from ottla.protocol.messages.api_08_offset_commit import OffsetCommitRequest, OffsetCommitResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.coordinator.group.coordinator import GroupCoordinator
    from ottla.coordinator.group.decision import Answer, Decision
    from ottla.coordinator.group.timers import Now


_FIRST_VERSION_WITH_IDS = 10

_Partition: TypeAlias = OffsetCommitResponse.OffsetCommitResponsePartition
_Topic: TypeAlias = OffsetCommitRequest.OffsetCommitRequestTopic


def handle(engine: Engine, request: OffsetCommitRequest, version: int, context: Context) -> Reply:
    """Commit what can be committed."""
    response = OffsetCommitResponse()
    partitions: list[_Partition] = []
    commits: list[Commit] = []
    timestamp_ms = -1
    for asked in request.topics:
        told = _known(engine, asked, version, partitions, commits)
        response.topics.append(
            OffsetCommitResponse.OffsetCommitResponseTopic(
                name=asked.name, topic_id=asked.topic_id, partitions=told
            )
        )
        for partition in asked.partitions:
            timestamp_ms = max(timestamp_ms, partition.commit_timestamp)
    if not commits:
        return response

    def refused(error: int) -> OffsetCommitResponse:
        for partition in partitions:
            partition.error_code = partition.error_code or error
        return response

    committer = Committer(
        request.group_id,
        request.member_id,
        request.group_instance_id,
        request.generation_id_or_member_epoch,
        version,
        request.retention_time_ms,
        timestamp_ms,
    )

    def decide(coordinator: GroupCoordinator, answer: Answer, now: Now) -> Decision:
        errors, decision = coordinator.commit(committer, commits, now)
        for partition, error in zip(partitions, errors, strict=True):
            partition.error_code = error
        decision.reply(answer, response, refused)
        return decision

    return engine.groups.ask(request.group_id, decide, refused, creates=True)


def _known(
    engine: Engine,
    asked: _Topic,
    version: int,
    partitions: list[_Partition],
    commits: list[Commit],
) -> list[_Partition]:
    """Add what can be committed of a topic, and return what is told of all its partitions."""
    told = [_Partition(partition_index=each.partition_index) for each in asked.partitions]
    if version >= _FIRST_VERSION_WITH_IDS:
        topic = engine.cluster.topics_by_id.get(asked.topic_id)
        unknown = codes.UNKNOWN_TOPIC_ID
    else:
        topic = engine.cluster.topics.get(asked.name)
        unknown = codes.UNKNOWN_TOPIC_OR_PARTITION
    if topic is None:
        for partition in told:
            partition.error_code = unknown
        return told
    partitions += told
    commits += [
        Commit(
            topic.name,
            topic.topic_id,
            each.partition_index,
            each.committed_offset,
            each.committed_leader_epoch,
            each.committed_metadata,
        )
        for each in asked.partitions
    ]
    return told
