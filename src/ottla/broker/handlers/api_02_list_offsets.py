"""ListOffsets, versions 0-11: offsets by timestamp, and the two ends of a log.

    0   several offsets, the newest first, and no timestamps
    1   one offset with its timestamp
    2   isolation level; without transactions both see the same
    4   leader epochs
    7   -3: the record with the largest timestamp
    8   -4: where the log begins on this broker, which is where it begins at all
    9   -5: the last offset in remote storage, and
    11  -6: the first that is still to be put there; there is none, so -1

Kafka: ReplicaManager.fetchOffset, KIP-79, KIP-734, KIP-405, KIP-1005.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.broker.handlers.api_23_offset_for_leader_epoch import epoch_error
from ottla.errors import StorageError, codes
from ottla.protocol.messages.api_02_list_offsets import ListOffsetsRequest, ListOffsetsResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context
    from ottla.log.partition_log import PartitionLog


LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3
EARLIEST_LOCAL = -4
LATEST_TIERED = -5
EARLIEST_PENDING_UPLOAD = -6

_NEVER = 1 << 15
_FIRST_VERSION = {
    LATEST: 0,
    EARLIEST: 0,
    MAX_TIMESTAMP: 7,
    EARLIEST_LOCAL: 8,
    LATEST_TIERED: 9,
    EARLIEST_PENDING_UPLOAD: 11,
}

_Asked = ListOffsetsRequest.ListOffsetsPartition
_Found = ListOffsetsResponse.ListOffsetsPartitionResponse


def handle(
    engine: Engine, request: ListOffsetsRequest, version: int, context: Context
) -> ListOffsetsResponse:
    """Look up offsets."""
    seen: set[tuple[str, int]] = set()
    topics = []
    for topic in request.topics:
        partitions = []
        for asked in topic.partitions:
            key = (topic.name, asked.partition_index)
            if key in seen:
                partitions.append(_error(asked, codes.INVALID_REQUEST))
            else:
                seen.add(key)
                partitions.append(_look_up(engine, topic.name, asked, version))
        topics.append(
            ListOffsetsResponse.ListOffsetsTopicResponse(name=topic.name, partitions=partitions)
        )
    return ListOffsetsResponse(topics=topics)


def _error(asked: _Asked, error: int) -> _Found:
    return _Found(partition_index=asked.partition_index, error_code=error)


def _look_up(engine: Engine, topic: str, asked: _Asked, version: int) -> _Found:
    log = engine.log_of(topic, asked.partition_index)
    if log is None:
        return _error(asked, engine.why_not(topic, asked.partition_index)[0])
    error = epoch_error(log, asked.current_leader_epoch)
    if asked.timestamp < 0 and version < _FIRST_VERSION.get(asked.timestamp, _NEVER):
        error = codes.UNSUPPORTED_VERSION
    if error != codes.NONE:
        return _error(asked, error)
    try:
        timestamp, offset = _find(log, asked.timestamp)
    except StorageError:
        return _error(asked, codes.KAFKA_STORAGE_ERROR)
    if version == 0:
        return _Found(
            partition_index=asked.partition_index,
            old_style_offsets=_old_style(log, offset, asked),
        )
    return _Found(
        partition_index=asked.partition_index,
        timestamp=timestamp,
        offset=offset,
        leader_epoch=_epoch_at(log, offset) if version >= 4 and offset >= 0 else -1,
    )


def _find(log: PartitionLog, timestamp_ms: int) -> tuple[int, int]:
    """Return (timestamp, offset), each -1 for none."""
    if timestamp_ms == LATEST:
        return -1, log.high_watermark
    if timestamp_ms in (EARLIEST, EARLIEST_LOCAL):
        return -1, log.log_start_offset
    if timestamp_ms == MAX_TIMESTAMP:
        found = log.max_timestamp()
    elif timestamp_ms < 0:
        found = None
    else:
        found = log.offset_at(timestamp_ms)
    return (-1, -1) if found is None else (found.timestamp, found.offset)


def _old_style(log: PartitionLog, offset: int, asked: _Asked) -> list[int]:
    """Return the offset found and the log's first, the larger one first."""
    offsets = {log.log_start_offset, offset if offset >= 0 else log.high_watermark}
    return sorted(offsets, reverse=True)[: max(asked.max_num_offsets, 0)]


def _epoch_at(log: PartitionLog, offset: int) -> int:
    """Return the leader epoch of an offset, the current one at the log's end."""
    for epoch in range(log.leader_epoch):
        found, end_offset = log.end_of_epoch(epoch)
        if found == epoch and offset < end_offset:
            return epoch
    return log.leader_epoch
