"""Brokers for the benches: `ottla serve` as users start it, and a real Apache Kafka where it is."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tests.kafka.real_kafka import KafkaJars, NoKafka, RealKafka

if TYPE_CHECKING:
    from pathlib import Path

_SERVE = (sys.executable, "-c", "from ottla.cli.main import main; main()", "serve")


@contextlib.contextmanager
def ottla_serving(
    folder: Path, durability: str, settings: Mapping[str, str] | None = None
) -> Iterator[tuple[str, int]]:
    """Run `ottla serve` on a folder; gives its address and its process id."""
    environment = {key: value for key, value in os.environ.items() if key != "OTTLA_BROKER"}
    options = [f"--set={name}={value}" for name, value in (settings or {}).items()]
    with subprocess.Popen(
        [*_SERVE, str(folder), "--listen", "127.0.0.1:0", "--durability", durability, *options],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        try:
            ready = process.stdout.readline().split()
            assert ready[:1] == ["ready"], "ottla serve did not start"
            yield ready[1], process.pid
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def kafka_serving(folder: Path, libs: str) -> Iterator[tuple[str | None, str]]:
    """Run a real Kafka; gives its address and its version, or None and why there is none.

    Args:
        folder: where it works.
        libs: the folder of its jars; "" for where the tests look for them.
    """
    try:
        jars = KafkaJars.find(libs)
    except NoKafka as error:
        yield None, str(error)
        return
    folder.mkdir()
    kafka = RealKafka(jars, folder)
    try:
        kafka.start()
        yield kafka.address, _version(jars)
    finally:
        kafka.stop()


def _version(jars: KafkaJars) -> str:
    """Return the versions of Kafka and of its Java."""
    name = next(jars.libs.glob("kafka-clients-*.jar")).name
    found = re.search(r"kafka-clients-(.+)\.jar", name)
    java = subprocess.run([jars.java, "-version"], capture_output=True, text=True, check=True)
    return f"Apache Kafka {found[1] if found else '?'}, {java.stderr.splitlines()[0]}"
