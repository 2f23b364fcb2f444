"""Groups that live through everything at once: what `python -m tests.compat` puts into its table.

Three members join, one is killed, one joins, and the broker is restarted twice, once cleanly and
once by `kill -9`, while somebody writes all the time. Then it is asked whether every record was
seen, whether a member jumped over some, what is committed, whether that survives, and whether the
group comes to rest.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ottla import Admin
from tests.compat.crowd import CANNOT_WAIT, PATIENCE_S, Crowd, Writer, committed
from tests.compat.member import HEARTBEAT_MS, SESSION_MS
from tests.compat.serving import Serving
from tests.kafka.real_kafka import KafkaJars, RealKafka

PARTITIONS = 12
_TOPIC = "g"
_REST_S = 3.0
_RESTS = 5
_SHOWN = 10
_STEP_S = 0.2
_PHASES = 5
_SETTINGS = {
    "group.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": str(SESSION_MS),
    "group.consumer.heartbeat.interval.ms": str(HEARTBEAT_MS),
}
_SETTINGS_KAFKA = _SETTINGS | {
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "100",
}


@dataclass(frozen=True)
class Cast:
    """Who takes part.

    Attributes:
        name: what the row is called.
        members: the clients that join at first.
        joins: the client that joins after one was killed.
    """

    name: str
    members: Sequence[str]
    joins: str


def _alone(client: str) -> Cast:
    return Cast(client, [client] * 3, client)


CASTS = [
    *map(
        _alone,
        [
            "confluent-kafka",
            "confluent-kafka-cooperative",
            "confluent-kafka-consumer-protocol",
            "kafka-python",
            "aiokafka",
            "ottla",
            "ottla-consumer-protocol",
        ],
    ),
    Cast(
        "all in one classic group",
        ["confluent-kafka", "kafka-python", "aiokafka", "ottla"],
        "confluent-kafka",
    ),
    Cast(
        "both in one consumer group",
        ["confluent-kafka-consumer-protocol", "ottla-consumer-protocol"] * 2,
        "ottla-consumer-protocol",
    ),
]


@dataclass
class Row:
    """What came of it.

    Attributes:
        name: who took part.
        records: how many were written.
        missing: records that nobody has seen.
        again: how many were seen more than once, which at least once allows.
        jumps: how often a member went over records of a partition that it kept.
        changes: how often a member's assignment changed, until the group had come to rest.
        restless: how often one still changed when nothing had happened for a while.
        uncommitted: records that are not below the committed offsets at the end.
        forgotten: committed offsets that were gone after a last `kill -9` of the broker.
        seconds: how long it took.
        problem: why it did not come to its end; "" where it did.
    """

    name: str
    records: int
    missing: int = 0
    again: int = 0
    jumps: int = 0
    changes: int = 0
    restless: int = 0
    uncommitted: int = 0
    forgotten: int = 0
    seconds: float = 0.0
    problem: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing was wrong."""
        wrong = self.missing + self.jumps + self.restless + self.uncommitted + self.forgotten
        return not self.problem and wrong == 0


COLUMNS = (
    "records",
    "missing",
    "again",
    "jumps",
    "changes",
    "restless",
    "uncommitted",
    "forgotten",
)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a text."""
    lines = [f"{'group of':<36}" + "".join(f"{name:>12}" for name in (*COLUMNS, "seconds"))]
    for row in rows:
        cells = "".join(f"{getattr(row, name):>12,}" for name in COLUMNS)
        lines.append(f"{row.name:<36}{cells}{row.seconds:>12.1f}")
        if row.problem:
            lines.append(f"    {row.problem}")
    return "\n".join(lines)


class Restartable(Protocol):
    """A broker that can be stopped and started again on its address."""

    address: str

    def start(self) -> None:
        """Start it, and wait until it serves."""
        ...

    def stop(self, how: signal.Signals = ...) -> object:
        """Stop it."""
        ...


@contextlib.contextmanager
def ottla_broker() -> Iterator[Restartable]:
    """Give a broker of ours, with an empty store."""
    options = [part for name, value in _SETTINGS.items() for part in ("--set", f"{name}={value}")]
    with (
        tempfile.TemporaryDirectory() as folder,
        Serving(Path(folder) / "store", *options) as serving,
    ):
        yield serving


@contextlib.contextmanager
def kafka_broker(jars: KafkaJars) -> Iterator[Restartable]:
    """Give a real Kafka, with an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        kafka = RealKafka(jars, Path(folder), _SETTINGS_KAFKA)
        try:
            kafka.start()
            yield kafka
        finally:
            kafka.stop()


