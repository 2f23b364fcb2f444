"""`ottla groups` as users type it: what it prints where, and how it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from ottla import Admin, Broker, Producer
from ottla.cli.main import main
from ottla.cli.table import lines_of
from ottla.errors.broker import NonEmptyGroup, UnknownMemberId
from tests.kafka.real_kafka import RealKafka

PATIENCE_S = 30
DAY_MS = 86_400_000
FIRST_MS = 1_700_000_000_000
DO_IT = "Nothing was done. Do it:  the same command with --yes\n"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Run:
    """Run a command in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OTTLA_BROKER", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["groups", *arguments])
        captured = capfdbinary.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, captured.out.decode(), captured.err.decode()

    return call


def fill(address: object) -> None:
    """Make topic `t` with two partitions of ten records, one a day."""
    with Admin(address) as admin:
        admin.create_topic("t", 2, configs={"retention.ms": "-1"})
    with Producer(address) as producer:
        for number in range(20):
            day_ms = FIRST_MS + number // 2 * DAY_MS
            producer.send("t", f"{number}", partition=number % 2, timestamp_ms=day_ms)


@pytest.fixture(params=["folder", "address"])
def store(run: Run, request: pytest.FixtureRequest) -> Iterator[str]:
    """What commands are told with -b: a store in a folder, or a broker that listens."""
    if request.param == "folder":
        fill("./ottla-data")
        yield "./ottla-data"
        return
    with Broker() as broker:
        fill(broker)
        yield broker.listen()


@contextmanager
def member_of(group: str, address: str) -> Iterator[None]:
    """Have a member of confluent-kafka's in a group, which has both partitions of `t`.

    kafka-python's may lead without having heard of the topic, and assigns nothing to itself then.
    """
    member = confluent_kafka.Consumer(
        {
            "bootstrap.servers": address,
            "group.id": group,
            "client.id": "other",
            "enable.auto.commit": False,
        }
    )
    try:
        member.subscribe(["t"])
        deadline = time.monotonic() + PATIENCE_S
        while len(member.assignment()) < 2:
            assert time.monotonic() < deadline
            member.poll(0.1)
        yield
    finally:
        member.close()


def commit(address: str, group: str, *offsets: int) -> None:
    with Admin(address) as admin:
        admin.alter_group_offsets(group, {("t", each): at for each, at in enumerate(offsets)})


def committed(address: str, group: str) -> list[int]:
    with Admin(address) as admin:
        return [each.offset for each in admin.committed_offsets(group).values()]


def test_groups_are_listed(run: Run, store: str) -> None:
    assert run("-b", store) == (0, "", "")
    commit(store, "g", 1, 2)
    code, out, err = run("-b", store)
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["group", "kind", "state"],
        ["g", "classic", "Empty"],
    ]
    assert run("list", "-b", store)[1] == out
    listed = json.loads(run("list", "--json", "-b", store)[1])
    groups = [{"group": "g", "kind": "classic", "state": "Empty"}]
    assert listed == {"version": 1, "groups": groups}


def test_how_far_a_group_is_is_described(run: Run, store: str) -> None:
    commit(store, "g", 4, 10)
    code, out, err = run("describe", "g", "-b", store)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split(maxsplit=1) for line in lines[:3]] == [
        ["group", "g"],
        ["state", "Empty (classic)"],
        ["members", "0"],
    ]
    assert [line.split()[:4] for line in lines[4:]] == [
        ["t/0", "4", "10", "6"],
        ["t/1", "10", "10", "0"],
    ]
    described = json.loads(run("describe", "g", "--json", "-b", store)[1])
    first, second = described["partitions"]
    assert (first["committed_offset"], first["end_offset"], first["lag"]) == (4, 10, 6)
    stamped_s = (FIRST_MS + 4 * DAY_MS) / 1000
    assert first["behind_seconds"] <= time.time() - stamped_s
    assert first["behind_seconds"] > time.time() - stamped_s - DAY_MS / 1000
    assert (second["lag"], second["behind_seconds"]) == (0, 0)


