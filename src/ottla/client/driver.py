"""Who does a client's work: whoever waits for it, and otherwise a thread of its own.

The client's core is a set of objects without threads; a *turn* runs their step and lets the network
hand over what has arrived. Turns are done under one lock, by

- a caller that waits (`flush`, `result`, `poll`, a full buffer): it does turns until what it waits
  for is there, so that a lone send + flush needs no other thread;
- a caller that filled a batch (`push`): one turn that does not wait;
- the client's own thread, when there is work and no caller has done a turn for a tick.

The thread sleeps in short ticks for a while after the last work, so that new work need not wake it;
after that it parks, and is woken by the first `send` that finds it parked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import cython

from ottla.errors import ClientError

if cython.compiled:
    from cython.cimports.cpython.pythread import (
        PY_LOCK_ACQUIRED,
        WAIT_LOCK,
        PyThread_acquire_lock,
        PyThread_allocate_lock,
        PyThread_free_lock,
        PyThread_release_lock,
    )
    from cython.cimports.cpython.pythread import PyThread_get_thread_ident as get_ident
    from cython.cimports.ottla.client.driver import PyThread_acquire_lock_timed
    from cython.cimports.ottla.clock import monotonic_ms_of
else:
    from threading import get_ident

    from ottla.clock import monotonic_ms_of

if TYPE_CHECKING:
    from ottla.client.network import Network
    from ottla.clock import Clock

_TICK_S = 0.005
_IDLE_TICKS = 200
_TURN_S = 0.25
_HANDOVER_S = 0.05


class Work(Protocol):
    """What a client's core does in a turn."""

    def step(self) -> float | None:
        """Do what is due; returns when to look again, on the monotonic clock, or None."""
        ...

    def has_work(self) -> bool:
        """Tell whether anything is outstanding that needs turns."""
        ...


