"""What passes between a request's handler and whoever brought the request.

A handler answers at once with a response, later through a `Pending`, or with None where the
protocol has no reply. Nothing here knows a socket or an event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from ottla.errors import KafkaError
from ottla.protocol.message import ApiMessage

if TYPE_CHECKING:
    from ottla.clock import Clock

Answered = Callable[[ApiMessage | None], None]


class CloseConnection(KafkaError):
    """The only honest answer is to close the connection, such as to acks=0 that failed."""


class Context:
    """Where a request came from, and who wants to know what becomes of it.

    Attributes:
        host: the address that the client connected to; "" where there is no connection.
        port: its port; 0 where there is none.
        client_id: what the client calls itself.
        client_address: where it is.
        events: what happened to the request, as (event, nanoseconds of the monotonic clock); None
            where nobody looks.
    """

    __slots__ = ("client_address", "client_id", "events", "host", "port")

    def __init__(
        self,
        host: str = "",
        port: int = 0,
        client_id: str | None = None,
        client_address: str = "",
        events: list[tuple[str, int]] | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.client_id = client_id
        self.client_address = client_address
        self.events = events

    def note(self, event: str, clock: Clock) -> None:
        """Note an event for whoever looks."""
        if self.events is not None:
            self.events.append((event, clock.monotonic_ns()))


class Pending:
    """A response that comes later.

    Attributes:
        is_done: whether it is there.
        response: the response; None where none is to be sent.
        deadline_ms: when `expire` is called at the latest, on the monotonic clock; None for never.

    Args:
        deadline_ms: see above.
        expire: finishes it when its time is over.
    """

    __slots__ = ("_callbacks", "_expire", "deadline_ms", "is_done", "response")

    def __init__(
        self, deadline_ms: float | None = None, expire: Callable[[], None] | None = None
    ) -> None:
        self._begin()
        self.deadline_ms = deadline_ms
        self._expire = expire

    def _begin(self) -> None:
        self.is_done = False
        self.response: ApiMessage | None = None
        self.deadline_ms = None
        self._expire = None
        self._callbacks: list[Answered] = []

    def finish(self, response: ApiMessage | None) -> None:
        """Hand the response over; only the first one counts."""
        if self.is_done:
            return
        self.response = response
        self.is_done = True
        self._expire = None
        self._call()

    def when_done(self, callback: Answered) -> None:
        """Call `callback` with the response; at once where it is there. Any thread may ask."""
        self._callbacks.append(callback)
        if self.is_done:
            self._call()

    def _call(self) -> None:
        """Call every callback once, though two threads may meet here."""
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:
                return
            callback(self.response)

    def expire(self) -> None:
        """Tell that its time is over."""
        if not self.is_done and self._expire is not None:
            self._expire()


Reply: TypeAlias = ApiMessage | Pending | None
"""A handler's answer; None: no reply is to be sent."""
