"""A producer that sends to a broker that does not answer: what its buffer takes, and no more.

    python -m bench.loads.buffer JSON        the fields of `Load`

The first record is confirmed before it begins. Then it sends, whether there is room or not, until
so much has been offered; what is refused is dropped, as an application that cannot wait does. What
counts is the memory that it has then and did not have before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.loads.process import Meter, Outcome, serve
from bench.resources import Process
from ottla import Producer
from ottla.errors import BufferFull

MODULE = "bench.loads.buffer"


@dataclass(frozen=True)
class Load:
    """What is offered.

    Attributes:
        address: "host:port" of the broker.
        topic: where to; it exists.
        megabytes: how much.
        buffer_memory: the producer's setting.
        value_bytes: how large values are.
    """

    address: str
    topic: str
    megabytes: int
    buffer_memory: int
    value_bytes: int = 1000


def prepare(settings: dict[str, Any]) -> Callable[[], Outcome]:
    """Connect, and have one record confirmed."""
    load = Load(**settings)
    producer = Producer(load.address, buffer_memory=load.buffer_memory)
    producer.send(load.topic, b"first").result()
    process = Process(os.getpid())
    before_mb = process.resident_mb()

    def run() -> Outcome:
        meter = Meter()
        process.forget_peak()
        taken = 0
        for number in range(load.megabytes * 1_000_000 // load.value_bytes):
            with contextlib.suppress(BufferFull):
                producer.try_send(load.topic, number.to_bytes(8, "big") * (load.value_bytes // 8))
                taken += 1
        outcome = meter.outcome(taken, taken * load.value_bytes)
        outcome.peak_mb = process.peak_mb() - before_mb
        return outcome

    return run


if __name__ == "__main__":
    serve(prepare)
    # Closing would wait for the broker until the delivery timeout.
    os._exit(0)
