"""Which APIs are served, in which versions, and by which handler."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ottla.broker.handlers import (
    api_00_produce,
    api_01_fetch,
    api_02_list_offsets,
    api_03_metadata,
    api_08_offset_commit,
    api_09_offset_fetch,
    api_10_find_coordinator,
    api_11_join_group,
    api_12_heartbeat,
    api_13_leave_group,
    api_14_sync_group,
    api_15_describe_groups,
    api_16_list_groups,
    api_18_api_versions,
    api_19_create_topics,
    api_20_delete_topics,
    api_21_delete_records,
    api_22_init_producer_id,
    api_23_offset_for_leader_epoch,
    api_32_describe_configs,
    api_37_create_partitions,
    api_42_delete_groups,
    api_44_incremental_alter_configs,
    api_47_offset_delete,
    api_60_describe_cluster,
    api_68_consumer_group_heartbeat,
    api_69_consumer_group_describe,
)
from ottla.broker.requests import CloseConnection, Pending
from ottla.protocol.messages.api_00_produce import ProduceRequest, ProduceResponse
from ottla.protocol.messages.api_01_fetch import FetchRequest, FetchResponse
from ottla.protocol.messages.api_02_list_offsets import ListOffsetsRequest, ListOffsetsResponse
from ottla.protocol.messages.api_03_metadata import MetadataRequest, MetadataResponse
from ottla.protocol.messages.api_08_offset_commit import OffsetCommitRequest, OffsetCommitResponse
from ottla.protocol.messages.api_09_offset_fetch import OffsetFetchRequest, OffsetFetchResponse
from ottla.protocol.messages.api_10_find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from ottla.protocol.messages.api_11_join_group import JoinGroupRequest, JoinGroupResponse
from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest, HeartbeatResponse
from ottla.protocol.messages.api_13_leave_group import LeaveGroupRequest, LeaveGroupResponse
from ottla.protocol.messages.api_14_sync_group import SyncGroupRequest, SyncGroupResponse
from ottla.protocol.messages.api_15_describe_groups import (
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from ottla.protocol.messages.api_16_list_groups import ListGroupsRequest, ListGroupsResponse
from ottla.protocol.messages.api_18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from ottla.protocol.messages.api_19_create_topics import CreateTopicsRequest, CreateTopicsResponse
from ottla.protocol.messages.api_20_delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from ottla.protocol.messages.api_21_delete_records import (
    DeleteRecordsRequest,
    DeleteRecordsResponse,
)
from ottla.protocol.messages.api_22_init_producer_id import (
    InitProducerIdRequest,
    InitProducerIdResponse,
)
from ottla.protocol.messages.api_23_offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
)
from ottla.protocol.messages.api_32_describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResponse,
)
from ottla.protocol.messages.api_37_create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
)
from ottla.protocol.messages.api_42_delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from ottla.protocol.messages.api_44_incremental_alter_configs import (
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)
from ottla.protocol.messages.api_47_offset_delete import OffsetDeleteRequest, OffsetDeleteResponse
from ottla.protocol.messages.api_60_describe_cluster import (
    DescribeClusterRequest,
    DescribeClusterResponse,
)
from ottla.protocol.messages.api_68_consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)
from ottla.protocol.messages.api_69_consumer_group_describe import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
)

if TYPE_CHECKING:
    from types import ModuleType

    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.protocol.message import ApiMessage

_LOG = logging.getLogger("ottla.broker")

_APIS: tuple[tuple[type[ApiMessage], type[ApiMessage], ModuleType], ...] = (
    (ProduceRequest, ProduceResponse, api_00_produce),
    (FetchRequest, FetchResponse, api_01_fetch),
    (ListOffsetsRequest, ListOffsetsResponse, api_02_list_offsets),
    (MetadataRequest, MetadataResponse, api_03_metadata),
    (OffsetCommitRequest, OffsetCommitResponse, api_08_offset_commit),
    (OffsetFetchRequest, OffsetFetchResponse, api_09_offset_fetch),
    (FindCoordinatorRequest, FindCoordinatorResponse, api_10_find_coordinator),
    (JoinGroupRequest, JoinGroupResponse, api_11_join_group),
    (HeartbeatRequest, HeartbeatResponse, api_12_heartbeat),
    (LeaveGroupRequest, LeaveGroupResponse, api_13_leave_group),
    (SyncGroupRequest, SyncGroupResponse, api_14_sync_group),
    (DescribeGroupsRequest, DescribeGroupsResponse, api_15_describe_groups),
    (ListGroupsRequest, ListGroupsResponse, api_16_list_groups),
    (ApiVersionsRequest, ApiVersionsResponse, api_18_api_versions),
    (CreateTopicsRequest, CreateTopicsResponse, api_19_create_topics),
    (DeleteTopicsRequest, DeleteTopicsResponse, api_20_delete_topics),
    (DeleteRecordsRequest, DeleteRecordsResponse, api_21_delete_records),
    (InitProducerIdRequest, InitProducerIdResponse, api_22_init_producer_id),
    (OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, api_23_offset_for_leader_epoch),
    (DescribeConfigsRequest, DescribeConfigsResponse, api_32_describe_configs),
    (CreatePartitionsRequest, CreatePartitionsResponse, api_37_create_partitions),
    (DeleteGroupsRequest, DeleteGroupsResponse, api_42_delete_groups),
    (
        IncrementalAlterConfigsRequest,
        IncrementalAlterConfigsResponse,
        api_44_incremental_alter_configs,
    ),
    (OffsetDeleteRequest, OffsetDeleteResponse, api_47_offset_delete),
    (DescribeClusterRequest, DescribeClusterResponse, api_60_describe_cluster),
    (
        ConsumerGroupHeartbeatRequest,
        ConsumerGroupHeartbeatResponse,
        api_68_consumer_group_heartbeat,
    ),
    (ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, api_69_consumer_group_describe),
)


class ApiSupport(NamedTuple):
    """How one API is served.

    Attributes:
        request_class: the class of its requests.
        response_class: the class of its responses.
        min_version: the first version that is served.
        max_version: the last one, inclusive.
        handler: what answers; Any: each takes its own class of requests.
    """

    request_class: type[ApiMessage]
    response_class: type[ApiMessage]
    min_version: int
    max_version: int
    handler: Callable[[Engine, Any, int, Context], Reply]


SUPPORTED: dict[int, ApiSupport] = {
    request.API_KEY: ApiSupport(
        request, response, module.MIN_VERSION, module.MAX_VERSION, module.handle
    )
    for request, response, module in _APIS
}
"""By API key; ApiVersions tells exactly these."""


class Served:
    """How one version of an API is served.

    Attributes:
        version: the version.
        request_class: the class of its requests.
        request_is_flexible: whether the header of the request has tagged fields.
        response_is_flexible: whether that of the response has; never in ApiVersions, whose reader
            may not know yet what the broker understands.
        handler: what answers.
    """

    __slots__ = (
        "handler",
        "request_class",
        "request_is_flexible",
        "response_is_flexible",
        "version",
    )

    def __init__(self, support: ApiSupport, version: int) -> None:
        self.version = version
        self.request_class = support.request_class
        self.request_is_flexible = version >= support.request_class.SCHEMA.flexible
        self.response_is_flexible = (
            version >= support.response_class.SCHEMA.flexible
            and support.response_class is not ApiVersionsResponse
        )
        self.handler = support.handler


SERVED: dict[int, Served] = {
    key << 16 | version: Served(support, version)
    for key, support in SUPPORTED.items()
    for version in range(support.min_version, support.max_version + 1)
}
"""By the first four bytes of a request's header, which are API key and version."""


def handle(engine: Engine, request: ApiMessage, version: int, context: Context) -> Reply:
    """Answer a request; called with `engine.lock` held.

    Raises:
        CloseConnection: there is no other answer.
    """
    served = SERVED.get(request.API_KEY << 16 | version)
    if served is None:
        raise CloseConnection(f"{type(request).__name__} version {version} is not served")
    return answer(engine, served, request, context)


def answer(engine: Engine, served: Served, request: ApiMessage, context: Context) -> Reply:
    """Answer a request of a version that is served; called with `engine.lock` held.

    Raises:
        CloseConnection: there is no other answer.
    """
    try:
        reply = served.handler(engine, request, served.version, context)
    except CloseConnection:
        raise
    except Exception as error:
        name = type(request).__name__
        _LOG.exception("%s version %d could not be answered", name, served.version)
        raise CloseConnection(
            f"the broker failed to answer {name}: {error}",
            "What became of the request is not known.",
        ) from error
    if isinstance(reply, Pending):
        engine.waits.add(reply)
    return reply
