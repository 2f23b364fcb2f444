"""Files in memory that tell each step, and fail where they are told to.

A step is what a disk sees: a write, a sync, a rename, and so on; a small file that is written takes
five of them. Each has a number within the run, so that a run can be cut off or hurt at any one.

How a fault leaves things is as bad as a real disk may do it: a write that fails has written a part,
which is cut off again, or not even that; after a sync that failed, what it should have made durable
never is, however often it is synced again, though it can be read until then.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ottla.log.memory_files import Content, MemoryFile, MemoryFiles
from ottla.wire import Buffer

CHANGES = frozenset(
    ("make folder", "create", "write", "cut", "sync", "sync folder", "rename", "remove", "reserve")
)
"""The steps that change what is there, or what of it is durable."""

READS = frozenset(("open", "read", "list"))


@dataclass
class Fault:
    """What fails.

    Attributes:
        number: the step, counted from 1.
        error: with which error.
        written: the part of a write that reaches the file before it fails.
        stays: whether that part stays there, because cutting it off fails too.
        hit: the step that it was, as "write store/t-0/...", "" before it comes.
    """

    number: int
    error: int = errno.EIO
    written: float = 0.0
    stays: bool = False
    hit: str = ""

    @property
    def what(self) -> str:
        """The kind of step that was hit."""
        return self.hit.partition(" store")[0]


class FaultyFiles(MemoryFiles):
    """The files.

    Args:
        found: what is there at first; None for nothing.
        before: called before each step with its kind and path.

    Attributes:
        steps: how many steps there were.
        fault: what fails, or None.
        full: whether there is no room for batches.
        failed: the folders of partitions of which a sync of batches failed since the last start.
        hurt: the same, in all lives.
    """

    def __init__(
        self,
        found: MemoryFiles | None = None,
        before: Callable[[str, str], None] | None = None,
    ) -> None:
        super().__init__(model_power_cuts=True)
        if found is not None:
            self._root, self._number = found._root, found._number
        self.before = before
        self.steps = 0
        self.fault: Fault | None = None
        self.full = False
        self.failed: set[str] = set()
        self.hurt: set[str] = set()
        self._cannot_cut = False

    def step(self, what: str, path: str) -> None:
        if what == "miss":
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if self.before is not None:
            self.before(what, path)
        self.steps += 1
        fault = self.fault
        if fault is not None and fault.number == self.steps:
            fault.hit = f"{what} {path}"
            raise OSError(fault.error, os.strerror(fault.error))
        is_big = what == "reserve" or (what == "write" and path.endswith(".log"))
        if self.full and is_big:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if what == "cut" and self._cannot_cut:
            self._cannot_cut = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def begin_life(self) -> None:
        """Take note that a process has ended, and another begins."""
        self._locked.clear()
        self.failed.clear()

    def write_at(
        self, path: str, content: Content, position: int, buffers: Sequence[Buffer]
    ) -> int:
        fault = self.fault
        if fault is not None and fault.number == self.steps + 1 and not self.full:
            whole = b"".join(buffers)
            part = whole[: int(len(whole) * fault.written)]
            self.fault = None
            super().write_at(path, content, position, [part])
            self.fault = fault
            self._cannot_cut = fault.stays and ".log" in path
            fault.hit = f"write {path}"
            raise OSError(fault.error, os.strerror(fault.error))
        return super().write_at(path, content, position, buffers)

    def open(self, path: str, *, create: bool) -> MemoryFile:
        found = super().open(path, create=create)
        self.failed.discard(path.rpartition("/")[0])  # read again from the disk
        return found

    def rename(self, old: str, new: str) -> None:
        super().rename(old, new)
        self.failed.discard(old)

    def sync(self, path: str, content: Content) -> None:
        try:
            super().sync(path, content)
        except OSError:
            content.changes.clear()
            if path.endswith(".log"):
                self.failed.add(path.rpartition("/")[0])
                self.hurt.add(path.rpartition("/")[0])
            raise
