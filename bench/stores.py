"""Load of small messages on a store in the same process, one at a time in each of some threads.

    python -m bench.stores JSON        the fields of `Load`; prints those of `bench.singles.Outcome`

    ottla         one Broker with durability `disk`, and in each thread a Producer of its own:
                  `send(...).result()`
    sqlite busy   a database with journal_mode=WAL and synchronous=FULL, a connection for each
                  thread, one INSERT per commit; who finds it locked tries again (busy_timeout)
    sqlite lock   the same with one connection, which the threads take in turn under a lock

Messages have 100 bytes. When the load has ended, what was stored is read from the closed store
again, and count and checksum are compared.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.singles import ROOT, Outcome, Times, outcome_of, value_of
from ottla import Broker, Consumer, Producer

OTTLA, SQLITE_BUSY, SQLITE_LOCK = "ottla", "sqlite busy", "sqlite lock"

_TOPIC = "load"
_BUSY_S = 120.0
_INSERT = "INSERT INTO messages (value) VALUES (?)"

Store = Callable[[int], None]
"""Stores a thread's message of that number, durably."""


@dataclass(frozen=True)
class Load:
    """What is to be stored.

    Attributes:
        store: one of the three.
        folder: where; it is empty.
        threads: how many.
        seconds: how long.
        lead_s: how much of that is not measured.
    """

    store: str
    folder: str
    threads: int
    seconds: float
    lead_s: float


class _Threads:
    """The threads, which begin together.

    Args:
        load: what is to be stored.
        store_of: gives each thread, in that thread, what stores its messages, and what ends it.
    """

    def __init__(
        self, load: Load, store_of: Callable[[int], tuple[Store, Callable[[], None]]]
    ) -> None:
        self._load = load
        self._store_of = store_of
        self._barrier = threading.Barrier(load.threads)
        self._failures: list[BaseException] = []
        self._times: list[Times] = []
        self.acknowledged = 0
        self.checksum = 0
        self._guard = threading.Lock()

    def run(self) -> Outcome:
        """Run them."""
        threads = [
            threading.Thread(target=self._guarded, args=(number,))
            for number in range(self._load.threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]
        times = Times(min(each.begun for each in self._times), self._load.lead_s)
        for each in self._times:
            times.taken += each.taken
            times.ended = max(times.ended, each.ended)
        return times.outcome(self.acknowledged, self.checksum, 0.0)

    def _guarded(self, number: int) -> None:
        try:
            self._run(number)
        except BaseException as error:
            self._failures.append(error)
            self._barrier.abort()

    def _run(self, number: int) -> None:
        store, end = self._store_of(number)
        store(0)
        stored = 1
        self._barrier.wait()
        times = Times(time.perf_counter(), self._load.lead_s)
        sent = times.begun
        while sent < times.begun + self._load.seconds:
            store(stored)
            stored += 1
            answered = time.perf_counter()
            times.note(sent, answered)
            sent = answered
        end()
        with self._guard:
            self._times.append(times)
            self.acknowledged += stored
            self.checksum += sum(zlib.crc32(value_of(number, each)) for each in range(stored))


def run_ottla(load: Load) -> Outcome:
    """Store with the embedded broker."""

    def store_of(number: int) -> tuple[Store, Callable[[], None]]:
        producer = Producer(broker)

        def store(count: int) -> None:
            producer.send(_TOPIC, value_of(number, count)).result()

        return store, producer.close

    with Broker(load.folder, durability="disk") as broker:
        outcome = _Threads(load, store_of).run()
    found = checksum = 0
    with Consumer(load.folder, _TOPIC, stop_at_end=True) as consumer:
        for record in consumer:
            found += 1
            checksum += zlib.crc32(record.value)
    _compare(outcome, found, checksum)
    return outcome


def connect(load: Load) -> sqlite3.Connection:
    """Open the database as whoever wants every commit to be durable does."""
    connection = sqlite3.connect(
        Path(load.folder) / "messages.db",
        timeout=_BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def run_sqlite(load: Load) -> Outcome:
    """Store with SQLite."""
    shared = connect(load)
    shared.execute("CREATE TABLE messages (offset INTEGER PRIMARY KEY, value BLOB NOT NULL)")
    lock = threading.Lock() if load.store == SQLITE_LOCK else nullcontext()

    def store_of(number: int) -> tuple[Store, Callable[[], None]]:
        connection = shared if load.store == SQLITE_LOCK else connect(load)

        def store(count: int) -> None:
            with lock:
                connection.execute(_INSERT, (value_of(number, count),))

        return store, lambda: None if connection is shared else connection.close()

    with closing(shared):
        outcome = _Threads(load, store_of).run()
    found = checksum = 0
    with closing(connect(load)) as connection:
        for (value,) in connection.execute("SELECT value FROM messages"):
            found += 1
            checksum += zlib.crc32(value)
    _compare(outcome, found, checksum)
    return outcome


def _compare(outcome: Outcome, found: int, checksum: int) -> None:
    assert found == outcome.acknowledged, f"{outcome.acknowledged} confirmed, {found} found"
    assert checksum == outcome.checksum, "what was found is not what was confirmed"


def run(load: Load) -> Outcome:
    """Store, in this process."""
    return run_ottla(load) if load.store == OTTLA else run_sqlite(load)


def apply(load: Load) -> Outcome:
    """Store in another process, and wait for the outcome."""
    command = [sys.executable, "-m", "bench.stores", json.dumps(asdict(load))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        return outcome_of(process)


if __name__ == "__main__":
    print(json.dumps(asdict(run(Load(**json.loads(sys.argv[1]))))))
