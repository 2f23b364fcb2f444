"""DeleteRecords, versions 0-2: make the first records of partitions unreadable, and remove them.

The new start of a log is durable before it is answered, so that no record comes back after a crash;
the segments that lie wholly before it are removed then.
Kafka: ReplicaManager.deleteRecords.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.broker.internal_topics import INTERNAL_TOPICS
from ottla.broker.requests import Pending
from ottla.errors import DiskFull, codes
from ottla.protocol.messages.api_21_delete_records import (
    DeleteRecordsRequest,
    DeleteRecordsResponse,
)

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.errors import StorageError
    from ottla.log.partition_log import PartitionLog


_ALL = -1
_NONE = -1
_Result = DeleteRecordsResponse.DeleteRecordsPartitionResult


def handle(engine: Engine, request: DeleteRecordsRequest, version: int, context: Context) -> Reply:
    """Move the starts of the logs."""
    response = DeleteRecordsResponse()
    moved: list[tuple[PartitionLog, _Result]] = []
    for topic in request.topics:
        results = []
        for each in topic.partitions:
            result = _Result(partition_index=each.partition_index, low_watermark=_NONE)
            results.append(result)
            if topic.name in INTERNAL_TOPICS:
                result.error_code = codes.INVALID_TOPIC_EXCEPTION
                continue
            log = engine.log_of(topic.name, each.partition_index)
            if log is None:
                result.error_code = engine.why_not(topic.name, each.partition_index)[0]
                continue
            offset = log.high_watermark if each.offset == _ALL else each.offset
            if not 0 <= offset <= log.high_watermark:
                result.error_code = codes.OFFSET_OUT_OF_RANGE
                continue
            log.move_start(offset)
            result.low_watermark = log.log_start_offset
            moved.append((log, result))
        response.topics.append(
            DeleteRecordsResponse.DeleteRecordsTopicResult(name=topic.name, partitions=results)
        )
    return _answer_durably(engine, response, moved) if moved else response


def _answer_durably(
    engine: Engine, response: DeleteRecordsResponse, moved: list[tuple[PartitionLog, _Result]]
) -> Pending:
    pending = Pending()
    was_full = False

    def noted(error: StorageError | None) -> None:
        nonlocal was_full
        if isinstance(error, DiskFull) and not was_full:
            # Once more, also where the disk was known to be full: the look for room holds what is
            # left of it for a moment, and looks again only a second later.
            was_full = True
            engine.note_full(error)
            engine.commit.add_job(engine.store.note_log_starts(), noted)
            return
        for log, result in moved:
            if error is None:
                engine.remove_old_segments(log)
            else:
                result.error_code = codes.KAFKA_STORAGE_ERROR
                result.low_watermark = _NONE
        pending.finish(response)

    engine.commit.add_job(engine.store.note_log_starts(), noted)
    return pending
