"""What a partition's log is told about its topic."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    segment_bytes: int = 1 << 30
    segment_ms: int = 7 * 24 * 3600 * 1000
    segment_index_bytes: int = 10 * 1024 * 1024
    index_interval_bytes: int = 4096
    durable: bool = True
    producer_expiration_ms: int = 24 * 3600 * 1000
