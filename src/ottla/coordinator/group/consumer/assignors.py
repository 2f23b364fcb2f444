"""Who is to have which partitions: the assignors that members can ask for.

    uniform   everybody gets as many as the others, of what it subscribed to, and keeps what it has
              as far as that goes
    range     of every topic each of its subscribers gets an equal range, the first ones one more;
              so partitions with the same number of several topics go together. What anybody has
              plays no part

Members come in the order of their instance ids, then of their ids.

Where members subscribed to different topics, uniform moves a partition as long as that makes two
members more equal; Kafka's assignor does the same in other steps. Where all subscribed to the same,
those who have one more than their share keep it, which Kafka's does not mind.

Kafka: UniformAssignor, RangeAssignor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ottla.coordinator.group.consumer.records import Partitions, TopicPartition


class Subscriber(NamedTuple):
    """A member, as an assignor sees it.

    Attributes:
        instance_id: what a static member is called; None for a dynamic one.
        topic_ids: what it subscribed to, of what there is.
        partitions: what it was to have.
    """

    instance_id: str | None
    topic_ids: frozenset[bytes]
    partitions: Partitions = frozenset()


Subscribers = Mapping[str, Subscriber]
Counts = Mapping[bytes, int]
"""How many partitions each topic has."""

Assignment = dict[str, "Partitions"]


def _subscribers_by_topic(subscribers: Subscribers) -> dict[bytes, list[str]]:
    """Return who subscribed to each topic; topics and members in their order."""

    def order(member_id: str) -> tuple[bool, str, str]:
        instance_id = subscribers[member_id].instance_id
        return instance_id is None, instance_id or "", member_id

    topics: dict[bytes, list[str]] = {}
    for member_id in sorted(subscribers, key=order):
        for topic_id in subscribers[member_id].topic_ids:
            topics.setdefault(topic_id, []).append(member_id)
    return dict(sorted(topics.items()))


def assign_ranges(subscribers: Subscribers, counts: Counts) -> Assignment:
    """Assign ranges of every topic."""
    assignment: dict[str, set[TopicPartition]] = {each: set() for each in subscribers}
    for topic_id, members in _subscribers_by_topic(subscribers).items():
        least, more = divmod(counts[topic_id], len(members))
        begin = 0
        for number, member_id in enumerate(members):
            end = begin + least + (number < more)
            assignment[member_id].update((topic_id, index) for index in range(begin, end))
            begin = end
    return {each: frozenset(partitions) for each, partitions in assignment.items()}


@dataclass
class _Shares:
    """What everybody has so far.

    Attributes:
        topics: who subscribed to each topic.
        sizes: how many partitions each member has.
        of_topic: which ones of a topic each has.
    """

    topics: dict[bytes, list[str]]
    sizes: dict[str, int]
    of_topic: dict[bytes, dict[str, list[int]]] = field(default_factory=dict)

    def give(self, topic_id: bytes, index: int, member_id: str) -> None:
        """Give somebody a partition."""
        self.of_topic[topic_id].setdefault(member_id, []).append(index)
        self.sizes[member_id] += 1

    def level(self, topic_id: bytes) -> bool:
        """Move partitions of a topic while that makes two members more equal; tells if it did."""
        owned = self.of_topic[topic_id]
        members = self.topics[topic_id]
        has_moved = False
        while True:
            poorest = min(members, key=self.sizes.__getitem__)
            owners = (each for each in members if owned.get(each))
            richest = max(owners, key=self.sizes.__getitem__, default=poorest)
            if self.sizes[richest] - self.sizes[poorest] < 2:
                return has_moved
            self.give(topic_id, owned[richest].pop(), poorest)
            self.sizes[richest] -= 1
            has_moved = True


def assign_uniformly(subscribers: Subscribers, counts: Counts) -> Assignment:
    """Assign everybody as many as the others, and let it keep what it was to have."""
    topics = _subscribers_by_topic(subscribers)
    shares = _Shares(topics, dict.fromkeys(subscribers, 0))
    taken: dict[bytes, set[int]] = {each: set() for each in topics}
    shares.of_topic = {each: {} for each in topics}
    for member_id, subscriber in subscribers.items():
        for topic_id, index in sorted(subscriber.partitions):
            is_its = topic_id in subscriber.topic_ids and index < counts[topic_id]
            if is_its and index not in taken[topic_id]:
                taken[topic_id].add(index)
                shares.give(topic_id, index, member_id)
    for topic_id in sorted(topics, key=lambda each: (len(topics[each]), each)):
        for index in range(counts[topic_id]):
            if index not in taken[topic_id]:
                poorest = min(topics[topic_id], key=shares.sizes.__getitem__)
                shares.give(topic_id, index, poorest)
    while sum(shares.level(topic_id) for topic_id in topics):
        pass
    assignment: dict[str, set[TopicPartition]] = {each: set() for each in subscribers}
    for topic_id, owned in shares.of_topic.items():
        for member_id, indexes in owned.items():
            assignment[member_id].update((topic_id, index) for index in indexes)
    return {each: frozenset(partitions) for each, partitions in assignment.items()}


ASSIGNORS: dict[str, Callable[[Subscribers, Counts], Assignment]] = {
    "uniform": assign_uniformly,
    "range": assign_ranges,
}
"""By the names that members know."""
