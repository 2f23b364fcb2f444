"""DescribeConfigs, versions 1-4: the configs of topics and of the broker, with their sources.

    1   sources and synonyms
    3   types; documentation, which is never told

Kafka: ConfigHelper.describeConfigs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.broker.configs import LIST_TYPE, STATIC_SOURCE, Entry, Synonym
from ottla.coordinator.cluster.state import BROKER_RESOURCE, TOPIC_RESOURCE, is_topic_name
from ottla.errors import codes
from ottla.protocol.messages.api_32_describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResponse,
)

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply


_Asked = DescribeConfigsRequest.DescribeConfigsResource
_Result = DescribeConfigsResponse.DescribeConfigsResult


def handle(
    engine: Engine, request: DescribeConfigsRequest, version: int, context: Context
) -> Reply:
    """Tell what was asked for."""
    return DescribeConfigsResponse(
        results=[
            _describe(engine, asked, context, synonyms=request.include_synonyms)
            for asked in request.resources
        ]
    )


def _describe(engine: Engine, asked: _Asked, context: Context, *, synonyms: bool) -> _Result:
    result = _Result(
        error_message=None,
        resource_type=asked.resource_type,
        resource_name=asked.resource_name,
    )
    found = _entries(engine, asked, context)
    if isinstance(found, tuple):
        result.error_code, result.error_message = found
        return result
    wanted = asked.configuration_keys
    result.configs = [
        _config(entry, synonyms=synonyms)
        for entry in found
        if wanted is None or entry.name in wanted
    ]
    return result


def _entries(engine: Engine, asked: _Asked, context: Context) -> list[Entry] | tuple[int, str]:
    name = asked.resource_name
    if asked.resource_type == TOPIC_RESOURCE:
        topic = engine.cluster.topics.get(name)
        if topic is not None:
            return engine.configs.describe_topic(topic.configs)
        if not is_topic_name(name):
            return codes.INVALID_TOPIC_EXCEPTION, f"{name!r} cannot name a topic"
        return codes.UNKNOWN_TOPIC_OR_PARTITION, f"There is no topic {name!r}."
    if asked.resource_type == BROKER_RESOURCE:
        if name == "":
            return engine.configs.describe_brokers()
        if name == str(engine.node_id):
            return [*engine.configs.describe_broker(), *_advertised(engine, context)]
        return codes.INVALID_REQUEST, (
            f"Unexpected broker id, expected {engine.node_id} or empty string, but received {name}"
        )
    return codes.INVALID_REQUEST, f"Unsupported resource type: {asked.resource_type}"


def _advertised(engine: Engine, context: Context) -> list[Entry]:
    """Tell the address that this client is told, which is the one that it came to as a rule."""
    host, port = engine.advertised or (context.host, context.port)
    if not host:
        return []
    shown = f"[{host}]" if ":" in host else host
    synonym = Synonym("advertised.listeners", f"PLAINTEXT://{shown}:{port}", STATIC_SOURCE)
    return [Entry(synonym.name, synonym.value, synonym.source, LIST_TYPE, True, [synonym])]


def _config(
    entry: Entry, *, synonyms: bool
) -> DescribeConfigsResponse.DescribeConfigsResourceResult:
    told = [
        DescribeConfigsResponse.DescribeConfigsSynonym(
            name=each.name, value=each.value, source=each.source
        )
        for each in entry.synonyms
        if synonyms
    ]
    return DescribeConfigsResponse.DescribeConfigsResourceResult(
        name=entry.name,
        value=entry.value,
        read_only=entry.is_read_only,
        config_source=entry.source,
        synonyms=told,
        config_type=entry.type,
        documentation=None,
    )
