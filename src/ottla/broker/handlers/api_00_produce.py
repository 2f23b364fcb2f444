"""Produce, versions 0-13: append record batches.

    0-2   older than batches of magic 2: every partition is refused with INVALID_RECORD. They are
          listed all the same, because librdkafka before 2.11 does not compress otherwise
    3     transactional id
    5     log_start_offset
    7     zstd
    8     which records of a batch are wrong, and why
    10    who leads instead; never told, as there is only one broker
    12    partitions join a transaction implicitly; there are no transactions
    13    topics by their id

Every partition is judged alone. acks=1 and acks=all both wait until the high watermark has passed
the batch, so what is confirmed is as durable as its topic wants it; a batch that was sent before is
confirmed when its first copy is stored. acks=0 is not answered; where it fails the connection is
closed, so that the client looks for the reason.
Kafka: KafkaApis.handleProduceRequest, ReplicaManager.appendRecords, KAFKA-18659.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from ottla.broker.appending import answer_usual, append
from ottla.broker.batches import Refused
from ottla.broker.requests import CloseConnection, Pending
from ottla.errors import StorageError, codes
from ottla.protocol.messages.api_00_produce import ProduceRequest, ProduceResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context
    from ottla.coordinator.cluster.state import Topic
    from ottla.log.partition_log import PartitionLog

__all__ = ["answer_usual", "handle", "refusal"]

_FIRST_USABLE_VERSION = 3
_FIRST_VERSION_WITH_IDS = 13
_NO_OFFSET = -1

_Topic: TypeAlias = ProduceResponse.TopicProduceResponse
_Partition: TypeAlias = ProduceResponse.PartitionProduceResponse
_NOT_TOLD = ProduceResponse.LeaderIdAndEpoch()
_Written: TypeAlias = tuple["PartitionLog", int, _Partition]
"""What was appended: where, up to which offset (exclusive), and what is to be answered."""


def handle(
    engine: Engine, request: ProduceRequest, version: int, context: Context
) -> ProduceResponse | Pending | None:
    """Append what can be appended."""
    refused = _refused(request, version)
    by_id = version >= _FIRST_VERSION_WITH_IDS
    responses = []
    written: list[_Written] = []
    for data in request.topic_data:
        if by_id:
            topic = engine.cluster.topics_by_id.get(data.topic_id)
        else:
            topic = engine.cluster.topics.get(data.name)
        partitions = []
        for asked in data.partition_data:
            partition = _Partition(
                index=asked.index, base_offset=_NO_OFFSET, current_leader=_NOT_TOLD
            )
            partitions.append(partition)
            try:
                if refused is not None:
                    raise refused
                if topic is None:
                    raise _unknown(engine, data, asked.index)
                appended = append(engine, topic, asked.index, asked.records, version)
                partition.base_offset = appended.base_offset
                partition.log_start_offset = appended.log.log_start_offset
                partition.log_append_time_ms = appended.log_append_time_ms
                written.append((appended.log, appended.end_offset, partition))
            except Refused as reason:
                _tell(partition, reason)
            except StorageError as error:
                _tell(partition, Refused(codes.KAFKA_STORAGE_ERROR, str(error)))
        responses.append(
            _Topic(name=data.name, topic_id=data.topic_id, partition_responses=partitions)
        )
    response = ProduceResponse(responses=responses)
    if context.events is not None and written:
        context.note("accepted", engine.clock)
    if request.acks == 0:
        _close_on_error(response)
        return None
    return _when_stored(engine, request, response, written, context)


def _refused(request: ProduceRequest, version: int) -> Refused | None:
    """Return why nothing in a request can be appended, or None."""
    if request.acks not in (-1, 0, 1):
        return Refused(
            codes.INVALID_REQUIRED_ACKS, f"acks={request.acks}: only -1 (all), 0 and 1 are known"
        )
    if version < _FIRST_USABLE_VERSION:
        return Refused(codes.INVALID_RECORD, "only batches of magic 2 are stored")
    if request.transactional_id is not None:
        return Refused(codes.INVALID_TXN_STATE, "this broker has no transactions")
    return None


def _unknown(engine: Engine, data: ProduceRequest.TopicProduceData, partition: int) -> Refused:
    if data.name:
        return Refused(*engine.why_not(data.name, partition))
    return Refused(codes.UNKNOWN_TOPIC_ID, "There is no topic with this id.")


def _tell(partition: _Partition, refused: Refused) -> None:
    partition.error_code = refused.error
    partition.base_offset = _NO_OFFSET
    partition.log_append_time_ms = -1
    partition.error_message = refused.message
    partition.record_errors = [
        ProduceResponse.BatchIndexAndErrorMessage(
            batch_index=index, batch_index_error_message=message
        )
        for index, message in refused.records
    ]


def refusal(topic: Topic, index: int, refused: Refused) -> ProduceResponse:
    """Return the response that says of the only partition of a request why it is not stored."""
    partition = _Partition(index=index, current_leader=_NOT_TOLD)
    _tell(partition, refused)
    told = _Topic(name=topic.name, topic_id=topic.topic_id, partition_responses=[partition])
    return ProduceResponse(responses=[told])


def _close_on_error(response: ProduceResponse) -> None:
    for topic in response.responses:
        for partition in topic.partition_responses:
            if partition.error_code != codes.NONE:
                raise CloseConnection(
                    f"records with acks=0 for {topic.name}-{partition.index} were refused: "
                    f"{partition.error_message} (error code {partition.error_code})",
                    "They are not stored.",
                )


def _when_stored(
    engine: Engine,
    request: ProduceRequest,
    response: ProduceResponse,
    written: list[_Written],
    context: Context,
) -> ProduceResponse | Pending:
    """Answer when everything that was written is stored, or can no longer be, or time is over."""
    unstored = [each for each in written if each[0].high_watermark < each[1]]
    if not unstored:
        if context.events is not None:
            _note_stored(engine, written, context)
        return response
    left = dict(enumerate(unstored))

    def expire() -> None:
        for _, _, partition in left.values():
            message = f"the records were not stored within {request.timeout_ms} ms"
            _tell(partition, Refused(codes.REQUEST_TIMED_OUT, message))
        left.clear()
        pending.finish(response)

    def stored(index: int, error: StorageError | None) -> None:
        if left.pop(index, None) is None:
            return
        if error is not None:
            refused = Refused(codes.KAFKA_STORAGE_ERROR, str(error))
            _tell(unstored[index][2], refused)
        if not left:
            _note_stored(engine, written, context)
            pending.finish(response)

    deadline_ms = engine.clock.monotonic_ms() + max(request.timeout_ms, 0)
    pending = Pending(deadline_ms, expire)
    for index, (log, end_offset, _) in enumerate(unstored):
        log.when_stored(end_offset, partial(stored, index))
    return pending


def _note_stored(engine: Engine, written: list[_Written], context: Context) -> None:
    """Note that all was stored, where its topic wants more than having it written."""
    if context.events is None or not written:
        return
    if any(partition.error_code for _, _, partition in written):
        return
    if all(log.config.durable for log, _, _ in written):
        context.note("stored", engine.clock)
    context.note("available", engine.clock)
