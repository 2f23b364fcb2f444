"""What an iterator gives out record by record, and what of it counts as handed out and finished."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from ottla import Admin, Broker, Consumer, Producer, Record
from ottla.client.handing import Batches, Handing
from ottla.client.lookup import TopicPartition
from ottla.errors import CorruptRecords
from ottla.records.batch import CRC_START, iterate_headers, iterate_records
from ottla.records.builder import BatchBuilder
from ottla.wire.crc32c import crc32c

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


def fill(broker: Broker, count: int, partitions: int = 1) -> None:
    """Write records whose values are numbers, to the partitions in turn, in one batch of each."""
    with Admin(broker) as admin:
        admin.create_topic("t", partitions)
    with Producer(broker, linger_ms=10_000) as producer:
        for number in range(count):
            producer.send("t", f"{number}", partition=number % partitions, timestamp_ms=1)


def numbers(records: Iterable[Record]) -> list[int]:
    return [int(record.value) for record in records]


def next_of(consumer: Consumer, count: int) -> list[int]:
    records = iter(consumer)
    return [int(next(records).value) for _ in range(count)]


def given_and_unfinished(handing: Handing) -> tuple[dict[TopicPartition, int], ...]:
    return handing.first_not_handed_out(), handing.first_unfinished()


def test_iterating_polling_and_columns_go_on_where_the_other_has_stopped(broker: Broker) -> None:
    fill(broker, 100)
    with Consumer(broker, "t") as consumer:
        assert next_of(consumer, 3) == [0, 1, 2]
        assert numbers(consumer.poll(30, 4)) == [3, 4, 5, 6]
        assert next_of(consumer, 2) == [7, 8]
        assert consumer.position(*T0) == 9
        assert numbers(consumer.poll_batch(30, 3).records()) == [9, 10, 11]
        assert next_of(consumer, 1) == [12]
        assert numbers(consumer.poll(30)) == list(range(13, 100))
        assert not consumer.has_buffered


def test_a_record_that_somebody_holds_stays_as_it_is_while_others_come(broker: Broker) -> None:
    with Producer(broker) as producer:
        for number in range(400):
            producer.send(
                "t",
                None if number % 5 == 0 else f"{number}",
                key=f"{number}" if number % 3 == 0 else None,
                headers={"n": f"{number}"} if number % 4 == 0 else None,
                timestamp_ms=number,
            )

    def expected(number: int) -> tuple[object, ...]:
        text = str(number).encode()
        return (
            (number, number),
            (text if number % 3 == 0 else None, None if number % 5 == 0 else text),
            [("n", text)] if number % 4 == 0 else [],
        )

    def seen(record: Record) -> tuple[object, ...]:
        return (
            (record.offset, record.timestamp_ms),
            (record.key, record.value),
            record.headers,
        )

    kept: list[Record] = []
    with Consumer(broker, "t", stop_at_end=True) as consumer:
        for number, record in enumerate(consumer):
            if number % 7 != 3:  # others are not looked at before all have come
                assert seen(record) == expected(number)
            if number % 7 in (2, 3, 5):
                kept.append(record)
    numbers = [number for number in range(400) if number % 7 in (2, 3, 5)]
    assert [seen(record) for record in kept] == [expected(number) for number in numbers]


def test_a_partition_is_paused_sought_and_resumed_between_two_records(broker: Broker) -> None:
    fill(broker, 20, partitions=2)
    with Consumer(broker, "t", stop_at_end=True) as consumer:
        records = iter(consumer)
        first = next(records)
        consumer.pause(("t", first.partition))
        assert consumer.position("t", first.partition) == 1
        of_other = [next(records) for _ in range(10)]
        assert {record.partition for record in of_other} == {1 - first.partition}
        consumer.resume()
        consumer.seek("t", 1 - first.partition, 8)
        rest = list(records)
        assert sorted(record.offset for record in rest) == [1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9]


def test_the_last_record_of_an_iterator_is_not_finished_with_until_the_next(broker: Broker) -> None:
    fill(broker, 10)
    with Consumer(broker, "t", group="g", enable_auto_commit=False) as consumer:
        core = consumer._core
        records = iter(consumer)
        for offset in range(10):
            assert next(records).offset == offset
            assert core.finished()[T0].offset == offset
            assert core.given()[T0].offset == offset + 1
        consumer.poll(0)
        assert core.finished()[T0].offset == 10


def test_what_a_poll_has_given_of_an_iterators_rest_is_finished_with_by_the_next(
    broker: Broker,
) -> None:
    fill(broker, 10)
    with Consumer(broker, "t", group="g", enable_auto_commit=False) as consumer:
        core = consumer._core
        assert next_of(consumer, 2) == [0, 1]
        assert numbers(consumer.poll(30, 3)) == [2, 3, 4]
        assert core.finished()[T0].offset == 2
        assert core.given()[T0].offset == 5
        consumer.seek("t", 0, 8)
        assert core.finished()[T0].offset == 2
        assert next_of(consumer, 1) == [8]
        assert core.finished()[T0].offset == 8
        consumer.seek("t", 0, 3)
        assert core.finished()[T0].offset == 8
        assert next_of(consumer, 1) == [3]


@pytest.mark.parametrize("bad", [0, 3, 9])
@pytest.mark.parametrize("reads_ahead", [False, True], ids=["iterator", "poll"])
def test_a_record_that_cannot_be_read_is_raised_at_its_place_until_somebody_seeks(
    tmp_path: Path, bad: int, reads_ahead: bool
) -> None:
    with Broker(tmp_path) as broker:
        fill(broker, 10)
        with Producer(broker) as producer:
            producer.send("t", "behind")
        log = tmp_path / "t-0" / "00000000000000000000.log"
        data = bytearray(log.read_bytes())
        damage_record(data, bad)
        log.write_bytes(data)
        with Consumer(broker, "t") as consumer:
            records = iter(consumer)
            got = [next(records) for _ in range(bad)]
            assert numbers(got) == list(range(bad))
            for _ in range(2):
                with pytest.raises(CorruptRecords, match="t/0: the batch at offset 0 is damaged"):
                    if reads_ahead and bad:
                        consumer.poll(30)
                    else:
                        next(records)
                assert consumer.position(*T0) == bad
            consumer.seek("t", 0, 10)
            assert next(records).value == b"behind"


def damage_record(data: bytearray, number: int) -> None:
    """Have a record's key say that it is longer than the record, under a correct checksum."""
    header = next(iterate_headers(bytes(data)))
    at = 61
    for _ in range(number):
        at += 1 + (data[at] >> 1)  # sizes of less than 64, zigzag
    data[at + 4] = 0x7E
    crc = crc32c(memoryview(data)[CRC_START : header.size])
    data[17:21] = crc.to_bytes(4, "big")


