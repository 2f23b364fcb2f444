"""Metadata, versions 0-13: the broker, and topics with their partitions.

    0   no topics means all of them
    1   None means all of them, no topics means none; controller and internal topics are told
    2   cluster id
    4   the client says whether a topic may be made for it
    5   offline replicas
    7   leader epochs; -1, "not known", of a partition whose log nobody has used since the start
    8   authorized operations, of the cluster up to version 10
    10  topic ids
    12  topics may be asked by their id alone
    13  an error code for the whole response

A topic that is missing is made, where client and config allow it, and answered with a leader at
once: the response leaves when the topic is stored. The broker's address is the one that the client
connected to, unless one was set; so a broker that listens everywhere can be reached by all.
Kafka: KafkaApis.handleTopicMetadataRequest, AutoTopicCreationManager.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.broker.engine import METADATA_TOPIC
from ottla.broker.internal_topics import INTERNAL_TOPICS
from ottla.broker.requests import Pending
from ottla.coordinator.cluster.state import is_topic_name
from ottla.errors import StorageError, codes
from ottla.protocol.message import ZERO_UUID
from ottla.protocol.messages.api_03_metadata import MetadataRequest, MetadataResponse

_UNKNOWN_EPOCH = -1

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context
    from ottla.coordinator.cluster.state import Topic


TOPIC_OPERATIONS = 0xDF8
"""What may be done with a topic where nothing is forbidden, as bits. Kafka: AclEntry."""

CLUSTER_OPERATIONS = 0x1FA0
"""What may be done with the cluster where nothing is forbidden, as bits."""

_NOT_MADE_FOR_CLIENTS = (METADATA_TOPIC, *INTERNAL_TOPICS)
_NO_OPERATIONS = -(1 << 31)

_Topic = MetadataResponse.MetadataResponseTopic
_Partition = MetadataResponse.MetadataResponsePartition


def handle(
    engine: Engine, request: MetadataRequest, version: int, context: Context
) -> MetadataResponse | Pending:
    """Tell what the cluster looks like."""
    made, failed = _make_missing(engine, request)
    pending = Pending()

    def answer(error: StorageError | None) -> None:
        if error is not None:
            failed.update(dict.fromkeys(made, codes.KAFKA_STORAGE_ERROR))
        pending.finish(_response(engine, request, version, context, failed))

    engine.metadata.when_stored(answer)
    response = pending.response
    return response if isinstance(response, MetadataResponse) else pending


def _make_missing(engine: Engine, request: MetadataRequest) -> tuple[list[str], dict[str, int]]:
    """Make the topics that are missing.

    Returns:
        Those that were made, and the error codes of those that could not be.
    """
    made: list[str] = []
    failed: dict[str, int] = {}
    if not (request.allow_auto_topic_creation and engine.configs.auto_create_topics_enable):
        return made, failed
    for topic in request.topics or ():
        name = topic.name
        if (
            name
            and topic.topic_id == ZERO_UUID
            and name not in engine.cluster.topics
            and name not in _NOT_MADE_FOR_CLIENTS
        ):
            error = engine.create_topic(name, engine.configs.num_partitions, {}).error
            if error == codes.NONE:
                made.append(name)
            else:
                failed[name] = error
    return made, failed


def _response(
    engine: Engine,
    request: MetadataRequest,
    version: int,
    context: Context,
    failed: dict[str, int],
) -> MetadataResponse:
    host, port = engine.advertised or (context.host, context.port)
    if request.topics is None or (version == 0 and not request.topics):
        topics = [_known(engine, topic) for topic in engine.cluster.topics.values()]
    else:
        asked = {(topic.topic_id, topic.name): None for topic in request.topics}
        topics = [_asked(engine, *which, version, failed) for which in asked]
    if request.include_topic_authorized_operations:
        for topic in topics:
            if topic.error_code == codes.NONE:
                topic.topic_authorized_operations = TOPIC_OPERATIONS
    with_operations = request.include_cluster_authorized_operations
    return MetadataResponse(
        brokers=[
            MetadataResponse.MetadataResponseBroker(node_id=engine.node_id, host=host, port=port)
        ],
        cluster_id=engine.cluster_id,
        controller_id=engine.node_id,
        topics=topics,
        cluster_authorized_operations=CLUSTER_OPERATIONS if with_operations else _NO_OPERATIONS,
    )


def _asked(
    engine: Engine, topic_id: bytes, name: str | None, version: int, failed: dict[str, int]
) -> _Topic:
    if topic_id != ZERO_UUID:
        topic = engine.cluster.topics_by_id.get(topic_id)
        if topic is not None:
            return _known(engine, topic)
        no_name = None if version >= 12 else ""
        return _Topic(error_code=codes.UNKNOWN_TOPIC_ID, topic_id=topic_id, name=no_name)
    name = name or ""
    if name in failed:
        return _Topic(error_code=failed[name], name=name)
    topic = engine.cluster.topics.get(name)
    if topic is not None:
        return _known(engine, topic)
    if not is_topic_name(name):
        return _Topic(error_code=codes.INVALID_TOPIC_EXCEPTION, name=name)
    return _Topic(error_code=codes.UNKNOWN_TOPIC_OR_PARTITION, name=name)


def _known(engine: Engine, topic: Topic) -> _Topic:
    return _Topic(
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=topic.name in INTERNAL_TOPICS,
        partitions=[_partition(engine, topic, number) for number in range(topic.partitions)],
    )


def _partition(engine: Engine, topic: Topic, number: int) -> _Partition:
    node_id = engine.node_id
    if engine.is_offline(topic.name, number):
        return _Partition(
            error_code=codes.LEADER_NOT_AVAILABLE,
            partition_index=number,
            leader_id=-1,
            replica_nodes=[node_id],
            offline_replicas=[node_id],
        )
    log = engine.store.logs.get((topic.name, number))
    return _Partition(
        partition_index=number,
        leader_id=node_id,
        leader_epoch=_UNKNOWN_EPOCH if log is None else log.leader_epoch,
        replica_nodes=[node_id],
        isr_nodes=[node_id],
    )
