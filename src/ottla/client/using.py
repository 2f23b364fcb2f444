"""Keeps a second thread out of a consumer, and says so.

The thread that is inside may come in again: a listener that is told of a rebalance in a poll
commits and seeks.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ottla.errors import ClientError

if TYPE_CHECKING:
    from ottla.client.consumer_core import ConsumerCore


class Using:
    """A `with` block in which no other thread uses the consumer.

    Attributes:
        thread: the thread that is inside, or was last.

    Args:
        core: the consumer's parts.
    """

    def __init__(self, core: ConsumerCore) -> None:
        self.thread = 0
        self._core = core
        self._lock = threading.Lock()
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._depth and self.thread == me:
            self._depth += 1
            return
        refusal = self._core.refusal
        if refusal is not None:
            raise refusal
        if not self._lock.acquire(blocking=False):
            raise ClientError(
                "the consumer is in use by another thread",
                next_steps=("Give each thread a consumer of its own.",),
            )
        self.thread = me
        self._depth = 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._lock.release()

    def take_over(self, timeout_s: float) -> bool:
        """Come in to close, when the thread that is inside is out; False where it stays inside."""
        me = threading.get_ident()
        if self._depth and self.thread == me:
            self._depth += 1
            return True
        if not self._lock.acquire(timeout=timeout_s):
            return False
        self.thread = me
        self._depth = 1
        return True
