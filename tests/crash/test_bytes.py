"""Damaged bytes are never served, and hide nothing."""

from __future__ import annotations

import pytest

from tests.crash.bytes import SAMPLE, STOPS, Stop, run


@pytest.mark.slow
@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.name)
def test_whatever_byte_is_damaged_nothing_wrong_is_read_and_nothing_else_is_lost(
    stop: Stop,
) -> None:
    row = run(stop, SAMPLE)
    assert row.is_good, row.problems
