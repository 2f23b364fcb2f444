"""Processes of load that begin together: how they are started, and what they tell.

A process prints a line when it is ready and begins when it is sent one; what it did before, that is
to import, to connect and to prepare what it sends, is not measured. In the end it prints what it
came to as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.machine import percentile

ROOT = Path(__file__).parents[2]
_READY = "ready"


@dataclass
class Outcome:
    """What a process of load came to.

    Attributes:
        begun: when it began, of `time.perf_counter`, which all processes share.
        ended: when all that it sent was answered.
        records: how many were confirmed, or read.
        bytes: of their values, or of what was asked for.
        checksum: the sum of the values' CRCs.
        cpu_s: the processor's time that it took, of begun to ended.
        peak_mb: the most memory that it had.
        p50_us: half of the requests took less; 0 where that is not measured.
        p99_us: 99 of 100 took less.
        stored: how many records must be found, with those that were sent before it began.
    """

    begun: float
    ended: float
    records: int
    bytes: int
    checksum: int
    cpu_s: float
    peak_mb: float
    p50_us: float = 0.0
    p99_us: float = 0.0
    stored: int = 0

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.begun


class Meter:
    """What a process measures of itself: between making it and `outcome`."""

    def __init__(self) -> None:
        self._cpu_s = time.process_time()
        self._begun = time.perf_counter()

    def outcome(
        self,
        records: int,
        size: int,
        checksum: int = 0,
        taken_s: Sequence[float] = (),
        stored: int = 0,
    ) -> Outcome:
        """Sum up; see `Outcome`, and its names there."""
        ended = time.perf_counter()
        cpu_s = time.process_time() - self._cpu_s
        p50, p99 = (percentile(taken_s, part) * 1e6 if taken_s else 0.0 for part in (0.5, 0.99))
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found = Outcome(self._begun, ended, records, size, checksum, cpu_s, peak_mb, p50, p99)
        found.stored = stored or records
        return found


def serve(prepare: Callable[[dict[str, Any]], Callable[[], Outcome]]) -> None:
    """Be a process of load: prepare, say so, wait, run, print.

    Args:
        prepare: is given the settings of the command line, and returns what is to be measured.
    """
    run = prepare(json.loads(sys.argv[1]))
    print(_READY, flush=True)
    sys.stdin.readline()
    print(json.dumps(asdict(run())), flush=True)


class Running:
    """Processes that are ready.

    Args:
        processes: they.
    """

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes

    @property
    def pids(self) -> list[int]:
        """Their ids."""
        return [each.pid for each in self._processes]

    def begin(self) -> None:
        """Let all of them begin."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    def outcomes(self) -> list[Outcome]:
        """Wait for what they came to."""
        return [Outcome(**json.loads(_line_of(process))) for process in self._processes]


def _line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r:.200} ended with {process.wait()}")
    return line


@contextmanager
def ready(module: str, settings: Sequence[Mapping[str, object]]) -> Iterator[Running]:
    """Start a process for each of some settings, and wait until all are ready."""
    environment = {key: value for key, value in os.environ.items() if key != "OTTLA_BROKER"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(dict(each))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        for each in settings
    ]
    try:
        for process in processes:
            line = _line_of(process).strip()
            assert line == _READY, line
        yield Running(processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def apply(module: str, settings: Sequence[Mapping[str, object]]) -> list[Outcome]:
    """Run processes of load side by side, and return what they came to."""
    with ready(module, settings) as running:
        running.begin()
        return running.outcomes()


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Sum up processes that ran side by side; percentiles are the worst of them."""
    return Outcome(
        min(each.begun for each in outcomes),
        max(each.ended for each in outcomes),
        sum(each.records for each in outcomes),
        sum(each.bytes for each in outcomes),
        sum(each.checksum for each in outcomes),
        sum(each.cpu_s for each in outcomes),
        sum(each.peak_mb for each in outcomes),
        max(each.p50_us for each in outcomes),
        max(each.p99_us for each in outcomes),
        sum(each.stored for each in outcomes),
    )
