"""Clients as sides: what they send is read back, and what is lost, changed or doubled is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from bench.clients import sides
from bench.clients.sides import Filled, Load, OneBroker, consume_side
from bench.clients.task import WARM_UP, Result, Task, checksum_of, values_of
from bench.harness import NotProven, Options, Sample
from ottla import Admin, Producer

LOAD = Load(300)
CLIENTS = ("ottla", "confluent", "aiokafka", "kafka_python")

Work = Callable[[str, str, Task], Result]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneBroker]:
    with OneBroker(Options(tmp_path_factory.mktemp("bench"))).running() as running:
        yield running


@pytest.fixture(scope="module")
def filled(broker: OneBroker) -> Filled:
    return Filled(LOAD, broker.filled(LOAD))


def only_counts(result: Sample) -> tuple[int | None, int | None, int | None, bool | None]:
    return result.sent, result.acknowledged, result.read, result.is_same


@pytest.mark.slow
@pytest.mark.parametrize(
    ("client", "works"),
    [
        *((client, "produce") for client in CLIENTS),
        *((client, "produce_many") for client in CLIENTS[:3]),
    ],
)
def test_what_a_client_sends_is_found_again(broker: OneBroker, client: str, works: str) -> None:
    sample = broker.produce_side(client, "it", LOAD, works).run(0)

    assert only_counts(sample) == (301, 301, 301, True)
    assert sample.figures["records/s"] > 0
    assert sample.figures["stored B/record"] > 100
    assert sample.client_cpu_s is not None and sample.client_cpu_s > 0


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_reads_all_that_there_is(broker: OneBroker, filled: Filled, client: str) -> None:
    sample = consume_side(broker, filled, client, "it").run(0)

    assert only_counts(sample) == (301, 301, 301, True)


@pytest.mark.slow
@pytest.mark.parametrize("client", ["ottla", "confluent"])
def test_singles_are_timed_one_by_one(broker: OneBroker, client: str) -> None:
    sample = broker.single_side(client, "it", Load(20)).run(0)

    assert only_counts(sample) == (21, 21, 21, True)
    assert 0 < sample.figures["p50 us"] <= sample.figures["p99 us"]


@pytest.mark.slow
@pytest.mark.parametrize("client", ["ottla", "confluent"])
@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_records_take_less_room(broker: OneBroker, client: str, codec: str) -> None:
    load = Load(2000, value_bytes=200, kind="json", codec=codec)

    sample = broker.produce_side(client, "it", load).run(0)

    assert sample.problem() is None
    assert sample.figures["stored B/record"] < 150


def _losing_one(broker: OneBroker, task: Task) -> None:
    with Admin(broker.address) as admin:
        admin.delete_records(task.topic, 0, 1)


def _doubling_one(broker: OneBroker, task: Task) -> None:
    with Producer(broker.address) as producer:
        producer.send(task.topic, values_of(task)[0])


def _exchanging_one(broker: OneBroker, task: Task) -> None:
    _losing_one(broker, task)
    _doubling_one(broker, task)


@pytest.mark.slow
@pytest.mark.parametrize("client", ["ottla", "confluent"])
@pytest.mark.parametrize(
    ("planted", "problem"),
    [
        (_losing_one, "301 records were acknowledged, 300 found"),
        (_doubling_one, "301 records were acknowledged, 302 found"),
        (_exchanging_one, "what was found is not what was sent"),
    ],
)
def test_a_record_that_is_lost_or_doubled_or_another_is_found(
    broker: OneBroker,
    monkeypatch: pytest.MonkeyPatch,
    client: str,
    planted: Callable[[OneBroker, Task], None],
    problem: str,
) -> None:
    real = sides.work

    def work_and_plant(client: str, name: str, task: Task) -> Result:
        result = real(client, name, task)
        planted(broker, task)
        return result

    monkeypatch.setattr(sides, "work", work_and_plant)

    assert broker.produce_side(client, "it", LOAD).run(0).problem() == problem


@pytest.mark.slow
@pytest.mark.parametrize("field", ["read", "read_bytes", "checksum"])
def test_a_consumer_that_did_not_read_everything_does_not_count(
    broker: OneBroker, filled: Filled, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    real = sides.work

    def work_less(client: str, name: str, task: Task) -> Result:
        result = real(client, name, task)
        return replace(result, **{field: getattr(result, field) - 1})

    monkeypatch.setattr(sides, "work", work_less)

    assert consume_side(broker, filled, "ottla", "it").run(0).problem() is not None


@pytest.mark.slow
def test_a_topic_to_be_read_is_not_used_unless_it_is_complete(
    broker: OneBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sides.work

    def work_less(client: str, name: str, task: Task) -> Result:
        return real(client, name, replace(task, count=task.count - 1))

    monkeypatch.setattr(sides, "work", work_less)

    with pytest.raises(NotProven, match="not there as they were sent"):
        broker.filled(LOAD)


def test_a_client_that_fails_says_how(broker: OneBroker) -> None:
    with pytest.raises(NotProven, match=r"ottla produce: .*no setting 'unheard_of'"):
        sides.work("ottla", "produce", broker.task("topic", LOAD, {"unheard_of": 1}))


def test_a_client_that_is_not_there_cannot_run(broker: OneBroker) -> None:
    with pytest.raises(NotProven, match=r"No module named bench\.clients\.pulsar"):
        sides.work("pulsar", "produce", broker.task("topic", LOAD, {}))


@pytest.mark.parametrize(("kind", "size"), [("numbered", 100), ("numbered", 1000), ("json", 200)])
def test_values_have_their_size_and_differ(kind: str, size: int) -> None:
    values = values_of(Task("", "", 5000, size, kind))

    assert {len(each) for each in values} == {size}
    assert len(set(values)) == 5000
    assert WARM_UP not in values


def test_the_checksum_does_not_depend_on_the_order_and_sees_every_value() -> None:
    values = values_of(Task("", "", 100))

    assert checksum_of(reversed(values)) == checksum_of(values)
    assert checksum_of(values[1:]) != checksum_of(values)
    assert checksum_of([*values[:-1], values[0]]) != checksum_of(values)
