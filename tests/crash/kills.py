"""`kill -9` of a serving broker under load, many times, judged by the history checker.

A store lives for some rounds, a round has topics of its own and some cycles, and a cycle is a kill:
most at a random moment under load, some while the broker starts and recovers. The producers live
through all of it. Stores take turns: some are written to by producers of librdkafka's as well, and
some over a way on which answers are late. At the end of a round everything is read and judged; then
its topics are deleted, so that the work does not grow with the number of cycles.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ottla import Admin
from tests.compat.serving import COMMAND
from tests.crash.history import Verdict, judge
from tests.crash.late_answers import LateAnswers
from tests.crash.load import Load, Topic, connecting_soon
from tests.crash.process import BrokerProcess, DidNotStart
from tests.crash.report import Row

CYCLES_FULL = 1000
CYCLES_SHORT = 25
CYCLES_A_ROUND = 8
ROUNDS_A_STORE = 4

OURS, BOTH, LATE = "ours", "both", "late"
KINDS = (OURS, BOTH, LATE)
"""Stores with producers of ours only, with librdkafka's too, and with those and late answers."""

LOAD_S_MAX = 0.3
START_S_MAX = 0.4
ANSWER_S_MAX = 0.1
ANSWER_TIMEOUT_S = 60.0

SETTINGS = {
    "auto.create.topics.enable": "false",
    "log.cleaner.backoff.ms": "20",
    "log.flush.offset.checkpoint.interval.ms": "50",
    "log.retention.check.interval.ms": "40",
}
"""Everything that a broker does by itself now and then, it does all the time."""

QUIET = {"auto.create.topics.enable": "false"}
"""It does nothing by itself: no recovery points that tell of what is missing."""

_WHILE_STARTING = 0.2


