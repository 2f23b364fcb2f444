"""B2: small requests, one record each, from 1 to 64 connections, beside a warm Apache Kafka."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench import brokers
from bench.brokers import KAFKA, OTTLA
from bench.harness import Case, Goal, NotRun, Options, Sample, Side
from bench.loads import requests

if TYPE_CHECKING:
    from bench.loads.process import Outcome

_REQUESTS = {1: 6_000, 8: 20_000, 64: 30_000}
_AT_LEAST = 2.0
_AT_MOST_P99 = 0.5
_SETTINGS = {"load": "requests built beforehand, one under way a connection, one process; 100 B"}


def cases(options: Options) -> list[Case | NotRun]:
    """Return one case for each count of connections."""
    return [_case(options, connections) for connections in _REQUESTS]


def _case(options: Options, connections: int) -> Case:
    count = options.count(_REQUESTS[connections])

    def run(name: str, number: int) -> Sample:
        found = brokers.shared(options)
        broker = found.chosen(name)
        with found.topic(broker, 1) as topic:
            load = {
                "address": broker.address,
                "topic": topic,
                "connections": connections,
                "requests": count,
                "seed": number,
            }
            outcome, sample = brokers.apply(broker, requests.MODULE, [load], _figures)
            return brokers.proven(sample, broker, topic, outcome)

    return Case(
        "B2",
        f"one record a request, {connections} connection(s)",
        [Side(name, partial(run, name), _SETTINGS) for name in (OTTLA, KAFKA)],
        [
            Goal("requests/s", OTTLA, KAFKA, at_least=_AT_LEAST),
            Goal("p99 us", OTTLA, KAFKA, at_most=_AT_MOST_P99),
        ],
        is_quick=True,
    )


def _figures(outcome: Outcome) -> dict[str, float]:
    return {
        "requests/s": outcome.records / outcome.seconds,
        "p50 us": outcome.p50_us,
        "p99 us": outcome.p99_us,
        "load's CPU %": outcome.cpu_s / outcome.seconds * 100,
    }
