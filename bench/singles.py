"""Load of small messages over TCP, one at a time per producer: send, wait for the answer, next.

    python -m bench.singles JSON        the fields of `Load`; prints those of `Outcome`; SIGTERM
                                        ends it before its time

All connections are served by one thread, which sends requests that are prepared but for what makes
each message different: its number, its sequence and its checksum. So it is the same for every
broker, and takes 10 to 20 microseconds a message of a processor of its own. Messages have 100 bytes
and stand alone in their batch; producers are idempotent, as they are by default; acks is all.

What is measured begins `lead_s` after the start, and everything that was sent is waited for.
"""

from __future__ import annotations

import json
import random
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.machine import percentile
from bench.peer import Peer, frame_of
from ottla import Consumer
from ottla.protocol.messages.api_00_produce import ProduceRequest
from ottla.records.builder import batch_of, stamp_producer
from ottla.wire.crc32c import crc32c

VALUE_BYTES = 100
ROOT = Path(__file__).parents[1]

_PRODUCE_VERSION = 8
_ANSWER_TIMEOUT_S = 60.0
_NUMBERED = struct.Struct(">IQ")
_FILLER = random.Random(7).randbytes(VALUE_BYTES - _NUMBERED.size)
_CRC = struct.Struct(">I")
_CRC_AT = 17
_CHECKED_FROM = 21
_SEQUENCE = struct.Struct(">i")
_SEQUENCE_AT = 53
_ERROR = struct.Struct(">h")
_NOT_YET = (3, 5, 6)
"""Error codes of a topic that was created a moment ago: unknown, without a leader, not led here."""


def value_of(producer: int, number: int) -> bytes:
    """Return a message that no other is equal to."""
    return _NUMBERED.pack(producer, number) + _FILLER


