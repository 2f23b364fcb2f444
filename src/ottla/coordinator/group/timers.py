"""Deadlines of all groups: soft state, set anew when a group is loaded.

A deadline is often put off, with every heartbeat. So the heap keeps one entry for each, however
often that happens, and looks where the deadline is when the entry comes up.

Each belongs to the shard that set it, so that one heap serves all of them.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ottla.coordinator.group.decision import Decision


class Now(NamedTuple):
    """The time, as a state machine is told it.

    Attributes:
        wall_ms: milliseconds since 1970, for what is written down.
        monotonic_ms: milliseconds that never go back, for deadlines.
    """

    wall_ms: int
    monotonic_ms: float


Action = Callable[[Now], "Decision"]
"""What to do at a deadline."""

Key = tuple[str, ...]
"""What a deadline is for: its kind, the group, the member."""


class _Deadline(NamedTuple):
    at_ms: float
    delay_ms: float
    action: Action


class Timers:
    """All deadlines, by the shard that they belong to and by what they are for."""

    def __init__(self) -> None:
        self._deadlines: dict[tuple[int, Key], _Deadline] = {}
        self._queued: dict[tuple[int, Key], float] = {}
        self._heap: list[tuple[float, int, tuple[int, Key]]] = []
        self._number = itertools.count()

    def of_shard(self, shard: int) -> ShardTimers:
        """Return the deadlines of one shard."""
        return ShardTimers(self, shard)

    def set(self, key: tuple[int, Key], now: Now, delay_ms: float, action: Action) -> None:
        """Set a deadline, or put it off."""
        at_ms = now.monotonic_ms + delay_ms
        self._deadlines[key] = _Deadline(at_ms, delay_ms, action)
        queued = self._queued.get(key)
        if queued is None or queued > at_ms:
            self._push(key, at_ms)

    def _push(self, key: tuple[int, Key], at_ms: float) -> None:
        self._queued[key] = at_ms
        heapq.heappush(self._heap, (at_ms, next(self._number), key))

    def has(self, key: tuple[int, Key]) -> bool:
        """Tell whether there is such a deadline."""
        return key in self._deadlines

    def cancel(self, key: tuple[int, Key]) -> None:
        """Forget a deadline; nothing happens where there is none."""
        self._deadlines.pop(key, None)

    def cancel_all(self, shard: int) -> None:
        """Forget all deadlines of a shard."""
        for key in [key for key in self._deadlines if key[0] == shard]:
            del self._deadlines[key]

    def next_deadline_ms(self) -> float | None:
        """Return the first deadline, on the monotonic clock, or None."""
        while self._heap:
            at_ms, _, key = self._heap[0]
            deadline = self._deadlines.get(key)
            if self._queued.get(key) == at_ms and deadline is not None:
                if deadline.at_ms <= at_ms:
                    return deadline.at_ms
                heapq.heappop(self._heap)
                self._push(key, deadline.at_ms)
                continue
            heapq.heappop(self._heap)
            if self._queued.get(key) == at_ms:
                del self._queued[key]
        return None

    def due(self, now_ms: float) -> Iterator[tuple[int, Action]]:
        """Yield what is due, with its shard, in the order of the deadlines; each once."""
        while (at_ms := self.next_deadline_ms()) is not None and at_ms <= now_ms:
            _, _, key = heapq.heappop(self._heap)
            del self._queued[key]
            yield key[0], self._deadlines.pop(key).action

    def restart(self, now: Now) -> None:
        """Let everything have its whole time again, as after a start."""
        for key, deadline in list(self._deadlines.items()):
            self.set(key, now, deadline.delay_ms, deadline.action)


class ShardTimers:
    """The deadlines of one shard."""

    def __init__(self, timers: Timers, shard: int) -> None:
        self._timers = timers
        self._shard = shard

    def set(self, key: Key, now: Now, delay_ms: float, action: Action) -> None:
        """Set a deadline, or put it off."""
        self._timers.set((self._shard, key), now, delay_ms, action)

    def has(self, key: Key) -> bool:
        """Tell whether there is such a deadline."""
        return self._timers.has((self._shard, key))

    def cancel(self, key: Key) -> None:
        """Forget a deadline; nothing happens where there is none."""
        self._timers.cancel((self._shard, key))
