"""What offsets and admin requests want to know of a group, whatever protocol its members speak."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ottla.errors import codes

if TYPE_CHECKING:
    from ottla.coordinator.group.offsets import CommittedOffset
    from ottla.coordinator.group.records import GroupRecord


class Group(ABC):
    """A group.

    Attributes:
        kind: "classic", or another of Kafka's group types.
        group_id: its id.
        protocol_type: what its members call their protocol, "consumer" for consumers; None for a
            group that never had any, whose offsets somebody commits without being a member.
    """

    kind: ClassVar[str]
    group_id: str
    protocol_type: str | None

    @property
    @abstractmethod
    def state_name(self) -> str:
        """What Kafka calls the state that it is in."""

    @property
    @abstractmethod
    def is_empty(self) -> bool:
        """Whether it has no members."""

    @property
    @abstractmethod
    def is_expected(self) -> bool:
        """Whether somebody is about to join, though it has no members yet."""

    @abstractmethod
    def is_subscribed_to(self, topic: str) -> bool:
        """Tell whether its members read a topic, as far as it is known."""

    @abstractmethod
    def retention_begins_ms(self, committed: CommittedOffset) -> int | None:
        """Return when the time began after which an offset expires; None where it does not run."""

    @abstractmethod
    def check_commit(
        self, member_id: str, group_instance_id: str | None, generation: int, version: int
    ) -> int:
        """Return why a member may not commit offsets, as an error code.

        Args:
            member_id: the member's id; "" for who is no member.
            group_instance_id: its instance id.
            generation: the generation or the epoch that it is in; negative for who is no member.
            version: of the request.
        """

    def check_commit_of(self, member_id: str, generation: int, partition: tuple[bytes, int]) -> int:
        """Return why a member may not commit this offset, as an error code; others it may."""
        return codes.NONE

    def check_fetch(self, member_id: str | None, member_epoch: int) -> int:
        """Return why a member may not fetch offsets, as an error code."""
        return codes.NONE

    @abstractmethod
    def check_delete(self) -> int:
        """Return why the group cannot be deleted, as an error code."""

    @abstractmethod
    def check_delete_offsets(self) -> int:
        """Return why no offsets of it can be deleted, as an error code."""

    @abstractmethod
    def records_of_end(self) -> list[GroupRecord]:
        """Return the records of its end, but for its offsets."""
