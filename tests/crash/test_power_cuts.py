"""Power cuts below a serving broker, a few; many: `python -m tests.crash --full`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from tests.crash.kills import QUIET
from tests.crash.power_cuts import CYCLES_SHORT, FILE_SYSTEMS, PowerCuts, why_not

WITHOUT_SYNCS = """
from ottla.log.files import OsFile

begin_sync = OsFile.begin_sync

def begin_none(file):
    begun = begin_sync(file)
    return begun if "__cluster_metadata" in file.path else lambda: None

OsFile.begin_sync = begin_none
from ottla.cli.main import main
main()
"""
"""A broker that makes durable which topics there are, and no records."""


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def skip_where_impossible(file_system: str) -> None:
    reason = why_not(file_system)
    if reason:
        pytest.skip(f"power cuts on {file_system}: {reason}")


@pytest.mark.slow
@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_what_was_confirmed_survives_power_cuts(file_system: str) -> None:
    skip_where_impossible(file_system)
    row = PowerCuts(file_system, CYCLES_SHORT, 0).run()
    assert row.acknowledged > 0
    assert row.is_good, row.problems


@pytest.mark.slow
@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_a_broker_that_does_not_sync_is_caught(file_system: str) -> None:
    skip_where_impossible(file_system)
    command = (sys.executable, "-c", WITHOUT_SYNCS)
    row = PowerCuts(file_system, 3, 0, command, QUIET).run()
    assert row.lost > 0
