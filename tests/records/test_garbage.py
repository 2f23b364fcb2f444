"""What holds a buffer may be part of a cycle: the garbage collector takes it without complaint."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest

from ottla.records.batch import iterate_records, read_header
from ottla.records.builder import batch_of
from ottla.wire.cursor import Reader


class Value:
    """Refers to the record that it is the value of."""


def test_a_record_in_a_cycle_with_what_was_made_of_its_value_is_let_go() -> None:
    data = batch_of([(b"k", b"v")], 0)
    (record,) = iterate_records(data, read_header(data))
    value = Value()
    value.record = record  # type: ignore[attr-defined]  # people do so
    record.replace(None, value)
    assert record.value is value
    gone = weakref.ref(value)
    del record, value
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("kind", ["records", "record", "reader"])
def test_a_buffer_in_a_cycle_is_let_go_without_an_error(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    for _ in range(20):
        view = memoryview(bytearray(batch_of([(b"k", b"v")] * 3, 0)))[:]
        cycle: dict[str, object] = {"view": view}
        cycle["self"] = cycle
        if kind == "reader":
            cycle["held"] = Reader(view)
        else:
            records = iterate_records(view, read_header(view))
            cycle["held"] = records if kind == "records" else next(records)
        del view, cycle
        records = None  # type: ignore[assignment]  # only the cycle is to hold it
        gc.collect()
    assert complaints == []