def test_members_are_described_and_keep_the_group_from_being_changed(run: Run) -> None:
    with Broker() as broker:
        fill(broker)
        address = broker.listen()
        commit(address, "g", 4, 4)
        with member_of("g", address):
            code, out, _ = run("describe", "g", "-b", address)
            assert code == 0
            assert "state     Stable (classic, range)\nmembers   1\n" in out
            assert "/127.0.0.1  t/0 t/1\n" in out
            described = json.loads(run("describe", "g", "-b", address, "--json")[1])
            [member] = described["members"]
            assert [each["partition"] for each in member["assignment"]] == [0, 1]
            for arguments in (("reset", "g", "--to-end"), ("delete", "g")):
                for options in ((), ("--yes",), ("--yes", "--json")):
                    code, out, err = run(*arguments, *options, "-b", address)
                    assert (code, out) == (5, "")
                    assert err.startswith("ottla: group 'g' has 1 member: other at /127.0.0.1\n")
                    assert "Stop its consumers first" in err
            code, out, err = run("delete", "g", "--topic", "t", "--yes", "-b", address)
            assert (code, out) == (5, "")
            assert "has members that read this" in err
        assert committed(address, "g") == [4, 4]
        assert run("delete", "g", "--yes", "-b", address)[0] == 0


@pytest.mark.parametrize(
    ("options", "new"),
    [
        (("--to-beginning",), [0, 0]),
        (("--to-end",), [10, 10]),
        (("--to-offset", "7"), [7, 7]),
        (("--to-offset", "11"), [10, 10]),
        (("--to-time", str(FIRST_MS + 3 * DAY_MS - 1)), [3, 3]),
        (("--to-time", "2999-01-01"), [10, 10]),
        (("--to-time", "2023-11-16T00:00:00+00:00"), [2, 2]),
        (("--shift", "3"), [7, 9]),
        (("--shift", "-5"), [0, 1]),
        (("--like", "other"), [1, 2]),
        (("--to-offset", "7", "--topic", "t:1"), [4, 7]),
        (("--to-offset", "7", "--topic", "t:1,0"), [7, 7]),
        (("--to-offset", "7", "--topic", "t"), [7, 7]),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else "",
)
def test_offsets_are_reset_by_a_plan_that_is_shown_first(
    options: tuple[str, ...], new: list[int], run: Run, store: str
) -> None:
    commit(store, "g", 4, 6)
    commit(store, "other", 1, 2)
    code, out, err = run("reset", "g", *options, "-b", store)
    assert (code, err) == (0, DO_IT)
    shown = {line.split()[0]: line.split()[1:4] for line in out.splitlines()[1:]}
    assert committed(store, "g") == [4, 6]
    code, again, err = run("reset", "g", *options, "--yes", "-b", store)
    assert (code, again, err) == (0, out, "")
    assert committed(store, "g") == new
    expected = {"t/0": ["4", "->", f"{new[0]}"], "t/1": ["6", "->", f"{new[1]}"]}
    assert shown == {name: expected[name] for name in shown}
    assert set(shown) == ({"t/1"} if "t:1" in options else {"t/0", "t/1"})


def test_a_plan_as_json_says_what_was_done(run: Run, store: str) -> None:
    options = ("reset", "g", "--to-offset", "99", "--topic", "t:1", "--json", "-b", store)
    code, out, err = run(*options)
    assert (code, err) == (0, "")
    partition: dict[str, Any] = {
        "topic": "t",
        "partition": 1,
        "old_offset": None,
        "new_offset": 10,
        "note": "99 is behind the end",
        "done": False,
    }
    plan = {"version": 1, "group": "g", "partitions": [partition], "done": False}
    assert json.loads(out) == plan
    partition["done"] = plan["done"] = True
    assert json.loads(run(*options, "--yes")[1]) == plan


def test_a_time_without_a_zone_is_the_machine_s(run: Run, store: str) -> None:
    commit(store, "g", 4, 6)
    local = datetime.fromtimestamp(FIRST_MS / 1000 + 5 * DAY_MS / 1000, UTC).astimezone()
    naive = local.replace(tzinfo=None).isoformat()
    assert run("reset", "g", "--to-time", naive, "--yes", "-b", store)[0] == 0
    assert committed(store, "g") == [5, 5]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "say where to with one of"),
        (("--to-end", "--shift", "1"), "say where to with one of"),
        (("--to-time", "soon"), "neither an ISO time nor"),
        (("--to-offset", "-1"), "not in the range"),
        (("--to-end",), "group 'g' has committed nothing: say what is meant with --topic"),
        (("--like", "h"), "group 'h' has committed nothing"),
        (("--to-end", "--topic", "t:x"), "--topic is TOPIC or TOPIC:PARTITION,..., not 't:x'"),
        (("--to-end", "--topic", ":1"), "--topic is TOPIC or TOPIC:PARTITION,..., not ':1'"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    options: tuple[str, ...], reason: str, run: Run, store: str
) -> None:
    code, out, err = run("reset", "g", *options, "-b", store)
    assert (code, out) == (2, "")
    assert reason in err


