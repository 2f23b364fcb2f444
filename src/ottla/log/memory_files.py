"""Files in memory: for a broker without a directory, and as a model of a disk for the tests.

With `model_power_cuts` the model remembers what is durable: a file's content up to its last sync,
and the names in a folder up to its last sync. What was changed since is kept in the order of the
changes, and `after_power_cut` gives the files as they could be found then: what was synced is
there, and of everything else what a `Survival` says, which is nothing where none is given.

What ext4 and xfs promise is more: they keep the changes of all names in one journal, so that those
that survive are the first ones in order, and a file's sync takes the changes before it along.
Nothing here relies on that; a survival may keep to it or not.

Each step that a disk would see is told to `step` first; a model with faults raises there. Unlike
a disk it makes the folders that a path names and nobody has made, after a step called "miss".
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ottla.errors import StoreInUse
from ottla.log.files import draft_of, storage_error

if TYPE_CHECKING:
    from ottla.wire import Buffer


class Change(NamedTuple):
    """A change of a file that was not synced.

    Attributes:
        position: where it was written, or to which size it was cut.
        data: what was written; None where it was cut.
    """

    position: int
    data: bytes | None

    def apply(self, content: bytearray) -> None:
        """Do it; what lies between the end and the position becomes zeros."""
        if self.data is None:
            del content[self.position :]
            return
        content += bytes(max(0, self.position - len(content)))
        content[self.position : self.position + len(self.data)] = self.data


class Content:
    """A file's bytes, whatever its name.

    Attributes:
        number: tells it from others.
        data: the bytes now.
        durable: those that were synced; only in the model.
        changes: what led from those to these, in order; only in the model.
    """

    __slots__ = ("changes", "data", "durable", "number")

    def __init__(self, number: int, data: bytes = b"") -> None:
        self.number = number
        self.data = bytearray(data)
        self.durable = bytearray(data)
        self.changes: list[Change] = []


class Folder:
    """A folder: the names in it now, those that are durable, and what led from those to these.

    Each change gives names something else to stand for, or nothing; it survives as a whole.
    """

    __slots__ = ("changes", "durable", "names")

    def __init__(self) -> None:
        self.names: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}
        self.changes: list[NameChange] = []


Node: TypeAlias = Content | Folder


class NameChange(NamedTuple):
    """A change of names that was not synced; its number is larger than those before it."""

    number: int
    names: dict[str, Node | None]


class Survival:
    """What a power cut leaves of what was not synced; this one: nothing."""

    def content(self, file: Content) -> bytes:
        """Return what is left of a file."""
        return bytes(file.durable)

    def names(self, folder: Folder) -> Sequence[NameChange]:
        """Return the changes of a folder's names that are left, in order."""
        return ()


class MemoryFile:
    """A file in memory; once closed it is opened anew by its path, as on a disk."""

    def __init__(self, files: MemoryFiles, path: str, content: Content) -> None:
        self.path = path
        self._files = files
        self._content: Content | None = content
        self._size = len(content.data)
        self.is_torn = False

    def _opened(self) -> Content:
        if self._content is not None:
            return self._content
        with _failing(self.path, "opening"):
            return self._files.content_of(self.path)

    def size(self) -> int:
        return self._size

    def append(self, buffers: Sequence[Buffer]) -> None:
        content = self._opened()
        try:
            written = self._files.write_at(self.path, content, self._size, buffers)
        except OSError as error:
            try:
                self._files.cut_at(self.path, content, self._size)
            except OSError:
                self.is_torn = True
            raise storage_error(error, self.path, "writing to") from error
        self._size += written

    def read(self, position: int, size: int) -> bytes:
        content = self._opened()
        with _failing(self.path, "reading"):
            self._files.step("read", self.path)
        return bytes(memoryview(content.data)[position : position + size])

    def forget_cached(self, position: int) -> None:
        content = self._opened()
        with _failing(self.path, "reading"):
            self._files.forget_cached(content)

    def truncate(self, size: int) -> None:
        content = self._opened()
        with _failing(self.path, "truncating"):
            self._files.cut_at(self.path, content, size)
        self._size = size

    def begin_sync(self) -> Callable[[], None]:
        content = self._opened()

        def sync() -> None:
            with _failing(self.path, "syncing"):
                self._files.sync(self.path, content)

        return sync

    def end_sync(self) -> None:
        pass

    def close(self) -> None:
        self._content = None


