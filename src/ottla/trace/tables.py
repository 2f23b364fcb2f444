"""The process table and the status tracker, drawn from a record's events and nothing else.

A row says what was observed. What cannot have happened, because a step before it failed, is "not
done"; what may have happened, but nobody saw it, is "not observed".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ottla.trace.life import Event, Life

NOT_DONE = "not done"
NOT_OBSERVED = "not observed"
_VALUE_CHARS_MAX = 40


class Step(NamedTuple):
    """One row of the process table."""

    step: int
    action: str
    evaluation: str
    result: str
    at: str


class Variable(NamedTuple):
    """One row of the status tracker."""

    variable: str
    start: str
    after_1: str
    after_3: str
    after_5: str


_HEADINGS = {
    Step: ("step", "action", "evaluation", "result", "at"),
    Variable: ("variable", "start", "after 1", "after 3", "after 5"),
}


def process_table(life: Life) -> list[Step]:
    """Return the five steps of a record's life."""
    place = life.topic if life.partition is None else f"{life.topic}/{life.partition}"
    return [
        _step(
            life,
            1,
            f"create message {preview(life.value)}",
            ("created",),
            "message object created",
            _sizes(life),
        ),
        _step(
            life,
            2,
            "connect to the broker",
            ("connected",),
            "connected",
            _detail(life, "connected"),
        ),
        _step(
            life,
            3,
            f"send to {life.topic}",
            ("accepted",),
            "accepted, queued in broker",
            _accepted(life),
        ),
        _step(
            life,
            4,
            "flush",
            ("confirmed",),
            "confirmed" if life.offset is None else f"confirmed: offset {life.offset}",
            _confirmed(life),
        ),
        _step(
            life,
            5,
            f"stored in {place}",
            ("available", "fetched"),
            "available to consumers",
            "" if life.offset is None else f"readable below offset {life.offset + 1}",
        ),
    ]


def _step(
    life: Life, number: int, action: str, names: tuple[str, ...], result: str, evaluation: str
) -> Step:
    event = next((event for name in names if (event := life.event(name)) is not None), None)
    if event is not None:
        return Step(number, action, evaluation, result, _at(life, event))
    if life.failure is None:
        reason = "not known yet"
        if life.event("fetched") is not None:
            reason = "before it was fetched"
        elif life.event("confirmed") is not None:
            reason = "the broker does not tell"
        return Step(number, action, reason, NOT_OBSERVED, "")
    if not life.outcome_known and life.event("sent") is not None:
        return Step(number, action, life.failure, NOT_OBSERVED, "")
    first_missing = number == 2 or (number == 3 and life.event("connected") is not None)
    return Step(number, action, life.failure if first_missing else "", NOT_DONE, "")


def _sizes(life: Life) -> str:
    value = "no value" if life.value is None else f"{len(life.value)} B value"
    return f"{value}, no key" if life.key is None else f"{value}, {len(life.key)} B key"


def _detail(life: Life, name: str) -> str:
    event = life.event(name)
    return event.detail if event is not None else ""


def _accepted(life: Life) -> str:
    partition = "" if life.partition is None else f"partition {life.partition}"
    detail = _detail(life, "accepted")
    return f"{partition}, {detail}" if detail else partition


def _confirmed(life: Life) -> str:
    accepted, stored = life.event("accepted"), life.event("stored")
    if accepted is None or stored is None:
        return f"acks={life.acks}"
    return f"acks={life.acks}, stored in {(stored.at_ns - accepted.at_ns) / 1e6:.2f} ms"


def _at(life: Life, event: Event | None) -> str:
    if event is None or not life.events:
        return ""
    milliseconds = (event.at_ns - life.events[0].at_ns) / 1e6
    return f"+{milliseconds:.2f} ms" if milliseconds < 10 else f"+{milliseconds:.1f} ms"


def status_tracker(life: Life) -> list[Variable]:
    """Return message, connection and broker_queue before step 1 and after steps 1, 3 and 5."""
    created = life.event("created")
    value = preview(life.value)
    if created is None:
        unseen = (NOT_OBSERVED,) * 3
        return [
            Variable("message", *unseen, value),
            Variable("connection", *unseen, "connected"),
            Variable("broker_queue", *unseen, _stored(life)),
        ]
    connected = life.had_happened("connected", created.at_ns)
    before = "connected" if connected else "disconnected"
    after = "disconnected" if life.event("connected") is None else "connected"
    return [
        Variable("message", "none", value, value, value),
        Variable("connection", before, before, after, after),
        Variable("broker_queue", "empty", "empty", _queue(life, "accepted"), _stored(life)),
    ]


def _queue(life: Life, name: str) -> str:
    if life.event(name) is not None:
        return "contains message"
    if life.failure is not None and life.outcome_known:
        return "empty"
    return NOT_OBSERVED


def _stored(life: Life) -> str:
    seen = life.event("confirmed") is not None and life.acks != "0"
    if seen or life.event("fetched") is not None:
        return "contains message"
    return _queue(life, "available")


def preview(value: bytes | None) -> str:
    """Return a value as people read it, cut where it is long."""
    if value is None:
        return "none"
    try:
        text = repr(value[: _VALUE_CHARS_MAX * 4].decode())
    except UnicodeDecodeError:
        text = repr(value[:_VALUE_CHARS_MAX])
    return text if len(text) <= _VALUE_CHARS_MAX else f"{text[: _VALUE_CHARS_MAX - 4]}...'"


def render(rows: Sequence[Step] | Sequence[Variable]) -> str:
    """Return a table as text, its columns as wide as they must be."""
    cells = [_HEADINGS[type(rows[0])], *[tuple(map(str, row)) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
