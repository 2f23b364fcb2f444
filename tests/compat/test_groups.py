"""Other people's consumers in groups: they join, die, come back, and the broker restarts.

Whatever happens, every record is read and committed by somebody, all partitions are somebody's, and
what was committed is still so after a `kill -9`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.compat.member import HEARTBEAT_MS, MEMBERS, SESSION_MS
from tests.compat.serving import Serving

PATIENCE_S = 60
PARTITIONS = 6
CANNOT_WAIT = {"kafka-python"}
"""Clients of which some never come back when the broker was away: in version 3.0.12 kafka-python's
loop may stand still after "Looking up coordinator", with no connection. They leave before that, and
others begin where they ended."""
_ROOT = Path(__file__).parent.parent.parent


class Crowd:
    """Members of one group.

    Attributes:
        read: what was read and committed, by anybody.
    """

    def __init__(self, client: str, address: str) -> None:
        self.read: set[str] = set()
        self._client = client
        self._address = address
        self._changed = threading.Condition()
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._assigned: dict[int, list[int]] = {}
        self._threads: list[threading.Thread] = []

    def start(self, count: int = 1, client: str = "") -> None:
        """Start more members, of another client where one is named."""
        for _ in range(count):
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.compat.member",
                    client or self._client,
                    self._address,
                    "g",
                    "t",
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=_ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
            self._processes[process.pid] = process
            thread = threading.Thread(target=self._listen, args=(process,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._take(process.pid, json.loads(line))

    def _take(self, pid: int, told: dict[str, list[Any]]) -> None:
        with self._changed:
            if pid in self._processes and "assigned" in told:
                self._assigned[pid] = told["assigned"]
            self.read.update(told.get("read", ()))
            self._changed.notify_all()

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until something has come true."""
        with self._changed:
            came = self._changed.wait_for(condition, PATIENCE_S)
            assert came, f"{what} did not happen: {self._assigned}, {len(self.read)} read"

    def wait_until_shared(self) -> None:
        """Wait until every partition is one member's, and each member has as many as another."""
        count = len(self._processes)

        def is_shared() -> bool:
            shares = list(self._assigned.values())
            owned = sorted(partition for share in shares for partition in share)
            return (
                owned == list(range(PARTITIONS))
                and len(shares) == count
                and all(len(share) == PARTITIONS // count for share in shares)
            )

        self.wait(f"{count} members sharing the partitions", is_shared)

    def kill_one(self) -> None:
        """Kill a member; it has no time to leave."""
        self._end_one(signal.SIGKILL)

    def stop_one(self) -> None:
        """Let the member leave that has been there longest."""
        self._end_one(signal.SIGTERM)

    def _end_one(self, how: signal.Signals) -> None:
        pid, process = next(iter(self._processes.items()))
        with self._changed:
            del self._processes[pid]
            self._assigned.pop(pid, None)
        process.send_signal(how)
        process.wait(PATIENCE_S)

    def stop(self) -> None:
        """Let all members leave."""
        with self._changed:
            processes, self._processes = list(self._processes.values()), {}
            self._assigned.clear()
        for process in processes:
            process.terminate()
        try:
            for process in processes:
                process.wait(PATIENCE_S)
        finally:
            for process in processes:
                process.kill()
            for thread in self._threads:
                thread.join(PATIENCE_S)


class Writer:
    """Writes numbered records to all partitions in turn."""

    def __init__(self, address: str) -> None:
        self.written: set[str] = set()
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": address, "reconnect.backoff.max.ms": 500}
        )

    def write(self, count: int = 120) -> None:
        for number in range(len(self.written), len(self.written) + count):
            self._producer.produce("t", str(number), partition=number % PARTITIONS)
            self.written.add(str(number))
        assert self._producer.flush(PATIENCE_S) == 0


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    settings = (
        "group.min.session.timeout.ms=1000",
        f"group.consumer.session.timeout.ms={SESSION_MS}",
        f"group.consumer.heartbeat.interval.ms={HEARTBEAT_MS}",
    )
    options = [part for each in settings for part in ("--set", each)]
    with Serving(tmp_path / "store", *options) as serving:
        admin = AdminClient({"bootstrap.servers": serving.address})
        admin.create_topics([NewTopic("t", PARTITIONS)])["t"].result(PATIENCE_S)
        yield serving


def committed(address: str) -> list[int]:
    """Return what the group has committed for each partition."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": address, "group.id": "g"})
    asked = [confluent_kafka.TopicPartition("t", each) for each in range(PARTITIONS)]
    found = [each.offset for each in consumer.committed(asked, PATIENCE_S)]
    consumer.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("client", MEMBERS)
def test_a_group_lives_through_deaths_of_members_and_of_the_broker(
    serving: Serving, client: str
) -> None:
    writer = Writer(serving.address)
    crowd = Crowd(client, serving.address)

    def all_is_read() -> None:
        writer.write()
        crowd.wait("reading everything", lambda: crowd.read >= writer.written)

    def restart(how: signal.Signals) -> None:
        if client in CANNOT_WAIT:
            crowd.stop()
        serving.stop(how)
        serving.start()
        if client in CANNOT_WAIT:
            crowd.start(3)

    try:
        crowd.start(3)
        crowd.wait_until_shared()
        all_is_read()
        crowd.kill_one()
        crowd.wait_until_shared()
        all_is_read()
        crowd.start()
        crowd.wait_until_shared()
        all_is_read()
        restart(signal.SIGTERM)
        all_is_read()
        crowd.wait_until_shared()
        restart(signal.SIGKILL)
        all_is_read()
        crowd.wait_until_shared()
    finally:
        crowd.stop()
    ends = [len(writer.written) // PARTITIONS] * PARTITIONS
    assert committed(serving.address) == ends
    serving.stop(signal.SIGKILL)
    serving.start()
    assert committed(serving.address) == ends
    admin = AdminClient({"bootstrap.servers": serving.address})
    described = admin.describe_consumer_groups(["g"])["g"].result(PATIENCE_S)
    assert described.state.name == "EMPTY"


def kind_of(address: str) -> str:
    """Return of which protocol the group is."""
    admin = AdminClient({"bootstrap.servers": address})
    (group,) = admin.list_consumer_groups().result(PATIENCE_S).valid
    name: str = group.type.name
    return name


@pytest.mark.slow
@pytest.mark.parametrize("old", ["confluent-kafka", "confluent-kafka-cooperative", "aiokafka"])
def test_a_group_goes_over_to_the_consumer_protocol_and_back_while_it_reads(
    serving: Serving, old: str
) -> None:
    writer = Writer(serving.address)
    crowd = Crowd(old, serving.address)
    new = "confluent-kafka-consumer-protocol"

    def replace_one(client: str) -> None:
        crowd.start(client=client)
        crowd.wait_until_shared()
        writer.write()
        crowd.wait("reading everything", lambda: crowd.read >= writer.written)
        crowd.stop_one()
        crowd.wait_until_shared()

    try:
        crowd.start(2)
        crowd.wait_until_shared()
        assert kind_of(serving.address) == "CLASSIC"
        replace_one(new)
        assert kind_of(serving.address) == "CONSUMER"
        replace_one(new)
        serving.stop(signal.SIGKILL)
        serving.start()
        crowd.wait_until_shared()
        replace_one(old)
        assert kind_of(serving.address) == "CONSUMER"
        replace_one(old)
        assert kind_of(serving.address) == "CLASSIC"
        writer.write()
        crowd.wait("reading everything", lambda: crowd.read >= writer.written)
    finally:
        crowd.stop()
    assert committed(serving.address) == [len(writer.written) // PARTITIONS] * PARTITIONS
