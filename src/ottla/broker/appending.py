# cython: initializedcheck=False
"""What a Produce request does to one partition; the usual request is answered without an object.

The usual one has one batch, for one partition of a topic, and waits for no sync.
`answer_usual` goes over its bytes once and writes the bytes of the answer. It decides nothing that
the handler would decide otherwise: where anything is not as usual, before or while the batch is
judged, nothing has been done, and the handler does it all.

Kafka: ReplicaManager.appendToLocalLog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cython

from ottla.broker.internal_topics import INTERNAL_TOPICS
from ottla.errors import DecodeError, StorageError, codes
from ottla.log.producer_state import Duplicate

if cython.compiled:
    from cython.cimports.ottla.broker.batches import Prepared, prepare
    from cython.cimports.ottla.broker.requests import Pending
    from cython.cimports.ottla.log.partition_log import PartitionLog
    from cython.cimports.ottla.records.batch import BatchHeader
    from cython.cimports.ottla.wire.cursor import Reader, Writer
else:
    from ottla.broker.batches import prepare
    from ottla.broker.requests import Pending
from ottla.broker.batches import Refused

if TYPE_CHECKING:
    from ottla.broker.batches import Prepared
    from ottla.broker.engine import Engine
    from ottla.coordinator.cluster.state import Topic
    from ottla.log.partition_log import PartitionLog
    from ottla.protocol.message import ApiMessage
    from ottla.records.batch import BatchHeader
    from ottla.wire import Buffer
    from ottla.wire.cursor import Reader, Writer

USUAL_VERSIONS = (3, 13)
"""The versions of Produce that `answer_usual` knows, first and last."""

_TOPIC_ID_VERSION = 13
_TOPIC_ID_BYTES = 16
_FLEXIBLE_VERSION = 9
_RECORD_ERRORS_VERSION = 8
_LOG_START_VERSION = 5
_NO_TIMESTAMP = -1


class Appended:
    """A batch that is in a log, since now or since before.

    Attributes:
        log: the log.
        base_offset: its first offset.
        end_offset: the offset behind its last one.
        log_append_time_ms: how the broker stamped it, or -1.
    """

    def __init__(
        self, log: PartitionLog, base_offset: int, end_offset: int, log_append_time_ms: int
    ) -> None:
        self.log = log
        self.base_offset = base_offset
        self.end_offset = end_offset
        self.log_append_time_ms = log_append_time_ms


class Storing(Pending):
    """A batch that a usual request has brought into a log; it is done when that has stored it.

    There is a response only where that will never be, or takes too long: who asked knows what else
    is to be told.

    Attributes:
        appended: where the batch is.
    """

    __slots__ = ("_partition", "_timeout_ms", "_topic", "appended")

    def __init__(
        self, appended: Appended, topic: Topic, partition: cython.int, timeout_ms: cython.double
    ) -> None:
        self._begin()
        self.appended = appended
        self._topic = topic
        self._partition = partition
        self._timeout_ms = timeout_ms

    def begin(self, engine: Engine) -> None:
        """Wait until it is stored, which it may be by now."""
        log: PartitionLog = self.appended.log
        if log.high_watermark >= self.appended.end_offset:
            self.is_done = True
            return
        self.deadline_ms = engine.clock.monotonic_ms() + max(self._timeout_ms, 0.0)
        log.when_stored(self.appended.end_offset, self.stored)
        engine.waits.add(self)

    def stored(self, error: StorageError | None) -> None:
        """Take note that it is stored, or why it never will be."""
        response = None
        if error is not None and not self.is_done:
            response = self._refusal(codes.KAFKA_STORAGE_ERROR, str(error))
        self.finish(response)

    def expire(self) -> None:
        """Tell that its time is over."""
        if not self.is_done:
            message = f"the records were not stored within {self._timeout_ms:.0f} ms"
            self.finish(self._refusal(codes.REQUEST_TIMED_OUT, message))

    def _refusal(self, error: cython.int, message: str) -> ApiMessage:
        from ottla.broker.handlers.api_00_produce import refusal

        return refusal(self._topic, self._partition, Refused(error, message))


def append(
    engine: Engine,
    topic: Topic,
    partition: cython.int,
    records: Buffer | None,
    version: cython.int,
) -> Appended:
    """Append a partition's batch, unless it was appended before.

    Args:
        engine: the broker.
        topic: the topic.
        partition: the partition.
        records: what was sent for it.
        version: of the Produce request.

    Raises:
        Refused: it cannot be appended.
        StorageError: it could not be written.
    """
    log = engine.log_of(topic.name, partition)
    if log is None:
        raise Refused(*engine.why_not(topic.name, partition))
    return _append_to(engine, topic, log, records, version)


@cython.cfunc
def _append_to(
    engine: Engine,
    topic: Topic,
    log: PartitionLog,
    records: Buffer | None,
    version: cython.int,
) -> Appended:
    if topic.name in INTERNAL_TOPICS:
        message = f"{topic.name} is written to by the broker alone"
        raise Refused(codes.INVALID_TOPIC_EXCEPTION, message)
    config = engine.configs.topic_config(topic)
    prepared: Prepared = prepare(records, config, version, engine.clock.now_ms())
    header: BatchHeader = prepared.header
    if header.producer_id >= 0:
        verdict = log.check_producer(header)
        if isinstance(verdict, Duplicate):
            stamped = verdict.timestamp if header.is_log_append_time else _NO_TIMESTAMP
            return Appended(log, verdict.base_offset, verdict.last_offset + 1, stamped)
        if verdict != codes.NONE:
            raise Refused(
                verdict,
                f"producer {header.producer_id}, epoch {header.producer_epoch}: sequence "
                f"{header.base_sequence} is not what comes next in {topic.name}-{log.partition}",
            )
    base_offset = engine.append(log, prepared.batch, header)
    return Appended(log, base_offset, log.log_end_offset, prepared.log_append_time_ms)


def append_usual(
    engine: Engine,
    topic_key: str | bytes,
    partition: cython.int,
    records: Buffer,
    version: cython.int,
    timeout_ms: cython.double,
) -> Storing | None:
    """Do what a usual Produce request asks for; called with `engine.lock` held.

    It may have to wait for a sync, and any confirmation but none: acks is -1 or 1.

    Args:
        engine: the broker.
        topic_key: the topic's name, or its id.
        partition: the partition.
        records: what was sent for it.
        version: of the request.
        timeout_ms: how long it may take until it is stored.

    Returns:
        None where nothing was done: the handler decides what is not as usual.
    """
    if isinstance(topic_key, bytes):
        topic = engine.cluster.topics_by_id.get(topic_key)
    else:
        topic = engine.cluster.topics.get(topic_key)
    if topic is None:
        return None
    log: PartitionLog | None = engine.log_of(topic.name, partition)
    if log is None:
        return None
    try:
        appended: Appended = _append_to(engine, topic, log, records, version)
    except (Refused, StorageError):
        return None
    storing: Storing = Storing(appended, topic, partition, timeout_ms)
    storing.begin(engine)
    return storing


def answer_usual(engine: Engine, reader: Reader, version: int, writer: Writer) -> bool:
    """Answer a Produce request where it is a usual one; called with `engine.lock` held.

    Args:
        engine: the broker.
        reader: stands behind the request's header.
        version: of the request.
        writer: takes the response.

    Returns:
        Whether it was answered. Where it was not, nothing was done.
    """
    if not USUAL_VERSIONS[0] <= version <= USUAL_VERSIONS[1]:
        return False
    flexible: cython.bint = version >= _FLEXIBLE_VERSION
    try:
        if not _has_one_partition(reader, flexible):
            return False
        if version >= _TOPIC_ID_VERSION:
            topic = engine.cluster.topics_by_id.get(reader.raw(_TOPIC_ID_BYTES))
        else:
            topic = engine.cluster.topics.get(reader.text(_size(reader, flexible, 2)))
        if _size(reader, flexible, 4) != 1:
            return False
        partition: cython.int = reader.int32()
        size: cython.longlong = _size(reader, flexible, 4)
        if size <= 0:
            return False
        records = reader.view(size)
        if flexible and reader.uvarint() | reader.uvarint() | reader.uvarint():
            return False
    except DecodeError:
        return False
    if topic is None:
        return False
    log: PartitionLog | None = engine.log_of(topic.name, partition)
    if log is None or log.config.durable or log.high_watermark != log.log_end_offset:
        return False
    try:
        appended: Appended = _append_to(engine, topic, log, records, version)
    except (Refused, StorageError):
        return False
    _write(appended, topic, partition, version, writer)
    return True


@cython.cfunc
@cython.exceptval(check=True)
def _has_one_partition(reader: Reader, flexible: cython.bint) -> cython.bint:
    """Read up to the first topic, and tell whether a single one follows that waits for its sync."""
    if flexible:
        if reader.uvarint() != 0:
            return False
    elif reader.int16() != -1:
        return False
    acks: cython.int = reader.int16()
    reader.int32()
    return acks in (-1, 1) and _size(reader, flexible, 4) == 1


@cython.cfunc
@cython.exceptval(check=True)
def _size(reader: Reader, flexible: cython.bint, width: cython.int) -> cython.longlong:
    """Read a length or a count."""
    if flexible:
        return reader.uvarint() - 1
    return reader.int16() if width == 2 else reader.int32()


@cython.cfunc
def _write(
    appended: Appended, topic: Topic, partition: cython.int, version: cython.int, writer: Writer
) -> object:
    """Write a ProduceResponse about one partition."""
    flexible: cython.bint = version >= _FLEXIBLE_VERSION
    if flexible:
        writer.uvarint(2)
    else:
        writer.int32(1)
    if version >= _TOPIC_ID_VERSION:
        writer.raw(topic.topic_id)
    else:
        encoded: bytes = topic.name.encode()
        if flexible:
            writer.uvarint(len(encoded) + 1)
        else:
            writer.int16(len(encoded))
        writer.raw(encoded)
    if flexible:
        writer.uvarint(2)
    else:
        writer.int32(1)
    writer.int32(partition)
    writer.int16(codes.NONE)
    writer.int64(appended.base_offset)
    writer.int64(appended.log_append_time_ms)
    if version >= _LOG_START_VERSION:
        writer.int64(appended.log.log_start_offset)
    if flexible:  # no record errors, no message, and no tagged fields
        writer.uvarint(1)
        writer.uvarint(0)
        writer.uvarint(0)
        writer.uvarint(0)
    elif version >= _RECORD_ERRORS_VERSION:
        writer.int32(0)
        writer.int16(-1)
    writer.int32(0)
    if flexible:
        writer.uvarint(0)
    return None
