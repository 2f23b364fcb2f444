"""Processes that are killed at their calls to the kernel, or told of an error, as in `syscalls`.

Some of the calls; `python -m tests.crash` takes all of them.
"""

from __future__ import annotations

import pytest

from tests.crash.report import Row, table
from tests.crash.syscalls import FAULTS, KILL, rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found() -> dict[str, Row]:
    return {row.what: row for row in rows(full=False)}


def check(row: Row) -> None:
    if row.skipped:
        pytest.skip(row.skipped)
    assert row.is_good, table([row])


def test_a_store_is_whole_at_whatever_call_its_process_is_killed(found: dict[str, Row]) -> None:
    check(found[KILL])


@pytest.mark.parametrize("what", FAULTS)
def test_whatever_call_fails_what_was_confirmed_is_there_and_nothing_else(
    found: dict[str, Row], what: str
) -> None:
    check(found[what])
