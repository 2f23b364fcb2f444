"""Markers: the control records that end a transaction in a partition.

    key    version 2, type 2 (0 abort, 1 commit)
    value  version 2, coordinator epoch 4

Kafka: ControlRecordType, EndTransactionMarker.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from ottla.records.batch import iterate_records

if TYPE_CHECKING:
    from ottla.records.batch import BatchHeader
    from ottla.wire import Buffer

_ABORT, _COMMIT = 0, 1
_KEY = struct.Struct(">hh")
_VALUE = struct.Struct(">hi")


class Marker(NamedTuple):
    """What a marker says.

    Attributes:
        is_abort: whether what the transaction wrote does not count; else it does.
        coordinator_epoch: the epoch of the coordinator that wrote it.
    """

    is_abort: bool
    coordinator_epoch: int


def read_marker(batch: Buffer, header: BatchHeader) -> Marker | None:
    """Return the marker in a control batch; None where it holds another kind of control record.

    Raises:
        CorruptRecords: the batch's record cannot be read.
    """
    for record in iterate_records(batch, header):
        key, value = record.key, record.value
        if key is None or len(key) < _KEY.size or value is None or len(value) < _VALUE.size:
            return None
        kind = _KEY.unpack_from(key)[1]
        if kind not in (_ABORT, _COMMIT):
            return None
        return Marker(kind == _ABORT, _VALUE.unpack_from(value)[1])
    return None
