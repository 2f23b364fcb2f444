"""What the client knows of the cluster: its brokers, and who leads which partition.

Metadata is asked of any broker that can be reached, the bootstrap addresses to begin with, for the
topics that somebody wants. It is asked again when a broker says that it is not the leader any more,
when a connection is lost, and when it is old.

A cluster that was never reached is given up soon (`unreachable` says why); one that was reached
once is tried for as long as somebody wants something of it.

Kafka: Metadata, NetworkClient.DefaultMetadataUpdater.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import cython

from ottla.client.network import Call
from ottla.client.node import Node, NodeState
from ottla.errors import BrokerUnavailable, KafkaError, codes
from ottla.protocol.message import ZERO_UUID
from ottla.protocol.messages.api_03_metadata import MetadataRequest, MetadataResponse

if cython.compiled:
    from cython.cimports.ottla.client.node import sooner
    from cython.cimports.ottla.clock import monotonic_ms_of
else:
    from ottla.client.node import sooner
    from ottla.clock import monotonic_ms_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ottla.client.config import ClientConfig
    from ottla.client.network import Network
    from ottla.clock import Clock

_LOG = logging.getLogger("ottla.client")
_STILL_TRYING_EVERY_MS = 10_000.0
_GONE_MS = 10_000.0
"""After so long a topic that matched, and is there no more, is not asked for any more."""


class TopicInfo:
    """What is known of one topic.

    Attributes:
        name: its name.
        topic_id: its id, 16 bytes; zeros where the broker gives none.
        error: the error code that the broker gave for it.
        error_since_ms: since when there is one; the monotonic clock.
        leaders: the leader's node id by partition, -1 where there is none.
        leader_epochs: the leader's epoch by partition, -1 where it is not known.
        updated_ms: when this was learnt; the monotonic clock.
    """

    __slots__ = (
        "error",
        "error_since_ms",
        "leader_epochs",
        "leaders",
        "name",
        "topic_id",
        "updated_ms",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.topic_id = ZERO_UUID
        self.error = codes.NONE
        self.error_since_ms = 0.0
        self.leaders: list[int] = []
        self.leader_epochs: list[int] = []
        self.updated_ms = 0.0


class Cluster:
    """The brokers and the topics.

    Attributes:
        topics: what is known of the topics that are wanted, by name.
        nodes: the brokers by node id.
        controller_id: the node id of the controller, or -1.
        cluster_id: the cluster's id, or None.
        updated_ms: when the last answer came, or None; the monotonic clock.
        matching: the topics that match what `want_matching` was given, the broker's own left out;
            None before they are known.
        unreachable: why the cluster was given up without ever having been reached, or None.

    Args:
        network: what opens connections.
        config: the client's settings.
        clock: where time comes from.
        create_topics: whether the broker may create a topic that is asked for.
    """

    def __init__(
        self, network: Network, config: ClientConfig, clock: Clock, *, create_topics: bool
    ) -> None:
        self.topics: dict[str, TopicInfo] = {}
        self.nodes: dict[int, Node] = {}
        self.controller_id = -1
        self.cluster_id: str | None = None
        self.matching: frozenset[str] | None = None
        self.unreachable: BrokerUnavailable | None = None
        self._network = network
        self._config = config
        self._clock = clock
        self._create_topics = create_topics
        self._matches: Callable[[str], object] | None = None
        self._asked_all = False
        self._bootstrap = [self._new_node(host, port) for host, port in network.bootstrap]
        self._all_nodes = list(self._bootstrap)
        self._asking = False
        self._refresh = True
        self._next_ask_ms = 0.0
        self.updated_ms: float | None = None
        self._told_ms = 0.0
        self._age_max_ms = config.metadata_max_age_ms

    def _new_node(self, host: str, port: int) -> Node:
        return Node(self._network, host, port, self._clock, self._config)

    def separate_node(self, host: str, port: int) -> Node:
        """Return another connection to a broker; whoever asks for it looks after it."""
        return self._new_node(host, port)

    @property
    def address(self) -> str:
        """The bootstrap address, in words for people."""
        return self._network.address

    def was_reached(self) -> bool:
        """Tell whether any broker was ever reached."""
        node: Node
        for node in self._all_nodes:  # noqa: SIM110 - any() would make a generator in each turn
            if node.was_ready:
                return True
        return False

    def all_nodes(self) -> list[Node]:
        """Return the brokers, the bootstrap addresses included."""
        return self._all_nodes

    def connected_node(self) -> Node | None:
        """Return a broker that is ready, or None; it begins to connect where there is none."""
        nodes = self.all_nodes()
        for node in nodes:
            if node.state is NodeState.READY:
                return node
        for node in nodes:
            if node.is_ready():
                return node
        return None

    def leader_of(self, topic: str, partition: cython.int) -> Node | None:
        """Return the broker that leads a partition, or None where it is not known."""
        info: TopicInfo | None = self.topics.get(topic)
        if info is None or not 0 <= partition < len(info.leaders):
            return None
        return self.nodes.get(info.leaders[partition])

    def want(self, topics: Iterable[str]) -> None:
        """Have metadata asked for topics."""
        for topic in topics:
            if topic not in self.topics:
                self.topics[topic] = TopicInfo(topic)
                self._refresh = True
                self._next_ask_ms = 0.0

    def want_matching(self, matches: Callable[[str], object] | None) -> None:
        """Have metadata asked for all topics whose names match; None for none of them."""
        self._matches = matches
        self.matching = None
        self._refresh = True
        self._next_ask_ms = 0.0

    def refresh(self) -> None:
        """Have metadata asked again: what is known turned out to be wrong."""
        self._refresh = True

    @property
    def wants_refresh(self) -> bool:
        """Whether metadata is to be asked again."""
        return self._refresh and not self._asking

    def try_again(self) -> None:
        """Begin anew with a cluster that was given up."""
        if self.unreachable is not None:
            self.unreachable = None
            for node in self.all_nodes():
                node.tries = 0
                node.failure = None
                node.next_try_ms = 0.0

    # -- time

    def step(self) -> float | None:
        """Do what is due; returns when to look again, on the monotonic clock, or None."""
        now: cython.double = monotonic_ms_of(self._clock)
        node: Node
        due: float | None = None
        for node in self._all_nodes:
            due = sooner(due, node.expire(now))
        self._judge(now)
        if self.unreachable is not None:
            return None
        due = sooner(due, self._maybe_ask(now))
        for node in self._all_nodes:
            due = sooner(due, node.next_try(now))
        return due

    def _maybe_ask(self, now: float) -> float | None:
        if self._asking:
            return None
        old = self.updated_ms is not None and now - self.updated_ms >= self._age_max_ms
        if not (self._refresh or old):
            return None if self.updated_ms is None else self.updated_ms + self._age_max_ms
        if now < self._next_ask_ms:
            return self._next_ask_ms
        node = self.connected_node()
        if node is None:
            self._tell(now)
            return None
        self._asking = True
        self._refresh = False
        self._next_ask_ms = now + self._config.retry_backoff_ms
        topics: list[MetadataRequest.MetadataRequestTopic] | None = None
        self._asked_all = self._matches is not None
        if not self._asked_all:
            topics = [MetadataRequest.MetadataRequestTopic(name=name) for name in self.topics]
        request = MetadataRequest(topics=topics, allow_auto_topic_creation=self._create_topics)
        node.send(Call(request, MetadataResponse, self._learn))
        return None

    def _tell(self, now: float) -> None:
        """Show that a cluster that was reached before is still being tried."""
        failure = self._last_failure()
        late = now - self._told_ms >= _STILL_TRYING_EVERY_MS
        if self.was_reached() and failure is not None and late:
            self._told_ms = now
            _LOG.warning(
                "no broker of %s can be reached; still trying: %s", self.address, failure.what
            )

    def _last_failure(self) -> KafkaError | None:
        failures = [node.failure for node in self.all_nodes() if node.failure is not None]
        return failures[-1] if failures else None

    def _judge(self, now: float) -> None:
        """Give the cluster up where none of its addresses was ever reached."""
        if self.was_reached() or self.unreachable is not None:
            return
        nodes = self._bootstrap
        if not all(node.has_given_up(now) for node in nodes):
            return
        failure = nodes[0].failure
        assert failure is not None
        tries = max(node.tries for node in nodes)
        seconds = (now - min(node.first_failure_ms for node in nodes)) / 1000
        others = [node.failure.what for node in nodes[1:] if node.failure is not None]
        self.unreachable = BrokerUnavailable(
            "; ".join([_with_tries(failure.what, tries, seconds), *others]),
            "",
            failure.next_steps or self._steps(failure),
            address=self.address,
            stage=getattr(failure, "stage", "handshake"),
        )
        self.unreachable.__cause__ = failure
        for node in nodes:
            node.disconnect(self.unreachable)

    def _steps(self, failure: KafkaError) -> tuple[str, ...]:
        steps = ["Check the address:     is it the host and port that the broker listens on?"]
        if getattr(failure, "stage", "") == "connect":
            steps.insert(0, "Start a broker here:   ottla serve")
        return tuple(steps)

    def problem_of(self, node: Node | None) -> BrokerUnavailable | None:
        """Return why a leader was given up that was never reached though the bootstrap was.

        Args:
            node: the leader, or None where it is not known.
        """
        if node is None or node.failure is None:
            return None
        if not node.has_given_up(monotonic_ms_of(self._clock)):
            return None
        name = f"{node.host}:{node.port}"
        return BrokerUnavailable(
            f"{self.address} answers, but says that the broker is at {name}, and that cannot be "
            f"reached: {node.failure.what}",
            "",
            (
                "Set the address that clients can reach as the broker's advertised address: "
                "`ottla serve --advertise HOST:PORT`, or `advertised.listeners` of a Kafka",
            ),
            address=name,
            stage="advertised",
        )

    # -- answers

    def _learn(self, response: MetadataResponse | None, error: KafkaError | None) -> None:
        self._asking = False
        if response is None:
            self._refresh = True
            return
        now = monotonic_ms_of(self._clock)
        self.updated_ms = now
        self.cluster_id = response.cluster_id
        self.controller_id = response.controller_id
        self._learn_nodes(response.brokers)
        if self._matches is not None and self._asked_all:
            self._learn_matching(self._matches, response)
        for topic in response.topics:
            info = self.topics.get(topic.name or "")
            if info is not None:
                self._learn_topic(info, topic, now)
        if set(self.topics) - {topic.name for topic in response.topics}:
            self._refresh = True

    def _learn_matching(self, matches: Callable[[str], object], response: MetadataResponse) -> None:
        """Find the topics that match among all that there are, and those that are gone."""
        found = {topic.name or "": topic for topic in response.topics}
        self.matching = frozenset(
            name for name, topic in found.items() if not topic.is_internal and matches(name)
        )
        for name in self.matching:
            self.topics.setdefault(name, TopicInfo(name))
        missing = codes.UNKNOWN_TOPIC_OR_PARTITION
        now = monotonic_ms_of(self._clock)
        for name in self.topics.keys() - found.keys():
            info = self.topics[name]
            if info.error == missing and matches(name) and now - info.error_since_ms >= _GONE_MS:
                del self.topics[name]
                continue
            response.topics.append(
                MetadataResponse.MetadataResponseTopic(name=name, error_code=missing)
            )

    def _learn_nodes(self, brokers: list[MetadataResponse.MetadataResponseBroker]) -> None:
        known = {(node.host, node.port): node for node in self.all_nodes()}
        nodes = {}
        for broker in brokers:
            node = known.get((broker.host, broker.port))
            nodes[broker.node_id] = node or self._new_node(broker.host, broker.port)
        gone = KafkaError("the broker is not part of the cluster any more")
        for node in self.nodes.values():
            if node not in nodes.values() and node not in self._bootstrap:
                node.disconnect(gone)
        self.nodes = nodes
        self._all_nodes = list(dict.fromkeys([*self._bootstrap, *nodes.values()]))

    def _learn_topic(
        self, info: TopicInfo, topic: MetadataResponse.MetadataResponseTopic, now: float
    ) -> None:
        if topic.error_code != codes.NONE:
            if info.error == codes.NONE:
                info.error_since_ms = now
            info.error = topic.error_code
            info.updated_ms = now
            self._refresh = True
            return
        info.error = codes.NONE
        info.topic_id = topic.topic_id
        count = max((each.partition_index for each in topic.partitions), default=-1) + 1
        count = min(count, len(topic.partitions))
        leaders, epochs = [-1] * count, [-1] * count
        for each in topic.partitions:
            if each.partition_index < count:
                leaders[each.partition_index] = each.leader_id
                epochs[each.partition_index] = each.leader_epoch
        info.leaders, info.leader_epochs = leaders, epochs
        info.updated_ms = now
        if -1 in leaders:
            self._refresh = True

    def close(self) -> None:
        """Close all connections."""
        closed = KafkaError("the client is closed")
        for node in self.all_nodes():
            node.disconnect(closed)


def _with_tries(what: str, tries: int, seconds: float) -> str:
    """Add how often and for how long it was tried to a sentence about a failure."""
    tried = f"{tries} tries in {seconds:.1f} s"
    return f"{what[:-1]}, {tried})" if what.endswith(")") else f"{what} ({tried})"
