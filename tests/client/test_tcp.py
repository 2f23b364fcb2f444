"""A channel over TCP: what it does when the socket does not take what is sent."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from ottla.client.network import Call, Channel
from ottla.client.tcp import TcpChannel, TcpNetwork
from ottla.clock import SYSTEM
from ottla.errors import BrokerUnavailable, KafkaError
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_03_metadata import MetadataRequest, MetadataResponse

_SIZES = struct.Struct(">ihhi")
"""Of a request: its size, the API, the version and its number."""


class Told:
    """Remembers what a channel told."""

    def __init__(self) -> None:
        self.lost_because: list[KafkaError] = []

    def connected(self, channel: Channel) -> None:
        raise AssertionError("it is connected already")

    def refused(self, error: BrokerUnavailable) -> None:
        raise AssertionError("it is connected already")

    def answered(self, call: Call, response: ApiMessage | None) -> None:
        raise AssertionError("nobody answers here")

    def left(self, call: Call) -> None:
        raise AssertionError("everything wants an answer here")

    def lost(self, error: KafkaError) -> None:
        self.lost_because.append(error)


class Both:
    """Both ends of a connection: a channel, and its peer's socket."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.peer.setblocking(False)
        self.told = Told()
        self.network = TcpNetwork([], "test", SYSTEM)
        self.channel = TcpChannel(self.network, ours, "the peer", self.told)

    def send(self, topic: str) -> None:
        """Send a request that is one piece."""
        request = MetadataRequest(topics=[MetadataRequest.MetadataRequestTopic(name=topic)])
        call = Call(request, MetadataResponse, lambda response, error: None)
        call.version = 9
        self.channel.send(call)


@pytest.fixture
def both() -> Iterator[Both]:
    both = Both()
    yield both
    both.network.close()
    both.peer.close()


def test_requests_that_the_socket_does_not_take_leave_whole_and_in_order(both: Both) -> None:
    for number in range(3000):
        both.send("x" * (number % 200 + 1))
    stream = bytearray()
    numbers: list[int] = []
    while len(numbers) < 3000:
        both.network.poll(0)
        stream += both.peer.recv(100_000)
        while len(stream) >= 4 and len(stream) >= 4 + int.from_bytes(stream[:4], "big"):
            size, api, version, number = _SIZES.unpack_from(stream)
            assert (api, version) == (3, 9)
            numbers.append(number)
            del stream[: 4 + size]
    assert numbers == list(range(1, 3001))
    assert not stream


def test_a_connection_that_breaks_under_a_request_is_told_in_the_next_turn(both: Both) -> None:
    both.peer.close()
    both.send("t")
    assert both.told.lost_because == []
    both.network.poll(0)
    (why,) = both.told.lost_because
    assert why.what == "the connection to the peer was lost: the other side closed it"
