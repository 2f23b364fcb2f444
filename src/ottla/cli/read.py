"""`ottla read`: prints the records of a topic."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from ottla.cli.outcome import broker_option, json_option, text_or_base64
from ottla.client.consumer import Consumer
from ottla.errors import broker_error, codes

if TYPE_CHECKING:
    from ottla.records.batch import Record

_AGO = re.compile(r"-(\d+)(ms|s|m|h|d)")
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@click.command()
@click.argument("topic")
@click.option("-p", "--partition", type=click.IntRange(min=0), help="Only this partition.")
@click.option(
    "--from",
    "start",
    default="beginning",
    metavar="beginning|end|OFFSET|-N|TIME",
    help="Where to begin: an offset, the last N records of each partition, '-10m' (also ms, s, h, "
    "d), or an ISO time.",
)
@click.option("-n", "--count", type=click.IntRange(min=0), help="Stop after so many records.")
@click.option("-f", "--follow", is_flag=True, help="Wait for more at the end.")
@broker_option
@json_option
def command(
    topic: str,
    partition: int | None,
    start: str,
    count: int | None,
    follow: bool,
    address: str,
    as_json: bool,
) -> None:
    """Print the values of TOPIC's records, one a line, up to its end."""
    where, last = _parse_start(start)
    with Consumer(address, stop_at_end=not follow, start=where) as consumer:
        numbers = consumer.partitions_for(topic)
        if partition is not None:
            numbers = [number for number in numbers if number == partition]
        if not numbers:
            missing = f"topic {topic!r}" if partition is None else f"partition {topic}/{partition}"
            raise broker_error(
                codes.UNKNOWN_TOPIC_OR_PARTITION,
                f"there is no {missing}",
                "Nothing was read.",
                ("See what there is:  ottla topics list",),
            )
        consumer.assign((topic, number) for number in numbers)
        if last is not None:
            _seek_to_last(consumer, last)
        _print(consumer, count, as_json=as_json)


def _parse_start(text: str) -> tuple[str | int | datetime, int | None]:
    """Return where to begin, and how many of the last records where that is what was asked."""
    if text in ("beginning", "end"):
        return text, None
    if text.isdigit():
        return int(text), None
    if text[:1] == "-" and text[1:].isdigit():
        return "end", int(text[1:])
    ago = _AGO.fullmatch(text)
    if ago is not None:
        back = timedelta(milliseconds=int(ago[1]) * _UNITS[ago[2]])
        return datetime.now(UTC) - back, None
    try:
        return datetime.fromisoformat(text), None
    except ValueError:
        raise click.UsageError(
            f"--from {text!r} is neither 'beginning', 'end', an offset, -N nor a time"
        ) from None


def _seek_to_last(consumer: Consumer, last: int) -> None:
    first = consumer.beginning_offsets()
    for where, end in consumer.end_offsets().items():
        consumer.seek(where.topic, where.partition, max(first[where], end - last))


def _print(consumer: Consumer, count: int | None, *, as_json: bool) -> None:
    out = sys.stdout.buffer
    left = count
    if left == 0:
        return
    try:
        for record in consumer:
            if as_json:
                out.write(json.dumps(_to_json(record)).encode() + b"\n")
            else:
                out.write((record.value or b"") + b"\n")
            if left is not None:
                left -= 1
                if left == 0:
                    break
            if not consumer.has_buffered:
                out.flush()
    finally:
        out.flush()


def _to_json(record: Record) -> dict[str, Any]:
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        **text_or_base64("key", record.key),
        **text_or_base64("value", record.value),
        "headers": [
            {"name": name, **text_or_base64("value", value)} for name, value in record.headers
        ],
    }
