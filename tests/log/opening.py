"""Data files of another kind, where what the disk does is to be watched or spoilt."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ottla.log.files import OsFile, OsFiles


def open_as(monkeypatch: pytest.MonkeyPatch, kind: type[OsFile]) -> None:
    """Have all data files opened as objects of a class."""
    really = OsFiles.open

    def open_file(files: OsFiles, path: str, *, create: bool) -> OsFile:
        return kind(files.descriptors, path, really(files, path, create=create).size())

    monkeypatch.setattr(OsFiles, "open", open_file)


def call_before_syncs(monkeypatch: pytest.MonkeyPatch, called: Callable[[OsFile], None]) -> None:
    """Have something called before each sync of a data file, in the thread that syncs."""

    class Told(OsFile):
        def begin_sync(self) -> Callable[[], None]:
            sync = super().begin_sync()

            def run() -> None:
                called(self)
                sync()

            return run

    open_as(monkeypatch, Told)
