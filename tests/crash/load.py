"""Producers and consumers that go on through whatever happens to their broker.

They live in the supervisor's process, and so does what they note: nothing of it is in the store.
Several producers with other settings each, one of them librdkafka's where that is asked for, write
to all topics; consumers read what is stored at once; and one who deletes records moves the start of
some topics. `begin` sets them going on some topics, `end` has everything settled and returns what
was seen.

A producer's values of one partition are numbered, and unique in it.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ottla import Admin, Consumer
from ottla.client import node
from ottla.errors import BrokerUnavailable, KafkaError, KafkaStorageError, Timeout
from tests.crash.clients import (
    BACKOFF_MS,
    FLUSH_TIMEOUT_S,
    MOMENT_S,
    RETRY_MS,
    Client,
    Librdkafka,
    Ours,
)
from tests.crash.history import INFO, OK, Found, History, Place, Poll, Send

END_TIMEOUT_S = 2 * FLUSH_TIMEOUT_S
"""How long all together may take to end: whoever is not done by then hangs."""

_CLOSE_TIMEOUT_S = 30.0
_KEYS = 16
_BURST_MAX = 12
_POLL_S = 0.1
_TRIM_EVERY_S = 0.05


@dataclass(frozen=True)
class Topic:
    """A topic to be written to.

    Attributes:
        name: its name.
        partitions: how many it has.
        configs: its configs.
        loses_start: whether retention removes its beginning.
        is_trimmed: whether records are deleted from it by request.
        is_weak: whether a power cut may take its tail.
    """

    name: str
    partitions: int
    configs: Mapping[str, str]
    loses_start: bool = False
    is_trimmed: bool = False
    is_weak: bool = False

    @property
    def is_compacted(self) -> bool:
        """Whether it is compacted."""
        return self.configs.get("cleanup.policy") == "compact"

    @property
    def places(self) -> list[Place]:
        """Its partitions."""
        return [(self.name, partition) for partition in range(self.partitions)]


class Writer:
    """Writes to all of some partitions, in a thread for each stretch of work.

    Args:
        client: what it sends with.
        name: what its values begin with.
        window: how many sends may be without an outcome.
        flush_every: after how many sends it waits for all of them; 0 for never.
        size: how large values become.
    """

    def __init__(
        self, client: Client, name: str, window: int, *, flush_every: int = 0, size: int = 150
    ) -> None:
        self.client = client
        self.name = name
        self._window = window
        self._flush_every = flush_every
        self._size = size
        self._numbers: dict[Place, Iterator[int]] = defaultdict(itertools.count)
        self._untold = 0
        self._guard = threading.Lock()

    def run(self, load: Load, chance: random.Random, sends: list[Send]) -> None:
        """Write until the load is to end, and wait for the outcome of everything."""
        room = threading.Semaphore(self._window)
        places = [place for topic in load.topics for place in topic.places]
        compacted = {topic.name for topic in load.topics if topic.is_compacted}
        unflushed = 0
        while not load.ending.is_set():
            place = chance.choice(places)
            for _ in range(chance.randint(1, _BURST_MAX)):
                while not room.acquire(timeout=MOMENT_S):
                    self.client.poll()
                    if load.ending.is_set():
                        return self._settle(load)
                key = b"%d" % chance.randrange(_KEYS) if place[0] in compacted else None
                send = Send(self.name, place, self._value(place, chance), key)
                sends.append(send)
                with self._guard:
                    self._untold += 1
                self.client.send(send, self._teller(load, send, room))
                unflushed += 1
                if self._flush_every and unflushed >= self._flush_every:
                    self.client.flush()
                    unflushed = 0
        return self._settle(load)

    def _settle(self, load: Load) -> None:
        self.client.flush()
        if self._untold:
            load.complain(self, f"{self._untold} sends without an outcome")

    def abandon(self) -> None:
        """Have `run` end soon, without the outcome of everything."""
        self.client.abandon()

    def close(self) -> None:
        """Let go of the client; nobody may be in `run`."""
        self.client.close()

    def _value(self, place: Place, chance: random.Random) -> bytes:
        value = b"%s %d %d " % (self.name.encode(), place[1], next(self._numbers[place]))
        return value.ljust(chance.randint(1, self._size), b".")

    def _teller(
        self, load: Load, send: Send, room: threading.Semaphore
    ) -> Callable[[str, int], None]:
        def told(outcome: str, offset: int) -> None:
            if outcome == OK and load.doubted.is_set():
                outcome, offset = INFO, -1
            send.offset = offset
            send.outcome = outcome
            with self._guard:
                self._untold -= 1
            room.release()
            if outcome == OK:
                load.heard.set()

        return told


class Reader:
    """Reads some partitions while they are written.

    Args:
        address: the broker.
        name: what it is called in the history.
        auto_offset_reset: where it goes on when its position is gone: "none" where it cannot be.
    """

    def __init__(self, address: str, name: str, auto_offset_reset: str) -> None:
        self.name = name
        self._consumer = Consumer(
            address,
            auto_offset_reset=auto_offset_reset,
            retry_backoff_ms=RETRY_MS,
            fetch_max_wait_ms=int(_POLL_S * 1000),
        )

    def run(self, load: Load, places: list[Place], polls: list[Poll]) -> None:
        """Read until the load is to end."""
        self._consumer.assign(places)
        doubts = load.doubts
        while not load.ending.is_set():
            if doubts != load.doubts:
                doubts = load.doubts
                for place in places:
                    self._consumer.seek(*place, load.ends.get(place, 0))
            try:
                records = self._consumer.poll(_POLL_S)
            except (BrokerUnavailable, Timeout):
                load.ending.wait(MOMENT_S)
                continue
            except KafkaError as error:
                load.complain(self, str(error))
                return
            if load.doubted.is_set() or doubts != load.doubts:
                continue
            found: dict[Place, list[Found]] = defaultdict(list)
            for record in records:
                place = (record.topic, record.partition)
                found[place].append(Found(record.offset, record.value or b"", record.key))
            for place, some in found.items():
                polls.append(Poll(f"{self.name} {doubts}", place, some))
                load.ends[place] = some[-1].offset + 1

    def abandon(self) -> None:
        """Have `run` end soon: it does anyway."""

    def close(self) -> None:
        """Let go of the connection; nobody may be in `run`."""
        self._consumer.close()


class Trimmer:
    """Deletes records from the beginning of some topics, and notes what was confirmed."""

    name = "trimmer"

    def __init__(self, address: str) -> None:
        self._admin = Admin(address, timeout=5.0, retry_backoff_ms=RETRY_MS)
        self.confirmed: dict[Place, int] = {}
        self.asked: dict[Place, int] = {}

    def run(self, load: Load, chance: random.Random, places: list[Place]) -> None:
        """Delete now and then until the load is to end."""
        while not load.ending.wait(_TRIM_EVERY_S):
            place = chance.choice(places)
            asked = self.asked.get(place, 0)
            offset = chance.randint(asked, max(asked, load.ends.get(place, 0)))
            self.asked[place] = offset
            try:
                start = self._admin.delete_records(*place, offset)
            except KafkaError:
                continue  # it may have been done
            if not load.doubted.is_set():
                self.confirmed[place] = max(self.confirmed.get(place, 0), start)

    def abandon(self) -> None:
        """Have `run` end soon: it does anyway."""

    def close(self) -> None:
        """Let go of the connection; nobody may be in `run`."""
        self._admin.close()


Worker = Writer | Reader | Trimmer


class Load:
    """All of them.

    Args:
        address: the broker.
        seed: where chance begins.
        with_librdkafka: whether a producer of librdkafka's is among them.

    Attributes:
        topics: what is written to.
        ends: where consumers have come to.
        ending: set when everybody is to stop.
        heard: set whenever something is acknowledged.
        doubted: set while nothing counts that is told; see `doubt`.
        doubts: how often it was.
        problems: what should not have happened, in words.
        hangs: whether somebody did not end, and nothing may begin any more.
    """

    def __init__(self, address: str, seed: int, *, with_librdkafka: bool = False) -> None:
        self.topics: list[Topic] = []
        self.ends: dict[Place, int] = {}
        self.ending = threading.Event()
        self.heard = threading.Event()
        self.doubted = threading.Event()
        self.doubts = 0
        self.problems: list[str] = []
        self.hangs = False
        self._chance = random.Random(seed)
        self._address = address
        self._writers = _writers(address, with_librdkafka)
        self._strict = Reader(address, "strict", "none")
        self._lenient = Reader(address, "lenient", "earliest")
        self._trimmer = Trimmer(address)
        self._threads: dict[Worker, threading.Thread] = {}
        self._abandoned: set[Worker] = set()
        self._sends: list[list[Send]] = []
        self._polls: list[list[Poll]] = []

    def begin(self, topics: list[Topic]) -> None:
        """Create topics, and begin to write and read them."""
        with Admin(self._address) as admin:
            for topic in topics:
                admin.create_topic(topic.name, topic.partitions, configs=topic.configs)
        self.topics = topics
        self.ends = {}
        self.ending.clear()
        self._sends = [[] for _ in self._writers]
        self._polls = [[], []]
        moving = [each for each in topics if each.loses_start or each.is_trimmed or each.is_weak]
        whole = [place for topic in topics if topic not in moving for place in topic.places]
        short = [place for topic in moving for place in topic.places]
        trimmed = [place for topic in topics if topic.is_trimmed for place in topic.places]
        for writer, sends in zip(self._writers, self._sends, strict=True):
            self._run(writer, writer.run, self, random.Random(self._chance.random()), sends)
        self._run(self._strict, self._strict.run, self, whole, self._polls[0])
        if short:
            self._run(self._lenient, self._lenient.run, self, short, self._polls[1])
        if trimmed:
            chance = random.Random(self._chance.random())
            self._run(self._trimmer, self._trimmer.run, self, chance, trimmed)

    def _run(self, who: Worker, run: Callable[..., None], *arguments: object) -> None:
        def run_and_tell() -> None:
            try:
                run(*arguments)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                self.complain(who, f"{error!r} at {where.filename}:{where.lineno}")

        thread = threading.Thread(target=run_and_tell, name=who.name, daemon=True)
        self._threads[who] = thread
        thread.start()

    def _join(self, timeout_s: float) -> bool:
        """Wait until all have ended; tells of those that have not, and whether there are none."""
        deadline = time.monotonic() + timeout_s
        for who, thread in list(self._threads.items()):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self.problems.append(f"{who.name} hangs{_where(thread)}")
            else:
                del self._threads[who]
        return not self._threads

    def complain(self, who: Worker, problem: str) -> None:
        """Take note of a problem, but not of what comes of being abandoned."""
        if who not in self._abandoned:
            self.problems.append(f"{who.name}: {problem}")

    def wait_for_an_answer(self, timeout_s: float) -> bool:
        """Wait until something more is acknowledged."""
        self.heard.clear()
        return self.heard.wait(timeout_s)

    def doubt(self) -> None:
        """Count nothing that is told from now on: what tells it may not know any better."""
        self.doubted.set()

    def trust(self) -> None:
        """Count what is told again; consumers go back to where they were before."""
        self.doubts += 1
        self.doubted.clear()

    def end(self) -> History:
        """Stop, with the outcome of everything known, and return what was seen.

        The broker must be serving, and what is there at the end is not in the history yet.
        """
        self.ending.set()
        self.hangs = not self._join(END_TIMEOUT_S)
        return History(
            list(itertools.chain(*self._sends)),
            list(itertools.chain(*self._polls)),
            compacted={topic.name for topic in self.topics if topic.is_compacted},
            weak={topic.name for topic in self.topics if topic.is_weak},
        )

    def read_to_the_end(self, history: History) -> None:
        """Read everything that is there, and judge where partitions begin."""
        names = [topic.name for topic in self.topics]
        for topic in self.topics:
            for place in topic.places:
                history.at_end[place] = []
        with Consumer(self._address, *names, stop_at_end=True) as consumer:
            try:
                for record in consumer:
                    place = (record.topic, record.partition)
                    found = Found(record.offset, record.value or b"", record.key)
                    history.at_end[place].append(found)
            except KafkaStorageError as error:  # what was not read counts as lost
                self.problems.append(f"not everything can be read: {error}")
            # Retention goes on: what was gone before it was read is before these.
            starts = {tuple(where): at for where, at in consumer.beginning_offsets().items()}
        told: dict[Place, int] = defaultdict(lambda: -1)
        for send in history.sends:
            told[send.place] = max(told[send.place], send.offset)
        for topic in self.topics:
            for place in topic.places:
                history.starts[place] = starts[place]
                self._judge_start(topic, place, history.starts[place], told[place])

    def _judge_start(self, topic: Topic, place: Place, start: int, told: int) -> None:
        least, most = 0, 0
        if topic.loses_start:
            most = max(told, 0)  # the last records are never too old or too many
        elif topic.is_trimmed:
            least, most = self._trimmer.confirmed.get(place, 0), self._trimmer.asked.get(place, 0)
        if not least <= start <= most:
            self.problems.append(f"{place} begins at {start}, not between {least} and {most}")

    def close(self) -> None:
        """Let go of all clients, whatever they are doing; it does not hang, whatever they do.

        One that a thread is still in stays open, which is a problem: with librdkafka's, a second
        thread may wait for ever for what the first one holds.
        """
        self.ending.set()
        self._abandoned.update(self._threads)
        for who in self._abandoned:
            threading.Thread(target=who.abandon, daemon=True).start()
        self.hangs |= not self._join(_CLOSE_TIMEOUT_S)
        hanging, self._threads = self._threads, {}
        workers: list[Worker] = [*self._writers, self._strict, self._lenient, self._trimmer]
        for each in workers:
            if each not in hanging:
                self._run(each, each.close)
        self.hangs |= not self._join(END_TIMEOUT_S)


def _where(thread: threading.Thread) -> str:
    """Tell where a thread is."""
    frame = sys._current_frames().get(thread.ident or 0)
    stack = traceback.extract_stack(frame) if frame is not None else []
    return "".join(f", {each.name} ({Path(each.filename).name}:{each.lineno})" for each in stack)


def _writers(address: str, with_librdkafka: bool) -> list[Writer]:
    writers = [
        Writer(Ours(address), "stream", 300),
        # One record is a batch, and five of them are on their way to a partition.
        Writer(Ours(address, linger_ms=0, batch_size=1), "single", 40),
        Writer(Ours(address, linger_ms=20, compression_type="lz4"), "lz4", 300, size=400),
        Writer(Ours(address, linger_ms=50), "flushing", 300, flush_every=5),
        Writer(Ours(address, batch_size=20_000, compression_type="zstd"), "large", 30, size=8_000),
        Writer(Ours(address, linger_ms=0, delivery_timeout_ms=200), "impatient", 20),
    ]
    if with_librdkafka:
        settings = {"linger.ms": 1, "batch.num.messages": 3}
        writers.append(Writer(Librdkafka(address, **settings), "librdkafka", 60))
    return writers


@contextmanager
def connecting_soon() -> Iterator[None]:
    """Have our clients connect again soon after a broker was gone."""
    before = node._BACKOFF_MS, node._BACKOFF_MS_MAX
    node._BACKOFF_MS = node._BACKOFF_MS_MAX = BACKOFF_MS
    try:
        yield
    finally:
        node._BACKOFF_MS, node._BACKOFF_MS_MAX = before
