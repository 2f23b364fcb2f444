"""Runs cases side by side: the sides of a case alternate, and medians and ratios are what counts.

A module of `bench/cases` has a function `cases(options)` that returns `Case` and `NotRun` objects.
`run` measures one case: every round runs each side once, in an order that moves on by one from
round to round, so that what else the machine does meets all of them alike. A side that fails is
out, and its goals say why; the others go on. A figure counts only where everything that was sent
was acknowledged and found again: see `Sample.problem`.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROUNDS = 5

_ROOT = Path(__file__).parents[1]


class CannotRun(Exception):
    """A side or a case cannot run here; its text says why: no JVM, a package that is missing."""


class NotProven(Exception):
    """What was sent is not what was acknowledged, or not what was found again."""


@dataclass(frozen=True)
class Options:
    """What a module of cases is told.

    Attributes:
        folder: an empty folder for stores, on the disk that is measured.
        is_quick: whether this is the short form: a case takes a few seconds, and needs no JVM.
        kafka_libs: the folder of Apache Kafka's jars; "" for where the tests look for them.
        scale: what counts of records are multiplied by; see `count`.
        held: ends with the whole run; for what several cases share, see `shared`.
    """

    folder: Path
    is_quick: bool = False
    kafka_libs: str = ""
    scale: float = 1.0
    held: ExitStack = field(default_factory=ExitStack)
    _shared: dict[str, Any] = field(default_factory=dict)

    def count(self, full: int, quick: int = 0) -> int:
        """Return how many records a case takes: `quick` in the short form, a tenth without it."""
        chosen = (quick or full // 10) if self.is_quick else full
        return max(1, int(chosen * self.scale))

    def shared(self, name: str, opened: Callable[[], AbstractContextManager[Any]]) -> Any:
        """Return what `opened` gives; it is opened when first asked for, and ends with the run.

        For what takes long to start: an Apache Kafka that is warmed up.
        """
        if name not in self._shared:
            self._shared[name] = self.held.enter_context(opened())
        return self._shared[name]

    def new_folder(self, name: str) -> Path:
        """Return a folder that is there and empty."""
        number = 0
        while (path := self.folder / f"{name}-{number}").exists():
            number += 1
        path.mkdir(parents=True)
        return path


@dataclass(frozen=True)
class Sample:
    """What one round of one side came to.

    Attributes:
        figures: by name and unit: "records/s", "MB/s", "p50 us", "p99 us", "ms", "MB".
        client_cpu_s: processor time of the client while it was measured, all of its threads.
        broker_cpu_s: and of the broker meanwhile.
        peak_mb: the most memory that the client had resident.
        broker_peak_mb: and the broker.
        sent: how many records were sent, those before the clock ran included; None where a side
            sends nothing, here and in the next ones.
        acknowledged: how many of them were acknowledged.
        read: how many were found, when all was read back.
        is_same: whether the checksum of what was found is that of what was sent.
    """

    figures: dict[str, float]
    client_cpu_s: float | None = None
    broker_cpu_s: float | None = None
    peak_mb: float | None = None
    broker_peak_mb: float | None = None
    sent: int | None = None
    acknowledged: int | None = None
    read: int | None = None
    is_same: bool | None = None

    def problem(self) -> str | None:
        """Return why the figures do not count; None if they do."""
        if self.sent != self.acknowledged:
            return f"{self.sent} records were sent, {self.acknowledged} acknowledged"
        if self.acknowledged != self.read:
            return f"{self.acknowledged} records were acknowledged, {self.read} found"
        if self.is_same is False or (self.sent is not None and self.is_same is None):
            return "what was found is not what was sent"
        return None


@dataclass(frozen=True)
class Side:
    """One of those that are compared.

    Attributes:
        name: how the tables call it.
        run: measures one round, of the number that it is given, from 0 on.
        settings: how it is set up, as far as that matters; printed and kept with the figures.
    """

    name: str
    run: Callable[[int], Sample]
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Goal:
    """What must be reached: a ratio of two sides' medians, or a value.

    Attributes:
        figure: the name of the figure.
        side: whose.
        against: the side that it is divided by; None where the value itself is looked at.
        at_least: the least that it must be; this or the next is given.
        at_most: the most that it may be.
        against_figure: the other side's figure, where its name is another.
        allowance: what is taken off the figure before: "one fdatasync and 30 us".
        note: what else belongs to the line.
    """

    figure: str
    side: str
    against: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    against_figure: str = ""
    allowance: float = 0.0
    note: str = ""

    def must(self) -> str:
        """Return what must be reached, in short."""
        bound = self.at_least if self.at_least is not None else self.at_most
        text = f"{'≥' if self.at_least is not None else '≤'} {bound:g}"
        text += "" if self.against is None else "x"
        return text + (f" + {self.allowance:g}" if self.allowance else "")

    def holds(self, value: float) -> bool:
        """Tell whether a ratio, or a value, is good enough."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is None or value <= self.at_most


@dataclass(frozen=True)
class Case:
    """Sides that are measured together, and what must come out.

    Attributes:
        number: as the goals are known: "C1"; several cases may have one number.
        title: what it is, in a few words.
        sides: those that are compared.
        goals: what must be reached.
        during: gives what is open while the case is measured, its brokers for instance.
        rounds: how many rounds this case takes, whatever the run takes; 0 for those of the run.
        is_quick: whether it belongs to the short form.
    """

    number: str
    title: str
    sides: list[Side]
    goals: list[Goal]
    during: Callable[[], AbstractContextManager[Any]] = nullcontext
    rounds: int = 0
    is_quick: bool = False


