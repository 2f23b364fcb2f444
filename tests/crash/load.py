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
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import confluent_kafka

from ottla import Admin, Consumer, Producer
from ottla.client import node
from ottla.errors import BrokerUnavailable, DeliveryError, KafkaError, OutcomeUnknown, Timeout
from tests.crash.history import FAIL, INFO, OK, Found, History, Place, Poll, Send

FLUSH_TIMEOUT_S = 30.0
RETRY_MS = 10
BACKOFF_MS = 50.0
"""How long clients wait at most before they connect again: less than usual, to hit more moments."""

_KEYS = 16
_BURST_MAX = 12
_POLL_S = 0.1
_MOMENT_S = 0.02
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


class Client(Protocol):
    """A producer, of whatever make."""

    def send(self, send: Send, told: Callable[[str, int], None]) -> None:
        """Send a record, and have `told` called with its outcome and its offset."""
        ...

    def poll(self) -> None:
        """Let it call what it has to, where it has no thread that does."""
        ...

    def flush(self) -> None:
        """Wait until everything has an outcome."""
        ...

    def close(self) -> None:
        """Let go of it, whatever has no outcome yet."""
        ...


class Ours:
    """A producer of ours."""

    def __init__(self, address: str, **settings: Any) -> None:
        self._producer = Producer(address, retry_backoff_ms=RETRY_MS, **settings)

    def send(self, send: Send, told: Callable[[str, int], None]) -> None:
        topic, partition = send.place

        def on_delivery(delivery: Any) -> None:
            if delivery.state == "stored":
                told(OK, -1 if delivery.offset is None else delivery.offset)
            else:
                told(INFO if isinstance(delivery.batch.error, OutcomeUnknown) else FAIL, -1)

        self._producer.send(
            topic, send.value, send.key, partition=partition, on_delivery=on_delivery
        )

    def poll(self) -> None:
        pass

    def flush(self) -> None:
        with suppress(DeliveryError):  # each record's outcome is told
            self._producer.flush(FLUSH_TIMEOUT_S)

    def close(self) -> None:
        with suppress(DeliveryError):
            self._producer.close(0)


class Librdkafka:
    """confluent-kafka's producer."""

    def __init__(self, address: str, **settings: Any) -> None:
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": address,
                "enable.idempotence": True,
                "reconnect.backoff.ms": RETRY_MS,
                "reconnect.backoff.max.ms": int(BACKOFF_MS),
                "retry.backoff.ms": RETRY_MS,
                "log_level": 0,
                **settings,
            }
        )

    def send(self, send: Send, told: Callable[[str, int], None]) -> None:
        topic, partition = send.place

        def on_delivery(error: Any, message: Any) -> None:
            if error is None:
                told(OK, message.offset())
            else:
                told(INFO, -1)

        self._producer.produce(
            topic, send.value, send.key, partition=partition, on_delivery=on_delivery
        )
        self._producer.poll(0)

    def poll(self) -> None:
        self._producer.poll(_MOMENT_S)

    def flush(self) -> None:
        self._producer.flush(FLUSH_TIMEOUT_S)

    def close(self) -> None:
        self._producer.purge()
        self._producer.flush(FLUSH_TIMEOUT_S)


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
                while not room.acquire(timeout=_MOMENT_S):
                    self.client.poll()
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
        self.client.flush()
        if self._untold:
            load.problems.append(f"{self.name}: {self._untold} sends without an outcome")

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
                load.ending.wait(_MOMENT_S)
                continue
            except KafkaError as error:
                load.problems.append(f"{self.name}: {error}")
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

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()


class Trimmer:
    """Deletes records from the beginning of some topics, and notes what was confirmed."""

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

    def close(self) -> None:
        """Let go of the connection."""
        self._admin.close()


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
    """

    def __init__(self, address: str, seed: int, *, with_librdkafka: bool = False) -> None:
        self.topics: list[Topic] = []
        self.ends: dict[Place, int] = {}
        self.ending = threading.Event()
        self.heard = threading.Event()
        self.doubted = threading.Event()
        self.doubts = 0
        self.problems: list[str] = []
        self._chance = random.Random(seed)
        self._address = address
        self._writers = _writers(address, with_librdkafka)
        self._strict = Reader(address, "strict", "none")
        self._lenient = Reader(address, "lenient", "earliest")
        self._trimmer = Trimmer(address)
        self._threads: list[threading.Thread] = []
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
            self._run(writer.run, self, random.Random(self._chance.random()), sends)
        self._run(self._strict.run, self, whole, self._polls[0])
        if short:
            self._run(self._lenient.run, self, short, self._polls[1])
        if trimmed:
            self._run(self._trimmer.run, self, random.Random(self._chance.random()), trimmed)

    def _run(self, what: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            try:
                what(*arguments)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                self.problems.append(f"{what}: {error!r} at {where.filename}:{where.lineno}")

        thread = threading.Thread(target=run, name=str(what), daemon=True)
        self._threads.append(thread)
        thread.start()

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
        for thread in self._threads:
            thread.join(2 * FLUSH_TIMEOUT_S)
            if thread.is_alive():
                self.problems.append(f"{thread.name} hangs")
        self._threads.clear()
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
            for record in consumer:
                place = (record.topic, record.partition)
                found = Found(record.offset, record.value or b"", record.key)
                history.at_end[place].append(found)
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
        """Let go of all clients, whatever they are doing."""
        self.ending.set()
        for writer in self._writers:
            writer.client.close()
        for each in (self._strict, self._lenient, self._trimmer):
            each.close()


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
