"""The seam between the client and whatever carries its requests.

A `Network` opens `Channel`s; a channel carries requests to one node and brings each its answer, in
order. There are two: Kafka's protocol over TCP (`ottla.client.tcp`) and a broker in this process
(`ottla.embedded`). Nothing here or above it knows a socket.

One thread at a time drives a network: it calls `poll`, and everything that has arrived is handed
over inside of that call. Only `wake` may be called by any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ottla.errors import BrokerUnavailable, KafkaError
    from ottla.protocol.message import ApiMessage

BrokerEvents = list[tuple[str, int]]
"""What a broker saw of a request: (event, nanoseconds since it had received the request)."""


class Call:
    """One request on its way.

    Attributes:
        request: the request.
        request_class: its class.
        api_key: the API that it asks.
        flexible_from: the first version of the request that is flexible.
        response_class: the class of its response.
        response_flexible_from: the first version of the response that is flexible.
        version: the API version of both.
        done: is called once, with the response or with why there is none. Any: the caller knows
            the class of the response.
        expects_response: False where the broker answers nothing (acks=0): `done` is called with
            neither once the request has left.
        traced: whether the broker is asked what it sees of the request.
        timeout_ms: how long the answer may take; None for as long as the client's answers may.
        deadline_ms: when the answer must be there; the monotonic clock.
        correlation_id: what a channel that numbers its requests has given it.
        sent_ns: when it was handed to the network.
        answered_ns: when the answer was there.
        broker_events: what the broker saw, where it was asked and tells.
    """

    __slots__ = (
        "_request",
        "answered_ns",
        "api_key",
        "broker_events",
        "correlation_id",
        "deadline_ms",
        "done",
        "expects_response",
        "flexible_from",
        "request_class",
        "response_class",
        "response_flexible_from",
        "sent_ns",
        "timeout_ms",
        "traced",
        "version",
    )

    def __init__(
        self,
        request: ApiMessage,
        response_class: type[ApiMessage],
        done: Callable[[Any, KafkaError | None], None],
        *,
        expects_response: bool = True,
        traced: bool = False,
        timeout_ms: float | None = None,
    ) -> None:
        self._begin(request, type(request), response_class)
        self.api_key = request.API_KEY
        self.flexible_from = request.SCHEMA.flexible
        self.response_flexible_from = response_class.SCHEMA.flexible
        self.done: Callable[[Any, KafkaError | None], None] | None = done
        self.expects_response = expects_response
        self.traced = traced
        self.timeout_ms = timeout_ms

    def _begin(
        self,
        request: ApiMessage | None,
        request_class: type[ApiMessage],
        response_class: type[ApiMessage],
    ) -> None:
        self._request = request
        self.request_class = request_class
        self.response_class = response_class
        self.version = 0
        self.deadline_ms = 0.0
        self.correlation_id = 0
        self.sent_ns = 0
        self.answered_ns = 0
        self.broker_events: BrokerEvents | None = None

    @property
    def request(self) -> ApiMessage:
        """The request, made when somebody wants it as an object."""
        if self._request is None:
            self._request = self._make_request()
        return self._request

    def _make_request(self) -> ApiMessage:
        raise NotImplementedError

    def finish(self, response: ApiMessage | None, error: KafkaError | None) -> None:
        """Call `done`, and let go of it.

        What it holds may hold this call: nobody but the garbage collector would free either, nor
        the records of a request.
        """
        done, self.done = self.done, None
        if done is not None:
            done(response, error)


class Channel(Protocol):
    """An open way to one node."""

    peer: str
    """What it leads to, in words for people."""

    def send(self, call: Call) -> None:
        """Send a request; its answer is handed over in a later `Network.poll`."""
        ...

    def why_gone(self) -> KafkaError | None:
        """Return why an idle channel cannot be used any more, as far as that is known already.

        What is sent over a channel that the peer has closed is lost, and nobody can tell whether it
        was before the peer took it; so it is better looked for before.
        """
        ...

    def close(self) -> None:
        """Close it; nothing is handed over any more, and `lost` is not called."""
        ...


class Listener(Protocol):
    """Who wanted a channel."""

    def connected(self, channel: Channel) -> None:
        """Take the channel: it can be used."""
        ...

    def refused(self, error: BrokerUnavailable) -> None:
        """Take note that there will be no channel."""
        ...

    def answered(self, call: Call, response: ApiMessage | None) -> None:
        """Take a response; None where the call has read it itself."""
        ...

    def left(self, call: Call) -> None:
        """Take note that a request without a response has been handed to the peer."""
        ...

    def lost(self, error: KafkaError) -> None:
        """Take note that the channel broke; what had no answer will never get one."""
        ...


class Network(Protocol):
    """What opens channels."""

    bootstrap: list[tuple[str, int]]
    """Where to begin: (host, port)."""

    address: str
    """The same in words for people."""

    def connect(self, host: str, port: int, listener: Listener) -> Callable[[], None]:
        """Begin to open a channel, and return what gives that up again."""
        ...

    def poll(self, timeout_s: float) -> None:
        """Wait until something arrives, somebody calls `wake` or the time is over; hand it over."""
        ...

    def wake(self) -> None:
        """End a `poll` that waits, in whatever thread; or the next one."""
        ...

    def close(self) -> None:
        """Close everything."""
        ...
