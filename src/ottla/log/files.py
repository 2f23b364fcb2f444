"""The only module that touches the operating system's files.

`Files` is the seam: `OsFiles` is the disk, `MemoryFiles` (in `memory_files`) keeps everything in
memory. What differs between systems stands here: `fdatasync` (macOS needs F_FULLFSYNC, Windows has
only fsync), the sync of directories (which Windows does not have), and locks.

Descriptors are bounded: an open `File` holds one only while it is among the last used ones.

It is compiled for the one write and the one sync that a lone `send` + `flush` makes: what comes
behind a sync finds cold caches, so that each line of the interpreter counts twice.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import cython

from ottla.errors import DiskFull, StorageError, StoreInUse, StoreUnusable

if cython.compiled:
    from cython.cimports.cpython.exc import PyErr_SetFromErrno
    from cython.cimports.posix.stat import fstat, struct_stat

if TYPE_CHECKING:
    from ottla.wire import Buffer

DESCRIPTORS_MAX = 512
"""How many data files are held open at once, where the process may have that many and more."""

DESCRIPTORS_SHARE = 4
"""Which part of what the process may open is for data files; the rest is for connections."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_BUFFERS_MAX = 1024
_DESCRIPTORS_OF_A_THREAD = 4


class File(Protocol):
    """A file that grows at its end and is read anywhere.

    Attributes:
        path: its path.
        is_torn: whether an append failed and what it had written could not be cut off again.
    """

    path: str
    is_torn: bool

    def size(self) -> int:
        """Return its size in bytes."""
        ...

    def append(self, buffers: Sequence[Buffer]) -> None:
        """Write at the end, all or nothing.

        Raises:
            DiskFull: there is no space; nothing was appended.
            StorageError: the write failed; nothing was appended.
        """
        ...

    def read(self, position: int, size: int) -> bytes:
        """Read up to `size` bytes; fewer only at the end of the file."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file at `size`."""
        ...

    def forget_cached(self, position: int) -> None:
        """Have what lies behind a position be read from the disk, where the system can do that.

        After a sync has failed Linux takes what it holds in memory for what is on the disk.
        """
        ...

    def begin_sync(self) -> Callable[[], None]:
        """Return what makes all that was written durable; it may run in any thread.

        It raises `StorageError` where it fails, and must be followed by `end_sync`.
        """
        ...

    def end_sync(self) -> None:
        """Tell that the sync has run."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Files(Protocol):
    """Where a store keeps its files; every path is absolute or relative to the process.

    Attributes:
        syncs_max: how many files may be in a sync at the same time.
    """

    syncs_max: int

    def open(self, path: str, *, create: bool) -> File:
        """Open a file; with `create` it must not exist yet.

        Raises:
            StorageError: it cannot be opened.
        """
        ...

    def list(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; nothing where there is no such folder."""
        ...

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it; nothing happens where it exists."""
        ...

    def read(self, path: str) -> bytes | None:
        """Return a small file's content, or None where there is no such file."""
        ...

    def write(self, path: str, content: bytes) -> None:
        """Write a small file, durably and as a whole: it holds the old content or the new."""
        ...

    def write_draft(self, path: str, content: bytes) -> None:
        """Do the first half of `write`: the new content is durable, and waits in `draft_of(path)`.

        Renaming the draft and syncing the folder is the other half.
        """
        ...

    def reserve(self, path: str, size: int) -> None:
        """Make a file that holds so many bytes of space free for later.

        Raises:
            DiskFull: there is not that much.
        """
        ...

    def for_thread(self) -> Files:
        """Return the same files for use by another thread at the same time."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Rename a file or a folder; an existing file is replaced."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all that is in it; nothing happens where it is gone."""
        ...

    def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable."""
        ...

    def lock(self, path: str) -> Callable[[], None]:
        """Lock a folder for this process and return what unlocks it.

        Raises:
            StoreInUse: another process has it.
            StoreUnusable: it cannot be written.
        """
        ...


def draft_of(path: str) -> str:
    """Return where a small file is written before it takes the place of the old one."""
    return path + ".tmp"


def storage_error(error: OSError, path: str, doing: str) -> StorageError:
    """Make the exception for a failed operation on a file."""
    if error.errno in _FULL:
        return DiskFull(
            f"no space left while {doing} {path}",
            "Nothing of it was stored; what was stored before is safe and can be read.",
            ("Make room on that file system; writing goes on by itself then.",),
        )
    return StorageError(f"{doing} {path} failed: {error.strerror or error}")


def interrupted(partition: str, error: BaseException) -> StorageError:
    """Make the reason to write no more: after Ctrl-C file and offsets may not agree."""
    return StorageError(
        f"an append to {partition} was interrupted: {error!r}",
        "Records that were not confirmed may or may not be stored.",
        ("Open the store again: it recovers from what is on the disk.",),
    )


@contextlib.contextmanager
def _failing(path: str, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(error, path, doing) from error


def sync_data(descriptor: int) -> None:
    """Make a file's content durable: fdatasync, or what the system has for it."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def _write_at(descriptor: int, buffers: Sequence[Buffer], position: int) -> int:
    if hasattr(os, "pwritev"):
        return os.pwritev(descriptor, buffers, position)
    # Windows: one thread reads and writes a file, so a seek before each call is safe.
    os.lseek(descriptor, position, os.SEEK_SET)
    return os.write(descriptor, b"".join(buffers))


