"""S2: how soon a broker confirms messages after a start: after a clean stop, and after `kill -9`.

A store is built with the embedded producer, and `ottla serve` is started on it again and again:

    empty store   one partition without records: what Python and the broker take anyway
    clean stop    the store after SIGTERM
    kill -9       the store after `kill -9` while four connections write to all partitions

What fits into memory is warm. At the end everything is read back and compared (`bench.restart`).
`--scale` makes the store smaller.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from bench.harness import CannotRun, Case, Goal, NotRun, Options, Sample, Side
from bench.restart import Load, Served, Started, build, free_port

_EMPTY, _CLEAN, _KILLED = "empty store", "clean stop", "kill -9"
_MEGABYTES, _QUICK_MEGABYTES = 10_000, 200
_PARTITIONS, _QUICK_PARTITIONS = 1_000, 100
_LOAD_MEGABYTES = 100
_AT_MOST_CLEAN_S, _AT_MOST_KILLED_S = 0.5, 2.0
_ROOM = 1.5
"""How much more than the store itself must be free on the disk."""


@dataclass
class _Stores:
    """What is started."""

    empty: Served
    full: Served


def cases(options: Options) -> list[Case | NotRun]:
    """Return the case."""
    megabytes = options.count(_MEGABYTES, _QUICK_MEGABYTES)
    partitions = options.count(_PARTITIONS, _QUICK_PARTITIONS)
    stores: list[_Stores] = []
    chance = random.Random(1)

    @contextlib.contextmanager
    def during() -> Iterator[None]:
        free = shutil.disk_usage(options.folder).free
        if free < megabytes * 1e6 * _ROOM:
            raise CannotRun(f"{free / 1e9:.1f} GB are free, too few for {megabytes / 1000:g} GB")
        folder = options.new_folder("restart")
        full = Served(
            folder / "full", free_port(), build(folder / "full", partitions, megabytes / 1000)
        )
        empty = Served(folder / "empty", free_port(), build(folder / "empty", 1, 0))
        stores.append(_Stores(empty, full))
        try:
            yield
            full.start()
            full.journal.check(full.address)
        finally:
            for served in (empty, full):
                served.stop()
            shutil.rmtree(folder)

    def run(name: str, _: int) -> Sample:
        served = stores[-1].empty if name == _EMPTY else stores[-1].full
        confirmed = 0.0
        if name == _KILLED:
            served.start()
            confirmed = Load(served).kill_after(min(_LOAD_MEGABYTES, megabytes / 10))
        started = served.start(chance.randrange(served.partitions))
        figures = _figures(started)
        if name == _KILLED:
            figures["MB confirmed before"] = confirmed
        return Sample(figures | {"s to stop": served.stop()})

    settings = {"store": f"{megabytes / 1000:g} GB in {partitions:,} partitions, durability disk"}
    return [
        Case(
            "S2",
            f"restart with {megabytes / 1000:g} GB in {partitions:,} partitions",
            [Side(name, partial(run, name), settings) for name in (_EMPTY, _CLEAN, _KILLED)],
            [
                Goal("first s", _CLEAN, at_most=_AT_MOST_CLEAN_S),
                Goal("first s", _KILLED, at_most=_AT_MOST_KILLED_S),
            ],
            during,
            is_quick=True,
        )
    ]


def _figures(started: Started) -> dict[str, float]:
    return {
        "first s": started.first_s,
        "then all s": started.all_s,
        "first MB": started.first_rss / 1e6,
        "then all MB": started.all_rss / 1e6,
    }
