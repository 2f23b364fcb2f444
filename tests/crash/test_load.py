"""The crash load itself: whatever its clients do, it ends and tells."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.compat.serving import COMMAND
from tests.crash import load as load_module
from tests.crash.clients import FatalError, Librdkafka, Told
from tests.crash.history import INFO, OK, Send
from tests.crash.load import Load, Topic, Writer
from tests.crash.process import BrokerProcess

REFUSES_WHAT_FOLLOWS = """
import os

os.environ["OTTLA_PURE"] = "1"  # compiled classes cannot be changed
from ottla.cli.main import main
from ottla.errors import codes
from ottla.log.producer_state import ProducerState

ProducerState.check = lambda self, header: (
    codes.OUT_OF_ORDER_SEQUENCE_NUMBER if header.base_sequence else codes.NONE
)
main()
"""
"""For librdkafka's idempotent producer the end: its numbers and the broker's are not the same."""

TOPIC = Topic("t", 1, {})
SENDS = 20


class Stuck:
    """A client that waits for ever, whatever anybody does."""

    def __init__(self) -> None:
        self.waits = threading.Event()
        self.released = threading.Event()

    def send(self, send: Send, told: Told) -> None:
        self.waits.set()
        self.released.wait()

    def poll(self) -> None:
        self.released.wait()

    def flush(self) -> None:
        self.released.wait()

    def abandon(self) -> None:
        self.released.wait()

    def close(self) -> None:
        raise AssertionError("another thread is in it")


def running(tmp_path: Path, command: Sequence[str]) -> Iterator[BrokerProcess]:
    broker = BrokerProcess(tmp_path / "store", tmp_path / "said", {}, command)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    yield from running(tmp_path, COMMAND)


@pytest.fixture
def refusing_broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    yield from running(tmp_path, (sys.executable, "-c", REFUSES_WHAT_FOLLOWS))


def test_a_fatal_error_of_librdkafka_is_raised_when_all_is_told(
    refusing_broker: BrokerProcess,
) -> None:
    """confluent-kafka calls the next callback with the error set: a lock in it stayed taken."""
    client = Librdkafka(refusing_broker.address, **{"linger.ms": 60_000})
    guard, outcomes = threading.Lock(), list[str]()

    def told(outcome: str, offset: int) -> None:
        with guard:
            outcomes.append(outcome)

    client.send(Send("p", ("t", 0), b"first"), told)
    client.flush()
    for number in range(SENDS):
        client.send(Send("p", ("t", 0), b"%d" % number), told)
    with pytest.raises(FatalError):  # in the words of librdkafka, or of what ran with it set
        client.flush()
    client.close()
    assert outcomes == [OK] + [INFO] * SENDS
    assert not guard.locked()


def test_a_load_whose_client_hangs_is_closed_and_tells(
    broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck()
    monkeypatch.setattr(load_module, "_writers", lambda *_: [Writer(stuck, "stuck", 10)])
    monkeypatch.setattr(load_module, "_CLOSE_TIMEOUT_S", 0.1)
    load = Load(broker.address, 0)
    try:
        load.begin([TOPIC])
        stuck.waits.wait()
        load.close()
        assert load.hangs
        assert any(each.startswith("stuck hangs, ") and "send (" in each for each in load.problems)
    finally:
        stuck.released.set()


def test_a_load_whose_broker_is_gone_is_closed_without_problems(broker: BrokerProcess) -> None:
    load = Load(broker.address, 0, with_librdkafka=True)
    load.begin([TOPIC])
    assert load.wait_for_an_answer(load_module.END_TIMEOUT_S)
    broker.kill()
    load.close()
    assert (load.hangs, load.problems) == (False, [])
