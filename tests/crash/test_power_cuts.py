"""Power cuts below a serving broker, a few; many: `python -m tests.crash --full`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.crash.kills import QUIET
from tests.crash.power_cuts import CYCLES_SHORT, FILE_SYSTEMS, PowerCuts, image_in, why_not

WITHOUT_SYNCS = """
import os

from ottla.log import files

sync_data = files.sync_data

def sync_metadata(descriptor):
    if "__cluster_metadata" in os.readlink(f"/proc/self/fd/{descriptor}"):
        sync_data(descriptor)

files.sync_data = sync_metadata
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


@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_a_file_system_that_somebody_else_holds_is_not_mounted_again_as_it_was_shut_down(
    file_system: str, tmp_path: Path
) -> None:
    skip_where_impossible(file_system)
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare, which holds a mount in another namespace")
    with image_in(tmp_path, file_system) as image:
        (image.mounted / "before").touch()
        holder = ("unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; sleep 1")
        with subprocess.Popen(holder, stdout=subprocess.PIPE) as held:
            assert held.stdout is not None
            held.stdout.readline()
            image.cut()
            image.unmount()
            image.mount()
        (image.mounted / "after").touch()
        image.unmount()
