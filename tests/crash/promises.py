"""What a broker has promised, noted outside of it at the moment at which it promised it.

Every record has a number of its own in a header, so that it is known again wherever it is found.
What was asked for and not answered may have happened or not; both are right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Sent(NamedTuple):
    """A record that was sent; a tombstone's value is None, and -1 is no idempotent producer."""

    key: bytes | None
    value: bytes | None
    producer_id: int = -1


class Batch(NamedTuple):
    """A batch of an idempotent producer that was confirmed.

    Attributes:
        data: its bytes as they were sent.
        producer_id: of the producer.
        base_offset: where it was confirmed.
        is_promised: whether it was confirmed as durable.
    """

    data: bytes
    producer_id: int
    base_offset: int
    is_promised: bool


@dataclass
class Partition:
    """What was promised of one partition.

    Attributes:
        is_durable: whether what is confirmed now is promised to survive a power cut.
        is_compacted: whether older records of a key may go.
        sent: all records that were ever sent to it, by their numbers.
        stored: the numbers of those that were confirmed as durable, by their offsets.
        confirmed: how many were confirmed at all.
        batches: the confirmed batches of idempotent producers.
        owed: the batch of each idempotent producer that was sent and not confirmed yet.
        start: where it begins at least: records before it were deleted, and that was confirmed.
        start_max: where it begins at most: nobody wanted anything behind it to be deleted.
        shown: how far readers have seen, exclusive.
        seen: the numbers of the records that readers were given, by their offsets.
    """

    is_durable: bool = True
    is_compacted: bool = False
    sent: dict[int, Sent] = field(default_factory=dict)
    stored: dict[int, int] = field(default_factory=dict)
    confirmed: int = 0
    batches: list[Batch] = field(default_factory=list)
    owed: dict[int, bytes] = field(default_factory=dict)
    start: int = 0
    start_max: int = 0
    shown: int = 0
    seen: dict[int, int] = field(default_factory=dict)


@dataclass
class Topic:
    """What was promised of one topic; one that is made again under its name is another.

    Attributes:
        name: its name.
        partitions: what was promised of each partition.
        partitions_min: how many it has at least.
        partitions_max: how many it has at most.
        configs: the values that each config may have; None where it may not be set.
        is_created: whether its creation was confirmed.
        is_deletion_asked: whether somebody wanted it deleted.
        is_deleted: whether that was confirmed.
    """

    name: str
    partitions: dict[int, Partition] = field(default_factory=dict)
    partitions_min: int = 0
    partitions_max: int = 0
    configs: dict[str, set[str | None]] = field(default_factory=dict)
    is_created: bool = False
    is_deletion_asked: bool = False
    is_deleted: bool = False


class Book:
    """All promises.

    Attributes:
        topics: by their ids.
        producer_ids: those that were handed out.
        version: grows with each promise and each thing asked for.
        late: what was confirmed in spite of a failed sync, in words.
    """

    def __init__(self) -> None:
        self.topics: dict[bytes, Topic] = {}
        self.producer_ids: set[int] = set()
        self.version = 0
        self.late: list[str] = []

    def changed(self) -> None:
        """Take note that something was asked for."""
        self.version += 1

    def promise(self, folder: str, failed: set[str]) -> None:
        """Take note that something was promised.

        Args:
            folder: the folder of the partition that it depends on.
            failed: those where a sync has failed.
        """
        self.version += 1
        if folder in failed:
            self.late.append(folder)

    @property
    def acknowledged(self) -> int:
        """How many records were confirmed as durable, in all topics that are to be there."""
        return sum(
            len(partition.stored)
            for topic in self.topics.values()
            for partition in topic.partitions.values()
        )


class Verdict:
    """What was wrong with a store that was opened again, each in words."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.duplicated: list[str] = []
        self.reordered: list[str] = []
        self.bad: list[str] = []

    @property
    def problems(self) -> list[str]:
        """All of them, with their kinds."""
        return [
            f"{kind}: {text}"
            for kind in ("lost", "duplicated", "reordered", "bad")
            for text in getattr(self, kind)
        ]
