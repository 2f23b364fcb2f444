"""Sides of cases that are clients: each round runs one in a process of its own, and reads back.

What Ottla's client has sent is read back by confluent-kafka, and what the others have sent by
Ottla's. What is to be read is written by confluent-kafka, and known by count and checksum.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from bench.clients.settings import BULK, READING, SINGLE, compression_of
from bench.clients.task import WARM_UP, Result, Task, checksum_of, values_of
from bench.harness import CannotRun, NotProven, Options, Sample, Side
from bench.machine import percentile
from bench.serving import ottla_serving
from ottla import Admin, Consumer

ROOT = Path(__file__).parents[2]

OURS = "ottla"
_AT_ONCE = 10_000
_WAIT_S = 1.0
_PATIENCE_S = 30.0
_CLIENT_TIMEOUT_S = 600
_MISSING = "ModuleNotFoundError: "


@dataclass(frozen=True)
class Load:
    """What is sent, or read.

    Attributes:
        count: how many records.
        value_bytes: how long each value is.
        kind: see `bench.clients.task.values_of`.
        codec: how batches are compressed.
    """

    count: int
    value_bytes: int = 100
    kind: str = "numbered"
    codec: str = "none"

    def fewer(self, part: int) -> Load:
        """Return a smaller one, for a client that would take too long for all."""
        return Load(max(1, self.count // part), self.value_bytes, self.kind, self.codec)


@dataclass(frozen=True)
class Found:
    """What stands in a topic.

    Attributes:
        count: how many records.
        checksum: of their values, see `bench.clients.task.checksum_of`.
    """

    count: int
    checksum: int


@cache
def expected(load: Load) -> Found:
    """Return what must be found after a load was sent, `WARM_UP` included."""
    values = values_of(Task("", "", load.count, load.value_bytes, load.kind))
    return Found(load.count + 1, checksum_of([WARM_UP, *values]))


def work(client: str, name: str, task: Task) -> Result:
    """Have a client do something in a process of its own.

    Raises:
        CannotRun: a package is missing.
        NotProven: it has failed.
    """
    command = [sys.executable, "-m", f"bench.clients.{client}", name, json.dumps(asdict(task))]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=_CLIENT_TIMEOUT_S, check=False
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        if last[0].startswith(_MISSING):
            raise CannotRun(last[0].removeprefix(_MISSING))
        raise NotProven(f"{client} {name}: {last[0]}")
    return Result(**json.loads(done.stdout))


class OneBroker:
    """`ottla serve`, and the topics of one case on it; open while the case is measured.

    Args:
        options: of the run.
        durability: of its topics.
    """

    def __init__(self, options: Options, durability: str = "os") -> None:
        self._options = options
        self._durability = durability
        self._topics = 0
        self._folder = options.folder
        self._reader: confluent_kafka.Consumer | None = None
        self.address = ""
        self.pid = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[OneBroker]:
        """Serve, on a new folder."""
        self._folder = self._options.new_folder("broker")
        with ottla_serving(self._folder, self._durability) as (self.address, self.pid):
            try:
                yield self
            finally:
                if self._reader is not None:
                    self._reader.close()
                    self._reader = None

    def new_topic(self) -> str:
        """Return a topic of one partition that nothing was sent to."""
        self._topics += 1
        topic = f"bench{self._topics}"
        with Admin(self.address) as admin:
            admin.create_topic(topic, 1)
        return topic

    def delete(self, topic: str) -> None:
        """Let go of a topic: its records are not needed any more."""
        with Admin(self.address) as admin:
            admin.delete_topic(topic)

    def filled(self, load: Load) -> str:
        """Return a topic with a load in it, as librdkafka writes it.

        Raises:
            NotProven: it is not there as it was sent.
        """
        topic = self.new_topic()
        settings = BULK["confluent"] | compression_of("confluent", load.codec)
        work("confluent", "produce", self.task(topic, load, settings))
        if self.read_by_ottla(topic) != expected(load):
            raise NotProven("the records to be read are not there as they were sent")
        return topic

    def task(self, topic: str, load: Load, settings: dict[str, Any]) -> Task:
        """Return what a client has to do with a topic."""
        count, size, kind = load.count, load.value_bytes, load.kind
        return Task(self.address, topic, count, size, kind, settings, self.pid)

    def read_by_ottla(self, topic: str) -> Found:
        """Read a topic to its end with Ottla's client."""
        return read_all(self.address, topic)

    def read_by_confluent(self, topic: str) -> Found:
        """Read a topic to its end with confluent-kafka."""
        if self._reader is None:
            settings = READING["confluent"] | {"bootstrap.servers": self.address, "log_level": 0}
            self._reader = confluent_kafka.Consumer(settings)
        reader = self._reader
        where = TopicPartition(topic, 0, OFFSET_BEGINNING)
        _, end = reader.get_watermark_offsets(where, _PATIENCE_S)
        reader.assign([where])
        count = checksum = waited = 0
        while count < end and waited < _PATIENCE_S:
            messages = reader.consume(min(_AT_ONCE, end - count), _WAIT_S)
            values = [each.value() for each in messages if each.error() is None]
            waited = 0 if values else waited + 1
            checksum += checksum_of(value for value in values if value is not None)
            count += len(values)
        reader.unassign()
        return Found(count, checksum)

    def stored_bytes(self, topic: str) -> int:
        """Return how many bytes the batches of a topic take."""
        return sum(path.stat().st_size for path in (self._folder / f"{topic}-0").glob("*.log"))

    def produce_side(self, client: str, name: str, load: Load, works: str = "produce") -> Side:
        """Return a side that sends a load, which is then read back by another client.

        Args:
            client: a module of `bench.clients`.
            name: of the side.
            load: what it sends.
            works: what the client does.
        """
        settings = BULK[client] | compression_of(client, load.codec)

        def run(_: int) -> Sample:
            topic = self.new_topic()
            result = work(client, works, self.task(topic, load, settings))
            sample = self._proven(client, topic, load, result)
            figures = _rates(load.count, load.value_bytes, result)
            figures["stored B/record"] = self.stored_bytes(topic) / (load.count + 1)
            self.delete(topic)
            return replace(sample, figures=figures)

        return Side(name, run, _shown(settings, load))

    def single_side(self, client: str, name: str, load: Load) -> Side:
        """Return a side that sends record after record, each with a flush."""
        settings = SINGLE[client]

        def run(_: int) -> Sample:
            topic = self.new_topic()
            result = work(client, "singles", self.task(topic, load, settings))
            sample = self._proven(client, topic, load, result)
            self.delete(topic)
            return replace(sample, figures=times(result.taken_us))

        return Side(name, run, _shown(settings, load))

    def _proven(self, client: str, topic: str, load: Load, result: Result) -> Sample:
        """Read back what was sent, and return all but the figures."""
        ours = client == OURS
        found = self.read_by_confluent(topic) if ours else self.read_by_ottla(topic)
        return sample_of(load, result, found)