def topics_of(name: str) -> list[Topic]:
    """Return topics whose segments are short, each kept in another way."""
    short = {"segment.ms": "50"}
    return [
        Topic(f"steady-{name}", 2, short),
        Topic(f"sized-{name}", 1, {"segment.bytes": "1048576"}),
        Topic(f"os-{name}", 1, short | {"ottla.durability": "os"}),
        Topic(
            f"compacted-{name}",
            2,
            short | {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"},
        ),
        Topic(f"retained-{name}", 1, short | {"retention.bytes": "60000"}, loses_start=True),
        Topic(f"trimmed-{name}", 1, short, is_trimmed=True),
    ]


def rows(full: bool, *, cycles: int | None = None, seed: int = 0) -> list[Row]:
    """Run it.

    Args:
        full: whether to run the number of cycles that is promised, or a few.
        cycles: how many, where it is neither.
        seed: where chance begins.
    """
    wanted = cycles or (CYCLES_FULL if full else CYCLES_SHORT)
    return [Kills(wanted, seed).run()]


def tell(text: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(f"{text}\n")


def add(row: Row, verdict: Verdict, problems: list[str]) -> None:
    """Add what came of a round to a row, and tell what is wrong."""
    row.acknowledged += verdict.acknowledged
    row.lost += verdict.lost
    row.duplicated += verdict.duplicated
    row.reordered += verdict.reordered
    row.bad += verdict.bad
    for text in verdict.examples:
        _note(row, text)
    for text in problems:
        bad(row, text)


def bad(row: Row, problem: str) -> None:
    """Take note of something that should not have happened."""
    row.bad += 1
    _note(row, problem)


def close(load: Load, row: Row) -> bool:
    """Let go of a load, with what is wrong with that; returns whether somebody in it hangs."""
    load.close()
    for text in load.problems:
        bad(row, text)
    return load.hangs


def _note(row: Row, problem: str) -> None:
    row.problems.append(problem)
    tell(f"{row.what}: {problem}")


@contextmanager
def scratch(row: Row) -> Iterator[Path]:
    """Make a folder, which stays where something went wrong."""
    before = row.lost + row.duplicated + row.reordered + row.bad
    folder = Path(tempfile.mkdtemp(prefix="ottla-crash-"))
    try:
        yield folder
    finally:
        if row.lost + row.duplicated + row.reordered + row.bad == before:
            shutil.rmtree(folder)
        else:
            tell(f"{row.what}: what is on the disk is in {folder}")


def pause(seconds: float) -> None:
    """Let the load go on for a while: the moment is what is tried, so nothing tells of it."""
    threading.Event().wait(seconds)


class Kills:
    """A run.

    Args:
        cycles: how many kills.
        seed: where chance begins.
        command: what to run instead of `ottla`.
        settings: broker configs.
        kinds: which kinds of stores take turns.
    """

    def __init__(
        self,
        cycles: int,
        seed: int,
        command: Sequence[str] = COMMAND,
        settings: Mapping[str, str] = SETTINGS,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        self.row = Row("kill -9 under load")
        self._cycles = cycles
        self._seed = seed
        self._command = command
        self._settings = settings
        self._kinds = kinds
        is_short = cycles < CYCLES_A_ROUND * ROUNDS_A_STORE * len(kinds)
        self._rounds = 1 if is_short else ROUNDS_A_STORE
        self._late: LateAnswers | None = None
        self._chance = random.Random(seed)
        self._is_over = False

    def run(self) -> Row:
        """Run it, one store after the other."""
        began = time.monotonic()
        store = 0
        with connecting_soon():
            while self.row.tried < self._cycles and not self._is_over:
                with scratch(self.row) as folder:
                    self._run_store(folder, self._kinds[store % len(self._kinds)])
                store += 1
        self.row.seconds = time.monotonic() - began
        return self.row

    def _run_store(self, folder: Path, kind: str) -> None:
        broker = BrokerProcess(folder / "store", folder / "said", self._settings, self._command)
        address, seed = broker.address, self._chance.getrandbits(32)
        if kind == LATE:
            self._late = LateAnswers(address, seed, ANSWER_S_MAX)
            address = self._late.address
            broker.advertise(address)
        load = Load(address, seed, with_librdkafka=kind != OURS)
        try:
            broker.start()
            for number in range(self._rounds):
                if self.row.tried < self._cycles and not (self._is_over or load.hangs):
                    self._run_round(broker, load, str(number))
            if broker.stop() != 0:
                bad(self.row, f"it did not stop: {broker.last_words()}")
        except DidNotStart as error:
            bad(self.row, f"it did not start: {error}")
            self._is_over = True
        finally:
            self._end(broker)
            self._is_over |= close(load, self.row)
            if self._late is not None:
                self._late.close()
                self._late = None

    def _run_round(self, broker: BrokerProcess, load: Load, name: str) -> None:
        load.begin(topics_of(name))
        for _ in range(min(CYCLES_A_ROUND, self._cycles - self.row.tried)):
            if not self._is_over:
                self._kill(broker, load)
                self.row.tried += 1
        history = load.end()
        load.read_to_the_end(history)
        add(self.row, judge(history), load.problems)
        load.problems.clear()
        tell(
            f"{self.row.what}: {self.row.tried} of {self._cycles} kills, "
            f"{self.row.acknowledged} records acknowledged, seed {self._seed}"
        )
        with Admin(broker.address) as admin:
            for topic in load.topics:
                admin.delete_topic(topic.name)

    def _kill(self, broker: BrokerProcess, load: Load) -> None:
        """Kill it once, and leave it serving."""
        if self._chance.random() < _WHILE_STARTING:
            self._end(broker)
            broker.launch()
            pause(self._chance.uniform(0, START_S_MAX))
        else:
            if not load.wait_for_an_answer(ANSWER_TIMEOUT_S):
                bad(self.row, f"nothing is acknowledged any more: {broker.last_words()}")
                self._is_over = True
            pause(self._chance.uniform(0, LOAD_S_MAX))
        self._end(broker)
        broker.start()

    def _end(self, broker: BrokerProcess) -> None:
        broker.kill()
        if self._late is not None:
            self._late.cut()
