"""`python -m tests.compat`: groups of all clients, alone and mixed, and what came of them."""

from __future__ import annotations

import argparse
import sys

from tests.compat.group_runs import CASTS, Row, run_all, table
from tests.kafka.real_kafka import KafkaJars, NoKafka

_RECORDS = 100_000


def main() -> None:
    """Run it, and print the table; exits with 1 where something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("--records", type=int, default=_RECORDS, help="how many each group reads")
    parser.add_argument(
        "--only", action="append", default=[], choices=[each.name for each in CASTS]
    )
    parser.add_argument(
        "--real-kafka",
        nargs="?",
        const="",
        metavar="DIR",
        help="run against a real Apache Kafka, with the jars of this folder",
    )
    options = parser.parse_args()
    try:
        jars = None if options.real_kafka is None else KafkaJars.find(options.real_kafka)
    except NoKafka as error:
        parser.error(str(error))

    def told(row: Row) -> None:
        sys.stderr.write(f"{row.name}: {'good' if row.is_good else 'NOT GOOD'}\n")

    rows = run_all(options.only, options.records, jars, told)
    sys.stdout.write(table(rows) + "\n")
    if not all(row.is_good for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
