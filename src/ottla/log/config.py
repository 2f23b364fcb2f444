"""What a partition's log is told about its topic."""

from __future__ import annotations

from dataclasses import dataclass

_NEVER_MS = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The settings of one topic's logs, under Kafka's names with underscores.

    Attributes:
        segment_bytes: a segment is rolled before it grows beyond this.
        segment_ms: and when its first record is older than this.
        segment_index_bytes: and when one of its indexes is that large.
        index_interval_bytes: about how many bytes lie between two entries of the index.
        durable: whether a record is acknowledged and readable only when it is on the disk
            (`ottla.durability=disk`), or once it is written (`os`).
        producer_expiration_ms: how long a producer is remembered that sends nothing.
        delete: whether old segments are removed (`cleanup.policy` has "delete").
        compact: whether only the last record of each key is kept ("compact").
        retention_ms: what is older is removed; -1 for never.
        retention_bytes: what lies before the last so many bytes is removed; -1 for never.
        delete_retention_ms: how long compaction keeps a record without a value.
        min_compaction_lag_ms: a record is not compacted before it is that old.
        max_compaction_lag_ms: and not later than this.
        min_cleanable_dirty_ratio: the part of the log that must be new before it is compacted.
    """

    segment_bytes: int = 1 << 30
    segment_ms: int = 7 * 24 * 3600 * 1000
    segment_index_bytes: int = 10 * 1024 * 1024
    index_interval_bytes: int = 4096
    durable: bool = True
    producer_expiration_ms: int = 24 * 3600 * 1000
    delete: bool = True
    compact: bool = False
    retention_ms: int = 7 * 24 * 3600 * 1000
    retention_bytes: int = -1
    delete_retention_ms: int = 24 * 3600 * 1000
    min_compaction_lag_ms: int = 0
    max_compaction_lag_ms: int = _NEVER_MS
    min_cleanable_dirty_ratio: float = 0.5
