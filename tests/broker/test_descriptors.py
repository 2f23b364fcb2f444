"""More connections than the broker may have descriptors.

The broker is a process of its own that may have 64; 200 connections come, one after the other or
all in one moment.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ottla import Admin, Consumer, Producer
from tests.compat import serving as serving_module
from tests.compat.serving import Serving

DESCRIPTORS = 64
CONNECTIONS = 200
PARTITIONS = 40
CPU_SHARE_MAX = 0.3
PATIENCE_S = 60
SERVE_WITH_FEW = (
    "import resource, sys; "
    f"resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS})); "
    "from ottla.cli.main import main; main()"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="a process is looked at in Linux's /proc"
    ),
    pytest.mark.skipif(
        resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * CONNECTIONS,
        reason=f"this process may not open {CONNECTIONS} connections itself",
    ),
]

Crowd = Callable[[Serving], list[socket.socket]]


class Process:
    """What the system tells about the broker's process."""

    def __init__(self, serving: Serving) -> None:
        self.id: int = json.loads((serving.folder / ".owner").read_text())["pid"]
        self._folder = Path(f"/proc/{self.id}")

    def cpu_s(self) -> float:
        """Return the processor time that it has used."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def sockets(self) -> int:
        """Return how many sockets it has open."""
        found = 0
        for each in (self._folder / "fd").iterdir():
            try:
                found += os.readlink(each).startswith("socket:")
            except FileNotFoundError:
                continue  # it was closed just now
        return found

    def descriptors_max(self) -> int:
        lines = (self._folder / "limits").read_text().splitlines()
        return next(int(line.split()[3]) for line in lines if line.startswith("Max open files"))


def connect(serving: Serving) -> list[socket.socket]:
    host, _, port = serving.address.rpartition(":")
    return [socket.create_connection((host, int(port)), 30) for _ in range(CONNECTIONS)]


def connect_at_once(serving: Serving) -> list[socket.socket]:
    """Let the broker find all of them waiting when it looks the next time."""
    process = Process(serving)
    os.kill(process.id, signal.SIGSTOP)
    try:
        return connect(serving)
    finally:
        os.kill(process.id, signal.SIGCONT)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    monkeypatch.setattr(serving_module, "COMMAND", (sys.executable, "-c", SERVE_WITH_FEW))
    with Serving(tmp_path / "store") as serving:
        with Admin(serving.address) as admin:
            admin.create_topic("t", PARTITIONS)
        yield serving


class Regular:
    """A producer and a consumer that were connected before the crowd came."""

    def __init__(self, serving: Serving) -> None:
        self._producer = Producer(serving.address)
        self._consumer = Consumer(serving.address, "t")
        self._run = 0
        self.work()

    def work(self) -> None:
        """Have a record confirmed in each partition, and read them."""
        self._run += 1
        sent = {b"%d: %d" % (self._run, partition) for partition in range(PARTITIONS)}
        for partition, value in enumerate(sorted(sent)):
            self._producer.send("t", value, partition=partition)
            self._producer.flush()
        found: set[bytes] = set()
        deadline = time.monotonic() + PATIENCE_S
        while not sent <= found:
            assert time.monotonic() < deadline, f"{len(found & sent)} of {len(sent)} were read"
            found |= {record.value for record in self._consumer.poll(1.0)}

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()


@pytest.mark.parametrize("crowd", [connect, connect_at_once])
def test_a_broker_with_too_many_connections_serves_those_who_came_first_and_all_when_they_leave(
    serving: Serving, crowd: Crowd, capfd: pytest.CaptureFixture[str]
) -> None:
    process = Process(serving)
    assert process.descriptors_max() == DESCRIPTORS
    regular = Regular(serving)
    sockets = process.sockets()
    others = crowd(serving)
    try:
        regular.work()
        used = process.cpu_s()
        time.sleep(1)
        assert process.cpu_s() - used < CPU_SHARE_MAX
        regular.work()
    finally:
        for each in others:
            each.close()
    wait_for(lambda: process.sockets() <= sockets, "connections that are gone are still open")
    newcomer = Regular(serving)
    newcomer.work()
    newcomer.close()
    regular.close()
    assert serving.stop() == 0
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) < CONNECTIONS // 4, lines[-20:]
    assert not [line for line in lines if "Traceback" in line]
