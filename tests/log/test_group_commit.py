"""Group commit: one round for everybody who waits."""

from __future__ import annotations

import pytest

from ottla.errors import StorageError
from ottla.log.group_commit import GroupCommit
from ottla.log.memory_files import MemoryFile
from tests.log.writing import append, new_log, values_of


def test_one_round_syncs_all_logs_that_were_written() -> None:
    commit = GroupCommit()
    logs = [new_log()[0] for _ in range(3)]
    for log in logs:
        append(log, b"a")
        append(log, b"b")
        commit.add(log)
        commit.add(log)
    begun = commit.begin()
    assert begun is not None
    assert len(begun.parts) == 3
    assert commit.is_running
    assert commit.begin() is None
    commit.end(begun.run())
    assert not commit.is_running
    assert [values_of(log) for log in logs] == [[b"a", b"b"]] * 3
    assert commit.begin() is None


def test_what_arrives_during_a_round_waits_for_the_next() -> None:
    commit = GroupCommit()
    log, _ = new_log()
    append(log, b"a")
    commit.add(log)
    begun = commit.begin()
    assert begun is not None
    append(log, b"b")
    commit.add(log)
    commit.end(begun.run())
    assert values_of(log) == [b"a"]
    following = commit.begin()
    assert following is not None
    commit.end(following.run())
    assert values_of(log) == [b"a", b"b"]


def test_jobs_are_done_with_the_round_and_told_how_they_ended() -> None:
    commit = GroupCommit()
    done: list[object] = []

    def fails() -> None:
        raise StorageError("the disk is gone")

    commit.add_job(lambda: done.append("first"), done.append)
    commit.add_job(fails, lambda error: done.append(str(error)))
    begun = commit.begin()
    assert begun is not None
    commit.end(begun.run())
    assert done == ["first", None, "the disk is gone"]


def test_a_log_whose_sync_fails_does_not_keep_another_from_being_stored() -> None:
    commit = GroupCommit()
    bad, good = new_log()[0], new_log()[0]
    for log in (bad, good):
        append(log, b"a")
        commit.add(log)
    begun = commit.begin()
    assert begun is not None
    errors = begun.run()
    errors[0] = StorageError("the disk is gone")
    commit.end(errors)
    assert bad.failed is not None
    assert values_of(bad) == []
    assert values_of(good) == [b"a"]


def test_a_round_takes_no_more_logs_than_there_may_be_files_open() -> None:
    commit = GroupCommit(logs_max=2)
    logs = [new_log()[0] for _ in range(5)]
    for log in logs:
        append(log, b"a")
        commit.add(log)
    rounds = 0
    while (begun := commit.begin()) is not None:
        assert len(begun.parts) <= 2
        commit.end(begun.run())
        rounds += 1
    assert rounds == 3
    assert [values_of(log) for log in logs] == [[b"a"]] * 5


def test_a_log_whose_sync_cannot_begin_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = GroupCommit()
    bad, good = new_log()[0], new_log()[0]
    told: list[StorageError | None] = []
    for log in (bad, good):
        append(log, b"a")
        commit.add(log)
        log.when_stored(1, told.append)

    def no_descriptor(file: MemoryFile) -> None:
        raise StorageError("too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFile, "begin_sync", no_descriptor)
        bad.when_stored(1, told.append)
        only_bad = GroupCommit()
        only_bad.add(bad)
        only_bad.begin()
    begun = commit.begin()
    assert begun is not None
    commit.end(begun.run())
    assert [str(error)[:20] for error in told if error] == ["the log of t-0 could"] * 2
    assert bad.failed is not None
    assert values_of(good) == [b"a"]


def test_a_sync_that_failed_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(file: MemoryFile) -> None:
        raise StorageError("syncing it failed: Input/output error")

    monkeypatch.setattr(MemoryFile, "begin_sync", fail)
    commit = GroupCommit()
    log, _ = new_log()
    append(log, b"a")
    for _ in range(2):
        commit.add(log)
        begun = commit.begin()
        assert begun is not None
        commit.end(begun.run())
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "the log of t-0 could not be made durable" in caplog.text
