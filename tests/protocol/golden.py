"""The golden vectors: messages that Apache Kafka's own classes encoded, with their values."""

from __future__ import annotations

import base64
import importlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from codegen.facts import FieldFact, MessageFact, StructFact, load_messages, snake
from codegen.messages import FAMILIES, module_of
from ottla.protocol.message import Message

FOLDER = Path(__file__).parent.parent / "data" / "golden"
FILES = ("rpc", "group", "metadata", "transaction", "storage")


@dataclass(frozen=True)
class Vector:
    """One message at one version: its value as JSON and its bytes."""

    message: str
    version: int
    case: str
    value: dict[str, Any]
    encoded: bytes

    @property
    def id(self) -> str:
        return f"{self.message}-v{self.version}-{self.case}"


@cache
def vectors() -> tuple[Vector, ...]:
    found = []
    for file in FILES:
        for line in (FOLDER / f"{file}.jsonl").read_text().splitlines():
            entry = json.loads(line)
            encoded = bytes.fromhex(entry.pop("hex"))
            found.append(Vector(encoded=encoded, **entry))
    return tuple(found)


@cache
def _facts() -> dict[str, tuple[MessageFact, str]]:
    facts = {fact.name: (fact, module_of(fact)) for fact in load_messages("rpc.jsonl")}
    for module, file in FAMILIES.items():
        facts.update({fact.name: (fact, module) for fact in load_messages(file)})
    return facts


def message_class(name: str) -> type[Message]:
    """Return the generated class of a message."""
    module = importlib.import_module(f"ottla.protocol.messages.{_facts()[name][1]}")
    found: type[Message] = getattr(module, name)
    return found


def to_message(vector: Vector, records: list[memoryview]) -> Message:
    """Build the message from the vector's JSON.

    Args:
        vector: the vector.
        records: what stands for `records`, in order; the JSON only tells whether there are any.
    """
    cls = message_class(vector.message)
    struct = _facts()[vector.message][0].struct
    message: Message = _build_struct(cls, cls, struct, vector.value, records)
    return message


def _build_struct(
    top: Any, cls: Any, struct: StructFact, value: dict[str, Any], records: list[memoryview]
) -> Any:
    given = {snake(name): each for name, each in value.items()}
    unknown = set(given) - {field.name for field in struct.fields}
    assert not unknown, unknown
    fields = {}
    for field in struct.fields:
        if field.name in given:
            fields[field.name] = _value(top, field, given[field.name], records)
    return cls(**fields)


def _value(top: Any, field: FieldFact, value: Any, records: list[memoryview]) -> Any:
    if value is None:
        return None
    if field.is_array:
        return [_one(top, field, each, records) for each in value]
    return _one(top, field, value, records)


def _one(top: Any, field: FieldFact, value: Any, records: list[memoryview]) -> Any:
    if field.struct:
        cls = getattr(top, field.struct.name)
        return _build_struct(top, cls, field.struct, value, records)
    if field.element == "bytes":
        return base64.b64decode(value)
    if field.element == "uuid":
        return base64.urlsafe_b64decode(value + "==")
    if field.element == "records":
        return records.pop(0)
    return value


def collect_records(message: Any) -> list[memoryview]:
    """Return every `records` value inside a decoded message, in the order of its fields."""
    found: list[memoryview] = []
    for name in message.__slots__:
        value = getattr(message, name)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, memoryview):
                found.append(each)
            elif isinstance(each, Message):
                found += collect_records(each)
    return found
