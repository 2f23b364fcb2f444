"""Which segments a log keeps no longer: those that are too old, and those that are too much.

A segment is as old as the newest record in it says, so a timestamp in the future keeps it. One
whose records have no timestamps does not grow old.

Kafka: UnifiedLog.deleteRetentionMsBreachedSegments, deleteRetentionSizeBreachedSegments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ottla.log.config import LogConfig
    from ottla.log.segment import Segment


def expired(segments: Sequence[Segment], size: int, config: LogConfig, now_ms: int) -> int:
    """Return how many of the first segments are kept no longer.

    Args:
        segments: those that may go, the oldest first.
        size: bytes of the whole log.
        config: the topic's settings.
        now_ms: milliseconds since 1970.
    """
    count = 0
    for segment in segments:
        newest_ms = segment.max_timestamp
        is_old = newest_ms >= 0 and 0 <= config.retention_ms < now_ms - newest_ms
        is_too_much = 0 <= config.retention_bytes <= size - segment.size
        if not segment.size or not (is_old or is_too_much):
            break
        size -= segment.size
        count += 1
    return count
