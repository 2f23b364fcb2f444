"""What is behind a producer: the parts, and how they work together.

Kafka: KafkaProducer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import cython

from ottla.client.accumulator import Accumulator
from ottla.client.cluster import Cluster
from ottla.client.delivery import STORED
from ottla.client.driver import Driver
from ottla.client.packing import Packer, is_worthwhile
from ottla.client.sender import Sender
from ottla.errors import (
    ClientError,
    Closed,
    DeliveryError,
    FlushTimeout,
    Forked,
    OutcomeUnknown,
)

if cython.compiled:
    from cython.cimports.ottla.client.node import sooner
    from cython.cimports.ottla.clock import monotonic_ms_of
else:
    from ottla.client.node import sooner
    from ottla.clock import monotonic_ms_of

if TYPE_CHECKING:
    from ottla.client.config import ProducerConfig
    from ottla.client.delivery import Batch
    from ottla.client.network import Network
    from ottla.clock import Clock

_CAUSES_MAX = 3
_STORED = cython.declare(cython.int, STORED)


class ProducerCore:
    """The parts of a producer, and how they work together."""

    def __init__(self, network: Network, config: ProducerConfig, clock: Clock) -> None:
        self.config = config
        self.cluster = Cluster(network, config, clock, create_topics=True)
        self.driver = Driver(network, self, clock)
        self.packer: Packer | None = None
        if is_worthwhile(config.codec):
            self.packer = Packer(config.codec, config.compression_level, self.driver.notify)
        to_pack = None if self.packer is None else self.packer.given
        self.accumulator = Accumulator(config, clock, self, self._notify, to_pack)
        self.sender = Sender(config, self.cluster, self.accumulator, clock)
        self.clock = clock
        self.is_closed = False

    @property
    def refusal(self) -> ClientError | None:
        """Why nothing can be sent any more, or None."""
        refusal: ClientError | None = self.accumulator.refusal
        return refusal

    @refusal.setter
    def refusal(self, refusal: ClientError) -> None:
        self.accumulator.refusal = refusal

    def _notify(self, filled: bool) -> None:
        if not filled:
            self.driver.notify()
            return
        if self.packer is not None:
            self.packer.wait_until_begun()
        self.driver.push()

    # -- Work, Waiter

    def step(self) -> float | None:
        """Do what is due; returns when to look again, on the monotonic clock, or None."""
        if not self.sender.has_work():
            return None
        if self.packer is not None:
            self.packer.look()
        due: float | None = sooner(self.cluster.step(), self.sender.step())
        if self.cluster.wants_refresh:
            due = sooner(due, self.cluster.step())
        return due

    def has_work(self) -> bool:
        """Tell whether any record has no outcome yet."""
        return self.sender.has_work()

    def wait(self, reached: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is reached, `timeout` seconds at most."""
        if self.is_closed:
            return reached()
        self.sender.hurry(1)
        try:
            return self.driver.run_until(reached, timeout)
        finally:
            self.sender.hurry(-1)

    # -- flush and close

    def flush(self, timeout: float | None) -> int:
        """See `Sending.flush`."""
        started = monotonic_ms_of(self.clock)
        in_time = True
        accumulator: Accumulator = self.accumulator
        if accumulator.unknown:
            in_time = self.wait(self._knows_topics, timeout)
        waiting, failed = self.sender.watch()
        batch: Batch
        try:
            if in_time:
                if timeout is not None:
                    timeout_left = timeout - (monotonic_ms_of(self.clock) - started) / 1000
                    in_time = self.wait(Unfinished(waiting).is_none, timeout_left)
                else:
                    in_time = self.wait(Unfinished(waiting).is_none, None)
            for batch in waiting:
                if batch.error is not None:
                    failed.append(batch)
        finally:
            self.sender.unwatch(waiting)
        pending: cython.longlong = 0
        for batch in waiting:
            if batch.state < _STORED:
                pending += batch.count
        if accumulator.unknown:
            pending += self._pending()
        delivered = self.sender.take_delivered()
        if not in_time and pending:
            raise delivery_error(failed, delivered, pending, timeout)
        if failed:
            raise delivery_error(failed, delivered, 0, None)
        return delivered

    def _knows_topics(self) -> bool:
        return not self.accumulator.unknown

    def _pending(self) -> int:
        """Return how many records wait for their topics."""
        return sum(len(topic.pending) for topic in self.accumulator.unknown_topics())

    def close(self, timeout: float | None) -> None:
        """See `Producer.close`."""
        if self.is_closed:
            return
        if self.driver.is_turning():
            raise ClientError(
                "a delivery callback cannot close the producer",
                "The producer is open as before.",
                ("Close it outside of the callback.",),
            )
        if self.refusal is not None:
            self.is_closed = True
            return
        try:
            self.flush(timeout)
        finally:
            self.is_closed = True
            self.refusal = Closed("the producer is closed", "The record was not sent.")
            self.driver.close()
            if self.packer is not None:
                self.packer.close()
            self.sender.abandon(Closed("the producer was closed before the record was sent"))
            self.cluster.close()

    def forked(self) -> None:
        """Refuse everything: this is the child of the process that the producer belongs to."""
        self.refusal = Forked(
            "the producer was made before a fork and cannot be used in the child",
            "The record was not sent.",
            ("Make a producer of its own in the child.",),
        )
        self.is_closed = True


class Unfinished:
    """Batches whose outcome is not known yet.

    Args:
        batches: all that there are; what is known of them is not looked at again.
    """

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches
        self._left = len(batches)

    def is_none(self) -> bool:
        """Tell whether the outcome of all is known."""
        while self._left:
            batch: Batch = self._batches[self._left - 1]
            if batch.state < _STORED:
                return False
            self._left -= 1
        return True


def delivery_error(
    failed: Sequence[Batch], delivered: int, pending: int, timeout: float | None
) -> DeliveryError:
    """Tell what was not delivered, with the first causes."""
    lost = sum(batch.count for batch in failed if not isinstance(batch.error, OutcomeUnknown))
    unknown = sum(batch.count for batch in failed) - lost
    total = delivered + lost + unknown + pending
    errors = [batch.error for batch in failed if batch.error is not None]
    causes = list({str(error): error for error in errors}.values())[:_CAUSES_MAX]
    effects = []
    if lost:
        subject = f"{lost} {'was' if lost == 1 else 'were'}"
        if lost == total:
            subject = "The record was" if total == 1 else "They were"
        effects.append(f"{subject} NOT stored: {lost} of {total} undelivered.")
    if unknown:
        effects.append(f"{unknown} of {total} may or may not be stored.")
    if pending:
        effects.append(f"{pending} of {total} are still on their way.")
    whats = [cause.what for cause in causes]
    steps = tuple(dict.fromkeys(step for cause in causes for step in cause.next_steps))
    if timeout is not None:
        return FlushTimeout(
            "; ".join([f"not confirmed within {timeout:g} s", *whats]),
            " ".join(effects),
            (*steps, "Call flush() again: what is still on its way is not lost."),
            failed=lost + unknown,
            pending=pending,
            causes=causes,
        )
    error = DeliveryError(
        f"not {'confirmed' if unknown and not lost else 'sent'}: {'; '.join(whats)}",
        " ".join(effects),
        steps,
        failed=lost + unknown,
        pending=pending,
        causes=causes,
    )
    if causes:
        error.__cause__ = causes[0]
    return error
