"""Real processes that are killed, or told of an error, at the N-th call to the kernel, for all N.

strace stops the process of `system_workload` before a call that touches the store, and kills it
there, or lets the call fail. First the workload runs once without a fault, and the calls are
counted: each is a point. Then it runs once for each point, and its store is opened again and
judged from what the process had told until then (`History`): what was acknowledged is there, at
its offset, once, in order; nothing is there that nobody sent; what has no answer can be sent again
and is then there once; and everything goes on, through a clean stop and another start.

Only what the kernel shows after a kill is seen here: it still has what was written and not
synced. What a power cut leaves is for other tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ottla.broker.engine import METADATA_TOPIC
from ottla.clock import ManualClock
from ottla.errors import KafkaError, codes
from tests.crash.report import Row
from tests.crash.system_workload import STEP_MS, TOPICS, ByHand

ROOT = Path(__file__).parents[2]
CALLS = (
    "write,pwrite64,pwritev,pwritev2,fdatasync,fsync,rename,renameat,renameat2,unlink,unlinkat,"
    "openat,open,creat,ftruncate,fallocate,mkdir,mkdirat,rmdir,pread64,read"
)
READS = ("pread64", "read")
FAULTS = {
    "failed fsync, strace": ("EIO", ("fdatasync", "fsync")),
    "ENOSPC at each call": (
        "ENOSPC",
        ("pwritev", "pwritev2", "write", "openat", "mkdir", "fallocate"),
    ),
    "EIO at each call": (
        "EIO",
        ("pwritev", "pwritev2", "write", "openat", "rename", "unlink", "rmdir", "pread64", "read"),
    ),
    "EMFILE at each open": ("EMFILE", ("openat",)),
}
KILL = "kill at each call"
KILLS_SAMPLED = 60
FAILURES_SAMPLED = 25
_ATTACHED = b"attached"
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)")
_LATER_MS = 1_000_000


class Point(NamedTuple):
    """A call that touches the store.

    Attributes:
        call: what it is called.
        when: the how manieth of its kind it is.
        path: what it is done to, relative to the store.
        told: how many lines the process has told before it.
    """

    call: str
    when: int
    path: str
    told: int


# -- running


class Runner:
    """Runs the workload, in a folder of its own, under strace.

    Args:
        folder: where the store is to be.
        source: another folder to import ottla from, "" for this one.
    """

    def __init__(self, folder: Path, source: str = "") -> None:
        self.store = folder / "store"
        self._folder = folder
        path = os.pathsep.join(filter(None, (source, str(ROOT))))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.system_workload"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=ROOT,
            env=environment,
        )

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def run(self, *options: str) -> tuple[list[list[Any]], int]:
        """Run it once in an empty folder; returns what it told, and how it ended."""
        shutil.rmtree(self.store, ignore_errors=True)
        self._tell(str(self.store))
        pid = self._next()[1]
        strace = subprocess.Popen(
            ["strace", "-p", str(pid), *options],
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert strace.stderr is not None
        try:
            seen = b""
            while _ATTACHED not in seen:
                found = strace.stderr.read(4096)
                if not found:
                    raise RuntimeError(f"strace does not run: {seen.decode()}")
                seen += found
            self._tell("go")
            told: list[list[Any]] = []
            while (line := self._next())[0] != "ended":
                told.append(line)
            strace.communicate(timeout=60)
            return told, line[1]
        finally:
            strace.kill()
            strace.wait()
            strace.stderr.close()

    def points(self) -> list[Point]:
        """Run it without a fault, and return the calls that touch the store."""
        log = self._folder / "calls"
        told, status = self.run("-y", "-s", "4096", "-o", str(log), "-e", f"trace={CALLS}")
        if status or told[-1] != ["done"]:
            raise RuntimeError(f"the workload fails without a fault: {told[-1]}")
        counts: dict[str, int] = {}
        points = []
        lines = 0
        for line in log.read_text(errors="replace").splitlines():
            found = _CALL.match(line)
            if found is None:
                continue
            call, rest = found.groups()
            counts[call] = counts.get(call, 0) + 1
            lines += call == "write" and rest.startswith("1<")
            path = re.search(re.escape(str(self.store)) + r"[^>\",]*", rest)
            if path is None or (call == "openat" and "O_CREAT" not in rest):
                continue
            points.append(Point(call, counts[call], path[0][len(str(self.store)) + 1 :], lines))
        return points

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def _next(self) -> list[Any]:
        assert self._process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            found = self._process.stdout.readline()
            if not found:
                raise RuntimeError("the workload's parent has ended")
            line += found
        told: list[Any] = json.loads(line)
        return told


# -- judging


@dataclass
class _Partition:
    """What is known of one partition.

    Attributes:
        sent: the key of each record that was sent, by its number.
        stored: the offset of each that was acknowledged, by its number.
        refused: those that were refused before anything was written.
        waiting: the one of which nobody knows, as (number, key, sequence), or None.
        before: what `waiting` was before the last one was sent.
        sequence: the next one.
        cut: the offset before which records must be gone.
        may_be_cut: the offset before which they may be.
        compacted: how many were sent when it was compacted last.
    """

    sent: dict[int, str] = field(default_factory=dict)
    stored: dict[int, int] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    waiting: tuple[int, str, int] | None = None
    before: tuple[int, str, int] | None = None
    sequence: int = 0
    cut: int = 0
    may_be_cut: int = 0
    compacted: int = 0

    def must_be_there(self) -> dict[int, int]:
        """Return the acknowledged records that nothing may have removed, as number: offset."""
        latest = {self.sent[number]: number for number in sorted(self.stored)}
        return {
            number: offset
            for number, offset in self.stored.items()
            if offset >= self.may_be_cut
            and (number > self.compacted or latest[self.sent[number]] == number)
        }


class History:
    """What the workload told, and what of it must be true of its store.

    Args:
        told: its lines.
    """

    def __init__(self, told: list[list[Any]]) -> None:
        self.partitions: dict[tuple[str, int], _Partition] = {}
        self.acknowledged = 0
        self.after_failure = 0
        self.crashed = ""
        self.topics: dict[str, str] = {}
        self._broken: set[tuple[str, int]] = set()
        for kind, *rest in told:
            getattr(self, f"_{kind}", lambda *_: None)(*rest)

    def _creating(self, name: str, partitions: int) -> None:
        self.topics[name] = "maybe"
        for partition in range(partitions):
            self.partitions.setdefault((name, partition), _Partition())

    def _created(self, name: str, partitions: int) -> None:
        self.topics[name] = "there"
        self.acknowledged += 1
        for partition in range(partitions):
            self.partitions[name, partition] = _Partition()
            self._broken.discard((name, partition))

    def _deleting(self, name: str) -> None:
        self.topics[name] = "maybe"

    def _deleted(self, name: str) -> None:
        self.topics[name] = "gone"
        self.acknowledged += 1
        for at in [at for at in self.partitions if at[0] == name]:
            self.partitions[at] = _Partition()

    def _sending(self, topic: str, partition: int, number: int, key: str, sequence: int) -> None:
        known = self.partitions[topic, partition]
        known.sent[number] = key
        known.before = known.waiting
        known.waiting = (number, key, sequence)

    def _stored(self, topic: str, partition: int, number: int, offset: int) -> None:
        known = self.partitions[topic, partition]
        known.stored[number] = offset
        known.waiting = None
        known.sequence += 1
        self.acknowledged += 1
        if (topic, partition) in self._broken:
            self.after_failure += 1

    def _refused(self, topic: str, partition: int, number: int, text: str) -> None:
        known = self.partitions[topic, partition]
        if "could not be made durable" in text and (topic, partition) not in self._broken:
            self._broken.add((topic, partition))
        else:
            known.refused.add(number)
            known.waiting = known.before

    def _cutting(self, topic: str, partition: int, offset: int) -> None:
        known = self.partitions[topic, partition]
        known.may_be_cut = max(known.may_be_cut, offset)

    _expiring = _cutting

    def _cut(self, topic: str, partition: int, offset: int) -> None:
        self.partitions[topic, partition].cut = offset
        self.acknowledged += 1

    def _compacting(self, topic: str, partition: int) -> None:
        known = self.partitions[topic, partition]
        known.compacted = max(known.stored, default=0)

    def _crashed(self, text: str) -> None:
        self.crashed = text

    def _missing(self, topic: str, partition: int, text: str) -> None:
        self.crashed = f"{topic}-{partition} cannot be read: {text}"


class Judgement:
    """What is wrong with a store.

    Attributes:
        lost, duplicated, reordered: how many records.
        problems: what is wrong, in words.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.duplicated = 0
        self.reordered = 0
        self.problems: list[str] = []

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.duplicated or self.reordered or self.problems)

    def judge(self, store: Path, history: History) -> Judgement:
        """Open a store, look, send what is left to be sent, and look again after a clean stop."""
        if history.crashed:
            self.problems.append(history.crashed)
        if history.after_failure:
            self.problems.append(f"{history.after_failure} confirmed after a failed sync")
        clock = ManualClock()
        clock.advance(_LATER_MS)
        try:
            broker = ByHand(str(store), clock)
            try:
                self._look(store, broker, history)
                self._go_on(broker, history)
                broker.keeper.look_at_all()
            finally:
                broker.close()
            again = ByHand(str(store), clock)
            try:
                if not again.engine.store.was_clean:
                    self.problems.append("it was not stopped cleanly")
                self._look(store, again, history)
            finally:
                again.close()
        except (KafkaError, OSError, RuntimeError, LookupError) as error:
            self.problems.append(f"{type(error).__name__}: {error}")
        return self

    def _look(self, store: Path, broker: ByHand, history: History) -> None:
        topics = broker.engine.cluster.topics
        for name, state in history.topics.items():
            if state != "maybe" and (name in topics) != (state == "there"):
                self.problems.append(f"topic {name} should be {state}")
        unknown = set(topics) - set(history.topics)
        if unknown:
            self.problems.append(f"topics that nobody made: {unknown}")
        strays = [name for name in os.listdir(store) if name.endswith("-stray")]
        if strays:
            self.problems.append(f"data that belongs to nobody: {strays}")
        for (name, partition), known in history.partitions.items():
            if name in topics:
                self._look_at(broker, name, partition, known)

    def _look_at(self, broker: ByHand, name: str, partition: int, known: _Partition) -> None:
        at = f"{name}-{partition}"
        log = broker.log_of(name, partition)
        if log.failed is not None:
            self.problems.append(f"{at}: {log.failed}")
        found = broker.read(name, partition)
        offsets = {number: offset for offset, number in found}
        for number, offset in known.must_be_there().items():
            if offsets.get(number) != offset:
                self.lost += 1
                self.problems.append(f"{at}: {number} is not at {offset}, but {found} is there")
        numbers = [number for _, number in found]
        self.duplicated += len(numbers) - len(set(numbers))
        self.reordered += sum(later < earlier for earlier, later in pairwise(numbers))
        unsent = [number for number in numbers if number not in known.sent]
        refused = [number for number in numbers if number in known.refused]
        if unsent or refused:
            self.problems.append(f"{at}: {unsent} were never sent, {refused} were refused")
        if log.log_start_offset < known.cut:
            self.problems.append(f"{at}: begins at {log.log_start_offset}, not at {known.cut}")

    def _go_on(self, broker: ByHand, history: History) -> None:
        """Send again what had no answer, and one more record to each partition."""
        topics = broker.engine.cluster.topics
        for name in TOPICS:
            if name not in topics:
                history.topics[name] = "maybe"
                history._creating(name, TOPICS[name][0])
                if broker.create(name)[0] == codes.NONE:
                    history._created(name, TOPICS[name][0])
        for number, ((name, partition), known) in enumerate(history.partitions.items()):
            broker.clock.advance(STEP_MS)
            if known.waiting is not None:
                self._send(broker, history, (name, partition), known.waiting)
            record = (1000 + number, "more", known.sequence)
            history._sending(name, partition, *record)
            self._send(broker, history, (name, partition), record)

    def _send(
        self, broker: ByHand, history: History, at: tuple[str, int], record: tuple[int, str, int]
    ) -> None:
        found = broker.send(at[0], [(at[1], *record)])[0]
        if found.error_code != codes.NONE:
            self.problems.append(f"{at} does not go on: {found.error_message}")
        else:
            history._stored(*at, record[0], found.base_offset)


