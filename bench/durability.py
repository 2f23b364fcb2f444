"""What a small message costs that must survive a power cut: beside a real Kafka and SQLite.

    python -m bench.durability [--rounds 5] [--seconds 2] [--producers 1,16,64] [--json FILE]

Messages of 100 bytes, one at a time per producer: send, wait until it is confirmed, next.

    ottla serve         durability `disk`: every confirmed message was synced
    kafka, synced       a real Kafka, a topic with flush.messages=1: the same promise
    kafka, not synced   a real Kafka with its defaults: confirmed means in memory; NO fsync
    ottla embedded      a Broker in the process, durability `disk`, a Producer for each thread
    sqlite, busy        WAL, synchronous=FULL, a commit a message; a connection for each thread
    sqlite, lock        the same with one connection that the threads share

The first three get the same load from a process beside the broker (`bench.singles`), the others
from threads of their own process (`bench.stores`). All of them are measured in turn, round by
round, each time on a new topic or in a new folder; figures are medians of the rounds. Everything
that was confirmed is read back and compared, count and checksum, before any figure is printed. How
long a sync of this disk takes is measured in every round as well.

The real Kafka is warmed up; it is left out where there are no jars (`CONTRIBUTING.md` tells how to
get them).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import machine, singles, stores
from bench.serving import kafka_serving, ottla_serving
from ottla import Admin

OTTLA, SYNCED, NOT_SYNCED = "ottla serve", "kafka, synced", "kafka, not synced"
EMBEDDED, SQLITE_BUSY, SQLITE_LOCK = "ottla embedded", "sqlite, busy", "sqlite, lock"

_STORES = {
    EMBEDDED: stores.OTTLA,
    SQLITE_BUSY: stores.SQLITE_BUSY,
    SQLITE_LOCK: stores.SQLITE_LOCK,
}
_LEAD_PART = 0.15
_WARM_UP_PRODUCERS = 16

Case = Callable[[int, float], singles.Outcome]
"""Runs one case with so many producers for so many seconds."""


@dataclass
class Figures:
    """What was measured.

    Attributes:
        outcomes: by case and count of producers, one of each round.
        sync_ms: syncs of single blocks, of all rounds.
    """

    outcomes: dict[tuple[str, int], list[singles.Outcome]] = field(default_factory=dict)
    sync_ms: list[float] = field(default_factory=list)

    def median(self, case: str, producers: int, name: str) -> float:
        """Return the median of a figure over the rounds."""
        found: list[float] = [getattr(each, name) for each in self.outcomes[case, producers]]
        return statistics.median(found)


class Brokers:
    """The cases that are served over TCP.

    Args:
        partitions: of each topic.
    """

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._topics = 0

    def case(self, address: str, configs: dict[str, str]) -> Case:
        """Return a case: each run has a topic of its own, with these configs."""

        def run(producers: int, seconds: float) -> singles.Outcome:
            self._topics += 1
            topic = f"load{self._topics}"
            with Admin(address) as admin:
                admin.create_topic(topic, self._partitions, configs=configs)
            load = singles.Load(
                address, topic, producers, self._partitions, seconds, seconds * _LEAD_PART
            )
            outcome = singles.apply(load)
            singles.check(load, outcome)
            return outcome

        return run


def store_case(folder: Path, store: str) -> Case:
    """Return a case without a broker beside it: each run has a new folder."""

    def run(producers: int, seconds: float) -> singles.Outcome:
        folder.mkdir()
        load = stores.Load(store, str(folder), producers, seconds, seconds * _LEAD_PART)
        outcome = stores.apply(load)
        shutil.rmtree(folder)
        return outcome

    return run


def measure(
    cases: dict[str, Case], given: argparse.Namespace, sync_times_ms: Callable[[], list[float]]
) -> Figures:
    """Run all cases in turn, round by round."""
    figures = Figures()
    for turn in range(given.rounds):
        figures.sync_ms += sync_times_ms()
        for producers in given.producers:
            for name, case in cases.items():
                if producers == 1 and name == SQLITE_LOCK:
                    continue  # one connection is one connection
                found = figures.outcomes.setdefault((name, producers), [])
                found.append(case(producers, given.seconds))
        print(f"round {turn + 1} of {given.rounds}", file=sys.stderr)
    return figures


def warm_up(cases: dict[str, Case], seconds: float) -> None:
    """Run what is compiled while it runs, until it is."""
    for name in (OTTLA, SYNCED, NOT_SYNCED):
        if name in cases:
            print(f"{name} is warmed up", file=sys.stderr)
            cases[name](_WARM_UP_PRODUCERS, min(seconds / 2, 1.0) if name == OTTLA else seconds / 2)


@contextlib.contextmanager
def all_cases(given: argparse.Namespace, folder: Path) -> Iterator[tuple[dict[str, Case], str]]:
    """Start the brokers; gives the cases, and what the real Kafka is or why there is none."""
    brokers = Brokers(given.partitions)
    with contextlib.ExitStack() as stack:
        address, _ = stack.enter_context(ottla_serving(folder / "ottla", "disk"))
        cases = {OTTLA: brokers.case(address, {})}
        version = "no real Kafka: it was not asked for"
        if not given.no_kafka:
            kafka, version = stack.enter_context(kafka_serving(folder / "kafka", given.libs))
            if kafka is not None:
                cases[SYNCED] = brokers.case(kafka, {"flush.messages": "1"})
                cases[NOT_SYNCED] = brokers.case(kafka, {})
        for name, store in _STORES.items():
            cases[name] = store_case(folder / "store", store)
        yield cases, version


def report(figures: Figures, producers: list[int]) -> None:
    """Print the tables."""
    names = list(dict.fromkeys(name for name, _ in figures.outcomes))
    for count in producers:
        print(f"\n{count} producer{'s' if count > 1 else ''}")
        print(
            f"{'':<19}{'messages/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}"
            f"{'ottla serve is':>19}{'of its p99':>12}{'load busy':>11}"
        )
        for name in names:
            if (name, count) in figures.outcomes:
                print(_line(figures, name, count))
    if NOT_SYNCED in names:
        print(f"\n{NOT_SYNCED}: it confirms without fsync; a power cut takes what it confirmed.")


def _line(figures: Figures, name: str, producers: int) -> str:
    def median(figure: str, case: str = name) -> float:
        return figures.median(case, producers, figure)

    cells = f"{name:<19}{median('rate'):>11,.0f}{median('p50_ms'):>9.3f}{median('p99_ms'):>9.3f}"
    cells += f"{median('max_ms'):>9.1f}"
    if name == OTTLA:
        cells += " " * 31
    else:
        cells += f"{median('rate', OTTLA) / median('rate'):>13.2f}x fast"
        cells += f"{median('p99_ms', OTTLA) / median('p99_ms'):>11.2f}x"
    busy = median("busy")
    return cells + (f"{busy:>10.0%}" if busy else "")


def as_json(figures: Figures, given: argparse.Namespace, facts: list[str]) -> str:
    """Return everything that was measured."""
    rows = [
        {"case": name, "producers": producers, "rounds": [asdict(each) for each in found]}
        for (name, producers), found in figures.outcomes.items()
    ]
    return json.dumps(
        {"facts": facts, "given": vars(given), "rows": rows, "sync_ms": figures.sync_ms}, indent=1
    )


def arguments(args: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="See the module's docstring.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each case in each round")
    parser.add_argument("--producers", default="1,16,64", help="how many, separated by commas")
    parser.add_argument("--partitions", type=int, default=1, help="of each topic of a broker")
    parser.add_argument("--warm-up", type=float, default=40.0, help="seconds, for the real Kafka")
    parser.add_argument("--no-kafka", action="store_true", help="leave the real Kafka out")
    parser.add_argument("--libs", default="", help="the folder of Kafka's jars")
    parser.add_argument("--folder", help="on the disk to measure; the default is for tempfiles")
    parser.add_argument("--json", help="write all figures to this file as well")
    given = parser.parse_args(args)
    given.producers = [int(each) for each in given.producers.split(",")]
    return given


def main(args: list[str] | None = None) -> None:
    """Measure, check, and print."""
    given = arguments(args)
    facts = [machine.facts()]
    with tempfile.TemporaryDirectory(prefix="ottla-durability-", dir=given.folder) as name:
        folder = Path(name)
        facts.append(f"the disk: {machine.file_system(folder)}")
        with all_cases(given, folder) as (cases, version):
            facts.append(version)
            warm_up(cases, given.warm_up)
            figures = measure(cases, given, lambda: machine.sync_times_ms(folder))
    facts.append(f"SQLite {sqlite3.sqlite_version}, journal_mode=WAL, synchronous=FULL")
    facts.append(
        f"fdatasync of 4 KiB that were appended: p50 "
        f"{machine.percentile(figures.sync_ms, 0.5):.3f} ms, p99 "
        f"{machine.percentile(figures.sync_ms, 0.99):.3f} ms"
    )
    confirmed = sum(each.acknowledged for found in figures.outcomes.values() for each in found)
    facts.append(
        f"100 B a message, {given.partitions} partition(s), idempotent, acks=all; medians of "
        f"{given.rounds} rounds of {given.seconds:g} s; {confirmed:,} confirmed messages were read "
        "back and compared"
    )
    print("\n".join(facts))
    report(figures, given.producers)
    if given.json:
        Path(given.json).write_text(as_json(figures, given, facts))


if __name__ == "__main__":
    main()
