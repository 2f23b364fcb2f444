"""A network without a network: the test is the broker, and the clock stands still until told."""

from collections.abc import Callable
from typing import Any

from ottla.client.config import ProducerConfig
from ottla.client.delivery import Delivery
from ottla.client.network import Call, Listener
from ottla.client.producer_core import ProducerCore
from ottla.clock import ManualClock
from ottla.errors import BrokerUnavailable, codes
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_00_produce import ProduceRequest, ProduceResponse
from ottla.protocol.messages.api_03_metadata import MetadataRequest, MetadataResponse
from ottla.protocol.messages.api_18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from ottla.protocol.messages.api_22_init_producer_id import (
    InitProducerIdRequest,
    InitProducerIdResponse,
)
from ottla.records.batch import read_header

TOPIC_ID = bytes(range(16))


class ScriptedChannel:
    """Collects the calls that are made."""

    peer = "script:1"

    def __init__(self, network: "ScriptedNetwork", listener: Listener) -> None:
        self.network = network
        self.listener = listener
        self.is_open = True

    def send(self, call: Call) -> None:
        call.sent_ns = self.network.clock.monotonic_ns()
        assert call.request is not None, "taken as it is when it is sent"
        if not call.expects_response:
            self.network.arriving.append(lambda: self.listener.left(call))
        self.network.calls.append((self, call))

    def why_gone(self) -> None:
        return None

    def close(self) -> None:
        self.is_open = False

    def lose(self, reason: str = "gone") -> None:
        """Break the connection."""
        if self.is_open:
            self.is_open = False
            self.listener.lost(BrokerUnavailable(reason, stage="connection"))


class ScriptedNetwork:
    """Connects at once, unless `refuses`, and hands over what the test answers."""

    def __init__(self, clock: ManualClock) -> None:
        self.bootstrap = [("script", 1)]
        self.address = "script:1"
        self.clock = clock
        self.refuses = False
        self.calls: list[tuple[ScriptedChannel, Call]] = []
        self.arriving: list[Callable[[], None]] = []
        self.channels: list[ScriptedChannel] = []

    def connect(self, host: str, port: int, listener: Listener) -> Callable[[], None]:
        if self.refuses:
            error = BrokerUnavailable("nothing is listening on script:1 (refused)")
            self.arriving.append(lambda: listener.refused(error))
            return lambda: None
        channel = ScriptedChannel(self, listener)
        self.channels.append(channel)
        self.arriving.append(lambda: listener.connected(channel))
        return channel.close

    def poll(self, timeout_s: float) -> None:
        arriving, self.arriving = self.arriving, []
        for arrived in arriving:
            arrived()

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


class _CoreWithoutThread(ProducerCore):
    """Does nothing by itself: the test says when."""

    def _notify(self, filled: bool) -> None:
        pass


class Script:
    """A producer's core with a test for a broker.

    Attributes:
        produced: the calls that wait for the test's answer.
        next_producer_id: what the next InitProducerId is answered with.
    """

    def __init__(self, partitions: int = 1, **settings: Any) -> None:
        self.clock = ManualClock()
        self.network = ScriptedNetwork(self.clock)
        self.core = _CoreWithoutThread(self.network, ProducerConfig(**settings), self.clock)
        self.partitions = partitions
        self.topic_error = codes.NONE
        self.next_producer_id = 100
        self.produced: list[tuple[ScriptedChannel, Call]] = []

    def send(self, value: bytes = b"x", partition: int = -1) -> Delivery:
        """Send a record to topic t."""
        delivery = self.core.accumulator.append("t", partition, -1, None, value, None)
        assert isinstance(delivery, Delivery)
        return delivery

    def settle(self) -> None:
        """Have a first record stored, so that more than one request may be under way."""
        self.send()
        self.run()
        self.answer()
        self.run()

    def run(self, milliseconds: float = 0) -> None:
        """Let time pass and do turns until nothing moves; all but produce is answered."""
        self.clock.advance(milliseconds)
        for _ in range(30):
            self.core.step()
            self.network.poll(0)
            calls, self.network.calls = self.network.calls, []
            for channel, call in calls:
                if isinstance(call.request, ProduceRequest):
                    self.produced.append((channel, call))
                else:
                    self._answer(channel, call, self._response(call.request))

    def _answer(self, channel: ScriptedChannel, call: Call, response: ApiMessage) -> None:
        if channel.is_open:
            channel.listener.answered(call, response)

    def _response(self, request: ApiMessage) -> ApiMessage:
        if isinstance(request, ApiVersionsRequest):
            api = ApiVersionsResponse.ApiVersion
            ranges = {0: (3, 13), 1: (4, 13), 2: (1, 7), 3: (0, 13), 18: (0, 4), 22: (0, 5)}
            keys = [
                api(api_key=key, min_version=low, max_version=high)
                for key, (low, high) in ranges.items()
            ]
            return ApiVersionsResponse(api_keys=keys)
        if isinstance(request, InitProducerIdRequest):
            self.next_producer_id += 1
            return InitProducerIdResponse(producer_id=self.next_producer_id, producer_epoch=0)
        assert isinstance(request, MetadataRequest)
        partition = MetadataResponse.MetadataResponsePartition
        topics = [
            MetadataResponse.MetadataResponseTopic(
                name=each.name,
                topic_id=TOPIC_ID,
                error_code=self.topic_error,
                partitions=[
                    partition(partition_index=number, leader_id=1)
                    for number in range(0 if self.topic_error else self.partitions)
                ],
            )
            for each in request.topics or ()
        ]
        broker = MetadataResponse.MetadataResponseBroker(node_id=1, host="script", port=1)
        return MetadataResponse(brokers=[broker], cluster_id="c", controller_id=1, topics=topics)

    def batches(self, index: int = 0) -> list[tuple[int, int, int, int]]:
        """Return (partition, producer id, base sequence, records) of a waiting produce call."""
        request = self.produced[index][1].request
        assert isinstance(request, ProduceRequest)
        found = []
        for topic in request.topic_data:
            for each in topic.partition_data:
                header = read_header(each.records or b"")
                found.append(
                    (each.index, header.producer_id, header.base_sequence, header.records_count)
                )
        return found

    def answer(self, index: int = 0, *, error: int = 0, offset: int = 0) -> None:
        """Answer a waiting produce call, every partition alike."""
        channel, call = self.produced.pop(index)
        request = call.request
        assert isinstance(request, ProduceRequest)
        part = ProduceResponse.PartitionProduceResponse
        topics = [
            ProduceResponse.TopicProduceResponse(
                name=topic.name,
                topic_id=topic.topic_id,
                partition_responses=[
                    part(
                        index=each.index,
                        error_code=error,
                        base_offset=-1 if error else offset,
                        log_append_time_ms=-1,
                    )
                    for each in topic.partition_data
                ],
            )
            for topic in request.topic_data
        ]
        self._answer(channel, call, ProduceResponse(responses=topics))

    def lose(self) -> None:
        """Break the connection; what waits for an answer gets none."""
        self.produced.clear()
        self.network.channels[-1].lose()