@dataclass(frozen=True)
class Load:
    """What is to be sent.

    Attributes:
        address: "host:port" of the broker.
        topic: where to; it exists.
        producers: how many connections.
        partitions: how many partitions the topic has; producer n sends to n modulo this.
        seconds: how long.
        lead_s: how much of that is not measured.
        times_path: a file for when each message was sent and how long it took, or "".
    """

    address: str
    topic: str
    producers: int
    partitions: int
    seconds: float
    lead_s: float
    times_path: str = ""


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        acknowledged: messages of the whole run.
        checksum: the sum of their CRCs.
        rate: acknowledged messages a second, after the lead.
        p50_ms: half of the messages took less.
        p99_ms: 99 of 100 took less.
        max_ms: what the slowest took.
        busy: the part of a processor that the load itself took.
        measured: how many messages the times are of.
    """

    acknowledged: int
    checksum: int
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    busy: float
    measured: int


@dataclass
class Times:
    """When each message was sent and how long it took, in seconds of `time.perf_counter`.

    Attributes:
        begun: when the load began.
        lead_s: what is not measured.
        taken: how long those took that are measured.
        sent: when each of them was sent.
        ended: when the last of these was confirmed.
    """

    begun: float
    lead_s: float
    taken: array[float] = field(default_factory=lambda: array("d"))
    sent: array[float] = field(default_factory=lambda: array("d"))
    ended: float = 0.0

    def note(self, sent: float, answered: float) -> None:
        """Take note of a confirmed message."""
        if sent - self.begun >= self.lead_s:
            self.taken.append(answered - sent)
            self.sent.append(sent)
            self.ended = max(self.ended, answered)

    def write(self, path: str) -> None:
        """Leave them in a file, for `read_times`."""
        with open(path, "wb") as file:
            self.sent.tofile(file)
            self.taken.tofile(file)

    def outcome(self, acknowledged: int, checksum: int, busy_s: float) -> Outcome:
        """Sum up."""
        assert self.taken, "nothing was confirmed after the lead"
        measured_s = self.ended - self.begun - self.lead_s
        return Outcome(
            acknowledged,
            checksum,
            len(self.taken) / measured_s,
            percentile(self.taken, 0.50) * 1000,
            percentile(self.taken, 0.99) * 1000,
            max(self.taken) * 1000,
            busy_s / (self.ended - self.begun),
            len(self.taken),
        )


class One:
    """A producer: one connection, one message under way.

    Args:
        load: what is to be sent.
        number: which producer it is.

    Attributes:
        socket: its connection.
        sent: when the message under way was sent.
        checksum: of the confirmed messages.
        confirmed: how many.
    """

    def __init__(self, load: Load, number: int) -> None:
        self.sent = 0.0
        self.checksum = 0
        self.confirmed = 0
        self._number = number
        self._peer = Peer(load.address, _ANSWER_TIMEOUT_S)
        self.socket = self._peer.socket
        batch = batch_of([(None, value_of(number, 0))], time.time_ns() // 1_000_000)
        stamp_producer(batch, self._peer.new_producer_id(), 0, 0)
        partition = number % load.partitions
        data = ProduceRequest.PartitionProduceData(index=partition, records=batch)
        request = ProduceRequest(
            acks=-1,
            timeout_ms=int(_ANSWER_TIMEOUT_S * 1000),
            topic_data=[ProduceRequest.TopicProduceData(name=load.topic, partition_data=[data])],
        )
        self._frame = bytearray(frame_of(request, _PRODUCE_VERSION))
        self._batch_at = self._frame.index(batch)
        self._value_at = self._frame.index(_NUMBERED.pack(number, 0) + _FILLER)
        self._checked = memoryview(self._frame)[self._batch_at + _CHECKED_FROM :]
        # size, correlation id, topics, name, partitions, index
        self._error_at = 4 + 4 + 4 + 2 + len(load.topic.encode()) + 4 + 4

    def send(self) -> None:
        """Send the next message."""
        number = self.confirmed
        frame = self._frame
        _NUMBERED.pack_into(frame, self._value_at, self._number, number)
        _SEQUENCE.pack_into(frame, self._batch_at + _SEQUENCE_AT, number)
        _CRC.pack_into(frame, self._batch_at + _CRC_AT, crc32c(self._checked))
        self.sent = time.perf_counter()
        self.socket.sendall(frame)

    def receive(self) -> tuple[int, float]:
        """Take the answer, which is there; returns its error code and when it had come."""
        answer = self.socket.recv(4096)
        answered = time.perf_counter()
        if not answer:
            raise ConnectionError("the broker has closed the connection")
        while len(answer) < 4 or len(answer) < 4 + int.from_bytes(answer[:4], "big"):
            answer += self.socket.recv(4096)
        return _ERROR.unpack_from(answer, self._error_at)[0], answered

    def confirm(self) -> None:
        """Take note that the message under way was confirmed."""
        value_at = self._value_at
        self.checksum += zlib.crc32(self._frame[value_at : value_at + VALUE_BYTES])
        self.confirmed += 1

    def send_first(self) -> None:
        """Send the first message until the broker knows the topic."""
        while True:
            self.send()
            error, _ = self.receive()
            if error == 0:
                break
            assert error in _NOT_YET, f"error {error}"
            time.sleep(0.01)
        self.confirm()

    def close(self) -> None:
        """End its connection."""
        self._peer.close()


def run(load: Load, stopping: threading.Event | None = None) -> Outcome:
    """Send, in this process, until the time is over or `stopping` is set."""
    stopping = stopping or threading.Event()
    ones = [One(load, number) for number in range(load.producers)]
    poll = select.epoll()
    by_descriptor = {}
    for one in ones:
        one.send_first()
        by_descriptor[one.socket.fileno()] = one
        poll.register(one.socket.fileno(), select.EPOLLIN)
    busy = time.process_time()
    times = Times(time.perf_counter(), load.lead_s)
    end = times.begun + load.seconds
    for one in ones:
        one.send()
    under_way = len(ones)
    while under_way:
        events = poll.poll(_ANSWER_TIMEOUT_S)
        assert events, "the broker does not answer"
        for descriptor, _ in events:
            one = by_descriptor[descriptor]
            error, answered = one.receive()
            assert error == 0, f"error {error}"
            times.note(one.sent, answered)
            one.confirm()
            if answered < end and not stopping.is_set():
                one.send()
            else:
                under_way -= 1
    busy = time.process_time() - busy
    poll.close()
    for one in ones:
        one.close()
    if load.times_path:
        times.write(load.times_path)
    acknowledged = sum(one.confirmed for one in ones)
    return times.outcome(acknowledged, sum(one.checksum for one in ones), busy)


def read_times(path: str) -> list[tuple[float, float]]:
    """Return when each message was sent and how long it took; other processes have this clock."""
    times = array("d", Path(path).read_bytes())
    half = len(times) // 2
    return list(zip(times[:half], times[half:], strict=True))


@contextmanager
def started(load: Load) -> Iterator[subprocess.Popen[str]]:
    """Send in another process; see `outcome_of`."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.singles", json.dumps(asdict(load))],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        yield process


def outcome_of(process: subprocess.Popen[str]) -> Outcome:
    """Wait for what a process of load, or of `bench.stores`, came to."""
    printed, _ = process.communicate()
    assert process.returncode == 0, f"the load ended with {process.returncode}"
    return Outcome(**json.loads(printed))


def apply(load: Load) -> Outcome:
    """Send in another process, and wait for the outcome."""
    with started(load) as process:
        return outcome_of(process)


def check(load: Load, outcome: Outcome) -> None:
    """Read back what was acknowledged: so many messages, and these."""
    found = checksum = 0
    with Consumer(load.address, load.topic, stop_at_end=True) as consumer:
        for record in consumer:
            found += 1
            checksum += zlib.crc32(record.value)
    assert found == outcome.acknowledged, f"{outcome.acknowledged} confirmed, {found} found"
    assert checksum == outcome.checksum, "what was found is not what was confirmed"


def main() -> None:
    """Send what the command line says."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.set())
    print(json.dumps(asdict(run(Load(**json.loads(sys.argv[1])), stopping))))


if __name__ == "__main__":
    main()
