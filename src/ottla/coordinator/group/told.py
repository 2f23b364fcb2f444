"""What consumers tell each other by way of a classic group: subscriptions and assignments.

To Kafka's coordinator these are bytes, and it reads them where it has to. Kafka: ConsumerProtocol.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, TypeVar

from ottla.errors import DecodeError
from ottla.protocol.codec import decode_from
from ottla.protocol.messages.embedded_data import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)
from ottla.wire.cursor import Reader

if TYPE_CHECKING:
    from ottla.coordinator.group.classic import Member
    from ottla.coordinator.group.consumer.changes import Topics
    from ottla.protocol.message import Message

CLIENTS_ASSIGNORS = frozenset({"range", "roundrobin", "sticky", "cooperative-sticky"})
"""The protocols that clients bring along. They assign all partitions of what is subscribed to."""

_Embedded = TypeVar("_Embedded", bound="Message")


def subscription_of(data: bytes) -> ConsumerProtocolSubscription:
    """Decode what a consumer subscribed to.

    Raises:
        DecodeError: it cannot be decoded.
    """
    return _decode(ConsumerProtocolSubscription, data)


def assignment_of(data: bytes) -> ConsumerProtocolAssignment:
    """Decode what a consumer was assigned; no bytes are nothing.

    Raises:
        DecodeError: it cannot be decoded.
    """
    return _decode(ConsumerProtocolAssignment, data) if data else ConsumerProtocolAssignment()


def _decode(cls: type[_Embedded], data: bytes) -> _Embedded:
    """Decode what clients tell each other; whatever a later version adds is not read."""
    reader = Reader(data)
    version = reader.int16()
    if version < 0:
        raise DecodeError(f"{cls.__name__} of version {version}")
    return decode_from(cls, reader, min(version, cls.SCHEMA.versions[1]))


def leaves_something(protocol: str, members: Collection[Member], topics: Topics) -> bool:
    """Tell whether something that members subscribed to is nobody's.

    So it is where a topic has grown since their leader assigned, or while a partition changes hands
    in two rebalances. Of assignors that are not the clients' own it is not known what they mean.
    """
    if protocol not in CLIENTS_ASSIGNORS:
        return False
    wanted: set[str] = set()
    assigned: set[tuple[str, int]] = set()
    try:
        for member in members:
            wanted.update(subscription_of(member.protocols.get(protocol, b"")).topics)
            for each in assignment_of(member.assignment).assigned_partitions:
                assigned.update((each.topic, number) for number in each.partitions)
    except DecodeError:
        return False
    found = (topics.topics.get(name) for name in wanted)
    return any(
        (topic.name, number) not in assigned
        for topic in found
        if topic is not None
        for number in range(topic.partitions)
    )
