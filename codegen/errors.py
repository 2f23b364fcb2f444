"""Writes the error codes as constants and as one exception class each."""

from __future__ import annotations

import json

from codegen.facts import FACTS
from codegen.messages import HEADER


def load() -> list[dict[str, object]]:
    """Return Kafka's error codes in order of their number."""
    return [json.loads(line) for line in (FACTS / "errors.jsonl").read_text().splitlines()]


def class_name(name: str) -> str:
    """Turn a code's name into its class's.

    >>> class_name("UNKNOWN_TOPIC_OR_PARTITION"), class_name("INVALID_TOPIC_EXCEPTION")
    ('UnknownTopicOrPartition', 'InvalidTopic')
    """
    return "".join(part.capitalize() for part in name.removesuffix("_EXCEPTION").split("_"))


def render_codes() -> str:
    """Return the module of the codes' numbers."""
    lines = [HEADER.rstrip(), '"""Kafka\'s error codes as they stand on the wire."""', ""]
    lines.append("from typing import Final")
    lines.append("")
    lines += [f"{entry['name']}: Final = {entry['code']}" for entry in load()]
    return "\n".join(lines) + "\n"


def render_classes() -> str:
    """Return the module of the codes' classes."""
    lines = [HEADER.rstrip(), '"""One exception class for each of Kafka\'s error codes."""', ""]
    lines += ["from __future__ import annotations", ""]
    lines += ["from ottla.errors.tree import BrokerError", ""]
    names = []
    for entry in load():
        if entry["code"] == 0:
            continue
        name = class_name(str(entry["name"]))
        names.append(name)
        lines += ["", f"class {name}(BrokerError):", f'    """Code {entry["code"]}."""', ""]
        lines.append(f"    code = {entry['code']}")
        lines.append(f'    name = "{entry["name"]}"')
        if entry["retriable"]:
            lines.append("    retriable = True")
        if entry["refresh_metadata"]:
            lines.append("    refresh_metadata = True")
        lines.append("")
    lines += ["", "BY_CODE: dict[int, type[BrokerError]] = {"]
    lines += [f"    {name}.code: {name}," for name in names]
    lines += ["}", "", "__all__ = ["]
    lines += [f'    "{name}",' for name in ["BY_CODE", *sorted(names)]]
    return "\n".join([*lines, "]", ""])
