"""A member's place in its group, whatever protocol keeps it.

`Membership` is the seam between a protocol and what drives it: it says what is to be sent, takes
the answers, and tells the user's thread what changes, without sockets, threads or clocks.
`ottla.client.group` drives it in the client's turns, `ottla.client.rebalancing` in the user's.

    ottla.client.classic_membership    JoinGroup, SyncGroup, Heartbeat; the members share
    ottla.client.consumer_membership   ConsumerGroupHeartbeat (KIP-848); the broker assigns

What the user reads (`owned`) and what the group says it shall read (`target`) are two things: only
the user's thread changes the first, in a poll, by way of `take_change`. A partition is owned from
the moment the user's thread takes it until it was given back, so what a member says that it owns is
never less than what it reads.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ottla.errors import ConfigError, KafkaError, codes

if TYPE_CHECKING:
    from ottla.client.lookup import TopicPartition
    from ottla.protocol.message import ApiMessage

NO_MEMBER = ""

MOVED = (codes.NOT_COORDINATOR, codes.COORDINATOR_NOT_AVAILABLE)
"""What a broker says that does not coordinate the group, or does not do so any more."""

LATER = (*MOVED, codes.COORDINATOR_LOAD_IN_PROGRESS, codes.REQUEST_TIMED_OUT)
"""What passes by itself."""


@dataclass(frozen=True, slots=True)
class SubscriptionPattern:
    """A regular expression that the broker matches with topics' names, in the consumer protocol.

    It is in RE2's syntax, and has to match a name as a whole.

    Attributes:
        pattern: the expression.
    """

    pattern: str

    def __post_init__(self) -> None:
        if not self.pattern:
            raise ConfigError("a pattern must not be empty")


class Identity(NamedTuple):
    """As who a member commits."""

    generation_id: int
    member_id: str
    instance_id: str | None


class Kind(enum.Enum):
    """What changes for the user."""

    LOST = "lost"
    REVOKED = "revoked"
    ASSIGNED = "assigned"


class FoundTopic(NamedTuple):
    """What is known of a topic that was named by its id."""

    name: str
    partitions: int


class Change(NamedTuple):
    """Something that the user's thread has to carry out.

    `LOST` and `ASSIGNED` are so as soon as they are taken; `REVOKED` is when that is reported.
    """

    kind: Kind
    partitions: frozenset[TopicPartition]


class Membership(Protocol):
    """A place in a group, whatever protocol keeps it."""

    error: KafkaError | None
    """What the user must be told; it is taken away when that was done."""

    loses_coordinator: bool
    """Whether the coordinator is to be looked for anew; whoever does that takes it away."""

    @property
    def owned(self) -> frozenset[TopicPartition]:
        """What the user's thread reads."""
        ...

    @property
    def identity(self) -> Identity | None:
        """As who offsets are committed; None while it is no member."""
        ...

    @property
    def is_settled(self) -> bool:
        """Whether what is owned is what the group says it shall be."""
        ...

    @property
    def is_out(self) -> bool:
        """Whether it is no member, and does not want to be."""
        ...

    @property
    def why_out(self) -> str:
        """Why it is no member any more, in words for people."""
        ...

    @property
    def topics_to_know(self) -> frozenset[str]:
        """The topics whose partitions it has to know."""
        ...

    @property
    def ids_to_know(self) -> frozenset[bytes]:
        """The ids of topics of which it has to know more."""
        ...

    @property
    def wants_classic(self) -> bool:
        """Whether the group is to be joined with the classic protocol instead."""
        ...

    def subscribe(self, topics: frozenset[str], pattern: str = "") -> None:
        """Want to read topics, or those that match for the broker; neither: want to leave."""
        ...

    def polled(self, now: float) -> None:
        """Take note that the user's thread is alive."""
        ...

    def topics_known(self, partitions: Mapping[str, int]) -> None:
        """Take how many partitions the topics have."""
        ...

    def topics_found(self, topics: Mapping[bytes, FoundTopic]) -> None:
        """Take what is known of topics, by their ids."""
        ...

    def unsupported(self, now: float) -> None:
        """Take note that the coordinator does not know what `next_request` would be."""
        ...

    def has_change(self) -> bool:
        """Tell whether there is something for `take_change`."""
        ...

    def take_change(self) -> Change | None:
        """Take what changes for the user."""
        ...

    def take_leave(self) -> ApiMessage | None:
        """Take, once, what is to be sent because it has left."""
        ...

    def given_back(self, partitions: frozenset[TopicPartition]) -> None:
        """Take note that a `REVOKED` was carried out."""
        ...

    def step(self, now: float) -> float | None:
        """Let time pass; returns when to look again, or None."""
        ...

    def next_request(self, now: float) -> ApiMessage | None:
        """Return what is to be sent, if anything is; it counts as sent."""
        ...

    def timeout_ms(self, request: ApiMessage) -> float | None:
        """Return how long the answer may take, where that is not as usual."""
        ...

    def answered(self, request: ApiMessage, response: ApiMessage, now: float) -> None:
        """Take an answer."""
        ...

    def failed(self, request: ApiMessage, now: float) -> None:
        """Take note that there will be no answer: the connection is gone."""
        ...

    def commit_refused(self, identity: Identity, code: int) -> None:
        """Take note that the coordinator does not take a member's commit."""
        ...
