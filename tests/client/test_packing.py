"""Full batches that are compressed beside the thread that fills them."""

import threading
from pathlib import Path
from typing import Any

import pytest

from ottla import Broker, Consumer, Producer
from ottla.client import producer_core as core_module
from ottla.client.accumulator import Accumulator
from ottla.client.config import ProducerConfig
from ottla.client.delivery import Batch
from ottla.client.packing import Packer, is_worthwhile
from ottla.clock import ManualClock
from ottla.records import builder as builder_module
from ottla.records.builder import BatchBuilder
from ottla.wire.compression import GZIP, LZ4, NAMES, NONE
from tests.client.scripted import Script

DEADLINE_S = 60.0
NOBODY: Any = None
VALUE = b"a value that can be compressed " * 10


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_module, "is_worthwhile", lambda codec: codec != NONE)


def full_batch() -> Batch:
    batch = Batch("t", 0, NOBODY, 0.0, 0)
    for _ in range(10):
        batch.builder.append(0, None, VALUE, None, 1 << 20)
    batch.is_packing = True
    return batch


def full_script() -> Script:
    """Return a producer's core with two full batches and an open one, of one record each."""
    script = Script(compression_type="lz4", batch_size=400, linger_ms=0)
    script.settle()
    for _ in range(3):
        script.send(VALUE)
    return script


class Told:
    """Hears how often a packer tells that a batch is packed."""

    def __init__(self) -> None:
        self._semaphore = threading.Semaphore(0)

    def __call__(self) -> None:
        self._semaphore.release()

    def wait(self) -> None:
        assert self._semaphore.acquire(timeout=DEADLINE_S)


def test_it_is_not_worthwhile_without_a_codec_or_a_second_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1}, raising=False)
    assert [is_worthwhile(codec) for codec in (NONE, LZ4)] == [False, True]
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {1})
    assert not is_worthwhile(LZ4)
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert not is_worthwhile(LZ4)


def test_records_that_were_packed_beforehand_are_built_as_if_they_were_not() -> None:
    built = []
    for is_packed in (False, True):
        builder = BatchBuilder()
        for number in range(50):
            builder.append(number, b"key", VALUE, None, 1 << 20)
        if is_packed:
            builder.pack(GZIP, 1)
        built.append(bytes(builder.build(GZIP, 1, 7, 8, 9)))
        assert bytes(builder.build(GZIP, 1, 7, 8, 9)) == built[-1]
    assert built[0] == built[1]


def test_an_accumulator_marks_the_batches_that_it_gives_away() -> None:
    packer = Packer(LZ4, None, Told())
    config = ProducerConfig(batch_size=400)
    accumulator = Accumulator(config, ManualClock(), NOBODY, lambda filled: None, packer.given)
    accumulator.append("t", 0, -1, None, VALUE, None)
    accumulator.assign(accumulator.topics["t"], 1)
    accumulator.append("t", 0, -1, None, VALUE, None)
    queue = accumulator.topics["t"].queues[0]
    (closed,) = queue.closed
    assert packer.given.get_nowait() is closed
    assert closed.is_packing
    assert queue.open is not None and not queue.open.is_packing
    accumulator.close_open(queue)
    assert [each.is_packing for each in queue.closed] == [True, False]


def test_who_filled_a_batch_waits_until_it_is_begun_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def compress(codec: int, data: memoryview, level: int | None) -> bytes:
        begun.set()
        assert may_end.wait(DEADLINE_S)
        return b"packed"

    monkeypatch.setattr(builder_module, "compress", compress)
    told = Told()
    packer = Packer(LZ4, None, told)
    batch = full_batch()
    packer.given.put(batch)
    packer.wait_until_begun()
    assert begun.wait(DEADLINE_S)
    assert batch.is_packing
    may_end.set()
    told.wait()
    assert not batch.is_packing
    packer.close()


def test_a_batch_that_cannot_be_packed_is_left_to_who_sends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told()
    packer = Packer(LZ4, None, told)

    def fail(codec: int, data: memoryview, level: int | None) -> bytes:
        raise MemoryError("no room for it")

    with monkeypatch.context() as patch:
        patch.setattr(builder_module, "compress", fail)
        batch = full_batch()
        packer.given.put(batch)
        packer.wait_until_begun()
        told.wait()
    assert not batch.is_packing
    assert batch.builder.build(LZ4)[22] & 7 == LZ4
    packer.given.put(batch)
    packer.wait_until_begun()
    told.wait()
    packer.close()


def test_nobody_waits_for_a_packer_that_is_closed() -> None:
    for is_used in (False, True):
        told = Told()
        packer = Packer(LZ4, None, told)
        if is_used:
            packer.given.put(full_batch())
            packer.wait_until_begun()
            told.wait()
        packer.close()
        packer.given.put(full_batch())
        packer.wait_until_begun()


def test_a_batch_that_is_being_packed_is_not_sent_and_none_behind_it_overtakes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Packer, "look", lambda packer: None)
        script = full_script()
        script.core.sender.hurry(1)
        script.run()
        first, second = script.core.accumulator.topics["t"].queues[0].closed
        assert (script.produced, first.is_packing, second.is_packing) == ([], True, True)
        second.is_packing = False
        script.run()
        assert script.produced == []
        first.is_packing = False
        script.run()
    assert [script.batches(index)[0] for index in range(3)] == [
        (0, 101, 1, 1),
        (0, 101, 2, 1),
        (0, 101, 3, 1),
    ]


def test_a_full_batch_is_packed_though_its_sender_was_interrupted_before_it_could_wait() -> None:
    script = full_script()  # it never waits
    told = Told()
    assert script.core.packer is not None
    script.core.packer._packed = told
    script.run()
    for _ in range(2):
        told.wait()
    script.run()
    script.core.sender.hurry(1)
    script.run()
    assert len(script.produced) == 3
    script.core.packer.close()


@pytest.mark.parametrize("codec", NAMES)
def test_every_record_is_stored_in_order_where_batches_are_packed(
    codec: str, tmp_path: Path
) -> None:
    expected = [b"%d " % number + VALUE for number in range(3000)]
    with Broker(tmp_path) as broker:
        with Producer(broker, compression_type=codec, batch_size=4096) as producer:
            for start in range(0, 3000, 1000):
                for value in expected[start : start + 500]:
                    producer.send("t", value)
                producer.send_many("t", expected[start + 500 : start + 1000])
                assert producer.flush() == 1000
        with Consumer(broker, "t", stop_at_end=True) as consumer:
            assert [record.value for record in consumer] == expected
