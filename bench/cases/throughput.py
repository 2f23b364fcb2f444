"""B1: what a broker takes from librdkafka's producers, beside a warm Apache Kafka."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench import brokers
from bench.brokers import KAFKA, OTTLA
from bench.harness import Case, Goal, NotRun, Options, Sample, Side
from bench.loads import librdkafka

if TYPE_CHECKING:
    from bench.loads.process import Outcome

_RECORDS = {100: 600_000, 1000: 120_000}
_PRODUCERS = (1, 8)
_PARTITIONS = (1, 12)
_AT_LEAST = 2.0


def cases(options: Options) -> list[Case | NotRun]:
    """Return one case for each size, count of producers and count of partitions."""
    return [
        _case(options, value_bytes, producers, partitions)
        for value_bytes in _RECORDS
        for producers in _PRODUCERS
        for partitions in _PARTITIONS
    ]


def _case(options: Options, value_bytes: int, producers: int, partitions: int) -> Case:
    records = options.count(_RECORDS[value_bytes]) // producers
    settings = {
        "client": ", ".join(f"{name}={value}" for name, value in librdkafka.PRODUCER.items()),
        "load": f"{producers} processes, {records} records each, produce_batch()",
    }

    def run(name: str, number: int) -> Sample:
        found = brokers.shared(options)
        broker = found.chosen(name)
        with found.topic(broker, partitions) as topic:
            load = {
                "address": broker.address,
                "topic": topic,
                "partitions": partitions,
                "records": records,
                "value_bytes": value_bytes,
            }
            loads = [{**load, "number": number} for number in range(producers)]
            outcome, sample = brokers.apply(broker, librdkafka.MODULE, loads, _figures)
            return brokers.proven(sample, broker, topic, outcome)

    size = f"{value_bytes} B" if value_bytes < 1000 else f"{value_bytes // 1000} KB"
    return Case(
        "B1",
        f"librdkafka produces {size}, {producers} producer(s), {partitions} partition(s)",
        [Side(name, partial(run, name), settings) for name in (OTTLA, KAFKA)],
        [Goal("MB/s", OTTLA, KAFKA, at_least=_AT_LEAST)],
        is_quick=producers == 1 and partitions == 1,
    )


def _figures(outcome: Outcome) -> dict[str, float]:
    return {
        "MB/s": outcome.bytes / 1e6 / outcome.seconds,
        "records/s": outcome.records / outcome.seconds,
    }
