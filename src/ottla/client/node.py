"""One broker as the client sees it: a connection that is made when it is needed.

    IDLE --want--> CONNECTING --connected--> HANDSHAKE --versions known--> READY
    any state --refused, lost, late--> IDLE, and not before `next_try_ms` again

The handshake asks which versions the broker speaks (KIP-511). What was under way when a connection
is lost gets the error; who sent it decides whether to send it again.

Kafka: NetworkClient, ClusterConnectionStates.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cython

from ottla._version import VERSION
from ottla.client.network import Call
from ottla.errors import BrokerUnavailable, KafkaError, NotKafka, codes
from ottla.protocol.messages.api_18_api_versions import ApiVersionsRequest, ApiVersionsResponse

if cython.compiled:
    from cython.cimports.ottla.clock import monotonic_ms_of, monotonic_ns_of
else:
    from ottla.clock import monotonic_ms_of, monotonic_ns_of

if TYPE_CHECKING:
    from ottla.client.config import ClientConfig
    from ottla.client.network import Channel, Network
    from ottla.clock import Clock
    from ottla.protocol.message import ApiMessage

_LOG = logging.getLogger("ottla.client")
_HANDSHAKE_VERSION = 3
_BACKOFF_MS = 100.0
_BACKOFF_MS_MAX = 1000.0
GIVE_UP_TRIES = 3
"""After so many refusals a broker that was never reached is given up."""


class NodeState(enum.Enum):
    """How far the connection is."""

    IDLE = "idle"
    CONNECTING = "connecting"
    HANDSHAKE = "handshake"
    READY = "ready"


_IDLE = cython.declare(object, NodeState.IDLE)
_CONNECTING = cython.declare(object, NodeState.CONNECTING)
_HANDSHAKE = cython.declare(object, NodeState.HANDSHAKE)
_READY = cython.declare(object, NodeState.READY)


class Node:
    """One broker.

    Attributes:
        host: its name.
        port: its port.
        peer: what it is connected to, in words for people.
        state: how far the connection is.
        was_ready: whether it was ever reached.
        tries: attempts that failed since it was last reached.
        failure: why the last one failed, or None.
        first_failure_ms: when the first of them failed; the monotonic clock.
        connected_ns: when it was last reached.

    Args:
        network: what opens connections.
        host: its name.
        port: its port.
        clock: where time comes from.
        config: the client's settings.
    """

    def __init__(
        self, network: Network, host: str, port: int, clock: Clock, config: ClientConfig
    ) -> None:
        self.host = host
        self.port = port
        self.peer = f"{host}:{port}"
        self.state = _IDLE
        self.was_ready = False
        self.tries = 0
        self.failure: KafkaError | None = None
        self.first_failure_ms = 0.0
        self.connected_ns = 0
        self.next_try_ms = 0.0
        self._network = network
        self._clock = clock
        self._request_timeout_ms = config.request_timeout_ms
        self._startup_timeout_ms = config.startup_limit_ms
        self._versions: dict[int, tuple[int, int]] = {}
        self._last_class: type[ApiMessage] | None = None
        self._last_version_max = 0
        self._last_version = -1
        self._channel: Channel | None = None
        self._give_up: Callable[[], None] | None = None
        self._deadline_ms = 0.0
        self._in_flight: list[Call] = []

    def __repr__(self) -> str:
        return f"<Node {self.host}:{self.port} {self.state.value}>"

    def in_flight(self) -> int:
        """Return how many requests have no answer yet."""
        return len(self._in_flight)

    def is_ready(self) -> bool:
        """Tell whether requests can be sent; begins to connect where they cannot."""
        if self.state is _READY:
            assert self._channel is not None
            if self._in_flight:
                return True
            gone = self._channel.why_gone()
            if gone is None:
                return True
            self._failed(gone)
        now = monotonic_ms_of(self._clock)
        if self.state is _IDLE and now >= self.next_try_ms:
            self.state = _CONNECTING
            self._deadline_ms = now + self._startup_timeout_ms
            self._give_up = self._network.connect(self.host, self.port, self)
        return False

    def best_version(self, request_class: type[ApiMessage], version_max: int = 0x7FFF) -> int:
        """Return the highest version of an API that both sides speak, or -1."""
        low, high = self._versions.get(request_class.API_KEY, (0, -1))
        own_low, own_high = request_class.SCHEMA.versions
        version = min(high, own_high, version_max)
        return version if version >= max(low, own_low) else -1

    def send(self, call: Call, version_max: cython.int = 0x7FFF) -> None:
        """Send a request to a broker that is ready, in the best version that both sides speak."""
        assert self._channel is not None
        if self.state is not _HANDSHAKE:
            call.version = self._version_of(call, version_max)
            if call.version < 0:
                name = call.request_class.__name__.removesuffix("Request")
                call.finish(None, KafkaError(f"the broker {self.peer} does not support {name}"))
                return
        call.deadline_ms = monotonic_ms_of(self._clock) + self._timeout_ms(call)
        self._in_flight.append(call)
        self._channel.send(call)

    def _version_of(self, call: Call, version_max: cython.int) -> int:
        """Return the version for a request, or -1; that of one of a kind is not looked up again."""
        if call.request_class is not self._last_class or version_max != self._last_version_max:
            self._last_version = self.best_version(call.request_class, version_max)
            self._last_class = call.request_class
            self._last_version_max = version_max
        return self._last_version

    def _timeout_ms(self, call: Call) -> float:
        return self._request_timeout_ms if call.timeout_ms is None else call.timeout_ms

    # -- what the network tells

    def connected(self, channel: Channel) -> None:
        """Take the channel, and ask for the versions."""
        self._channel = channel
        self.peer = channel.peer
        self._give_up = None
        self.state = _HANDSHAKE
        self._ask_versions(_HANDSHAKE_VERSION)

    def _ask_versions(self, version: int) -> None:
        request = ApiVersionsRequest(client_software_name="ottla", client_software_version=VERSION)
        call = Call(request, ApiVersionsResponse, self._versions_known)
        call.version = version
        self.send(call)

    def _versions_known(
        self, response: ApiVersionsResponse | None, error: KafkaError | None
    ) -> None:
        if response is None:
            return
        self._versions = {
            each.api_key: (each.min_version, each.max_version) for each in response.api_keys
        }
        self._last_class = None
        if response.error_code == codes.UNSUPPORTED_VERSION:
            _, high = self._versions.get(ApiVersionsRequest.API_KEY, (0, 0))
            self._ask_versions(min(high, _HANDSHAKE_VERSION - 1))
            return
        if response.error_code != codes.NONE:
            self.lost(NotKafka(f"{self.peer} refused the handshake: error {response.error_code}"))
            return
        if self.tries:
            _LOG.warning("connected to %s after %d tries", self.peer, self.tries + 1)
        self.state = _READY
        self.was_ready = True
        self.tries = 0
        self.failure = None
        self.connected_ns = monotonic_ns_of(self._clock)

    def refused(self, error: BrokerUnavailable) -> None:
        """Take note that it could not be reached."""
        self._failed(error)

    def answered(self, call: Call, response: ApiMessage | None) -> None:
        """Give an answer to who asked; None where the call has read it itself."""
        self._forget(call)
        call.finish(response, None)

    def left(self, call: Call) -> None:
        """Tell who sent a request without an answer that it left."""
        self._forget(call)
        call.finish(None, None)

    def _forget(self, call: Call) -> None:
        if self._in_flight[0] is call:
            del self._in_flight[0]
        else:
            self._in_flight.remove(call)

    def lost(self, error: KafkaError) -> None:
        """Take note that the connection broke."""
        if self.state is _HANDSHAKE and not isinstance(error, NotKafka):
            error = BrokerUnavailable(
                f"{self.peer} accepts connections but does not answer as a broker: {error.what}",
                next_steps=("Give the plain-text port of a Kafka broker.",),
                address=f"{self.host}:{self.port}",
                stage="handshake",
            )
        self._failed(error)

    def _failed(self, error: KafkaError) -> None:
        now = monotonic_ms_of(self._clock)
        was_ready = self.state is _READY
        if self.tries == 0:
            self.first_failure_ms = now
        self.tries += 0 if was_ready else 1
        self.failure = error
        self.disconnect(error)
        backoff = min(_BACKOFF_MS * 2 ** max(self.tries - 1, 0), _BACKOFF_MS_MAX)
        self.next_try_ms = now + (0.0 if was_ready else backoff)
        if was_ready:
            _LOG.warning("%s", error.what)

    def disconnect(self, error: KafkaError) -> None:
        """Close the connection; what is under way gets the error."""
        if self._give_up is not None:
            self._give_up()
            self._give_up = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            self.peer = f"{self.host}:{self.port}"
        self.state = _IDLE
        in_flight, self._in_flight = self._in_flight, []
        for call in in_flight:
            call.finish(None, error)

    # -- time

    def next_try(self, now_ms: float) -> float | None:
        """Return when it may be connected to again, on the monotonic clock, or None.

        Where that time has come and nobody tries it, it is not needed now.
        """
        is_waiting = self.state is _IDLE and self.next_try_ms > now_ms
        return self.next_try_ms if is_waiting else None

    def expire(self, now_ms: float) -> float | None:
        """Give up what is late; returns when to look again, on the monotonic clock, or None."""
        if self.state is _CONNECTING:
            if now_ms < self._deadline_ms:
                return self._deadline_ms
            self._failed(
                BrokerUnavailable(
                    f"{self.host}:{self.port} does not answer: no connection within "
                    f"{self._startup_timeout_ms / 1000:g} s",
                    address=f"{self.host}:{self.port}",
                )
            )
            return None
        if self.state is _HANDSHAKE and now_ms >= self._deadline_ms:
            self.lost(KafkaError(f"no answer within {self._startup_timeout_ms / 1000:g} s"))
            return None
        if not self._in_flight:
            return None
        oldest: Call = self._in_flight[0]
        deadline: cython.double = oldest.deadline_ms
        if self.state is _HANDSHAKE:
            return min(deadline, self._deadline_ms)
        if now_ms >= deadline:
            late = self._in_flight[0]
            name = late.request_class.__name__
            self._failed(
                BrokerUnavailable(
                    f"{self.peer} did not answer a {name} within "
                    f"{self._timeout_ms(late) / 1000:g} s",
                    address=f"{self.host}:{self.port}",
                    stage="connection",
                )
            )
            return None
        return deadline

    def has_given_up(self, now_ms: float) -> bool:
        """Tell whether it was never reached, and has been tried for long enough."""
        if self.was_ready or self.failure is None:
            return False
        if self.state is not _IDLE and self.tries < GIVE_UP_TRIES:
            return False
        late = now_ms - self.first_failure_ms >= self._startup_timeout_ms
        return self.tries >= GIVE_UP_TRIES or late


def sooner(one: Any, other: Any) -> Any:
    """Return the sooner of two times, which are numbers; None is never."""
    if one is None:
        return other
    return one if other is None or one <= other else other