class MemoryFiles:
    """A tree of files in memory.

    Args:
        model_power_cuts: remember what is durable, and what is not.
    """

    def __init__(self, *, model_power_cuts: bool = False) -> None:
        self.syncs_max = 1 << 30
        self._is_model = model_power_cuts
        self._root = Folder()
        self._number = 0
        self._locked: set[str] = set()

    # -- what a disk would see, step by step; each raises OSError where it fails

    def step(self, what: str, path: str) -> None:
        """Called before each step: read, list, open, create, write, cut, sync, and so on."""

    def write_at(
        self, path: str, content: Content, position: int, buffers: Sequence[Buffer]
    ) -> int:
        """Write and return how many bytes that were; what stood there before is overwritten."""
        self.step("write", path)
        data = content.data
        before = len(data)
        if before == position and not self._is_model:
            for buffer in buffers:
                data += buffer
            return len(data) - before
        change = Change(position, b"".join(buffers))
        change.apply(data)
        if self._is_model:
            content.changes.append(change)
        return len(change.data or b"")

    def cut_at(self, path: str, content: Content, size: int) -> None:
        """Cut a file."""
        self.step("cut", path)
        del content.data[size:]
        if self._is_model:
            content.changes.append(Change(size, None))

    def sync(self, path: str, content: Content) -> None:
        """Make a file's content durable, with all that was written until now."""
        self.step("sync", path)
        changes, content.changes = content.changes, []
        for change in changes:
            change.apply(content.durable)

    def forget_cached(self, content: Content) -> None:
        """Read a file from the disk again; what a failed sync has not brought there is gone."""
        if self._is_model:
            size = len(content.data)
            content.data[:] = content.durable
            for change in content.changes:
                change.apply(content.data)
            content.data += bytes(max(0, size - len(content.data)))

    def content_of(self, path: str) -> Content:
        """Return what a name stands for."""
        node = self._find(path)
        if not isinstance(node, Content):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return node

    def _find(self, path: str) -> Node | None:
        node: Node | None = self._root
        for name in _parts(path):
            node = node.names.get(name) if isinstance(node, Folder) else None
        return node

    def _parent(self, path: str) -> Folder:
        """Return the folder of a path; one that nobody made is made, and has always been there."""
        folder = self._root
        for name in _parts(posixpath.dirname(path)):
            found = folder.names.get(name)
            if found is None:
                self.step("miss", path)
                found = folder.names[name] = folder.durable[name] = Folder()
            if not isinstance(found, Folder):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            folder = found
        return folder

    def _change(self, folder: Folder, names: dict[str, Node | None]) -> None:
        _apply(names, folder.names)
        if self._is_model:
            folder.changes.append(NameChange(self._next_number(), names))

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _make(self, path: str, node: Node) -> None:
        self._change(self._parent(path), {posixpath.basename(path): node})

    # -- what a store asks for

    def open(self, path: str, *, create: bool) -> MemoryFile:
        if create:
            with _failing(path, "creating"):
                self.step("create", path)
                if self._find(path) is not None:
                    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
                self._make(path, Content(self._next_number()))
                return MemoryFile(self, path, self.content_of(path))
        with _failing(path, "opening"):
            self.step("open", path)
            return MemoryFile(self, path, self.content_of(path))

    def list(self, folder: str) -> list[str]:
        with _failing(folder, "listing"):
            self.step("list", folder)
        node = self._find(folder)
        return sorted(node.names) if isinstance(node, Folder) else []

    def make_folder(self, path: str) -> None:
        if self._find(path) is None:
            with _failing(path, "creating"):
                self.step("make folder", path)
                self._make(path, Folder())

    def read(self, path: str) -> bytes | None:
        with _failing(path, "reading"):
            self.step("read", path)
        node = self._find(path)
        return bytes(node.data) if isinstance(node, Content) else None

    def write(self, path: str, content: bytes) -> None:
        self.write_draft(path, content)
        self.rename(draft_of(path), path)
        self.sync_folder(posixpath.dirname(path))

    def write_draft(self, path: str, content: bytes) -> None:
        draft = draft_of(path)
        with _failing(path, "writing"):
            found = self._find(draft)
            if isinstance(found, Content):
                self.cut_at(draft, found, 0)
            else:
                self.step("create", draft)
                found = Content(self._next_number())
                self._make(draft, found)
            self.write_at(draft, found, 0, [content])
            self.sync(draft, found)

    def reserve(self, path: str, size: int) -> None:
        with _failing(path, "reserving space in"):
            self.step("reserve", path)
            if self._find(path) is None:
                self._make(path, Content(self._next_number()))

    def for_thread(self) -> MemoryFiles:
        return self

    def rename(self, old: str, new: str) -> None:
        with _failing(old, "renaming"):
            self.step("rename", old)
            node = self._find(old)
            if node is None:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            folder = self._parent(old)
            if self._parent(new) is not folder:
                raise OSError(errno.EXDEV, "the model renames within a folder")
            self._change(folder, {posixpath.basename(old): None, posixpath.basename(new): node})

    def remove(self, path: str) -> None:
        node = self._find(path)
        if isinstance(node, Folder):
            for name in self.list(path):
                self.remove(f"{path}/{name}")
        with _failing(path, "removing"):
            self.step("remove", path)
            if node is not None:
                self._change(self._parent(path), {posixpath.basename(path): None})

    def sync_folder(self, path: str) -> None:
        with _failing(path, "syncing"):
            self.step("sync folder", path)
            folder = self._find(path)
            if not isinstance(folder, Folder):
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if self._is_model:
            changes, folder.changes = folder.changes, []
            for change in changes:
                _apply(change.names, folder.durable)

    def lock(self, path: str) -> Callable[[], None]:
        if path in self._locked:
            raise StoreInUse(path, os.getpid(), "this process")
        if self._find(path) is None:
            self.make_folder(path)
        self._locked.add(path)
        return lambda: self._locked.discard(path)

    # -- the model

    def after_power_cut(self, survival: Survival | None = None) -> MemoryFiles:
        """Return the files as they would be found after a power cut at this moment.

        Args:
            survival: what is left of what was not synced; None for nothing.
        """
        found = MemoryFiles(model_power_cuts=True)
        found._number = self._number
        found._root = _found(self._root, survival or Survival())
        return found

    def after_kill(self) -> MemoryFiles:
        """Return the files as they would be found if the process ended at this moment.

        Everything is there, and what was not durable is not durable.
        """
        found = MemoryFiles(model_power_cuts=True)
        found._number = self._number
        found._root = copy.deepcopy(self._root)
        return found

    def unsynced(self) -> tuple[Sequence[Content], Sequence[NameChange]]:
        """Return the files that have unsynced changes, and all such changes of names, in order.

        Of files and folders without a durable name, only those with a name now are there.
        """
        contents: dict[int, Content] = {}
        changes: list[NameChange] = []
        for node in _nodes(self._root):
            if isinstance(node, Folder):
                changes += node.changes
            elif node.changes:
                contents[node.number] = node
        return list(contents.values()), sorted(changes, key=lambda change: change.number)

    def everything(self) -> dict[str, bytes]:
        """Return the contents of all files by their paths; a folder without any counts as one."""
        return dict(_everything(self._root, ""))


@contextlib.contextmanager
def _failing(path: str, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(error, path, doing) from error


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _apply(change: dict[str, Node | None], names: dict[str, Node]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _found(folder: Folder, survival: Survival) -> Folder:
    names = dict(folder.durable)
    for change in survival.names(folder):
        _apply(change.names, names)
    found = Folder()
    for name, node in names.items():
        if isinstance(node, Folder):
            found.names[name] = _found(node, survival)
        else:
            found.names[name] = Content(node.number, survival.content(node))
    found.durable = dict(found.names)
    return found


def _nodes(folder: Folder) -> Iterator[Node]:
    yield folder
    inside = {id(node): node for node in (*folder.durable.values(), *folder.names.values())}
    for node in inside.values():
        if isinstance(node, Folder):
            yield from _nodes(node)
        else:
            yield node


def _everything(folder: Folder, path: str) -> Iterator[tuple[str, bytes]]:
    for name, node in sorted(folder.names.items()):
        if isinstance(node, Content):
            yield f"{path}{name}", bytes(node.data)
        elif node.names:
            yield from _everything(node, f"{path}{name}/")
        else:
            yield f"{path}{name}/", b""
