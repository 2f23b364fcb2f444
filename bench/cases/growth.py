"""S1: what more partitions, connections and groups cost those who produce: time, and memory.

Two brokers are up at the same time, one with one of each, the other one with many, and the same
small load is applied to both in turn. Partitions have been written to once, and are idle; idle
connections have asked for the API versions; groups have three members each, which send heartbeats.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

from bench import brokers, serving
from bench.harness import CannotRun, Case, Goal, NotRun, Options, Sample, Side
from bench.loads import crowd, process, requests
from bench.peer import Peer
from bench.serving import Serving
from ottla import Admin
from ottla.protocol.messages.api_00_produce import ProduceRequest, ProduceResponse
from ottla.records.builder import batch_of

_ONE, _MANY = "one", "many"
_CONNECTIONS = 8
_REQUESTS = 10_000
_PARTITIONS, _IDLE, _GROUPS = 10_000, 10_000, 1_000
_AT_MOST_P99 = 1.5
_AT_MOST_CONNECTION_KB = 20.0
_AT_MOST_PARTITION_KB = 10.0
_AT_ONCE = 500
_ANSWER_TIMEOUT_S = 300.0
_PRODUCE_VERSION = 8
_OTHER_DESCRIPTORS = 1_000
"""What a process has open besides its connections, and then some."""

_JOIN_DELAY = {"group.initial.rebalance.delay.ms": str(crowd.JOIN_DELAY_MS)}


@dataclass
class _Both:
    """The two brokers, and what the many have cost.

    Attributes:
        brokers: by name.
        figures: of the one with many.
    """

    brokers: dict[str, Serving] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


Grown = Callable[[Serving, dict[str, float]], AbstractContextManager[None]]
"""Makes a broker have many of something, and notes what that has cost."""


def cases(options: Options) -> list[Case | NotRun]:
    """Return a case for each kind."""
    partitions, groups = options.count(_PARTITIONS), options.count(_GROUPS)
    descriptors = serving.raise_descriptors()
    idle = min(options.count(_IDLE), descriptors * 3 // 4 - _OTHER_DESCRIPTORS)
    limit = {"open files": f"{descriptors} are allowed"}
    return [
        _case(
            options,
            f"1 to {partitions:,} partitions",
            partial(_with_partitions, partitions),
            [Goal("KB/partition", _MANY, at_most=_AT_MOST_PARTITION_KB)],
            {"partitions": f"{partitions:,}, each was written to once"},
        ),
        _case(
            options,
            f"1 to {idle:,} idle connections",
            partial(_with_connections, idle),
            [Goal("KB/connection", _MANY, at_most=_AT_MOST_CONNECTION_KB)],
            limit | {"connections": f"{idle:,}"},
        ),
        _case(
            options,
            f"1 to {groups:,} groups of {crowd.MEMBERS} members",
            partial(_with_groups, groups),
            [],
            limit | {"groups": f"{groups:,}, a heartbeat of each member every 3 s"},
        ),
    ]


def _case(
    options: Options, title: str, grown: Grown, goals: list[Goal], settings: dict[str, str]
) -> Case:
    both = _Both()

    @contextlib.contextmanager
    def during() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name in (_ONE, _MANY):
                folder = options.new_folder("growth") / "store"
                broker = stack.enter_context(serving.ottla(folder, settings=_JOIN_DELAY))
                both.brokers[name] = broker
                with Admin(broker.address) as admin:
                    admin.create_topic("load", 1)
                _load(broker, 200)
            stack.enter_context(grown(both.brokers[_MANY], both.figures))
            yield

    def run(name: str, number: int) -> Sample:
        broker = both.brokers[name]
        topic = f"load{number}"
        with Admin(broker.address) as admin:
            admin.create_topic(topic, 1)
        load = _small(broker, topic, options.count(_REQUESTS))
        outcome, sample = brokers.apply(broker, requests.MODULE, [load], _figures)
        if name == _MANY:
            sample.figures.update(both.figures)
        return brokers.proven(sample, broker, topic, outcome)

    slower = Goal("p99 us", _MANY, _ONE, at_most=_AT_MOST_P99)
    sides = [Side(name, partial(run, name), settings) for name in (_ONE, _MANY)]
    return Case("S1", title, sides, [slower, *goals], during, is_quick="group" not in title)


def _small(broker: Serving, topic: str, count: int) -> dict[str, object]:
    return {
        "address": broker.address,
        "topic": topic,
        "connections": _CONNECTIONS,
        "requests": count,
    }


def _load(broker: Serving, count: int) -> None:
    process.apply(requests.MODULE, [_small(broker, "load", count)])


def _figures(outcome: process.Outcome) -> dict[str, float]:
    return {
        "p50 us": outcome.p50_us,
        "p99 us": outcome.p99_us,
        "requests/s": outcome.records / outcome.seconds,
    }


@contextlib.contextmanager
def _with_partitions(count: int, broker: Serving, figures: dict[str, float]) -> Iterator[None]:
    before_mb = broker.process.resident_mb()
    begun = time.perf_counter()
    with Admin(broker.address) as admin:
        admin.create_topic("many", count)
    figures["s to create"] = time.perf_counter() - begun
    created_mb = broker.process.resident_mb()
    peer = Peer(broker.address, _ANSWER_TIMEOUT_S)
    for start in range(0, count, _AT_ONCE):
        _write(peer, range(start, min(start + _AT_ONCE, count)))
    peer.close()
    figures["KB/partition, not written"] = (created_mb - before_mb) * 1024 / count
    figures["KB/partition"] = (broker.process.resident_mb() - before_mb) * 1024 / count
    yield


def _write(peer: Peer, partitions: range) -> None:
    """Write one record to each of some partitions."""
    now_ms = time.time_ns() // 1_000_000
    data = [
        ProduceRequest.PartitionProduceData(index=each, records=batch_of([(None, b"1")], now_ms))
        for each in partitions
    ]
    topic = ProduceRequest.TopicProduceData(name="many", partition_data=data)
    request = ProduceRequest(acks=-1, timeout_ms=300_000, topic_data=[topic])
    response = peer.ask(request, _PRODUCE_VERSION, ProduceResponse)
    failed = [each for each in response.responses[0].partition_responses if each.error_code]
    assert not failed, f"error {failed[0].error_code}"


@contextlib.contextmanager
def _with_connections(count: int, broker: Serving, figures: dict[str, float]) -> Iterator[None]:
    if count < 1:
        raise CannotRun("too few open files are allowed")
    before_mb = broker.process.resident_mb()
    with process.ready(crowd.MODULE, [{"address": broker.address, "connections": count}]):
        figures["KB/connection"] = (broker.process.resident_mb() - before_mb) * 1024 / count
        yield


@contextlib.contextmanager
def _with_groups(count: int, broker: Serving, figures: dict[str, float]) -> Iterator[None]:
    before_mb = broker.process.resident_mb()
    load = {"address": broker.address, "groups": count}
    with process.ready(crowd.MODULE, [load]) as running:
        grown_mb = broker.process.resident_mb() - before_mb
        figures["KB/member, with its connection"] = grown_mb * 1024 / count / crowd.MEMBERS
        running.begin()
        yield
