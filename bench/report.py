"""What a run came to: for the terminal, for a document, and as a picture.

    python -m bench.report FILE                                 prints Markdown
    python -m bench.report FILE --into docs/performance.md      writes it there, between its marks,
                                                                and the picture beside it

FILE is what `python -m bench --out FILE` has written.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bench import picture
from bench.kept import Run, from_json

if TYPE_CHECKING:
    from bench.harness import Measured, Reached

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

_HEAD = ("case", "what", "figure", "ours", "peer's", "ratio", "must be", "")
_SIDES_HEAD = (
    "case",
    "side",
    "medians (least to most)",
    "client CPU s",
    "broker CPU s",
    "client MB",
    "broker MB",
)
_SAMPLES = ("client_cpu_s", "broker_cpu_s", "peak_mb", "broker_peak_mb")


def rows(run: Run) -> list[tuple[str, ...]]:
    """Return one row for each goal, and one for each case without any."""
    found: list[tuple[str, ...]] = []
    for outcome in run.outcomes:
        head = (outcome.number, outcome.title)
        if not outcome.goals:
            verdict = f"not measured: {outcome.why}" if outcome.why else "measured"
            found.append((*head, "", "", "", "", "", verdict))
        found += [(*head, *_cells(each)) for each in outcome.reached()]
    return found


def _cells(reached: Reached) -> tuple[str, ...]:
    goal = reached.goal
    figure = f"{goal.side}: {goal.figure}" + (f", to {goal.against}" if goal.against else "")
    if goal.against_figure and goal.against_figure != goal.figure:
        figure += f"'s {goal.against_figure}"
    ratio = shown(reached.ratio) + ("x" if reached.ratio is not None and goal.against else "")
    if goal.note:
        figure += f" ({goal.note})"
    return (
        figure,
        shown(reached.ours),
        shown(reached.theirs),
        ratio,
        goal.must(),
        verdict_on(reached),
    )


def verdict_on(reached: Reached) -> str:
    """Return whether a goal is reached, or why it was not measured."""
    if reached.ratio is None:
        return f"not measured: {reached.why}"
    return "reached" if reached.is_reached else "MISSED"


def shown(value: float | None) -> str:
    """Return a figure with three digits that count."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def side_rows(run: Run) -> list[tuple[str, ...]]:
    """Return a row for each side: the medians of its figures, and how far the rounds were apart."""
    return [
        (outcome.number, side.name, *_measured(side))
        for outcome in run.outcomes
        for side in outcome.sides
    ]


def _measured(side: Measured) -> tuple[str, ...]:
    if side.why:
        return (f"not measured: {side.why}", *[""] * len(_SAMPLES))
    figures = []
    for name in side.figures():
        least, most = shown(min(side.values(name))), shown(max(side.values(name)))
        figures.append(f"{name} {shown(side.median(name))} ({least} to {most})")
    return ("; ".join(figures), *(shown(side.median(name)) for name in _SAMPLES))


def facts(run: Run) -> list[str]:
    """Return what was measured where, one fact a line."""
    return [
        f"{run.date}, commit {run.commit}: `{run.command}`, {run.rounds} rounds",
        ", ".join(f"{name} {value}" for name, value in run.versions.items()),
        ", ".join(f"{name}: {value}" for name, value in run.machine.items()),
        f"load of the machine before: {run.load_before}; after: {run.load_after}",
    ]


def proven(run: Run) -> str:
    """Return how much was sent and read back."""
    samples = [each for outcome in run.outcomes for side in outcome.sides for each in side.samples]
    read = sum(each.read or 0 for each in samples)
    return f"{read:,} records were read back and compared, count and checksum"


def settings(run: Run) -> list[str]:
    """Return how the sides were set up; those that are equal stand there once."""
    found: dict[str, list[str]] = {}
    for outcome in run.outcomes:
        for side in outcome.sides:
            text = ", ".join(f"`{name}={value}`" for name, value in side.settings.items())
            names = found.setdefault(f"{side.name}: {text or 'its defaults'}", [])
            if outcome.number not in names:
                names.append(outcome.number)
    return [f"{', '.join(names)}, {text}" for text, names in found.items()]


def as_text(run: Run) -> str:
    """Return a run as a table for the terminal."""
    table = [_HEAD, *rows(run)]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEAD) - 1)]
    lines = [
        "  ".join([*(f"{row[at]:<{width}}" for at, width in enumerate(widths)), row[-1]]).rstrip()
        for row in table
    ]
    return "\n".join([*facts(run), proven(run), "", *settings(run), "", *lines])


def as_markdown(run: Run, picture_name: str = "") -> str:
    """Return a run as Markdown.

    Args:
        run: the run.
        picture_name: the file of the picture, as it is seen from the document; "" for none.
    """
    parts = ["\n".join(f"- {fact}" for fact in [*facts(run), proven(run)])]
    if picture_name:
        parts.append(f"![Ratios to the peers]({picture_name})")
    parts.append(_table(_HEAD, rows(run)))
    parts.append("### Every side\n\n" + _table(_SIDES_HEAD, side_rows(run)))
    parts.append("### Settings\n\n" + "\n".join(f"- {each}" for each in settings(run)))
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *body]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def write_into(document: Path, run: Run) -> None:
    """Put a run into a document, between its marks, and its picture beside it.

    Raises:
        ValueError: the document has no marks.
    """
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no lines {BEGIN} and {END}")
    drawn = document.with_suffix(".svg")
    drawn.write_text(picture.of(run))
    document.write_text(f"{before}{BEGIN}\n\n{as_markdown(run, drawn.name)}\n{END}{after}")


def main(args: list[str] | None = None) -> None:
    """Print or write what a file holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="See above.")
    parser.add_argument("file", type=Path, help="what `python -m bench --out FILE` has written")
    parser.add_argument("--into", type=Path, help="the document that has the marks")
    given = parser.parse_args(args)
    run = from_json(given.file.read_text())
    if given.into is None:
        print(as_markdown(run))
    else:
        write_into(given.into, run)


if __name__ == "__main__":
    main()
