"""DeleteTopics, versions 1-6: delete topics with all their records.

    5   error messages
    6   by topic id

A topic is gone for everybody at once, and answered when that is durable.
Kafka: ControllerApis.deleteTopics, ReplicationControlManager.deleteTopics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.broker.durably import answer_durably
from ottla.broker.engine import METADATA_TOPIC
from ottla.errors import codes
from ottla.protocol.message import ZERO_UUID
from ottla.protocol.messages.api_20_delete_topics import DeleteTopicsRequest, DeleteTopicsResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply


_BY_ID_VERSION = 6
_Result = DeleteTopicsResponse.DeletableTopicResult
_Asked = DeleteTopicsRequest.DeleteTopicState


def handle(engine: Engine, request: DeleteTopicsRequest, version: int, context: Context) -> Reply:
    """Delete what can be deleted."""
    asked = request.topics
    if version < _BY_ID_VERSION:
        asked = [_Asked(name=name) for name in request.topic_names]
    results = [_delete(engine, each) for each in asked]
    return answer_durably(
        engine, DeleteTopicsResponse(responses=results), results, codes.KAFKA_STORAGE_ERROR
    )


def _delete(engine: Engine, asked: _Asked) -> _Result:
    result = _Result(name=asked.name, topic_id=asked.topic_id)
    if asked.name is not None and asked.topic_id != ZERO_UUID:
        result.error_code = codes.INVALID_REQUEST
        result.error_message = "You may not specify both topic name and topic id."
        return result
    if not engine.configs.delete_topic_enable:
        result.error_code = codes.TOPIC_DELETION_DISABLED
        result.error_message = "delete.topic.enable is false."
        return result
    if asked.name is None:
        topic = engine.cluster.topics_by_id.get(bytes(asked.topic_id))
        missing = codes.UNKNOWN_TOPIC_ID
    else:
        topic = engine.cluster.topics.get(asked.name)
        missing = codes.UNKNOWN_TOPIC_OR_PARTITION
    if topic is None or topic.name == METADATA_TOPIC:
        result.error_code = missing
        result.error_message = "This server does not host this topic."
        return result
    result.name, result.topic_id = topic.name, topic.topic_id
    outcome = engine.delete_topic(topic)
    result.error_code, result.error_message = outcome.error, outcome.message
    return result
