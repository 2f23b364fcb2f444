"""The brokers that cases share, ours and a warm Apache Kafka, and one load on one of them.

Both are up at the same time, so that whatever the machine does meets both. Kafka is warmed up with
the loads that are measured, for `WARM_UP_S`, before the first round; ours takes each of them once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench import serving
from bench.harness import CannotRun, Options, Sample
from bench.loads import bulk, fetches, latency, librdkafka, process, requests
from ottla import Admin, Consumer
from tests.kafka.real_kafka import KafkaJars, NoKafka

if TYPE_CHECKING:
    from bench.loads.process import Outcome
    from bench.serving import Serving

OTTLA, KAFKA = "ottla serve", "kafka"
WARM_UP_S = 30.0

Settings = Mapping[str, object]


@dataclass
class Brokers:
    """What runs.

    Attributes:
        ottla: ours, durability `os`.
        kafka: Apache Kafka with its defaults, or None.
        why: why there is none.
    """

    ottla: Serving
    kafka: Serving | None = None
    why: str = ""
    _topics: int = field(default=0, repr=False)

    def chosen(self, name: str) -> Serving:
        """Return a broker.

        Raises:
            CannotRun: there is none.
        """
        if name == OTTLA:
            return self.ottla
        if self.kafka is None:
            raise CannotRun(self.why)
        return self.kafka

    @contextlib.contextmanager
    def topic(
        self, broker: Serving, partitions: int, configs: Mapping[str, str] | None = None
    ) -> Iterator[str]:
        """Give a new topic; it is deleted afterwards, so that the disk does not fill up."""
        self._topics += 1
        name = f"load{self._topics}"
        with Admin(broker.address) as admin:
            admin.create_topic(name, partitions, configs=dict(configs or {}))
        yield name
        with Admin(broker.address) as admin:
            admin.delete_topic(name)


def shared(options: Options) -> Brokers:
    """Return the brokers of a run; they are started when first asked for."""
    found: Brokers = options.shared("brokers", lambda: _started(options))
    return found


@contextlib.contextmanager
def _started(options: Options) -> Iterator[Brokers]:
    with contextlib.ExitStack() as stack:
        brokers = Brokers(stack.enter_context(serving.ottla(options.new_folder("ottla") / "store")))
        _warm_up(brokers, brokers.ottla, 0.0)
        try:
            jars = jars_of(options)
        except CannotRun as error:
            brokers.why = str(error)
        else:
            folder = options.new_folder("kafka") / "kafka"
            brokers.kafka = stack.enter_context(serving.kafka(folder, jars))
            _warm_up(brokers, brokers.kafka, WARM_UP_S)
        yield brokers


def jars_of(options: Options) -> KafkaJars:
    """Return what a Kafka can be started from.

    Raises:
        CannotRun: there is nothing, or this is the short form.
    """
    if options.is_quick:
        raise CannotRun("the short form needs no JVM")
    try:
        return KafkaJars.find(options.kafka_libs)
    except NoKafka as error:
        raise CannotRun(str(error)) from error


def _warm_up(brokers: Brokers, broker: Serving, seconds: float) -> None:
    """Apply every kind of load, again and again, for so long; each at least once."""
    address = broker.address
    end = time.perf_counter() + seconds
    is_short = not seconds
    while True:
        with brokers.topic(broker, 4) as topic:
            at: Settings = {"address": address, "topic": topic}
            small = {**at, "connections": 8, "requests": 100 if is_short else 20_000}
            process.apply(requests.MODULE, [small])
            produce = {**at, "partitions": 4, "records": 50_000, "value_bytes": 200, "number": 0}
            process.apply(librdkafka.MODULE, [produce])
        with brokers.topic(broker, 4) as topic:
            at = {"address": address, "topic": topic}
            load = {**at, "partitions": 4, "batches": 8 if is_short else 64}
            (outcome,) = process.apply(bulk.MODULE, [load])
            ends = [outcome.stored // 4] * 4
            process.apply(fetches.MODULE, [{**at, "ends": ends, "connections": 2}])
        with brokers.topic(broker, 1) as topic:
            records = 20 if is_short else 300
            load = {"address": address, "topic": topic, "records": records}
            process.apply(latency.MODULE, [load])
        if time.perf_counter() >= end:
            return


def apply(
    broker: Serving,
    module: str,
    settings: Sequence[Settings],
    figures_of: Callable[[Outcome], dict[str, float]],
) -> tuple[Outcome, Sample]:
    """Run processes of load on a broker; returns what they came to, together, and the sample."""
    with process.ready(module, settings) as running:
        broker.process.forget_peak()
        before_s = broker.process.cpu_s()
        running.begin()
        outcome = process.together(running.outcomes())
        broker_s = broker.process.cpu_s() - before_s
        sample = Sample(
            figures_of(outcome) | _cost(outcome, broker_s),
            client_cpu_s=outcome.cpu_s,
            broker_cpu_s=broker_s,
            peak_mb=outcome.peak_mb,
            broker_peak_mb=broker.process.peak_mb(),
        )
    return outcome, sample


def _cost(outcome: Outcome, broker_s: float) -> dict[str, float]:
    """Return what a request or a megabyte costs the broker: it moves less than the clock does."""
    if outcome.p50_us:
        return {"broker CPU us/request": broker_s / outcome.records * 1e6}
    return {"broker CPU us/MB": broker_s / outcome.bytes * 1e12}


def proven(sample: Sample, broker: Serving, topic: str, outcome: Outcome) -> Sample:
    """Read a topic back, and put down what was found; only our own client is used for that."""
    found, checksum = read_back(broker.address, topic)
    return dataclasses.replace(
        sample,
        sent=outcome.stored,
        acknowledged=outcome.stored,
        read=found,
        is_same=checksum == outcome.checksum,
    )


def read_back(address: str, topic: str) -> tuple[int, int]:
    """Return how many records a topic has, and the sum of their values' CRCs."""
    found = checksum = 0
    crc32 = zlib.crc32
    with Consumer(address, topic, stop_at_end=True) as consumer:
        for record in consumer:
            found += 1
            checksum += crc32(record.value)
    return found, checksum
