"""One scripted workload that comes by everything that a store writes.

Three lives of a broker: the first from an empty disk to a clean stop, the second to an end without
one, and the third, which starts with a check, to a clean stop again. They create topics and delete
them, one under its old name; add partitions and change configs; send with idempotent producers and
without, with all codecs, to topics that are durable and to one that is not; roll segments, save
recovery points, let records go by size, by age and by DeleteRecords, compact, and come through a
full disk.

It is the same in each run: no threads, no real time, nothing by chance. A run in which something
is refused goes on as a client would: what was refused is sent again before anything else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from ottla.broker.engine import Outcome
from ottla.clock import ManualClock
from ottla.coordinator.cluster.state import TOPIC_RESOURCE
from ottla.coordinator.cluster.state import Topic as ClusterTopic
from ottla.errors import KafkaError, StorageError, codes
from ottla.log import checkpoints
from ottla.protocol.messages.api_20_delete_topics import DeleteTopicsRequest
from ottla.protocol.messages.api_21_delete_records import DeleteRecordsRequest
from ottla.protocol.messages.api_37_create_partitions import CreatePartitionsRequest
from ottla.protocol.messages.api_44_incremental_alter_configs import (
    IncrementalAlterConfigsRequest,
)
from tests.crash.faulty_files import FaultyFiles
from tests.crash.lives import NOW_MS, Life, batch
from tests.crash.promises import Book, Partition, Sent, Topic

_SECOND_MS = 1000
_DAY_MS = 24 * 3600 * 1000


@contextlib.contextmanager
def steady_uuids() -> Iterator[None]:
    """Make uuids count, so that every run is the same."""
    count = iter(range(1, 1 << 30))

    def new_uuid() -> bytes:
        return b"uuid" + next(count).to_bytes(12, "big")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "new_uuid", new_uuid)
        yield


class Producer:
    """An idempotent producer: what is refused is sent again before anything else."""

    def __init__(self, producer_id: int) -> None:
        self.producer_id = producer_id
        self.sequences: dict[tuple[bytes, int], int] = {}
        self.owed: dict[tuple[bytes, int], bytes] = {}


class Workload:
    """A run.

    Args:
        files: where the store is.

    Attributes:
        book: what was promised.
        clock: the time.
        refused: the batches that were refused: their topics, and the error codes.
        life: the broker; None where it does not run.
    """

    def __init__(self, files: FaultyFiles) -> None:
        self.files = files
        self.book = Book()
        self.clock = ManualClock(NOW_MS)
        self.life: Life | None = None
        self.refused: list[tuple[str, int]] = []
        self._serial = 0
        self._ids: dict[str, bytes] = {}
        self._producers: list[Producer] = []

    def run(self) -> None:
        """Run all of it."""
        with steady_uuids():
            self._start()
            self._create_all()
            self._send_first()
            self._remove_records()
            self._compact()
            self._change_topics()
            self._fill_disk()
            self._stop()
            self._start()
            self._second_life()
            self._kill()
            self._start()
            self._third_life()
            self._stop()

    # -- lives

    def _start(self) -> None:
        """Start the broker; where it does not start it is tried once more."""
        try:
            self.life = Life(self.files, self.clock, self.book)
        except KafkaError:
            self.life = Life(self.files, self.clock, self.book)
        self.life.guarded(self.life.housekeeper.look_at_all)

    def _stop(self) -> None:
        if self.life is not None:
            self.life.guarded(self.life.engine.close)
        self.life = None

    def _kill(self) -> None:
        """End it without a word; what was written stays written, and is as durable as it was."""
        self.life = None

    # -- topics

    def _note_outcome(self, life: Life, outcome: Outcome, topic: Topic, what: str) -> None:
        """Note that a change of the metadata was confirmed, when that is so."""
        if outcome.error != codes.NONE:
            return

        def stored(error: StorageError | None) -> None:
            if error is None:
                setattr(topic, what, True)
                life.promise()

        life.engine.metadata.when_stored(stored)

    def _create(self, name: str, partitions: int, **configs: str) -> None:
        life = self.life
        if life is None:
            return
        dotted = {key.replace("_", "."): value for key, value in configs.items()}
        outcome = life.engine.create_topic(name, partitions, dotted)
        found = life.engine.cluster.topics.get(name)
        if outcome.error != codes.NONE or found is None:
            return
        topic = self.book.topics[found.topic_id] = Topic(
            name,
            partitions={number: _partition(dotted) for number in range(partitions)},
            partitions_min=partitions,
            partitions_max=partitions,
            configs={key: _only(value) for key, value in dotted.items()},
        )
        self._ids[name] = found.topic_id
        self.book.changed()
        self._note_outcome(life, outcome, topic, "is_created")

    def _create_all(self) -> None:
        small = {"segment_bytes": "700", "index_interval_bytes": "150"}
        self._create("plain", 2, **small)
        self._create("loose", 1, **small, ottla_durability="os")
        self._create("keyed", 1, **small, cleanup_policy="compact", delete_retention_ms="1000")
        self._create("aged", 1, **small, retention_bytes="1500")
        self._create("doomed", 1, **small)
        self._rounds()
        for _ in range(2):
            if self.life is not None:
                producer_id = self.life.producer_id()
                if producer_id >= 0:
                    self._producers.append(Producer(producer_id))

    def _topic(self, name: str, number: int = 0) -> tuple[bytes, Topic, ClusterTopic] | None:
        """Return a topic where it is there now, and has such a partition."""
        topic_id = self._ids.get(name)
        if self.life is None or topic_id is None:
            return None
        found = self.life.engine.cluster.topics_by_id.get(topic_id)
        topic = self.book.topics[topic_id]
        if found is None or number not in topic.partitions:
            return None
        return topic_id, topic, found

    def _delete_topic(self, name: str) -> None:
        found = self._topic(name)
        if found is None or self.life is None:
            return
        topic, life = found[1], self.life
        topic.is_deletion_asked = True
        self.book.changed()

        def answered(response: Any) -> None:
            if response is not None and response.responses[0].error_code == codes.NONE:
                topic.is_deleted = True
                life.promise()

        asked = DeleteTopicsRequest.DeleteTopicState(name=name)
        self.life.ask_nowait(DeleteTopicsRequest(topics=[asked], timeout_ms=1000), answered)
        self.life.guarded(self.life.engine.remove_files)  # the housekeeper may come at any time

    def _add_partitions(self, name: str, count: int) -> None:
        found = self._topic(name)
        if found is None or self.life is None:
            return
        topic, life = found[1], self.life
        topic.partitions_max = count
        for number in range(count):
            topic.partitions.setdefault(number, _partition({}))
        self.book.changed()

        def answered(response: Any) -> None:
            if response is not None and response.results[0].error_code == codes.NONE:
                topic.partitions_min = count
                life.promise()

        asked = CreatePartitionsRequest.CreatePartitionsTopic(
            name=name, count=count, assignments=None
        )
        self.life.ask_nowait(CreatePartitionsRequest(topics=[asked], timeout_ms=1000), answered)

    def _configure(self, name: str, config: str, value: str) -> None:
        found = self._topic(name)
        if found is None or self.life is None:
            return
        topic, life = found[1], self.life
        topic.configs.setdefault(config, {None}).add(value)
        self.book.changed()

        def answered(response: Any) -> None:
            if response is not None and response.responses[0].error_code == codes.NONE:
                topic.configs[config] = _only(value)
                life.promise()

        change = IncrementalAlterConfigsRequest.AlterableConfig(name=config, value=value)
        resource = IncrementalAlterConfigsRequest.AlterConfigsResource(
            resource_type=TOPIC_RESOURCE, resource_name=name, configs=[change]
        )
        request = IncrementalAlterConfigsRequest(resources=[resource])
        self.life.ask_nowait(request, answered)

    # -- records

    def _rounds(self) -> None:
        if self.life is not None:
            self.life.rounds()
            self.life.guarded(self.life.tidy)

    def _records(self, count: int, key: str | None, size: int) -> tuple[int, list[Sent]]:
        first = self._serial
        self._serial += count
        values = [b"%06d" % number + bytes(size) for number in range(first, self._serial)]
        return first, [Sent(key.encode() if key else None, value) for value in values]

    def _note_refused(self, name: str, error: int, offset: int = -1) -> None:
        if error != codes.NONE:
            self.refused.append((name, error))

    def _send(
        self, name: str, number: int = 0, *, count: int = 2, codec: int = 0, key: str | None = None
    ) -> None:
        """Send a batch without a producer id; nothing is synced."""
        found = self._topic(name, number)
        if found is not None and self.life is not None:
            first, records = self._records(count, key, 20)
            data = batch(first, records, timestamp_ms=self.clock.now_ms(), codec=codec)
            self.life.produce_nowait(found[0], number, data, told=partial(self._note_refused, name))

    def _send_tombstone(self, name: str, key: str) -> None:
        found = self._topic(name)
        if found is not None and self.life is not None:
            first, _ = self._records(1, None, 0)
            records = [Sent(key.encode(), None)]
            data = batch(first, records, timestamp_ms=self.clock.now_ms())
            self.life.produce_nowait(found[0], 0, data, told=partial(self._note_refused, name))

    def _send_in_order(self, which: int, name: str, number: int = 0, *, codec: int = 0) -> None:
        """Send a batch of an idempotent producer; nothing is synced."""
        found = self._topic(name, number)
        if found is None or self.life is None or which >= len(self._producers):
            return
        topic_id, producer = found[0], self._producers[which]
        where = (topic_id, number)
        data = producer.owed.get(where)
        if data is None:
            first, records = self._records(2, f"p{which}", 20)
            sequence = producer.sequences.get(where, 0)
            data = batch(
                first,
                [record._replace(producer_id=producer.producer_id) for record in records],
                timestamp_ms=self.clock.now_ms(),
                codec=codec,
                producer=(producer.producer_id, 0, sequence),
            )
            producer.owed[where] = data

        def told(error: int, offset: int) -> None:
            self._note_refused(name, error)
            if error == codes.NONE and producer.owed.pop(where, None) is not None:
                producer.sequences[where] = producer.sequences.get(where, 0) + 2

        self.life.produce_nowait(topic_id, number, data, told=told)

    def _show(self, *names: str) -> None:
        """Let readers see topics."""
        for name in names:
            found = self._topic(name)
            if found is not None and self.life is not None:
                for number in range(found[2].partitions):
                    self.life.show(found[0], number)

    def _delete_records(self, name: str, number: int, offset: int) -> None:
        found = self._topic(name, number)
        if found is None or self.life is None:
            return
        partition = found[1].partitions[number]
        log = self.life.engine.log_of(name, number)
        end = 0 if log is None else log.high_watermark
        partition.start_max = max(partition.start_max, end if offset < 0 else min(offset, end))
        self.book.changed()

        def answered(response: Any) -> None:
            result = None if response is None else response.topics[0].partitions[0]
            if result is not None and result.error_code == codes.NONE:
                partition.start = max(partition.start, result.low_watermark)
                self.book.changed()

        asked = DeleteRecordsRequest.DeleteRecordsPartition(partition_index=number, offset=offset)
        topic = DeleteRecordsRequest.DeleteRecordsTopic(name=name, partitions=[asked])
        self.life.ask_nowait(DeleteRecordsRequest(topics=[topic], timeout_ms=1000), answered)
        self._rounds()

    def _let_go(self, name: str) -> None:
        """Note that retention may remove what is there now."""
        found = self._topic(name)
        if found is None or self.life is None:
            return
        log = self.life.engine.log_of(name, 0)
        if log is not None:
            partition = found[1].partitions[0]
            partition.start_max = max(partition.start_max, log.log_end_offset)
            self.book.changed()

    # -- the script

    def _housekeep(self, *tasks: str) -> None:
        """Call tasks of the housekeeper."""
        for task in tasks:
            if self.life is not None:
                self.life.guarded(getattr(self.life.housekeeper, task))
                self._rounds()

    def _send_first(self) -> None:
        for turn in range(4):
            self._send_in_order(0, "plain", 0, codec=turn)
            self._send_in_order(1, "plain", 0)
            self._send_in_order(0, "plain", 1, codec=4)
            self._send("loose", codec=turn)
            self._send("doomed")
            self._rounds()
            if turn == 1:
                self._housekeep("save_all")
            self._show("plain", "doomed")
            self.clock.advance(_SECOND_MS)
        for _ in range(3):
            self._send("plain", 0)
            self._send("plain", 0, codec=4)
            self._send_in_order(0, "loose")
            self._rounds()
        self._housekeep("save_all")
        self._send_in_order(0, "plain", 0)
        self._rounds()

    def _remove_records(self) -> None:
        self._delete_records("plain", 0, 5)
        self._delete_records("plain", 0, 12)
        self._delete_records("doomed", 0, 3)
        self._delete_records("plain", 1, -1)
        self._send_in_order(0, "plain", 1)
        self._rounds()
        for _ in range(7):
            self._send("aged", count=6)
            self._rounds()
        self._let_go("aged")
        self._housekeep("apply_retention")
        self._show("plain", "aged")

    def _compact(self) -> None:
        for turn in range(4):
            for key in ("a", "b", "c"):
                self._send("keyed", key=key, codec=turn)
            self._send_in_order(1, "keyed")
            self._rounds()
            self.clock.advance(_SECOND_MS)
        self._send_tombstone("keyed", "b")
        self._send("keyed", key="a", count=8)
        self._rounds()
        self._show("keyed")
        self._clean()

    def _clean(self) -> None:
        if self.life is not None:
            self.life.guarded(self.life.cleaner.clean_one)
            self._rounds()

    def _change_topics(self) -> None:
        self._add_partitions("plain", 3)
        self._rounds()
        self._send_in_order(1, "plain", 2)
        self._rounds()
        self._configure("aged", "retention.ms", "1000")
        self._send("plain", 0)
        self._rounds()
        self._delete_topic("doomed")
        self._rounds()
        self._create("doomed", 2, segment_bytes="700")
        self._send("doomed", 1)
        self._rounds()
        self._create("brief", 1)
        self._send("brief")
        self._delete_records("plain", 0, 14)
        self._send("doomed", 0)
        self._send("plain", 0)
        self._rounds()
        self.clock.advance(_DAY_MS / 24)
        self._let_go("aged")
        self._housekeep("apply_retention", "save_all")

    def _fill_disk(self) -> None:
        self._send_in_order(0, "plain", 0)
        self.files.full = True
        self._send_in_order(1, "plain", 0)
        self._send("aged")
        self._rounds()
        self._show("plain")
        self._delete_records("plain", 0, 16)
        self.files.full = False
        self._rounds()
        self._send_in_order(1, "plain", 0)
        self._send("aged")
        self._rounds()

    def _second_life(self) -> None:
        self._show("plain", "keyed", "aged", "doomed")
        self._send_in_order(0, "plain", 0)
        self._send("aged")
        self._rounds()
        for turn in range(3):
            self._send("keyed", key="c", count=5)
            self._send_in_order(1, "keyed", codec=turn)
            self._send("loose")
            self._rounds()
        self.clock.advance(_DAY_MS / 24)
        self._clean()
        self._delete_topic("doomed")
        self._configure("keyed", "cleanup.policy", "delete")
        self._rounds()
        self._send("keyed", key="c")
        self._send_in_order(0, "plain", 2)
        self._rounds()
        self._housekeep("save_all")
        self._send_in_order(0, "plain", 0)
        self._rounds()
        self._send_in_order(1, "plain", 0)

    def _third_life(self) -> None:
        self._show("plain", "keyed", "aged")
        for _ in range(2):
            self._send_in_order(0, "plain", 0)
            self._send_in_order(1, "plain", 0)
            self._send("plain", 1)
            self._send("loose")
            self._rounds()
        self._delete_records("plain", 0, -1)
        self._send_in_order(0, "plain", 0)
        self._rounds()


def _only(value: str) -> set[str | None]:
    return {value}


def _partition(configs: dict[str, str]) -> Partition:
    return Partition(
        is_durable=configs.get("ottla.durability") != "os",
        is_compacted=configs.get("cleanup.policy") == "compact",
    )
