"""B4: what a small message costs that must survive a power cut: beside a real Kafka and SQLite.

Messages of 100 bytes, one at a time per producer: send, wait until it is confirmed, next.

    ottla serve         durability `disk`: every confirmed message was synced
    kafka, synced       a warm Apache Kafka, a topic with flush.messages=1: the same promise
    kafka, not synced   the same with its defaults: confirmed means in memory; NO fsync
    ottla embedded      a Broker in the process, durability `disk`, a Producer for each thread
    sqlite, busy        WAL, synchronous=FULL, a commit a message; a connection for each thread
    sqlite, lock        the same with one connection that the threads share

The first three get the same load from a process beside the broker (`bench.singles`), the others
from threads of their own process (`bench.stores`). How long a sync of this disk takes is measured
in every round as well.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import TYPE_CHECKING

from bench import brokers, machine, serving, singles, stores
from bench.brokers import KAFKA, OTTLA
from bench.harness import Case, Goal, NotRun, Options, Sample, Side

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.serving import Serving

SYNCED, NOT_SYNCED = "kafka, synced", "kafka, not synced"
EMBEDDED, SQLITE_BUSY, SQLITE_LOCK = "ottla embedded", "sqlite, busy", "sqlite, lock"
SYNC = "a sync of this disk"

_STORES = {
    EMBEDDED: stores.OTTLA,
    SQLITE_BUSY: stores.SQLITE_BUSY,
    SQLITE_LOCK: stores.SQLITE_LOCK,
}
_TOPIC_CONFIGS = {SYNCED: {"flush.messages": "1"}}
_PRODUCERS = (1, 16, 64)
_GOALS_FOR = 16
_MILLISECONDS = 1200
_LEAD_PART = 0.15
_AT_LEAST = 3.0
_AT_MOST_P99 = 0.5
_RATE, _P50, _P99 = "messages/s", "p50 ms", "p99 ms"


def cases(options: Options) -> list[Case | NotRun]:
    """Return one case for each count of producers."""
    return [_case(options, producers) for producers in _PRODUCERS]


def _case(options: Options, producers: int) -> Case:
    seconds = options.count(_MILLISECONDS, 400) / 1000
    runs: dict[str, Callable[[int], Sample]] = {
        name: partial(_over_tcp, options, name, producers, seconds)
        for name in (OTTLA, SYNCED, NOT_SYNCED)
    }
    for name, store in _STORES.items():
        if producers > 1 or name != SQLITE_LOCK:  # one connection is one connection
            runs[name] = partial(_in_process, options, store, producers, seconds)
    runs[SYNC] = partial(_syncs, options)
    goals = [
        Goal(_RATE, OTTLA, SYNCED, at_least=_AT_LEAST),
        Goal(_P99, OTTLA, SYNCED, at_most=_AT_MOST_P99),
    ]
    return Case(
        "B4",
        f"durable messages, one at a time of {producers} producer(s)",
        [Side(name, run, _settings_of(name)) for name, run in runs.items()],
        goals if producers == _GOALS_FOR else [],
        is_quick=producers == _GOALS_FOR,
    )


def _settings_of(name: str) -> dict[str, str]:
    if name.startswith("sqlite"):
        version = sqlite3.sqlite_version
        return {"SQLite": version, "journal_mode": "WAL", "synchronous": "FULL"}
    if name == NOT_SYNCED:
        return {"promise": "none: a power cut takes what it has confirmed"}
    return {"topic": "flush.messages=1"} if name == SYNCED else {"durability": "disk"}


def _over_tcp(options: Options, name: str, producers: int, seconds: float, _: int) -> Sample:
    shared = brokers.shared(options)
    broker = _durable(options) if name == OTTLA else shared.chosen(KAFKA)
    with shared.topic(broker, 1, _TOPIC_CONFIGS.get(name)) as topic:
        load = singles.Load(broker.address, topic, producers, 1, seconds, seconds * _LEAD_PART)
        before_s = broker.process.cpu_s()
        outcome = singles.apply(load)
        broker_s = broker.process.cpu_s() - before_s
        found, checksum = brokers.read_back(broker.address, topic)
    return Sample(
        _figures(outcome),
        client_cpu_s=outcome.busy * seconds,
        broker_cpu_s=broker_s,
        sent=outcome.acknowledged,
        acknowledged=outcome.acknowledged,
        read=found,
        is_same=checksum == outcome.checksum,
    )


def _durable(options: Options) -> Serving:
    """Return a broker of ours that syncs; all cases share it."""
    folder = options.folder / "durable"
    found: Serving = options.shared("ottla disk", lambda: serving.ottla(folder, "disk"))
    return found


def _in_process(options: Options, store: str, producers: int, seconds: float, _: int) -> Sample:
    folder = options.new_folder("store")
    load = stores.Load(store, str(folder), producers, seconds, seconds * _LEAD_PART)
    outcome = stores.apply(load)  # which reads back and compares
    count = outcome.acknowledged
    return Sample(_figures(outcome), sent=count, acknowledged=count, read=count, is_same=True)


def _syncs(options: Options, _: int) -> Sample:
    taken = machine.sync_times_ms(options.folder)
    return Sample({_P50: machine.percentile(taken, 0.5), _P99: machine.percentile(taken, 0.99)})


def _figures(outcome: singles.Outcome) -> dict[str, float]:
    return {
        _RATE: outcome.rate,
        _P50: outcome.p50_ms,
        _P99: outcome.p99_ms,
        "max ms": outcome.max_ms,
    }