class Driver:
    """Does the turns.

    Attributes:
        parked: whether the thread sleeps until it is woken.

    Args:
        network: what is polled.
        work: what is done.
        clock: where time comes from.
        tick_s: how long no caller has done a turn before the thread does.
    """

    def __init__(self, network: Network, work: Work, clock: Clock, tick_s: float = _TICK_S) -> None:
        self.parked = True
        self._tick_s = tick_s
        self._tick_us = int(tick_s * 1_000_000)
        self._network = network
        self._work = work
        self._clock = clock
        self._lock = threading.Lock()
        self._is_taken = False
        self._gate = threading.RLock()
        self._turned = threading.Condition(self._gate)
        self._callers = 0
        self._calls = 0
        self._waiting = 0
        self._holders = 0
        self._last_call_ms = 0.0
        self._driving = 0  # the thread that does a turn
        self._thread: threading.Thread | None = None
        self._bell = threading.Event()
        self._closed = False
        self._held = Held(self)
        if cython.compiled:
            self._ended = PyThread_allocate_lock()
            if self._ended is cython.NULL:
                raise MemoryError("there is no lock to be had")
            PyThread_acquire_lock(self._ended, WAIT_LOCK)

    if cython.compiled:

        def __cinit__(self) -> None:
            self._ended = cython.NULL

        def __dealloc__(self) -> None:
            if self._ended is not cython.NULL:
                PyThread_free_lock(self._ended)

    # -- callers

    def run_until(self, reached: Callable[[], bool], timeout_s: float | None) -> bool:
        """Do turns until something is reached; False where the time is over before that.

        Raises:
            ClientError: it is called from a delivery callback, which runs inside of a turn.
        """
        if reached():
            return True
        if self.is_turning():
            raise ClientError(
                "a delivery callback cannot wait for other deliveries",
                next_steps=("Wait outside of the callback, or call send() only.",),
            )
        deadline = None if timeout_s is None else monotonic_ms_of(self._clock) + timeout_s * 1000
        self._count_caller(1)
        try:
            return self._run_until(reached, deadline)
        finally:
            self._count_caller(-1)
            self._last_call_ms = monotonic_ms_of(self._clock)
            if self.parked and self._work.has_work():
                self._wake()

    def is_turning(self) -> bool:
        """Tell whether the caller is inside of a turn, as a delivery callback is."""
        return self._driving == get_ident()

    def _run_until(self, reached: Callable[[], bool], deadline: float | None) -> bool:
        tried = False  # one turn is done however little time there is
        while not reached():
            left = _TURN_S
            if deadline is not None:
                left = min((deadline - monotonic_ms_of(self._clock)) / 1000, left)
                if left <= 0:
                    if tried:
                        return False
                    left = 0.0
            tried = True
            if not self._holders and self._take():
                try:
                    self._turn(left)
                finally:
                    self._release()
            else:
                self._wait_for_turn(min(left, _HANDOVER_S), reached)
        return True

    def _count_caller(self, by: cython.int) -> None:
        """Take note of a caller that waits, or does not any more.

        Compiled, it takes no lock: the GIL lets nobody come in between.
        """
        if cython.compiled:
            self._callers += by
            self._calls += 1
        else:
            with self._gate:
                self._callers += by
                self._calls += 1

    def _wait_for_turn(self, seconds: float, reached: Callable[[], bool] | None) -> None:
        """Wait until the turn that another thread does is over, `seconds` at most.

        Who ends a turn lets go of its lock first and looks for waiters then; who waits counts
        itself first and looks at the lock then. So one of the two sees the other.
        """
        self._network.wake()
        with self._turned:
            self._waiting += 1
            try:
                is_kept = self._is_taken or (reached is not None and self._holders > 0)
                if is_kept and not (reached is not None and reached()):
                    self._turned.wait(seconds)
            finally:
                self._waiting -= 1

    def held(self) -> Held:
        """Keep turns away for as long as a `with` block lasts, to look at what they change."""
        return self._held

    def hold(self) -> None:
        """Keep turns away until `let_go`; a turn that waits for the network is cut short.

        Nobody begins another turn meanwhile: who does turn after turn would take the lock again
        each time before who waits for it is awake.
        """
        if self._take():
            return
        self._count_caller(1)
        self._count_holder(1)
        try:
            while not self._take():
                self._wait_for_turn(_HANDOVER_S, None)
        finally:
            self._count_holder(-1)
            self._count_caller(-1)

    def _count_holder(self, by: cython.int) -> None:
        """Take note of somebody who waits to keep turns away; as `_count_caller`."""
        if cython.compiled:
            self._holders += by
        else:
            with self._gate:
                self._holders += by

    def let_go(self) -> None:
        """Let turns be done again."""
        self._last_call_ms = monotonic_ms_of(self._clock)
        self._calls += 1
        self._release()

    def push(self) -> None:
        """Do one turn without waiting, unless another thread is doing one."""
        if self._take():
            try:
                self._last_call_ms = monotonic_ms_of(self._clock)
                self._calls += 1
                self._turn(0.0)
            finally:
                self._release()
        if self.parked and self._work.has_work():
            self._wake()

    def _turn(self, wait_s: float) -> None:
        self._driving = get_ident()
        try:
            due = self._work.step()
            if due is not None:
                wait_s = max(min(wait_s, (due - monotonic_ms_of(self._clock)) / 1000), 0.0)
            self._network.poll(wait_s)
        finally:
            self._driving = 0

    def _take(self) -> bool:
        """Take the turns' lock, unless another thread has it.

        Compiled, it is a flag: the GIL lets nobody come in between.
        """
        if not cython.compiled and not self._lock.acquire(blocking=False):
            return False
        if self._is_taken:
            return False
        self._is_taken = True
        return True

    def _release(self) -> None:
        self._is_taken = False
        if not cython.compiled:
            self._lock.release()
        if self._waiting:
            with self._turned:
                self._turned.notify_all()

    def interrupt(self) -> None:
        """Have callers that wait look whether what they wait for is reached; any thread may."""
        self._network.wake()
        with self._turned:
            self._turned.notify_all()

    # -- the thread

    def notify(self) -> None:
        """Tell that there is new work; called by any thread, once for each new batch."""
        driving = self._driving
        if driving != 0 and driving != get_ident():
            self._network.wake()
        if self.parked:
            self._wake()

    def _wake(self) -> None:
        if self._closed:
            return
        with self._turned:
            self.parked = False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ottla-client", daemon=True)
                self._thread.start()
        self._bell.set()

    def _run(self) -> None:
        idle = 0
        while not self._closed:
            quiet_ms = monotonic_ms_of(self._clock) - self._last_call_ms
            if self._callers or quiet_ms < self._tick_s * 1000:
                idle = 0
            elif not self._work.has_work():
                idle += 1
            elif not self._holders and self._take():
                idle = 0
                try:
                    self._turn(_TURN_S)
                finally:
                    self._release()
                continue
            if idle >= _IDLE_TICKS:
                idle = 0
                self._park()
            else:
                self._nap()
            self._bell.clear()

    def _nap(self) -> None:
        """Sleep for a tick; compiled, for as long as callers do turns as well.

        Who wakes up only to see that there is nothing to do would need the interpreter's lock for
        it, and the caller that does the turns would wait for that, for long where the machine is
        busy and the thread is put aside just then.
        """
        if cython.compiled:
            with cython.nogil:
                self._sleep()
        else:
            self._bell.wait(self._tick_s)

    def _sleep(self) -> None:
        """Sleep until no caller has done a turn for a tick; without the interpreter's lock.

        It is woken once a tick, and by who closes, who lets go of the lock that it waits for.
        """
        if cython.compiled:
            seen: cython.longlong = self._calls - 1
            while (self._callers > 0 or seen != self._calls) and not self._closed:
                seen = self._calls
                if PyThread_acquire_lock_timed(self._ended, self._tick_us, 0) == PY_LOCK_ACQUIRED:
                    return

    def _park(self) -> None:
        self.parked = True
        if not self._work.has_work() and not self._closed:
            self._bell.wait()
        self.parked = False

    def close(self) -> None:
        """End the thread and the network; the thread is waited for unless it is the caller."""
        if cython.compiled and not self._closed:
            PyThread_release_lock(self._ended)  # the thread need not sleep to the end of its tick
        self._closed = True
        self._bell.set()
        self._network.wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._held:
            self._network.close()


class Held:
    """A `with` block during which no turns are done."""

    __slots__ = ("_driver",)

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __enter__(self) -> None:
        self._driver.hold()

    def __exit__(self, *_: object) -> None:
        self._driver.let_go()
