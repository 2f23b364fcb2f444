"""Writes the facts about configs: names, types, defaults, valid values and synonyms.

All of Kafka's topic configs are written; of its broker configs those that are the defaults of a
topic config and those in `BROKER_NAMES`, which Ottla's broker honours.
"""

from __future__ import annotations

import json
import re
from typing import Any

from codegen.facts import FACTS
from codegen.messages import HEADER

BROKER_NAMES = (
    "advertised.listeners",
    "auto.create.topics.enable",
    "broker.id",
    "connections.max.idle.ms",
    "default.replication.factor",
    "delete.topic.enable",
    "fetch.max.bytes",
    "group.consumer.assignors",
    "group.consumer.heartbeat.interval.ms",
    "group.consumer.max.size",
    "group.consumer.migration.policy",
    "group.consumer.session.timeout.ms",
    "group.initial.rebalance.delay.ms",
    "group.max.session.timeout.ms",
    "group.max.size",
    "group.min.session.timeout.ms",
    "listeners",
    "log.cleaner.backoff.ms",
    "log.cleaner.dedupe.buffer.size",
    "log.cleaner.enable",
    "log.cleaner.io.max.bytes.per.second",
    "log.dirs",
    "log.flush.offset.checkpoint.interval.ms",
    "log.retention.check.interval.ms",
    "max.connections",
    "max.incremental.fetch.session.cache.slots",
    "node.id",
    "num.partitions",
    "offset.metadata.max.bytes",
    "offsets.retention.check.interval.ms",
    "offsets.retention.minutes",
    "offsets.topic.num.partitions",
    "offsets.topic.segment.bytes",
    "producer.id.expiration.ms",
    "queued.max.request.bytes",
    "socket.request.max.bytes",
)


_ANY_CASE = "(case insensitive) "


def _load(file: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (FACTS / file).read_text().splitlines()]
    return [entry for entry in entries if not entry.get("internal")]


def valid_values(kind: str, text: str | None) -> tuple[float | None, float | None, tuple[str, ...]]:
    """Turn Kafka's text about valid values into (least, most, choices); None is "no limit".

    >>> valid_values("INT", "[0,...]"), valid_values("INT", "[1,...,9] or -1")
    ((0, None, ()), (-1, 9, ()))
    >>> valid_values("LIST", "[compact, delete]")
    (None, None, ('compact', 'delete'))
    >>> valid_values("STRING", "(case insensitive) [UPGRADE]")
    (None, None, ('upgrade', 'UPGRADE'))
    """
    if not text or "partitionId" in text:
        return None, None, ()
    span = re.fullmatch(r"\[(-?[\d.]+),\.\.\.(?:,(-?[\d.]+))?\](?: or (-?\d+))?", text)
    if span:
        number = float if kind == "DOUBLE" else int
        least, most, other = (number(part) if part else None for part in span.groups())
        if other is not None and least is not None:
            least = min(least, other)
        return least, most, ()
    if text.startswith(_ANY_CASE):
        choices = valid_values(kind, text.removeprefix(_ANY_CASE))[2]
        return None, None, tuple(each.lower() for each in choices) + choices
    if kind in ("STRING", "LIST") and text.startswith("["):
        return None, None, tuple(part.strip() for part in text[1:-1].split(","))
    raise ValueError(f"unknown form of valid values: {text}")


def _fact(entry: dict[str, Any]) -> str:
    least, most, choices = valid_values(entry["type"], entry["valid"])
    default = None if entry["default"] == "<required>" else entry["default"]
    parts = [_quoted(entry["name"]), _quoted(entry["type"]), _quoted(default)]
    if least is not None or most is not None:
        parts += [repr(least), repr(most)]
    if choices:
        listed = ", ".join(_quoted(choice) for choice in choices)
        parts.append(f"choices=({listed})")
    return f"    ConfigFact({', '.join(parts)}),"


def _quoted(text: str | None) -> str:
    return "None" if text is None else json.dumps(text)


def render() -> str:
    """Return the module of facts about the configs."""
    synonyms = [
        json.loads(line) for line in (FACTS / "config-synonyms.jsonl").read_text().splitlines()
    ]
    wanted = {*BROKER_NAMES, *(name for entry in synonyms for name in entry["broker"])}
    lines = [HEADER.rstrip(), '"""Facts about Kafka\'s topic and broker configs."""', ""]
    lines += ["from __future__ import annotations", "", "from typing import NamedTuple", "", ""]
    lines += [
        "class ConfigFact(NamedTuple):",
        '    """One config: its type, its default and the values that it may have.',
        "",
        "    Attributes:",
        '        type: Kafka\'s word: "BOOLEAN", "INT", "LONG", "DOUBLE", "STRING" or "LIST".',
        "        default: as text; None where there is none.",
        "        least: the least valid number, inclusive.",
        "        most: the greatest valid number, inclusive.",
        "        choices: the only valid values, where there are such.",
        '    """',
        "",
        "    name: str",
        "    type: str",
        "    default: str | None",
        "    least: float | None = None",
        "    most: float | None = None",
        "    choices: tuple[str, ...] = ()",
        "",
        "",
        "TOPIC_CONFIGS = (",
    ]
    lines += [_fact(entry) for entry in _load("configs-topic.jsonl")]
    lines += [")", "", "BROKER_CONFIGS = ("]
    lines += [_fact(entry) for entry in _load("configs-broker.jsonl") if entry["name"] in wanted]
    lines += [")", "", "BROKER_SYNONYMS: dict[str, tuple[str, ...]] = {"]
    for entry in synonyms:
        names = ", ".join(_quoted(name) for name in entry["broker"])
        comma = "," if len(entry["broker"]) == 1 else ""
        lines.append(f"    {_quoted(entry['topic'])}: ({names}{comma}),")
    lines += [
        "}",
        '"""Topic config -> the broker configs that give its default, first one first."""',
    ]
    return "\n".join(lines) + "\n"
