"""Brokers for the benches: `ottla serve` as users start it, and a real Apache Kafka where it is."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.resources import Process
from tests.kafka.real_kafka import KafkaJars, NoKafka, RealKafka

if TYPE_CHECKING:
    from pathlib import Path

KAFKA_OPTIONS = (
    "-Xms1g",
    "-Xmx1g",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:MaxInlineLevel=15",
)
"""The heap and the options that Kafka's own start script gives a broker."""

_SERVE = (sys.executable, "-c", "from ottla.cli.main import main; main()", "serve")


@dataclass(frozen=True)
class Serving:
    """A broker that runs.

    Attributes:
        name: what it is: "ottla serve" or "kafka".
        address: "host:port".
        process: its process.
        data: the folder with its partitions.
        settings: how it is set up.
    """

    name: str
    address: str
    process: Process
    data: Path
    settings: dict[str, str] = field(default_factory=dict)


def raise_descriptors() -> int:
    """Let this process and those that it starts open as many files as the system allows them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def users_environment() -> dict[str, str]:
    """Return the environment of a user, where compiled modules are kept."""
    ours = ("OTTLA_BROKER", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in ours}


@contextlib.contextmanager
def ottla_serving(
    folder: Path, durability: str, settings: Mapping[str, str] | None = None
) -> Iterator[tuple[str, int]]:
    """Run `ottla serve` on a folder; gives its address and its process id."""
    options = [f"--set={name}={value}" for name, value in (settings or {}).items()]
    with subprocess.Popen(
        [*_SERVE, str(folder), "--listen", "127.0.0.1:0", "--durability", durability, *options],
        stdout=subprocess.PIPE,
        text=True,
        env=users_environment(),
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
def ottla(
    folder: Path, durability: str = "os", settings: Mapping[str, str] | None = None
) -> Iterator[Serving]:
    """Run `ottla serve` on a folder."""
    with ottla_serving(folder, durability, settings) as (address, pid):
        shown = {"durability": durability, **(settings or {})}
        yield Serving("ottla serve", address, Process(pid), folder, shown)


@contextlib.contextmanager
def kafka(folder: Path, jars: KafkaJars) -> Iterator[Serving]:
    """Run a real Kafka with its default configs, in a folder that is new or where one ran before.

    It has the heap that its own start script gives it.
    """
    folder.mkdir(exist_ok=True)
    running = RealKafka(jars, folder, java_options=KAFKA_OPTIONS)
    try:
        running.start()
        shown = {"version": version_of(jars), "configs": "default", "java": " ".join(KAFKA_OPTIONS)}
        yield Serving("kafka", running.address, Process(running.pid), running.data, shown)
    finally:
        running.stop()


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
    with kafka(folder, jars) as serving:
        yield serving.address, serving.settings["version"]


def version_of(jars: KafkaJars) -> str:
    """Return the versions of Kafka and of its Java."""
    name = next(jars.libs.glob("kafka-clients-*.jar")).name
    found = re.search(r"kafka-clients-(.+)\.jar", name)
    java = subprocess.run([jars.java, "-version"], capture_output=True, text=True, check=True)
    return f"Apache Kafka {found[1] if found else '?'}, {java.stderr.splitlines()[0]}"
