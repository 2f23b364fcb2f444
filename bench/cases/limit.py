"""L1: bulk produce of ready batches, against what this machine does with the same bytes."""

from __future__ import annotations

from bench import brokers
from bench.brokers import OTTLA
from bench.harness import Case, Goal, NotRun, Options, Sample, Side
from bench.loads import bulk, limit, process
from bench.loads.limit import LOOPBACK, PAGE_CACHE

_SLOWER = "the slower one"
_BATCHES = 1000
_AT_LEAST = 0.6
_SETTINGS = {"load": "1 MB blocks, 5 under way, one process to another over one connection"}


def cases(options: Options) -> list[Case | NotRun]:
    """Return the case."""
    count = options.count(_BATCHES)

    def produce(_: int) -> Sample:
        found = brokers.shared(options)
        broker = found.ottla
        with found.topic(broker, 1) as topic:
            load = {"address": broker.address, "topic": topic, "partitions": 1, "batches": count}
            outcome, sample = brokers.apply(broker, bulk.MODULE, [load], _figures)
            return brokers.proven(sample, broker, topic, outcome)

    def bytes_only(what: str) -> Sample:
        path = options.new_folder("limit") / "written"
        load = {"what": what, "path": str(path), "blocks": count}
        outcome = process.together(process.apply(limit.MODULE, [load]))
        return Sample(_figures(outcome), client_cpu_s=outcome.cpu_s)

    def slower(_: int) -> Sample:
        both = [bytes_only(what) for what in (LOOPBACK, PAGE_CACHE)]
        rates = [each.figures["MB/s"] for each in both]
        return Sample({"MB/s": min(rates), "loopback MB/s": rates[0], "page cache MB/s": rates[1]})

    return [
        Case(
            "L1",
            "bulk produce of ready 1 MB batches against this machine's limit",
            [Side(OTTLA, produce, _SETTINGS), Side(_SLOWER, slower, _SETTINGS)],
            [Goal("MB/s", OTTLA, _SLOWER, at_least=_AT_LEAST)],
            is_quick=True,
        )
    ]


def _figures(outcome: process.Outcome) -> dict[str, float]:
    return {"MB/s": outcome.bytes / 1e6 / outcome.seconds}
