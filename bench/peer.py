"""A connection that says exactly what is wanted, in Kafka's protocol, and waits for the answer."""

from __future__ import annotations

import socket
import struct
import time
from typing import TypeVar

from ottla.protocol.codec import decode, encode
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_22_init_producer_id import (
    InitProducerIdRequest,
    InitProducerIdResponse,
)
from ottla.protocol.messages.headers import RequestHeader

_SIZE = struct.Struct(">i")
_INIT_PRODUCER_ID_VERSION = 1
_NOT_YET = (14, 15)
"""Error codes of a broker that has just been started: loading, no coordinator."""

_M = TypeVar("_M", bound=ApiMessage)


def frame_of(request: ApiMessage, version: int) -> bytes:
    """Return a request as it is sent, of a version that is not flexible."""
    header = RequestHeader(
        request_api_key=request.API_KEY,
        request_api_version=version,
        correlation_id=1,
        client_id="bench",
    )
    data = encode(header, 1) + encode(request, version)
    return _SIZE.pack(len(data)) + data


class Peer:
    """The connection.

    Args:
        address: "host:port" of the broker.
        timeout_s: how long an answer may take.

    Attributes:
        socket: its socket.
    """

    def __init__(self, address: str, timeout_s: float) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """End the connection."""
        self.socket.close()

    def receive_frame(self) -> bytes:
        """Wait for a response; returns it as it came, with the correlation id."""
        return self._exactly(_SIZE.unpack(self._exactly(_SIZE.size))[0])

    def ask(self, request: ApiMessage, version: int, expected: type[_M]) -> _M:
        """Send a request of a version that is not flexible, and return the response.

        Raises:
            ConnectionError: the broker is gone.
        """
        self.socket.sendall(frame_of(request, version))
        return decode(expected, self.receive_frame()[4:], version)

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise ConnectionError("the broker has closed the connection")
            data += more
        return bytes(data)

    def new_producer_id(self) -> int:
        """Return a producer id of the broker's."""
        request = InitProducerIdRequest(transactional_id=None)
        while True:
            response = self.ask(request, _INIT_PRODUCER_ID_VERSION, InitProducerIdResponse)
            if response.error_code not in _NOT_YET:
                assert response.error_code == 0, f"error {response.error_code}"
                return response.producer_id
            time.sleep(0.01)