def run(cast: Cast, records: int, broker: Restartable) -> Row:
    """Let a group live through it.

    Args:
        cast: who takes part.
        records: how many are written at least, as many in each phase and partition.
        broker: where; it has no topic of that name yet.
    """
    began = time.monotonic()
    with Admin(broker.address) as admin:
        admin.create_topic(_TOPIC, PARTITIONS)
    crowd = Crowd(cast.joins, broker.address, _TOPIC, PARTITIONS)
    writer = Writer(broker.address, _TOPIC, PARTITIONS)
    phase = -(-records // (_PHASES * PARTITIONS)) * PARTITIONS
    row = Row(cast.name, phase * _PHASES)
    try:
        _live(crowd, writer, broker, cast, phase)
        ends = [len(writer.written) // PARTITIONS] * PARTITIONS
        row.restless = _rest(crowd)
        row.changes = crowd.changes
        crowd.stop()
        found = committed(broker.address, _TOPIC, PARTITIONS)
        row.uncommitted = sum(end - max(at, 0) for end, at in zip(ends, found, strict=True))
        broker.stop(signal.SIGKILL)
        broker.start()
        after = committed(broker.address, _TOPIC, PARTITIONS)
        row.forgotten = sum(a != b for a, b in zip(found, after, strict=True))
    except Exception as error:
        row.problem = f"{type(error).__name__}: {error}"
    finally:
        crowd.stop()
    _judge(row, crowd, writer.written)
    row.seconds = time.monotonic() - began
    return row


def _live(crowd: Crowd, writer: Writer, broker: Restartable, cast: Cast, phase: int) -> None:
    for client in cast.members:
        crowd.start(client=client)
    crowd.wait_until_shared()

    def written_while(happening: Callable[[], None]) -> None:
        enough = len(crowd.read) + phase // 4
        with _writing(writer, phase):
            crowd.wait("reading while it is written", lambda: len(crowd.read) >= enough)
            happening()
        crowd.wait_until_shared()
        _wait_until_committed(broker.address, len(writer.written) // PARTITIONS)

    def killed() -> None:
        crowd.kill_one()

    def joined() -> None:
        crowd.start()

    def restarted(how: signal.Signals) -> None:
        left = crowd.stop_all_of(CANNOT_WAIT)
        broker.stop(how)
        broker.start()
        for client in left:
            crowd.start(client=client)

    written_while(lambda: None)
    written_while(killed)
    written_while(joined)
    written_while(lambda: restarted(signal.SIGTERM))
    written_while(lambda: restarted(signal.SIGKILL))


def _rest(crowd: Crowd) -> int:
    """Wait until no assignment changes for a while; return how often they did at the very end."""
    for _ in range(_RESTS):
        before = crowd.changes
        threading.Event().wait(_REST_S)
        if (changes := crowd.changes - before) == 0:
            break
    return changes


@contextlib.contextmanager
def _writing(writer: Writer, count: int) -> Iterator[None]:
    """Write in the background, and wait for it at the end."""
    failed: list[BaseException] = []

    def write() -> None:
        try:
            writer.write(count)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    yield
    thread.join(2 * PATIENCE_S)
    assert not thread.is_alive(), "the writer hangs"
    assert not failed, f"the writer failed: {failed}"


def _wait_until_committed(address: str, end: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (found := committed(address, _TOPIC, PARTITIONS)) != [end] * PARTITIONS:
        assert time.monotonic() < deadline, f"committed is {found}, not {end} everywhere"
        threading.Event().wait(_STEP_S)


def _judge(row: Row, crowd: Crowd, written: set[str]) -> None:
    told = list(itertools.chain(*crowd.seen))
    seen = [value for each in told for value in each.get("seen", ())]
    missing = sorted(map(int, written - set(seen)))
    row.missing = len(missing)
    if missing:
        row.problem += f" nobody has seen {missing[:_SHOWN]}"
    row.again = len(seen) - len(set(seen))
    row.jumps = sum(_jumps(each) for each in crowd.seen)


def _jumps(told: Sequence[dict[str, list[Any]]]) -> int:
    """Count how often a member read on further ahead, with nothing assigned to it in between."""
    jumps = 0
    last: dict[int, int] = {}
    for what in told:
        if "assigned" in what:
            last.clear()
        for value in map(int, what.get("seen", ())):
            partition, number = value % PARTITIONS, value // PARTITIONS
            jumps += number > last.get(partition, number) + 1
            last[partition] = number
    return jumps


def run_all(
    names: Sequence[str],
    records: int,
    jars: KafkaJars | None,
    told: Callable[[Row], None],
) -> list[Row]:
    """Run the casts that are named, or all, each on a broker of its own.

    Args:
        names: of casts; none for all.
        records: how many are written in each.
        jars: a real Kafka's, to run against that; None for a broker of ours.
        told: called with every row.
    """
    rows = []
    for cast in CASTS:
        if names and cast.name not in names:
            continue
        with ottla_broker() if jars is None else kafka_broker(jars) as broker:
            rows.append(run(cast, records, broker))
        told(rows[-1])
    return rows