def sample_of(load: Load, result: Result, found: Found) -> Sample:
    """Return what one round came to, but for the figures."""
    return Sample(
        {},
        client_cpu_s=result.client_cpu_s,
        broker_cpu_s=result.broker_cpu_s,
        peak_mb=result.peak_mb,
        broker_peak_mb=result.broker_peak_mb,
        sent=load.count + 1,
        acknowledged=result.acknowledged,
        read=found.count,
        is_same=found.checksum == expected(load).checksum,
    )


def consume_side(
    broker: OneBroker, filled: Filled, client: str, name: str, works: str = "consume"
) -> Side:
    """Return a side that reads what `filled` holds.

    Args:
        broker: where it is.
        filled: what it reads.
        client: a module of `bench.clients`.
        name: of the side.
        works: what the client does.
    """
    settings = READING[client]
    wanted = expected(filled.load)
    size = filled.load.count * filled.load.value_bytes + len(WARM_UP)

    def run(_: int) -> Sample:
        task = broker.task(filled.topic, replace(filled.load, count=wanted.count), settings)
        result = work(client, works, task)
        counted = wanted.count - result.read_before
        figures = _rates(counted, filled.load.value_bytes, result)
        found = Found(result.read, result.checksum)
        sample = sample_of(filled.load, replace(result, acknowledged=wanted.count), found)
        is_same = sample.is_same is True and result.read_bytes == size
        return replace(sample, figures=figures, is_same=is_same)

    return Side(name, run, _shown(settings, filled.load))


@dataclass
class Filled:
    """A topic that is read.

    Attributes:
        load: what it holds.
        topic: its name, as soon as it is filled.
    """

    load: Load
    topic: str = ""


def times(taken_us: list[float]) -> dict[str, float]:
    """Return the figures of what was timed one by one."""
    return {"p50 us": percentile(taken_us, 0.5), "p99 us": percentile(taken_us, 0.99)}


def _rates(records: int, value_bytes: int, result: Result) -> dict[str, float]:
    """Return the figures of many records; processor time moves less than the clock."""
    return {
        "records/s": records / result.seconds,
        "MB/s": records * value_bytes / result.seconds / 1e6,
        "client CPU ns/record": result.client_cpu_s / records * 1e9,
        "broker CPU ns/record": result.broker_cpu_s / records * 1e9,
    }


def _shown(settings: dict[str, Any], load: Load) -> dict[str, str]:
    return {name: str(value) for name, value in settings.items()} | {"records": f"{load.count:,}"}


def read_all(address: object, topic: str) -> Found:
    """Read a topic to its end with Ottla's client; the address may be a folder as well."""
    count = checksum = 0
    with Consumer(address, topic, start="beginning", stop_at_end=True) as consumer:
        records = iter(consumer)
        while values := [each.value for each in itertools.islice(records, _AT_ONCE)]:
            checksum += checksum_of(values)
            count += len(values)
    return Found(count, checksum)
