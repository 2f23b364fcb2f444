"""A repair that is interrupted anywhere leaves a store that the next one brings to its end."""

from __future__ import annotations

import errno
import os

import pytest

from ottla.broker.fsck import check
from ottla.errors import StorageError
from ottla.log.log_dir import CLEAN_SHUTDOWN
from ottla.log.memory_files import MemoryFiles
from tests.log.damaging import (
    COUNT,
    FOLDER,
    SIZE,
    STORE,
    assert_repairs,
    flipped,
    look,
    make_store,
    rewrite,
    segment,
)


class Crash(BaseException):
    """The process ends, or the power."""


class Crashing(MemoryFiles):
    """Files whose process ends at one of the steps that change something."""

    def __init__(self, files: MemoryFiles, at: int) -> None:
        super().__init__(model_power_cuts=True)
        self._root = files._root
        self._left = at

    def step(self, what: str, path: str) -> None:
        if what not in ("read", "list", "open", "miss"):
            if self._left == 0:
                raise Crash
            self._left -= 1


def ruined(clean: bool) -> MemoryFiles:
    """Return a store with damage of every kind that is repaired in several steps."""
    files = make_store(clean=clean, saved=COUNT)
    rewrite(files, segment(0), flipped(SIZE + 70))
    files.write(segment(4), b"")
    rewrite(files, segment(8), lambda content: content[: 3 * SIZE + 5])
    rewrite(files, segment(COUNT, ".snapshot"), flipped(3))
    files.write(f"{STORE}/log-start-offset-checkpoint", b"?")
    files.write(f"{FOLDER}/leader-epoch-checkpoint", b"?")
    return files


def assert_no_worse(left: MemoryFiles, before: MemoryFiles) -> None:
    """See that a repair that was interrupted has left what a start can judge."""
    kinds = {each.kind for each in look(before).findings}
    for finding in look(left).findings:
        if finding.kind == "bad-index":  # a missing one is made anew, a wrong one is believed
            assert finding.what.endswith("it is missing")
        else:
            assert finding.kind in kinds | {"kept-aside", "leftover", "no-topic-id"}
    logs = [f"{FOLDER}/{name}" for name in before.list(FOLDER) if name.endswith(".log")]
    if any(left.read(path) != before.read(path) for path in logs):
        assert left.read(f"{STORE}/{CLEAN_SHUTDOWN}") is None


@pytest.mark.slow
@pytest.mark.parametrize("clean", [True, False])
def test_a_repair_that_is_interrupted_anywhere_is_finished_by_the_next(clean: bool) -> None:
    step = 0
    while True:
        crashing = Crashing(ruined(clean), step)
        try:
            check(crashing, STORE, repair=True)
        except Crash:
            pass
        else:
            break
        for left in (crashing.after_power_cut(), crashing.after_kill()):
            assert_no_worse(left, ruined(clean))
            assert_repairs(left, 1, 4, 5, 6, 7, 11)
            content = make_store().read(segment(0)) or b""
            kept = [name for name in left.list(FOLDER) if name.startswith(f"{0:020}.log.")]
            assert left.read(f"{FOLDER}/{kept[0]}") == flipped(70)(content[SIZE : 2 * SIZE])
        step += 1
    assert step > 40


@pytest.mark.slow
def test_a_torn_tail_that_is_cut_off_halfway_is_cut_off_by_the_next() -> None:
    step = 0
    while True:
        files = make_store(clean=False, saved=3)
        rewrite(files, segment(4), lambda content: content[: SIZE + 5])
        rewrite(files, segment(8), lambda content: bytes(len(content)))
        crashing = Crashing(files, step)
        try:
            check(crashing, STORE, repair=True)
        except Crash:
            pass
        else:
            break
        for left in (crashing.after_power_cut(), crashing.after_kill()):
            assert_repairs(left, *range(5, COUNT))
        step += 1
    assert step > 8


@pytest.mark.slow
def test_a_repair_on_a_full_disk_leaves_the_log_as_it_was() -> None:
    class Full(Crashing):
        def step(self, what: str, path: str) -> None:
            try:
                super().step(what, path)
            except Crash:
                if what in ("write", "create"):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None

    step = 0
    while True:
        full = Full(ruined(True), step)
        try:
            check(full, STORE, repair=True)
        except StorageError:
            assert_repairs(full.after_kill(), 1, 4, 5, 6, 7, 11)
            step += 1
        else:
            break
    assert step


def test_a_second_repair_overwrites_no_bytes_that_were_kept() -> None:
    files = make_store()
    for bit in (1, 2):
        rewrite(files, segment(0), flipped(30, bit))
        check(files, STORE, repair=True)
    assert files.read(f"{segment(0)}.0.cut") is not None
    second = files.read(f"{segment(0)}.0-2.cut")
    assert second is not None
    assert second != files.read(f"{segment(0)}.0.cut")
