"""What a store asks of its files, of the disk's and of those in memory alike."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ottla.errors import DiskFull, StorageError, StoreInUse
from ottla.log.files import Files, OsFiles
from ottla.log.memory_files import Content, Folder, MemoryFiles, NameChange, Survival


@pytest.fixture(params=["os", "memory"])
def files(request: pytest.FixtureRequest) -> Files:
    return OsFiles() if request.param == "os" else MemoryFiles()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


def test_what_is_appended_is_read_anywhere(files: Files, folder: str) -> None:
    file = files.open(f"{folder}/a", create=True)
    file.append([b"hello ", memoryview(b"world")])
    file.append([bytearray(b"!")])
    assert file.size() == 12
    assert file.read(0, 5) == b"hello"
    assert file.read(6, 100) == b"world!"
    assert file.read(12, 5) == b""
    file.close()
    again = files.open(f"{folder}/a", create=False)
    assert again.size() == 12
    assert again.read(0, 12) == b"hello world!"
    again.close()


def test_many_buffers_are_written_as_one(files: Files, folder: str) -> None:
    file = files.open(f"{folder}/a", create=True)
    file.append([b"%4d" % number for number in range(3000)])
    assert file.size() == 12_000
    assert file.read(4 * 2999, 4) == b"2999"
    file.close()


def test_a_file_is_cut_and_grows_on_from_there(files: Files, folder: str) -> None:
    file = files.open(f"{folder}/a", create=True)
    file.append([b"abcdef"])
    file.truncate(3)
    file.append([b"X"])
    assert (file.size(), file.read(0, 10)) == (4, b"abcX")
    file.close()


def test_a_sync_runs_and_ends(files: Files, folder: str) -> None:
    file = files.open(f"{folder}/a", create=True)
    file.append([b"x"])
    file.begin_sync()()
    file.end_sync()
    files.sync_folder(folder)
    file.close()


def test_what_is_there_cannot_be_created_and_what_is_not_cannot_be_opened(
    files: Files, folder: str
) -> None:
    files.open(f"{folder}/a", create=True).close()
    with pytest.raises(StorageError, match="creating"):
        files.open(f"{folder}/a", create=True)
    with pytest.raises(StorageError, match="opening"):
        files.open(f"{folder}/b", create=False)


def test_small_files_are_written_as_a_whole(files: Files, folder: str) -> None:
    assert files.read(f"{folder}/a") is None
    files.write(f"{folder}/a", b"one")
    files.write(f"{folder}/a", b"two")
    assert files.read(f"{folder}/a") == b"two"
    assert files.list(folder) == ["a"]


def test_names_are_listed_renamed_and_removed_with_all_that_is_in_them(
    files: Files, folder: str
) -> None:
    files.make_folder(f"{folder}/one")
    files.write(f"{folder}/one/b", b"1")
    files.write(f"{folder}/one/a", b"2")
    files.write(f"{folder}/oneself", b"3")
    assert files.list(f"{folder}/one") == ["a", "b"]
    assert files.list(f"{folder}/none") == []
    files.rename(f"{folder}/one", f"{folder}/two")
    assert files.list(folder) == ["oneself", "two"]
    assert files.read(f"{folder}/two/a") == b"2"
    files.remove(f"{folder}/two")
    files.remove(f"{folder}/two")
    assert files.list(folder) == ["oneself"]


def test_a_folder_is_locked_once(files: Files, folder: str) -> None:
    unlock = files.lock(folder)
    with pytest.raises(StoreInUse):
        files.lock(folder)
    unlock()
    files.lock(folder)()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted with /proc")
def test_only_so_many_files_are_held_open(folder: str) -> None:
    files = OsFiles(descriptors_max=3)
    opened = [files.open(f"{folder}/{number}", create=True) for number in range(10)]
    for _ in range(2):
        for number, file in enumerate(opened):
            file.append([b"%d" % number])
    held = [name for name in os.listdir("/proc/self/fd") if _is_in(name, folder)]
    assert len(held) == 3
    assert [file.read(0, 10) for file in opened] == [b"%d" % number * 2 for number in range(10)]
    for file in opened:
        file.close()


def _is_in(descriptor: str, folder: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith(folder)
    except OSError:
        return False


@pytest.mark.parametrize(
    "write",
    [
        lambda real: lambda fd, buffers, position: real(fd, [bytes(buffers[0])[:1]], position),
        lambda real: lambda fd, buffers, position: real(fd, buffers[:1], position),
    ],
    ids=["one byte at a time", "one buffer at a time"],
)
def test_short_writes_are_finished(
    folder: str, monkeypatch: pytest.MonkeyPatch, write: Callable[..., object]
) -> None:
    from ottla.log import files as module

    monkeypatch.setattr(module, "_write_at", write(module._write_at))
    file = OsFiles().open(f"{folder}/a", create=True)
    file.append([b"hello ", b"world"])
    assert file.read(0, 100) == b"hello world"
    file.close()


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, DiskFull), (errno.EIO, StorageError)])
def test_a_write_that_fails_half_way_leaves_nothing(
    folder: str, monkeypatch: pytest.MonkeyPatch, number: int, error: type[StorageError]
) -> None:
    from ottla.log import files as module

    real = module._write_at
    calls: Iterator[int] = iter(range(100))

    def fails_the_second_time(descriptor: int, buffers: list[bytes], position: int) -> int:
        if next(calls) == 1:
            raise OSError(number, os.strerror(number))
        return real(descriptor, [bytes(buffers[0])[:2]], position)

    file = OsFiles().open(f"{folder}/a", create=True)
    file.append([b"before"])
    monkeypatch.setattr(module, "_write_at", fails_the_second_time)
    with pytest.raises(error):
        file.append([b"lost"])
    monkeypatch.undo()
    assert (file.size(), os.path.getsize(f"{folder}/a")) == (6, 6)
    file.append([b" after"])
    assert file.read(0, 100) == b"before after"
    file.close()


def test_a_write_that_cannot_be_taken_back_tears_the_file(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ottla.log import files as module

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = OsFiles().open(f"{folder}/a", create=True)
    file.append([b"before"])
    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_at", fails)
        with pytest.raises(StorageError):
            file.append([b"lost"])
        assert not file.is_torn
        patch.setattr(os, "ftruncate", fails)
        with pytest.raises(StorageError):
            file.append([b"lost"])
    assert file.is_torn
    assert file.size() == 6
    file.close()


def test_the_model_keeps_through_a_power_cut_exactly_what_was_synced() -> None:
    files = MemoryFiles(model_power_cuts=True)
    file = files.open("d/a", create=True)
    file.append([b"synced"])
    file.begin_sync()()
    assert files.after_power_cut().list("d") == []
    files.sync_folder("d")
    file.append([b" and not"])
    files.open("d/b", create=True)
    found = files.after_power_cut()
    assert found.list("d") == ["a"]
    assert found.read("d/a") == b"synced"
    files.rename("d/a", "d/c")
    assert files.after_power_cut().list("d") == ["a"]
    files.sync_folder("d")
    assert files.after_power_cut().list("d") == ["b", "c"]


class Everything(Survival):
    """A power cut that takes nothing away."""

    def content(self, file: Content) -> bytes:
        return bytes(file.data)

    def names(self, folder: Folder) -> list[NameChange]:
        return folder.changes


class FirstName(Everything):
    """A power cut that leaves each folder's first change of names."""

    def names(self, folder: Folder) -> list[NameChange]:
        return folder.changes[:1]


