"""Files in memory: for a broker without a directory, and as a model of a disk for the tests.

With `model_power_cuts` the model remembers what is durable: a file's content up to its last sync,
and a name only since its folder was synced. `after_power_cut` gives the files as they would be
found then: what was synced is there, and of everything else nothing.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ottla.errors import StoreInUse
from ottla.log.files import draft_of, storage_error

if TYPE_CHECKING:
    from ottla.errors import StorageError
    from ottla.wire import Buffer


class _Content:
    """What a name stands for: the bytes now and, in the model, those that are durable."""

    __slots__ = ("data", "durable")

    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.durable = b""


class MemoryFile:
    """A file in memory."""

    def __init__(self, path: str, content: _Content, model_power_cuts: bool) -> None:
        self.path = path
        self._content = content
        self._model_power_cuts = model_power_cuts

    def size(self) -> int:
        return len(self._content.data)

    def append(self, buffers: Sequence[Buffer]) -> None:
        for buffer in buffers:
            self._content.data += buffer

    def read(self, position: int, size: int) -> bytes:
        return bytes(memoryview(self._content.data)[position : position + size])

    def truncate(self, size: int) -> None:
        del self._content.data[size:]

    def begin_sync(self) -> Callable[[], None]:
        return self._sync

    def _sync(self) -> None:
        if self._model_power_cuts:
            self._content.durable = bytes(self._content.data)

    def end_sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class MemoryFiles:
    """A tree of files in memory; folders are made with the files in them.

    Args:
        model_power_cuts: remember what is durable, at the cost of a copy at each sync.
    """

    def __init__(self, *, model_power_cuts: bool = False) -> None:
        self.syncs_max = 1 << 30
        self._model_power_cuts = model_power_cuts
        self._contents: dict[str, _Content] = {}
        self._durable_names: dict[str, _Content] = {}
        self._locked: set[str] = set()

    def open(self, path: str, *, create: bool) -> MemoryFile:
        content = self._contents.get(path)
        if create:
            if content is not None:
                raise _error(errno.EEXIST, path, "creating")
            content = self._contents[path] = _Content(bytearray())
        elif content is None:
            raise _error(errno.ENOENT, path, "opening")
        return MemoryFile(path, content, self._model_power_cuts)

    def list(self, folder: str) -> list[str]:
        start = folder + "/"
        inside = [path[len(start) :] for path in self._contents if path.startswith(start)]
        return sorted({path.split("/")[0] for path in inside})

    def make_folder(self, path: str) -> None:
        pass

    def read(self, path: str) -> bytes | None:
        content = self._contents.get(path)
        return None if content is None else bytes(content.data)

    def write(self, path: str, content: bytes) -> None:
        self.write_draft(path, content)
        self.rename(draft_of(path), path)
        self.sync_folder(posixpath.dirname(path))

    def write_draft(self, path: str, content: bytes) -> None:
        new = _Content(bytearray(content))
        new.durable = content
        self._contents[draft_of(path)] = new

    def reserve(self, path: str, size: int) -> None:
        self._contents[path] = _Content(bytearray())

    def for_thread(self) -> MemoryFiles:
        return self

    def rename(self, old: str, new: str) -> None:
        moved = [path for path in self._contents if path == old or path.startswith(old + "/")]
        if not moved:
            raise _error(errno.ENOENT, old, "renaming")
        for path in moved:
            self._contents[new + path[len(old) :]] = self._contents.pop(path)

    def remove(self, path: str) -> None:
        for found in [name for name in self._contents if _within(name, path)]:
            del self._contents[found]

    def sync_folder(self, path: str) -> None:
        if not self._model_power_cuts:
            return
        was_durable = {id(content) for content in self._durable_names.values()}
        for name in [name for name in self._durable_names if _within(name, path)]:
            if name not in self._contents:
                del self._durable_names[name]
        for name, content in self._contents.items():
            in_folder = posixpath.dirname(name) == path
            if in_folder or (_within(name, path) and id(content) in was_durable):
                self._durable_names[name] = content

    def lock(self, path: str) -> Callable[[], None]:
        if path in self._locked:
            raise StoreInUse(path, os.getpid(), "this process")
        self._locked.add(path)
        return lambda: self._locked.discard(path)

    def after_power_cut(self) -> MemoryFiles:
        """Return the files as they would be found after a power cut at this moment."""
        found = MemoryFiles(model_power_cuts=True)
        for path, content in self._durable_names.items():
            kept = _Content(bytearray(content.durable))
            kept.durable = content.durable
            found._contents[path] = kept
            found._durable_names[path] = kept
        return found


def _within(name: str, path: str) -> bool:
    return name == path or name.startswith(path + "/")


def _error(number: int, path: str, doing: str) -> StorageError:
    return storage_error(OSError(number, os.strerror(number)), path, doing)
