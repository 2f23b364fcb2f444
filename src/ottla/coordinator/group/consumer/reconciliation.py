"""One step of a member towards the target: what it is to give up, and what it gets.

A member first gives up what is not to be its, in the epoch that it is in; then it comes to the
target's epoch with what is free of what it is to have, and waits for the rest. Nothing that another
member may still have is given to it, so no partition is ever had by two.

Kafka: CurrentAssignmentBuilder.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ottla.coordinator.group.consumer.group import GoesOn, Member, MemberState

if TYPE_CHECKING:
    from ottla.coordinator.group.consumer.records import Owned, Partitions, TopicPartition


class MustRejoin(Exception):
    """A member in a state that is not known has to give up everything and join again."""


class Goal(NamedTuple):
    """Where a member is to go.

    Attributes:
        epoch: the target's.
        partitions: what it is to have.
        topic_ids: the topics that it subscribed to.
        owners: the one member that may have a partition.
    """

    epoch: int
    partitions: Partitions
    topic_ids: Collection[bytes]
    owners: Mapping[TopicPartition, str]


def reconciled(member: Member, goal: Goal, owned: Partitions | None) -> Member:
    """Return the member a step further, or as it is where it cannot go on.

    Args:
        member: the member.
        goal: where it is to go.
        owned: what it says that it has; None: it does not say.

    Raises:
        MustRejoin: it is in a state that is not known, and has something.
    """
    rule = member.rules.goes_on
    if rule is GoesOn.WITH_ANOTHER_TARGET:
        is_there = member.member_epoch == goal.epoch
        return (
            _without_unsubscribed(member, goal, owned) if is_there else _next(member, goal, owned)
        )
    if rule is GoesOn.WHEN_REVOKED and _has_one_of(owned, member.pending_revocation):
        return _without_unsubscribed(member, goal, owned)
    if rule is GoesOn.EMPTY_HANDED and owned != frozenset():
        raise MustRejoin
    return _next(member, goal, owned)


def _has_one_of(owned: Partitions | None, partitions: Owned) -> bool:
    """Tell whether a member still has some of these, as far as it is known."""
    return bool(partitions) and (owned is None or not owned.isdisjoint(partitions))


def _without_unsubscribed(member: Member, goal: Goal, owned: Partitions | None) -> Member:
    """Let a member that cannot go on give up besides what it is not subscribed to any more."""
    left = {each: epoch for each, epoch in member.assigned.items() if each[0] in goal.topic_ids}
    if len(left) == len(member.assigned):
        return member
    gone = {each: epoch for each, epoch in member.assigned.items() if each not in left}
    pending = {**member.pending_revocation, **gone}
    if not _has_one_of(owned, pending):
        return replace(member, previous_member_epoch=member.member_epoch, assigned=left)
    return replace(
        member,
        previous_member_epoch=member.member_epoch,
        state=MemberState.UNREVOKED_PARTITIONS,
        assigned=left,
        pending_revocation=pending,
    )


def _next(member: Member, goal: Goal, owned: Partitions | None) -> Member:
    target = {each for each in goal.partitions if each[0] in goal.topic_ids}
    kept = {each: epoch for each, epoch in member.assigned.items() if each in target}
    revoked = {each: epoch for each, epoch in member.assigned.items() if each not in target}
    if _has_one_of(owned, revoked):
        return replace(
            member,
            previous_member_epoch=member.member_epoch,
            state=MemberState.UNREVOKED_PARTITIONS,
            assigned=kept,
            pending_revocation=revoked,
        )
    free = {
        each
        for each in target - kept.keys()
        if goal.owners.get(each, member.member_id) == member.member_id
    }
    is_whole = len(kept) + len(free) == len(target)
    return replace(
        member,
        member_epoch=goal.epoch,
        previous_member_epoch=member.member_epoch,
        state=MemberState.STABLE if is_whole else MemberState.UNRELEASED_PARTITIONS,
        assigned={**kept, **dict.fromkeys(sorted(free), goal.epoch)},
        pending_revocation={},
    )
