"""Keeps what a producer or a consumer observes of records, so that their lives can be told.

Only those that are made with trace=True have one. The times of a batch are always there; what is
added here is when each record was created, and when which offsets were fetched, in bounded rings:
the oldest are forgotten.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from ottla.client.config import ACKS_ALL
from ottla.errors import ClientError, OutcomeUnknown
from ottla.trace.life import Event, Life

if TYPE_CHECKING:
    from ottla.client.delivery import BatchTimes, Delivery
    from ottla.records.record import Record

RECORDS_MAX = 65_536
"""How many records are remembered."""

FETCHES_MAX = 4096
"""How many fetches of a partition are remembered."""


class Lives:
    """The ring.

    Args:
        acks: what the broker is asked to confirm: -1, 0 or 1.
    """

    def __init__(self, acks: int) -> None:
        self._acks = "all" if acks == ACKS_ALL else str(acks)
        self._records: OrderedDict[Delivery, tuple[int, int, bytes | None, bytes | None]]
        self._records = OrderedDict()

    def created(
        self,
        delivery: Delivery,
        created_ns: int,
        buffered_ns: int,
        key: bytes | None,
        value: bytes | None,
    ) -> None:
        """Take note of a record."""
        if len(self._records) >= RECORDS_MAX:
            self._records.popitem(last=False)
        self._records[delivery] = (created_ns, buffered_ns, key, value)

    def life_of(self, delivery: Delivery) -> Life:
        """Return what was observed of a record.

        Raises:
            ClientError: it is not remembered.
        """
        found = self._records.get(delivery)
        if found is None:
            raise ClientError(
                "nothing is known of this record",
                next_steps=(f"Ask sooner: the last {RECORDS_MAX} records are remembered.",),
            )
        created_ns, buffered_ns, key, value = found
        batch = delivery.batch
        times: BatchTimes = batch.times
        events = [
            Event("created", created_ns, "client"),
            Event("buffered", buffered_ns, "client"),
        ]
        if times.connected:
            events.append(Event("connected", times.connected, "client", times.peer))
        if times.sent:
            events.append(Event("sent", times.sent, "client", f"attempt {batch.attempts}"))
        events += _broker_events(times)
        error = batch.error
        if delivery.state == "stored":
            events.append(Event("confirmed", times.ended, "client"))
        elif error is not None:
            events.append(Event("failed", times.ended, "client", error.what))
        # A connection may be older than the record: it is told where it stands in time, but a
        # record's life begins with the record.
        events.sort(key=lambda event: (event.name != "created", event.at_ns))
        return Life(
            topic=delivery.topic,
            partition=delivery.partition,
            offset=delivery.offset,
            key=key,
            value=value,
            acks=self._acks,
            events=events,
            failure=None if error is None else error.what,
            outcome_known=not isinstance(error, OutcomeUnknown),
        )


class Fetches:
    """The ring of what was fetched."""

    def __init__(self) -> None:
        self._fetches: deque[tuple[str, int, int, int, int, str]] = deque(maxlen=FETCHES_MAX)

    def fetched(
        self, where: tuple[str, int], first_offset: int, end_offset: int, at_ns: int, peer: str
    ) -> None:
        """Take note of the offsets from `first_offset` to `end_offset`, exclusive."""
        self._fetches.append((*where, first_offset, end_offset, at_ns, peer))

    def life_of(self, record: Record) -> Life:
        """Return what was observed of a record that was read.

        Raises:
            ClientError: it is not remembered.
        """
        for topic, partition, first, end, at_ns, peer in reversed(self._fetches):
            if (topic, partition) == (record.topic, record.partition) and (
                first <= record.offset < end
            ):
                fetched = Event("fetched", at_ns, "client", peer)
                return Life(
                    topic=topic,
                    partition=partition,
                    offset=record.offset,
                    key=record.key,
                    value=record.value,
                    acks="",
                    events=[fetched],
                )
        raise ClientError(
            "nothing is known of this record",
            next_steps=(f"Ask sooner: the last {FETCHES_MAX} fetches are remembered.",),
        )


def _broker_events(times: BatchTimes) -> list[Event]:
    """Place the broker's events between the request's departure and the answer's arrival."""
    if not times.broker_events:
        return []
    busy = max(since for _, since in times.broker_events)
    on_the_way = max(times.answered - times.sent - busy, 0)
    received = times.sent + on_the_way // 2
    return [Event(name, received + since, "broker") for name, since in times.broker_events]