def batches_of(*wheres: TopicPartition) -> Batches:
    """Return three records of each partition."""
    readers = []
    for topic, partition in wheres:
        builder = BatchBuilder()
        for number in range(3):
            builder.append(number, None, b"%d" % number, None, 1000)
        data = builder.build()
        header = next(iterate_headers(data))
        readers.append(iterate_records(data, header, topic, partition))
    return Batches(readers, lambda where, header, offset, error: error)


def test_batches_of_several_partitions_say_where_each_has_come_to() -> None:
    handing: Handing = batches_of(T0, T1)
    assert given_and_unfinished(handing) == ({T0: 0, T1: 0}, {T0: 0, T1: 0})
    assert len(handing.hand_out(4)) == 4
    assert given_and_unfinished(handing) == ({T1: 1}, {T0: 0, T1: 0})
    handing.finish()
    assert given_and_unfinished(handing) == ({T1: 1}, {T1: 1})
    assert handing.has_more


def test_batches_without_a_partition_keep_what_is_unfinished_of_it() -> None:
    handing: Handing = batches_of(T0, T1)
    assert len(handing.hand_out(2)) == 2
    without = handing.without({T0})
    assert given_and_unfinished(without) == ({T1: 0}, {T0: 0, T1: 0})
    assert [record.partition for record in without.hand_out(10)] == [1, 1, 1]
    nothing = batches_of(T0).without({T0})
    assert not nothing.has_more
    assert given_and_unfinished(nothing) == ({}, {})


def test_the_last_record_is_not_given_where_bytes_are_left_over_behind_it() -> None:
    builder = BatchBuilder()
    for number in range(3):
        builder.append(number, None, b"%d" % number, None, 1000)
    data = bytearray(builder.build()) + b"left over"
    data[8:12] = (len(data) - 12).to_bytes(4, "big")
    reader = iterate_records(data, next(iterate_headers(data)), *T0)
    handing = Batches([reader], lambda where, header, offset, error: error)
    assert [record.offset for record in handing.hand_out(3)] == [0, 1]
    for _ in range(2):
        with pytest.raises(CorruptRecords, match="left over"):
            handing.hand_out(3)
        assert handing.first_not_handed_out() == {T0: 2}
