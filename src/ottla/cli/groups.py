"""`ottla groups`: lists, describes, resets and deletes consumer groups."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ottla.cli.offset_reset import Change, Target, chosen, plan
from ottla.cli.outcome import PartlyDone, Refused, broker_option, json_option
from ottla.cli.table import lines_of
from ottla.client.admin import Admin
from ottla.errors import broker_error
from ottla.errors.broker import (
    GroupIdNotFound,
    GroupSubscribedToTopic,
    NonEmptyGroup,
    UnknownMemberId,
)

if TYPE_CHECKING:
    from ottla.client.admin_groups import GroupDescription, PartitionLag
    from ottla.client.lookup import TopicPartition

JSON_VERSION = 1
_DO_IT = "Nothing was done. Do it:  the same command with --yes"
_MEMBERS_SHOWN = 3
_Outer = tuple[str, bool]


@click.group(invoke_without_command=True)
@broker_option
@json_option
@click.pass_context
def command(ctx: click.Context, address: str, as_json: bool) -> None:
    """List, describe, reset and delete consumer groups; without a command, list them."""
    ctx.obj = (address, as_json)
    if ctx.invoked_subcommand is None:
        _list(address, as_json=as_json)


@command.command("list")
@click.option("-b", "--broker", "own_address", metavar="ADDRESS", help="As for `groups`.")
@click.option("--json", "own_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(outer: _Outer, own_address: str | None, own_json: bool) -> None:
    """Print the names of all groups, with their kinds and states."""
    _list(own_address or outer[0], as_json=own_json or outer[1])


def _list(address: str, *, as_json: bool) -> None:
    with Admin(address) as admin:
        groups = admin.list_groups()
    if as_json:
        listed = [
            {"group": each.group_id, "kind": each.kind, "state": each.state} for each in groups
        ]
        _print_json({"groups": listed})
    elif groups:
        _print_table(
            ("group", "kind", "state"),
            [(each.group_id, each.kind, each.state or None) for each in groups],
        )


def _print_json(what: Mapping[str, Any]) -> None:
    click.echo(json.dumps({"version": JSON_VERSION, **what}))


def _print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    for line in lines_of(header, rows):
        click.echo(line)


def _name(where: TopicPartition) -> str:
    return f"{where.topic}/{where.partition}"


# -- describe


@command.command()
@click.argument("group")
@click.option("-b", "--broker", "own_address", metavar="ADDRESS", help="As for `groups`.")
@click.option("--json", "own_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def describe(outer: _Outer, group: str, own_address: str | None, own_json: bool) -> None:
    """Print GROUP's members, and how far it is in each partition.

    `lag` is how many offsets lie between what is committed and the log's end; `behind` how long ago
    the first record was stamped that is not committed yet.
    """
    with Admin(own_address or outer[0]) as admin:
        described = admin.describe_group(group)
        readers = {where: member for member in described.members for where in member.assignment}
        lags = admin.group_lag(group, readers)
    if own_json or outer[1]:
        _print_json(_as_json(described, lags))
        return
    click.echo(f"group     {group}")
    how = ", ".join(each for each in (described.kind, described.assignor) if each)
    click.echo(f"state     {described.state} ({how})")
    click.echo(f"members   {len(described.members)}")
    if described.members:
        _print_table(
            ("member", "client", "host", "partitions"),
            [
                (
                    each.group_instance_id or each.member_id,
                    each.client_id,
                    each.host,
                    " ".join(map(_name, each.assignment)) or None,
                )
                for each in described.members
            ],
        )
    if lags:
        _print_table(
            ("partition", "committed", "log end", "lag", "behind", "read by"),
            [
                (
                    _name(where),
                    None if each.committed is None else each.committed.offset,
                    each.end_offset,
                    each.lag,
                    _seconds(each.behind_ms),
                    readers[where].client_id if where in readers else None,
                )
                for where, each in lags.items()
            ],
        )


def _seconds(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else f"{milliseconds / 1000:.1f} s"


def _as_json(
    described: GroupDescription, lags: Mapping[TopicPartition, PartitionLag]
) -> dict[str, Any]:
    return {
        "group": described.group_id,
        "kind": described.kind,
        "protocol_type": described.protocol_type,
        "state": described.state,
        "assignor": described.assignor,
        "members": [
            {
                "member_id": each.member_id,
                "group_instance_id": each.group_instance_id,
                "client_id": each.client_id,
                "host": each.host,
                "assignment": [where._asdict() for where in each.assignment],
            }
            for each in described.members
        ],
        "partitions": [
            {
                **where._asdict(),
                "committed_offset": None if each.committed is None else each.committed.offset,
                "metadata": None if each.committed is None else each.committed.metadata,
                "end_offset": each.end_offset,
                "lag": each.lag,
                "behind_seconds": None if each.behind_ms is None else each.behind_ms / 1000,
            }
            for where, each in lags.items()
        ],
    }


# -- reset


@command.command()
@click.argument("group")
@click.option("--to-beginning", is_flag=True, help="To the first offsets.")
@click.option("--to-end", is_flag=True, help="To the next offsets to be written.")
@click.option("--to-offset", type=click.IntRange(min=0), metavar="N", help="To offset N.")
@click.option(
    "--to-time",
    metavar="TIME",
    help="To the first records of an ISO time, or of milliseconds since 1970, or later.",
)
@click.option("--shift", type=int, metavar="N", help="N further; back where N is negative.")
@click.option("--like", metavar="GROUP", help="To what another group has committed.")
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="TOPIC[:PARTITION,...]",
    help="Only these; repeatable. Without it, all for which something is committed.",
)
@click.option("--yes", is_flag=True, help="Do it; without this the plan is printed.")
@click.option("-b", "--broker", "own_address", metavar="ADDRESS", help="As for `groups`.")
@click.option("--json", "own_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def reset(outer: _Outer, /, group: str, **options: Any) -> None:
    """Let GROUP go on elsewhere: print what its offsets would become, or do it with --yes.

    It is refused while the group has members.
    """
    target = _target(options)
    yes: bool = options["yes"]
    failed: Mapping[TopicPartition, int] = {}
    with Admin(options["own_address"] or outer[0]) as admin:
        _check_empty(admin, group, "Its offsets were not changed.")
        changes = plan(admin, group, target, options["topics"])
        if yes:
            try:
                failed = admin.alter_group_offsets(
                    group, {change.where: change.new for change in changes}
                )
            except UnknownMemberId as error:  # one has joined since
                raise _refused(group, "has members now", "Its offsets were not changed.") from error
    _print_changes(group, changes, failed, done=yes, as_json=options["own_json"] or outer[1])
    if failed:
        raise _partly(group, failed, "not changed")


def _target(options: Mapping[str, Any]) -> Target:
    given = [
        target
        for target in (
            Target("beginning") if options["to_beginning"] else None,
            Target("end") if options["to_end"] else None,
            None if options["to_offset"] is None else Target("offset", options["to_offset"]),
            None if options["to_time"] is None else Target("time", _time_ms(options["to_time"])),
            None if options["shift"] is None else Target("shift", options["shift"]),
            None if options["like"] is None else Target("like", group_id=options["like"]),
        )
        if target is not None
    ]
    if len(given) != 1:
        raise click.UsageError(
            "say where to with one of --to-beginning, --to-end, --to-offset, --to-time, --shift "
            "and --like"
        )
    return given[0]


def _time_ms(text: str) -> int:
    if text.isdecimal():
        return int(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"--to-time {text!r} is neither an ISO time nor milliseconds since 1970"
        ) from None
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return int((when.astimezone(UTC) - epoch).total_seconds() * 1000)


def _print_changes(
    group: str,
    changes: Sequence[Change],
    failed: Mapping[TopicPartition, int],
    *,
    done: bool,
    as_json: bool,
) -> None:
    if as_json:
        listed = [
            {
                **each.where._asdict(),
                "old_offset": each.old,
                "new_offset": each.new,
                "note": each.note,
                "done": done and each.where not in failed,
            }
            for each in changes
        ]
        _print_json({"group": group, "partitions": listed, "done": done and not failed})
        return
    _print_table(
        ("partition", "old", "", "new", "note"),
        [(_name(each.where), each.old, "->", each.new, each.note) for each in changes],
    )
    if not done:
        click.echo(_DO_IT, err=True)


def _check_empty(admin: Admin, group: str, effect: str) -> GroupDescription | None:
    """Return a group without members, or None where there is none.

    Raises:
        Refused: it has members.
    """
    try:
        described = admin.describe_group(group)
    except GroupIdNotFound:
        return None
    members = described.members
    if members:
        names = [f"{each.client_id} at {each.host}" for each in members[:_MEMBERS_SHOWN]]
        more = ", ..." if len(members) > _MEMBERS_SHOWN else ""
        noun = "member" if len(members) == 1 else "members"
        what = f"has {len(members)} {noun}: {', '.join(names)}{more}"
        raise _refused(group, what, effect)
    return described


def _refused(group: str, what: str, effect: str) -> Refused:
    return Refused(
        f"group {group!r} {what}",
        effect,
        ("Stop its consumers first; one that died is forgotten after its session timeout.",),
    )


def _partly(group: str, failed: Mapping[TopicPartition, int], what: str) -> PartlyDone:
    reasons = "; ".join(
        f"{_name(where)}: {broker_error(code).name}" for where, code in sorted(failed.items())
    )
    return PartlyDone(f"some offsets of group {group!r} were {what}: {reasons}")


# -- delete


@command.command()
@click.argument("group")
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="TOPIC[:PARTITION,...]",
    help="Delete only what it has committed for these; repeatable.",
)
@click.option("--yes", is_flag=True, help="Do it; without this the plan is printed.")
@click.option("-b", "--broker", "own_address", metavar="ADDRESS", help="As for `groups`.")
@click.option("--json", "own_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def delete(
    outer: _Outer,
    group: str,
    topics: tuple[str, ...],
    yes: bool,
    own_address: str | None,
    own_json: bool,
) -> None:
    """Delete GROUP with all that it has committed.

    It is refused while the group has members; with --topic, while they read that.
    """
    failed: Mapping[TopicPartition, int] = {}
    with Admin(own_address or outer[0]) as admin:
        described = (
            admin.describe_group(group)
            if topics
            else _check_empty(admin, group, "It was not deleted.")
        )
        if described is None:
            raise broker_error(GroupIdNotFound.code, f"there is no group {group!r}")
        committed = admin.committed_offsets(group)
        doomed = list(committed)
        if topics:
            wanted = chosen(admin, topics)
            doomed = [where for where in wanted if where in committed]
        if yes:
            failed = _delete(admin, group, doomed if topics else None)
    if own_json or outer[1]:
        listed = [
            {**where._asdict(), "committed_offset": committed[where].offset} for where in doomed
        ]
        what: dict[str, Any] = {"group": group, "whole_group": not topics, "partitions": listed}
        _print_json({**what, "done": yes and not failed})
    else:
        offsets = "1 offset" if len(doomed) == 1 else f"{len(doomed)} offsets"
        what_text = f"{offsets} of {group}" if topics else f"{group} with {offsets}"
        click.echo(f"deleted {what_text}" if yes else f"would delete {what_text}")
        if not yes:
            click.echo(_DO_IT, err=True)
    if failed:
        raise _partly(group, failed, "not deleted")


def _delete(
    admin: Admin, group: str, partitions: Sequence[TopicPartition] | None
) -> Mapping[TopicPartition, int]:
    """Delete offsets of some partitions, or the whole group; returns what failed."""
    try:
        if partitions is None:
            admin.delete_group(group)
        elif partitions:
            return admin.delete_group_offsets(group, partitions)
    except NonEmptyGroup as error:
        raise _refused(group, "has members now", "It was not deleted.") from error
    except GroupSubscribedToTopic as error:
        raise _refused(group, "has members that read this", "Nothing was deleted.") from error
    return {}
