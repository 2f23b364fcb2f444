"""How a broker tells what it saw of a request: a tagged field that other peers pass over.

A request asks with an empty field in its header (version 2); the header of the response (version 1)
then has the same field with the events: their number, and of each its name and the nanoseconds
since the request had come in, all as the protocol's varints and compact strings.

Kafka: KIP-482, which has those who do not know a tagged field pass over it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ottla.wire.cursor import Reader, Writer

TAG = 0x6F74
"""The number of the field, far from those that Kafka gives out."""


def write_question(writer: Writer, *, asked: bool) -> None:
    """Write the tagged fields of a request's header: the question, or none."""
    writer.uvarint(int(asked))
    if asked:
        writer.uvarint(TAG)
        writer.uvarint(0)


def read_question(reader: Reader) -> bool:
    """Read the tagged fields of a request's header, and tell whether the events are asked for.

    Raises:
        DecodeError: they are none.
    """
    count = reader.uvarint()
    if not count:
        return False
    asked = False
    for _ in range(count):
        asked = reader.uvarint() == TAG or asked
        reader.skip(reader.uvarint())
    return asked


def write_events(writer: Writer, events: Sequence[tuple[str, int]] | None) -> None:
    """Write the tagged fields of a response's header: the events, or none.

    Args:
        writer: where to.
        events: (name, nanoseconds since the request had come in), or None where nobody asked.
    """
    if events is None:
        writer.uvarint(0)
        return
    told = Writer()
    told.uvarint(len(events))
    for event, since_ns in events:
        name = event.encode()
        told.uvarint(len(name) + 1)
        told.raw(name)
        told.uvarint(max(since_ns, 0))
    writer.uvarint(1)
    writer.uvarint(TAG)
    writer.uvarint(told.size())
    writer.raw(told.joined())


def read_events(reader: Reader) -> list[tuple[str, int]] | None:
    """Read the tagged fields of a response's header; None where there are no events among them.

    Raises:
        DecodeError: they are none.
    """
    events: list[tuple[str, int]] | None = None
    for _ in range(reader.uvarint()):
        tag, size = reader.uvarint(), reader.uvarint()
        if tag != TAG:
            reader.skip(size)
            continue
        told = Reader(reader.view(size))
        events = []
        for _ in range(told.uvarint()):
            name = told.text(max(told.uvarint() - 1, 0))
            events.append((name, told.uvarint()))
    return events