def _read_at(descriptor: int, size: int, position: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, position)
    os.lseek(descriptor, position, os.SEEK_SET)
    return os.read(descriptor, size)


def _is_gone(descriptor: cython.int) -> bool:
    """Tell whether an open file has no name any more."""
    if cython.compiled:
        status = cython.declare(struct_stat)
        failed: cython.int
        with cython.nogil:
            failed = fstat(descriptor, cython.address(status))
        if failed:
            PyErr_SetFromErrno(OSError)
        return status.st_nlink == 0 and os.name != "nt"
    return os.name != "nt" and os.fstat(descriptor).st_nlink == 0


class Descriptors:
    """The descriptors of data files: those of the last used ones are open.

    Args:
        count_max: how many are open at most.
        read_only: whether files are opened for reading only.
    """

    def __init__(self, count_max: int, read_only: bool) -> None:
        self._count_max = count_max
        self._read_only = read_only
        self._open: OrderedDict[OsFile, int] = OrderedDict()
        self._newest: OsFile | None = None
        self._newest_descriptor = -1

    def of(self, file: OsFile) -> int:
        """Return a file's descriptor, opened again where it had to be closed."""
        if self._newest is file:
            return self._newest_descriptor
        known = self._open.get(file)
        if known is None:
            if len(self._open) >= self._count_max:
                self._close_oldest()
            with _failing(file.path, "opening"):
                known = self._open_data(file.path)
            self._open[file] = known
        else:
            self._open.move_to_end(file)
        self._newest, self._newest_descriptor = file, known
        return self._newest_descriptor

    def _open_data(self, path: str) -> int:
        """Open a data file, for reading only where that is all the disk allows."""
        if self._read_only:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EROFS:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        self._close_oldest()
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def _close_oldest(self) -> None:
        for file in self._open:
            if not file.in_use:
                self.release(file)
                return

    def release(self, file: OsFile) -> None:
        """Close a file's descriptor, where it has one."""
        descriptor = self._open.pop(file, None)
        if self._newest is file:
            self._newest = None
        if descriptor is not None:
            os.close(descriptor)


