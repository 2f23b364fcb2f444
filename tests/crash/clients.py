"""The producers of the crash load: ours and librdkafka's, behind one face."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import confluent_kafka

from ottla import Producer
from ottla.errors import DeliveryError, OutcomeUnknown
from tests.crash.history import FAIL, INFO, OK, Send

FLUSH_TIMEOUT_S = 60.0
RETRY_MS = 10
BACKOFF_MS = 50.0
"""How long clients wait at most before they connect again: less than usual, to hit more moments."""

MOMENT_S = 0.02

Told = Callable[[str, int], None]
"""What is called with the outcome of a record, and its offset."""


class Client(Protocol):
    """A producer, of whatever make, for one thread at a time."""

    def send(self, send: Send, told: Told) -> None:
        """Send a record, and have `told` called with its outcome and its offset."""
        ...

    def poll(self) -> None:
        """Let it call what it has to, where it has no thread that does."""
        ...

    def flush(self) -> None:
        """Wait until everything has an outcome."""
        ...

    def abandon(self) -> None:
        """Have whoever waits in it wait no longer; any thread may do that at any time."""
        ...

    def close(self) -> None:
        """Let go of it, whatever has no outcome yet."""
        ...


class Ours:
    """A producer of ours."""

    def __init__(self, address: str, **settings: Any) -> None:
        self._producer = Producer(address, retry_backoff_ms=RETRY_MS, **settings)

    def send(self, send: Send, told: Told) -> None:
        topic, partition = send.place

        def on_delivery(delivery: Any) -> None:
            if delivery.state == "stored":
                told(OK, -1 if delivery.offset is None else delivery.offset)
            else:
                told(INFO if isinstance(delivery.batch.error, OutcomeUnknown) else FAIL, -1)

        self._producer.send(
            topic, send.value, send.key, partition=partition, on_delivery=on_delivery
        )

    def poll(self) -> None:
        pass

    def flush(self) -> None:
        with suppress(DeliveryError):  # each record's outcome is told
            self._producer.flush(FLUSH_TIMEOUT_S)

    def abandon(self) -> None:
        self.close()

    def close(self) -> None:
        with suppress(DeliveryError):
            self._producer.close(0)


class Librdkafka:
    """confluent-kafka's producer.

    A fatal error becomes an exception in the call that serves callbacks, but not at once: as of
    confluent-kafka 2.16.1 it is set, and the call goes on with the next delivery callback, which
    so runs with an exception set. The first function written in C that it calls does its work and
    is then taken to have raised: a lock that it takes by `with` stays taken for ever. So here
    callbacks only put what they are given into a list, which is done even then, and all the rest
    happens when the call is over.
    """

    def __init__(self, address: str, **settings: Any) -> None:
        self._reports: list[tuple[Told, Any, Any]] = []
        self._is_abandoned = threading.Event()
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": address,
                "enable.idempotence": True,
                "reconnect.backoff.ms": RETRY_MS,
                "reconnect.backoff.max.ms": int(BACKOFF_MS),
                "retry.backoff.ms": RETRY_MS,
                "log_level": 0,
                **settings,
            }
        )

    def send(self, send: Send, told: Told) -> None:
        topic, partition = send.place
        self._producer.produce(
            topic,
            send.value,
            send.key,
            partition=partition,
            on_delivery=lambda error, message: self._reports.append((told, error, message)),
        )
        self._serve(self._producer.poll, 0)

    def poll(self) -> None:
        self._serve(self._producer.poll, MOMENT_S)

    def flush(self) -> None:
        deadline = time.monotonic() + FLUSH_TIMEOUT_S
        while self._serve(self._producer.flush, MOMENT_S):
            if self._is_abandoned.is_set() or time.monotonic() > deadline:
                return

    def abandon(self) -> None:
        self._is_abandoned.set()

    def close(self) -> None:
        self._producer.purge()
        with suppress(FatalError):  # it has been told, or nobody waits for it
            self._serve(self._producer.flush, FLUSH_TIMEOUT_S)

    def _serve(self, serve: Callable[[float], int], timeout_s: float) -> int:
        """Serve callbacks, and tell what they were given.

        Raises:
            FatalError: it went wrong; librdkafka's own word for what ends a producer.
        """
        result, problem = 0, ""
        try:
            result = serve(timeout_s)
        except KeyboardInterrupt:
            raise
        except:  # noqa: E722 - a fatal error is raised as a KafkaError, which is no BaseException
            problem = repr(sys.exc_info()[1])
        reports, self._reports = self._reports, []
        for told, error, message in reports:
            if error is None:
                told(OK, message.offset())
            else:
                told(INFO, -1)
        # Not in the handler: what is no exception cannot be the context of one.
        if problem:
            raise FatalError(problem)
        return result


class FatalError(Exception):
    """librdkafka's producer is at its end."""
