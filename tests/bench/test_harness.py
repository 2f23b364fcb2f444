"""The harness: the order of rounds, what counts, what becomes of a side that fails, and goals."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.harness import CannotRun, Case, Goal, NotRun, Options, Outcome, Sample, Side, run

PROVEN = Sample({"records/s": 100.0}, sent=7, acknowledged=7, read=7, is_same=True)


def quietly(_: str) -> None:
    """Say nothing."""


def side(name: str, *values: float) -> Side:
    """Return a side that comes to these values, round by round."""
    return Side(name, lambda turn: replace(PROVEN, figures={"records/s": values[turn]}))


def ending_with(error: Exception) -> Callable[[int], Sample]:
    """Return a side's run that raises."""

    def run_it(_: int) -> Sample:
        raise error

    return run_it


def outcome_of(*sides: Side, goals: list[Goal] | None = None, rounds: int = 1) -> Outcome:
    """Measure a case of these sides."""
    return run(Case("C0", "a case", list(sides), goals or []), rounds, quietly)


def test_sides_take_turns_and_each_round_begins_with_the_next_one() -> None:
    order: list[tuple[int, str]] = []

    def noting(name: str) -> Side:
        def run_it(turn: int) -> Sample:
            order.append((turn, name))
            return PROVEN

        return Side(name, run_it)

    outcome_of(noting("a"), noting("b"), noting("c"), rounds=3)

    assert order == [
        *((0, name) for name in "abc"),
        *((1, name) for name in "bca"),
        *((2, name) for name in "cab"),
    ]


def test_a_goal_compares_medians() -> None:
    goal = Goal("records/s", "ours", "theirs", at_least=5)
    ours, theirs = side("ours", 1, 600, 500), side("theirs", 100, 90, 9999)

    (reached,) = outcome_of(ours, theirs, goals=[goal], rounds=3).reached()

    assert (reached.ours, reached.theirs, reached.ratio) == (500, 100, 5)
    assert reached.is_reached


@pytest.mark.parametrize(
    ("goal", "ratio", "is_reached"),
    [
        (Goal("records/s", "ours", "theirs", at_least=2.01), 2, False),
        (Goal("records/s", "ours", "theirs", at_most=2), 2, True),
        (Goal("records/s", "ours", "theirs", at_most=1.99), 2, False),
        (Goal("records/s", "ours", at_most=200), 200, True),
        (Goal("records/s", "ours", at_most=199), 200, False),
        (Goal("records/s", "ours", "theirs", at_most=1, allowance=100), 1, True),
        (Goal("records/s", "ours", at_most=150, allowance=50), 150, True),
    ],
)
def test_a_goal_is_a_bound_of_a_ratio_or_of_a_value(
    goal: Goal, ratio: float, is_reached: bool
) -> None:
    (reached,) = outcome_of(side("ours", 200), side("theirs", 100), goals=[goal]).reached()

    assert reached.ratio == ratio
    assert reached.is_reached is is_reached


def test_the_other_side_may_call_the_figure_by_another_name() -> None:
    other = Side("theirs", lambda _: Sample({"bytes/s": 50.0}))
    goal = Goal("records/s", "ours", "theirs", at_least=2, against_figure="bytes/s")

    (reached,) = outcome_of(side("ours", 100), other, goals=[goal]).reached()

    assert reached.ratio == 2


@pytest.mark.parametrize(
    ("sample", "problem"),
    [
        (replace(PROVEN, acknowledged=6), "7 records were sent, 6 acknowledged"),
        (replace(PROVEN, read=6), "7 records were acknowledged, 6 found"),
        (replace(PROVEN, read=8), "7 records were acknowledged, 8 found"),
        (replace(PROVEN, read=None), "7 records were acknowledged, None found"),
        (replace(PROVEN, is_same=False), "what was found is not what was sent"),
        (replace(PROVEN, is_same=None), "what was found is not what was sent"),
    ],
)
def test_a_figure_does_not_count_unless_all_is_there(sample: Sample, problem: str) -> None:
    goal = Goal("records/s", "ours", "theirs", at_least=1)
    sides = (Side("ours", lambda _: sample), side("theirs", 1.0))

    outcome = outcome_of(*sides, goals=[goal])

    assert sample.problem() == problem
    assert outcome.side("ours").samples == []
    (reached,) = outcome.reached()
    assert (reached.ratio, reached.why, reached.is_reached) == (None, problem, False)
    assert outcome.failures() == [f"ours: {problem}"]


