"""How long a record takes from its producer to a consumer whose fetch is waiting for it.

    python -m bench.loads.latency JSON        the fields of `Load`

Two connections: one has a fetch under way, the other one sends a record that was built beforehand.
The clock runs from before it is sent until the consumer has the whole answer with the record. The
next one is sent a while later, when the next fetch has arrived and waits.
"""

from __future__ import annotations

import select
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.loads import requests
from bench.loads.fetches import FETCH_VERSION, fetch_frame
from bench.loads.process import Meter, Outcome, serve
from bench.peer import Peer
from ottla.protocol.codec import decode
from ottla.protocol.messages.api_00_produce import ProduceResponse
from ottla.protocol.messages.api_01_fetch import FetchResponse

MODULE = "bench.loads.latency"

_ANSWER_TIMEOUT_S = 60.0
_WAIT_MS = 30_000
_NOT_YET = (3, 5, 6)
_BEFORE = 20
"""Records that are sent before the clock runs."""


@dataclass(frozen=True)
class Load:
    """What is to be sent.

    Attributes:
        address: "host:port" of the broker.
        topic: where to; it exists, is empty, and has one partition.
        records: how many are measured.
        pause_s: how long a fetch has before the record is sent.
        value_bytes: how large values are.
    """

    address: str
    topic: str
    records: int
    pause_s: float = 0.001
    value_bytes: int = 100


class _Pair:
    """A producer and a consumer."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._producer = Peer(load.address, _ANSWER_TIMEOUT_S)
        self._consumer = Peer(load.address, _ANSWER_TIMEOUT_S)
        sent = requests.Load(load.address, load.topic, 1, 0, 1, load.value_bytes)
        count = load.records + _BEFORE + 1
        frames, self.checksum = requests.frames_of(sent, 0, self._producer.new_producer_id(), count)
        self._frames = iter(frames)
        self._offset = 1
        self._poll = select.epoll()
        self._poll.register(self._consumer.socket.fileno(), select.EPOLLIN)

    def begin(self) -> None:
        """Send the first one, until the broker knows the topic."""
        frame = next(self._frames)
        while True:
            self._producer.socket.sendall(frame)
            response = decode(ProduceResponse, self._producer.receive_frame()[4:], 8)
            error = response.responses[0].partition_responses[0].error_code
            if error == 0:
                break
            assert error in _NOT_YET, f"error {error}"
            time.sleep(0.01)

    def one(self) -> float:
        """Send one, and return how long it took to its consumer."""
        fetch = fetch_frame(self._load.topic, {0: self._offset}, _WAIT_MS)
        self._consumer.socket.sendall(fetch)
        assert not self._poll.poll(self._load.pause_s), "the fetch did not wait"
        frame = next(self._frames)
        begun = time.perf_counter()
        self._producer.socket.sendall(frame)
        answer = self._consumer.receive_frame()
        taken = time.perf_counter() - begun
        response = decode(FetchResponse, answer[4:], FETCH_VERSION)
        found = response.responses[0].partitions[0]
        assert found.error_code == 0, f"error {found.error_code}"
        assert found.records, "there is nothing in it"
        stored = decode(ProduceResponse, self._producer.receive_frame()[4:], 8)
        assert stored.responses[0].partition_responses[0].base_offset == self._offset
        self._offset += 1
        return taken


def prepare(settings: dict[str, Any]) -> Callable[[], Outcome]:
    """Connect, and send some."""
    load = Load(**settings)
    pair = _Pair(load)
    pair.begin()
    for _ in range(_BEFORE):
        pair.one()

    def run() -> Outcome:
        meter = Meter()
        taken = array("d", (pair.one() for _ in range(load.records)))
        size = load.records * load.value_bytes
        stored = load.records + _BEFORE + 1
        return meter.outcome(load.records, size, pair.checksum, taken, stored)

    return run


if __name__ == "__main__":
    serve(prepare)
