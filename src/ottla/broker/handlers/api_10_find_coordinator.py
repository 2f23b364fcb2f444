"""FindCoordinator, versions 0-6: which broker coordinates a group or a transaction.

    1   transactions
    4   several keys at once
    6   share groups

There is one broker, and it is the one. It coordinates groups; transactions not yet: the APIs that a
client goes on with are not advertised, so it learns that from ApiVersions.
Kafka: KafkaApis.getCoordinator, KIP-699.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.errors import codes
from ottla.protocol.messages.api_10_find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply


_FIRST_VERSION_OF_SEVERAL = 4
_GROUP, _TRANSACTION = 0, 1


def handle(
    engine: Engine, request: FindCoordinatorRequest, version: int, context: Context
) -> Reply:
    """Tell where the coordinator is: here."""
    host, port = engine.advertised or (context.host, context.port)
    is_known = request.key_type in (_GROUP, _TRANSACTION)
    error = codes.NONE if is_known else codes.INVALID_REQUEST
    message = None if is_known else f"There are no coordinators of type {request.key_type}."
    node_id = engine.node_id if is_known else -1
    if not is_known:
        host, port = "", -1
    if version < _FIRST_VERSION_OF_SEVERAL:
        return FindCoordinatorResponse(
            error_code=error, error_message=message, node_id=node_id, host=host, port=port
        )
    coordinators = [
        FindCoordinatorResponse.Coordinator(
            key=key,
            node_id=node_id,
            host=host,
            port=port,
            error_code=error,
            error_message=message,
        )
        for key in request.coordinator_keys
    ]
    return FindCoordinatorResponse(coordinators=coordinators)
