"""The documents are true: links and names in them resolve, and their commands are the real ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.repository import ROOT, assert_none, modules, shown, text_files

README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TEST_COMMAND = "pip install -e '.[test]' && pytest"

_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
_PATH = re.compile(r"`((?:src|tests|codegen|bench|docs|\.ci)/[\w./-]+)`")
_MODULE = re.compile(r"`(ottla(?:\.[a-z_0-9]+)+)`")
_COMMAND = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?ottla ([a-z]+)", re.MULTILINE)
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

# Brackets keep these two lines from finding themselves.
_MACHINE = re.compile(r"(?<![\w.])/(?:[h]ome|[r]oot|[U]sers|[w]ork|[o]pt)/\w|[C]:\\\\?[U]sers")
_REGISTRY = re.compile(
    r"[p]ypi\.org|[p]ythonhosted|[i]ndex-url|[r]epo1?\.maven|[a]rtifactory|[j]frog|"
    r"[g]hcr\.io|[d]ocker\.io|[n]pmjs|[p]roxy\.golang"
)


def _found(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{shown(path)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if pattern.search(line)
    ]


def test_nothing_names_a_folder_of_somebodys_machine() -> None:
    assert_none(_found(_MACHINE), "folders of a machine")


def test_nothing_names_the_host_of_a_registry() -> None:
    assert_none(_found(_REGISTRY), "hosts of registries")


@pytest.mark.parametrize("document", DOCUMENTS, ids=shown)
def test_links_paths_and_modules_of_a_document_exist(document: Path) -> None:
    text = document.read_text()
    missing = [link for link in _LINK.findall(text) if not (document.parent / link).exists()]
    missing += [path for path in _PATH.findall(text) if not (ROOT / path).exists()]
    missing += [name for name in _MODULE.findall(text) if name not in modules()]
    assert_none(missing, f"named in {shown(document)}, but not there")


def test_the_readme_has_the_test_command_and_ci_runs_it() -> None:
    assert TEST_COMMAND in README
    assert TEST_COMMAND in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("command", sorted(set(_COMMAND.findall(README))))
def test_a_command_of_the_readme_exists(command: str) -> None:
    run = "import sys; from ottla.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", run, command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("number", range(len(_PYTHON.findall(README))))
def test_an_example_of_the_readme_runs(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(_PYTHON.findall(README)[number], "README.md", "exec"), {})
