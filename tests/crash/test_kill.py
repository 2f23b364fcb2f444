"""`kill -9` of a serving broker under steady sends.

The producer lives through it: it connects again when the broker is back and sends what had no
answer once more. Then the store is read and judged from what was noted outside of it: everything
that was confirmed stands where it was confirmed, and nothing that was sent once stands twice.

Three runs; OTTLA_KILLS=20 makes it twenty.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path

import pytest

from ottla import Consumer, Delivery, Producer
from tests.compat.serving import Serving

KILLS = int(os.environ.get("OTTLA_KILLS", "3"))
SENDS_PER_RUN = 3000
PARTITIONS = 2


def send_through_a_kill(serving: Serving, run: int) -> list[tuple[bytes, Delivery]]:
    """Send while the broker is killed and started again; returns what was sent."""
    chance = random.Random(run)
    sent: list[tuple[bytes, Delivery]] = []
    with Producer(serving.address, linger_ms=0, batch_size=2000) as producer:
        producer.send("steady", b"%d-warm" % run)
        producer.flush()
        kill_at = chance.randrange(200, SENDS_PER_RUN - 200)
        killed = threading.Thread(target=kill_and_start, args=(serving,))
        for number in range(SENDS_PER_RUN):
            value = b"%d-%d" % (run, number)
            sent.append((value, producer.send("steady", value, partition=number % PARTITIONS)))
            if number == kill_at:
                killed.start()
            if number % 50 == 0:
                sent[-1][1].result()
        killed.join()
        producer.flush()
    return sent


def kill_and_start(serving: Serving) -> None:
    serving.stop(signal.SIGKILL)
    serving.start()


@pytest.mark.slow
def test_what_was_confirmed_survives_kill_9_and_nothing_is_stored_twice(tmp_path: Path) -> None:
    sent: list[tuple[bytes, Delivery]] = []
    with Serving(tmp_path / "store", "--set", f"num.partitions={PARTITIONS}") as serving:
        for run in range(KILLS):
            sent += send_through_a_kill(serving, run)
        kill_and_start(serving)
        with Consumer(serving.address, "steady", stop_at_end=True) as consumer:
            found = [(each.value, each.partition, each.offset) for each in consumer]
    confirmed = [(value, each.partition, each.offset) for value, each in sent]
    assert all(each.state == "stored" for _, each in sent)
    assert set(confirmed) <= set(found)
    values = [value for value, _, _ in found]
    assert len(values) == len(set(values))
    for partition in range(PARTITIONS):
        own = [value for value, number, _ in found if number == partition and b"warm" not in value]
        expected = [value for value, each in sent if each.partition == partition]
        assert own == expected
