"""`kill -9` of a serving broker under load, a few times; many: `python -m tests.crash --full`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from tests.crash.kills import CYCLES_SHORT, LATE, QUIET, Kills

SERVE = "from ottla.cli.main import main; main()"

FORGETS_PRODUCERS = """
import os

os.environ["OTTLA_PURE"] = "1"  # compiled classes cannot be changed
from ottla.errors import codes
from ottla.log.producer_state import ProducerState

ProducerState.check = lambda self, header: codes.NONE
"""

CUTS_TOO_MUCH = """
import os, pathlib, sys

for folder in pathlib.Path(sys.argv[2]).glob("[!_]*-*"):
    last = max(folder.glob("*.log"), default=None)
    if last is not None:
        os.truncate(last, last.stat().st_size // 2)
"""
"""A stand-in for a recovery that takes what is intact for a torn tail.

It takes half of the segment: what comes last in it has often not been acknowledged.
"""


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.slow
def test_what_was_confirmed_survives_kill_9_and_nothing_is_stored_twice() -> None:
    row = Kills(CYCLES_SHORT, seed=0).run()
    assert row.acknowledged > 0
    assert row.is_good, row.problems


@pytest.mark.slow
def test_a_broker_that_stores_what_is_sent_again_is_caught() -> None:
    row = Kills(5, 0, (sys.executable, "-c", FORGETS_PRODUCERS + SERVE), kinds=(LATE,)).run()
    assert row.duplicated > 0


@pytest.mark.slow
def test_a_broker_that_cuts_off_too_much_is_caught() -> None:
    row = Kills(3, 0, (sys.executable, "-c", CUTS_TOO_MUCH + SERVE), QUIET).run()
    assert row.lost > 0
