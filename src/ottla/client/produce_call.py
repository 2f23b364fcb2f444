# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""A Produce request on its way, which writes its bytes and reads the usual answer by itself.

Records are sent by one kind of request, again and again: batches of one topic. Its bytes are
written straight into the frame, and from an answer that says no more than that all of them are
stored their offsets are read, without an object for each structure. What is not as usual - batches
of several topics, an answer with an error or anything else to tell - goes the way of all messages.
Both ways write the same bytes and come to the same judgement.

Kafka: ProduceRequest, ProduceResponse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cython

from ottla.client.network import Call
from ottla.errors import DecodeError, codes
from ottla.protocol.message import ZERO_UUID
from ottla.protocol.messages.api_00_produce import ProduceRequest, ProduceResponse

if cython.compiled:
    from cython.cimports.ottla.wire.cursor import Reader, Writer

if TYPE_CHECKING:
    from ottla.client.delivery import Batch
    from ottla.errors import KafkaError
    from ottla.protocol.message import ApiMessage
    from ottla.wire.cursor import Reader, Writer

TOPIC_ID_VERSION = 13
"""The first version that names topics by their ids."""

_API_KEY = cython.declare(cython.int, ProduceRequest.API_KEY)
_FLEXIBLE = cython.declare(cython.int, ProduceRequest.SCHEMA.flexible)
_RESPONSE_FLEXIBLE = cython.declare(cython.int, ProduceResponse.SCHEMA.flexible)
_LOG_START = cython.declare(cython.int, 5)
_RECORD_ERRORS = cython.declare(cython.int, 8)
_TOPIC_ID = cython.declare(cython.int, TOPIC_ID_VERSION)


