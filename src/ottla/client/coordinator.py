"""The broker that coordinates a group: which it is, and two connections of its own to it.

A broker answers a connection's requests one after the other. The answer to JoinGroup comes when all
members have joined, which may take minutes: membership has a connection for itself. Commits have
the other; on the one that fetches they would wait for as long as a fetch does.

Kafka: FindCoordinator, AbstractCoordinator.lookupCoordinator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.client.network import Call
from ottla.errors import KafkaError, broker_error, codes
from ottla.protocol.messages.api_10_find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)

if TYPE_CHECKING:
    from ottla.client.cluster import Cluster
    from ottla.client.config import ClientConfig
    from ottla.client.node import Node
    from ottla.clock import Clock

_GROUP = 0
_FIRST_VERSION_OF_SEVERAL = 4


class Coordinator:
    """A group's coordinator.

    Attributes:
        error: why it cannot be found, where that will not pass by itself; the user is to be told.

    Args:
        group_id: the group.
        cluster: who is asked.
        config: the client's settings.
        clock: where time comes from.
    """

    def __init__(self, group_id: str, cluster: Cluster, config: ClientConfig, clock: Clock) -> None:
        self.error: KafkaError | None = None
        self._group_id = group_id
        self._cluster = cluster
        self._config = config
        self._clock = clock
        self._membership: Node | None = None
        self._commits: Node | None = None
        self._is_known = False
        self._tries = 0
        self._asking = False
        self._next_ask_ms = 0.0

    def forget(self) -> None:
        """Look for it anew: it is another broker now, or none."""
        self._is_known = False

    def node_for_membership(self) -> Node | None:
        """Return the connection for membership, where it can be used now."""
        return self._ready(self._membership)

    def node_for_commits(self) -> Node | None:
        """Return the connection for everything else, where it can be used now."""
        return self._ready(self._commits)

    def _ready(self, node: Node | None) -> Node | None:
        if not self._is_known or node is None:
            return None
        return node if node.is_ready() else None

    # -- time

    def step(self, now: float) -> float | None:
        """Do what is due; returns when to look again, on the monotonic clock, or None."""
        due: list[float | None] = []
        for node in (self._membership, self._commits):
            if node is not None:
                due.append(node.expire(now))
                due.append(node.next_try(now))
        tries = self._failed_tries()
        if tries > self._tries:
            self._is_known = False  # it may be elsewhere now
        self._tries = tries
        if not self._is_known:
            due.append(self._maybe_ask(now))
            problem = self._cluster.problem_of(self._commits)
            if problem is not None:
                self.error = problem
        known = [each for each in due if each is not None]
        return min(known) if known else None

    def _failed_tries(self) -> int:
        nodes = (self._membership, self._commits)
        return sum(node.tries for node in nodes if node is not None)

    def _maybe_ask(self, now: float) -> float | None:
        if self._asking:
            return None
        if now < self._next_ask_ms:
            return self._next_ask_ms
        node = self._cluster.connected_node()
        if node is None:
            return None
        self._asking = True
        self._next_ask_ms = now + self._config.retry_backoff_ms
        if node.best_version(FindCoordinatorRequest) < _FIRST_VERSION_OF_SEVERAL:
            request = FindCoordinatorRequest(key=self._group_id, key_type=_GROUP)
        else:
            request = FindCoordinatorRequest(coordinator_keys=[self._group_id], key_type=_GROUP)
        node.send(Call(request, FindCoordinatorResponse, self._learn))
        return None

    def _learn(self, response: FindCoordinatorResponse | None, error: KafkaError | None) -> None:
        self._asking = False
        if response is None:
            if error is not None and not isinstance(error, ConnectionError):
                self.error = error
            return
        found = response.coordinators[0] if response.coordinators else response
        if found.error_code != codes.NONE:
            refusal = broker_error(found.error_code, f"group {self._group_id!r} has no coordinator")
            if not refusal.retriable:
                self.error = refusal
            return
        old = self._commits
        if old is None or (old.host, old.port) != (found.host, found.port):
            self.close(KafkaError("the group is coordinated by another broker now"))
            self._membership = self._cluster.separate_node(found.host, found.port)
            self._commits = self._cluster.separate_node(found.host, found.port)
        self._is_known = True

    def close(self, error: KafkaError) -> None:
        """Close the connections; what waits for an answer gets the error."""
        for node in (self._membership, self._commits):
            if node is not None:
                node.disconnect(error)
