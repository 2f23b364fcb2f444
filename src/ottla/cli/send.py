"""`ottla send`: sends records and shows that they are stored."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ottla.cli.outcome import PartlyDone, broker_option, json_option
from ottla.client.producer import Producer
from ottla.clock import SYSTEM
from ottla.errors import DeliveryError, KafkaError
from ottla.wire.compression import NAMES

if TYPE_CHECKING:
    from ottla.client.delivery import Delivery

JSON_VERSION = 1
_PROGRESS_EVERY_MS = 1000


class _Ranges:
    """Counts records, and how far each partition got."""

    def __init__(self) -> None:
        self.sent = 0
        self.last: dict[int, Delivery] = {}
        self.stored: dict[int, list[int]] = {}

    def stored_one(self, delivery: Delivery) -> None:
        """Take note of an outcome."""
        offset, partition = delivery.offset, delivery.partition
        if delivery.state == "stored" and partition is not None:
            at = -1 if offset is None else offset
            found = self.stored.setdefault(partition, [at, at, 0])
            found[0], found[1] = min(found[0], at), max(found[1], at)
            found[2] += 1

    @property
    def count(self) -> int:
        """How many were stored."""
        return sum(found[2] for found in self.stored.values())


@click.command()
@click.argument("topic")
@click.argument("values", nargs=-1, metavar="[VALUE]...")
@click.option("-k", "--key", help="The key of every record.")
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header; repeatable."
)
@click.option("-p", "--partition", type=click.IntRange(min=0), help="The partition.")
@click.option(
    "-z", "--compression", type=click.Choice(NAMES), default="none", help="Compress with a codec."
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing where all is well.")
@broker_option
@json_option
def command(
    topic: str,
    values: tuple[str, ...],
    key: str | None,
    headers: tuple[str, ...],
    partition: int | None,
    compression: str,
    quiet: bool,
    address: str,
    as_json: bool,
) -> None:
    """Send VALUEs to TOPIC, or where none is given each line of stdin.

    A single value is shown step by step until it is stored. The command returns when everything is
    stored and readable, and fails where anything is not.
    """
    record: dict[str, Any] = {
        "key": key,
        "headers": [_header(text) for text in headers] or None,
        "partition": partition,
    }
    single = len(values) == 1
    producer = Producer(address, compression_type=compression, trace=single)
    if single:
        _send_one(producer, topic, values[0].encode(), record, quiet=quiet, as_json=as_json)
    else:
        encoded = (value.encode() for value in values) if values else _lines()
        _send_many(producer, topic, encoded, record, quiet=quiet, as_json=as_json)


def _header(text: str) -> tuple[str, bytes]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.UsageError(f"a header is NAME=VALUE, not {text!r}")
    return name, value.encode()


def _lines() -> Iterator[bytes]:
    if sys.stdin.isatty():
        click.echo("one value a line, Ctrl-D ends", err=True)
    for line in sys.stdin.buffer:
        yield line[:-1] if line.endswith(b"\n") else line


def _send_one(
    producer: Producer,
    topic: str,
    value: bytes,
    record: dict[str, Any],
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    delivery = producer.send(topic, value, **record)
    problem: DeliveryError | None = None
    try:
        producer.flush()
    except DeliveryError as error:
        problem = error
    life = producer.trace(delivery)
    if as_json:
        click.echo(json.dumps(life.to_json()))
    elif not quiet:
        click.echo(life.text())
    if problem is not None:
        raise problem
    producer.close()


def _send_many(
    producer: Producer,
    topic: str,
    values: Iterable[bytes],
    record: dict[str, Any],
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    ranges = _Ranges()
    problem: KafkaError | None = None
    started = told = SYSTEM.monotonic_ms()
    try:
        for value in values:
            producer.send(topic, value, on_delivery=ranges.stored_one, **record)
            ranges.sent += 1
            if ranges.sent % 1000 == 0 and SYSTEM.monotonic_ms() - told > _PROGRESS_EVERY_MS:
                told = SYSTEM.monotonic_ms()
                _progress(ranges, (told - started) / 1000, quiet=quiet)
    except KafkaError as error:
        problem = error
    try:
        producer.close()
    except KafkaError as error:
        problem = error
    _report(topic, ranges, quiet=quiet, as_json=as_json)
    if problem is None:
        return
    if ranges.count:
        stored = "1 record was" if ranges.count == 1 else f"{ranges.count} records were"
        raise PartlyDone(
            f"{stored} stored, then: {problem.what}",
            problem.effect,
            problem.next_steps,
        ) from problem
    raise problem


def _progress(ranges: _Ranges, seconds: float, *, quiet: bool) -> None:
    if not quiet and sys.stderr.isatty():
        from rich.console import Console

        rate = ranges.count / seconds
        Console(stderr=True).print(
            f"{ranges.sent:,} sent, {ranges.count:,} stored, {rate:,.0f}/s", end="\r"
        )


def _report(topic: str, ranges: _Ranges, *, quiet: bool, as_json: bool) -> None:
    found = sorted(ranges.stored.items())
    if as_json:
        partitions = [
            {"partition": number, "first_offset": first, "last_offset": last, "count": count}
            for number, (first, last, count) in found
        ]
        report = {
            "version": JSON_VERSION,
            "topic": topic,
            "sent": ranges.sent,
            "stored": ranges.count,
            "partitions": partitions,
        }
        click.echo(json.dumps(report))
    elif not quiet:
        for number, (first, last, count) in found:
            noun = "record" if count == 1 else "records"
            click.echo(f"{topic}/{number}: {count} {noun} stored, offsets {first} to {last}")
