"""The tagged field by which a broker tells what it saw of a request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.errors import DecodeError
from ottla.protocol.broker_events import (
    TAG,
    read_events,
    read_question,
    write_events,
    write_question,
)
from ottla.wire.cursor import Reader, Writer


def fields(*given: tuple[int, bytes]) -> bytes:
    writer = Writer()
    writer.uvarint(len(given))
    for tag, content in given:
        writer.uvarint(tag)
        writer.uvarint(len(content))
        writer.raw(content)
    return writer.joined()


@pytest.mark.parametrize("asked", [True, False])
def test_a_question_is_read_as_it_was_asked(asked: bool) -> None:
    writer = Writer()
    write_question(writer, asked=asked)
    reader = Reader(writer.joined())
    assert read_question(reader) is asked
    reader.finish()


def test_fields_of_others_are_passed_over() -> None:
    assert not read_question(Reader(fields((0, b"abc"), (9, b""))))
    assert read_question(Reader(fields((0, b"abc"), (TAG, b""), (TAG + 1, b"x"))))
    assert read_events(Reader(fields((0, b"abc")))) is None


@given(st.none() | st.lists(st.tuples(st.text(max_size=20), st.integers(0, (1 << 31) - 1))))
def test_events_are_read_as_they_were_written(events: list[tuple[str, int]] | None) -> None:
    writer = Writer()
    write_events(writer, events)
    reader = Reader(writer.joined())
    assert read_events(reader) == events
    reader.finish()


def test_a_time_before_the_request_counts_as_its_arrival() -> None:
    writer = Writer()
    write_events(writer, [("accepted", -5)])
    assert read_events(Reader(writer.joined())) == [("accepted", 0)]


@pytest.mark.parametrize(
    "bad",
    [b"", b"\x01", fields((TAG, b"\x05")), fields((TAG, b"\x01\x7fab")), b"\x01\x00\xff\xff\x03"],
)
def test_what_is_cut_off_or_lies_is_an_error(bad: bytes) -> None:
    with pytest.raises(DecodeError):
        read_events(Reader(bad))
