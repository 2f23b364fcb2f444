"""OffsetForLeaderEpoch, versions 0-4: where a leader epoch ends, to find out what was truncated.

    1   the epoch that the offset belongs to is told
    2   the client's own idea of the current epoch is checked
    3   replica_id
    4   flexible

Kafka: KIP-101, KIP-320, Partition.lastOffsetForLeaderEpoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.errors import codes
from ottla.protocol.messages.api_23_offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
)

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context
    from ottla.log.partition_log import PartitionLog


_Asked = OffsetForLeaderEpochRequest.OffsetForLeaderPartition
_Found = OffsetForLeaderEpochResponse.EpochEndOffset


def handle(
    engine: Engine, request: OffsetForLeaderEpochRequest, version: int, context: Context
) -> OffsetForLeaderEpochResponse:
    """Tell where epochs end."""
    return OffsetForLeaderEpochResponse(
        topics=[
            OffsetForLeaderEpochResponse.OffsetForLeaderTopicResult(
                topic=topic.topic,
                partitions=[_end_of(engine, topic.topic, asked) for asked in topic.partitions],
            )
            for topic in request.topics
        ]
    )


def _end_of(engine: Engine, topic: str, asked: _Asked) -> _Found:
    log = engine.log_of(topic, asked.partition)
    if log is None:
        error, _ = engine.why_not(topic, asked.partition)
        return _Found(partition=asked.partition, error_code=error)
    error = epoch_error(log, asked.current_leader_epoch)
    if error != codes.NONE:
        return _Found(partition=asked.partition, error_code=error)
    epoch, end_offset = log.end_of_epoch(asked.leader_epoch)
    return _Found(partition=asked.partition, leader_epoch=epoch, end_offset=end_offset)


def epoch_error(log: PartitionLog, current_leader_epoch: int) -> int:
    """Compare the leader epoch that a client knows, -1 for none, with the log's.

    Kafka: Partition.checkCurrentLeaderEpoch.
    """
    if current_leader_epoch < 0 or current_leader_epoch == log.leader_epoch:
        return codes.NONE
    if current_leader_epoch < log.leader_epoch:
        return codes.FENCED_LEADER_EPOCH
    return codes.UNKNOWN_LEADER_EPOCH
