"""Who asks a broker in this process, and does a share of its work.

Without a server the callers do all the work. A request is answered at once or later, and `drive`
does what is left to do: the first caller that finds something to be made durable syncs it, for all
of them. A caller without anything to do waits until one of its requests has been answered, or until
it is its turn to sync; so a lone caller changes threads nowhere, and of many only those are woken
that have something to do. Whose turn it is syncs before it looks for its answer: with that it might
go away, and the others would wait for a sync that nobody begins.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ottla.broker.requests import Pending
from ottla.broker.router import handle
from ottla.errors import Closed, StorageError

if TYPE_CHECKING:
    from ottla.broker.broker import Broker
    from ottla.broker.requests import Context, Reply
    from ottla.log.group_commit import Round
    from ottla.protocol.message import ApiMessage


class Caller:
    """One of those who ask; one thread at a time drives it.

    Args:
        broker: the broker.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._woken = threading.Condition(broker.engine.lock)
        self._has_news = False
        self._has_turn = False
        broker.callers.add(self)

    def handle(self, request: ApiMessage, version: int, context: Context) -> Reply:
        """Answer a request, now or later; any thread may ask.

        Raises:
            CloseConnection: there is no other answer, such as to acks=0 that failed.
            Closed: the broker is closed.
            Forked: the broker belongs to the parent process.
        """
        broker = self._broker
        broker.check_usable()
        with broker.engine.lock:
            if broker.is_closed:
                raise Closed("the broker is closed")
            reply = handle(broker.engine, request, version, context)
            if isinstance(reply, Pending):
                reply.when_done(self._note)
            broker.wake_server()
        return reply

    def drive(self, timeout_s: float) -> None:
        """Do one unit of the work that is waiting, or wait until there is something new.

        Args:
            timeout_s: how long to wait at most. It may return before that without a reason.

        Raises:
            Forked: the broker belongs to the parent process.
        """
        broker = self._broker
        broker.check_usable()
        engine = broker.engine
        with engine.lock:
            engine.expire(engine.clock.monotonic_ms())
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
        return None if self._broker.is_closed else self._broker.engine.commit.begin()

    def _run(self, running: Round) -> None:
        engine = self._broker.engine
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
            with engine.lock:
                engine.commit.end(errors)
                self._has_news = False
                self._broker.round_ended()

    def _wait(self, timeout_s: float) -> None:
        engine = self._broker.engine
        deadline_ms = engine.next_deadline_ms()
        if deadline_ms is not None:
            timeout_s = min(timeout_s, (deadline_ms - engine.clock.monotonic_ms()) / 1000)
        if timeout_s > 0:
            idle = self._broker.idle_callers
            idle[self] = None
            try:
                self._woken.wait(timeout_s)
            except BaseException:  # Ctrl-C, most likely
                if self._has_turn:
                    self._has_turn = False
                    self._broker.round_ended()
                raise
            finally:
                idle.pop(self, None)
        engine.expire(engine.clock.monotonic_ms())

    def wake(self) -> None:
        """End a `drive` that waits, in whatever thread; or the next one."""
        with self._broker.engine.lock:
            self._note()

    def give_turn(self) -> None:
        """Have it begin the next round; with the engine's lock held."""
        self._has_turn = True
        self._note()

    def _note(self, response: object = None) -> None:
        self._has_news = True
        self._broker.idle_callers.pop(self, None)
        self._woken.notify()
