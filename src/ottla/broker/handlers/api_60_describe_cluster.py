"""DescribeCluster, versions 0-2: the brokers, of which there is one.

    1   brokers or controllers; asking for controllers is refused, as there are no others
    2   fenced brokers; there are none

Kafka: KafkaApis.handleDescribeCluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.errors import codes
from ottla.protocol.messages.api_60_describe_cluster import (
    DescribeClusterRequest,
    DescribeClusterResponse,
)

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply


_BROKERS = 1


def handle(
    engine: Engine, request: DescribeClusterRequest, version: int, context: Context
) -> Reply:
    """Tell who there is."""
    if request.endpoint_type != _BROKERS:
        return DescribeClusterResponse(
            error_code=codes.MISMATCHED_ENDPOINT_TYPE,
            error_message="The request was sent to an endpoint of type BROKER, but we wanted an "
            "endpoint of type CONTROLLER",
            endpoint_type=_BROKERS,
        )
    host, port = engine.advertised or (context.host, context.port)
    broker = DescribeClusterResponse.DescribeClusterBroker(
        broker_id=engine.node_id, host=host, port=port
    )
    return DescribeClusterResponse(
        error_message=None,
        endpoint_type=_BROKERS,
        cluster_id=engine.cluster_id,
        controller_id=engine.node_id,
        brokers=[broker],
    )
