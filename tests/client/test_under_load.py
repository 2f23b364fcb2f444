"""Many threads on own and on shared producers: nothing is lost, doubled or put out of order."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from ottla import Broker, Consumer, Producer

RECORDS = 2000
OWN = range(4)
SHARED = range(10, 14)


def send_with_an_own_producer(address: object, name: int) -> None:
    chance = random.Random(name)
    with Producer(
        address,
        linger_ms=chance.choice([0, 1, 5]),
        batch_size=chance.choice([500, 5000, 131_072]),
        compression_type=chance.choice(["none", "lz4", "gzip"]),
    ) as producer:
        for number in range(RECORDS):
            handle = producer.send("t", f"{number}", key=f"{name}")
            if chance.random() < 0.02:
                producer.flush()
            elif chance.random() < 0.02:
                handle.result()


def send_with_a_shared_producer(producer: Producer, name: int) -> None:
    for number in range(RECORDS):
        producer.send("t", f"{number}", key=f"{name}")
        if number % 97 == 0:
            producer.flush()


@pytest.mark.slow
@pytest.mark.parametrize("over", ["embedded", "tcp"])
def test_every_record_is_stored_once_and_in_the_order_of_its_key(over: str, tmp_path: Path) -> None:
    with Broker(tmp_path, settings={"num.partitions": "3"}) as broker:
        address = broker.listen() if over == "tcp" else broker
        with Producer(address) as shared:
            threads = [
                threading.Thread(target=send_with_an_own_producer, args=(address, name))
                for name in OWN
            ]
            threads += [
                threading.Thread(target=send_with_a_shared_producer, args=(shared, name))
                for name in SHARED
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        found: dict[bytes, list[int]] = {}
        with Consumer(address, "t", stop_at_end=True) as consumer:
            for record in consumer:
                found.setdefault(record.key, []).append(int(record.value))
    assert found == {b"%d" % name: list(range(RECORDS)) for name in (*OWN, *SHARED)}
