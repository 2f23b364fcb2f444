"""The power is cut, or the process killed, at points of the scripted workload: a part of them.

All of them: `python -m tests.crash`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.crash.faulty_files import FaultyFiles
from tests.crash.points import Walk, kills, power_cuts, second_cuts
from tests.crash.report import Row
from tests.crash.workload import Workload


def _telling(told: Callable[[str], None]) -> FaultyFiles:
    return FaultyFiles(before=lambda what, path: told(f"{what} {path}"))


def assert_good(row: Row, problems: list[str]) -> None:
    assert row.is_good, "\n".join([str(row), *problems[:5]])


@pytest.mark.slow
def test_what_was_promised_is_there_after_a_power_cut_at_any_step() -> None:
    assert_good(*power_cuts(full=False))


@pytest.mark.slow
def test_what_was_promised_is_there_after_a_kill_and_a_power_cut() -> None:
    assert_good(*kills(full=False))


@pytest.mark.slow
def test_a_start_after_a_power_cut_may_be_cut_off_as_well() -> None:
    assert_good(*second_cuts(full=False))


def test_the_workload_is_the_same_each_time_and_comes_by_every_kind_of_step() -> None:
    runs: list[list[str]] = []
    for _ in range(2):
        steps: list[str] = []
        Workload(_telling(steps.append)).run()
        runs.append(steps)
    assert runs[0] == runs[1]
    kinds = {step.partition(" store")[0] for step in runs[0]}
    assert {"create", "write", "sync", "sync folder", "rename", "remove", "reserve"} <= kinds
    endings = (".log.swap", ".log.deleted", ".snapshot.tmp", "cleaner-offset-checkpoint.tmp")
    for ending in endings:
        assert any(step.endswith(ending) for step in runs[0]), ending


def test_only_a_full_disk_refuses_anything_in_the_workload() -> None:
    workload = Workload(FaultyFiles())
    workload.run()
    assert [name for name, _ in workload.refused] == ["plain", "aged"]
    assert workload.book.acknowledged > 150


def test_steps_are_stopped_at_once_each() -> None:
    labels: list[str] = []
    walk = Walk(lambda stopped: labels.append(stopped.label))
    walk.run()
    assert len(labels) == walk.stops
    assert labels[-1].startswith("end")
