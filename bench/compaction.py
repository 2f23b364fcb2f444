"""What compaction costs those who produce meanwhile: the same load with it and without, in turn.

    python -m bench.compaction [--megabytes 60] [--rounds 5] [--producers 1] [--json FILE]

A store is built with one topic for each round, full of records with small keys and values, each key
many times. `ottla serve` serves it, durability `disk`, and producers send messages of 100 bytes to
another topic all the time, each when its last one is confirmed (`bench.singles`). In turn, a while
goes by without compaction, and then the next topic's `cleanup.policy` is set to `compact`: from
there until the broker notes how far it has compacted the topic, that is what goes on. The times of
the messages that were sent in either are compared.

At the end all is read: every message that was confirmed, and in each compacted topic the last value
of each key, and fewer records than there were. Only then figures are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import struct
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import machine, singles
from bench.serving import ottla_serving
from ottla import Admin, Broker, Consumer, Producer

LOAD_TOPIC = "load"
CHECKPOINT = "cleaner-offset-checkpoint"

_KEYS = 50_000
_SEGMENT_BYTES = 16 << 20
_RECORDS_AT_ONCE = 100_000
_NUMBER = struct.Struct(">Q")
_VALUE_FILLER = b"v" * 12
_CLEANER_BACKOFF_MS = 100
_POLL_S = 0.005
_COMPACTION_TIMEOUT_S = 600
_LOAD_TIMEOUT_S = 3600
_LEAD_S = 0.5
_SETTINGS = {
    "log.cleaner.backoff.ms": str(_CLEANER_BACKOFF_MS),
    "log.retention.check.interval.ms": "3600000",
}


@dataclass
class Built:
    """A topic that is to be compacted.

    Attributes:
        name: the topic.
        records: how many it was built with.
        cleanable_bytes: how many bytes are in the segments that compaction may touch.
    """

    name: str
    records: int
    cleanable_bytes: int = 0


@dataclass
class Window:
    """A stretch of time.

    Attributes:
        begun: when it began, of `time.perf_counter`.
        ended: and when it ended.
    """

    begun: float
    ended: float

    def taken_ms(self, times: list[tuple[float, float]]) -> list[float]:
        """Return what messages took that were sent in it."""
        return [taken * 1000 for sent, taken in times if self.begun <= sent < self.ended]


def key_of(number: int) -> bytes:
    """Return the key of a topic's record of that number: each comes again and again."""
    return b"key%07d" % (number % _KEYS)


def build(folder: Path, topics: int, megabytes: float, codec: str) -> list[Built]:
    """Make a store with topics that are worth compacting; they are not compacted yet."""
    built = []
    configs = {"segment.bytes": str(_SEGMENT_BYTES), "retention.ms": "-1"}
    with Broker(folder, durability="os") as broker:
        with Admin(broker) as admin:
            for number in range(topics):
                admin.create_topic(f"compacted{number}", 1, configs=configs)
        for number in range(topics):
            topic = Built(f"compacted{number}", 0)
            partition = folder / f"{topic.name}-0"
            with Producer(broker, compression_type=codec) as producer:
                while not partition.exists() or _bytes_of(partition) < megabytes * 1e6:
                    numbers = range(topic.records, topic.records + _RECORDS_AT_ONCE)
                    producer.send_many(
                        topic.name,
                        [(key_of(each), _NUMBER.pack(each) + _VALUE_FILLER) for each in numbers],
                    )
                    producer.flush()
                    topic.records = numbers.stop
            topic.cleanable_bytes = sum(
                path.stat().st_size for path in sorted(partition.glob("*.log"))[:-1]
            )
            built.append(topic)
    return built


def _bytes_of(partition: Path) -> int:
    return sum(path.stat().st_size for path in partition.glob("*.log"))


def compact(admin: Admin, folder: Path, topic: Built) -> Window:
    """Have a topic compacted, and wait until it is."""
    begun = time.perf_counter()
    admin.alter_configs(topic.name, {"cleanup.policy": "compact"})
    line = f"{topic.name} 0 "
    checkpoint = folder / CHECKPOINT
    while not checkpoint.exists() or line not in checkpoint.read_text():
        assert time.perf_counter() - begun < _COMPACTION_TIMEOUT_S, "nothing was compacted"
        time.sleep(_POLL_S)
    return Window(begun, time.perf_counter())


def check_compacted(address: str, topic: Built) -> int:
    """Read a compacted topic, compare it, and return how many records there are."""
    latest: dict[bytes, int] = {}
    found = 0
    offset = -1
    with Consumer(address, topic.name, stop_at_end=True) as consumer:
        for record in consumer:
            assert record.offset > offset, f"{topic.name}: {record.offset} comes after {offset}"
            offset = record.offset
            latest[record.key] = _NUMBER.unpack_from(record.value)[0]
            assert latest[record.key] == offset, f"{topic.name}: another record at {offset}"
            found += 1
    for number in range(topic.records - _KEYS, topic.records):
        assert latest[key_of(number)] == number, f"{topic.name}: the last of a key is lost"
    assert found < topic.records, f"{topic.name} was not compacted"
    return found