class OsFile:
    """A file on the disk."""

    def __init__(self, descriptors: Descriptors, path: str, size: int) -> None:
        self.path = path
        self.is_torn = False
        self._descriptors = descriptors
        self._size = size
        self._syncing = 0
        self._closed = False

    def size(self) -> int:
        return self._size

    def append(self, buffers: Sequence[Buffer]) -> None:
        descriptor = self._descriptors.of(self)
        start = self._size
        wanted: cython.Py_ssize_t = 0
        for buffer in buffers:
            wanted += len(buffer)
        few = buffers if len(buffers) <= _BUFFERS_MAX else buffers[:_BUFFERS_MAX]
        try:
            written = _write_at(descriptor, few, start)
            if written != wanted:
                self._append_rest(descriptor, buffers, start, written)
        except OSError as error:
            try:
                os.ftruncate(descriptor, start)
            except OSError:
                self.is_torn = True
            raise storage_error(error, self.path, "writing to") from error
        self._size = start + wanted

    @staticmethod
    def _append_rest(descriptor: int, buffers: Sequence[Buffer], start: int, written: int) -> None:
        """Write what a short write, or too many buffers for one call, left over."""
        rest = memoryview(b"".join(buffers))
        while written < len(rest):
            count = _write_at(descriptor, [rest[written:]], start + written)
            if count == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written += count

    def read(self, position: int, size: int) -> bytes:
        descriptor = self._descriptors.of(self)
        try:
            return _read_at(descriptor, size, position)
        except OSError as error:
            raise storage_error(error, self.path, "reading") from error

    def forget_cached(self, position: int) -> None:
        if hasattr(os, "posix_fadvise"):
            with _failing(self.path, "reading"):
                descriptor = self._descriptors.of(self)
                os.posix_fadvise(descriptor, position, 0, os.POSIX_FADV_DONTNEED)

    def truncate(self, size: int) -> None:
        with _failing(self.path, "truncating"):
            os.ftruncate(self._descriptors.of(self), size)
        self._size = size

    def begin_sync(self) -> Callable[[], None]:
        descriptor = self._descriptors.of(self)
        self._syncing += 1
        return FileSync(self, descriptor)

    def end_sync(self) -> None:
        self._syncing -= 1
        if self._closed and not self._syncing:
            self._descriptors.release(self)

    @property
    def in_use(self) -> bool:
        """Whether its descriptor must stay open."""
        return self._syncing > 0

    def close(self) -> None:
        self._closed = True
        if not self._syncing:
            self._descriptors.release(self)


class FileSync:
    """What makes durable what was written to a file; its descriptor stays open until it has run."""

    __slots__ = ("_descriptor", "_file")

    def __init__(self, file: OsFile, descriptor: int) -> None:
        self._file = file
        self._descriptor = descriptor

    def __call__(self) -> None:
        """Make it durable, in any thread."""
        try:
            sync_data(self._descriptor)
            if _is_gone(self._descriptor) and not self._file._closed:
                raise OSError(errno.ENOENT, "somebody has removed it")
        except OSError as error:
            raise storage_error(error, self._file.path, "syncing") from error


def descriptors_limit() -> int:
    """Return how many descriptors this process may have; a large number where nobody says."""
    try:
        import resource
    except ImportError:
        return 1 << 16
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 16 if soft == resource.RLIM_INFINITY else soft


