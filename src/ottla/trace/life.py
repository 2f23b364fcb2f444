"""The events of one record's life.

    created     the record was given to `send`                              client
    connected   the connection that it was sent over was ready              client
    buffered    its bytes stand in a batch                                  client
    sent        the request with it was handed to the network               client
    accepted    the broker checked it and appended it to the log            broker
    stored      the log is durable up to it                                 broker
    available   consumers can read it                                       broker
    confirmed   the broker's answer was there                               client
    fetched     it arrived at a consumer                                    client
    failed      it was given up; why                                        client

Times are nanoseconds of the client's monotonic clock. The broker tells how long after the request
had come in an event was; where it is another process, half of what the way there and back took is
added. A broker that does not tell leaves its events out, and the tables say so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

JSON_VERSION = 1


class Event(NamedTuple):
    """Something that happened.

    Attributes:
        name: what, as in the list above.
        at_ns: when; the client's monotonic clock.
        observer: who saw it, "client" or "broker".
        detail: more about it, in words.
    """

    name: str
    at_ns: int
    observer: str
    detail: str = ""


@dataclass(frozen=True)
class Life:
    """What was observed of one record.

    Attributes:
        topic: its topic.
        partition: its partition; None where it never had one.
        offset: its offset; None where it is not stored, or the broker did not tell.
        key: its key.
        value: its value.
        acks: what the broker was asked to confirm: "all", "1" or "0".
        events: in the order of their times.
        failure: why it was not delivered, or None.
        outcome_known: False where it may or may not be stored.
    """

    topic: str
    partition: int | None
    offset: int | None
    key: bytes | None
    value: bytes | None
    acks: str
    events: list[Event] = field(default_factory=list)
    failure: str | None = None
    outcome_known: bool = True

    def event(self, name: str) -> Event | None:
        """Return the event of a name, or None where nobody observed it."""
        return next((event for event in self.events if event.name == name), None)

    def had_happened(self, name: str, at_ns: int) -> bool:
        """Tell whether an event had been observed at a time."""
        event = self.event(name)
        return event is not None and event.at_ns <= at_ns

    def text(self) -> str:
        """Return both tables as text."""
        from ottla.trace.tables import process_table, render, status_tracker

        return f"{render(process_table(self))}\n{render(status_tracker(self))}"

    def to_json(self) -> dict[str, Any]:
        """Return everything in types that JSON has; bytes as text, or hexadecimal behind "0x"."""
        from ottla.trace.tables import process_table, status_tracker

        start = self.events[0].at_ns if self.events else 0
        return {
            "version": JSON_VERSION,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "key": _text(self.key),
            "value": _text(self.value),
            "failure": self.failure,
            "events": [
                {
                    "name": event.name,
                    "at_ms": (event.at_ns - start) / 1e6,
                    "observer": event.observer,
                    "detail": event.detail,
                }
                for event in self.events
            ],
            "process": [row._asdict() for row in process_table(self)],
            "tracker": [row._asdict() for row in status_tracker(self)],
        }


def _text(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"0x{data.hex()}"
