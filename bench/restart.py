"""A store that is served, stopped and killed again and again, and a journal of what it must hold.

The first message is a Produce request to one partition; the clock runs from just before the
process is started until its answer is there, and the connection is tried every millisecond. Then
one request writes to all partitions. All is `ottla.durability=disk`.

At the end the whole store is read: every record that was built or confirmed stands at its offset,
no offset is missing, and nothing that was sent once stands twice.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.peer import Peer
from ottla import Admin, Broker, Consumer, Producer
from ottla.protocol.messages.api_00_produce import ProduceRequest, ProduceResponse
from ottla.records.builder import batch_of, stamp_producer

TOPIC = "load"
VALUE_BYTES = 1000
BATCH_RECORDS = 16
BUILD_AHEAD_BYTES = 64 << 20
CONNECTIONS = 4
PARTITIONS_PER_REQUEST = 25
START_TIMEOUT_S = 600
CLEAN_MARKER = ".kafka_cleanshutdown"

_SERVE = (sys.executable, "-c", "from ottla.cli.main import main; main()", "serve")
_NUMBERED = struct.Struct(">IQ")
_FILLER = random.Random(4).randbytes(VALUE_BYTES - _NUMBERED.size)
_PRODUCE_VERSION = 8


def value_of(partition: int, number: int) -> bytes:
    """Return a value that no other record has."""
    return _NUMBERED.pack(partition, number) + _FILLER


class Writer(Peer):
    """A connection that writes batches."""

    def __init__(self, port: int) -> None:
        super().__init__(f"127.0.0.1:{port}", START_TIMEOUT_S)

    def produce(self, batches: dict[int, memoryview]) -> dict[int, int]:
        """Send one batch to each of some partitions, and return the offsets that they got."""
        data = [
            ProduceRequest.PartitionProduceData(index=partition, records=batch)
            for partition, batch in batches.items()
        ]
        request = ProduceRequest(
            acks=-1,
            timeout_ms=START_TIMEOUT_S * 1000,
            topic_data=[ProduceRequest.TopicProduceData(name=TOPIC, partition_data=data)],
        )
        response = self.ask(request, _PRODUCE_VERSION, ProduceResponse)
        answers = response.responses[0].partition_responses
        failed = [each for each in answers if each.error_code != 0]
        assert not failed, f"error {failed[0].error_code}: {failed[0].error_message}"
        return {each.index: each.base_offset for each in answers}


@dataclass
class Journal:
    """What was sent and what was confirmed, kept outside of the store.

    Attributes:
        partitions: how many there are.
        built: how many records each partition was built with; their numbers are their offsets.
        confirmed: the number of the record at (partition, offset), of those that came later.
    """

    partitions: int
    built: int = 0
    confirmed: dict[tuple[int, int], int] = field(default_factory=dict)
    _next: int = 1 << 32
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def new_batch(self, partition: int, records: int) -> tuple[int, memoryview]:
        """Return a batch of new records for a partition, and the number of the first."""
        with self._guard:
            first = self._next
            self._next += records
        values = [(None, value_of(partition, first + index)) for index in range(records)]
        return first, batch_of(values, time.time_ns() // 1_000_000)

    def confirm(self, partition: int, offset: int, first: int, records: int) -> None:
        """Take note of a batch that was confirmed."""
        for index in range(records):
            self.confirmed[partition, offset + index] = first + index

    def check(self, address: str) -> int:
        """Read everything and compare; returns how many records there are."""
        ends = [0] * self.partitions
        found: set[int] = set()
        missing = dict(self.confirmed)
        with Consumer(address, TOPIC, stop_at_end=True) as consumer:
            for record in consumer:
                partition, offset, value = record.partition, record.offset, record.value
                assert offset == ends[partition], f"{partition}: {ends[partition]} is missing"
                ends[partition] += 1
                owner, number = _NUMBERED.unpack_from(value)
                assert value[_NUMBERED.size :] == _FILLER, f"{partition}: {offset} is damaged"
                assert owner == partition, f"{partition}: {offset} belongs to {owner}"
                if offset < self.built:
                    assert number == offset, f"{partition}: {number} stands at {offset}"
                    continue
                assert number not in found, f"{partition}: {offset} stands there twice"
                found.add(number)
                expected = missing.pop((partition, offset), number)
                assert number == expected, f"{partition}: {offset} is not what was confirmed"
        assert min(ends) >= self.built, f"partition {ends.index(min(ends))} has lost its end"
        assert not missing, f"{len(missing)} confirmed records are lost"
        return sum(ends)


@dataclass
class Started:
    """What one start came to.

    Attributes:
        first_s: from its start to the first confirmed message.
        all_s: how long the request to all partitions took then.
        first_rss: resident memory after the first message, bytes.
        all_rss: and after a message to all partitions.
    """

    first_s: float
    all_s: float
    first_rss: int
    all_rss: int


class Served:
    """A store, and the process that serves it.

    Args:
        folder: the store.
        port: where it is served.
        journal: what is known of it.
    """

    def __init__(self, folder: Path, port: int, journal: Journal) -> None:
        self.folder = folder
        self.port = port
        self.journal = journal
        self._log = folder.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def start(self, partition: int = 0) -> Started:
        """Start it, send to one partition, and then to all of them."""
        environment = {key: value for key, value in os.environ.items() if key != "OTTLA_BROKER"}
        first, batch = self.journal.new_batch(partition, 1)
        with self._log.open("ab") as log:
            begin = time.perf_counter()
            self._process = subprocess.Popen(
                [*_SERVE, str(self.folder), "--listen", self.address],
                stdout=log,
                stderr=log,
                env=environment,
            )
        with contextlib.closing(self._connect()) as peer:
            offset = peer.produce({partition: batch})[partition]
            first_s = time.perf_counter() - begin
            first_rss = self._resident_bytes()
            self.journal.confirm(partition, offset, first, 1)
            made = {each: self.journal.new_batch(each, 1) for each in range(self.partitions)}
            batches = {each: batch for each, (_, batch) in made.items()}
            begin = time.perf_counter()
            offsets = peer.produce(batches)
            all_s = time.perf_counter() - begin
        for each, offset in offsets.items():
            self.journal.confirm(each, offset, made[each][0], 1)
        return Started(first_s, all_s, first_rss, self._resident_bytes())

    @property
    def partitions(self) -> int:
        """How many partitions its topic has."""
        return self.journal.partitions

    def _connect(self) -> Writer:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                return Writer(self.port)
            except ConnectionRefusedError:
                time.sleep(0.001)
        raise RuntimeError(f"the broker did not start:\n{self._log.read_text()[-2000:]}")

    def _resident_bytes(self) -> int:
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def stop(self, how: signal.Signals = signal.SIGTERM) -> float:
        """Stop it, and return how long that took, in seconds."""
        process, self._process = self._process, None
        if process is None:
            return 0.0
        begin = time.perf_counter()
        process.send_signal(how)
        code = process.wait()
        taken = time.perf_counter() - begin
        was_clean = (self.folder / CLEAN_MARKER).exists()
        assert code in (0, -how), f"the broker ended with {code}:\n{self._log.read_text()[-2000:]}"
        assert was_clean == (how == signal.SIGTERM), f"after {how.name}, clean: {was_clean}"
        return taken


class Load:
    """Writes to all partitions from several connections, until the broker is killed."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._counts = [0] * CONNECTIONS
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(index,)) for index in range(CONNECTIONS)
        ]

    def kill_after(self, megabytes: float) -> float:
        """Kill the broker once so much is confirmed, in each partition something; returns MB."""
        batch_bytes = BATCH_RECORDS * VALUE_BYTES
        each = max(megabytes * 1e6 / batch_bytes, self._served.partitions) / CONNECTIONS
        for thread in self._threads:
            thread.start()
        while min(self._counts) < each and not self._failures:
            time.sleep(0.001)
        self._served.stop(signal.SIGKILL)
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]
        return sum(self._counts) * batch_bytes / 1e6

    def _run(self, index: int) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                self._send(index)
            except ConnectionError:
                raise
            except BaseException as error:
                self._failures.append(error)

    def _send(self, index: int) -> None:
        journal = self._served.journal
        own = range(index, journal.partitions, CONNECTIONS)
        sequence = 0
        with contextlib.closing(Writer(self._served.port)) as peer:
            producer_id = peer.new_producer_id()
            while True:
                for start in range(0, len(own), PARTITIONS_PER_REQUEST):
                    chosen = own[start : start + PARTITIONS_PER_REQUEST]
                    made = {each: journal.new_batch(each, BATCH_RECORDS) for each in chosen}
                    for _, batch in made.values():
                        stamp_producer(batch, producer_id, 0, sequence)
                    offsets = peer.produce({each: batch for each, (_, batch) in made.items()})
                    for each, offset in offsets.items():
                        journal.confirm(each, offset, made[each][0], BATCH_RECORDS)
                    self._counts[index] += len(chosen)
                sequence += BATCH_RECORDS


def build(folder: Path, partitions: int, gigabytes: float) -> Journal:
    """Make a store with so much in it, spread evenly, and stop it cleanly."""
    journal = Journal(partitions)
    records = int(gigabytes * 1e9 / VALUE_BYTES / partitions)
    at_once = BATCH_RECORDS * max(1, BUILD_AHEAD_BYTES // (BATCH_RECORDS * VALUE_BYTES))
    with Broker(folder, durability="disk") as broker:
        with Admin(broker) as admin:
            admin.create_topic(TOPIC, partitions)
        with Producer(broker, batch_size=BATCH_RECORDS * (VALUE_BYTES + 20)) as producer:
            for partition in range(partitions):
                for start in range(0, records, at_once):
                    numbers = range(start, min(start + at_once, records))
                    values = [value_of(partition, number) for number in numbers]
                    producer.send_many(TOPIC, values, partition=partition)
            producer.flush()
    journal.built = records
    return journal


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
