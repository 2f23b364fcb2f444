"""Rebalances, as far as the user's thread carries them out: in a poll, between two records.

What is revoked is given back when the user is done with it: first what was finished is committed,
where that goes by itself, then `on_revoked` is called, and only then the group goes on. What is
lost is gone already.

Kafka: ConsumerRebalanceListener, KIP-429.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ottla.client.membership import Kind

if TYPE_CHECKING:
    from ottla.client.consumer_core import ConsumerCore
    from ottla.client.lookup import TopicPartition
    from ottla.client.offsets import Commit

Listener = Callable[..., object]
"""Is called with the consumer and a list of partitions."""


class Listeners(NamedTuple):
    """Whom to tell, as (consumer, partitions).

    Attributes:
        on_assigned: they are read from now on; nothing of them was read yet, so one may seek.
        on_revoked: they are to be given back, and can still be committed.
        on_lost: they are another's already; None: `on_revoked` is told.
    """

    on_assigned: Listener | None = None
    on_revoked: Listener | None = None
    on_lost: Listener | None = None


class Rebalancing:
    """Carries out what changes in a group.

    Attributes:
        listeners: whom to tell.

    Args:
        core: the consumer's parts.
    """

    def __init__(self, core: ConsumerCore) -> None:
        self.listeners = Listeners()
        self._core = core
        self._commit: Commit | None = None
        self._commit_until_ms = 0.0

    def carry_out(self, consumer: object, timeout_s: float) -> bool:
        """Carry out what there is; False where there was not enough time, and some is left.

        Listeners are called with `consumer`.
        """
        core = self._core
        group = core.group
        if group is None or not group.membership.has_change():
            return True
        deadline = core.clock.monotonic_ms() + timeout_s * 1000
        while True:
            with core.driver.held():
                change = group.membership.take_change()
                if change is None:
                    return True
                if change.kind is Kind.LOST:
                    core.let_go(change.partitions)
                elif change.kind is Kind.ASSIGNED:
                    core.take_over(change.partitions)
            partitions = sorted(change.partitions)
            if change.kind is Kind.LOST:
                self._commit = None
                _tell(self.listeners.on_lost or self.listeners.on_revoked, consumer, partitions)
            elif change.kind is Kind.ASSIGNED:
                _tell(self.listeners.on_assigned, consumer, partitions)
            elif not self._commit_before(deadline):
                return False
            elif change.partitions <= group.membership.owned:
                self._give_back(consumer, change.partitions)

    def leave(self, consumer: object | None, deadline: float) -> None:
        """Give everything back, and leave the group; nobody is told where `consumer` is None."""
        core = self._core
        if core.group is None:
            return
        core.commit_at_the_end(deadline)
        owned = sorted(core.group.membership.owned)
        try:
            if consumer is not None:
                _tell(self.listeners.on_revoked, consumer, owned)
        finally:
            core.leave(deadline)

    def _give_back(self, consumer: object, partitions: frozenset[TopicPartition]) -> None:
        core = self._core
        assert core.group is not None
        try:
            _tell(self.listeners.on_revoked, consumer, sorted(partitions))
        finally:
            with core.driver.held():
                core.let_go(partitions)
                core.group.membership.given_back(partitions)
            core.driver.push()

    def _commit_before(self, deadline: float) -> bool:
        """Commit what was finished before it is given back; False where that is still under way."""
        core = self._core
        if not core.config.enable_auto_commit:
            return True
        now = core.clock.monotonic_ms()
        commit = self._commit
        if commit is None:
            with core.driver.held():
                commit = self._commit = core.commit_finished()
            limit = min(core.config.request_timeout_ms, core.config.max_poll_interval_ms / 2)
            self._commit_until_ms = now + limit
        left_ms = max(min(deadline, self._commit_until_ms) - now, 0.0)
        core.driver.run_until(lambda: commit.is_done, left_ms / 1000)
        if not commit.is_done and core.clock.monotonic_ms() < self._commit_until_ms:
            return False
        self._commit = None
        return True


def _tell(listener: Listener | None, consumer: object, partitions: list[TopicPartition]) -> None:
    if listener is not None and partitions:
        listener(consumer, partitions)
