"""Deadlines of responses that are waited for: a heap, from which the answered ones are swept."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import cython

if cython.compiled:
    from cython.cimports.ottla.broker.requests import Pending

if TYPE_CHECKING:
    from ottla.broker.requests import Pending

_SWEEP_MIN = 64


class Waits:
    """What waits, in the order of the deadlines.

    Most of what waits is answered long before its deadline. It stays in the heap until it is at
    the top, or until as much has been answered since the last sweep as half of the heap.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Pending]] = []
        self._number = 0
        self._answered = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, pending: Pending) -> None:
        """Have `pending` told when its time is over; nothing happens where it has no deadline."""
        if pending.is_done or pending.deadline_ms is None:
            return
        self._number += 1
        heapq.heappush(self._heap, (pending.deadline_ms, self._number, pending))
        pending.when_done(self._note_answered)

    def _note_answered(self, response: object) -> None:
        self._answered += 1
        if self._answered > _SWEEP_MIN and self._answered * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].is_done]
            heapq.heapify(self._heap)
            self._answered = 0

    def next_deadline_ms(self) -> float | None:
        """Return the first deadline, on the monotonic clock, or None."""
        while self._heap and self._heap[0][2].is_done:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def is_due(self, now_ms: float) -> bool:
        """Tell whether `expire` would find anything whose deadline has come."""
        return bool(self._heap) and self._heap[0][0] <= now_ms

    def expire(self, now_ms: float) -> None:
        """Tell everything whose deadline is at or before `now_ms` that its time is over."""
        while self._heap and self._heap[0][0] <= now_ms:
            heapq.heappop(self._heap)[2].expire()
