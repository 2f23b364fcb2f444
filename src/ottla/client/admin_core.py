"""What all calls of the admin client have in common: a request goes to the right broker, and back.

A call does the turns of its own driver until the answer is there. Answers that say "not now" of a
group's coordinator, or of a partition's leader, are asked for again until time is over.

Kafka: KafkaAdminClient, AdminApiDriver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ottla.client.address import open_network
from ottla.client.cluster import Cluster
from ottla.client.config import ClientConfig, make_config
from ottla.client.coordinator import Coordinator
from ottla.client.driver import Driver
from ottla.client.lookup import Lookup, TopicPartition
from ottla.client.network import Call
from ottla.clock import SYSTEM
from ottla.errors import BrokerError, Closed, KafkaError, Timeout, broker_error, codes
from ottla.protocol.messages.api_03_metadata import MetadataRequest, MetadataResponse

if TYPE_CHECKING:
    from types import TracebackType

    from ottla.client.node import Node
    from ottla.protocol.message import ApiMessage

ANY_VERSION = 0x7FFF
_READ_UNCOMMITTED = 0
_MOVED = (codes.NOT_COORDINATOR, codes.COORDINATOR_NOT_AVAILABLE)
_PASSING = (*_MOVED, codes.COORDINATOR_LOAD_IN_PROGRESS, codes.REQUEST_TIMED_OUT)
R = TypeVar("R", bound="ApiMessage")


class AdminCore:
    """Asks brokers, the controller, and the coordinators of groups.

    Args:
        address: as for `Producer`.
        bootstrap_servers: the same under the name that other clients have for it.
        timeout: seconds that each call may take.
        settings: see `ottla.client.config.ClientConfig`.
    """

    def __init__(
        self,
        address: object = None,
        *,
        bootstrap_servers: object = None,
        timeout: float = 30.0,
        **settings: Any,
    ) -> None:
        config = make_config(ClientConfig, settings)
        self._given = address if address is not None else bootstrap_servers
        self._clock = SYSTEM
        self._timeout = timeout
        self._config = config
        network = open_network(self._given, config.client_id, self._clock)
        self._cluster = Cluster(network, config, self._clock, create_topics=False)
        self._coordinators: dict[str, Coordinator] = {}
        self._lookups: list[Lookup] = []
        self._driver = Driver(network, self, self._clock)
        self._closed = False

    # -- Work

    def step(self) -> float | None:
        """Do what is due; returns when to look again, on the monotonic clock, or None."""
        now = self._clock.monotonic_ms()
        due = [self._cluster.step()]
        due += [each.step(now) for each in self._coordinators.values()]
        due += [each.step(now) for each in self._lookups]
        known = [each for each in due if each is not None]
        return min(known) if known else None

    def has_work(self) -> bool:
        """Tell that nothing goes on when nobody asks."""
        return False

    # -- asking

    @property
    def _timeout_ms(self) -> int:
        return int(self._timeout * 1000)

    def _deadline(self) -> float:
        """Return when a call that begins now is to be over, on the monotonic clock."""
        return self._clock.monotonic_ms() + self._timeout * 1000

    def _left_s(self, deadline: float) -> float:
        return (deadline - self._clock.monotonic_ms()) / 1000

    def _run(self, reached: Callable[[], bool], deadline: float) -> bool:
        """Do turns until something is reached; False where time is over before that.

        Raises:
            BrokerUnavailable: the cluster cannot be reached.
            Closed: the admin client is closed.
        """
        if self._closed:
            raise Closed("the admin client is closed")
        cluster = self._cluster
        in_time = self._driver.run_until(
            lambda: reached() or cluster.unreachable is not None, self._left_s(deadline)
        )
        error = cluster.unreachable
        if error is not None:
            cluster.try_again()
            raise error
        return in_time

    def _too_late(self) -> Timeout:
        return Timeout(
            f"no answer from {self._cluster.address} within {self._timeout:g} s",
            "It is not known whether what was asked for was done.",
        )

    def _ask_controller(
        self, request: ApiMessage, response_class: type[R], older: ApiMessage | None = None
    ) -> R:
        def controller() -> Node | None:
            node = self._cluster.nodes.get(self._cluster.controller_id)
            if node is None:
                return self._cluster.connected_node() if self._cluster.cluster_id else None
            return node if node.is_ready() else None

        return self._ask(controller, request, response_class, older)

    def _ask(
        self,
        find_node: Callable[[], Node | None],
        request: ApiMessage,
        response_class: type[R],
        older: ApiMessage | None = None,
    ) -> R:
        """Send a request to a node as soon as there is one, and wait for the answer.

        Args:
            find_node: finds the node; what it raises ends the call.
            request: what is sent.
            response_class: the class of the answer.
            older: what is sent to a node that does not speak the newest version of the request.
        """
        deadline = self._deadline()
        newest = request.SCHEMA.versions[1]

        def of_node(node: Node) -> ApiMessage:
            is_old = older is not None and node.best_version(type(request)) < newest
            return older if older is not None and is_old else request

        return self._exchange(find_node, of_node, response_class, deadline)

    def _exchange(
        self,
        find_node: Callable[[], Node | None],
        request_for: Callable[[Node], ApiMessage],
        response_class: type[R],
        deadline: float,
        version_max: int = ANY_VERSION,
    ) -> R:
        """Ask a node as soon as there is one; `request_for` makes what it understands."""
        answers: list[R] = []
        errors: list[KafkaError] = []

        def done(response: R | None, error: KafkaError | None) -> None:
            if response is not None:
                answers.append(response)
            elif error is not None:
                errors.append(error)

        is_sent = False
        while not is_sent:
            node = self._find(find_node, deadline)
            with self._driver.held():
                if node.is_ready():  # another thread's turn may have found it gone
                    request = request_for(node)
                    node.send(Call(request, response_class, done), version_max)
                    is_sent = True
        in_time = self._run(lambda: bool(answers or errors), deadline)
        if errors:
            raise errors[0]
        if not in_time:
            raise self._too_late()
        return answers[0]

    def _find(self, find_node: Callable[[], Node | None], deadline: float) -> Node:
        """Return a node as soon as `find_node` finds one that is ready, or raise what it raises."""
        nodes: list[Node] = []
        raised: list[KafkaError] = []

        def found() -> bool:
            try:
                node = find_node()
            except KafkaError as error:
                raised.append(error)
                return True
            if node is not None:
                nodes.append(node)
            return node is not None

        in_time = self._run(found, deadline)
        if raised:
            raise raised[0]
        if not in_time:
            raise self._too_late()
        return nodes[-1]

    def _ask_every_broker(self, request: ApiMessage, response_class: type[R]) -> list[R]:
        """Ask all brokers of the cluster, one after the other."""
        deadline = self._deadline()
        if not self._run(lambda: bool(self._cluster.nodes), deadline):
            raise self._too_late()

        def finder(node: Node) -> Callable[[], Node | None]:
            def find() -> Node | None:
                problem = self._cluster.problem_of(node)
                if problem is not None:
                    raise problem
                return node if node.is_ready() else None

            return find

        return [
            self._exchange(finder(node), lambda _: request, response_class, deadline)
            for node in list(self._cluster.nodes.values())
        ]

    def _ask_coordinator(
        self,
        group_id: str,
        request_for: Callable[[Node], ApiMessage],
        response_class: type[R],
        code_of: Callable[[R], int],
        version_max: int = ANY_VERSION,
    ) -> R:
        """Ask a group's coordinator, and again where it says that it cannot answer now.

        Args:
            group_id: the group.
            request_for: makes the request for the node that is asked.
            response_class: the class of the answer.
            code_of: finds the error code in an answer.
            version_max: the highest version of the request that may be used.
        """
        deadline = self._deadline()
        coordinator = self._coordinator_of(group_id)
        find = _finder(coordinator)
        while True:
            response = self._exchange(find, request_for, response_class, deadline, version_max)
            code = code_of(response)
            if code not in _PASSING:
                return response
            backoff_s = self._config.retry_backoff_ms / 1000
            if self._left_s(deadline) <= backoff_s:
                raise broker_error(code, f"the coordinator of group {group_id!r} cannot answer")
            if code in _MOVED:
                with self._driver.held():
                    coordinator.forget()
            self._driver.run_until(lambda: False, backoff_s)

    def _coordinator_of(self, group_id: str) -> Coordinator:
        with self._driver.held():
            coordinator = self._coordinators.get(group_id)
            if coordinator is None or coordinator.error is not None:
                coordinator = Coordinator(group_id, self._cluster, self._config, self._clock)
                self._coordinators[group_id] = coordinator
        return coordinator

    def _coordinator_speaks(self, group_id: str, request_class: type[ApiMessage]) -> bool:
        """Tell whether a group's coordinator knows a kind of requests."""
        node = self._find(_finder(self._coordinator_of(group_id)), self._deadline())
        return node.best_version(request_class) >= 0

    def _metadata(self, names: list[str] | None) -> MetadataResponse:
        topics = None
        if names is not None:
            topics = [MetadataRequest.MetadataRequestTopic(name=name) for name in names]
        request = MetadataRequest(topics=topics, allow_auto_topic_creation=False)
        return self._ask(self._cluster.connected_node, request, MetadataResponse)

    def _look_up(self, wanted: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Ask for offsets: the first, the last, or those at times; see `lookup`."""
        lookup = Lookup(
            self._cluster, self._clock, wanted, _READ_UNCOMMITTED, self._config.retry_backoff_ms
        )
        deadline = self._deadline()
        with self._driver.held():
            self._cluster.want(where.topic for where in wanted)
            self._lookups.append(lookup)
        try:
            in_time = self._run(lambda: lookup.is_done, deadline)
        finally:
            with self._driver.held():
                self._lookups.remove(lookup)
        if lookup.error is not None:
            raise lookup.error
        if not in_time:
            raise self._too_late()
        return lookup.found

    # -- the end

    def close(self) -> None:
        """Let go of everything."""
        if not self._closed:
            self._closed = True
            self._driver.close()
            closed = KafkaError("the admin client is closed")
            for coordinator in self._coordinators.values():
                coordinator.close(closed)
            self._cluster.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()


def _finder(coordinator: Coordinator) -> Callable[[], Node | None]:
    def find() -> Node | None:
        if coordinator.error is not None:
            raise coordinator.error
        return coordinator.node_for_commits()

    return find


def check(code: int, message: str | None, what: str) -> None:
    """Raise the broker's error, where there is one."""
    if code != codes.NONE:
        error: BrokerError = broker_error(code, f"{what}: {message}" if message else what)
        raise error
