"""InitProducerId, versions 0-5: an id for an idempotent producer.

    3   the producer may name the id and epoch that it has; it gets the next epoch of that id
    4   the error code for a fenced producer
    5   nothing for producers without transactions

An id is handed out once it is durably noted that it is taken. Transactions are not served: a
transactional id is answered with UNSUPPORTED_VERSION. Kafka: TransactionCoordinator
.handleInitProducerId, KIP-98, KIP-360.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.broker.requests import Pending
from ottla.errors import StorageError, codes
from ottla.protocol.messages.api_22_init_producer_id import (
    InitProducerIdRequest,
    InitProducerIdResponse,
)

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context


_EPOCH_MAX = 32766
"""The last epoch of an id that is handed out; 32767 is kept for fencing."""


def handle(
    engine: Engine, request: InitProducerIdRequest, version: int, context: Context
) -> InitProducerIdResponse | Pending:
    """Hand out a producer id and epoch."""
    if request.transactional_id is not None:
        empty = not request.transactional_id
        return _refused(codes.INVALID_REQUEST if empty else codes.UNSUPPORTED_VERSION)
    if (request.producer_id < 0) != (request.producer_epoch < 0):
        return _refused(codes.INVALID_REQUEST)
    is_known = 0 <= request.producer_id < engine.cluster.next_producer_id
    if is_known and request.producer_epoch < _EPOCH_MAX:
        return InitProducerIdResponse(
            producer_id=request.producer_id, producer_epoch=request.producer_epoch + 1
        )
    pending = Pending()

    def reserved(producer_id: int, error: StorageError | None) -> None:
        if error is None:
            pending.finish(InitProducerIdResponse(producer_id=producer_id, producer_epoch=0))
        else:
            pending.finish(_refused(codes.KAFKA_STORAGE_ERROR))

    try:
        engine.reserve_producer_id(reserved)
    except StorageError:
        return _refused(codes.KAFKA_STORAGE_ERROR)
    return pending


def _refused(error: int) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=error, producer_id=-1, producer_epoch=-1)
