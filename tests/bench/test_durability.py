"""The bench of durability runs in its short form, and does not print what was not stored."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from bench import durability, singles
from bench.serving import ottla_serving
from ottla import Admin, Producer


@pytest.mark.slow
def test_the_bench_runs_without_a_real_kafka_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    short = ["--rounds", "1", "--seconds", "0.1", "--producers", "2", "--warm-up", "0.2"]
    libs = ["--libs", str(tmp_path)]

    durability.main([*short, *libs, "--folder", str(tmp_path), "--json", str(figures)])

    printed = capsys.readouterr().out
    assert "no jars of Apache Kafka" in printed
    assert "kafka, synced" not in printed
    found = json.loads(figures.read_text())
    assert [row["case"] for row in found["rows"]] == [
        "ottla serve",
        "ottla embedded",
        "sqlite, busy",
        "sqlite, lock",
    ]
    for row in found["rows"]:
        (outcome,) = row["rounds"]
        assert 0 < outcome["measured"] < outcome["acknowledged"]
        assert 0 < outcome["p50_ms"] <= outcome["p99_ms"] <= outcome["max_ms"]


@pytest.mark.slow
def test_the_load_counts_what_is_stored_and_its_check_sees_what_is_not(tmp_path: Path) -> None:
    with ottla_serving(tmp_path, "disk") as (address, _):
        with Admin(address) as admin:
            admin.create_topic("load", 2)
        load = singles.Load(address, "load", producers=3, partitions=2, seconds=0.1, lead_s=0.0)
        outcome = singles.run(load)

        singles.check(load, outcome)

        lost = dataclasses.replace(outcome, acknowledged=outcome.acknowledged + 1)
        with pytest.raises(AssertionError, match=r"\d+ confirmed, \d+ found"):
            singles.check(load, lost)
        changed = dataclasses.replace(outcome, checksum=outcome.checksum ^ 1)
        with pytest.raises(AssertionError, match="not what was confirmed"):
            singles.check(load, changed)
        with Producer(address) as producer:
            producer.send("load", b"twice")
        with pytest.raises(AssertionError, match=r"\d+ confirmed, \d+ found"):
            singles.check(load, outcome)
