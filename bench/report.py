"""What a run came to, as a table for the terminal.

python -m bench.report FILE
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.kept import Run, from_json

if TYPE_CHECKING:
    from bench.harness import Reached

_HEAD = ("case", "what", "figure", "ours", "peer's", "ratio", "must be", "")


def rows(run: Run) -> list[tuple[str, ...]]:
    """Return one row for each goal, and one for each case without any."""
    found: list[tuple[str, ...]] = []
    for outcome in run.outcomes:
        head = (outcome.number, outcome.title)
        if not outcome.goals:
            found.append((*head, "", "", "", "", "", outcome.why or "measured"))
        for each in outcome.reached():
            goal = each.goal
            versus = f", to {goal.against}" if goal.against else ""
            figure = f"{goal.side}: {goal.figure}{versus}"
            ratio = shown(each.ratio) + ("x" if each.ratio is not None and goal.against else "")
            cells = (shown(each.ours), shown(each.theirs), ratio, goal.must(), verdict(each))
            found.append((*head, figure, *cells))
    return found


def verdict(reached: Reached) -> str:
    """Return whether a goal is reached, or why it was not measured."""
    if reached.ratio is None:
        return f"not measured: {reached.why}"
    return "reached" if reached.is_reached else "MISSED"


def shown(value: float | None) -> str:
    """Return a figure with three digits that count."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def as_text(run: Run) -> str:
    """Return a run as a table for the terminal."""
    table = [_HEAD, *rows(run)]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEAD) - 1)]
    lines = [
        "  ".join([*(f"{row[at]:<{width}}" for at, width in enumerate(widths)), row[-1]]).rstrip()
        for row in table
    ]
    facts = [
        f"{run.date}, commit {run.commit}, {run.rounds} rounds",
        ", ".join(f"{name} {value}" for name, value in run.versions.items()),
        ", ".join(f"{name}: {value}" for name, value in run.machine.items()),
        f"load before: {run.load_before}; after: {run.load_after}",
    ]
    return "\n".join([*facts, "", *lines])


def main() -> None:
    """Print the table of a file."""
    print(as_text(from_json(Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    main()
