"""CreateTopics, versions 2-7: create topics, or tell whether they could be.

    2   validate_only since 1
    5   what the topic got: partitions, replication factor, configs
    7   topic ids

Each topic is judged alone, and answered when its creation is durable. There is one broker, so
partitions can be assigned to it alone and a replication factor is 1.
Kafka: ReplicationControlManager.createTopics.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ottla.broker.configs import validate_topic
from ottla.broker.durably import answer_durably
from ottla.errors import codes
from ottla.protocol.message import ZERO_UUID
from ottla.protocol.messages.api_19_create_topics import CreateTopicsRequest, CreateTopicsResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply


_Result = CreateTopicsResponse.CreatableTopicResult
_Topic = CreateTopicsRequest.CreatableTopic


def handle(engine: Engine, request: CreateTopicsRequest, version: int, context: Context) -> Reply:
    """Create what can be created."""
    names = Counter(topic.name for topic in request.topics)
    results = []
    for topic in request.topics:
        if names[topic.name] > 1:
            result = _refused(topic, codes.INVALID_REQUEST, "Duplicate topic name.")
        else:
            result = _create(engine, topic, validate_only=request.validate_only)
        results.append(result)
    return answer_durably(
        engine, CreateTopicsResponse(topics=results), results, codes.KAFKA_STORAGE_ERROR
    )


def _refused(topic: _Topic, error: int, message: str | None) -> _Result:
    return _Result(name=topic.name, error_code=error, error_message=message)


def _create(engine: Engine, topic: _Topic, *, validate_only: bool) -> _Result:
    problem = _problem(engine, topic)
    if problem is not None:
        return _refused(topic, *problem)
    partitions = len(topic.assignments) or topic.num_partitions
    if partitions == -1:
        partitions = engine.configs.num_partitions
    configs = {each.name: each.value for each in topic.configs if each.value is not None}
    outcome = engine.create_topic(topic.name, partitions, configs, validate_only=validate_only)
    if outcome.error != codes.NONE:
        return _refused(topic, outcome.error, outcome.message)
    return _Result(
        name=topic.name,
        topic_id=ZERO_UUID if outcome.topic is None else outcome.topic.topic_id,
        error_message=None,
        num_partitions=partitions,
        replication_factor=1,
        configs=[
            CreateTopicsResponse.CreatableTopicConfigs(
                name=entry.name,
                value=entry.value,
                read_only=entry.is_read_only,
                config_source=entry.source,
            )
            for entry in engine.configs.describe_topic(configs)
        ],
    )


def _problem(engine: Engine, topic: _Topic) -> tuple[int, str] | None:
    if topic.assignments:
        if topic.num_partitions != -1 or topic.replication_factor != -1:
            return codes.INVALID_REQUEST, (
                "A manual partition assignment was specified, but numPartitions or "
                "replicationFactor was not set to -1."
            )
        problem = _assignment_problem(engine, topic)
        if problem is not None:
            return problem
    elif topic.replication_factor not in (-1, 1):
        if topic.replication_factor < 1:
            return codes.INVALID_REPLICATION_FACTOR, (
                "Replication factor must be larger than 0, or -1 to use the default value."
            )
        return codes.INVALID_REPLICATION_FACTOR, (
            f"Unable to replicate the partition {topic.replication_factor} time(s): the target "
            f"replication factor of {topic.replication_factor} cannot be reached because only 1 "
            "broker(s) are registered."
        )
    for config in topic.configs:
        problem_of_config = validate_topic(config.name, config.value)
        if problem_of_config is not None:
            return codes.INVALID_CONFIG, problem_of_config
    return None


def _assignment_problem(engine: Engine, topic: _Topic) -> tuple[int, str] | None:
    numbers = sorted(each.partition_index for each in topic.assignments)
    if numbers != list(range(len(numbers))):
        return codes.INVALID_REPLICA_ASSIGNMENT, (
            "partitions should be a consecutive 0-based integer sequence."
        )
    if any(each.broker_ids != [engine.node_id] for each in topic.assignments):
        return codes.INVALID_REPLICA_ASSIGNMENT, (
            f"The only broker is {engine.node_id}: a partition can be assigned to it alone."
        )
    return None
