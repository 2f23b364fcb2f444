"""Runs the test suites of other clients against `ottla serve`, and prints what came of them.

    python -m tests.suites kafka-python
    python -m tests.suites kafka-python --against kafka
    python -m tests.suites --folder /tmp/suites            all of them, and keep what was built

A suite's source is fetched by pip or npm at one version and compared with a checksum, built in a
temporary folder, and run against a fresh broker. Ends with 1 where a test fails that is not among
the expected failures (the files in tests/suites/expected), or passes that is.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.kafka.real_kafka import NoKafka
from tests.suites.brokers import KAFKA, OTTLA, running
from tests.suites.kafka_python import KafkaPython
from tests.suites.librdkafka import Librdkafka
from tests.suites.node_rdkafka import NodeRdkafka
from tests.suites.outcomes import Expected, table
from tests.suites.suite import Suite, SuiteError

SUITES: dict[str, type[Suite]] = {
    each.name: each for each in (KafkaPython, NodeRdkafka, Librdkafka)
}

_STOPPED = 143


def main() -> None:
    """Run suites; exits with 1 where something is not as expected, and with 2 where it cannot."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.suites",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--against", choices=(OTTLA, KAFKA), default=OTTLA)
    parser.add_argument("--only", default="", help="tests with this in their name; not compared")
    parser.add_argument("--folder", type=Path, help="where to build, and to keep what was built")
    parser.add_argument("--kafka-libs", default="", metavar="DIR", help="a real Kafka's jars")
    options = parser.parse_args()
    unknown = set(options.suites) - set(SUITES)
    if unknown:
        parser.error(f"no suite is called {', '.join(sorted(unknown))}: {', '.join(SUITES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_STOPPED))  # what was started is ended
    differences = []
    with tempfile.TemporaryDirectory(prefix="ottla-suites-") as scratch:
        for name in options.suites or SUITES:
            try:
                differences += _run(SUITES[name], options, Path(scratch) / name)
            except (NoKafka, SuiteError) as error:
                sys.stderr.write(f"{name}: {error}\n")
                sys.exit(2)
    if differences:
        sys.exit(1)


def _run(kind: type[Suite], options: argparse.Namespace, scratch: Path) -> list[str]:
    scratch.mkdir()
    suite = kind((options.folder or scratch).resolve())
    sys.stderr.write(f"{suite.name} {suite.version}: in {suite.folder}\n")
    suite.ready()
    store = scratch / "broker"
    store.mkdir()
    with running(options.against, suite, store, options.kafka_libs) as target:
        outcomes = suite.run(target, options.only)
    expected = Expected.load(suite.name, options.against)
    told = table(outcomes, expected)
    sys.stdout.write(f"## {suite.name} {suite.version} against {options.against}\n\n{told}\n")
    differences = [] if options.only else expected.differences(outcomes)
    for each in differences:
        sys.stdout.write(f"NOT AS EXPECTED: {each}\n")
    sys.stdout.flush()
    return differences


if __name__ == "__main__":
    main()
