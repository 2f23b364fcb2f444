# cython: cdivision=True
"""The only module that reads time.

What measures durations takes a `Clock`; tests give one of their own that stands still until told.

It is compiled because every record and every request asks for the time.
"""

from __future__ import annotations

import time
from typing import Protocol

import cython

if cython.compiled:
    from cython.cimports.cpython.time import monotonic_ns, time_ns
else:
    from time import monotonic_ns, time_ns


class Clock(Protocol):
    """Where time comes from."""

    def now_ms(self) -> int:
        """Return the wall clock: milliseconds since 1970, as records are stamped."""
        ...

    def monotonic_ms(self) -> float:
        """Return milliseconds that never go back, for deadlines and durations."""
        ...

    def monotonic_ns(self) -> int:
        """Return nanoseconds that never go back, for the events of a message's life."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let so much time go by."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time_ns() // 1_000_000

    def monotonic_ms(self) -> float:
        return monotonic_ns() / 1_000_000.0

    def monotonic_ns(self) -> int:
        return monotonic_ns()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class ManualClock:
    """A clock that stands still until it is told to go on; for tests."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._wall_ms = now_ms
        self._elapsed_ms = 0.0

    def advance(self, milliseconds: float) -> None:
        """Let both clocks go on."""
        self._elapsed_ms += milliseconds

    def now_ms(self) -> int:
        return self._wall_ms + int(self._elapsed_ms)

    def monotonic_ms(self) -> float:
        return self._elapsed_ms

    def monotonic_ns(self) -> int:
        return int(self._elapsed_ms * 1_000_000)

    def sleep(self, seconds: float) -> None:
        self.advance(seconds * 1000)


SYSTEM = SystemClock()
"""The machine's clock, where no other is given."""


def monotonic_ms_of(clock: Clock) -> float:
    """Return `clock.monotonic_ms()`; of the machine's clock without Python's protocol."""
    if cython.compiled and type(clock) is SystemClock:
        return cython.cast(SystemClock, clock).monotonic_ms()
    return clock.monotonic_ms()


def monotonic_ns_of(clock: Clock) -> int:
    """Return `clock.monotonic_ns()`; of the machine's clock without Python's protocol."""
    if cython.compiled and type(clock) is SystemClock:
        return cython.cast(SystemClock, clock).monotonic_ns()
    return clock.monotonic_ns()
