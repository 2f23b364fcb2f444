"""The folder of all logs: who owns it, what it is, and how it was left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ottla.clock import ManualClock
from ottla.errors import CorruptLog, StorageError, StoreInUse, StoreUnusable
from ottla.log.config import LogConfig
from ottla.log.files import Files, OsFiles, write_owner
from ottla.log.log_dir import CLEAN_SHUTDOWN, LogDir
from ottla.log.memory_files import MemoryFiles
from tests.log.writing import TOPIC_ID, append, save, sync, values_of


def open_store(path: Path | str, files: Files | None = None) -> LogDir:
    return LogDir.open(files or OsFiles(), str(path), ManualClock())


def test_a_new_store_gets_an_identity_and_keeps_it(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    cluster_id = store.cluster_id
    assert cluster_id
    store.close()
    again = open_store(tmp_path / "store")
    assert (again.cluster_id, again.node_id) == (cluster_id, 1)
    again.close()
    text = (tmp_path / "store" / "meta.properties").read_text()
    assert f"cluster.id={cluster_id}" in text
    assert "version=1" in text


def test_a_clean_stop_is_marked_and_the_mark_is_gone_while_it_is_open(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    log = store.open_log("t", 0, TOPIC_ID, LogConfig())
    append(log, b"a")
    sync(log)
    store.close()
    assert (tmp_path / CLEAN_SHUTDOWN).exists()
    again = open_store(tmp_path)
    assert again.was_clean
    assert not (tmp_path / CLEAN_SHUTDOWN).exists()
    assert values_of(again.open_log("t", 0, TOPIC_ID, LogConfig())) == [b"a"]
    again.close()


def test_a_crash_is_noticed_and_the_recovery_point_is_used() -> None:
    files = MemoryFiles(model_power_cuts=True)
    store = open_store("s", files)
    log = store.open_log("t", 0, TOPIC_ID, LogConfig())
    append(log, b"a")
    save(log, files)
    store.note_recovery_points()()
    again = open_store("s", files.after_power_cut())
    assert not again.was_clean
    found = again.open_log("t", 0, TOPIC_ID, LogConfig())
    assert values_of(found) == [b"a"]
    assert found.leader_epoch == 1
    checkpoint = files.read("s/recovery-point-offset-checkpoint")
    assert checkpoint == b"0\n1\nt 0 1\n"


def test_the_start_of_a_log_survives_a_crash_once_it_was_noted() -> None:
    files = MemoryFiles(model_power_cuts=True)
    store = open_store("s", files)
    log = store.open_log("t", 0, TOPIC_ID, LogConfig())
    append(log, b"a", b"b")
    sync(log)
    log.move_start(1)
    store.note_log_starts()()
    again = open_store("s", files.after_power_cut())
    assert values_of(again.open_log("t", 0, TOPIC_ID, LogConfig())) == [b"b"]


def test_a_store_in_use_names_its_owner(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(StoreInUse, match="another process"):
        open_store(tmp_path)
    write_owner(str(tmp_path), "127.0.0.1:9092")
    with pytest.raises(StoreInUse) as caught:
        open_store(tmp_path)
    assert (caught.value.pid, caught.value.address) == (os.getpid(), "127.0.0.1:9092")
    store.close()
    open_store(tmp_path).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_does_not_keep_the_store_locked(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    os.close(read_end)
    store.close()
    open_store(tmp_path).close()
    os.close(write_end)
    os.waitpid(child, 0)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are found in /proc")
def test_a_store_is_unlocked_before_a_child_has_closed_what_it_inherited(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    lock = os.open(tmp_path / ".lock", os.O_RDWR)
    inherited = next(
        int(name)
        for name in os.listdir("/proc/self/fd")
        if int(name) != lock and points_to(int(name), tmp_path / ".lock")
    )
    kept = os.dup(inherited)
    store.close()
    open_store(tmp_path).close()
    os.close(kept)
    os.close(lock)


def points_to(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(StoreUnusable, match=r"'letter\.txt'"):
        open_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_start_that_was_killed_before_there_was_an_identity_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "meta.properties.tmp").write_bytes(b"version=1\nclus")
    store = open_store(tmp_path)
    assert store.cluster_id
    store.close()
    assert not (tmp_path / "meta.properties.tmp").exists()


def test_a_damaged_identity_is_refused(tmp_path: Path) -> None:
    (tmp_path / "meta.properties").write_text("version=1\nnode.id=x\n")
    with pytest.raises(StoreUnusable, match=r"meta\.properties cannot be read"):
        open_store(tmp_path)


def test_a_damaged_partition_refuses_writes_and_the_others_do_not() -> None:
    files = MemoryFiles()
    store = open_store("s", files)
    for partition in (0, 1):
        log = store.open_log("t", partition, TOPIC_ID, LogConfig(segment_bytes=100))
        append(log, b"a" * 50)
        append(log, b"b" * 50)
        sync(log)
    path = "s/t-0/00000000000000000000.log"
    damaged = bytearray(files.read(path) or b"")
    damaged[-1] ^= 1
    files.write(path, bytes(damaged))
    store.abandon()
    again = open_store("s", files)
    bad = again.open_log("t", 0, TOPIC_ID, LogConfig(segment_bytes=100))
    with pytest.raises(CorruptLog):
        append(bad, b"c")
    other = again.open_log("t", 1, TOPIC_ID, LogConfig(segment_bytes=100))
    assert len(values_of(other)) == 2
    again.close()
    assert files.read(f"s/{CLEAN_SHUTDOWN}") is None


def test_a_deleted_log_is_gone_at_once_and_its_files_with_the_next_round() -> None:
    files = MemoryFiles(model_power_cuts=True)
    store = open_store("s", files)
    log = store.open_log("t", 0, TOPIC_ID, LogConfig())
    append(log, b"a")
    told: list[StorageError | None] = []
    log.when_stored(1, told.append)
    remove = store.delete_log("t", 0, StorageError("the topic was deleted"))
    assert str(told[0]) == "the topic was deleted"
    assert store.logs == {}
    [doomed] = [name for name in files.list("s") if name.startswith("t-0")]
    assert doomed.endswith("-delete")
    remove()
    assert not [name for name in files.list("s") if name.startswith("t-0")]


def test_a_removal_that_a_crash_interrupted_is_finished() -> None:
    files = MemoryFiles()
    store = open_store("s", files)
    store.open_log("t", 0, TOPIC_ID, LogConfig())
    store.delete_log("t", 0, StorageError("the topic was deleted"))
    store.abandon()
    again = open_store("s", files)
    again.remove_leftovers()
    assert not [name for name in files.list("s") if name.startswith("t-0")]


def test_a_new_topic_does_not_take_over_what_was_noted_of_a_deleted_one_of_its_name() -> None:
    files = MemoryFiles(model_power_cuts=True)
    store = open_store("s", files)
    log = store.open_log("t", 0, TOPIC_ID, LogConfig())
    append(log, b"a", b"b", b"c")
    save(log, files)
    log.move_start(2)
    store.note_log_starts()()
    store.note_recovery_points()()
    store.delete_log("t", 0, StorageError("the topic was deleted"))()
    new = store.open_log("t", 0, bytes(16), LogConfig())
    append(new, b"new")
    sync(new)
    again = open_store("s", files.after_power_cut())
    found = again.open_log("t", 0, bytes(16), LogConfig())
    assert (found.log_start_offset, values_of(found)) == (0, [b"new"])
    assert found.leader_epoch == 1
    assert files.read("s/recovery-point-offset-checkpoint") == b"0\n0\n"


def test_what_was_noted_last_stands_whoever_writes_last() -> None:
    files = MemoryFiles()
    store = open_store("s", files)
    log = store.open_log("t", 0, TOPIC_ID, LogConfig())
    append(log, b"a", b"b", b"c")
    sync(log)
    log.move_start(1)
    early = store.note_log_starts()
    log.move_start(2)
    store.note_log_starts()()
    early()
    assert files.read("s/log-start-offset-checkpoint") == b"0\n1\nt 0 2\n"


def test_what_was_noted_of_a_damaged_partition_is_kept() -> None:
    files = MemoryFiles(model_power_cuts=True)
    store = open_store("s", files)
    log = store.open_log("t", 0, TOPIC_ID, LogConfig())
    append(log, b"a")
    save(log, files)
    log.move_start(1)
    store.note_log_starts()()
    store.note_recovery_points()()
    append(log, b"b")
    append(log, b"c")
    sync(log)
    path = "s/t-0/00000000000000000000.log"
    content = bytearray(files.read(path) or b"")
    content[len(content) // 3 + 65] ^= 1
    files.write(path, bytes(content))
    for _ in range(2):
        files = files.after_power_cut()
        again = open_store("s", files)
        assert "damaged at byte" in str(again.open_log("t", 0, TOPIC_ID, LogConfig()).failed)
        again.close()
        assert files.read("s/log-start-offset-checkpoint") == b"0\n1\nt 0 1\n"
        assert files.read("s/recovery-point-offset-checkpoint") == b"0\n1\nt 0 1\n"
        assert files.read(path) == bytes(content)
        assert files.read(f"s/{CLEAN_SHUTDOWN}") is None


def test_the_folder_of_a_new_store_is_durable_in_the_folder_above() -> None:
    files = MemoryFiles(model_power_cuts=True)
    cluster_id = open_store("s", files).cluster_id
    assert open_store("s", files.after_power_cut()).cluster_id == cluster_id
