"""Who asks a broker in this process, and does a share of its work.

Without a server the callers do all the work. A request is answered at once or later, and `drive`
does what is left to do: the first caller that finds something to be made durable syncs it, for all
of them. A caller without anything to do waits until one of its requests has been answered, or until
it is its turn to sync; so a lone caller changes threads nowhere, and of many only those are woken
that have something to do. Whose turn it is syncs before it looks for its answer: with that it might
go away, and the others would wait for a sync that nobody begins.

It is compiled because what runs around a sync finds cold caches: each line of the interpreter that
it does without is one that need not be fetched from memory.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import cython

from ottla.broker.router import failed as failure_of
from ottla.broker.router import find_served, handle
from ottla.errors import Closed, StorageError
from ottla.protocol.messages.api_00_produce import ProduceRequest

if cython.compiled:
    from cython.cimports.ottla.broker.appending import Storing, append_usual
    from cython.cimports.ottla.broker.requests import Pending
    from cython.cimports.ottla.log.group_commit import Round
else:
    from ottla.broker.appending import append_usual
    from ottla.broker.requests import Pending

if TYPE_CHECKING:
    from ottla.broker.appending import Storing
    from ottla.broker.broker import Broker
    from ottla.broker.requests import Context, Reply
    from ottla.log.group_commit import Round
    from ottla.protocol.message import ApiMessage
    from ottla.wire import Buffer


class Caller:
    """One of those who ask; one thread at a time drives it.

    Args:
        broker: the broker.
    """

    def __init__(self, broker: Broker) -> None:
        engine = broker.engine
        self._broker = broker
        self._engine = engine
        self._lock = engine.lock
        self._commit = engine.commit
        self._waits = engine.waits
        self._woken = threading.Condition(engine.lock)
        self._is_idle = False
        self._has_news = False
        self._has_turn = False
        broker.callers.add(self)

    def handle(self, request: ApiMessage, version: cython.int, context: Context) -> Reply:
        """Answer a request, now or later; any thread may ask.

        Raises:
            CloseConnection: there is no other answer, such as to acks=0 that failed.
            Closed: the broker is closed.
            Forked: the broker belongs to the parent process.
        """
        broker = self._broker
        self._check()
        with self._lock:
            if broker.is_closed:
                raise Closed("the broker is closed")
            reply = handle(self._engine, request, version, context)
            if isinstance(reply, Pending):
                reply.when_done(self._note)
            broker.wake_server()
        return reply

    def append(
        self,
        topic: str | bytes,
        partition: cython.int,
        records: Buffer,
        version: cython.int,
        timeout_ms: cython.double,
    ) -> Storing | None:
        """Append a batch, as a usual Produce request of this version asks for; any thread may.

        Args:
            topic: the topic's name, or its id.
            partition: the partition.
            records: the batch.
            version: of the request.
            timeout_ms: how long it may take until it is stored.

        Returns:
            What is done when it is stored; None where nothing was done: `handle` finds out why.

        Raises:
            CloseConnection: the broker failed.
            Closed: the broker is closed.
            Forked: the broker belongs to the parent process.
        """
        broker = self._broker
        storing: Storing | None
        self._check()
        with self._lock:
            if broker.is_closed:
                raise Closed("the broker is closed")
            try:
                storing = append_usual(self._engine, topic, partition, records, version, timeout_ms)
            except Exception as error:
                served = find_served(ProduceRequest.API_KEY << 16 | version)
                assert served is not None
                raise failure_of(served, error) from error
            if storing is not None:
                if not storing.is_done:
                    storing.when_done(self._note)
                if broker.server is not None:
                    broker.wake_server()
        return storing

    def _check(self) -> None:
        """Raise `Forked` in a child; before the lock, which a thread of the parent may have had."""
        if self._broker.is_forked:
            self._broker.check_usable()

    def drive(self, timeout_s: cython.double) -> None:
        """Do one unit of the work that is waiting, or wait until there is something new.

        Args:
            timeout_s: how long to wait at most. It may return before that without a reason.

        Raises:
            Forked: the broker belongs to the parent process.
        """
        self._check()
        with self._lock:
            self._expire()
            running = self._begin()
            if running is None:
                if not self._has_news:
                    self._wait(timeout_s)
                self._has_news = False
                if self._has_turn:
                    self._has_turn = False
                    running = self._begin()
            if running is None:
                return
        self._run(running)

    def _begin(self) -> Round | None:
        return None if self._broker.is_closed else self._commit.begin()

    def _run(self, running: Round) -> None:
        errors: list[StorageError | None] = []
        try:
            for part in running.parts:
                errors.append(part())
        except BaseException as error:
            # Ctrl-C, most likely. Others wait for the round, so it is brought to its end: a sync
            # that was interrupted has not failed, and is done again unless it was about to say so.
            if isinstance(error.__context__, OSError | StorageError):
                errors.append(StorageError(f"a sync was interrupted: {error.__context__}"))
            errors += [part() for part in running.parts[len(errors) :]]
            raise
        finally:
            with self._lock:
                self._commit.end(errors)
                self._has_news = False
                self._broker.round_ended()

    def _expire(self) -> None:
        engine = self._engine
        now_ms: cython.double = engine.clock.monotonic_ms()
        if engine.loaded_groups is not None or self._waits.is_due(now_ms):
            engine.expire(now_ms)

    def _wait(self, timeout_s: cython.double) -> None:
        engine = self._engine
        deadline_ms = engine.next_deadline_ms()
        if deadline_ms is not None:
            timeout_s = min(timeout_s, (deadline_ms - engine.clock.monotonic_ms()) / 1000)
        if timeout_s > 0:
            idle = self._broker.idle_callers
            idle[self] = None
            self._is_idle = True
            try:
                self._woken.wait(timeout_s)
            except BaseException:  # Ctrl-C, most likely
                if self._has_turn:
                    self._has_turn = False
                    self._broker.round_ended()
                raise
            finally:
                self._is_idle = False
                idle.pop(self, None)
        engine.expire(engine.clock.monotonic_ms())

    def wake(self) -> None:
        """End a `drive` that waits, in whatever thread; or the next one."""
        with self._lock:
            self._note()

    def give_turn(self) -> None:
        """Have it begin the next round; with the engine's lock held."""
        self._has_turn = True
        self._note()

    def _note(self, response: object = None) -> None:
        self._has_news = True
        if self._is_idle:
            self._broker.idle_callers.pop(self, None)
            self._woken.notify()