def test_what_is_not_there_is_told_and_nothing_is_changed(run: Run, store: str) -> None:
    for options, reason in (
        (("--to-end", "--topic", "u"), "there is no topic 'u'"),
        (("--to-end", "--topic", "t:0,2"), "there is no partition t/2"),
        (("--shift", "1", "--topic", "t"), "group 'g' has committed nothing for t/0"),
    ):
        code, out, err = run("reset", "g", *options, "--yes", "-b", store)
        assert (code, out) == (1, "")
        assert reason in err
    for command in ("describe", "delete"):
        code, out, err = run(command, "g", "-b", store)
        assert (code, out) == (1, "")
        assert "there is no group 'g'" in err


def test_a_group_is_deleted_after_it_was_shown_what_would_be(run: Run, store: str) -> None:
    commit(store, "g", 4, 6)
    assert run("delete", "g", "-b", store) == (0, "would delete g with 2 offsets\n", DO_IT)
    assert committed(store, "g") == [4, 6]
    done = run("delete", "g", "--topic", "t:1", "--yes", "-b", store)
    assert done == (0, "deleted 1 offset of g\n", "")
    assert committed(store, "g") == [4]
    shown = json.loads(run("delete", "g", "--json", "-b", store)[1])
    partitions = [{"topic": "t", "partition": 0, "committed_offset": 4}]
    assert shown["partitions"] == partitions
    assert (shown["whole_group"], shown["done"]) == (True, False)
    assert run("delete", "g", "--yes", "-b", store) == (0, "deleted g with 1 offset\n", "")
    assert run("-b", store) == (0, "", "")


def test_what_was_done_in_part_ends_with_its_own_code(
    run: Run, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "g", 4, 6)
    real = Admin.alter_group_offsets

    def alter(self: Admin, group_id: str, offsets: dict[Any, Any]) -> dict[Any, int]:
        with Admin(self._given) as other:  # a topic is gone between the plan and the commit
            other.delete_topic("u")
        return real(self, group_id, offsets)

    with Admin(store) as admin:
        admin.create_topic("u")
    monkeypatch.setattr(Admin, "alter_group_offsets", alter)
    options = ("--to-end", "--topic", "t", "--topic", "u", "--yes")
    code, out, err = run("reset", "g", *options, "-b", store)
    assert code == 4
    assert len(out.splitlines()) == 4
    assert "some offsets of group 'g' were not changed: u/0: UNKNOWN_TOPIC_OR_PARTITION" in err
    assert committed(store, "g") == [10, 10]


def test_a_member_that_joins_after_the_plan_is_a_refusal(
    run: Run, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "g", 4, 6)

    def joined(*_: object) -> None:
        raise UnknownMemberId("x")

    def not_empty(*_: object) -> None:
        raise NonEmptyGroup("x")

    monkeypatch.setattr(Admin, "alter_group_offsets", joined)
    monkeypatch.setattr(Admin, "delete_group", not_empty)
    for arguments in (("reset", "g", "--to-end"), ("delete", "g")):
        code, out, err = run(*arguments, "--yes", "-b", store)
        assert (code, out) == (5, "")
        assert "group 'g' has members now" in err


def test_a_table_s_numbers_stand_to_the_right_and_nothing_is_a_dash() -> None:
    assert lines_of(("name", "n"), [("a", 1), ("bcdef", None), ("c", 100)]) == [
        "name     n",
        "a        1",
        "bcdef    -",
        "c      100",
    ]


@pytest.mark.kafka
def test_groups_of_a_real_kafka_are_managed(run: Run, real_kafka: RealKafka) -> None:
    address = real_kafka.address
    fill(address)
    commit(address, "cli", 4, 6)
    listed = json.loads(run("list", "--json", "-b", address)[1])
    assert {"group": "cli", "kind": "classic", "state": "Empty"} in listed["groups"]
    described = json.loads(run("describe", "cli", "--json", "-b", address)[1])
    assert [each["lag"] for each in described["partitions"]] == [6, 4]
    with member_of("cli", address):
        [member] = json.loads(run("describe", "cli", "-b", address, "--json")[1])["members"]
        assert len(member["assignment"]) == 2
        assert run("reset", "cli", "--to-end", "--yes", "-b", address)[0] == 5
    assert run("reset", "cli", "--shift", "-2", "--yes", "-b", address)[0] == 0
    assert committed(address, "cli") == [2, 4]
    assert run("delete", "cli", "--topic", "t:0", "--yes", "-b", address)[0] == 0
    assert run("delete", "cli", "--yes", "-b", address)[0] == 0
    assert run("describe", "cli", "-b", address)[0] == 1