@dataclass
class Figures:
    """What was measured: by round, without compaction and with it."""

    without: list[list[float]]
    during: list[list[float]]
    seconds: list[float]


def measure(address: str, folder: Path, built: list[Built], given: argparse.Namespace) -> Figures:
    """Send all the time, and compact one topic after the other."""
    times_path = str(folder.parent / "times")
    load = singles.Load(
        address, LOAD_TOPIC, given.producers, 1, _LOAD_TIMEOUT_S, _LEAD_S, times_path
    )
    windows: list[tuple[Window, Window]] = []
    with Admin(address) as admin:
        admin.create_topic(LOAD_TOPIC, 1)
    with Admin(address) as admin, singles.started(load) as process:
        try:
            time.sleep(2 * _LEAD_S)  # the load is under way then
            for number, topic in enumerate(built):
                begun = time.perf_counter()
                time.sleep(given.seconds)
                quiet = Window(begun, time.perf_counter())
                windows.append((quiet, compact(admin, folder, topic)))
                print(f"round {number + 1} of {len(built)}", file=sys.stderr)
        finally:
            process.terminate()
        outcome = singles.outcome_of(process)
    singles.check(load, outcome)
    times = singles.read_times(times_path)
    return Figures(
        [quiet.taken_ms(times) for quiet, _ in windows],
        [busy.taken_ms(times) for _, busy in windows],
        [busy.ended - busy.begun for _, busy in windows],
    )


def report(figures: Figures, built: list[Built]) -> None:
    """Print the table."""
    print(f"{'milliseconds':<22}{'p50':>9}{'p99':>9}{'max':>9}{'messages':>11}")
    rows = {"without compaction": figures.without, "during compaction": figures.during}
    found: dict[str, list[float]] = {}
    for name, rounds in rows.items():
        found[name] = [
            statistics.median(machine.percentile(each, part) for each in rounds)
            for part in (0.5, 0.99, 1.0)
        ]
        cells = "".join(f"{each:9.3f}" for each in found[name])
        print(f"{name:<22}{cells}{sum(map(len, rounds)):>11,}")
    pairs = zip(found["during compaction"], found["without compaction"], strict=True)
    print(f"{'ratio':<22}" + "".join(f"{during / without:8.2f}x" for during, without in pairs))
    rates = [
        topic.cleanable_bytes / 1e6 / seconds
        for topic, seconds in zip(built, figures.seconds, strict=True)
    ]
    print(
        f"\ncompacted: {statistics.median(rates):.1f} MB/s, each in "
        f"{statistics.median(figures.seconds):.1f} s"
    )


def arguments(args: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="See the module's docstring.")
    parser.add_argument("--megabytes", type=float, default=60.0, help="of each compacted topic")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each stretch without")
    parser.add_argument("--producers", type=int, default=1)
    parser.add_argument("--codec", default="none", help="of the compacted topics' batches")
    parser.add_argument("--folder", help="on the disk to measure; the default is for tempfiles")
    parser.add_argument("--json", help="write all figures to this file as well")
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> None:
    """Build, measure, check, and print."""
    given = arguments(args)
    facts = [machine.facts()]
    with tempfile.TemporaryDirectory(prefix="ottla-compaction-", dir=given.folder) as name:
        folder = Path(name) / "store"
        built = build(folder, given.rounds, given.megabytes, given.codec)
        with ottla_serving(folder, "disk", _SETTINGS) as (address, _):
            figures = measure(address, folder, built, given)
            left = [check_compacted(address, topic) for topic in built]
        sync_ms = machine.sync_times_ms(Path(name))
        facts.append(f"the disk: {machine.file_system(folder)}")
    facts += [
        f"fdatasync of 4 KiB that were appended, afterwards: "
        f"p50 {machine.percentile(sync_ms, 0.5):.3f} ms, "
        f"p99 {machine.percentile(sync_ms, 0.99):.3f} ms",
        f"{given.rounds} topics, each with {built[0].cleanable_bytes / 1e6:.0f} MB that may be "
        f"compacted; {built[0].records:,} records of {_KEYS:,} keys; {left[0]:,} are left",
        f"{given.producers} producer(s) of 100 B messages, durability disk; all confirmed messages "
        "and the compacted topics were read back and compared; medians of the rounds",
    ]
    print("\n".join(facts) + "\n")
    report(figures, built)
    if given.json:
        content = {"facts": facts, "given": vars(given), **asdict(figures)}
        Path(given.json).write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
