"""What a group's offsets are to become: the plan of `ottla groups reset`.

    beginning, end   the first offset, the next one to be written
    offset           a number
    time             the first record with that timestamp or a later one; the end where none is
    shift            so many further than what is committed, or back where it is negative
    like             what another group has committed

What lies outside of the log is moved to its nearest end, and the plan says so.
Kafka: ConsumerGroupCommand.resetOffsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import click

from ottla.client.lookup import EARLIEST, LATEST, TopicPartition
from ottla.errors import KafkaError, broker_error, codes

if TYPE_CHECKING:
    from ottla.client.admin import Admin

_NO_OFFSET = -1


@dataclass(frozen=True, slots=True)
class Target:
    """Where to.

    Attributes:
        kind: "beginning", "end", "offset", "time", "shift" or "like".
        value: the offset, the time in milliseconds since 1970, or by how much.
        group_id: the other group.
    """

    kind: str
    value: int = 0
    group_id: str = ""


class Change(NamedTuple):
    """What becomes of one partition.

    Attributes:
        where: the partition.
        old: what is committed; None where nothing is.
        new: what will be.
        note: what is not quite as it was asked for, or "".
    """

    where: TopicPartition
    old: int | None
    new: int
    note: str


def plan(admin: Admin, group_id: str, target: Target, topics: Sequence[str]) -> list[Change]:
    """Make the plan; nothing is changed.

    Args:
        admin: who is asked.
        group_id: the group.
        target: where to.
        topics: as TOPIC or TOPIC:PARTITION,...; none for all that is committed.

    Raises:
        UsageError: nothing says which partitions.
        UnknownTopicOrPartition: one of them does not exist.
        KafkaError: there is no such offset.
    """
    committed = {where: each.offset for where, each in admin.committed_offsets(group_id).items()}
    like: Mapping[TopicPartition, int] = {}
    if target.kind == "like":
        others = admin.committed_offsets(target.group_id)
        like = {where: each.offset for where, each in others.items()}
    partitions = chosen(admin, topics) if topics else _there(admin, like or committed)
    if not partitions:
        whose = target.group_id if target.kind == "like" else group_id
        raise click.UsageError(
            f"group {whose!r} has committed nothing: say what is meant with --topic"
        )
    starts = admin.list_offsets(dict.fromkeys(partitions, EARLIEST))
    ends = admin.list_offsets(dict.fromkeys(partitions, LATEST))
    times: dict[TopicPartition, int] = {}
    if target.kind == "time":
        times = admin.list_offsets(dict.fromkeys(partitions, target.value))
    changes = []
    for where in partitions:
        start, end = starts[where], ends[where]
        match target.kind:
            case "beginning":
                wanted = start
            case "end":
                wanted = end
            case "offset":
                wanted = target.value
            case "time":
                wanted = end if times[where] == _NO_OFFSET else times[where]
            case "shift":
                wanted = _known(committed, where, group_id) + target.value
            case _:
                wanted = _known(like, where, target.group_id)
        new = min(max(wanted, start), end)
        changes.append(Change(where, committed.get(where), new, _note(wanted, start, end)))
    return changes


def _known(offsets: Mapping[TopicPartition, int], where: TopicPartition, group_id: str) -> int:
    if where not in offsets:
        name = f"{where.topic}/{where.partition}"
        raise KafkaError(
            f"group {group_id!r} has committed nothing for {name}", "Nothing was changed."
        )
    return offsets[where]


def _note(wanted: int, start: int, end: int) -> str:
    if wanted < start:
        return f"{wanted} is before the first offset"
    return f"{wanted} is behind the end" if wanted > end else ""


def _there(admin: Admin, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
    """Return those partitions that exist: what was committed may be of a topic that is gone."""
    wanted = set(partitions)
    return [
        where for where in admin.partitions_of(each.topic for each in wanted) if where in wanted
    ]


def chosen(admin: Admin, topics: Sequence[str]) -> list[TopicPartition]:
    """Return the partitions that are meant by TOPIC or TOPIC:PARTITION,...

    Raises:
        UsageError: one of them cannot be read.
        UnknownTopicOrPartition: one of them does not exist.
    """
    wanted = [_parse(text) for text in topics]
    there = admin.partitions_of(name for name, _ in wanted)
    found: set[TopicPartition] = set()
    for name, numbers in wanted:
        of_topic = {where for where in there if where.topic == name}
        asked = {TopicPartition(name, number) for number in numbers} or of_topic
        missing = sorted(asked - of_topic)
        if missing or not of_topic:
            what = f"partition {name}/{missing[0].partition}" if of_topic else f"topic {name!r}"
            raise broker_error(
                codes.UNKNOWN_TOPIC_OR_PARTITION, f"there is no {what}", "Nothing was changed."
            )
        found |= asked
    return sorted(found)


def _parse(text: str) -> tuple[str, list[int]]:
    name, colon, numbers = text.partition(":")
    parts = numbers.split(",") if colon else []
    if not name or not all(part.isdecimal() for part in parts):
        raise click.UsageError(f"--topic is TOPIC or TOPIC:PARTITION,..., not {text!r}")
    return name, [int(part) for part in parts]
