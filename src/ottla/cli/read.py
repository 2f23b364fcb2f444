"""`ottla read`: prints the records of a topic."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ottla.cli.outcome import broker_option, json_option, text_or_base64
from ottla.client.consumer import Consumer
from ottla.errors import BrokerError, broker_error, codes

if TYPE_CHECKING:
    from ottla.records.record import Record

_AGO = re.compile(r"-(\d+)(ms|s|m|h|d)")
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@click.command()
@click.argument("topic")
@click.option(
    "-g",
    "--group",
    help="Read as a member of this group: from where it has committed, and commit what is printed.",
)
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
    group: str | None,
    partition: int | None,
    start: str,
    count: int | None,
    follow: bool,
    address: str,
    as_json: bool,
) -> None:
    """Print the values of TOPIC's records, one a line, up to its end."""
    where, last = _parse_start(start)
    if group is not None:
        if partition is not None or last is not None:
            raise click.UsageError("-p and --from -N do not go with -g: the group shares and knows")
        _read_as_member(topic, group, where, count, _Reading(address, as_json, follow))
        return
    with Consumer(address, stop_at_end=not follow, start=where) as consumer:
        numbers = consumer.partitions_for(topic)
        if partition is not None:
            numbers = [number for number in numbers if number == partition]
        if not numbers:
            missing = f"topic {topic!r}" if partition is None else f"partition {topic}/{partition}"
            raise _missing(missing)
        consumer.assign((topic, number) for number in numbers)
        if last is not None:
            _seek_to_last(consumer, last)
        _print(consumer, count, as_json=as_json)


class _Reading(NamedTuple):
    """How is read."""

    address: str
    as_json: bool
    follow: bool


def _read_as_member(
    topic: str, group: str, start: str | int | datetime, count: int | None, how: _Reading
) -> None:
    """Print this member's share; what is printed is committed once it is out, and not before."""
    with Consumer(
        how.address,
        topic,
        group=group,
        start=start,
        stop_at_end=not how.follow,
        enable_auto_commit=False,
    ) as consumer:
        if not consumer.partitions_for(topic):
            raise _missing(f"topic {topic!r}")
        _print(consumer, count, as_json=how.as_json, commits=True)


def _missing(what: str) -> BrokerError:
    return broker_error(
        codes.UNKNOWN_TOPIC_OR_PARTITION,
        f"there is no {what}",
        "Nothing was read.",
        ("See what there is:  ottla topics list",),
    )


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


def _print(consumer: Consumer, count: int | None, *, as_json: bool, commits: bool = False) -> None:
    out = sys.stdout.buffer
    left = count
    printed: dict[tuple[str, int], int] = {}
    if left == 0:
        return
    try:
        for record in consumer:
            if as_json:
                out.write(json.dumps(_to_json(record)).encode() + b"\n")
            else:
                out.write((record.value or b"") + b"\n")
            if commits:
                printed[record.topic, record.partition] = record.offset + 1
            if left is not None:
                left -= 1
                if left == 0:
                    break
            if not consumer.has_buffered:
                out.flush()
                if commits:
                    consumer.commit(printed)
                    printed.clear()
    finally:
        out.flush()
        if printed:
            consumer.commit(printed)


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