# -- rows


def why_not() -> str:
    """Return why this machine cannot run it, or ""."""
    if not sys.platform.startswith("linux"):
        return "strace is Linux's"
    if shutil.which("strace") is None:
        return "there is no strace"
    probe = [sys.executable, "-c", ""]
    traced = subprocess.run(["strace", "-o", os.devnull, *probe], capture_output=True, check=False)
    if traced.returncode:
        return f"strace may trace nothing here: {traced.stderr.decode().strip()[:80]}"
    return ""


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Make a folder in memory where there is such a place: a kill needs no disk."""
    memory = "/dev/shm"
    where = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ottla-", dir=where) as folder:
        yield Path(folder)


def _sample(points: list[Point], count: int) -> list[Point]:
    """Return some of the points, evenly spread."""
    step = max(len(points) / count, 1.0)
    return [points[int(index * step)] for index in range(int(len(points) / step))]


def _note(row: Row, point: Point, history: History, judgement: Judgement) -> None:
    row.tried += 1
    row.acknowledged += history.acknowledged
    row.lost += judgement.lost
    row.duplicated += judgement.duplicated
    row.reordered += judgement.reordered
    row.bad += bool(judgement.problems)
    row.problems += [f"{point}: {problem}" for problem in judgement.problems]


def kill_at_each(runner: Runner, points: list[Point]) -> Row:
    """Kill the workload before each of some calls."""
    row = Row(KILL, exist=len(points))
    begin = time.monotonic()
    for point in points:
        told, status = runner.run(*_inject(point, "signal=SIGKILL"))
        if status != -signal.SIGKILL:
            row.problems.append(f"{point}: it was not killed")
            continue
        history = History(told)
        _note(row, point, history, Judgement().judge(runner.store, history))
    row.seconds = time.monotonic() - begin
    return row


def fail_each(runner: Runner, points: list[Point], what: str, error: str) -> Row:
    """Let each of some calls fail with an error."""
    row = Row(what, exist=len(points))
    begin = time.monotonic()
    for point in points:
        told, status = runner.run(*_inject(point, f"error={error}"))
        history = History(told)
        if status or told[-1] != ["done"]:
            history.crashed = history.crashed or f"it ended with {status}: {told[-1]}"
        history.after_failure += _confirmed_after(point, told)
        _note(row, point, history, Judgement().judge(runner.store, history))
    row.seconds = time.monotonic() - begin
    return row


def _confirmed_after(point: Point, told: list[list[Any]]) -> int:
    """Return how much was confirmed of a log after the sync of it that failed.

    A topic that is made again has another log; of the metadata nothing is confirmed any more.
    """
    folder, _, file = point.path.partition("/")
    if point.call != "fdatasync" or not file.endswith(".log"):
        return 0
    topic, _, partition = folder.rpartition("-")
    count = 0
    for kind, *rest in told[point.told :]:
        if topic == METADATA_TOPIC:
            count += kind in ("stored", "created", "deleted")
        elif kind == "created" and rest[0] == topic:
            break
        else:
            count += kind == "stored" and rest[:2] == [topic, int(partition)]
    return count


def _inject(point: Point, fault: str) -> list[str]:
    inject = f"inject={point.call}:{fault}:when={point.when}"
    return ["-o", os.devnull, "-e", f"trace={point.call}", "-e", inject]


def rows(full: bool) -> list[Row]:
    """Kill at each call, and let each call fail; only at some of them in the short form."""
    reason = why_not()
    if reason:
        return [Row(what, skipped=reason) for what in (KILL, *FAULTS)]
    with _scratch() as folder, Runner(folder) as runner:
        points = runner.points()
        writes = [point for point in points if point.call not in READS]
        found = [kill_at_each(runner, writes if full else _sample(writes, KILLS_SAMPLED))]
        for what, (error, calls) in FAULTS.items():
            failing = [point for point in points if point.call in calls]
            some = failing if full else _sample(failing, FAILURES_SAMPLED)
            found.append(fail_each(runner, some, what, error))
    return found
