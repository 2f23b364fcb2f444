"""Runs all kinds of faults, and prints one table of what came of them.

    python -m tests.crash                      every part in its short form
    python -m tests.crash --full               as often as is promised; takes hours
    python -m tests.crash --only kills --cycles 100 --seed 7

Ends with 1 where anything was wrong, or not run. How far it is, and what is wrong, is told on
stderr at once; the table comes at the end, on stdout.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module

from ottla import _compiled
from ottla._version import VERSION
from tests.crash.report import Row, table

PARTS = ("kills", "power_cuts", "points", "faults", "syscalls", "disk_faults", "bytes")
"""The modules of this folder that run a kind of fault, the longest ones last but for the first."""


def rows_of(part: str, options: argparse.Namespace) -> list[Row]:
    """Run a part; one that fails to run gives a row that says so."""
    sys.stderr.write(f"{part}:\n")
    began = time.monotonic()
    try:
        rows = import_module(f"tests.crash.{part}").rows
        known = inspect.signature(rows).parameters
        given = {"cycles": options.cycles, "seed": options.seed}
        found: list[Row] = rows(
            options.full, **{name: value for name, value in given.items() if name in known}
        )
    except Exception as error:
        logging.exception("the part %s failed", part)
        found = [Row(part, skipped=f"{type(error).__name__}: {error}")]
    sys.stderr.write(f"{table(found)}\n{part}: {time.monotonic() - began:.0f} s\n")
    return found or [Row(part, skipped="nothing of it can be run here")]


def machine() -> str:
    """Tell what it was run on."""
    form = "pure Python" if _compiled.pure_on_purpose() else "compiled"
    return (
        f"ottla {VERSION} ({form}), Python {platform.python_version()}, {platform.system()} "
        f"{platform.release()} {platform.machine()}, {os.cpu_count()} processors, "
        f"{time.strftime('%Y-%m-%d')}"
    )


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--full", action="store_true", help="as often as is promised")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; repeatable")
    parser.add_argument("--cycles", type=int, help="how many cycles, in parts that have such")
    parser.add_argument("--seed", type=int, default=0, help="where chance begins")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run what is wanted, and print the table; returns the exit code."""
    options = options_of(arguments)
    logging.getLogger("ottla").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    rows = [row for part in options.only or PARTS for row in rows_of(part, options)]
    sys.stdout.write(f"{machine()}\n{table(rows)}\n")
    return 0 if all(row.is_good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
