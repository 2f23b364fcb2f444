import random

import pytest

from ottla.client.partitioner import Partitioner, murmur2

# Kafka: UtilsTest.testMurmur2, as signed 32-bit integers
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("data", "hashed"), JAVA.items())
def test_murmur2_is_java_s(data: bytes, hashed: int) -> None:
    assert murmur2(data) == hashed & 0xFFFFFFFF


@pytest.mark.parametrize("size", range(9))
def test_murmur2_takes_every_length_and_all_bytes(size: int) -> None:
    assert 0 <= murmur2(bytes([255 - size] * size)) <= 0xFFFFFFFF


@pytest.mark.parametrize(("data", "hashed"), JAVA.items())
def test_a_key_goes_to_the_same_partition_as_from_java(data: bytes, hashed: int) -> None:
    assert Partitioner(7, 1000).for_key(data) == (hashed & 0x7FFFFFFF) % 7


def test_an_empty_key_is_a_key() -> None:
    # Kafka: murmur2 of nothing is 275646681
    assert Partitioner(10, 1000).for_key(b"") == 275646681 % 10


def test_a_partition_is_kept_until_a_batch_s_worth_of_bytes_is_there() -> None:
    partitioner = Partitioner(3, 100)
    assert not partitioner.appended(99)
    assert partitioner.appended(1)


def test_a_single_partition_is_never_left() -> None:
    partitioner = Partitioner(1, 10)
    assert not partitioner.appended(1000)
    assert partitioner.partition == 0


def test_the_longer_a_queue_the_less_often_its_partition_is_drawn() -> None:
    random.seed(7)
    partitioner = Partitioner(3, 100)
    drawn = [0, 0, 0]
    for _ in range(1000):
        partitioner.draw({1: 9})
        drawn[partitioner.partition] += 1
    assert 0 < drawn[1] < 120


def test_a_partition_without_a_leader_is_not_drawn_while_there_is_another() -> None:
    partitioner = Partitioner(2, 100)
    for _ in range(50):
        partitioner.draw({0: -1, 1: 3})
        assert partitioner.partition == 1


def test_without_any_leader_one_is_drawn_all_the_same() -> None:
    partitioner = Partitioner(2, 100)
    partitioner.draw({0: -1, 1: -1})
    assert partitioner.partition in (0, 1)
