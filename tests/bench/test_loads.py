"""The loads on a broker count what is stored, and their checks see what is not."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import brokers, serving, singles
from bench.harness import Sample
from bench.loads import bulk, fetches, latency, librdkafka, process, requests
from bench.serving import Serving
from ottla import Admin, Producer

pytestmark = pytest.mark.slow


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Serving]:
    with serving.ottla(tmp_path / "store") as found:
        with Admin(found.address) as admin:
            admin.create_topic("load", 2)
        yield found


def at(broker: Serving) -> dict[str, object]:
    return {"address": broker.address, "topic": "load"}


def test_small_requests_are_all_found_again_and_a_lost_or_a_changed_one_is_noticed(
    broker: Serving,
) -> None:
    load = {**at(broker), "connections": 3, "requests": 20, "partitions": 2}

    outcome, sample = brokers.apply(broker, requests.MODULE, [load], lambda found: {})

    assert (outcome.records, outcome.stored) == (20, 23)
    assert 0 < outcome.p50_us <= outcome.p99_us
    assert brokers.proven(sample, broker, "load", outcome).problem() is None
    more = dataclasses.replace(outcome, stored=outcome.stored + 1)
    problem = brokers.proven(sample, broker, "load", more).problem()
    assert problem == "24 records were acknowledged, 23 found"
    changed = dataclasses.replace(outcome, checksum=outcome.checksum ^ 1)
    problem = brokers.proven(sample, broker, "load", changed).problem()
    assert problem == "what was found is not what was sent"


def test_large_batches_are_all_found_and_fetches_find_each_of_them_once(broker: Serving) -> None:
    load = {**at(broker), "partitions": 2, "batches": 6, "batch_bytes": 20_000}
    outcome, sample = brokers.apply(broker, bulk.MODULE, [load], lambda found: {})
    assert brokers.proven(sample, broker, "load", outcome).problem() is None

    ends = [outcome.stored // 2] * 2
    reading = [{**at(broker), "ends": ends, "connections": count} for count in (1, 2)]
    (one,), (two,) = (process.apply(fetches.MODULE, [each]) for each in reading)

    assert one.records == two.records == outcome.stored
    assert one.checksum == two.checksum


def test_a_fetch_that_ends_early_is_no_fetch_of_all(broker: Serving) -> None:
    with Producer(broker.address) as producer:
        for partition in (0, 1):
            producer.send("load", b"one", partition=partition)
    reading = {**at(broker), "ends": [1, 0], "connections": 1}

    (outcome,) = process.apply(fetches.MODULE, [reading])

    sample = Sample({}, sent=2, acknowledged=2, read=outcome.records, is_same=True)
    assert sample.problem() == "2 records were acknowledged, 1 found"


def test_every_record_of_the_latencies_is_found_again(broker: Serving) -> None:
    load = {**at(broker), "records": 10}

    outcome, sample = brokers.apply(broker, latency.MODULE, [load], lambda found: {})

    assert brokers.proven(sample, broker, "load", outcome).problem() is None
    assert 0 < outcome.p50_us <= outcome.p99_us


def test_librdkafka_sends_and_reads_all_of_it(broker: Serving) -> None:
    load = {**at(broker), "partitions": 2, "records": 200, "value_bytes": 50}
    loads = [{**load, "number": number} for number in range(2)]
    outcome, sample = brokers.apply(broker, librdkafka.MODULE, loads, lambda found: {})
    assert outcome.stored == 402
    assert brokers.proven(sample, broker, "load", outcome).problem() is None

    reading = {**at(broker), "chosen": [0, 1], "records": outcome.stored}
    (read,) = process.apply(librdkafka.MODULE, [reading])

    assert (read.records, read.checksum) == (outcome.stored, outcome.checksum)


def test_single_messages_are_all_found_again(broker: Serving) -> None:
    load = singles.Load(broker.address, "load", producers=3, partitions=2, seconds=0.1, lead_s=0.0)

    outcome = singles.run(load)

    expected = (outcome.acknowledged, outcome.checksum)
    assert brokers.read_back(broker.address, "load") == expected
    with Producer(broker.address) as producer:
        producer.send("load", b"twice")
    more = (outcome.acknowledged + 1, outcome.checksum + zlib.crc32(b"twice"))
    assert brokers.read_back(broker.address, "load") == more


def test_a_load_that_fails_says_so() -> None:
    load = {"address": "127.0.0.1:1", "topic": "load", "connections": 1, "requests": 1}
    with pytest.raises(RuntimeError, match=r"bench\.loads\.requests.* ended with 1"):
        process.apply(requests.MODULE, [load])
