"""Leader epochs: kept over starts, never turned back, and found again from the batches."""

from __future__ import annotations

import pytest

from ottla.errors import DiskFull
from ottla.log import checkpoints
from ottla.log.leader_epochs import UNKNOWN, LeaderEpochs
from ottla.log.memory_files import MemoryFiles
from tests.log.writing import append, new_log, open_log, save, sync, values_of

PATH = f"root/t-0/{checkpoints.LEADER_EPOCHS}"


def epochs_in(files: MemoryFiles) -> list[tuple[int, int]]:
    return checkpoints.decode_epochs(files.read(PATH), PATH)


def crashed_twice() -> MemoryFiles:
    """Return a log of two records of epoch 0, one of epoch 1 and one of epoch 2."""
    log, files = new_log()
    append(log, b"a")
    append(log, b"b")
    sync(log)
    for value in (b"c", b"d"):
        log = open_log(files)
        append(log, value)
        sync(log)
    assert epochs_in(files) == [(0, 0), (1, 2), (2, 3)]
    return files


def loaded(*entries: tuple[int, int]) -> LeaderEpochs:
    files = MemoryFiles()
    files.write(PATH, checkpoints.encode_epochs(list(entries)))
    return LeaderEpochs(files, "root/t-0", [])


def test_a_new_log_begins_with_epoch_0_and_a_clean_stop_begins_none() -> None:
    log, files = new_log()
    append(log, b"a")
    log.close()
    again = open_log(files, recovery_point=None)
    assert again.leader_epoch == 0
    assert epochs_in(files) == [(0, 0)]


def test_a_new_log_s_epochs_are_written_with_its_first_recovery_point() -> None:
    log, files = new_log()
    append(log, b"a")
    sync(log)
    assert files.read(PATH) is None
    save(log, files)
    assert epochs_in(files) == [(0, 0)]
    files.remove(PATH)
    append(log, b"b")
    save(log, files)
    assert files.read(PATH) is None  # once is enough


def test_a_power_cut_before_the_first_recovery_point_leaves_the_epochs_to_the_batches() -> None:
    log, files = new_log()
    append(log, b"a")
    sync(log)
    append(log, b"b")
    files = files.after_power_cut()
    again = open_log(files)
    assert values_of(again) == [b"a"]
    assert again.leader_epoch == 1
    assert epochs_in(files) == [(0, 0), (1, 1)]


def test_an_epoch_that_wrote_nothing_leaves_no_entry_behind() -> None:
    files = crashed_twice()
    open_log(files)
    open_log(files)
    assert epochs_in(files) == [(0, 0), (1, 2), (2, 3), (4, 4)]


def test_epochs_that_are_missing_are_found_again_in_the_batches() -> None:
    files = crashed_twice()
    files.remove(PATH)
    log = open_log(files, recovery_point=None)
    assert log.leader_epoch == 2
    assert epochs_in(files) == [(0, 0), (1, 2), (2, 3)]


def test_a_log_that_ends_before_an_epoch_s_beginning_begins_another_there() -> None:
    files = crashed_twice()
    files.write(PATH, checkpoints.encode_epochs([(0, 0), (1, 2), (2, 3), (5, 100)]))
    log = open_log(files, recovery_point=None)
    assert log.leader_epoch == 6
    assert epochs_in(files) == [(0, 0), (1, 2), (2, 3), (6, 4)]


def test_a_damaged_log_keeps_the_epochs_that_it_has() -> None:
    files = crashed_twice()
    log = "root/t-0/00000000000000000000.log"
    data = bytearray(files.read(log) or b"")
    data[65] ^= 1
    files.write(log, bytes(data))
    before = files.read(PATH)
    damaged = open_log(files)
    assert damaged.failed is not None
    assert files.read(PATH) == before


@pytest.mark.parametrize(
    ("asked", "told"),
    [(-1, UNKNOWN), (0, (0, 3)), (3, (3, 10)), (5, (5, 10)), (7, (7, 20)), (8, UNKNOWN)],
)
def test_an_epoch_ends_where_the_next_one_begins(asked: int, told: tuple[int, int]) -> None:
    """Epoch 0 is before all that are known; 5 is there; 8 has not begun."""
    assert loaded((3, 3), (5, 10), (7, 10)).end_of(asked, 20) == told


def test_epochs_between_two_that_wrote_are_told_as_the_one_before() -> None:
    assert loaded((1, 0), (4, 10)).end_of(3, 20) == (1, 10)


def test_no_epoch_ends_behind_the_log() -> None:
    assert loaded((0, 0), (1, 30)).end_of(0, 20) == (0, 20)


def test_a_full_disk_is_no_reason_not_to_open_a_log_and_the_epoch_is_there_before_its_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = crashed_twice()

    def full(path: str, content: bytes) -> None:
        raise DiskFull(f"no space left while writing {path}")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", full)
        log = open_log(files)
        assert log.leader_epoch == 3
        with pytest.raises(DiskFull):
            append(log, b"e")
    assert epochs_in(files)[-1] == (2, 3)
    append(log, b"f")
    assert epochs_in(files)[-1] == (3, 4)
    assert values_of(log, 3) == [b"d"]
