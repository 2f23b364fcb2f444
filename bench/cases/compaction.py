"""S4: what compaction costs those who produce meanwhile; no goal, but a figure to look at.

A store has one topic for each round, full of records with small keys and values, each key many
times. Messages of 100 bytes are sent to another topic, each when its last one is confirmed
(`bench.singles`), durability `disk`; in one side nothing else goes on, in the other one a topic's
`cleanup.policy` is set to `compact` when the load is under way, and the load ends when the broker
notes how far it has compacted the topic.

Every message that was confirmed is read back, and in each compacted topic the last value of each
key; there must be fewer records in it than there were.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench import compaction, machine, serving, singles
from bench.harness import ROUNDS, Case, NotRun, Options, Sample, Side
from ottla import Admin

if TYPE_CHECKING:
    from bench.compaction import Built
    from bench.serving import Serving

_WITHOUT, _DURING = "without compaction", "during compaction"
_MEGABYTES = 60
_SECONDS = 3.0
_LEAD_S = 0.5
_LOAD_TIMEOUT_S = 3600.0


class _Compacting:
    """The case: a broker with topics to compact."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._broker: Serving
        self._built: list[Built] = []
        self._loads = 0

    @contextlib.contextmanager
    def during(self) -> Iterator[None]:
        """Build the store, and serve it."""
        folder = self._options.new_folder("compaction") / "store"
        megabytes = self._options.count(_MEGABYTES)
        self._built = compaction.build(folder, ROUNDS, megabytes, "none")
        with serving.ottla(folder, "disk", compaction.SETTINGS) as self._broker:
            yield
        shutil.rmtree(folder)

    def run(self, name: str, number: int) -> Sample:
        """Send for a while, or as long as a topic is compacted."""
        self._loads += 1
        topic = f"load{self._loads}"
        address = self._broker.address
        with Admin(address) as admin:
            admin.create_topic(topic, 1)
        with tempfile.TemporaryDirectory(dir=self._options.folder) as temporary:
            times_path = str(Path(temporary) / "times")
            load = singles.Load(address, topic, 1, 1, _LOAD_TIMEOUT_S, _LEAD_S, times_path)
            with singles.started(load) as process:
                try:
                    time.sleep(2 * _LEAD_S)  # the load is under way then
                    begun = time.perf_counter()
                    figures = self._meanwhile(name, number)
                    ended = time.perf_counter()
                finally:
                    process.terminate()
                outcome = singles.outcome_of(process)
            times = singles.read_times(times_path)
        singles.check(load, outcome)
        if name == _DURING:
            left = compaction.check_compacted(address, self._built[number])
            figures["records left"] = left
        taken = [each * 1000 for sent, each in times if begun <= sent < ended]
        return Sample(
            {
                "p50 ms": machine.percentile(taken, 0.5),
                "p99 ms": machine.percentile(taken, 0.99),
                "max ms": max(taken),
                "messages/s": len(taken) / (ended - begun),
                **figures,
            }
        )

    def _meanwhile(self, name: str, number: int) -> dict[str, float]:
        if name == _WITHOUT:
            time.sleep(_SECONDS)
            return {}
        topic = self._built[number]
        with Admin(self._broker.address) as admin:
            seconds = compaction.compact(admin, self._broker.data, topic)
        return {"MB/s compacted": topic.cleanable_bytes / 1e6 / seconds}


def cases(options: Options) -> list[Case | NotRun]:
    """Return the case."""
    compacting = _Compacting(options)
    sides = [Side(name, partial(compacting.run, name)) for name in (_WITHOUT, _DURING)]
    title = "what compaction costs those who produce meanwhile"
    return [Case("S4", title, sides, [], compacting.during, rounds=ROUNDS)]
