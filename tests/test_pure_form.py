"""The compiled modules are in use, and their source does the same when it runs uncompiled.

The source runs in a process of its own with OTTLA_PURE=1: all tests of `wire`, `records` and
`protocol`, the golden vectors among them, with ten examples for each property and, where tests go
through every byte of many inputs, each seventh or ninth of those; and those of the client that need
no socket, or few.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from ottla._compiled import MODULES, is_compiled, pure_on_purpose

ROOT = Path(__file__).parent.parent
FOLDERS = ("tests/wire", "tests/records", "tests/protocol")
CLIENT = (
    "tests/client/test_accumulator.py",
    "tests/client/test_partitioner.py",
    "tests/client/test_sender.py",
    "tests/client/test_membership.py",
    "tests/client/test_consumer_membership.py",
    "tests/client/test_group_commits.py",
)

SHOW_FORMS = """
import importlib
from ottla._compiled import MODULES, is_compiled
for name in MODULES:
    print(importlib.import_module(name).__file__.rpartition(".")[2], is_compiled(name))
"""


def run_pure(*arguments: str) -> str:
    """Run Python with OTTLA_PURE=1 and return what it printed."""
    environment = os.environ | {"OTTLA_PURE": "1", "OTTLA_HYPOTHESIS": "brief"}
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.skipif(pure_on_purpose(), reason="OTTLA_PURE=1 asks for the other form")
@pytest.mark.parametrize("name", MODULES)
def test_the_compiled_form_is_in_use(name: str) -> None:
    assert is_compiled(name)
    file = importlib.import_module(name).__file__
    assert file is not None
    assert file.endswith(tuple(EXTENSION_SUFFIXES))


@pytest.mark.slow
def test_asked_for_on_purpose_every_module_runs_from_its_source() -> None:
    assert run_pure("-c", SHOW_FORMS).splitlines() == ["py False"] * len(MODULES)


@pytest.mark.slow
@pytest.mark.parametrize("tests", [FOLDERS, CLIENT], ids=["codecs", "client"])
def test_the_source_passes_the_tests_of_the_compiled_form(tests: tuple[str, ...]) -> None:
    shown = run_pure("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert " passed" in shown.splitlines()[-1]
    assert "skipped" not in shown.splitlines()[-1]
