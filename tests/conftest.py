"""What all tests share."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.kafka.real_kafka import KafkaJars, NoKafka, RealKafka

settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.register_profile("brief", settings.get_profile("steady"), max_examples=10)
settings.register_profile("search", deadline=None, max_examples=5000, print_blob=True)
settings.load_profile(os.environ.get("OTTLA_HYPOTHESIS", "steady"))

EXIT_TIMEOUT_S = 60

_NO_REAL_KAFKA = "needs a real Apache Kafka: run pytest with --real-kafka"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--real-kafka",
        nargs="?",
        const="",
        metavar="DIR",
        help="run the tests that need a real Apache Kafka, with the jars of this folder "
        "(without one: $OTTLA_KAFKA_LIBS, or else .kafka/libs)",
    )


def pytest_configure() -> None:
    """Have what tests start be interrupted by Ctrl-C, as it is where nothing ignores it.

    A shell has the commands that it runs in the background ignore it, and all that they start.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--real-kafka") is not None:
        return
    for item in items:
        if item.get_closest_marker("kafka") is not None:
            item.add_marker(pytest.mark.skip(reason=_NO_REAL_KAFKA))


def pytest_unconfigure() -> None:
    """Have a run end that would wait for ever for a thread which a failed test has left."""
    faulthandler.dump_traceback_later(EXIT_TIMEOUT_S, exit=True, file=sys.__stderr__ or 2)


@pytest.fixture(scope="session")
def kafka_jars(pytestconfig: pytest.Config) -> KafkaJars:
    """Kafka's own classes and tools; for tests marked `kafka`."""
    libs = pytestconfig.getoption("--real-kafka")
    if libs is None:
        pytest.fail("a test that uses a real Kafka must be marked with pytest.mark.kafka")
    try:
        return KafkaJars.find(libs)
    except NoKafka as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture(scope="session")
def real_kafka(
    kafka_jars: KafkaJars, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealKafka]:
    """A running Kafka, one for all tests of the session; for tests marked `kafka`."""
    kafka = RealKafka(kafka_jars, tmp_path_factory.mktemp("kafka"))
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.stop()
