"""Many who do next to nothing: idle connections, and members of groups.

    python -m bench.loads.crowd JSON        the fields of `Load`

A connection has asked for the API versions, as every client does, and is silent then. A group has
three members that subscribe to one topic; when the process is told to begin, members send
heartbeats, each every three seconds as clients do, evenly spread. It goes on until it is killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from bench.loads.process import Meter, Outcome, serve
from bench.peer import Peer, frame_of
from bench.serving import raise_descriptors
from ottla.protocol.codec import decode
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_11_join_group import JoinGroupRequest, JoinGroupResponse
from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest, HeartbeatResponse
from ottla.protocol.messages.api_14_sync_group import SyncGroupRequest, SyncGroupResponse
from ottla.protocol.messages.api_18_api_versions import ApiVersionsRequest

MODULE = "bench.loads.crowd"
MEMBERS = 3
"""Of each group."""
JOIN_DELAY_MS = 3000
"""The broker's `group.initial.rebalance.delay.ms`, within which all members of a group come."""

_ANSWER_TIMEOUT_S = 120.0
_SESSION_TIMEOUT_MS = 45_000
_HEARTBEAT_S = 3.0
_JOIN_VERSION, _SYNC_VERSION, _HEARTBEAT_VERSION = 3, 2, 2
_SUBSCRIPTION = b"\0\0\0\0\0\x01\0\x04load\xff\xff\xff\xff"
_ASSIGNMENT = b"\0\0\0\0\0\x01\0\x04load\0\0\0\x01\0\0\0\0\xff\xff\xff\xff"

_M = TypeVar("_M", bound=ApiMessage)


@dataclass(frozen=True)
class Load:
    """Who comes.

    Attributes:
        address: "host:port" of the broker.
        connections: how many that are idle.
        groups: how many, of three members each.
    """

    address: str
    connections: int = 0
    groups: int = 0


class _Member:
    """A member of a group, on a connection of its own."""

    def __init__(self, load: Load, number: int) -> None:
        self.peer = Peer(load.address, _ANSWER_TIMEOUT_S)
        self._group = f"group{number // MEMBERS}"
        self.heartbeat = b""
        self._joined = JoinGroupResponse()

    def join(self) -> None:
        """Ask to join."""
        protocol = JoinGroupRequest.JoinGroupRequestProtocol(name="range", metadata=_SUBSCRIPTION)
        request = JoinGroupRequest(
            group_id=self._group,
            session_timeout_ms=_SESSION_TIMEOUT_MS,
            rebalance_timeout_ms=60_000,
            protocol_type="consumer",
            protocols=[protocol],
        )
        self.peer.socket.sendall(frame_of(request, _JOIN_VERSION))

    def sync(self) -> None:
        """Take the answer, and ask for what is assigned; the leader gives everybody the same."""
        self._joined = self._answer(JoinGroupResponse, _JOIN_VERSION)
        assert self._joined.error_code == 0, f"error {self._joined.error_code}"
        is_leader = self._joined.leader == self._joined.member_id
        assert not is_leader or len(self._joined.members) == MEMBERS, "not all have come"
        assignment = SyncGroupRequest.SyncGroupRequestAssignment
        assignments = [
            assignment(member_id=each.member_id, assignment=_ASSIGNMENT)
            for each in (self._joined.members if is_leader else ())
        ]
        request = SyncGroupRequest(
            group_id=self._group,
            generation_id=self._joined.generation_id,
            member_id=self._joined.member_id,
            assignments=assignments,
        )
        self.peer.socket.sendall(frame_of(request, _SYNC_VERSION))

    def settle(self) -> None:
        """Take what is assigned; from now on it sends heartbeats."""
        synced = self._answer(SyncGroupResponse, _SYNC_VERSION)
        assert synced.error_code == 0, f"error {synced.error_code}"
        request = HeartbeatRequest(
            group_id=self._group,
            generation_id=self._joined.generation_id,
            member_id=self._joined.member_id,
        )
        self.heartbeat = frame_of(request, _HEARTBEAT_VERSION)

    def beat(self) -> None:
        """Send a heartbeat, and look at its answer."""
        self.peer.socket.sendall(self.heartbeat)
        error = self._answer(HeartbeatResponse, _HEARTBEAT_VERSION).error_code
        assert error == 0, f"error {error}"

    def _answer(self, expected: type[_M], version: int) -> _M:
        return decode(expected, self.peer.receive_frame()[4:], version)


def _idle(load: Load) -> list[Peer]:
    """Connect those who say nothing more."""
    frame = frame_of(ApiVersionsRequest(), 0)
    peers = []
    for _ in range(load.connections):
        peer = Peer(load.address, _ANSWER_TIMEOUT_S)
        peer.socket.sendall(frame)
        peer.receive_frame()
        peers.append(peer)
    return peers


def _beat(members: Iterable[_Member], every_s: float) -> None:
    next_at = time.perf_counter()
    for member in members:
        member.beat()
        next_at += every_s
        time.sleep(max(next_at - time.perf_counter(), 0))


def prepare(settings: dict[str, Any]) -> Callable[[], Outcome]:
    """Connect all, and let the members join."""
    load = Load(**settings)
    raise_descriptors()
    peers = _idle(load)
    members = [_Member(load, number) for number in range(load.groups * MEMBERS)]
    for step in (_Member.join, _Member.sync, _Member.settle):
        for member in members:
            step(member)

    def run() -> Outcome:
        meter = Meter()
        while members:
            _beat(members, _HEARTBEAT_S / len(members))
        return meter.outcome(len(peers), 0)

    return run


if __name__ == "__main__":
    serve(prepare)
