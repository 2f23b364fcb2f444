"""A test that hangs ends the run, which tells where it hung."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.tidy.repository import ROOT

PATIENCE_S = 300

HANGS = """
import threading

def test_that_hangs():
    threading.Event().wait()
"""

LEAVES_A_THREAD = """
import threading

def test_that_leaves_a_thread():
    threading.Thread(target=threading.Event().wait).start()
"""


def run(folder: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    file = folder / "test_planted.py"
    file.write_text(test)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", *options, file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_a_test_that_hangs_ends_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, HANGS, "-o", "faulthandler_timeout=1")
    assert done.returncode == 1
    assert "in test_that_hangs" in done.stderr


def test_a_thread_that_a_test_has_left_does_not_keep_the_run_from_ending(tmp_path: Path) -> None:
    code = "from tests import conftest; conftest.EXIT_TIMEOUT_S = 1; from tests.conftest import *"
    (tmp_path / "impatient.py").write_text(code)
    done = run(tmp_path, LEAVES_A_THREAD, "-p", "impatient", "-o", f"pythonpath=. {tmp_path}")
    assert done.returncode == 1
    assert "1 passed" in done.stdout
    assert "Timeout" in done.stderr
