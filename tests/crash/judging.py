"""Whether a store that is opened again keeps what was promised.

It opens; what was confirmed stands where it was confirmed, in order and once; what readers were
given is there; what was deleted stays deleted, and what was not is whole; a batch that was
confirmed is answered with its old offset when it is sent again; and it goes on: more can be sent,
and all of that is there after one more power cut.
"""

from __future__ import annotations

from ottla.clock import ManualClock
from ottla.errors import KafkaError, codes
from ottla.log.memory_files import MemoryFiles
from ottla.records.batch import read_header
from tests.crash.faulty_files import FaultyFiles
from tests.crash.lives import STORE, Found, Life, batch, records_of
from tests.crash.promises import Batch, Book, Partition, Sent, Topic, Verdict

_FURTHER = 1_000_000_000
"""The number of the first record that the judge sends himself."""


def judge(
    files: MemoryFiles,
    book: Book,
    now_ms: int,
    *,
    twice: bool,
    hurt: frozenset[str] = frozenset(),
) -> Verdict:
    """Open a store, and look for everything that was promised.

    Args:
        files: where it is; they are changed.
        book: what was promised.
        now_ms: the time.
        twice: cut the power afterwards and look once more; and again when more was sent.
        hurt: the folders of partitions of which a sync failed: where intact batches lie behind
            what that lost they may refuse more, but what was confirmed must be readable.
    """
    verdict = Verdict()
    added: Book | None = None
    try:
        for task in ("send_again", "send_more", ""):
            found = _Found(files, book, now_ms, verdict)
            found.hurt = hurt
            found.compare(added)
            if verdict.problems:
                break
            if task != "send_more" or not twice:
                found.send_again()
            if task != "send_again" or not twice:
                found.send_more()
            if not twice:
                break
            files, added = files.after_power_cut(), found.added
        found.life.engine.close()
    except KafkaError as error:
        verdict.bad.append(f"it cannot be used: {error}")
    except Exception as error:
        verdict.bad.append(f"what nobody expects: {error!r}")
    return verdict


