"""S3: memory of a client whose broker takes nothing, and of a broker whose consumers take nothing.

Both are bounded by a setting, whatever is offered: `buffer_memory` of the producer, and what a
fetch asks for at most, once for each connection. What is measured is memory beyond what the process
had before. Each round has a broker of its own, because memory is seldom given back.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from bench import serving
from bench.harness import Case, Goal, NotRun, Options, Sample, Side
from bench.loads import buffer, bulk, process
from bench.loads.fetches import fetch_frame
from bench.peer import Peer
from ottla import Admin
from ottla.protocol.messages.api_18_api_versions import ApiVersionsRequest, ApiVersionsResponse

if TYPE_CHECKING:
    from bench.serving import Serving

_TOPIC = "load"
_MORE = "MB more"
_BUFFER_MB = 32
_LITTLE, _MUCH = 64, 1024
"""Megabytes that are offered to the buffer."""
_ALLOWED = 1.25
"""How much more than its setting something may take, and than with little load."""

_PARTITIONS = 8
_RESPONSE_MB = _PARTITIONS
"""What a fetch gets: a megabyte of each partition, as it asks."""
_CONNECTIONS = 4
_FETCHES = (1, 200)
_ANSWER_TIMEOUT_S = 60.0


def cases(options: Options) -> list[Case | NotRun]:
    """Return the cases."""
    return [_producer(options, "paused"), _producer(options, "gone"), _consumers(options)]


def _bounded(more: str, less: str, bound_mb: float) -> list[Goal]:
    """Return goals: bounded by a setting, and no more with more load."""
    return [
        Goal(_MORE, more, at_most=_ALLOWED * bound_mb),
        Goal(_MORE, more, less, at_most=_ALLOWED),
    ]


def _producer(options: Options, state: str) -> Case:
    names = {f"{offered} MB offered": offered for offered in (_LITTLE, options.count(_MUCH))}

    def run(name: str, _: int) -> Sample:
        with serving.ottla(options.new_folder("memory") / "store") as broker:
            with Admin(broker.address) as admin:
                admin.create_topic(_TOPIC, 1)
            load = {
                "address": broker.address,
                "topic": _TOPIC,
                "megabytes": names[name],
                "buffer_memory": _BUFFER_MB << 20,
            }
            with process.ready(buffer.MODULE, [load]) as running, _without(broker, state):
                running.begin()
                (outcome,) = running.outcomes()
            taken = outcome.bytes / 1e6
            assert taken < names[name] or names[name] <= _BUFFER_MB, "all was taken"
            return Sample({_MORE: outcome.peak_mb, "MB taken": taken})

    settings = {"producer": f"buffer_memory={_BUFFER_MB} MiB; try_send() of 1 KB"}
    little, much = names
    return Case(
        "S3",
        f"a producer's memory while its broker is {state}",
        [Side(name, partial(run, name), settings) for name in names],
        _bounded(much, little, _BUFFER_MB),
        is_quick=state == "paused",
    )


@contextlib.contextmanager
def _without(broker: Serving, state: str) -> Iterator[None]:
    """Have the broker do nothing, or end."""
    if state == "gone":
        os.kill(broker.process.pid, signal.SIGKILL)
        yield
        return
    os.kill(broker.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)


def _consumers(options: Options) -> Case:
    names = {f"{count} fetch(es) under way": count for count in _FETCHES}

    def run(name: str, _: int) -> Sample:
        with serving.ottla(options.new_folder("memory") / "store") as broker:
            with Admin(broker.address) as admin:
                admin.create_topic(_TOPIC, _PARTITIONS)
            load = {
                "address": broker.address,
                "topic": _TOPIC,
                "partitions": _PARTITIONS,
                "batches": 4 * _PARTITIONS,
            }
            process.apply(bulk.MODULE, [load])
            before_mb = broker.process.resident_mb()
            broker.process.forget_peak()
            sent = _fetch_and_never_read(broker, names[name])
            return Sample({_MORE: broker.process.peak_mb() - before_mb, "fetches sent": sent})

    few, many = names
    settings = {"consumers": f"{_CONNECTIONS} connections, {_RESPONSE_MB} MB a response, no reads"}
    return Case(
        "S3",
        "a broker's memory while consumers fetch and do not read",
        [Side(name, partial(run, name), settings) for name in names],
        _bounded(many, few, _CONNECTIONS * _RESPONSE_MB),
        is_quick=True,
    )


def _fetch_and_never_read(broker: Serving, count: int) -> int:
    """Send fetches from each connection as long as the broker takes them; returns how many."""
    frame = fetch_frame(_TOPIC, dict.fromkeys(range(_PARTITIONS), 0))
    sent = 0
    with contextlib.ExitStack() as stack:
        peers = [
            stack.enter_context(closing(Peer(broker.address, _ANSWER_TIMEOUT_S)))
            for _ in range(_CONNECTIONS)
        ]
        # Somebody else is answered all the while, and after that they have all been looked at.
        other = stack.enter_context(closing(Peer(broker.address, _ANSWER_TIMEOUT_S)))
        for peer in peers:
            peer.socket.setblocking(False)
        for _ in range(count):
            for peer in peers:
                with contextlib.suppress(BlockingIOError):
                    sent += peer.socket.send(frame) == len(frame)
            other.ask(ApiVersionsRequest(), 0, ApiVersionsResponse)
    return sent