def test_what_a_power_cut_leaves_of_the_model_can_be_chosen() -> None:
    files = MemoryFiles(model_power_cuts=True)
    file = files.open("d/a", create=True)
    file.append([b"abc"])
    files.rename("d/a", "d/b")
    file.truncate(1)
    assert files.after_power_cut().everything() == {"d/": b""}
    assert files.after_power_cut(Everything()).everything() == {"d/b": b"a"}
    assert files.after_power_cut(FirstName()).everything() == {"d/a": b"a"}
    contents, names = files.unsynced()
    assert [change.data for change in contents[0].changes] == [b"abc", None]
    assert [list(change.names) for change in names] == [["a"], ["a", "b"]]


def test_a_kill_takes_nothing_and_makes_nothing_durable() -> None:
    files = MemoryFiles(model_power_cuts=True)
    files.open("d/a", create=True).append([b"abc"])
    found = files.after_kill()
    assert found.read("d/a") == b"abc"
    assert found.after_power_cut().list("d") == []
    found.open("d/a", create=False).append([b"def"])
    assert files.read("d/a") == b"abc"


def test_the_model_reads_from_its_disk_what_a_failed_sync_has_not_brought_there() -> None:
    files = MemoryFiles(model_power_cuts=True)
    file = files.open("d/a", create=True)
    file.append([b"ab"])
    file.begin_sync()()
    file.append([b"cd"])
    files.content_of("d/a").changes.clear()
    assert file.read(0, 4) == b"abcd"
    file.forget_cached(0)
    assert file.read(0, 4) == b"ab\0\0"


def test_a_file_that_was_closed_is_opened_again_by_its_path(files: Files, folder: str) -> None:
    files.make_folder(folder)
    file = files.open(f"{folder}/a", create=True)
    file.append([b"abc"])
    file.close()
    assert file.read(0, 3) == b"abc"
    file.close()
    files.rename(f"{folder}/a", f"{folder}/b")
    with pytest.raises(StorageError, match="opening"):
        file.read(0, 3)
