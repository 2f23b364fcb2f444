"""A broker without threads, sockets or real time, and whoever asks it and notes what it promises.

Requests go to the handlers as objects, rounds of syncs are run by hand, and the housekeeper's and
the cleaner's tasks are called. What is promised is noted in the very moment in which the answer is
there, before the broker does anything else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from ottla.broker.apis import APIS
from ottla.broker.cleaner import Cleaner
from ottla.broker.engine import Engine
from ottla.broker.housekeeper import Housekeeper
from ottla.broker.requests import CloseConnection, Context, Pending
from ottla.broker.router import handle
from ottla.clock import ManualClock
from ottla.errors import KafkaError, codes
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_00_produce import ProduceRequest
from ottla.protocol.messages.api_01_fetch import FetchRequest
from ottla.protocol.messages.api_22_init_producer_id import InitProducerIdRequest
from ottla.records.batch import iterate_headers, iterate_records, read_header
from ottla.records.builder import BatchBuilder
from tests.crash.faulty_files import FaultyFiles
from tests.crash.promises import Batch, Book, Partition, Sent

STORE = "store"
NOW_MS = 1_700_000_000_000

Found = tuple[int, int, Sent]
"""A record that was found: its offset, its number, and what it is."""


class Life:
    """One life of a broker: from a start to its end.

    Args:
        files: where its store is.
        clock: its time.
        book: what it promises is noted here.

    Raises:
        KafkaError: it does not start.
    """

    def __init__(self, files: FaultyFiles, clock: ManualClock, book: Book) -> None:
        files.begin_life()
        self.path: str | None = STORE
        self.files = files
        self.clock = clock
        self.book = book
        self.engine = Engine.open(files, STORE, clock)
        self.housekeeper = Housekeeper(self)
        self.cleaner = Cleaner(self.engine)

    # -- what the housekeeper needs

    def wake(self) -> None:
        pass

    def drive(self, timeout_s: float) -> None:
        running = self.engine.commit.begin()
        if running is not None:
            self.engine.commit.end(running.run())

    def promise(self) -> None:
        """Note that a change of the metadata was promised."""
        self.book.promise(f"{STORE}/__cluster_metadata-0", self.files.failed)

    # -- asking

    def rounds(self) -> None:
        """Run rounds of syncs until nothing waits."""
        while self.engine.commit.is_waiting:
            self.drive(0)

    def ask_nowait(
        self, request: ApiMessage, answered: Callable[[Any], None], version: int | None = None
    ) -> None:
        """Ask; `answered` is called with the response, or None where there is none."""
        at = APIS[request.API_KEY].max_version if version is None else version
        try:
            reply = handle(self.engine, request, at, Context())
        except CloseConnection as error:
            if error.__cause__ is not None:
                raise error.__cause__ from None  # what the handler did not expect
            reply = None
        if isinstance(reply, Pending):
            reply.when_done(answered)
        else:
            answered(reply)

    def ask(self, request: ApiMessage, version: int | None = None) -> Any:
        """Ask, and return the response, or None where there was none."""
        answers: list[Any] = []
        self.ask_nowait(request, answers.append, version)
        self.rounds()
        return answers[0] if answers else None

    def tidy(self) -> None:
        """Do what the housekeeper does when it is woken."""
        self.engine.remove_files()
        self.housekeeper.heal()

    def guarded(self, task: Callable[[], object]) -> None:
        """Run a task as the broker's threads do: what fails is tried again another time."""
        with contextlib.suppress(KafkaError):
            task()

    # -- producing

    def produce_nowait(
        self, topic_id: bytes, number: int, data: bytes, *, told: Callable[[int, int], None]
    ) -> None:
        """Send one batch; `told` is called with the error code and the base offset."""
        partition = self.book.topics[topic_id].partitions[number]
        for serial, sent in records_in(data):
            partition.sent[serial] = sent
            if sent.producer_id >= 0:
                partition.owed[sent.producer_id] = data
        self.book.changed()

        def answered(response: Any) -> None:
            if response is None:
                told(codes.UNKNOWN_SERVER_ERROR, -1)
                return
            found = response.responses[0].partition_responses[0]
            if found.error_code == codes.NONE:
                _note_stored(partition, data, found.base_offset)
                name = self.book.topics[topic_id].name
                self.book.promise(f"{STORE}/{name}-{number}", self.files.failed)
            told(found.error_code, found.base_offset)

        asked = ProduceRequest.PartitionProduceData(index=number, records=data)
        topic = ProduceRequest.TopicProduceData(topic_id=topic_id, partition_data=[asked])
        request = ProduceRequest(acks=-1, timeout_ms=1000, topic_data=[topic])
        self.ask_nowait(request, answered)

    def produce(self, topic_id: bytes, number: int, data: bytes) -> tuple[int, int]:
        """Send one batch, and return the error code and the base offset."""
        results: list[tuple[int, int]] = []
        self.produce_nowait(
            topic_id, number, data, told=lambda error, offset: results.append((error, offset))
        )
        self.rounds()
        return results[0] if results else (codes.REQUEST_TIMED_OUT, -1)

    def producer_id(self) -> int:
        """Ask for a producer id, and return it, or -1."""
        found = [-1]

        def answered(response: Any) -> None:
            if response is not None and response.error_code == codes.NONE:
                found[0] = response.producer_id
                self.book.producer_ids.add(found[0])
                self.promise()

        request = InitProducerIdRequest(transactional_id=None, producer_id=-1, producer_epoch=-1)
        self.ask_nowait(request, answered)
        self.rounds()
        return found[0]

    # -- fetching

    def fetch(self, topic_id: bytes, number: int, offset: int) -> Any:
        """Fetch once without waiting, and return what is answered for the partition."""
        asked = FetchRequest.FetchPartition(
            partition=number, fetch_offset=offset, partition_max_bytes=1 << 20
        )
        topics = [FetchRequest.FetchTopic(topic_id=topic_id, partitions=[asked])]
        response = self.ask(FetchRequest(max_bytes=1 << 20, min_bytes=0, topics=topics))
        return response.responses[0].partitions[0]

    def read(self, topic_id: bytes, number: int) -> tuple[int, int, int, list[Found]]:
        """Read a partition; return error code, log start, high watermark and the records."""
        log = self.engine.log_of(self.engine.cluster.topics_by_id[topic_id].name, number)
        at = 0 if log is None else log.log_start_offset
        found: list[Found] = []
        while True:
            answer = self.fetch(topic_id, number, at)
            if answer.error_code != codes.NONE or not answer.records:
                start, end = answer.log_start_offset, answer.high_watermark
                return answer.error_code, start, end, found
            more = records_of(answer.records)
            found += [each for each in more if each[0] >= at]
            at = max(header.last_offset for header in iterate_headers(answer.records)) + 1

    def show(self, topic_id: bytes, number: int) -> None:
        """Read a partition, and note what was seen: it must never be taken back."""
        partition = self.book.topics[topic_id].partitions[number]
        error, _, end, found = self.read(topic_id, number)
        if error == codes.NONE and partition.is_durable:
            partition.shown = max(partition.shown, end)
            partition.seen.update({offset: serial for offset, serial, _ in found})
            self.book.changed()


