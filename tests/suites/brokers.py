"""What a suite is run against: a fresh `ottla serve`, or a real Apache Kafka."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.compat.serving import Serving
from tests.kafka.real_kafka import KafkaJars, RealKafka
from tests.suites.suite import Suite, Target

OTTLA, KAFKA = "ottla", "kafka"
VERSIONS = {OTTLA: "4.2", KAFKA: "4.3"}
"""What kafka-python, for one, takes them for by the APIs that they tell of."""

_TIMEOUT_S = 30


@contextlib.contextmanager
def running(kind: str, suite: Suite, folder: Path, libs: str) -> Iterator[Target]:
    """Start a broker as a suite wants it, with its topics.

    Args:
        kind: OTTLA or KAFKA.
        suite: what has wishes.
        folder: an empty one.
        libs: where the jars of a real Kafka are; "" for the usual place.

    Raises:
        NoKafka: there is no real Kafka.
    """
    if kind == KAFKA:
        settings = {**suite.settings, **suite.kafka_settings}
        kafka = RealKafka(KafkaJars.find(libs), folder, settings)
        kafka.start()
        try:
            _create_topics(kafka.address, suite)
            yield Target(kafka.address, VERSIONS[kind])
        finally:
            kafka.stop()
        return
    options = [part for item in suite.settings.items() for part in ("--set", "=".join(item))]
    with Serving(folder / "store", *options) as ottla:
        _create_topics(ottla.address, suite)
        yield Target(ottla.address, VERSIONS[kind])


def _create_topics(address: str, suite: Suite) -> None:
    if suite.topics:
        admin = AdminClient({"bootstrap.servers": address})
        new = [NewTopic(name, count, 1) for name, count in suite.topics.items()]
        for created in admin.create_topics(new).values():
            created.result(_TIMEOUT_S)
