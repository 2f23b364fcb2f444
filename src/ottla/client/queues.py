"""What waits to be sent: the batches of each partition, and the records of a topic not yet known.

Kafka: RecordAccumulator.TopicInfo.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from ottla.client.partitioner import Partitioner

if TYPE_CHECKING:
    from ottla.client.delivery import Batch, Delivery


class Pending(NamedTuple):
    """A record that waits for its topic."""

    delivery: Delivery
    partition: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: bytes | None


class PartitionQueue:
    """The batches of one partition that are not with the broker.

    Attributes:
        topic: its topic.
        partition: its number.
        open: the batch that records are appended to, or None.
        closed: batches that are full, oldest first.
        retries: batches that were sent before and are to be sent again, oldest first.
        in_flight: batches that are with the broker, oldest first.
        is_lingering: whether it is among the accumulator's `lingering`.
        identity: the producer id and epoch that its sequences belong to.
        next_sequence: the next batch's first sequence.
        confirmed_identity: what the last batch that is known to be stored was stamped with, or None
            where there is none, or one has failed since.
        confirmed_ns: when the connection that it was sent over was ready for requests.
    """

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.open: Batch | None = None
        self.closed: deque[Batch] = deque()
        self.retries: deque[Batch] = deque()
        self.in_flight: list[Batch] = []
        self.is_lingering = False
        self.identity: Any = None
        self.next_sequence = 0
        self.confirmed_identity: object = None
        self.confirmed_ns = 0

    @property
    def next_size(self) -> int:
        """How many bytes will be sent next, about; before compression."""
        batch: Batch | None = self.open
        if self.retries or self.closed:
            batch = (self.retries or self.closed)[0]
        return 0 if batch is None else batch.builder.size

    @property
    def queued(self) -> int:
        """How many batches wait."""
        return len(self.closed) + len(self.retries) + (self.open is not None)


class TopicQueue:
    """The records of one topic.

    Attributes:
        name: its name.
        queues: one queue for each partition; none while they are not known.
        pending: records that wait for that.
        room: the batch that their handles are in meanwhile.
    """

    def __init__(self, name: str, room: Batch) -> None:
        self.name = name
        self.queues: list[PartitionQueue] = []
        self.pending: list[Pending] = []
        self.room = room
        self.partitioner = Partitioner(1, 1)
