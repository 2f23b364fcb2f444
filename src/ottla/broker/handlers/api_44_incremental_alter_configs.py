"""IncrementalAlterConfigs, versions 0-1: change single configs of topics and of the broker.

Each resource is changed as a whole or not at all, at once for everybody, and answered when that is
durable. Of the broker, what gives topics their defaults can be changed while it runs.
Kafka: KIP-339, ConfigurationControlManager, DynamicBrokerConfig.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ottla.broker.configs import (
    default_of,
    is_changeable,
    is_list,
    validate_broker,
    validate_topic,
)
from ottla.broker.durably import answer_durably
from ottla.coordinator.cluster.state import BROKER_RESOURCE, TOPIC_RESOURCE
from ottla.errors import codes
from ottla.protocol.messages.api_44_incremental_alter_configs import (
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply


SET, DELETE, APPEND, SUBTRACT = range(4)
"""Kafka: AlterConfigOp.OpType."""

_Result = IncrementalAlterConfigsResponse.AlterConfigsResourceResponse
_Asked = IncrementalAlterConfigsRequest.AlterConfigsResource
_Change = IncrementalAlterConfigsRequest.AlterableConfig


class _Refused(Exception):
    """One resource cannot be changed so."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def handle(
    engine: Engine, request: IncrementalAlterConfigsRequest, version: int, context: Context
) -> Reply:
    """Change what can be changed."""
    asked_for = Counter((each.resource_type, each.resource_name) for each in request.resources)
    results = []
    for asked in request.resources:
        result = _Result(
            error_message=None,
            resource_type=asked.resource_type,
            resource_name=asked.resource_name,
        )
        results.append(result)
        try:
            if asked_for[asked.resource_type, asked.resource_name] > 1:
                raise _Refused(codes.INVALID_REQUEST, "Each resource must appear at most once.")
            changes = _changes(engine, asked)
        except _Refused as refused:
            result.error_code, result.error_message = refused.code, refused.message
            continue
        if not request.validate_only and changes:
            outcome = engine.apply_config_change(asked.resource_type, asked.resource_name, changes)
            result.error_code, result.error_message = outcome.error, outcome.message
    return answer_durably(
        engine,
        IncrementalAlterConfigsResponse(responses=results),
        results,
        codes.KAFKA_STORAGE_ERROR,
    )


def _changes(engine: Engine, asked: _Asked) -> dict[str, str | None]:
    """Return the new values; None takes a config back to its default."""
    now = _configs_of(engine, asked)
    names = Counter(change.name for change in asked.configs)
    if any(count > 1 for count in names.values()):
        raise _Refused(codes.INVALID_REQUEST, "Error due to duplicate config keys")
    changes: dict[str, str | None] = {}
    for change in asked.configs:
        value = _new_value(change, now)
        if asked.resource_type == TOPIC_RESOURCE:
            problem = validate_topic(change.name, value or default_of(change.name) or "")
        else:
            problem = validate_broker(change.name, value or default_of(change.name) or "")
            if problem is None and not is_changeable(change.name):
                raise _Refused(
                    codes.INVALID_REQUEST,
                    f"Cannot update these configs dynamically: Set({change.name})",
                )
        if problem is not None and (value is not None or "Unknown" in problem):
            raise _Refused(codes.INVALID_CONFIG, problem)
        changes[change.name] = value
    return changes


def _configs_of(engine: Engine, asked: _Asked) -> Mapping[str, str]:
    name = asked.resource_name
    if asked.resource_type == TOPIC_RESOURCE:
        topic = engine.cluster.topics.get(name)
        if topic is None:
            raise _Refused(codes.UNKNOWN_TOPIC_OR_PARTITION, f"There is no topic {name!r}.")
        return topic.configs
    if asked.resource_type == BROKER_RESOURCE:
        if name not in ("", str(engine.node_id)):
            raise _Refused(codes.INVALID_REQUEST, f"There is no broker {name}.")
        return engine.cluster.broker_configs
    raise _Refused(codes.INVALID_REQUEST, f"Resource type {asked.resource_type} cannot be changed.")


def _new_value(change: _Change, now: Mapping[str, str]) -> str | None:
    if change.config_operation == DELETE:
        return None
    if change.value is None:
        raise _Refused(codes.INVALID_REQUEST, f"Null value not supported for: {change.name}")
    if change.config_operation == SET:
        return change.value
    if change.config_operation not in (APPEND, SUBTRACT):
        raise _Refused(codes.INVALID_REQUEST, f"Unknown config operation {change.config_operation}")
    if not is_list(change.name):
        raise _Refused(
            codes.INVALID_CONFIG,
            f"Can't APPEND to or SUBTRACT from {change.name}: its type is not LIST.",
        )
    current = now.get(change.name, default_of(change.name)) or ""
    old = [each for each in current.split(",") if each]
    given = [each for each in change.value.split(",") if each]
    if change.config_operation == APPEND:
        return ",".join([*old, *(each for each in given if each not in old)])
    return ",".join(each for each in old if each not in given)
