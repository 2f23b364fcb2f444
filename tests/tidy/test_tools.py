"""The tools that judge the source run here, so that `pytest` alone says whether all is well."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.tidy.repository import ROOT

LINT_IMPORTS = "from importlinter.cli import lint_imports_command as run; run(['--no-logo'])"

TOOLS = {
    "ruff check": ("-m", "ruff", "check", "."),
    "ruff format": ("-m", "ruff", "format", "--check", "--diff", "."),
    "mypy": ("-m", "mypy"),
    "import-linter": ("-c", LINT_IMPORTS),
    "codegen": ("-m", "codegen", "--check"),
}


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_finds_nothing_to_say(tool: str) -> None:
    done = subprocess.run(
        [sys.executable, *TOOLS[tool]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{tool} ended with {done.returncode}:\n{done.stdout}{done.stderr}", False)
