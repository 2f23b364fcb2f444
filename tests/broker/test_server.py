"""The server: in which thread a round is synced."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ottla import Broker
from ottla.log import files
from ottla.protocol.codec import encode
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_18_api_versions import ApiVersionsRequest
from tests.broker.asking import produce_request
from tests.log.writing import batch

LOOP = "ottla-broker"


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads in which data was synced; each sync counts as quick."""
    names: list[str] = []

    def note(descriptor: int) -> None:
        names.append(threading.current_thread().name)

    monkeypatch.setattr(files, "sync_data", note)
    monkeypatch.setattr("ottla.broker.server._LONE_SYNC_MS_MAX", float("inf"))
    return names


@pytest.fixture
def broker(tmp_path: Path, threads: list[str]) -> Iterator[Broker]:
    with Broker(tmp_path / "store") as broker:
        with broker.engine.lock:
            broker.engine.create_topic("t", 2, {})
        broker.listen()
        yield broker


def connect(broker: Broker) -> socket.socket:
    host, _, port = broker.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def ask(peer: socket.socket, request: ApiMessage, version: int) -> None:
    """Send a request and receive its response."""
    flexible = b"\0" if version >= request.SCHEMA.flexible else b""
    head = struct.pack(">hhih", request.API_KEY, version, 1, -1) + flexible
    body = encode(request, version)
    peer.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
    size = struct.unpack(">i", peer.recv(4, socket.MSG_WAITALL))[0]
    assert len(peer.recv(size, socket.MSG_WAITALL)) == size


def test_a_lone_writer_is_synced_in_the_loops_thread_once_the_disk_is_known_to_be_quick(
    broker: Broker, threads: list[str]
) -> None:
    with closing(connect(broker)) as peer:
        for _ in range(3):
            ask(peer, produce_request("t", batch(b"value")), 9)
        threads.clear()
        for _ in range(3):
            ask(peer, produce_request("t", batch(b"value")), 9)
    assert threads == [LOOP] * 3


def test_a_slow_disk_does_not_stop_the_loop(
    broker: Broker, threads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ottla.broker.server._LONE_SYNC_MS_MAX", 0.0)
    with closing(connect(broker)) as peer:
        threads.clear()
        for _ in range(3):
            ask(peer, produce_request("t", batch(b"value")), 9)
    assert len(threads) >= 3
    assert LOOP not in threads


def test_a_round_of_two_partitions_is_synced_in_threads(broker: Broker, threads: list[str]) -> None:
    with closing(connect(broker)) as peer:
        for _ in range(2):
            ask(peer, produce_request("t", batch(b"value")), 9)
        threads.clear()
        both = produce_request("t", batch(b"value"))
        both.topic_data += produce_request("t", batch(b"value"), partition=1).topic_data
        ask(peer, both, 9)
    assert len(threads) > 1
    assert LOOP not in threads


def test_a_writer_is_synced_in_another_thread_after_somebody_else_has_asked_for_something(
    broker: Broker, threads: list[str]
) -> None:
    with closing(connect(broker)) as peer, closing(connect(broker)) as other:
        for _ in range(2):
            ask(peer, produce_request("t", batch(b"value")), 9)
        ask(other, ApiVersionsRequest(), 0)
        threads.clear()
        for _ in range(2):
            ask(peer, produce_request("t", batch(b"value")), 9)
    assert threads[0] != LOOP
    assert threads[1] == LOOP
