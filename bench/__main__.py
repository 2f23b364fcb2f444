"""Measures Ottla beside its peers: `python -m bench`.

    python -m bench C1 B4          these cases
    python -m bench --quick        the short form of those that need no JVM, under 3 minutes
    python -m bench --all          everything; writes bench/results/DATE-COMMIT.json as well

Each case runs beside its peers in turn, round by round; figures are medians, and ratios are what
counts. `python -m bench.report FILE` makes a table and a picture of what `--out` has written.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench import harness, kept, machine, report
from bench.harness import Case, NotRun, Options

CASES = Path(__file__).parent / "cases"
RESULTS = Path(__file__).parent / "results"
QUICK_ROUNDS = 5


def arguments(args: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="See the docstring.")
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help="of cases: C1, B4, ...")
    parser.add_argument("--all", action="store_true", help="every case, with its table")
    parser.add_argument("--quick", action="store_true", help="smaller counts, and no JVM")
    parser.add_argument("--rounds", type=int, default=0, help=f"{harness.ROUNDS} by default")
    parser.add_argument("--out", type=Path, help="write all figures to this file")
    parser.add_argument("--kafka", default="", metavar="DIR", help="the folder of Kafka's jars")
    parser.add_argument("--folder", help="on the disk to measure; the default is for tempfiles")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies counts of records")
    given = parser.parse_args(args)
    if not (given.numbers or given.all or given.quick):
        parser.error("which cases? name some, or give --quick or --all")
    return given


def command_of(given: argparse.Namespace) -> str:
    """Return how the run was called, but for the folders of this machine."""
    chosen = [f"--{name}" for name in ("all", "quick") if getattr(given, name)]
    numbers = [f"--rounds {given.rounds}"] if given.rounds else []
    numbers += [f"--scale {given.scale:g}"] if given.scale != 1 else []
    return " ".join(["python -m bench", *given.numbers, *chosen, *numbers])


def found_cases(options: Options) -> Iterator[Case | NotRun]:
    """Yield the cases of every module of `bench/cases`.

    A module that cannot be loaded or asked is one case that does not run, and says why.
    """
    for path in sorted(CASES.glob("*.py")):
        try:
            module = importlib.import_module(f"bench.cases.{path.stem}")
            yield from module.cases(options)
        except Exception as error:
            yield NotRun(path.stem, f"the cases of {path.stem}", harness.reason_of(error))


def chosen_cases(options: Options, numbers: list[str]) -> list[Case | NotRun]:
    """Return the cases that are asked for, in the order of their numbers.

    Raises:
        SystemExit: there is none of such a number.
    """
    found = sorted(found_cases(options), key=_order)
    wanted = {each.upper() for each in numbers}
    unknown = wanted - {each.number for each in found}
    if unknown:
        known = ", ".join(dict.fromkeys(each.number for each in found))
        raise SystemExit(f"no case {', '.join(sorted(unknown))}; there are {known}")
    if wanted:
        return [each for each in found if each.number in wanted]
    if options.is_quick:
        return [each for each in found if isinstance(each, Case) and each.is_quick]
    return found


def _order(case: Case | NotRun) -> tuple[int, int]:
    digits = "".join(each for each in case.number if each.isdigit())
    kinds = "CBLSG"
    kind = kinds.find(case.number[:1]) if digits else -1
    return (kind if kind >= 0 else len(kinds), int(digits or 0))


def measure(given: argparse.Namespace) -> kept.Run:
    """Run the cases that are asked for."""
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else harness.ROUNDS)
    with tempfile.TemporaryDirectory(prefix="ottla-bench-", dir=given.folder) as name:
        options = Options(Path(name), given.quick, given.kafka, given.scale)
        run = kept.Run(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=machine.commit(),
            command=command_of(given),
            machine=machine.by_name(options.folder),
            versions=machine.versions(),
            load_before=machine.load(),
            rounds=rounds,
        )
        with options.held:
            for case in chosen_cases(options, given.numbers):
                run.outcomes.append(harness.run(case, rounds))
        run.load_after = machine.load()
    return run


def main(args: list[str] | None = None) -> int:
    """Measure, print the table, and keep the figures.

    Returns:
        1 if something went wrong; what is missing here and goals that are missed are no errors.
    """
    given = arguments(args)
    run = measure(given)
    print(report.as_text(run))
    out = given.out
    if out is None and given.all:
        stamp = run.date[:16].replace(":", "").replace("T", "-")
        out = RESULTS / f"{stamp}-{run.commit.rstrip('+')}.json"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(kept.to_json(run))
        print(f"all figures: {out}")
    failures = [
        f"{each.number} {each.title}: {why}" for each in run.outcomes for why in each.failures()
    ]
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
