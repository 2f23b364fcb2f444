"""The process that is killed: everything a store does, once, always in the same order.

It is one thread and has a clock of its own, so two runs make the same calls to the system, and the
N-th call of a kind is the same one in each. What it does and what it is told goes to its standard
output as lines of JSON, whose other end the supervisor holds: what was acknowledged is known there
however this process ends. A line that ends in "ing" comes before the thing is begun.

    creating created NAME PARTITIONS        sending TOPIC PARTITION NUMBER KEY SEQUENCE
    stored TOPIC PARTITION NUMBER OFFSET    refused TOPIC PARTITION NUMBER TEXT
    cutting cut TOPIC PARTITION OFFSET      expiring TOPIC PARTITION OFFSET
    compacting TOPIC PARTITION              deleting deleted NAME
    failed WHAT TEXT                        missing TOPIC PARTITION TEXT
    crashed TRACEBACK                       done

`python -m tests.crash.system_workload` imports everything once and then runs the workload in a
child of its own for each line of its input, a folder. The child tells its id and begins when the
next line comes, so that strace can be there first.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import traceback
from typing import Any, cast

from ottla.broker.apis import APIS
from ottla.broker.cleaner import Cleaner
from ottla.broker.engine import Engine
from ottla.broker.housekeeper import Housekeeper
from ottla.broker.requests import Context, Pending
from ottla.broker.router import handle
from ottla.clock import ManualClock
from ottla.errors import KafkaError, StorageError, codes
from ottla.log.files import OsFiles, write_owner
from ottla.log.partition_log import PartitionLog
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_00_produce import ProduceRequest, ProduceResponse
from ottla.protocol.messages.api_19_create_topics import CreateTopicsRequest
from ottla.protocol.messages.api_20_delete_topics import DeleteTopicsRequest
from ottla.protocol.messages.api_21_delete_records import DeleteRecordsRequest
from ottla.records.batch import iterate_headers, iterate_records
from ottla.records.builder import BatchBuilder

PRODUCER_ID = 7
STEP_MS = 400
RETENTION_MS = 2500
SETTINGS = {"log.cleaner.io.max.bytes.per.second": "1000000000", "log.cleaner.enable": "false"}
TOPICS = {
    "a": (3, {"segment.ms": "1000", "retention.ms": str(RETENTION_MS)}),
    "c": (1, {"segment.ms": "1000", "cleanup.policy": "compact"}),
    "d": (2, {"segment.ms": "1000"}),
}
_PR_SET_PTRACER = 0x59616D61


class ByHand:
    """A broker on the disk without a thread: each step is done when it is asked for.

    Args:
        path: the store's folder.
        clock: its clock.
    """

    def __init__(self, path: str, clock: ManualClock) -> None:
        self.path: str | None = path
        self.clock = clock
        self.engine = Engine.open(OsFiles(), path, clock, SETTINGS)
        with contextlib.suppress(StorageError):
            write_owner(path, "")
        self.keeper = Housekeeper(self)

    def wake(self) -> None:
        """There is nobody to be woken."""

    def drive(self, timeout_s: float = 0.0) -> None:
        """Run a round of syncs; see `Broker.drive`."""
        begun = self.engine.commit.begin()
        if begun is not None:
            self.engine.commit.end(begun.run())

    def ask(self, request: ApiMessage) -> Any:
        """Handle a request, do what there is to do, and return the response."""
        version = APIS[request.API_KEY].max_version
        reply = handle(self.engine, request, version, Context("here", 9092, "workload"))
        while isinstance(reply, Pending):
            if reply.is_done:
                reply = reply.response
                break
            if not self.engine.commit.is_waiting:
                raise RuntimeError("nobody will ever answer")
            self.drive()
        self.engine.remove_files()
        return reply

    def create(self, name: str) -> tuple[int, str | None]:
        partitions, configs = TOPICS[name]
        topic = CreateTopicsRequest.CreatableTopic(
            name=name,
            num_partitions=partitions,
            replication_factor=1,
            configs=[
                CreateTopicsRequest.CreatableTopicConfig(name=key, value=value)
                for key, value in configs.items()
            ],
        )
        found = self.ask(CreateTopicsRequest(topics=[topic], timeout_ms=1000)).topics[0]
        return found.error_code, found.error_message

    def delete(self, name: str) -> tuple[int, str | None]:
        topic = DeleteTopicsRequest.DeleteTopicState(name=name)
        request = DeleteTopicsRequest(topics=[topic], timeout_ms=1000)
        found = self.ask(request).responses[0]
        return found.error_code, found.error_message

    def cut(self, topic: str, partition: int, offset: int) -> int:
        """Delete the records before an offset; returns the error code."""
        each = DeleteRecordsRequest.DeleteRecordsPartition(partition_index=partition, offset=offset)
        asked = DeleteRecordsRequest.DeleteRecordsTopic(name=topic, partitions=[each])
        response = self.ask(DeleteRecordsRequest(topics=[asked], timeout_ms=1000))
        code: int = response.topics[0].partitions[0].error_code
        return code

    def send(
        self, topic: str, sent: list[tuple[int, int, str, int]]
    ) -> list[ProduceResponse.PartitionProduceResponse]:
        """Produce one record each to partitions of a topic; (partition, number, key, sequence)."""
        known = self.engine.cluster.topics.get(topic)
        data = []
        for partition, number, key, sequence in sent:
            builder = BatchBuilder()
            builder.append(self.clock.now_ms(), key.encode(), b"%d" % number, None, 1 << 30)
            batch = builder.build(0, None, PRODUCER_ID, 0, sequence)
            data.append(ProduceRequest.PartitionProduceData(index=partition, records=batch))
        topic_id = bytes(16) if known is None else known.topic_id
        asked = ProduceRequest.TopicProduceData(name=topic, topic_id=topic_id, partition_data=data)
        response = self.ask(ProduceRequest(acks=-1, timeout_ms=1000, topic_data=[asked]))
        found: list[ProduceResponse.PartitionProduceResponse]
        found = response.responses[0].partition_responses
        return found

    def compact(self, topic: str, partition: int) -> None:
        cleaner = Cleaner(self.engine)
        while cleaner.clean_one():
            pass

    def read(self, topic: str, partition: int) -> list[tuple[int, int]]:
        """Return all that can be read, as (offset, number).

        Raises:
            StorageError: it cannot be read.
        """
        log = self.log_of(topic, partition)
        found: list[tuple[int, int]] = []
        at = log.log_start_offset
        while data := log.read(at, 1 << 16, at_least_one=True):
            for header in iterate_headers(data):
                for record in iterate_records(data, header):
                    if record.offset >= at:
                        found.append((record.offset, int(record.value or b"-1")))
                at = header.last_offset + 1
        return found

    def log_of(self, topic: str, partition: int) -> PartitionLog:
        """Return a partition's log.

        Raises:
            StorageError: it cannot be opened.
        """
        log = self.engine.log_of(topic, partition)
        if log is None:
            raise StorageError(self.engine.why_not(topic, partition)[1])
        return log

    def close(self) -> None:
        self.engine.close()


def tell(*line: object) -> None:
    """Write a line to the supervisor, at once."""
    os.write(1, json.dumps(line).encode() + b"\n")


class Workload:
    """The script, and what it remembers of what it was told.

    Args:
        broker: the broker.
    """

    def __init__(self, broker: ByHand) -> None:
        self._broker = broker
        self._number = 0
        self._sequences: dict[tuple[str, int], int] = {}
        self._stored: dict[tuple[str, int], dict[int, int]] = {}
        self._times: dict[tuple[str, int], list[tuple[int, int]]] = {}

    def run(self) -> None:
        for name in TOPICS:
            self._create(name)
        for _ in range(5):
            self._send("a", [0, 1])
            self._send("d", [0, 1])
        self._send("a", [2])
        self._save()
        for number in range(6):
            self._send("c", [0], f"k{number % 3}")
        self._cut("a", 0, 4)
        self._delete("d")
        self._create("d")
        self._send("d", [0, 1])
        self._save()
        self._compact()
        self._send("a", [0, 1, 2])
        self._expire()
        for number in range(4):
            self._send("c", [0], f"k{number % 2}")
        self._compact()
        self._send("a", [0, 1, 2])
        self._cut("a", 0, -1)
        self._send("a", [0])
        self._look()

    def _create(self, name: str) -> None:
        tell("creating", name, TOPICS[name][0])
        error, text = self._broker.create(name)
        if error == codes.NONE:
            tell("created", name, TOPICS[name][0])
            self._forget(name)
        else:
            tell("failed", f"create {name}", text)

    def _forget(self, name: str) -> None:
        for known in (self._sequences, self._stored, self._times):
            for key in [key for key in known if key[0] == name]:
                del cast(dict[tuple[str, int], Any], known)[key]

    def _send(self, topic: str, partitions: list[int], key: str = "k") -> None:
        self._broker.clock.advance(STEP_MS)
        sent = []
        for partition in partitions:
            self._number += 1
            sequence = self._sequences.get((topic, partition), 0)
            sent.append((partition, self._number, key, sequence))
            tell("sending", topic, partition, self._number, key, sequence)
        responses = self._broker.send(topic, sent)
        for (partition, number, _, sequence), found in zip(sent, responses, strict=True):
            at = (topic, partition)
            if found.error_code == codes.NONE:
                tell("stored", topic, partition, number, found.base_offset)
                self._sequences[at] = sequence + 1
                self._stored.setdefault(at, {})[found.base_offset] = number
                now_ms = self._broker.clock.now_ms()
                self._times.setdefault(at, []).append((now_ms, found.base_offset))
            else:
                tell("refused", topic, partition, number, found.error_message)
        self._heal()

    def _heal(self) -> None:
        if self._broker.engine.store.full is not None:
            self._guarded("heal", self._broker.keeper.heal)

    def _guarded(self, what: str, action: Any) -> None:
        """Do what a thread of the broker does, with errors that it would only log."""
        try:
            action()
        except KafkaError as error:
            tell("failed", what, str(error))

    def _save(self) -> None:
        self._guarded("save", self._broker.keeper.save_all)

    def _cut(self, topic: str, partition: int, offset: int) -> None:
        known = self._stored.get((topic, partition), {})
        told = max(known, default=-1) + 1 if offset < 0 else offset
        tell("cutting", topic, partition, told)
        error = self._broker.cut(topic, partition, offset)
        if error == codes.NONE:
            tell("cut", topic, partition, told)
            self._drop(topic, partition, told)
        else:
            tell("failed", f"cut {topic}", error)
            self._drop(topic, partition, told)

    def _drop(self, topic: str, partition: int, offset: int) -> None:
        kept = self._stored.get((topic, partition), {})
        self._stored[topic, partition] = {at: each for at, each in kept.items() if at >= offset}

    def _expire(self) -> None:
        limit = self._broker.clock.now_ms() - RETENTION_MS
        for (topic, partition), times in self._times.items():
            if topic == "a":
                offset = max((at + 1 for time_ms, at in times if time_ms < limit), default=0)
                tell("expiring", topic, partition, offset)
                self._drop(topic, partition, offset)
        self._guarded("expire", self._broker.keeper.apply_retention)

    def _compact(self) -> None:
        tell("compacting", "c", 0)
        self._guarded("compact", lambda: self._broker.compact("c", 0))
        self._stored.pop(("c", 0), None)

    def _delete(self, name: str) -> None:
        tell("deleting", name)
        error, text = self._broker.delete(name)
        if error == codes.NONE:
            tell("deleted", name)
            self._forget(name)
        else:
            tell("failed", f"delete {name}", text)
            for partition in range(TOPICS[name][0]):
                self._stored.pop((name, partition), None)

    def _look(self) -> None:
        """Read everything while the broker is still the one that stored it."""
        for (topic, partition), stored in self._stored.items():
            if not stored:
                continue
            try:
                found = self._read(topic, partition)
            except StorageError as error:
                tell("missing", topic, partition, str(error))
                continue
            gone = {at: each for at, each in stored.items() if found.get(at) != each}
            if gone:
                tell("missing", topic, partition, f"{gone} in {found}")

    def _read(self, topic: str, partition: int) -> dict[int, int]:
        """Read a partition; a read that fails once is tried again, as a client would."""
        try:
            return dict(self._broker.read(topic, partition))
        except StorageError as error:
            tell("failed", "read", str(error))
            return dict(self._broker.read(topic, partition))


def run(path: str) -> None:
    """Open a store, do everything, and stop cleanly; errors of the store are told, not raised."""
    try:
        broker = ByHand(path, ManualClock())
    except KafkaError as error:
        tell("failed", "open", str(error))
    else:
        Workload(broker).run()
        try:
            broker.close()
        except KafkaError as error:
            tell("failed", "close", str(error))
    tell("done")


def _let_be_traced() -> None:
    """Allow strace, which is no parent of this process, where the kernel asks for that."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)


def _next_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line.strip()


def _child(path: str) -> None:
    _let_be_traced()
    tell("pid", os.getpid())
    _next_line()
    try:
        run(path)
    except BaseException:
        tell("crashed", traceback.format_exc())
        raise


def main() -> None:
    """Run the workload for each line of the input."""
    while path := _next_line():
        child = os.fork()
        if not child:
            try:
                _child(path.decode())
            finally:
                os._exit(0)
        tell("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
