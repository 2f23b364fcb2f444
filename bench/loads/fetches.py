"""Fetch requests from several connections, one under way each, until all has been read.

    python -m bench.loads.fetches JSON        the fields of `Load`

Each connection has a thread and reads its own partitions from their beginning to the offsets that
are given. It asks as librdkafka does: 1 MiB of a partition at most, no session. Every batch is
checked as it comes, and the sum of the batches' CRCs is the checksum; records are not looked at.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.loads.process import Meter, Outcome, serve
from bench.peer import Peer, frame_of
from ottla.protocol.codec import decode
from ottla.protocol.messages.api_01_fetch import FetchRequest, FetchResponse
from ottla.wire.crc32c import crc32c

MODULE = "bench.loads.fetches"
FETCH_VERSION = 11
PARTITION_BYTES = 1 << 20
MAX_BYTES = 50 << 20

_ANSWER_TIMEOUT_S = 120.0
_MAX_WAIT_MS = 500
_BATCH_HEAD = struct.Struct(">qiiBIhi")
_RECORDS = struct.Struct(">i")
_RECORDS_AT = 57
_CHECKED_FROM = 21
_LENGTH_FROM = 12


@dataclass(frozen=True)
class Load:
    """What is to be read.

    Attributes:
        address: "host:port" of the broker.
        topic: what.
        ends: where each of its partitions ends.
        connections: how many there are; partition n belongs to n modulo this.
    """

    address: str
    topic: str
    ends: list[int]
    connections: int


def fetch_frame(topic: str, offsets: dict[int, int], max_wait_ms: int = _MAX_WAIT_MS) -> bytes:
    """Return a request for what stands at these offsets of partitions."""
    partitions = [
        FetchRequest.FetchPartition(
            partition=partition, fetch_offset=offset, partition_max_bytes=PARTITION_BYTES
        )
        for partition, offset in offsets.items()
    ]
    request = FetchRequest(
        max_wait_ms=max_wait_ms,
        min_bytes=1,
        max_bytes=MAX_BYTES,
        topics=[FetchRequest.FetchTopic(topic=topic, partitions=partitions)],
    )
    return frame_of(request, FETCH_VERSION)


class _Reader:
    """A connection that reads some partitions."""

    def __init__(self, load: Load, number: int) -> None:
        self._load = load
        self._peer = Peer(load.address, _ANSWER_TIMEOUT_S)
        self._peer.socket.settimeout(None)
        self._buffer = bytearray(PARTITION_BYTES)
        self._offsets = {
            partition: 0
            for partition, end in enumerate(load.ends)
            if partition % load.connections == number and end
        }
        self.records = self.bytes = self.checksum = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Read all."""
        try:
            while self._offsets:
                self._peer.socket.sendall(fetch_frame(self._load.topic, self._offsets))
                self._take(self._answer())
        except BaseException as error:
            self.failure = error

    def _answer(self) -> FetchResponse:
        head = bytearray(4)
        assert self._peer.socket.recv_into(head, 4, socket.MSG_WAITALL) == 4, "it was closed"
        size = int.from_bytes(head, "big")
        if size > len(self._buffer):
            self._buffer = bytearray(size + size // 4)
        view = memoryview(self._buffer)[:size]
        assert self._peer.socket.recv_into(view, size, socket.MSG_WAITALL) == size
        return decode(FetchResponse, view[4:], FETCH_VERSION)

    def _take(self, response: FetchResponse) -> None:
        assert response.error_code == 0, f"error {response.error_code}"
        for partition in response.responses[0].partitions:
            assert partition.error_code == 0, f"error {partition.error_code}"
            index = partition.partition_index
            if partition.records:
                self._offsets[index] = self._walk(memoryview(partition.records))
            if self._offsets.get(index, 0) >= self._load.ends[index]:
                del self._offsets[index]

    def _walk(self, records: memoryview) -> int:
        """Look at the batches, and return the offset behind the last whole one."""
        at = 0
        next_offset = -1
        while at + _RECORDS_AT + _RECORDS.size <= len(records):
            base, length, _, _, crc, _, last = _BATCH_HEAD.unpack_from(records, at)
            end = at + _LENGTH_FROM + length
            if end > len(records):
                break
            assert crc32c(records[at + _CHECKED_FROM : end]) == crc, f"{base} is damaged"
            self.records += _RECORDS.unpack_from(records, at + _RECORDS_AT)[0]
            self.checksum += crc
            self.bytes += end - at
            next_offset = base + last + 1
            at = end
        assert next_offset >= 0, "there is no whole batch"
        return next_offset


def prepare(settings: dict[str, Any]) -> Callable[[], Outcome]:
    """Connect."""
    load = Load(**settings)
    readers = [_Reader(load, number) for number in range(load.connections)]
    threads = [threading.Thread(target=reader.run) for reader in readers]

    def run() -> Outcome:
        meter = Meter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        failures = [reader.failure for reader in readers if reader.failure is not None]
        if failures:
            raise failures[0]
        return meter.outcome(
            sum(reader.records for reader in readers),
            sum(reader.bytes for reader in readers),
            sum(reader.checksum for reader in readers),
        )

    return run


if __name__ == "__main__":
    serve(prepare)
