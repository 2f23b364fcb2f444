"""Connections: what goes over the wire, in which order, and what ends a connection."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterator

import pytest

from ottla import Broker, Producer
from ottla.errors import codes
from ottla.protocol.codec import decode, decode_from, encode
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_01_fetch import FetchRequest
from ottla.protocol.messages.api_03_metadata import MetadataRequest, MetadataResponse
from ottla.protocol.messages.api_18_api_versions import ApiVersionsRequest, ApiVersionsResponse
from ottla.protocol.messages.headers import RequestHeader
from ottla.wire.cursor import Reader
from tests.broker.asking import batch_of_values, produce_request


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(settings={"socket.request.max.bytes": "100000"}) as broker:
        broker.listen()
        yield broker


class Peer:
    """A client that says exactly what the test wants."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, request: ApiMessage, version: int, correlation_id: int = 1) -> None:
        self.socket.sendall(frame(request, version, correlation_id))

    def receive(self) -> bytes:
        """Return the next frame; nothing at the end of the connection."""
        head = self._exactly(4)
        return self._exactly(struct.unpack(">i", head)[0]) if head else b""

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                return b""
            data += more
        return data

    def is_closed(self) -> bool:
        """Wait for the broker to close the connection."""
        try:
            return self.receive() == b""
        except ConnectionResetError:
            return True


def frame(request: ApiMessage, version: int, correlation_id: int) -> bytes:
    flexible = version >= request.SCHEMA.flexible
    header = RequestHeader(
        request_api_key=request.API_KEY,
        request_api_version=version,
        correlation_id=correlation_id,
        client_id="peer",
    )
    data = encode(header, 2 if flexible else 1) + encode(request, version)
    return struct.pack(">i", len(data)) + data


def metadata() -> MetadataRequest:
    return MetadataRequest(topics=[])


def correlation_of(answer: bytes) -> int:
    return int.from_bytes(answer[:4], "big")


@pytest.mark.parametrize("version", range(5))
def test_api_versions_has_a_plain_header_at_every_version(broker: Broker, version: int) -> None:
    request = ApiVersionsRequest(client_software_name="a", client_software_version="1")
    with Peer(broker.address) as peer:
        peer.send(request, version, 77)
        reader = Reader(peer.receive())
    assert reader.int32() == 77
    response = decode_from(ApiVersionsResponse, reader, version)
    reader.finish()
    ranges = {each.api_key: (each.min_version, each.max_version) for each in response.api_keys}
    assert ranges[0] == (0, 13)
    assert ranges[1] == (4, 18)
    assert ranges[3] == (0, 13)
    assert ranges[18] == (0, 4)
    assert ranges[8] == (0, 10)
    assert 4 not in ranges


