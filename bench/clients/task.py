"""What a client is told to do in a process of its own, and what it says of it.

    python -m bench.clients.CLIENT TASK JSON        the fields of `Task`; prints those of `Result`

The clock runs while the task is done and not before: the interpreter has started, the client is
imported, and the values lie there. Producers are connected and know the topic: one record,
`WARM_UP`, has been sent and confirmed. The clock of a consumer begins to run when the first call
that reads has returned, and what that one gave does not count; what it has fetched ahead does.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.resources import Process, ready_page_cache

WARM_UP = b"the first record, before the clock runs"

_CHECKSUM_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Task:
    """What is to be done.

    Attributes:
        address: of the broker; for an embedded store its folder.
        topic: it exists and has one partition.
        count: how many records; for a consumer how many there are in all.
        value_bytes: how long each value is.
        kind: "numbered" or "json", see `values_of`.
        settings: of the client.
        broker_pid: the process of the broker; 0 for none.
        durability: of an embedded store.
    """

    address: str
    topic: str
    count: int
    value_bytes: int = 100
    kind: str = "numbered"
    settings: dict[str, Any] = field(default_factory=dict)
    broker_pid: int = 0
    durability: str = "os"

    @property
    def bytes(self) -> int:
        """How long all its values are."""
        return self.count * self.value_bytes


@dataclass
class Result:
    """What came of it.

    Attributes:
        seconds: how long the clock ran.
        client_cpu_s: processor time of this process meanwhile.
        broker_cpu_s: and of the broker.
        peak_mb: the most memory that this process had resident, values included.
        broker_peak_mb: the most that the broker had, since the clock began to run.
        acknowledged: records that were confirmed, `WARM_UP` included.
        read: records that were read.
        read_bytes: the length of all their values.
        read_before: how many of the records were read before the clock ran.
        checksum: of the values that were read, in another pass, see `checksum_of`.
        taken_us: how long each of the singles took.
    """

    seconds: float = 0.0
    client_cpu_s: float = 0.0
    broker_cpu_s: float = 0.0
    peak_mb: float = 0.0
    broker_peak_mb: float = 0.0
    acknowledged: int = 0
    read: int = 0
    read_bytes: int = 0
    read_before: int = 0
    checksum: int = 0
    taken_us: list[float] = field(default_factory=list)

    @contextlib.contextmanager
    def clock(self, broker_pid: int, writing: int = 0) -> Iterator[None]:
        """Measure what is done inside; the broker writes so many bytes, about, meanwhile."""
        if writing:
            ready_page_cache(writing)
        client, broker = Process(os.getpid()), Process(broker_pid) if broker_pid else None
        broker_before = 0.0
        if broker is not None:
            broker.forget_peak()
            broker_before = broker.cpu_s()
        client_before = client.cpu_s()
        begin = time.perf_counter()
        yield
        self.seconds = time.perf_counter() - begin
        self.client_cpu_s = client.cpu_s() - client_before
        self.peak_mb = client.peak_mb()
        if broker is not None:
            self.broker_cpu_s = broker.cpu_s() - broker_before
            self.broker_peak_mb = broker.peak_mb()


Work = Callable[[Task], Result]


def values_of(task: Task) -> list[bytes]:
    """Return the values of a task, each another one."""
    if task.kind == "numbered":
        return [b"%0*d" % (task.value_bytes, number) for number in range(task.count)]
    return [_json_value(number, task.value_bytes) for number in range(task.count)]


_CITIES = ("Ljubljana", "Montevideo", "Reykjavik", "Antananarivo", "Vancouver", "Samarkand", "Cork")
_STATES = ("created", "paid", "packed", "sent", "delivered", "returned")


def _json_value(number: int, size: int) -> bytes:
    """Return an order as services write it: the same names in all, numbers that differ."""
    mixed = number * 2654435761 % (1 << 32)
    text = (
        f'{{"order_id":{10_000_000 + number},"customer":"c-{mixed:08x}",'
        f'"city":"{_CITIES[mixed % len(_CITIES)]}","state":"{_STATES[mixed // 7 % len(_STATES)]}",'
        f'"items":{mixed % 9 + 1},"total_cents":{mixed % 100_000},"currency":"EUR",'
        f'"at":"2026-01-{mixed % 28 + 1:02d}T{mixed % 24:02d}:{mixed % 60:02d}:00Z","note":"'
    )
    return (text + "-" * (size - len(text) - 2) + '"}').encode()


def checksum_of(values: Iterable[bytes]) -> int:
    """Return a checksum of values that does not depend on their order."""
    return sum(map(zlib.crc32, values)) & _CHECKSUM_MASK


def singles(count: int, single: Callable[[], object], result: Result) -> None:
    """Do something again and again, and note how long each took."""
    clock = time.perf_counter_ns
    taken = result.taken_us
    for _ in range(count):
        begin = clock()
        single()
        taken.append((clock() - begin) / 1000)


def group_of(task: Task, number: int) -> str:
    """Return the name of a group that there has not been yet."""
    return f"{task.topic}-{os.getpid()}-{number}"


def main(works: dict[str, Work], args: Sequence[str] | None = None) -> None:
    """Do what the command line says, and print what came of it."""
    name, text = sys.argv[1:] if args is None else args
    print(json.dumps(asdict(works[name](Task(**json.loads(text))))))
