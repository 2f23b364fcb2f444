"""A broker's engine without a network: requests go in as objects, and time stands still."""

from __future__ import annotations

from typing import Any

from ottla.broker.apis import APIS
from ottla.broker.engine import Engine
from ottla.broker.requests import Context, Pending
from ottla.broker.router import find_served, handle
from ottla.clock import ManualClock
from ottla.log.memory_files import MemoryFiles
from ottla.protocol.codec import decode, encode
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_00_produce import ProduceRequest, ProduceResponse
from ottla.protocol.messages.api_01_fetch import FetchRequest, FetchResponse
from ottla.records.builder import BatchBuilder


class Asking:
    """An engine and whoever asks it.

    Every request and every response goes through the codec at its version, as it would on the wire.
    """

    def __init__(self, files: MemoryFiles | None = None, **settings: str) -> None:
        self.clock = ManualClock()
        self.files = files or MemoryFiles(model_power_cuts=True)
        self.settings = {name.replace("_", "."): value for name, value in settings.items()}
        self.engine = Engine.open(self.files, "store", self.clock, self.settings)

    def ask_nowait(
        self, request: ApiMessage, version: int | None = None, context: Context | None = None
    ) -> Any:
        """Ask, and return the response, a `Pending`, or None; nothing is synced."""
        at = APIS[request.API_KEY].max_version if version is None else version
        if at >= request.SCHEMA.versions[0]:
            request = decode(type(request), encode(request, at), at)
        return handle(self.engine, request, at, context or Context("here", 9092, "test"))

    def ask(
        self, request: ApiMessage, version: int | None = None, context: Context | None = None
    ) -> Any:
        """Ask, sync what is to be synced, and return the response as it is on the wire."""
        reply = self.ask_nowait(request, version, context)
        if isinstance(reply, Pending):
            self.sync()
            assert reply.is_done
            reply = reply.response
        at = APIS[request.API_KEY].max_version if version is None else version
        served = find_served(request.API_KEY << 16 | at)
        if reply is None or served is None or at < served.response_class.SCHEMA.versions[0]:
            return reply
        return decode(served.response_class, encode(reply, at), at)

    def sync(self) -> None:
        """Run rounds of syncs until nothing waits, and remove what is to be removed."""
        while (begun := self.engine.commit.begin()) is not None:
            self.engine.commit.end(begun.run())
        self.engine.remove_files()

    def create(self, name: str, partitions: int = 1, **configs: str) -> bytes:
        """Create a topic and return its id."""
        dotted = {key.replace("_", "."): value for key, value in configs.items()}
        outcome = self.engine.create_topic(name, partitions, dotted)
        assert outcome.topic is not None, outcome
        self.sync()
        return outcome.topic.topic_id

    def after_power_cut(self) -> Asking:
        """Return the same broker as it starts after a power cut now."""
        return Asking(self.files.after_power_cut())

    def produce(
        self,
        topic: str,
        batch: bytes | memoryview | None,
        *,
        partition: int = 0,
        acks: int = -1,
        version: int = 12,
    ) -> ProduceResponse.PartitionProduceResponse:
        """Produce one batch and return what is answered for its partition."""
        response = self.ask(produce_request(topic, batch, partition=partition, acks=acks), version)
        assert isinstance(response, ProduceResponse)
        return response.responses[0].partition_responses[0]

    def fetch(
        self, topic: str, offset: int = 0, *, version: int = 12, **settings: int
    ) -> FetchResponse.PartitionData:
        """Fetch from partition 0 without waiting and return what is answered for it."""
        response = self.ask(fetch_request(topic, offset, **settings), version)
        assert isinstance(response, FetchResponse)
        return response.responses[0].partitions[0]


def produce_request(
    topic: str, batch: bytes | memoryview | None, *, partition: int = 0, acks: int = -1
) -> ProduceRequest:
    """Return a Produce request for one partition."""
    data = ProduceRequest.PartitionProduceData(index=partition, records=batch)
    return ProduceRequest(
        acks=acks,
        timeout_ms=1000,
        topic_data=[ProduceRequest.TopicProduceData(name=topic, partition_data=[data])],
    )


def fetch_request(topic: str, offset: int = 0, **settings: int) -> FetchRequest:
    """Return a Fetch request for partition 0 of a topic.

    Args:
        topic: the topic.
        offset: where to begin.
        settings: fields of the request, `partition_max_bytes` and `current_leader_epoch`.
    """
    partition = FetchRequest.FetchPartition(
        partition=0,
        fetch_offset=offset,
        partition_max_bytes=settings.pop("partition_max_bytes", 1 << 20),
        current_leader_epoch=settings.pop("current_leader_epoch", -1),
    )
    topics = [FetchRequest.FetchTopic(topic=topic, partitions=[partition])]
    request = FetchRequest(max_bytes=1 << 20, topics=topics)
    for name, value in settings.items():
        setattr(request, name, value)
    return request


def batch_of_values(
    *values: bytes | None,
    key: bytes | None = b"k",
    timestamp_ms: int = 1_700_000_000_000,
    codec: int = 0,
    producer: tuple[int, int, int] = (-1, -1, -1),
) -> memoryview:
    """Build a batch; `producer` is producer id, epoch and base sequence."""
    builder = BatchBuilder()
    for value in values:
        builder.append(timestamp_ms, key, value, None, 1 << 30)
    return builder.build(codec, None, *producer)
