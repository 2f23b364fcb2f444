"""The tables are drawn from events alone: what is not there is not shown as done."""

from __future__ import annotations

from ottla.trace.life import Event, Life
from ottla.trace.tables import preview, process_table, status_tracker

ALL = [
    Event("created", 0, "client"),
    Event("buffered", 1_000, "client"),
    Event("connected", 2_000_000, "client", "localhost:9092 (127.0.0.1)"),
    Event("sent", 2_100_000, "client"),
    Event("accepted", 2_200_000, "broker"),
    Event("stored", 2_500_000, "broker"),
    Event("available", 2_500_000, "broker"),
    Event("confirmed", 2_600_000, "client"),
]


def life(events: list[Event], **settings: object) -> Life:
    known: dict[str, object] = {
        "topic": "topic1",
        "partition": 0,
        "offset": 7,
        "key": None,
        "value": b"Hello Kafka",
        "acks": "all",
        **settings,
    }
    return Life(events=events, **known)  # type: ignore[arg-type]  # what varies is checked above


def results(of: Life) -> list[str]:
    return [row.result for row in process_table(of)]


def tracker(of: Life, variable: int) -> list[str]:
    return list(status_tracker(of)[variable])[1:]


def test_a_whole_life_has_five_steps_with_their_times() -> None:
    rows = process_table(life(ALL))
    assert [row.at for row in rows] == ["+0.00 ms", "+2.00 ms", "+2.20 ms", "+2.60 ms", "+2.50 ms"]
    assert results(life(ALL)) == [
        "message object created",
        "connected",
        "accepted, queued in broker",
        "confirmed: offset 7",
        "available to consumers",
    ]
    assert rows[3].evaluation == "acks=all, stored in 0.30 ms"
    assert tracker(life(ALL), 0) == ["none", *["'Hello Kafka'"] * 3]
    assert tracker(life(ALL), 1) == ["disconnected", "disconnected", "connected", "connected"]
    assert tracker(life(ALL), 2) == ["empty", "empty", "contains message", "contains message"]


def test_what_a_broker_does_not_tell_is_not_observed() -> None:
    events = [event for event in ALL if event.observer == "client"]
    assert results(life(events))[2:] == ["not observed", "confirmed: offset 7", "not observed"]
    assert tracker(life(events), 2) == ["empty", "empty", "not observed", "contains message"]


def test_a_connection_that_failed_leaves_the_rest_not_done_with_the_cause() -> None:
    events = [ALL[0], ALL[1], Event("failed", 9_000_000, "client", "refused")]
    failed = life(events, partition=None, offset=None, failure="nothing is listening")
    assert results(failed)[1:] == ["not done"] * 4
    assert [row.evaluation for row in process_table(failed)[1:]] == [
        "nothing is listening",
        "",
        "",
        "",
    ]
    assert tracker(failed, 1) == ["disconnected"] * 4
    assert tracker(failed, 2) == ["empty"] * 4


def test_a_refusal_by_the_broker_is_shown_at_the_third_step() -> None:
    events = [*ALL[:4], Event("failed", 9_000_000, "client", "too large")]
    refused = life(events, offset=None, failure="too large")
    assert results(refused)[1:] == ["connected", "not done", "not done", "not done"]
    assert process_table(refused)[2].evaluation == "too large"


def test_an_unknown_outcome_is_not_shown_as_not_done() -> None:
    events = [*ALL[:4], Event("failed", 9_000_000, "client", "never confirmed")]
    unknown = life(events, offset=None, failure="never confirmed", outcome_known=False)
    assert results(unknown)[2:] == ["not observed"] * 3
    assert tracker(unknown, 2) == ["empty", "empty", "not observed", "not observed"]


def test_before_the_flush_nothing_is_confirmed() -> None:
    buffered = life(ALL[:2], offset=None, partition=None)
    assert results(buffered)[1:] == ["not observed"] * 4
    assert process_table(buffered)[1].evaluation == "not known yet"


def test_a_connection_from_before_is_connected_from_the_start() -> None:
    events = [ALL[0], Event("connected", -5_000_000, "client", "peer"), *ALL[3:]]
    assert tracker(life(events), 1) == ["connected"] * 4


def test_a_life_that_a_consumer_saw_begins_with_the_fetch() -> None:
    fetched = life([Event("fetched", 5, "client", "peer")], acks="")
    assert results(fetched) == ["not observed"] * 4 + ["available to consumers"]
    assert tracker(fetched, 2) == ["not observed"] * 3 + ["contains message"]


def test_values_are_shown_as_people_read_them() -> None:
    assert preview(None) == "none"
    assert preview("grüß".encode()) == "'grüß'"
    assert preview(b"\xff\x00") == r"b'\xff\x00'"
    assert len(preview(b"x" * 1000)) <= 40


def test_json_has_bytes_as_text_or_hexadecimal() -> None:
    assert life(ALL, key=b"\xff").to_json()["key"] == "0xff"
    assert life(ALL).to_json()["value"] == "Hello Kafka"
