"""What holds a buffer may be part of a cycle: the garbage collector takes it without complaint."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from ottla.records.batch import iterate_records, read_header
from ottla.records.builder import batch_of
from ottla.wire.cursor import Reader


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
