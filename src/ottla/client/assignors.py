"""Who reads what: how the leader of a classic group shares the partitions among its members.

    range               topic by topic: neighbouring partitions to each member that subscribed to it
    roundrobin          all partitions in turn
    cooperative-sticky  everybody keeps what it has, as far as all have equally much; what is to
                        change hands is left out until who has it has given it back (KIP-429)

What members tell of themselves, and what they are told, are Kafka's ConsumerProtocol messages, so
that members of other clients can lead and be led. Every assignor is a pure function; members are
taken in the order of their instance ids, then of their ids, so that it does not matter who leads.

Kafka: RangeAssignor, RoundRobinAssignor, CooperativeStickyAssignor, ConsumerProtocol.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ottla.client.lookup import TopicPartition
from ottla.errors import DecodeError
from ottla.protocol.codec import decode_from, encode_to
from ottla.protocol.messages.embedded_data import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)
from ottla.wire.cursor import Reader, Writer

NO_GENERATION = -1
_VERSION = 3
"""The version of what is written; members that know an older one read as far as they know it."""


class Subscription(NamedTuple):
    """What a member tells of itself.

    Attributes:
        topics: what it wants to read.
        owned: what it reads now.
        generation_id: the generation that it got that in.
        instance_id: its group.instance.id, or None; not part of what is encoded.
    """

    topics: frozenset[str]
    owned: frozenset[TopicPartition] = frozenset()
    generation_id: int = NO_GENERATION
    instance_id: str | None = None


Members = Mapping[str, Subscription]
Assignment = dict[str, list[TopicPartition]]


@dataclass(frozen=True, slots=True)
class Assignor:
    """A way to share partitions.

    Attributes:
        name: what it is called in the protocol.
        is_cooperative: whether members keep what they have while they join again.
        assign: shares: (members by id, how many partitions each topic has).
    """

    name: str
    is_cooperative: bool
    assign: Callable[[Members, Mapping[str, int]], Assignment]


def _in_order(members: Members) -> list[str]:
    """Return the members, static ones first. Kafka: AbstractPartitionAssignor.MemberInfo."""

    def key(member_id: str) -> tuple[bool, str]:
        instance_id = members[member_id].instance_id
        return instance_id is None, instance_id or member_id

    return sorted(members, key=key)


# -- range


def assign_range(members: Members, partitions: Mapping[str, int]) -> Assignment:
    """Give neighbouring partitions of each topic to each member that subscribed to it."""
    assignment: Assignment = {member_id: [] for member_id in members}
    order = _in_order(members)
    for topic, count in sorted(partitions.items()):
        readers = [member_id for member_id in order if topic in members[member_id].topics]
        if not readers:
            continue
        each, extra = divmod(count, len(readers))
        first = 0
        for index, member_id in enumerate(readers):
            end = first + each + (index < extra)
            assignment[member_id] += [TopicPartition(topic, number) for number in range(first, end)]
            first = end
    return assignment


# -- roundrobin


def assign_round_robin(members: Members, partitions: Mapping[str, int]) -> Assignment:
    """Give all partitions in turn to the members, past those that did not subscribe."""
    assignment: Assignment = {member_id: [] for member_id in members}
    wanted = frozenset().union(*(each.topics for each in members.values()))
    turn = itertools.cycle(_in_order(members))
    for where in _all_partitions(partitions):
        if where.topic not in wanted:
            continue
        member_id = next(turn)
        while where.topic not in members[member_id].topics:
            member_id = next(turn)
        assignment[member_id].append(where)
    return assignment


def _all_partitions(partitions: Mapping[str, int]) -> list[TopicPartition]:
    return [
        TopicPartition(topic, number)
        for topic, count in sorted(partitions.items())
        for number in range(count)
    ]


# -- cooperative-sticky


def assign_sticky(members: Members, partitions: Mapping[str, int]) -> Assignment:
    """Change as little as makes all members have equally much.

    A partition that somebody else still reads is nobody's this time: whoever reads it learns that
    it is not its own any more, gives it back and joins again, and then it is assigned.
    """
    wanted = frozenset().union(*(each.topics for each in members.values()))
    known = {topic: count for topic, count in partitions.items() if topic in wanted}
    owners = _owners(members, known)
    if all(each.topics == wanted for each in members.values()):
        assignment = _share_equally(members, _all_partitions(known), owners)
    else:
        assignment = _share_by_subscription(members, _all_partitions(known), owners)
    claims: dict[TopicPartition, set[str]] = {}
    for member_id, member in members.items():
        for where in member.owned:
            claims.setdefault(where, set()).add(member_id)
    nobody: set[str] = set()
    return {
        member_id: sorted(each for each in assigned if claims.get(each, nobody) <= {member_id})
        for member_id, assigned in assignment.items()
    }


def _owners(members: Members, partitions: Mapping[str, int]) -> dict[TopicPartition, str]:
    """Return who may keep what: who has it since the latest generation, if that is only one."""
    latest: dict[TopicPartition, tuple[int, str | None]] = {}
    for member_id, member in members.items():
        for where in member.owned:
            if where.topic not in member.topics:
                continue
            if not 0 <= where.partition < partitions.get(where.topic, 0):
                continue
            generation_id, _ = latest.get(where, (NO_GENERATION - 1, None))
            if member.generation_id > generation_id:
                latest[where] = member.generation_id, member_id
            elif member.generation_id == generation_id:
                latest[where] = generation_id, None
    return {where: owner for where, (_, owner) in latest.items() if owner is not None}


def _share_equally(
    members: Members, partitions: list[TopicPartition], owners: Mapping[TopicPartition, str]
) -> dict[str, set[TopicPartition]]:
    """Share among members that all want the same."""
    low, extra = divmod(len(partitions), max(len(members), 1))
    order = _in_order(members)
    kept: dict[str, list[TopicPartition]] = {member_id: [] for member_id in order}
    free = []
    for where in partitions:
        if where in owners:
            kept[owners[where]].append(where)
        else:
            free.append(where)
    for member_id in sorted(order, key=lambda each: -len(kept[each])):
        quota = low
        if extra > 0 and len(kept[member_id]) > low:
            quota, extra = low + 1, extra - 1
        free += kept[member_id][quota:]
        del kept[member_id][quota:]
    loads = [(len(kept[member_id]), index) for index, member_id in enumerate(order)]
    heapq.heapify(loads)
    for where in sorted(free):
        count, index = loads[0]
        kept[order[index]].append(where)
        heapq.heapreplace(loads, (count + 1, index))
    return {member_id: set(assigned) for member_id, assigned in kept.items()}


def _share_by_subscription(
    members: Members, partitions: list[TopicPartition], owners: Mapping[TopicPartition, str]
) -> dict[str, set[TopicPartition]]:
    """Share among members that want different topics.

    First everything that is free goes to the least loaded who wants it, what fewest want first.
    Then partitions move from a member to one that has at least two fewer; each such move makes the
    sum of the squares smaller, so that comes to an end.
    """
    order = _in_order(members)
    readers = {
        topic: [member_id for member_id in order if topic in members[member_id].topics]
        for topic in {where.topic for where in partitions}
    }
    assigned: dict[str, set[TopicPartition]] = {member_id: set() for member_id in order}
    loads = Counter(dict.fromkeys(order, 0))

    def give(where: TopicPartition, member_id: str) -> None:
        assigned[member_id].add(where)
        loads[member_id] += 1

    def least_loaded(where: TopicPartition) -> str:
        return min(readers[where.topic], key=loads.__getitem__)

    free = []
    for where in partitions:
        if where in owners:
            give(where, owners[where])
        else:
            free.append(where)
    for where in sorted(free, key=lambda each: (len(readers[each.topic]), each)):
        give(where, least_loaded(where))
    moved = True
    while moved:
        moved = False
        for giver in sorted(order, key=lambda each: -loads[each]):
            for where in sorted(assigned[giver]):
                taker = least_loaded(where)
                if loads[taker] + 1 < loads[giver]:
                    assigned[giver].remove(where)
                    loads[giver] -= 1
                    give(where, taker)
                    moved = True
    return assigned


ASSIGNORS = {
    each.name: each
    for each in (
        Assignor("cooperative-sticky", True, assign_sticky),
        Assignor("range", False, assign_range),
        Assignor("roundrobin", False, assign_round_robin),
    )
}


# -- what is on the wire


def encode_subscription(subscription: Subscription) -> bytes:
    """Encode what a member tells of itself.

    The generation stands in the user data too, where members that know no later version look.
    """
    generation_id = subscription.generation_id
    message = ConsumerProtocolSubscription(
        topics=sorted(subscription.topics),
        user_data=generation_id.to_bytes(4, "big", signed=True),
        owned_partitions=[
            ConsumerProtocolSubscription.TopicPartition(topic=topic, partitions=numbers)
            for topic, numbers in _by_topic(subscription.owned).items()
        ],
        generation_id=generation_id,
    )
    writer = Writer()
    writer.int16(_VERSION)
    encode_to(writer, message, _VERSION)
    return writer.joined()


def decode_subscription(data: bytes, instance_id: str | None = None) -> Subscription:
    """Decode what a member tells of itself, in whatever version.

    Raises:
        DecodeError: it is none.
    """
    reader = Reader(data)
    version = min(reader.int16(), _VERSION)
    if version < 0:
        raise DecodeError(f"a subscription of version {version}")
    message = decode_from(ConsumerProtocolSubscription, reader, version)
    owned = {
        TopicPartition(each.topic, number)
        for each in message.owned_partitions
        for number in each.partitions
    }
    generation_id = message.generation_id
    if generation_id == NO_GENERATION and owned:
        # Before version 2 it is what sticky assignors of all clients end their user data with.
        tail = bytes(message.user_data or b"")[-4:]
        generation_id = int.from_bytes(tail, "big", signed=True) if len(tail) == 4 else -1
    return Subscription(frozenset(message.topics), frozenset(owned), generation_id, instance_id)


def encode_assignment(partitions: Iterable[TopicPartition]) -> bytes:
    """Encode what a member is assigned."""
    message = ConsumerProtocolAssignment(
        assigned_partitions=[
            ConsumerProtocolAssignment.TopicPartition(topic=topic, partitions=numbers)
            for topic, numbers in _by_topic(partitions).items()
        ]
    )
    writer = Writer()
    writer.int16(_VERSION)
    encode_to(writer, message, _VERSION)
    return writer.joined()


def decode_assignment(data: bytes) -> frozenset[TopicPartition]:
    """Decode what a member is assigned; nothing at all is no partitions.

    Raises:
        DecodeError: it is none.
    """
    if not data:
        return frozenset()
    reader = Reader(data)
    version = min(reader.int16(), _VERSION)
    if version < 0:
        raise DecodeError(f"an assignment of version {version}")
    message = decode_from(ConsumerProtocolAssignment, reader, version)
    return frozenset(
        TopicPartition(each.topic, number)
        for each in message.assigned_partitions
        for number in each.partitions
    )


def _by_topic(partitions: Iterable[TopicPartition]) -> dict[str, list[int]]:
    topics: dict[str, list[int]] = {}
    for topic, number in sorted(partitions):
        topics.setdefault(topic, []).append(number)
    return topics
