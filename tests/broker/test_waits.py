"""Deadlines of responses, and responses that two threads meet at."""

from __future__ import annotations

from functools import partial

from ottla.broker.requests import Pending
from ottla.broker.waits import Waits
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_03_metadata import MetadataResponse


def test_only_what_is_due_expires_and_in_the_order_of_the_deadlines() -> None:
    waits = Waits()
    expired: list[float] = []
    for deadline_ms in (30, 10, 20):
        waits.add(Pending(deadline_ms, partial(expired.append, deadline_ms)))
    assert waits.next_deadline_ms() == 10
    waits.expire(20)
    assert expired == [10, 20]
    assert waits.next_deadline_ms() == 30


def test_what_was_answered_does_not_expire_and_is_not_waited_for() -> None:
    waits, expired = Waits(), []
    pending = Pending(10, lambda: expired.append(10))
    waits.add(pending)
    pending.finish(None)
    assert waits.next_deadline_ms() is None
    waits.expire(100)
    assert expired == []


def test_what_has_no_deadline_waits_for_ever() -> None:
    waits = Waits()
    waits.add(Pending())
    assert waits.next_deadline_ms() is None


def test_answered_ones_are_swept_out_long_before_their_deadline() -> None:
    waits = Waits()
    keeping = Pending(1e9, lambda: None)
    waits.add(keeping)
    for _ in range(1000):
        pending = Pending(1e9, lambda: None)
        waits.add(pending)
        pending.finish(None)
    assert len(waits) < 200
    assert waits.next_deadline_ms() == 1e9


def test_a_response_is_handed_over_once_to_everybody_who_asked_before_or_after() -> None:
    pending, told = Pending(), []
    first = MetadataResponse()

    def tell(response: ApiMessage | None) -> None:
        told.append(response)

    pending.when_done(tell)
    pending.finish(first)
    pending.finish(MetadataResponse(controller_id=7))
    pending.when_done(tell)
    assert [response is first for response in told] == [True, True]
    assert pending.response is first