def test_an_api_versions_that_is_too_new_is_answered_in_version_0(broker: Broker) -> None:
    with Peer(broker.address) as peer:
        data = struct.pack(">hhih", 18, 99, 5, 1) + b"x" + b"\0whatever comes in version 99"
        peer.socket.sendall(struct.pack(">i", len(data)) + data)
        answer = peer.receive()
        assert correlation_of(answer) == 5
        response = decode(ApiVersionsResponse, answer[4:], 0)
        assert response.error_code == codes.UNSUPPORTED_VERSION
        assert 18 in {each.api_key for each in response.api_keys}
        peer.send(metadata(), 12, 6)
        assert correlation_of(peer.receive()) == 6


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_a_produce_that_the_broker_fails_at_ends_its_connection_and_no_other(
    broker: Broker,
    durability: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with broker.engine.lock:
        broker.engine.create_topic("t", 1, {"ottla.durability": durability})

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(broker.engine, "append", fail)
    with Peer(broker.address) as peer, Peer(broker.address) as other:
        peer.send(produce_request("t", batch_of_values(b"a")), 9, 1)
        assert peer.is_closed()
        other.send(metadata(), 12, 6)
        assert correlation_of(other.receive()) == 6
    assert "ProduceRequest version 9 could not be answered" in caplog.text
    assert "the broker failed to answer ProduceRequest: a bug" in caplog.text


@pytest.mark.parametrize(("name", "version"), [("", "1"), ("a", ""), ("a b", "1"), ("-a", "1")])
def test_bad_names_of_client_software_are_refused(broker: Broker, name: str, version: str) -> None:
    request = ApiVersionsRequest(client_software_name=name, client_software_version=version)
    with Peer(broker.address) as peer:
        peer.send(request, 3)
        response = decode(ApiVersionsResponse, peer.receive()[4:], 3)
    assert response.error_code == codes.INVALID_REQUEST


def test_a_client_need_not_ask_for_versions_at_all(broker: Broker) -> None:
    with Peer(broker.address) as peer:
        peer.send(metadata(), 1, 9)
        answer = peer.receive()
    assert decode(MetadataResponse, answer[4:], 1).brokers[0].port == int(
        broker.address.rpartition(":")[2]
    )


def test_pipelined_requests_are_answered_in_order_behind_one_that_waits(broker: Broker) -> None:
    with Producer(broker) as producer:
        producer.send("t", b"x")
        producer.flush()
        partition = FetchRequest.FetchPartition(fetch_offset=1, partition_max_bytes=1000)
        topic = FetchRequest.FetchTopic(topic="t", partitions=[partition])
        waiting = FetchRequest(min_bytes=1, max_wait_ms=30_000, max_bytes=1000, topics=[topic])
        with Peer(broker.address) as peer:
            requests = [frame(waiting, 12, 1)]
            requests += [frame(metadata(), 12, number) for number in range(2, 50)]
            peer.socket.sendall(b"".join(requests))
            producer.send("t", b"y")
            producer.flush()
            assert [correlation_of(peer.receive()) for _ in range(49)] == list(range(1, 50))


def test_a_request_may_arrive_byte_by_byte(broker: Broker) -> None:
    with Peer(broker.address) as peer:
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in (1, 2):
            for byte in frame(metadata(), 12, number):
                peer.socket.sendall(bytes([byte]))
            assert correlation_of(peer.receive()) == number


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes.fromhex("1603010200010001fc0303") + b"\0" * 50,
        struct.pack(">i", 100_001) + b"x",
        struct.pack(">i", -1),
        struct.pack(">i", 3) + b"abc",
        struct.pack(">ihhih", 10, 9999, 0, 1, -1),
        struct.pack(">ihhih", 10, 3, 99, 1, -1),
        struct.pack(">ihhih", 10, 3, -1, 1, -1),
        struct.pack(">ihhihi", 14, 3, 1, 1, -1, 1_000_000),
        struct.pack(">ihhih", 10, 3, 1, 1, -1),
    ],
)
def test_what_is_no_request_closes_only_its_own_connection_with_a_line_in_the_log(
    broker: Broker, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ottla.broker")
    with Peer(broker.address) as good, Peer(broker.address) as bad:
        bad.socket.sendall(said)
        assert bad.is_closed()
        good.send(metadata(), 12, 3)
        assert correlation_of(good.receive()) == 3
    assert [record for record in caplog.records if record.name == "ottla.broker"]


def test_bytes_behind_a_request_are_passed_over_as_librdkafka_sends_them(broker: Broker) -> None:
    # Metadata 13 for all topics, as AdminClient.list_topics of confluent-kafka 2.16 sends it.
    sent = bytes.fromhex("0003000d00000003000772646b61666b610000000000010000")
    with Peer(broker.address) as peer:
        peer.socket.sendall(struct.pack(">i", len(sent)) + sent)
        assert correlation_of(peer.receive()) == 3


def test_a_connection_that_is_idle_for_too_long_is_closed() -> None:
    broker = Broker(settings={"connections.max.idle.ms": "50"})
    with broker, Peer(broker.listen()) as peer:
        assert peer.is_closed()


def test_a_peer_that_does_not_read_is_not_read_from(broker: Broker) -> None:
    with Peer(broker.address) as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.socket.settimeout(0.5)
        request = frame(ApiVersionsRequest(), 0, 1)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 100_000_000:
                sent += peer.socket.send(request * 1000)
    with Peer(broker.address) as other:
        other.send(metadata(), 12, 3)
        assert correlation_of(other.receive()) == 3


def test_a_broker_that_is_closed_lets_go_of_its_port_and_its_connections() -> None:
    broker = Broker()
    address = broker.listen()
    with Peer(address) as peer:
        broker.close()
        assert peer.is_closed()
    host, _, port = address.rpartition(":")
    with Broker() as again:
        assert again.listen(host, int(port)) == address
