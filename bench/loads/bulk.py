"""Produce requests with one large batch each, built beforehand, several under way.

    python -m bench.loads.bulk JSON        the fields of `Load`

The batches are sent again and again as they are, so they have no producer id. What the processor
does here is to hand each of them to the kernel, and to look at the answer.
"""

from __future__ import annotations

import random
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.loads.process import Meter, Outcome, serve
from bench.peer import Peer, frame_of
from bench.resources import ready_page_cache
from ottla.protocol.codec import decode
from ottla.protocol.messages.api_00_produce import ProduceRequest, ProduceResponse
from ottla.records.builder import batch_of

MODULE = "bench.loads.bulk"

_PRODUCE_VERSION = 8
_ANSWER_TIMEOUT_S = 120.0
_NUMBERED = struct.Struct(">IQ")
_DIFFERENT = 8
_RECORD_OVERHEAD = 12
"""What a record takes beside its value, at most; a batch of Kafka's has 1,048,588 bytes at most."""
NOT_YET = (3, 5, 6)


@dataclass(frozen=True)
class Load:
    """What is to be sent.

    Attributes:
        address: "host:port" of the broker.
        topic: where to; it exists.
        partitions: how many of its partitions take turns.
        batches: how many requests.
        batch_bytes: how large a batch is, about; not larger.
        value_bytes: how large a value is.
        in_flight: how many requests are under way.
    """

    address: str
    topic: str
    partitions: int
    batches: int
    batch_bytes: int = 1_000_000
    value_bytes: int = 1000
    in_flight: int = 5


@dataclass(frozen=True)
class Batch:
    """A batch, and what is in it.

    Attributes:
        data: its bytes.
        records: how many.
        checksum: the sum of its values' CRCs.
        crc: its own.
    """

    data: memoryview
    records: int
    checksum: int
    crc: int


def batches_of(load: Load) -> list[Batch]:
    """Return the batches that take turns."""
    filler = random.Random(3).randbytes(load.value_bytes - _NUMBERED.size)
    records = load.batch_bytes // (load.value_bytes + _RECORD_OVERHEAD)
    found = []
    for number in range(min(_DIFFERENT, load.batches)):
        values = [_NUMBERED.pack(number, each) + filler for each in range(records)]
        data = batch_of([(None, value) for value in values], time.time_ns() // 1_000_000)
        checksum = sum(map(zlib.crc32, values))
        found.append(Batch(data, records, checksum, int.from_bytes(data[17:21], "big")))
    return found


def _request_of(load: Load, batch: memoryview, partition: int) -> bytes:
    data = ProduceRequest.PartitionProduceData(index=partition, records=batch)
    request = ProduceRequest(
        acks=-1,
        timeout_ms=int(_ANSWER_TIMEOUT_S * 1000),
        topic_data=[ProduceRequest.TopicProduceData(name=load.topic, partition_data=[data])],
    )
    return frame_of(request, _PRODUCE_VERSION)


def _error_of(answer: bytes) -> int:
    response = decode(ProduceResponse, answer[4:], _PRODUCE_VERSION)
    return response.responses[0].partition_responses[0].error_code


def prepare(settings: dict[str, Any]) -> Callable[[], Outcome]:
    """Connect, build the batches, and send one to each partition."""
    load = Load(**settings)
    batches = batches_of(load)
    peer = Peer(load.address, _ANSWER_TIMEOUT_S)
    frames = {
        (number, partition): _request_of(load, batch.data, partition)
        for number, batch in enumerate(batches)
        for partition in range(load.partitions)
    }
    for partition in range(load.partitions):
        while True:
            peer.socket.sendall(frames[0, partition])
            error = _error_of(peer.receive_frame())
            if error == 0:
                break
            assert error in NOT_YET, f"error {error}"
            time.sleep(0.01)
    ready_page_cache(load.batches * load.batch_bytes)

    def run() -> Outcome:
        meter = Meter()
        answers = []
        for number in range(load.batches):
            if number >= load.in_flight:
                answers.append(peer.receive_frame())
            peer.socket.sendall(frames[number % len(batches), number % load.partitions])
        while len(answers) < load.batches:
            answers.append(peer.receive_frame())
        records = batches[0].records * load.batches
        sent = load.batches * len(batches[0].data)
        outcome = meter.outcome(records, sent, 0)
        failed = [error for error in map(_error_of, answers) if error]
        assert not failed, f"error {failed[0]}"
        outcome.stored = records + batches[0].records * load.partitions
        outcome.checksum = batches[0].checksum * load.partitions + sum(
            batches[number % len(batches)].checksum for number in range(load.batches)
        )
        return outcome

    return run


if __name__ == "__main__":
    serve(prepare)