class OsFiles:
    """The disk.

    Attributes:
        descriptors: those of its data files.

    Args:
        descriptors_max: how many data files may be open at once; None for `DESCRIPTORS_MAX`, or
            less where the process may not have that many.
        read_only: data files are opened for reading, and a lock makes no file.
    """

    def __init__(self, descriptors_max: int | None = None, *, read_only: bool = False) -> None:
        if descriptors_max is None:
            descriptors_max = min(DESCRIPTORS_MAX, descriptors_limit() // DESCRIPTORS_SHARE)
        self.syncs_max = max(descriptors_max // 2, 1)
        self._read_only = read_only
        self.descriptors = Descriptors(descriptors_max, read_only)

    def open(self, path: str, *, create: bool) -> OsFile:
        if create:
            with _failing(path, "creating"):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
            return OsFile(self.descriptors, path, 0)
        with _failing(path, "opening"):
            return OsFile(self.descriptors, path, os.stat(path).st_size)

    def list(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error(error, folder, "listing") from error

    def make_folder(self, path: str) -> None:
        with _failing(path, "creating"):
            os.makedirs(path, exist_ok=True)

    def read(self, path: str) -> bytes | None:
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, path, "reading") from error

    def write(self, path: str, content: bytes) -> None:
        self.write_draft(path, content)
        self.rename(draft_of(path), path)
        self.sync_folder(os.path.dirname(path) or ".")

    def write_draft(self, path: str, content: bytes) -> None:
        try:
            with open(draft_of(path), "wb", buffering=0) as file:
                rest = memoryview(content)
                while rest:
                    rest = rest[file.write(rest) or 0 :]
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(draft_of(path))
            raise storage_error(error, path, "writing") from error

    def reserve(self, path: str, size: int) -> None:
        with _failing(path, "reserving space in"), open(path, "ab", buffering=0) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.write(bytes(size - file.tell()))

    def for_thread(self) -> OsFiles:
        return OsFiles(_DESCRIPTORS_OF_A_THREAD, read_only=self._read_only)

    def rename(self, old: str, new: str) -> None:
        with _failing(old, "renaming"):
            os.replace(old, new)

    def remove(self, path: str) -> None:
        with _failing(path, "removing"), contextlib.suppress(FileNotFoundError):
            if os.path.isdir(path):
                for name in os.listdir(path):
                    self.remove(os.path.join(path, name))
                os.rmdir(path)
            else:
                os.unlink(path)

    def sync_folder(self, path: str) -> None:
        if os.name == "nt":
            return
        with _failing(path, "syncing"):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def lock(self, path: str) -> Callable[[], None]:
        return lock_folder(path, read_only=self._read_only)


LOCK_NAME = ".lock"
OWNER_NAME = ".owner"


def lock_folder(path: str, *, read_only: bool = False) -> Callable[[], None]:
    """Lock a folder through the file `.lock` in it; see `Files.lock`.

    With `read_only` nothing is made: where there is no such file nobody has the folder.

    The lock belongs to the open file, so it ends with the process however that ends. A child made
    by a fork closes its copy as soon as it runs, and the parent does not wait for that: it takes
    the lock itself off the file that both have open.
    """
    lock_path = os.path.join(path, LOCK_NAME)
    try:
        if read_only:
            descriptor = os.open(lock_path, os.O_RDONLY | os.O_CLOEXEC)
        else:
            os.makedirs(path, exist_ok=True)
            descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if read_only and error.errno == errno.ENOENT:
            return lambda: None
        raise StoreUnusable(
            f"the directory {path} cannot be used as a store: {error.strerror}",
            "Nothing was read or written.",
            ("Give another directory, or the right to write to this one.",),
        ) from error
    try:
        _lock_descriptor(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise store_in_use(path) from error
    open_in_this_process = [True]

    def close() -> None:
        if open_in_this_process:
            open_in_this_process.clear()
            os.close(descriptor)

    def release() -> None:
        if open_in_this_process:
            _unlock_descriptor(descriptor)
            close()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close)
    return release


def _lock_descriptor(descriptor: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # Windows
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock_descriptor(descriptor: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]  # Windows
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)


def write_owner(path: str, address: str) -> None:
    """Leave word beside the lock who owns the folder and where it listens ("" for nowhere).

    Raises:
        StorageError: it cannot be written. What an earlier owner left is gone then.
    """
    import json

    owner = {"pid": os.getpid(), "command": " ".join(sys.argv[:4]), "address": address}
    owner_path = os.path.join(path, OWNER_NAME)
    draft = draft_of(owner_path)
    try:
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(owner, file)
        os.replace(draft, owner_path)
    except OSError as error:
        for left in (draft, owner_path):
            with contextlib.suppress(OSError):
                os.unlink(left)
        raise storage_error(error, owner_path, "writing") from error


def store_in_use(path: str) -> StoreInUse:
    """Make the exception that names a locked folder's owner."""
    import json

    try:
        with open(os.path.join(path, OWNER_NAME), encoding="utf-8") as file:
            owner = json.load(file)
        return StoreInUse(path, owner["pid"], owner["command"], owner["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return StoreInUse(path, 0, "")
