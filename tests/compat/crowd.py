"""Members of one consumer group in processes of their own, and who writes what they read.

The members are `tests.compat.member`: other people's clients and ours. What they tell is gathered
here, and waited for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka

PATIENCE_S = 60
CANNOT_WAIT = {"kafka-python"}
"""Clients of which some never come back when the broker was away: in version 3.0.12 kafka-python's
loop may stand still after "Looking up coordinator", with no connection. They leave before that, and
others begin where they ended."""
_LOADING = {
    confluent_kafka.KafkaError.NOT_COORDINATOR,
    confluent_kafka.KafkaError.COORDINATOR_NOT_AVAILABLE,
    confluent_kafka.KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
_AGAIN_S = 0.1
_ROOT = Path(__file__).parent.parent.parent


class Crowd:
    """Members of one group.

    Args:
        client: of which make they are; see `tests.compat.member.MEMBERS`.
        address: the broker.
        topic: what they read, of which the group has the name as well.
        partitions: how many the topic has.

    Attributes:
        read: what was read and committed, by anybody.
        seen: what each member has read, committed or not, and what was assigned to it in between,
            in the order in which it told.
    """

    def __init__(self, client: str, address: str, topic: str, partitions: int) -> None:
        self.read: set[str] = set()
        self.seen: list[list[dict[str, list[Any]]]] = []
        self._client = client
        self._address = address
        self._topic = topic
        self._partitions = partitions
        self._changed = threading.Condition()
        self._processes: dict[int, tuple[str, subprocess.Popen[str]]] = {}
        self._assigned: dict[int, list[int]] = {}
        self._threads: list[threading.Thread] = []

    def start(self, count: int = 1, client: str = "") -> None:
        """Start more members, of another client where one is named."""
        for _ in range(count):
            name = client or self._client
            command = ["-m", "tests.compat.member", name, self._address, self._topic, self._topic]
            process = subprocess.Popen(
                [sys.executable, *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=_ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
            self._processes[process.pid] = (name, process)
            told: list[dict[str, list[Any]]] = []
            self.seen.append(told)
            thread = threading.Thread(target=self._listen, args=(process, told), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _listen(self, process: subprocess.Popen[str], told: list[dict[str, list[Any]]]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                what = json.loads(line)
                if "read" not in what:
                    told.append(what)
                self._take(process.pid, what)

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
                owned == list(range(self._partitions))
                and len(shares) == count
                and all(len(share) == self._partitions // count for share in shares)
            )

        self.wait(f"{count} members sharing the partitions", is_shared)

    def kill_one(self) -> str:
        """Kill the oldest member, which has no time to leave, and return of which client it was."""
        return self._end_one(signal.SIGKILL)

    @property
    def changes(self) -> int:
        """How often the assignment of a member has changed."""
        return sum("assigned" in what for told in self.seen for what in told)

    def stop_one(self) -> str:
        """Let the member leave that has been there longest."""
        return self._end_one(signal.SIGTERM)

    def stop_all_of(self, clients: set[str]) -> list[str]:
        """Let all members of some clients leave, and return of which client each was."""
        left = [pid for pid, (name, _) in self._processes.items() if name in clients]
        return [self._end_one(signal.SIGTERM, pid) for pid in left]

    def _end_one(self, how: signal.Signals, pid: int | None = None) -> str:
        found = next(iter(self._processes)) if pid is None else pid
        with self._changed:
            name, process = self._processes.pop(found)
            self._assigned.pop(found, None)
        process.send_signal(how)
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()
        return name

    def stop(self) -> None:
        """Let all members leave."""
        with self._changed:
            processes = [process for _, process in self._processes.values()]
            self._processes.clear()
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
    """Writes numbered records to all partitions in turn.

    Attributes:
        written: the values.
    """

    def __init__(self, address: str, topic: str, partitions: int) -> None:
        self.written: set[str] = set()
        self._topic = topic
        self._partitions = partitions
        self._failed: list[object] = []
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": address,
                "reconnect.backoff.max.ms": 500,
                "enable.idempotence": True,
                "log_level": 0,
            }
        )

    def write(self, count: int = 120) -> None:
        """Write more, and wait until they are stored."""
        for number in range(len(self.written), len(self.written) + count):
            self._producer.produce(
                self._topic,
                str(number),
                partition=number % self._partitions,
                on_delivery=self._told,
            )
            self.written.add(str(number))
            self._producer.poll(0)
        assert self._producer.flush(PATIENCE_S) == 0
        assert self._failed == []

    def _told(self, error: object, _message: object) -> None:
        if error is not None:
            self._failed.append(error)


def committed(address: str, topic: str, partitions: int) -> list[int]:
    """Return what the group of a topic's name has committed for each partition.

    A broker that has just started may not know its groups yet; it is asked again then.
    """
    consumer = confluent_kafka.Consumer({"bootstrap.servers": address, "group.id": topic})
    asked = [confluent_kafka.TopicPartition(topic, each) for each in range(partitions)]
    deadline = time.monotonic() + PATIENCE_S
    try:
        while True:
            try:
                return [each.offset for each in consumer.committed(asked, PATIENCE_S)]
            except confluent_kafka.KafkaException as error:
                if error.args[0].code() not in _LOADING or time.monotonic() > deadline:
                    raise
            threading.Event().wait(_AGAIN_S)
    finally:
        consumer.close()