def test_one_round_that_lost_something_spoils_the_figures_of_all() -> None:
    samples = [PROVEN, replace(PROVEN, read=6), PROVEN]

    outcome = outcome_of(
        Side("ours", lambda turn: samples[turn]), side("theirs", 1, 1, 1), rounds=3
    )

    assert outcome.side("ours").samples == [PROVEN]
    assert outcome.side("ours").median("records/s") is None


def test_a_side_that_fails_is_out_and_the_others_go_on() -> None:
    goals = [
        Goal("records/s", "ours", "theirs", at_least=1),
        Goal("records/s", "ours", "another", at_least=1),
    ]
    broken = Side("theirs", ending_with(ValueError("no\n  good")))

    outcome = outcome_of(side("ours", 8, 8), broken, side("another", 4, 4), goals=goals, rounds=2)

    against_broken, against_another = outcome.reached()
    assert against_broken.why == "theirs: ValueError: no good"
    assert against_broken.ratio is None
    assert against_another.ratio == 2
    assert outcome.why == ""
    assert outcome.failures() == ["theirs: ValueError: no good"]


def test_what_cannot_run_here_says_why_and_is_no_failure() -> None:
    missing = Side("theirs", ending_with(CannotRun("no JVM")))
    goal = Goal("records/s", "ours", "theirs", at_least=1)

    outcome = outcome_of(side("ours", 1), missing, goals=[goal])

    (reached,) = outcome.reached()
    assert reached.why == "theirs: no JVM"
    assert outcome.failures() == []


def test_a_case_without_any_side_left_says_why() -> None:
    outcome = outcome_of(Side("ours", ending_with(CannotRun("no disk"))))

    assert outcome.why == "no disk"


def test_a_case_whose_broker_does_not_start_is_told_and_nothing_is_raised() -> None:
    @contextlib.contextmanager
    def broken() -> Iterator[None]:
        raise RuntimeError("the port is taken")
        yield

    goal = Goal("records/s", "ours", at_least=1)
    outcome = run(Case("C0", "a case", [side("ours", 1)], [goal], broken), 1, quietly)

    assert outcome.why == "RuntimeError: the port is taken"
    assert outcome.failures() == [outcome.why]
    assert [each.why for each in outcome.reached()] == [outcome.why]


def test_a_case_that_fails_at_its_end_reaches_nothing() -> None:
    @contextlib.contextmanager
    def checked() -> Iterator[None]:
        yield
        raise AssertionError("a record is lost")

    sides = [Side("a", lambda turn: Sample({"s": 1.0}))]
    case = Case("S2", "restart", sides, [Goal("s", "a", at_most=2)], checked)

    (reached,) = run(case, 2, lambda line: None).reached()

    assert not reached.is_reached
    assert reached.why == "AssertionError: a record is lost"


def test_a_case_that_is_not_run_is_told() -> None:
    outcome = run(NotRun("C8", "asyncio", "there is no asyncio client"), 5, quietly)

    assert (outcome.why, outcome.failures()) == ("there is no asyncio client", [])


def test_a_case_may_choose_its_rounds() -> None:
    case = Case("C0", "a case", [side("ours", 1, 2)], [], rounds=2)

    assert run(case, 5, quietly).side("ours").values("records/s") == [1, 2]


def test_what_cases_share_is_opened_once_and_closed_with_the_run(tmp_path: Path) -> None:
    events: list[str] = []

    @contextlib.contextmanager
    def opened() -> Iterator[str]:
        events.append("opened")
        yield "kafka"
        events.append("closed")

    options = Options(tmp_path)
    with options.held:
        assert options.shared("kafka", opened) == options.shared("kafka", opened) == "kafka"
        assert events == ["opened"]
    assert events == ["opened", "closed"]


def test_counts_follow_the_form_and_the_scale(tmp_path: Path) -> None:
    assert Options(tmp_path).count(1000, 50) == 1000
    assert Options(tmp_path, is_quick=True).count(1000, 50) == 50
    assert Options(tmp_path, is_quick=True).count(1000) == 100
    assert Options(tmp_path, is_quick=True, scale=0.001).count(1000, 50) == 1


def test_folders_are_new_each_time(tmp_path: Path) -> None:
    options = Options(tmp_path)

    assert options.new_folder("store") != options.new_folder("store")
