"""Small produce requests that were built beforehand: one record each, one under way a connection.

    python -m bench.loads.requests JSON        the fields of `Load`

One thread serves all connections. It sends what is ready, byte for byte, so that it costs two
system calls and a microsecond or two a request, whatever the broker is. Records are idempotent and
different from each other; acks is all.
"""

from __future__ import annotations

import random
import select
import struct
import time
import zlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.loads.process import Meter, Outcome, serve
from bench.peer import Peer, frame_of
from ottla.protocol.messages.api_00_produce import ProduceRequest
from ottla.records.builder import batch_of, stamp_producer

if TYPE_CHECKING:
    import socket

MODULE = "bench.loads.requests"

_PRODUCE_VERSION = 8
_ANSWER_TIMEOUT_S = 60.0
_NUMBERED = struct.Struct(">IQ")
_ANSWER_BYTES_MAX = 4096
_NOT_YET = (3, 5, 6)
"""Error codes of a topic that was created a moment ago: unknown, without a leader, not led here."""


@dataclass(frozen=True)
class Load:
    """What is to be sent.

    Attributes:
        address: "host:port" of the broker.
        topic: where to; it exists.
        connections: how many.
        requests: how many, of all connections together.
        partitions: the first partitions of the topic, which take turns.
        value_bytes: the size of a value.
        seed: makes the values of two loads different.
    """

    address: str
    topic: str
    connections: int
    requests: int
    partitions: int = 1
    value_bytes: int = 100
    seed: int = 0


def frames_of(load: Load, connection: int, producer_id: int, count: int) -> tuple[list[bytes], int]:
    """Return the requests of a connection, and the sum of their values' CRCs."""
    filler = random.Random(load.seed).randbytes(load.value_bytes - _NUMBERED.size)
    now_ms = time.time_ns() // 1_000_000
    frames, checksum = [], 0
    sequences: dict[int, int] = {}
    for number in range(count):
        partition = (connection + number * load.connections) % load.partitions
        value = _NUMBERED.pack(connection, number) + filler
        checksum += zlib.crc32(value)
        batch = batch_of([(None, value)], now_ms)
        stamp_producer(batch, producer_id, 0, sequences.get(partition, 0))
        sequences[partition] = sequences.get(partition, 0) + 1
        data = ProduceRequest.PartitionProduceData(index=partition, records=batch)
        request = ProduceRequest(
            acks=-1,
            timeout_ms=int(_ANSWER_TIMEOUT_S * 1000),
            topic_data=[ProduceRequest.TopicProduceData(name=load.topic, partition_data=[data])],
        )
        frames.append(frame_of(request, _PRODUCE_VERSION))
    return frames, checksum


class _Line:
    """A connection and what is to be sent on it."""

    def __init__(self, load: Load, number: int, count: int) -> None:
        self._peer = Peer(load.address, _ANSWER_TIMEOUT_S)
        self.socket = self._peer.socket
        frames, self.checksum = frames_of(load, number, self._peer.new_producer_id(), count)
        self.frames = iter(frames)
        # size, correlation id, topics, name, partitions, index
        self.error_at = 4 + 4 + 4 + 2 + len(load.topic.encode()) + 4 + 4

    def send_first(self) -> None:
        """Send the first request until the broker knows the topic."""
        frame = next(self.frames)
        while True:
            self.socket.sendall(frame)
            answer = _received(self.socket)
            error = int.from_bytes(answer[self.error_at : self.error_at + 2], "big")
            if error == 0:
                return
            assert error in _NOT_YET, f"error {error}"
            time.sleep(0.01)


def _received(connection: socket.socket) -> bytes:
    answer = connection.recv(_ANSWER_BYTES_MAX)
    while len(answer) < 4 or len(answer) < 4 + int.from_bytes(answer[:4], "big"):
        more = connection.recv(_ANSWER_BYTES_MAX)
        if not more:
            raise ConnectionError("the broker has closed the connection")
        answer += more
    return answer


def prepare(settings: dict[str, Any]) -> Callable[[], Outcome]:
    """Connect, build what is sent, and send the first record of each connection."""
    load = Load(**settings)
    each, more = divmod(load.requests, load.connections)
    lines = [_Line(load, number, 1 + each + (number < more)) for number in range(load.connections)]
    for line in lines:
        line.send_first()
    return lambda: _run(load, lines)


def _run(load: Load, lines: list[_Line]) -> Outcome:
    poll = select.epoll()
    by_descriptor = {}
    for line in lines:
        line.socket.setblocking(False)
        poll.register(line.socket.fileno(), select.EPOLLIN)
        by_descriptor[line.socket.fileno()] = line
    taken = array("d")
    sent = dict.fromkeys(by_descriptor, 0.0)
    error_at = lines[0].error_at
    clock = time.perf_counter
    under_way = 0
    meter = Meter()
    for descriptor, line in by_descriptor.items():
        frame = next(line.frames, None)
        if frame is not None:
            sent[descriptor] = clock()
            line.socket.send(frame)
            under_way += 1
    while under_way:
        events = poll.poll(_ANSWER_TIMEOUT_S)
        assert events, "the broker does not answer"
        for descriptor, _ in events:
            line = by_descriptor[descriptor]
            answer = line.socket.recv(_ANSWER_BYTES_MAX)
            assert len(answer) > error_at, f"no whole answer: {answer!r}"
            error = answer[error_at : error_at + 2]
            assert error == b"\0\0", f"error {int.from_bytes(error, 'big')}"
            now = clock()
            taken.append(now - sent[descriptor])
            frame = next(line.frames, None)
            if frame is None:
                under_way -= 1
                continue
            sent[descriptor] = now
            line.socket.send(frame)
    records = len(taken)
    checksum = sum(line.checksum for line in lines)
    size = records * load.value_bytes
    return meter.outcome(records, size, checksum, taken, records + load.connections)


if __name__ == "__main__":
    serve(prepare)