@dataclass(frozen=True)
class NotRun:
    """A case that cannot run here.

    Attributes:
        number: as of a `Case`.
        title: what it would be.
        why: what is missing.
    """

    number: str
    title: str
    why: str


@dataclass
class Measured:
    """What a side came to.

    Attributes:
        name: of the side.
        settings: how it was set up.
        samples: one of each round.
        why: what ended it, "" for nothing.
        has_failed: whether that is an error, and not only something that is missing here.
    """

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    why: str = ""
    has_failed: bool = False

    def values(self, figure: str) -> list[float]:
        """Return a figure of all rounds; also of the fields of a sample that are numbers."""
        if figure in Sample.__dataclass_fields__:
            found = [getattr(each, figure) for each in self.samples]
        else:
            found = [each.figures.get(figure) for each in self.samples]
        return [each for each in found if each is not None]

    def median(self, figure: str) -> float | None:
        """Return the median of a figure; None where there is none that counts."""
        values = [] if self.why else self.values(figure)
        return statistics.median(values) if values else None

    def figures(self) -> list[str]:
        """Return the names of the figures."""
        return list(dict.fromkeys(name for each in self.samples for name in each.figures))


@dataclass(frozen=True)
class Reached:
    """What came of a goal.

    Attributes:
        goal: the goal.
        ours: the median of the side that it is about.
        theirs: the median of the other.
        ratio: of the two; the value itself where there is no other; None without figures.
        why: why there are none.
    """

    goal: Goal
    ours: float | None
    theirs: float | None
    ratio: float | None
    why: str = ""

    @property
    def is_reached(self) -> bool:
        """Whether it was measured and is good enough."""
        return self.ratio is not None and self.goal.holds(self.ratio)


@dataclass
class Outcome:
    """What a case came to.

    Attributes:
        number: of the case.
        title: of the case.
        sides: its sides.
        goals: its goals.
        why: why it was not run; "" if it was.
        seconds: how long it took.
        has_failed: whether an error is why.
    """

    number: str
    title: str
    sides: list[Measured] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    why: str = ""
    seconds: float = 0.0
    has_failed: bool = False

    def failures(self) -> list[str]:
        """Return what went wrong; what is only missing here is not among it."""
        found = [f"{each.name}: {each.why}" for each in self.sides if each.has_failed]
        return [self.why, *found] if self.has_failed else found

    def side(self, name: str) -> Measured:
        """Return a side by its name."""
        found = [each for each in self.sides if each.name == name]
        return found[0] if found else Measured(name, why=self.why or f"there is no side {name!r}")

    def reached(self) -> list[Reached]:
        """Return what came of each goal."""
        return [self._reached(goal) for goal in self.goals]

    def _reached(self, goal: Goal) -> Reached:
        if self.why:
            return Reached(goal, None, None, None, self.why)
        side = self.side(goal.side)
        ours, theirs = side.median(goal.figure), None
        if ours is None:
            return Reached(goal, None, None, None, side.why or "no such figure")
        if goal.against is None:
            return Reached(goal, ours, None, ours - goal.allowance)
        other = self.side(goal.against)
        theirs = other.median(goal.against_figure or goal.figure)
        if not theirs:
            why = f"{goal.against}: {other.why or 'no such figure'}"
            return Reached(goal, ours, None, None, why)
        return Reached(goal, ours, theirs, (ours - goal.allowance) / theirs)


def run(
    case: Case | NotRun, rounds: int = ROUNDS, say: Callable[[str], None] | None = None
) -> Outcome:
    """Measure a case; whatever goes wrong is told in the outcome.

    Args:
        case: the case.
        rounds: how many rounds; not less than `ROUNDS` where figures are to be shown.
        say: is told how it goes on; None for a line on standard error.
    """
    tell = say or _tell
    if isinstance(case, NotRun):
        return Outcome(case.number, case.title, why=case.why)
    outcome = Outcome(case.number, case.title, goals=case.goals)
    outcome.sides = [Measured(side.name, side.settings) for side in case.sides]
    begin = time.perf_counter()
    try:
        with case.during():
            for turn in range(case.rounds or rounds):
                _round(case, outcome, turn)
                tell(f"{case.number} {case.title}: round {turn + 1} of {case.rounds or rounds}")
    except Exception as error:
        outcome.why = reason_of(error)
        outcome.has_failed = not isinstance(error, CannotRun)
    outcome.seconds = time.perf_counter() - begin
    if not outcome.why and all(each.why for each in outcome.sides):
        outcome.why = outcome.sides[0].why if outcome.sides else "it has no sides"
    for each in outcome.sides:
        if each.why:
            tell(f"{case.number} {case.title}: {each.name}: {each.why}")
    return outcome


def _round(case: Case, outcome: Outcome, turn: int) -> None:
    """Run every side that is still in, beginning with another one than the round before."""
    pairs = list(zip(case.sides, outcome.sides, strict=True))
    first = turn % len(pairs)
    for side, measured in pairs[first:] + pairs[:first]:
        if measured.why:
            continue
        try:
            sample = side.run(turn)
            if problem := sample.problem():
                raise NotProven(problem)
        except Exception as error:
            measured.why = reason_of(error)
            measured.has_failed = not isinstance(error, CannotRun)
        else:
            measured.samples.append(sample)


def reason_of(error: BaseException) -> str:
    """Return an error in one line; those that are ours explain themselves."""
    text = " ".join(str(error).replace(f"{_ROOT}/", "").split())
    if isinstance(error, CannotRun | NotProven):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _tell(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)
