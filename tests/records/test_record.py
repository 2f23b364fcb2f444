"""A record's attributes, however they are asked for."""

from __future__ import annotations

import pytest

from ottla import Record


def record(kind: type[Record] = Record) -> Record:
    return kind("t", 3, 7, 1000, b"k", b"v", [("h", None)])


def test_an_attribute_is_found_under_a_name_that_is_made_at_run_time_too() -> None:
    each = record()
    assert getattr(each, "".join(["va", "lue"])) == each.value == b"v"
    assert getattr(each, "".join(["ke", "y"])) == each.key == b"k"
    assert (each.topic, each.partition, each.offset, each.timestamp_ms) == ("t", 3, 7, 1000)
    assert each.headers == [("h", None)]


def test_an_attribute_that_a_record_has_not_is_none_of_its_value() -> None:
    each = record()
    with pytest.raises(AttributeError, match="valu"):
        getattr(each, "valu")  # noqa: B009 - mypy knows that there is none
    with pytest.raises(AttributeError):
        each.value = b"w"  # type: ignore[misc]  # nobody may
    assert each.value == b"v"


def test_a_class_of_records_may_have_another_value() -> None:
    class Loud(Record):
        @property
        def value(self) -> bytes:
            return b"loud"

    assert record(Loud).value == b"loud"
    assert record(Loud).key == b"k"