class _Found:
    """A store that was opened, beside what was promised.

    Attributes:
        life: the broker on it.
        added: what it promised to the judge.
    """

    def __init__(self, files: MemoryFiles, book: Book, now_ms: int, verdict: Verdict) -> None:
        self.added = Book()
        self.life = Life(FaultyFiles(files), ManualClock(now_ms), self.added)
        self._book = book
        self._verdict = verdict
        self._serial = _FURTHER
        self.hurt: frozenset[str] = frozenset()
        self._refusing: set[tuple[bytes, int]] = set()

    def _promised(self) -> list[tuple[bytes, Topic, int, Partition]]:
        """Return the partitions that are there, with what was promised of them."""
        there = self.life.engine.cluster.topics_by_id
        return [
            (topic_id, topic, number, topic.partitions.get(number, Partition()))
            for topic_id, topic in self._book.topics.items()
            if topic_id in there
            for number in range(there[topic_id].partitions)
        ]

    def compare(self, added: Book | None = None) -> None:
        """Look for everything; `added` is what was promised besides."""
        self._compare_topics()
        for topic_id, topic, number, promised in self._promised():
            more = None if added is None else added.topics[topic_id].partitions[number]
            found = self._compare_partition(
                topic_id, f"{topic.name}-{number}", number, (promised, more)
            )
            copy = self.added.topics.setdefault(topic_id, Topic(topic.name))
            own = copy.partitions[number] = Partition(promised.is_durable)
            if promised.is_durable:
                own.seen.update({offset: serial for offset, serial, _ in found})

    def _compare_topics(self) -> None:
        there, verdict = self.life.engine.cluster.topics_by_id, self._verdict
        for topic_id in there:
            if topic_id not in self._book.topics:
                verdict.bad.append(f"a topic that nobody made: {there[topic_id].name}")
        for topic_id, topic in self._book.topics.items():
            found = there.get(topic_id)
            if found is None:
                stored = any(each.stored for each in topic.partitions.values())
                if (topic.is_created or stored) and not topic.is_deletion_asked:
                    verdict.lost.append(f"the topic {topic.name}")
                continue
            if topic.is_deleted:
                verdict.bad.append(f"the topic {topic.name} was deleted and is there")
            if not topic.partitions_min <= found.partitions <= topic.partitions_max:
                verdict.lost.append(f"{topic.name} has {found.partitions} partitions")
            for name, values in topic.configs.items():
                if found.configs.get(name) not in values:
                    verdict.lost.append(f"{topic.name}: {name} is {found.configs.get(name)}")

    def _compare_partition(
        self,
        topic_id: bytes,
        name: str,
        number: int,
        promises: tuple[Partition, Partition | None],
    ) -> list[Found]:
        promised, more = promises
        verdict = self._verdict
        error, start, end, found = self.life.read(topic_id, number)
        if self._is_hurt(name):
            self._refusing.add((topic_id, number))
            found = self._read_around(topic_id, number, promised, found)
            start = self.life.engine.store.logs[name.rpartition("-")[0], number].log_start_offset
            end = max(end, promised.shown)
        elif error != codes.NONE:
            log = self.life.engine.store.logs.get((name.rpartition("-")[0], number))
            reason = self.life.engine.store.offline.get((name.rpartition("-")[0], number))
            reason = reason or (log.failed if log else None)
            verdict.bad.append(f"{name} cannot be read: error {error}: {reason}")
            return []
        if start < promised.start:
            verdict.bad.append(f"{name} begins at {start}, and {promised.start} was confirmed")
        if start > promised.start_max:
            verdict.lost.append(f"{name} begins at {start}, and {promised.start_max} is the most")
        if end < promised.shown:
            verdict.lost.append(f"{name} ends at {end}, and readers saw {promised.shown}")
        expected = promised.stored | promised.seen
        if more is not None:
            expected |= more.stored | more.seen
        sent = promised.sent if more is None else promised.sent | more.sent
        by_offset = {offset: serial for offset, serial, _ in found}
        for offset, serial in expected.items():
            if offset >= start and by_offset.get(offset) != serial:
                gone = offset not in by_offset
                if gone and promised.is_compacted and _may_go(sent, serial, by_offset):
                    continue
                has = by_offset.get(offset)
                verdict.lost.append(f"{name}: record {serial} at {offset}; {has} is there")
        self._compare_order(name, sent, found)
        return found

    def _is_hurt(self, name: str) -> bool:
        topic, _, number = name.rpartition("-")
        log = self.life.engine.store.logs.get((topic, int(number)))
        return f"{STORE}/{name}" in self.hurt and log is not None and log.failed is not None

    def _read_around(
        self, topic_id: bytes, number: int, promised: Partition, found: list[Found]
    ) -> list[Found]:
        """Read what lies behind damage, each promised record by its offset."""
        known = {offset: (offset, serial, sent) for offset, serial, sent in found}
        for offset in sorted(promised.stored | promised.seen):
            if offset not in known:
                answer = self.life.fetch(topic_id, number, offset)
                known |= {each[0]: each for each in records_of(answer.records or b"")}
        return [known[offset] for offset in sorted(known)]

    def _compare_order(self, name: str, sent: dict[int, Sent], found: list[Found]) -> None:
        verdict = self._verdict
        seen: set[int] = set()
        last: dict[int, int] = {}
        offset_before = -1
        for offset, serial, record in found:
            if sent.get(serial) != record:
                verdict.bad.append(f"{name}: nobody sent record {serial} at {offset}: {record}")
            if serial in seen:
                verdict.duplicated.append(f"{name}: record {serial}, again at {offset}")
            seen.add(serial)
            if serial < last.get(record.producer_id, -1) or offset <= offset_before:
                verdict.reordered.append(f"{name}: record {serial} at {offset}")
            last[record.producer_id] = serial
            offset_before = offset

    def send_again(self) -> None:
        """Send again what was confirmed, and what was not."""
        for topic_id, topic, number, promised in self._promised():
            if (topic_id, number) in self._refusing:
                continue
            name = f"{topic.name}-{number}"
            last: dict[int, Batch] = {each.producer_id: each for each in promised.batches}
            for each in promised.batches:
                if each.is_promised:
                    is_newest = each.producer_id not in promised.owed
                    is_last = is_newest and each is last[each.producer_id]
                    self._send_again(topic_id, name, number, (each, is_last))
            for producer_id, data in promised.owed.items():
                if producer_id not in last or last[producer_id].is_promised:
                    error, _ = self.life.produce(topic_id, number, data)
                    if error != codes.NONE:
                        what = f"what producer {producer_id} had no answer to is refused: {error}"
                        self._verdict.bad.append(f"{name}: {what}")

    def send_more(self) -> None:
        """Send more, of each producer and of none, and ask for another producer id."""
        for topic_id, topic, number, promised in self._promised():
            if (topic_id, number) in self._refusing:
                continue
            name = f"{topic.name}-{number}"
            last: dict[int, Batch] = {each.producer_id: each for each in promised.batches}
            for each in last.values():
                if each.is_promised:
                    newest = read_header(promised.owed.get(each.producer_id, each.data))
                    after = (each.producer_id, newest.producer_epoch, newest.last_sequence + 1)
                    self._send_more(topic_id, name, number, after)
            self._send_more(topic_id, name, number, (-1, -1, -1))
        producer_id = self.life.producer_id()
        if producer_id < 0 or producer_id in self._book.producer_ids:
            self._verdict.bad.append(f"the producer id {producer_id} was handed out before")

    def _send_again(
        self, topic_id: bytes, name: str, number: int, again: tuple[Batch, bool]
    ) -> None:
        each, is_last = again
        error, offset = self.life.produce(topic_id, number, each.data)
        where = f"{name}: the batch at {each.base_offset} of producer {each.producer_id}"
        if error == codes.NONE and offset != each.base_offset:
            self._verdict.duplicated.append(f"{where}, sent again, is stored at {offset}")
        elif error != codes.NONE and is_last:
            self._verdict.bad.append(f"{where}, sent again, is answered with error {error}")

    def _send_more(
        self, topic_id: bytes, name: str, number: int, producer: tuple[int, int, int]
    ) -> None:
        self._serial += 1
        now_ms = self.life.clock.now_ms()
        records = [Sent(b"more", b"%d" % self._serial)]
        data = batch(self._serial, records, timestamp_ms=now_ms, producer=producer)
        error, _ = self.life.produce(topic_id, number, data)
        if error != codes.NONE:
            self._verdict.bad.append(f"{name}: more of producer {producer} is refused: {error}")


def _may_go(sent: dict[int, Sent], serial: int, by_offset: dict[int, int]) -> bool:
    """Tell whether compaction may remove a record: a tombstone, or one that has a later one."""
    record = sent[serial]
    there = set(by_offset.values())
    return record.value is None or any(
        later > serial and other.key == record.key and (later in there or other.value is None)
        for later, other in sent.items()
    )
