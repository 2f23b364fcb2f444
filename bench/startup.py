"""How long the first things take: whole processes, from start to exit.

    python bench/startup.py

Prints medians of importing the package, of `ottla --help` and of `ottla send` to an embedded store
that is there already, each beside a bare interpreter. The runs alternate, so that what else the
machine does meets all of them alike.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import ottla
from ottla._compiled import MODULES, is_compiled

RUNS = 15
CLI = "from ottla.cli.main import main; main()"
COMMANDS = {
    "python -c pass": ("-c", "pass"),
    "import ottla": ("-c", "import ottla"),
    "import Producer": ("-c", "from ottla import Producer"),
    "ottla --help": ("-c", CLI, "--help"),
    "ottla send": ("-c", CLI, "send", "topic1", "Hello Kafka"),
}


def run_ms(command: tuple[str, ...], folder: str) -> float:
    """Run a process in a folder, and return how long it took."""
    environment = {name: value for name, value in os.environ.items() if name != "OTTLA_BROKER"}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return (time.perf_counter() - start) * 1000


def machine() -> str:
    """Return what the numbers were measured on."""
    form = "compiled" if all(map(is_compiled, MODULES)) else "pure Python"
    return (
        f"ottla {ottla.__version__} ({form}), {platform.python_implementation()} "
        f"{platform.python_version()}, {platform.platform()}, {os.cpu_count()} CPUs"
    )


def main() -> None:
    """Measure, and print a table."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS.values():
            run_ms(command, folder)
        for _ in range(RUNS):
            for name, command in COMMANDS.items():
                times[name].append(run_ms(command, folder))
    bare = statistics.median(times["python -c pass"])
    print(machine())
    print(f"{'medians of ' + str(RUNS):<16} {'ms':>7} {'more than bare':>15} {'slowest':>8}")
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:<16} {median:7.1f} {median - bare:15.1f} {max(taken):8.1f}")


if __name__ == "__main__":
    main()
