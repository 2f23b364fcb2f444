"""The generated files are what `python -m codegen` makes, and a change to one does not pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from codegen import __main__ as command
from codegen.errors import class_name
from codegen.facts import snake

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_the_generated_files_are_up_to_date() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "codegen", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the command writes to instead of the sources."""
    monkeypatch.setattr(command, "ROOT", tmp_path)
    assert run(monkeypatch, "codegen") == 0
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", list(argv))
    return command.main()


@pytest.mark.slow
def test_a_file_that_was_changed_removed_or_added_is_noticed_and_put_right(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(monkeypatch, "codegen", "--check") == 0
    changed = copied / "errors" / "codes.py"
    removed = copied / "protocol" / "messages" / "api_00_produce.py"
    added = copied / "protocol" / "messages" / "api_999_none.py"
    whole = changed.read_text()
    changed.write_text(whole.replace("Final = 3\n", "Final = 4\n"))
    removed.unlink()
    added.write_text("")
    assert run(monkeypatch, "codegen", "--check") == 1
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "differs: errors/codes.py",
        "differs: protocol/messages/api_00_produce.py",
        "left over: protocol/messages/api_999_none.py",
    ]
    assert run(monkeypatch, "codegen") == 0
    assert changed.read_text() == whole
    assert removed.exists()
    assert not added.exists()
    assert run(monkeypatch, "codegen", "--check") == 0


def test_names_are_turned_into_pythons() -> None:
    assert snake("topicId") == "topic_id"
    assert class_name("UNKNOWN_TOPIC_OR_PARTITION") == "UnknownTopicOrPartition"
    assert class_name("INVALID_TOPIC_EXCEPTION") == "InvalidTopic"
