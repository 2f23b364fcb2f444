"""The commands as users type them: what they print where, and how they end."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from ottla import Broker, Consumer, Producer
from ottla.cli.main import main


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Run:
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OTTLA_BROKER", raising=False)

    def call(*arguments: str, given: bytes | None = None) -> Done:
        if given is not None:
            stdin = io.TextIOWrapper(io.BytesIO(given))
            monkeypatch.setattr("sys.stdin", stdin)
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        captured = capfdbinary.readouterr()
        assert isinstance(caught.value.code, int)
        return Done(caught.value.code, captured.out.decode(), captured.err.decode())

    return call


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_send_shows_the_five_steps_and_the_tracker_and_read_prints_the_value(run: Run) -> None:
    done = run("send", "topic1", "Hello Kafka")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split() == ["step", "action", "evaluation", "result", "at"]
    for number, (action, result) in enumerate(
        [
            ("create message 'Hello Kafka'", "message object created"),
            ("connect to the broker", "connected"),
            ("send to topic1", "accepted, queued in broker"),
            ("flush", "confirmed: offset 0"),
            ("stored in topic1/0", "available to consumers"),
        ],
        1,
    ):
        assert lines[number].startswith(f"{number} ")
        assert action in lines[number]
        assert result in lines[number]
    assert "embedded store ./ottla-data" in lines[2]
    assert [line.split("  ")[0] for line in lines[6:]] == [
        "variable",
        "message",
        "connection",
        "broker_queue",
    ]
    assert lines[8].split() == ["connection", "disconnected", "disconnected", *["connected"] * 2]
    assert lines[9].endswith("empty         empty          contains message  contains message")
    assert run("read", "topic1") == (0, "Hello Kafka\n", "")


def test_send_as_json_has_versioned_events_and_tables(run: Run) -> None:
    done = run("send", "topic1", "Hello Kafka", "-k", "key", "--json")
    life = json.loads(done.out)
    assert life["version"] == 1
    assert (life["topic"], life["offset"], life["key"]) == ("topic1", 0, "key")
    names = [event["name"] for event in life["events"]]
    assert names[0] == "created"
    assert {"connected", "sent", "accepted", "stored", "available", "confirmed"} <= set(names)
    times = [event["at_ms"] for event in life["events"]]
    assert times == sorted(times)
    assert [row["step"] for row in life["process"]] == [1, 2, 3, 4, 5]
    assert [row["variable"] for row in life["tracker"]] == ["message", "connection", "broker_queue"]


def test_quiet_prints_nothing(run: Run) -> None:
    assert run("send", "topic1", "x", "-q") == (0, "", "")


def test_several_values_and_lines_of_stdin_are_counted_by_partition(run: Run) -> None:
    done = run("send", "topic1", "a", "b", "c")
    assert done == (0, "topic1/0: 3 records stored, offsets 0 to 2\n", "")
    done = run("send", "topic1", given=b"d\n\ne")
    assert done == (0, "topic1/0: 3 records stored, offsets 3 to 5\n", "")
    assert run("read", "topic1").out == "a\nb\nc\nd\n\ne\n"
    report = json.loads(run("send", "topic1", "x", "y", "--json").out)
    assert (report["sent"], report["stored"]) == (2, 2)


def test_keys_headers_and_partitions_are_sent_and_read_as_json(run: Run) -> None:
    run("topics", "create", "topic1", "--partitions", "3")
    run("send", "topic1", "v", "-k", "k", "-H", "a=1", "-H", "b=x=y", "-p", "2", "-z", "gzip")
    [line] = run("read", "topic1", "--json").out.splitlines()
    record = json.loads(line)
    del record["timestamp_ms"]
    assert record == {
        "topic": "topic1",
        "partition": 2,
        "offset": 0,
        "key": "k",
        "value": "v",
        "headers": [{"name": "a", "value": "1"}, {"name": "b", "value": "x=y"}],
    }
    assert run("read", "topic1", "-p", "0").out == ""
    assert run("read", "topic1", "-p", "2").out == "v\n"


def test_bytes_that_are_no_text_are_base64_in_json_and_as_they_are_otherwise(run: Run) -> None:
    run("send", "topic1", given=b"\xff\x00\n")
    assert json.loads(run("read", "topic1", "--json").out)["value_base64"] == "/wA="


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("beginning", "0123456789"),
        ("end", ""),
        ("7", "789"),
        ("-2", "89"),
        ("-100", "0123456789"),
        ("2020-01-01T00:00:05+00:00", "56789"),
        ("-1h", ""),
    ],
)
def test_reading_begins_where_it_is_told(run: Run, start: str, expected: str) -> None:
    first = datetime(2020, 1, 1, tzinfo=UTC)
    with Producer("./ottla-data") as producer:
        for number in range(10):
            stamp = first + timedelta(seconds=number)
            timestamp_ms = int(stamp.timestamp() * 1000)
            producer.send("topic1", f"{number}", timestamp_ms=timestamp_ms)
    done = run("read", "topic1", "--from", start)
    assert (done.code, done.out.replace("\n", "")) == (0, expected)


def test_a_group_goes_on_behind_what_was_printed_for_it(run: Run) -> None:
    run("send", "topic1", "a", "b", "c")
    assert run("read", "topic1", "-g", "g", "-n", "2") == (0, "a\nb\n", "")
    assert run("read", "topic1", "-g", "g") == (0, "c\n", "")
    assert run("read", "topic1", "-g", "g") == (0, "", "")
    assert run("read", "topic1", "-g", "h", "--from", "2") == (0, "c\n", "")
    assert run("read", "topic2", "-g", "g").code == 1
    assert run("read", "topic1", "-g", "g", "-p", "0").code == 2
    assert run("read", "topic1", "-g", "g", "--from", "-1").code == 2


def test_reading_stops_after_the_count(run: Run) -> None:
    run("send", "topic1", "a", "b", "c")
    assert run("read", "topic1", "-n", "2").out == "a\nb\n"
    assert run("read", "topic1", "-n", "2", "-f").out == "a\nb\n"
    assert run("read", "topic1", "-n", "0").out == ""


def test_a_topic_that_is_not_there_is_told_and_not_created(run: Run) -> None:
    run("send", "topic1", "x")
    done = run("read", "topic2")
    assert (done.code, done.out) == (1, "")
    assert "there is no topic 'topic2'" in done.err
    assert run("topics").out == "topic1\n"


def test_topics_are_created_listed_described_and_deleted(run: Run) -> None:
    assert run("topics").out == ""
    created = run("topics", "create", "b", "--partitions", "2", "--config", "retention.ms=5000")
    assert created.out == "created b with 2 partitions\n"
    run("topics", "create", "a")
    assert run("topics", "list").out == "a\nb\n"
    assert json.loads(run("topics", "list", "--json").out) == {"version": 1, "topics": ["a", "b"]}
    run("send", "b", "x", "-p", "1")
    described = json.loads(run("topics", "describe", "b", "--json").out)
    assert [each["end_offset"] for each in described["partitions"]] == [0, 1]
    assert {"name": "retention.ms", "value": "5000", "source": "topic"} in described["configs"]
    assert "retention.ms=5000" in run("topics", "describe", "b").out
    plan = run("topics", "delete", "b")
    assert plan.out == "would delete b: 2 partition(s), up to 1 record(s)\n"
    assert "--yes" in plan.err
    assert run("topics").out == "a\nb\n"
    assert run("topics", "delete", "b", "--yes").out.startswith("deleted b")
    assert run("topics").out == "a\n"


def test_what_cannot_be_created_says_why(run: Run) -> None:
    run("topics", "create", "a")
    for arguments, reason in [
        (("a",), "already exists"),
        (("a b",), "a b"),
        (("c", "--config", "no.such=1"), "no.such"),
        (("c", "--config", "retention.ms=soon"), "retention.ms"),
    ]:
        done = run("topics", "create", *arguments)
        assert done.code == 1
        assert reason in done.err
    assert run("topics").out == "a\n"


def test_nothing_listening_ends_3_and_says_everything(run: Run) -> None:
    address = closed_port()
    done = run("send", "-b", address, "topic1", "x")
    assert done.code == 3
    assert f"ottla: not sent: nothing is listening on {address} (refused on" in done.err
    assert "The record was NOT stored: 1 of 1 undelivered." in done.err
    assert "ottla serve" in done.err
    assert done.out.count("not done") == 4
    assert run("read", "-b", address, "topic1").code == 3
    assert run("topics", "-b", address).code == 3


def test_nothing_was_stored_anywhere_when_nothing_listens(run: Run, tmp_path: Path) -> None:
    run("send", "-b", closed_port(), "topic1", "x")
    assert list(tmp_path.iterdir()) == []


def test_the_address_of_the_environment_is_used_and_the_option_wins(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker() as broker:
        address = broker.listen()
        monkeypatch.setenv("OTTLA_BROKER", address)
        run("send", "topic1", "x")
        assert run("send", "-b", "./here", "topic1", "x").code == 0
        with Consumer(broker, "topic1", stop_at_end=True) as consumer:
            assert [record.value for record in consumer] == [b"x"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("send",),
        ("send", "t", "x", "-H", "novalue"),
        ("send", "t", "x", "-z", "brotli"),
        ("send", "-b", "localhost", "t", "x"),
        ("read", "t", "--from", "someday"),
        ("topics", "create", "t", "--config", "novalue"),
    ],
)
def test_wrong_usage_ends_2(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err


def test_help_and_version_are_printed(run: Run) -> None:
    assert "Commands:" in run("--help").out
    assert run("--version").out.startswith("ottla 0.")
    for command in ("send", "read", "topics", "serve"):
        assert run(command, "--help").code == 0
