"""Each step of the scripted workload fails once: an error, a full disk, a write that is cut short.

A fault hits one step (see `faulty_files`), and the run goes on as clients would. Then nothing but
refusals may have come of it: the broker goes on serving; what was confirmed is there after a power
cut at the end, and after a mere restart; and after a sync of batches that failed nothing more is
confirmed in that partition until the next start, nor any change of the metadata where the failed
sync was theirs.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator

import pytest

from ottla.errors import KafkaError
from ottla.log import checkpoints
from tests.crash.faulty_files import CHANGES, Fault, FaultyFiles
from tests.crash.judging import judge
from tests.crash.points import judges_uuids, note
from tests.crash.promises import Verdict
from tests.crash.report import Row
from tests.crash.workload import Workload


def steps() -> list[str]:
    """Return the steps of the workload without a fault, each as its kind and path."""
    found: list[str] = []
    Workload(FaultyFiles(before=lambda what, path: found.append(f"{what} {path}"))).run()
    return found


def _with_an_error(step: str, number: int) -> Iterator[Fault]:
    yield Fault(number)


def _with_no_room(step: str, number: int) -> Iterator[Fault]:
    if step.partition(" store")[0] in CHANGES:
        yield Fault(number, errno.ENOSPC)


def _cut_short(step: str, number: int) -> Iterator[Fault]:
    if step.startswith("write "):
        for error in (errno.EIO, errno.ENOSPC):
            yield Fault(number, error, written=0.6)


def _cut_short_for_good(step: str, number: int) -> Iterator[Fault]:
    if step.startswith("write "):
        yield Fault(number, written=0.6, stays=True)


def _in_a_sync(step: str, number: int) -> Iterator[Fault]:
    if step.startswith("sync store/") and step.endswith(".log"):
        yield Fault(number)


KINDS: dict[str, Callable[[str, int], Iterator[Fault]]] = {
    "each step fails: EIO": _with_an_error,
    "each step fails: ENOSPC": _with_no_room,
    "each write is cut short": _cut_short,
    "each write is cut short, and stays": _cut_short_for_good,
    "failed fsync": _in_a_sync,
}


def run_with(fault: Fault) -> tuple[Workload, Verdict]:
    """Run the workload with a fault, and judge what is left."""
    files = FaultyFiles()
    files.fault = fault
    workload = Workload(files)
    verdict = Verdict()
    try:
        workload.run()
    except KafkaError as error:
        verdict.bad.append(f"a refusal nobody expects: {error}")
    except Exception as error:
        verdict.bad.append(f"what nobody expects: {error!r}")
    verdict.bad += [f"confirmed after a failed sync: {folder}" for folder in workload.book.late]
    if not verdict.problems:
        for found in (files.after_power_cut(), files.after_kill()):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(checkpoints, "new_uuid", judges_uuids())
                judged = judge(
                    found,
                    workload.book,
                    workload.clock.now_ms(),
                    twice=False,
                    hurt=frozenset(files.hurt),
                )
            verdict.lost += judged.lost
            verdict.duplicated += judged.duplicated
            verdict.reordered += judged.reordered
            verdict.bad += judged.bad
    return workload, verdict


def run(what: str, full: bool) -> tuple[Row, list[str]]:
    """Run one kind of faults; returns what came of it, and what was wrong in words."""
    begun = time.perf_counter()
    faults = [
        fault for number, step in enumerate(steps(), 1) for fault in KINDS[what](step, number)
    ]
    row = Row(f"{what}, model", exist=len(faults) if full else None)
    if not full:
        faults = random.Random(4).sample(faults, min(len(faults), 20))
    problems = []
    for fault in faults:
        workload, verdict = run_with(fault)
        row.tried += bool(fault.hit)
        row.acknowledged += workload.book.acknowledged
        note(row, verdict)
        if verdict.problems:
            problems.append(f"step {fault.number}, {fault.hit}: {verdict.problems[0]}")
    row.seconds = time.perf_counter() - begun
    return row, problems


def rows(full: bool) -> list[Row]:
    """Run all of it, or the short form."""
    return [run(what, full)[0] for what in KINDS]
