"""The timestamps of the first records that a group has not committed yet.

One record of each partition is wanted, so little is asked of each, and a partition is let go as
soon as it has given one. What was committed may be gone by now: the first record after it counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from ottla.client.lookup import TopicPartition
from ottla.clock import SYSTEM
from ottla.errors import CorruptRecords

_PARTITION_BYTES = 16 * 1024
_POLL_S = 1.0
_NO_TIMESTAMP = -1


def first_timestamps(
    address: object,
    positions: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    timeout_s: float,
) -> dict[TopicPartition, int]:
    """Return the timestamps of the first records at or after some positions.

    Args:
        address: as for `Consumer`.
        positions: where to look.
        ends: where each partition ends, exclusive.
        timeout_s: after so many seconds what is found is enough.

    Returns:
        Milliseconds since 1970; a partition is left out where there is no such record, or where
        it has no timestamp or cannot be read.
    """
    from ottla.client.consumer import Consumer

    found: dict[TopicPartition, int] = {}
    left = set(positions)
    if not left:
        return found
    deadline_ms = SYSTEM.monotonic_ms() + timeout_s * 1000
    with Consumer(
        address, max_partition_fetch_bytes=_PARTITION_BYTES, fetch_max_wait_ms=100
    ) as consumer:
        consumer.assign(sorted(left))
        for where, offset in positions.items():
            consumer.seek(*where, offset)
        while left and (left_ms := deadline_ms - SYSTEM.monotonic_ms()) > 0:
            try:
                records = consumer.poll(min(_POLL_S, left_ms / 1000))
            except CorruptRecords:
                break
            for record in records:
                where = TopicPartition(record.topic, record.partition)
                if where in left:
                    left.discard(where)
                    if record.timestamp_ms != _NO_TIMESTAMP:
                        found[where] = record.timestamp_ms
            for where, position in consumer.positions().items():
                if position is not None and position >= ends[where]:
                    left.discard(where)  # nothing but markers, or what compaction took away
            consumer.assign(sorted(left))
    return found
