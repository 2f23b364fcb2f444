"""B3: what a broker gives, from memory and from the disk, and how soon a consumer has a record."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from bench import brokers
from bench.brokers import KAFKA, OTTLA
from bench.harness import CannotRun, Case, Goal, NotRun, Options, Sample, Side
from bench.loads import bulk, fetches, latency, librdkafka, process

if TYPE_CHECKING:
    from pathlib import Path

    from bench.loads.process import Outcome
    from bench.serving import Serving

_PARTITIONS = 8
_BATCH_BYTES = 128_000
_BATCHES = 2_000
_VALUE_BYTES = 1000
_LATENCIES = 1_000
_PAGE = 4096
_PROBES = 64
_AT_LEAST = 1.5
_AT_MOST_P99 = 0.5


@dataclass(frozen=True)
class Filled:
    """A topic that is read again and again.

    Attributes:
        topic: its name.
        ends: of its partitions.
        records: how many records there are.
        values: the sum of their values' CRCs.
        batches: the sum of the batches' CRCs.
    """

    topic: str
    ends: list[int]
    records: int
    values: int
    batches: int


class _Fetching:
    """The cases, which share a topic on each broker."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def filled(self, broker: Serving) -> Filled:
        """Return a broker's topic."""
        name = f"filled {broker.name}"
        found: Filled = self._options.shared(name, lambda: self._fill(broker))
        return found

    @contextlib.contextmanager
    def _fill(self, broker: Serving) -> Iterator[Filled]:
        each = max(self._options.count(_BATCHES) // _PARTITIONS, 1)
        with brokers.shared(self._options).topic(broker, _PARTITIONS) as topic:
            load = {
                "address": broker.address,
                "topic": topic,
                "partitions": _PARTITIONS,
                "batches": each * _PARTITIONS,
                "batch_bytes": _BATCH_BYTES,
                "value_bytes": _VALUE_BYTES,
            }
            (sent,) = process.apply(bulk.MODULE, [load])
            found, checksum = brokers.read_back(broker.address, topic)
            assert (found, checksum) == (sent.stored, sent.checksum), "what was sent is not there"
            ends = [found // _PARTITIONS] * _PARTITIONS
            reading = {"address": broker.address, "topic": topic, "ends": ends, "connections": 1}
            (read,) = process.apply(fetches.MODULE, [reading])
            assert read.records == found, f"{found} records, {read.records} were fetched"
            yield Filled(topic, ends, found, checksum, read.checksum)

    def fetch(self, connections: int, is_cold: bool, name: str) -> Sample:
        """Fetch all with requests of our own."""
        broker = brokers.shared(self._options).chosen(name)
        filled = self.filled(broker)
        figures = {"still cached %": forget(broker.data, filled.topic)} if is_cold else {}
        load = {
            "address": broker.address,
            "topic": filled.topic,
            "ends": filled.ends,
            "connections": connections,
        }
        outcome, sample = brokers.apply(broker, fetches.MODULE, [load], _rate)
        sample.figures.update(figures)
        return _compared(sample, filled, outcome, filled.batches)

    def consume(self, consumers: int, name: str) -> Sample:
        """Read all with librdkafka."""
        broker = brokers.shared(self._options).chosen(name)
        filled = self.filled(broker)
        loads = []
        for number in range(consumers):
            chosen = list(range(number, _PARTITIONS, consumers))
            load = {"address": broker.address, "topic": filled.topic, "chosen": chosen}
            loads.append({**load, "records": sum(filled.ends[each] for each in chosen)})
        outcome, sample = brokers.apply(broker, librdkafka.MODULE, loads, _rate)
        return _compared(sample, filled, outcome, filled.values)

    def reach(self, name: str) -> Sample:
        """Measure how soon a waiting consumer has a record."""
        shared = brokers.shared(self._options)
        broker = shared.chosen(name)
        with shared.topic(broker, 1) as topic:
            records = self._options.count(_LATENCIES)
            load = {"address": broker.address, "topic": topic, "records": records}
            outcome, sample = brokers.apply(broker, latency.MODULE, [load], _times)
            return brokers.proven(sample, broker, topic, outcome)


def cases(options: Options) -> list[Case | NotRun]:
    """Return the cases."""
    fetching = _Fetching(options)
    found: list[Case | NotRun] = []
    for connections in (1, 8):
        for is_cold in (False, True):
            kind = "cold" if is_cold else "warm"
            run = partial(fetching.fetch, connections, is_cold)
            title = f"fetch requests, {kind}, {connections} connection(s)"
            found.append(_case(title, run, _RATE_GOALS, is_quick=connections == 1))
    for consumers in (1, 8):
        title = f"librdkafka consumes, warm, {consumers} consumer(s)"
        found.append(_case(title, partial(fetching.consume, consumers), _RATE_GOALS))
    title = "a record's way from its producer to a waiting consumer"
    found.append(_case(title, fetching.reach, _TIME_GOALS, is_quick=True))
    return found


_RATE_GOALS = [Goal("MB/s", OTTLA, KAFKA, at_least=_AT_LEAST)]
_TIME_GOALS = [Goal("p99 us", OTTLA, KAFKA, at_most=_AT_MOST_P99)]
_SETTINGS = {
    "topic": f"{_PARTITIONS} partitions, {_VALUE_BYTES} B values, batches of {_BATCH_BYTES} B",
    "cold": "its files were synced and taken out of the page cache (posix_fadvise); what lies below"
    " a virtual disk may still have them",
    "librdkafka": ", ".join(f"{name}={value}" for name, value in librdkafka.CONSUMER.items()),
}


def _case(
    title: str, run: Callable[[str], Sample], goals: list[Goal], *, is_quick: bool = False
) -> Case:
    sides = [Side(name, partial(_round, run, name), _SETTINGS) for name in (OTTLA, KAFKA)]
    return Case("B3", title, sides, goals, is_quick=is_quick)


def _round(run: Callable[[str], Sample], name: str, _: int) -> Sample:
    return run(name)


def forget(data: Path, topic: str) -> float:
    """Take a topic out of the page cache; returns how many percent of it are still there.

    Raises:
        CannotRun: the system does not allow that.
    """
    cached = probed = 0
    for path in data.glob(f"{topic}-*/*.log"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            size = os.fstat(descriptor).st_size
            for number in range(_PROBES):
                probed += 1
                cached += _is_cached(descriptor, size * number // _PROBES // _PAGE * _PAGE)
        except (AttributeError, OSError) as error:
            raise CannotRun(f"the page cache cannot be emptied here: {error}") from error
        finally:
            os.close(descriptor)
    return cached / max(probed, 1) * 100


def _is_cached(descriptor: int, at: int) -> bool:
    """Tell whether a page is in memory; nothing is read that is not."""
    try:
        return os.preadv(descriptor, [bytearray(1)], at, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False


def _rate(outcome: Outcome) -> dict[str, float]:
    return {
        "MB/s": outcome.bytes / 1e6 / outcome.seconds,
        "records/s": outcome.records / outcome.seconds,
    }


def _times(outcome: Outcome) -> dict[str, float]:
    return {"p50 us": outcome.p50_us, "p99 us": outcome.p99_us}


def _compared(sample: Sample, filled: Filled, outcome: Outcome, expected: int) -> Sample:
    return replace(
        sample,
        sent=filled.records,
        acknowledged=filled.records,
        read=outcome.records,
        is_same=outcome.checksum == expected,
    )