class ProduceCall(Call):
    """Batches on their way to one broker.

    Attributes:
        batches: what is sent; one for each of their partitions.
        topic_ids: the ids of their topics, by name.
        request_timeout_ms: how long the broker may take to confirm it.
        stored: where they are stored, once a usual answer has told it: a base offset and a
            timestamp, or -1, for each batch.
        told: is called once, with the call and what `Call.finish` is given.

    Args:
        batches: see above.
        topic_ids: the ids of their topics, by name; zeros where a topic has none.
        acks: what the broker is to confirm.
        timeout_ms: how long it may take for that.
        told: see above.
        traced: whether the broker is asked what it sees of the request.
    """

    __slots__ = ("_acks", "batches", "request_timeout_ms", "stored", "told", "topic_ids")

    def __init__(
        self,
        batches: list[Batch],
        topic_ids: dict[str, bytes],
        acks: int,
        timeout_ms: int,
        told: Callable[[ProduceCall, Any, KafkaError | None], None],
        traced: bool = False,
    ) -> None:
        self._begin(None, ProduceRequest, ProduceResponse)
        self.api_key = _API_KEY
        self.flexible_from = _FLEXIBLE
        self.response_flexible_from = _RESPONSE_FLEXIBLE
        self.done = None
        self.timeout_ms = None
        self.expects_response = acks != 0
        self.traced = traced
        self.batches = batches
        self.stored: list[int] | None = None
        self.told: Callable[[ProduceCall, Any, KafkaError | None], None] | None = told
        self.topic_ids = topic_ids
        self._acks = acks
        self.request_timeout_ms = timeout_ms

    def _make_request(self) -> ApiMessage:
        """Make the request as an object, for those who want one."""
        topics: dict[str, ProduceRequest.TopicProduceData] = {}
        batch: Batch
        for batch in self.batches:
            topic = topics.get(batch.topic)
            if topic is None:
                topic_id = self.topic_ids[batch.topic]
                topic = ProduceRequest.TopicProduceData(name=batch.topic, topic_id=topic_id)
                topics[batch.topic] = topic
            topic.partition_data.append(
                ProduceRequest.PartitionProduceData(index=batch.partition, records=batch.data)
            )
        return ProduceRequest(
            acks=self._acks,
            timeout_ms=self.request_timeout_ms,
            topic_data=list(topics.values()),
        )

    def version_max(self) -> int:
        """Return the highest version that can be sent: the newer ones want an id of every topic."""
        for topic_id in self.topic_ids.values():
            if topic_id == ZERO_UUID:
                return TOPIC_ID_VERSION - 1
        return TOPIC_ID_VERSION

    def write(self, writer: Writer) -> bool:
        """Write the request behind its header; False where it is unusual and nothing is written."""
        version: cython.int = self.version
        if len(self.topic_ids) != 1 or not 3 <= version <= _TOPIC_ID:
            return False
        flexible: cython.bint = version >= _FLEXIBLE
        batch: Batch = self.batches[0]
        if flexible:
            writer.uvarint(0)  # no transactional id
        else:
            writer.int16(-1)
        writer.int16(self._acks)
        writer.int32(self.request_timeout_ms)
        _write_count(writer, 1, flexible)
        if version >= _TOPIC_ID:
            writer.raw(self.topic_ids[batch.topic])
        else:
            name = batch.topic.encode()
            if flexible:
                writer.uvarint(len(name) + 1)
            else:
                writer.int16(len(name))
            writer.raw(name)
        _write_count(writer, len(self.batches), flexible)
        for batch in self.batches:
            writer.int32(batch.partition)
            data = batch.data
            _write_count(writer, len(data), flexible)
            writer.raw(data)
            if flexible:
                writer.uvarint(0)
        if flexible:
            writer.uvarint(0)
            writer.uvarint(0)
        return True

    def read(self, reader: Reader) -> bool:
        """Read the answer behind its header, where it is a usual one to a usual request.

        Returns:
            Whether it is: `stored` is known then. Where not, the reader stands where it stood.
        """
        before: cython.Py_ssize_t = reader.position
        try:
            if len(self.topic_ids) == 1 and self._read(reader):
                return True
        except DecodeError:
            pass  # who reads it as an object says what is wrong
        self.stored = None
        reader.position = before
        return False

    def _read(self, reader: Reader) -> bool:
        stored: list[int] = []
        self.stored = stored
        version: cython.int = self.version
        flexible: cython.bint = version >= _FLEXIBLE
        batch: Batch = self.batches[0]
        if _read_count(reader, flexible) != 1:
            return False
        if version >= _TOPIC_ID:
            if reader.raw(16) != self.topic_ids[batch.topic]:
                return False
        else:
            size: cython.longlong = reader.uvarint() - 1 if flexible else reader.int16()
            if size < 0 or reader.text(size) != batch.topic:
                return False
        if _read_count(reader, flexible) != len(self.batches):
            return False
        for batch in self.batches:
            if reader.int32() != batch.partition or reader.int16() != codes.NONE:
                return False
            stored.append(reader.int64())
            stored.append(reader.int64())
            if version >= _LOG_START:
                reader.int64()
            if flexible:  # no record errors, no message, and no tagged fields
                if reader.uvarint() != 1 or reader.uvarint() != 0 or reader.uvarint() != 0:
                    return False
            elif version >= _RECORD_ERRORS and (reader.int32() != 0 or reader.int16() != -1):
                return False
        if flexible and reader.uvarint() != 0:
            return False
        reader.int32()
        if flexible and reader.uvarint() != 0:
            return False
        return reader.remaining() == 0

    def take(self, base_offset: cython.longlong, append_time_ms: cython.longlong) -> None:
        """Take note of where the only batch is stored."""
        self.stored = [base_offset, append_time_ms]

    def finish(self, response: ApiMessage | None, error: KafkaError | None) -> None:
        """Call `told`, and let go of it."""
        told, self.told = self.told, None
        if told is not None:
            told(self, response, error)


@cython.cfunc
@cython.exceptval(check=True)
def _write_count(writer: Writer, count: cython.Py_ssize_t, flexible: cython.bint) -> cython.int:
    if flexible:
        writer.uvarint(count + 1)
    else:
        writer.int32(count)
    return 0


@cython.cfunc
@cython.exceptval(check=True)
def _read_count(reader: Reader, flexible: cython.bint) -> cython.longlong:
    return reader.uvarint() - 1 if flexible else reader.int32()
