"""`ottla topics`: lists, creates, describes and deletes topics."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ottla.cli.outcome import broker_option, json_option
from ottla.client.admin import Admin
from ottla.client.consumer import Consumer

if TYPE_CHECKING:
    from collections.abc import Sequence

JSON_VERSION = 1


@click.group(invoke_without_command=True)
@broker_option
@json_option
@click.pass_context
def command(ctx: click.Context, address: str, as_json: bool) -> None:
    """List, create, describe and delete topics; without a command, list them."""
    ctx.obj = (address, as_json)
    if ctx.invoked_subcommand is None:
        _list(address, as_json=as_json)


@command.command("list")
@click.option("-b", "--broker", "own_address", metavar="ADDRESS", help="As for `topics`.")
@click.option("--json", "own_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(outer: tuple[str, bool], own_address: str | None, own_json: bool) -> None:
    """Print the names of all topics."""
    _list(own_address or outer[0], as_json=own_json or outer[1])


def _list(address: str, *, as_json: bool) -> None:
    with Admin(address) as admin:
        names = admin.list_topics()
    if as_json:
        click.echo(json.dumps({"version": JSON_VERSION, "topics": names}))
    else:
        for name in names:
            click.echo(name)


@command.command()
@click.argument("name")
@click.option("--partitions", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--config", "configs", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("-b", "--broker", "own_address", metavar="ADDRESS", help="As for `topics`.")
@click.option("--json", "own_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def create(
    outer: tuple[str, bool],
    name: str,
    partitions: int,
    configs: tuple[str, ...],
    own_address: str | None,
    own_json: bool,
) -> None:
    """Create topic NAME."""
    with Admin(own_address or outer[0]) as admin:
        admin.create_topic(name, partitions, configs=dict(_pairs(configs)))
    if own_json or outer[1]:
        created = {"version": JSON_VERSION, "created": name, "partitions": partitions}
        click.echo(json.dumps(created))
    else:
        noun = "partition" if partitions == 1 else "partitions"
        click.echo(f"created {name} with {partitions} {noun}")


def _pairs(configs: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for text in configs:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise click.UsageError(f"a config is NAME=VALUE, not {text!r}")
        pairs.append((name, value))
    return pairs


@command.command()
@click.argument("name")
@click.option("-b", "--broker", "own_address", metavar="ADDRESS", help="As for `topics`.")
@click.option("--json", "own_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def describe(outer: tuple[str, bool], name: str, own_address: str | None, own_json: bool) -> None:
    """Print topic NAME's partitions, and the configs that are not the defaults."""
    address = own_address or outer[0]
    description = _describe(address, name)
    if own_json or outer[1]:
        click.echo(json.dumps(description))
        return
    click.echo(f"topic     {name}")
    click.echo(f"topic id  {description['topic_id']}")
    click.echo("partition  leader  first offset  end offset  records")
    for each in description["partitions"]:
        records = each["end_offset"] - each["first_offset"]
        click.echo(
            f"{each['partition']:9}  {each['leader']:6}  {each['first_offset']:12}  "
            f"{each['end_offset']:10}  {records:7}"
        )
    for config in description["configs"]:
        click.echo(f"config    {config['name']}={config['value']} ({config['source']})")


def _describe(address: str, name: str) -> dict[str, Any]:
    with Admin(address) as admin:
        topic = admin.describe_topic(name)
        configs = admin.describe_configs(name)
    with Consumer(address) as consumer:
        partitions = [(name, each.partition) for each in topic.partitions]
        first = consumer.beginning_offsets(partitions)
        ends = consumer.end_offsets(partitions)
    return {
        "version": JSON_VERSION,
        "name": name,
        "topic_id": str(topic.topic_id),
        "partitions": [
            {
                "partition": where.partition,
                "leader": each.leader,
                "leader_epoch": each.leader_epoch,
                "first_offset": first[where],
                "end_offset": ends[where],
            }
            for each, where in zip(topic.partitions, sorted(ends), strict=True)
        ],
        "configs": [
            {"name": each.name, "value": each.value, "source": each.source}
            for each in configs.values()
            if each.source != "default"
        ],
    }


@command.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do it; without this the plan is printed.")
@click.option("-b", "--broker", "own_address", metavar="ADDRESS", help="As for `topics`.")
@click.option("--json", "own_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def delete(
    outer: tuple[str, bool], name: str, yes: bool, own_address: str | None, own_json: bool
) -> None:
    """Delete topic NAME with all its records."""
    address = own_address or outer[0]
    description = _describe(address, name)
    partitions = description["partitions"]
    records = sum(each["end_offset"] - each["first_offset"] for each in partitions)
    if yes:
        with Admin(address) as admin:
            admin.delete_topic(name)
    if own_json or outer[1]:
        plan = {"topic": name, "partitions": len(partitions), "records": records, "done": yes}
        click.echo(json.dumps({"version": JSON_VERSION, **plan}))
        return
    what = f"{name}: {len(partitions)} partition(s), up to {records} record(s)"
    click.echo(f"deleted {what}" if yes else f"would delete {what}")
    if not yes:
        click.echo("Nothing was done. Do it:  the same command with --yes", err=True)
