"""Records as columns from a consumer: those that it iterates over, and counted like them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ottla import Admin, Broker, Consumer, Producer, Record
from ottla.client.fetcher import Fetcher
from ottla.client.lookup import TopicPartition
from ottla.errors import Closed, CorruptRecords, DeserializationFailed, MissingExtra, WokenUp
from ottla.records.columns import RecordColumns, Run
from ottla.records.columns_builder import ColumnsBuilder
from tests.client.damaged import damage_the_second_of_three
from tests.client.grouped import PATIENCE_S, QUICK_BROKER, QUICK_MEMBERS, T0, T1, create, write
from tests.client.test_consumer import FIRST
from tests.client.test_consumer import fill as fill_with_times

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@pytest.fixture(params=["in memory", "over TCP"])
def address(request: pytest.FixtureRequest) -> Iterator[Any]:
    with Broker(settings=QUICK_BROKER) as broker:
        yield broker if request.param == "in memory" else broker.listen()


def fill(address: Any, count: int) -> None:
    """Write numbers to both partitions of a topic in turn."""
    create(address, "t", 2)
    write(address, range(count))


def numbers(columns: RecordColumns) -> list[int]:
    return [int(value) for value in columns.values if value is not None]


def read_batch(consumer: Consumer, count: int) -> list[int]:
    """Poll for columns until there were `count` records; return their numbers in order."""
    found: list[int] = []
    while len(found) < count:
        columns = consumer.poll_batch(PATIENCE_S)
        assert columns
        found += numbers(columns)
    return sorted(found)


def records_of(batches: Iterator[RecordColumns]) -> list[Record]:
    return [record for columns in batches for record in columns.records()]


def by_partition(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda record: (record.topic, record.partition, record.offset))


# -- what it gives


@pytest.mark.parametrize("codec", CODECS)
def test_columns_hold_what_iterating_gives_whatever_the_codec(address: Any, codec: str) -> None:
    create(address, "t", 3)
    with Producer(address, compression_type=codec, batch_size=2000) as producer:
        for number in range(600):
            headers = [("n", b"%d" % number), ("none", None)] if number % 5 == 0 else None
            key = None if number % 7 == 0 else b"key-%d" % (number % 10)
            value = None if number % 11 == 0 else b"value " * (number % 40)
            producer.send("t", value, key, headers, partition=number % 3)
    with Consumer(address, "t", stop_at_end=True) as consumer:
        wanted = by_partition(list(consumer))
    with Consumer(address, "t", stop_at_end=True) as consumer:
        assert by_partition(records_of(consumer.batches())) == wanted
    with Consumer(address, "t", stop_at_end=True) as consumer:
        assert by_partition(records_of(consumer.batches(max_records=7))) == wanted
    assert len(wanted) == 600


def test_the_time_of_the_broker_is_in_the_columns(address: Any) -> None:
    with Admin(address) as admin:
        admin.create_topic("t", 1, configs={"message.timestamp.type": "LogAppendTime"})
    with Producer(address) as producer:
        for number in range(20):
            producer.send("t", b"%d" % number, timestamp_ms=number)
    with Consumer(address, "t", stop_at_end=True) as consumer:
        wanted = [record.timestamp_ms for record in consumer]
    with Consumer(address, "t") as consumer:
        columns = consumer.poll_batch(PATIENCE_S)
        while len(columns) < 20:
            columns = consumer.poll_batch(PATIENCE_S)
        assert columns.timestamps.tolist() == wanted
    assert min(wanted) > 1_000_000_000_000


def test_runs_say_which_records_are_of_which_partition(address: Any) -> None:
    fill(address, 10)
    with Consumer(address, "t") as consumer:
        found: dict[int, list[int]] = {0: [], 1: []}
        while sum(map(len, found.values())) < 10:
            columns = consumer.poll_batch(PATIENCE_S)
            for topic, partition, start, stop in columns.runs:
                assert topic == "t"
                found[partition] += [int(columns.values[at] or b"") for at in range(start, stop)]
    assert found == {0: [0, 2, 4, 6, 8], 1: [1, 3, 5, 7, 9]}


def test_no_more_than_asked_for_is_given_and_none_where_nothing_comes(address: Any) -> None:
    create(address, "t", 1)
    write(address, range(10), partitions=1)
    with Consumer(address, "t") as consumer:
        assert numbers(consumer.poll_batch(PATIENCE_S, max_records=4)) == [0, 1, 2, 3]
        assert consumer.position("t", 0) == 4
        assert [int(record.value) for record in consumer.poll(PATIENCE_S, 1)] == [4]
        assert int(next(iter(consumer)).value) == 5
        assert read_batch(consumer, 4) == [6, 7, 8, 9]
        nothing = consumer.poll_batch(0)
        assert not nothing
        assert nothing.runs == []
        assert list(nothing.records()) == []


def test_what_polls_have_left_is_given_as_columns(address: Any) -> None:
    fill(address, 6)
    with Consumer(address, "t", max_poll_records=100) as consumer:
        for record in consumer:
            first = int(record.value)
            break
        assert read_batch(consumer, 5) == sorted({*range(6)} - {first})


def test_seek_goes_where_the_next_columns_begin(address: Any) -> None:
    fill_with_times(address, "u", 10)
    with Consumer(address, "u") as consumer:
        consumer.seek("u", 0, 7)
        assert numbers(consumer.poll_batch(PATIENCE_S)) == [7, 8, 9]
        consumer.seek("u", 0, FIRST + timedelta(seconds=5))
        assert numbers(consumer.poll_batch(PATIENCE_S)) == [5, 6, 7, 8, 9]


def test_columns_stay_as_they_are_while_the_consumer_goes_on(address: Any) -> None:
    create(address, "t", 1)
    with Producer(address, batch_size=4000) as producer:
        for number in range(20_000):
            producer.send("t", b"%06d" % number * 10, partition=0)
    kept = []
    with Consumer(address, "t", fetch_max_bytes=50_000, stop_at_end=True) as consumer:
        for columns in consumer.batches(max_records=333):
            if columns.offsets[0] % 3 == 0:
                kept.append((columns.offsets[0], columns.values.data))
            del columns
    assert len(kept) > 5
    for first, data in kept:
        size = len(data) // 60
        assert bytes(data) == b"".join(b"%06d" % at * 10 for at in range(first, first + size))


def test_records_stay_as_they_are_while_the_consumer_goes_on(address: Any) -> None:
    create(address, "t", 1)
    with Producer(address, batch_size=4000) as producer:
        for number in range(20_000):
            producer.send("t", b"%06d" % number * 10, partition=0)
    with Consumer(address, "t", fetch_max_bytes=50_000, stop_at_end=True) as consumer:
        kept = [record for record in consumer if record.offset % 700 == 0]
    assert [record.value for record in kept] == [b"%06d" % at * 10 for at in range(0, 20_000, 700)]


# -- what counts as handed out


def test_columns_count_as_finished_when_the_next_are_asked_for(address: Any) -> None:
    fill(address, 4)
    settings = QUICK_MEMBERS["classic"] | {"auto_commit_interval_ms": 1}
    with Consumer(address, "t", group="g", **settings) as consumer:
        assert read_batch(consumer, 4) == [0, 1, 2, 3]
        assert not consumer.poll_batch(0.2)
        committed = consumer.committed([T0, T1])
        while None in committed.values() or sum(filter(None, committed.values())) < 4:
            consumer.poll_batch(0.05)
            committed = consumer.committed([T0, T1])
        assert committed == {T0: 2, T1: 2}


@pytest.mark.parametrize("has_finished", [False, True])
def test_what_was_given_is_read_again_where_it_was_not_finished(
    address: Any, has_finished: bool
) -> None:
    create(address, "t", 1)
    write(address, range(10), partitions=1)
    settings = QUICK_MEMBERS["classic"]

    def work() -> None:
        with Consumer(address, "t", group="g", **settings) as consumer:
            assert numbers(consumer.poll_batch(PATIENCE_S, max_records=3)) == [0, 1, 2]
            assert numbers(consumer.poll_batch(PATIENCE_S, max_records=3)) == [3, 4, 5]
            if not has_finished:
                raise ZeroDivisionError

    if has_finished:
        work()
    else:
        with pytest.raises(ZeroDivisionError):
            work()
    with Consumer(address, "t", group="g", **settings) as consumer:
        assert read_batch(consumer, 4 if has_finished else 7)[0] == (6 if has_finished else 3)


def test_commit_stores_where_the_columns_end(address: Any) -> None:
    create(address, "t", 1)
    write(address, range(10), partitions=1)
    settings = QUICK_MEMBERS["classic"] | {"enable_auto_commit": False}
    with Consumer(address, "t", group="g", **settings) as consumer:
        consumer.poll_batch(PATIENCE_S, max_records=3)
        consumer.commit()
        assert consumer.committed([T0]) == {T0: 3}


def test_columns_that_nobody_got_are_given_by_the_next_call(
    address: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(address, "t", 1)
    write(address, range(10), partitions=1)
    with Consumer(address, "t") as consumer:
        assert numbers(consumer.poll_batch(PATIENCE_S, max_records=2)) == [0, 1]
        with monkeypatch.context() as patch:

            def interrupted() -> None:
                raise KeyboardInterrupt

            patch.setattr(consumer, "_maybe_push", interrupted)
            with pytest.raises(KeyboardInterrupt):
                consumer.poll_batch(PATIENCE_S)
        assert read_batch(consumer, 8) == [2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("calls", [1, 2])
def test_what_was_added_when_memory_ran_out_is_given_by_the_next_call(
    address: Any, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    fill(address, 10)
    with Consumer(address, "t") as consumer:
        consumer.poll_batch(PATIENCE_S, max_records=1)
        left = calls
        take_into: Callable[..., Any] = Fetcher.take_into

        class Failing:
            """Columns for which memory runs out."""

            is_full = False

            def __init__(self) -> None:
                self.builder = ColumnsBuilder(consumer._core._memory)

            def __len__(self) -> int:
                return len(self.builder)

            def add(self, *arguments: Any) -> int:
                nonlocal left
                left -= 1
                added = self.builder.add(*arguments)
                if left <= 0:
                    raise MemoryError
                return added

            def end_run(self, topic: str, partition: int) -> None:
                self.builder.end_run(topic, partition)

        def failing(fetcher: Fetcher, _: object, count: int) -> Any:
            return take_into(fetcher, Failing(), count)

        with monkeypatch.context() as patch:
            patch.setattr(Fetcher, "take_into", failing)
            with pytest.raises(MemoryError):
                while True:
                    assert consumer.poll_batch(PATIENCE_S) is not None
        assert len(read_batch(consumer, 9)) == 9


# -- what it refuses


def integer(data: bytes) -> int:
    return int(data)


def poisoned(address: Any) -> None:
    create(address, "t", 1)
    with Producer(address) as producer:
        for value in (b"0", b"1", b"poison", b"3"):
            producer.send("t", value, partition=0)


def test_a_record_that_cannot_be_read_is_raised_once_and_passed(address: Any) -> None:
    poisoned(address)
    with Consumer(address, "t", value_deserializer=integer) as consumer:
        found: list[int] = []
        with pytest.raises(DeserializationFailed, match="offset 2"):
            while True:
                found += numbers(consumer.poll_batch(PATIENCE_S))
        assert found == [0, 1]
        assert numbers(consumer.poll_batch(PATIENCE_S)) == [3]


def test_records_that_cannot_be_read_can_be_left_out(
    address: Any, caplog: pytest.LogCaptureFixture
) -> None:
    poisoned(address)
    with (
        caplog.at_level(logging.WARNING),
        Consumer(
            address, "t", value_deserializer=integer, on_poison="skip", stop_at_end=True
        ) as consumer,
    ):
        columns = list(consumer.batches())
    assert [number for each in columns for number in numbers(each)] == [0, 1, 3]
    assert "offset 2" in caplog.text


def test_a_damaged_batch_is_raised_with_its_place_and_can_be_passed(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        damage_the_second_of_three(broker, tmp_path)
        with Consumer(broker, "t") as consumer:
            assert numbers(consumer.poll_batch(PATIENCE_S)) == [0]
            for _ in range(2):
                with pytest.raises(CorruptRecords, match="t/0: the batch at offset 1 is damaged"):
                    consumer.poll_batch(PATIENCE_S)
            consumer.seek("t", 0, 2)
            assert numbers(consumer.poll_batch(PATIENCE_S)) == [2]


def test_wakeup_and_close_are_told(address: Any) -> None:
    fill(address, 0)
    consumer = Consumer(address, "t")
    consumer.wakeup()
    with pytest.raises(WokenUp):
        consumer.poll_batch(PATIENCE_S)
    consumer.close()
    assert list(consumer.batches()) == []
    with pytest.raises(Closed):
        consumer.poll_batch(0)


# -- Arrow


def test_without_pyarrow_an_error_says_how_to_install_it(
    address: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    fill(address, 2)
    with Consumer(address, "t") as consumer:
        columns = consumer.poll_batch(PATIENCE_S)
    with pytest.raises(MissingExtra, match=r"pip install 'ottla\[arrow\]'"):
        columns.to_arrow()
    with pytest.raises(ImportError):
        columns.to_arrow()
    assert columns.runs[0] == Run("t", columns.runs[0].partition, 0, columns.runs[0].stop)
    assert TopicPartition("t", columns.runs[0].partition) in (T0, T1)
