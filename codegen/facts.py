"""Reads the schema facts: one JSON object a line, as Apache Kafka 4.3.1 defines its messages.

`schema/older.jsonl` adds the few fields of versions that Kafka 4 no longer accepts and Ottla's
broker still answers.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCHEMA = HERE / "schema"
FACTS = HERE / "facts"
ANY = 32767
"""Stands for "no last version" and, as a first version, for "never"."""


@dataclass(frozen=True)
class Versions:
    """A range of versions, both ends inclusive."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str | None) -> Versions:
        """Read "none", "3", "3+" or "3-7"; None is read as "none"."""
        if text is None or text == "none":
            return cls(ANY, -1)
        if text.endswith("+"):
            return cls(int(text[:-1]), ANY)
        first, _, last = text.partition("-")
        return cls(int(first), int(last or first))


@dataclass(frozen=True)
class FieldFact:
    """One field of a structure."""

    name: str
    type: str
    versions: Versions
    nullable: Versions
    tagged: Versions
    tag: int
    default: Any
    ignorable: bool
    never_flexible: bool
    struct: StructFact | None

    @property
    def is_array(self) -> bool:
        return self.type.startswith("[]")

    @property
    def element(self) -> str:
        """The type without its array brackets."""
        return self.type.removeprefix("[]")


@dataclass(frozen=True)
class StructFact:
    """A structure: the message itself or one inside it."""

    name: str
    fields: tuple[FieldFact, ...]


@dataclass(frozen=True)
class MessageFact:
    """One message with all its versions."""

    struct: StructFact
    kind: str
    api_key: int | None
    versions: Versions
    flexible: Versions
    structs: tuple[StructFact, ...] = field(default=())
    """The structures inside, those that others use first."""

    @property
    def name(self) -> str:
        return self.struct.name


def snake(name: str) -> str:
    """Turn a schema's CamelCase name into snake_case.

    >>> snake("TopicId"), snake("V3AndBelowTopics"), snake("IsKRaftVersion"), snake("ISR")
    ('topic_id', 'v3_and_below_topics', 'is_k_raft_version', 'isr')
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return spaced.lower()


def load_messages(file: str) -> list[MessageFact]:
    """Load the messages of one schema file that have versions at all."""
    older = _load_older()
    found = []
    for line in (SCHEMA / file).read_text().splitlines():
        entry = json.loads(line)
        if entry["validVersions"] == "none":
            continue
        for extra in older.get(entry["name"], ()):
            _insert_field(entry["fields"], extra["after"], extra["field"])
        found.append(_message(entry))
    return found


def _load_older() -> dict[str, list[dict[str, Any]]]:
    older: dict[str, list[dict[str, Any]]] = {}
    for line in (SCHEMA / "older.jsonl").read_text().splitlines():
        entry = json.loads(line)
        older.setdefault(entry["message"], []).append(entry)
    return older


def _insert_field(fields: list[dict[str, Any]], after: str, new: dict[str, Any]) -> bool:
    for index, entry in enumerate(fields):
        if entry["name"] == after:
            fields.insert(index + 1, new)
            return True
        if _insert_field(entry.get("fields", []), after, new):
            return True
    return False


def _message(entry: dict[str, Any]) -> MessageFact:
    common = {struct["name"]: struct["fields"] for struct in entry.get("commonStructs", ())}
    structs: dict[str, StructFact] = {}

    def struct_of(name: str, fields: list[dict[str, Any]]) -> StructFact:
        return StructFact(name, tuple(field_of(each) for each in fields))

    def field_of(fact: dict[str, Any]) -> FieldFact:
        element = fact["type"].removeprefix("[]")
        struct = None
        if element[0].isupper():
            if element not in structs:
                structs[element] = struct_of(element, fact.get("fields") or common[element])
            struct = structs[element]
        tagged = Versions.parse(fact.get("taggedVersions"))
        return FieldFact(
            name=snake(fact["name"]),
            type=fact["type"],
            versions=Versions.parse(fact.get("versions") or fact["taggedVersions"]),
            nullable=Versions.parse(fact.get("nullableVersions")),
            tagged=tagged,
            tag=fact.get("tag", -1),
            default=fact.get("default"),
            ignorable=bool(fact.get("ignorable", False)),
            never_flexible=fact.get("flexibleVersions") == "none",
            struct=struct,
        )

    top = struct_of(entry["name"], entry["fields"])
    return MessageFact(
        struct=top,
        kind=entry["type"],
        api_key=entry.get("apiKey"),
        versions=Versions.parse(entry["validVersions"]),
        flexible=Versions.parse(entry["flexibleVersions"]),
        structs=tuple(structs.values()),
    )
