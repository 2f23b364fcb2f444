"""CreatePartitions, versions 0-3: give topics more partitions, or tell whether it could be done.

Kafka: ReplicationControlManager.createPartitions.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ottla.broker.durably import answer_durably
from ottla.broker.internal_topics import INTERNAL_TOPICS
from ottla.errors import codes
from ottla.protocol.messages.api_37_create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
)

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply


_Result = CreatePartitionsResponse.CreatePartitionsTopicResult
_Asked = CreatePartitionsRequest.CreatePartitionsTopic


def handle(
    engine: Engine, request: CreatePartitionsRequest, version: int, context: Context
) -> Reply:
    """Add what can be added."""
    names = Counter(topic.name for topic in request.topics)
    results = []
    for asked in request.topics:
        result = _Result(name=asked.name)
        if names[asked.name] > 1:
            result.error_code = codes.INVALID_REQUEST
            result.error_message = "Duplicate topic name."
        else:
            result.error_code, result.error_message = _add(
                engine, asked, validate_only=request.validate_only
            )
        results.append(result)
    return answer_durably(
        engine, CreatePartitionsResponse(results=results), results, codes.KAFKA_STORAGE_ERROR
    )


def _add(engine: Engine, asked: _Asked, *, validate_only: bool) -> tuple[int, str | None]:
    topic = engine.cluster.topics.get(asked.name)
    if topic is None:
        return codes.UNKNOWN_TOPIC_OR_PARTITION, f"There is no topic {asked.name!r}."
    if asked.name in INTERNAL_TOPICS:
        return codes.INVALID_PARTITIONS, (
            f"What is in {asked.name} is found by its number of partitions, which stays what it is."
        )
    if asked.assignments is not None:
        if len(asked.assignments) != asked.count - topic.partitions:
            return codes.INVALID_REPLICA_ASSIGNMENT, (
                f"Attempted to add {asked.count - topic.partitions} additional partition(s), but "
                f"only {len(asked.assignments)} assignment(s) were specified."
            )
        if any(each.broker_ids != [engine.node_id] for each in asked.assignments):
            return codes.INVALID_REPLICA_ASSIGNMENT, (
                f"The only broker is {engine.node_id}: a partition can be assigned to it alone."
            )
    outcome = engine.create_partitions(topic, asked.count, validate_only=validate_only)
    return outcome.error, outcome.message