def _note_stored(partition: Partition, data: bytes, base_offset: int) -> None:
    header = read_header(data)
    for index, (serial, _) in enumerate(records_in(data)):
        partition.confirmed += 1
        if partition.is_durable:
            partition.stored[base_offset + index] = serial
    if header.producer_id >= 0:
        partition.owed.pop(header.producer_id, None)
        batch = Batch(data, header.producer_id, base_offset, partition.is_durable)
        partition.batches = [each for each in partition.batches if each.data != data] + [batch]


def _records(data: Any, header: Any) -> list[Found]:
    return [
        (
            each.offset,
            int(each.headers[0][1] or b"0"),
            Sent(each.key, each.value, header.producer_id),
        )
        for each in iterate_records(data, header)
    ]


def records_of(data: bytes) -> list[Found]:
    """Return the records of batches that were fetched."""
    return [each for header in iterate_headers(data) for each in _records(data, header)]


def records_in(data: bytes) -> list[tuple[int, Sent]]:
    """Return the records of a batch with their numbers."""
    return [(serial, sent) for _, serial, sent in _records(data, read_header(data))]


def batch(
    first: int,
    records: Sequence[Sent],
    *,
    timestamp_ms: int,
    codec: int = 0,
    producer: tuple[int, int, int] = (-1, -1, -1),
) -> bytes:
    """Build a batch whose records are numbered from `first` on.

    Args:
        first: the first number.
        records: the records.
        timestamp_ms: the time of all of them.
        codec: how it is compressed.
        producer: producer id, epoch and base sequence.
    """
    builder = BatchBuilder()
    for index, sent in enumerate(records):
        headers = [("n", b"%d" % (first + index))]
        builder.append(timestamp_ms, sent.key, sent.value, headers, 1 << 30)
    return bytes(builder.build(codec, None, *producer))
