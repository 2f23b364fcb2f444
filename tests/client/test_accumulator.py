import gc
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ottla.client.accumulator import Accumulator
from ottla.client.config import ProducerConfig
from ottla.client.delivery import FAILED, STORED, Batch, Delivery, ManyDeliveries
from ottla.client.sending import Sending
from ottla.clock import Clock, ManualClock
from ottla.errors import RecordError
from ottla.records.batch import iterate_records, read_header

A_MOMENT_S = 0.2


class NobodyWaits:
    def wait(self, reached: Callable[[], bool], timeout: float | None) -> bool:
        return reached()


class Notes:
    def __init__(self) -> None:
        self.told: list[bool] = []

    def __call__(self, filled: bool) -> None:
        self.told.append(filled)


def make(partitions: int = 1, **settings: int) -> tuple[Accumulator, Notes]:
    notes = Notes()
    config = ProducerConfig(**settings)  # type: ignore[arg-type]  # ints are what is varied here
    accumulator = Accumulator(config, ManualClock(1000), NobodyWaits(), notes)
    first = accumulator.append("t", -1, -1, None, b"first", None)
    assert first is not None
    accumulator.assign(accumulator.topics["t"], partitions)
    notes.told.clear()
    return accumulator, notes


def take_all(accumulator: Accumulator) -> list[Batch]:
    batches: list[Batch] = []
    for queue in accumulator.topics["t"].queues:
        accumulator.close_open(queue)
        batches += queue.closed
        queue.closed.clear()
    return batches


def values(batches: list[Batch]) -> list[bytes]:
    found = []
    for batch in batches:
        data = batch.builder.build()
        found += [record.value for record in iterate_records(data, read_header(data))]
    return found


def test_records_of_an_unknown_topic_wait_in_order_and_are_appended_when_it_is_known() -> None:
    accumulator = Accumulator(ProducerConfig(), ManualClock(), NobodyWaits(), Notes())
    handles = [accumulator.append("t", -1, -1, None, b"%d" % each, None) for each in range(5)]
    assert [topic.name for topic in accumulator.unknown_topics()] == ["t"]
    assert all(handle is not None and handle.partition is None for handle in handles)
    assert accumulator.assign(accumulator.topics["t"], 1) == []
    assert accumulator.unknown_topics() == []
    assert [handle.index for handle in handles if handle is not None] == [0, 1, 2, 3, 4]
    assert values(take_all(accumulator)) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_record_sent_while_those_before_it_get_their_partition_comes_behind_them() -> None:
    late: list[threading.Thread] = []

    def send_another(filled: bool) -> None:
        if accumulator.topics["t"].pending or late or not filled:
            return
        late.append(threading.Thread(target=append, args=(b"late",)))
        late[0].start()
        late[0].join(A_MOMENT_S)  # it should wait until all before it are appended

    def append(value: bytes) -> None:
        accumulator.append("t", -1, -1, None, value, None)

    config = ProducerConfig(batch_size=100)
    accumulator = Accumulator(config, ManualClock(), NobodyWaits(), send_another)
    for value in (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9"):
        append(value)
    accumulator.assign(accumulator.topics["t"], 1)
    late[0].join()
    assert values(take_all(accumulator)) == [b"%d" % number for number in range(1, 10)] + [b"late"]


def test_a_record_for_a_partition_that_turns_out_not_to_exist_is_refused_alone() -> None:
    accumulator = Accumulator(ProducerConfig(), ManualClock(), NobodyWaits(), Notes())
    accumulator.append("t", 0, -1, None, b"good", None)
    bad = accumulator.append("t", 3, -1, None, b"bad", None)
    [(refused, error)] = accumulator.assign(accumulator.topics["t"], 2)
    assert refused is bad
    assert "no partition 3" in error.what
    assert values(take_all(accumulator)) == [b"good"]


def test_a_full_batch_is_closed_and_told() -> None:
    accumulator, notes = make(batch_size=200)
    for _ in range(5):
        accumulator.append("t", -1, -1, None, b"x" * 60, None)
    assert True in notes.told
    batches = take_all(accumulator)
    assert len(batches) > 1
    assert all(batch.builder.size <= 200 for batch in batches)


def test_a_batch_that_is_opened_is_told_once() -> None:
    accumulator, notes = make()
    take_all(accumulator)
    for _ in range(10):
        accumulator.append("t", -1, -1, None, b"x", None)
    assert notes.told == [False]


def test_a_record_larger_than_a_batch_gets_one_of_its_own() -> None:
    accumulator, _ = make(batch_size=100)
    accumulator.append("t", -1, -1, None, b"x" * 500, None)
    accumulator.append("t", -1, -1, None, b"y", None)
    assert [batch.count for batch in take_all(accumulator)] == [1, 1, 1]


def test_a_record_larger_than_a_request_is_refused_and_nothing_changes() -> None:
    accumulator, _ = make(max_request_size=1000)
    before = accumulator.buffered_bytes
    for key, value, headers in [
        (None, b"x" * 1000, None),
        (b"k" * 1000, None, None),
        (None, None, [("h", b"x" * 1000)]),
    ]:
        with pytest.raises(RecordError, match="max_request_size allows 1000"):
            accumulator.append("t", -1, -1, key, value, headers)
    assert accumulator.buffered_bytes == before


def test_a_full_buffer_takes_nothing_until_a_batch_is_complete() -> None:
    accumulator, _ = make(buffer_memory=100)
    assert accumulator.append("t", -1, -1, None, b"x" * 200, None) is not None
    assert not accumulator.has_room
    assert accumulator.append("t", -1, -1, None, b"x", None) is None
    for batch in take_all(accumulator):
        accumulator.complete(batch)
    assert accumulator.buffered_bytes == 0
    assert accumulator.append("t", -1, -1, None, b"x", None) is not None


def test_keys_and_partitions_are_obeyed() -> None:
    accumulator, _ = make(partitions=5)
    handle = accumulator.append("t", 3, -1, b"key", b"value", None)
    assert handle is not None
    assert handle.partition == 3
    keyed = accumulator.append("t", -1, -1, b"foobar", None, None)
    assert keyed is not None
    assert keyed.partition == (-790332482 & 0x7FFFFFFF) % 5
    with pytest.raises(RecordError, match="no partition 5"):
        accumulator.append("t", 5, -1, None, None, None)


def test_a_handle_tells_its_offset_and_timestamp_once_it_is_stored() -> None:
    accumulator, _ = make()
    handle = accumulator.append("t", -1, 77, None, b"second", None)
    assert handle is not None
    assert (handle.state, handle.offset, handle.done()) == ("buffered", None, False)
    handle.batch.base_offset = 40
    handle.batch.state = STORED
    assert (handle.state, handle.offset, handle.done()) == ("stored", 41, True)
    assert handle.result() == ("t", 0, 41, 77)
    handle.batch.append_time_ms = 99
    assert handle.timestamp_ms == 99


def test_callbacks_get_the_handle_and_run_at_once_where_the_outcome_is_known() -> None:
    accumulator, _ = make()
    handle = accumulator.append("t", -1, -1, None, b"x", None)
    assert handle is not None
    called: list[Delivery] = []
    handle.add_done_callback(called.append)
    assert called == []
    for callback, delivery in handle.batch.take_callbacks():
        callback(delivery)
    handle.batch.state = STORED
    handle.add_done_callback(called.append)
    assert called == [handle, handle]


def test_many_records_have_one_handle_that_knows_their_ranges() -> None:
    accumulator, _ = make(batch_size=300)
    deliveries = ManyDeliveries("t", NobodyWaits())
    given = [b"x" * 50, "text", (b"k", b"v"), (None, None, [("h", b"1")]), (b"k", b"v", None, 5)]
    assert accumulator.append_many(deliveries, "t", given, 0, -1) == len(given)
    assert len(deliveries) == 5
    assert deliveries.state == "buffered"
    for number, batch in enumerate(take_all(accumulator)):
        batch.base_offset = 100 * number
        batch.state = STORED
    ranges = deliveries.result()
    assert sum(each.records for each in ranges) == 5
    assert deliveries.state == "stored"


def test_many_records_are_told_in_their_order_in_whatever_order_they_are_stored() -> None:
    accumulator, _ = make(partitions=2)
    take_all(accumulator)
    many = ManyDeliveries("t", NobodyWaits())
    offsets = iter(range(100, 0, -10))
    waiting: list[Batch] = []

    def store(batch: Batch) -> None:
        batch.base_offset, batch.state = next(offsets), STORED
        accumulator.complete(batch)

    for count in range(1, 6):
        accumulator.append_many(many, "t", [b"x"] * count, 0, count % 2)
        waiting += take_all(accumulator)
        if count % 2 == 0:
            store(waiting.pop())
    assert (len(many), many.done(), many.state) == (15, False, "buffered")
    while waiting:
        store(waiting.pop())
    found = [(each.partition, each.offset, each.records) for each in many.result()]
    assert found == [(1, 60, 1), (0, 100, 2), (1, 70, 3), (0, 90, 4), (1, 80, 5)]
    assert many.result() == many.result()
    assert (len(many), many.done(), many.state) == (15, True, "stored")


def test_the_handle_of_many_records_does_not_hold_batches_that_are_stored() -> None:
    accumulator, _ = make(batch_size=1024)
    take_all(accumulator)
    many = ManyDeliveries("t", NobodyWaits())
    for _ in range(20):
        accumulator.append_many(many, "t", [b"x" * 300] * 3, 0, -1)
        for batch in take_all(accumulator):
            batch.state = STORED
            accumulator.complete(batch)
    assert [type(each) for each in gc.get_referents(many)].count(list) == 1
    reached = [each for part in gc.get_referents(many) for each in gc.get_referents(part)]
    assert sum(isinstance(each, Delivery) for each in reached) <= 2
    assert len(many) == 60


def test_many_records_stop_where_the_buffer_is_full_and_go_on_from_there() -> None:
    accumulator, _ = make(buffer_memory=500)
    deliveries = ManyDeliveries("t", NobodyWaits())
    given = [b"x" * 100] * 20
    index = accumulator.append_many(deliveries, "t", given, 0, -1)
    assert 0 < index < 20
    assert len(deliveries) == index
    for batch in take_all(accumulator):
        accumulator.complete(batch)
    assert accumulator.append_many(deliveries, "t", given, index, -1) > index


@pytest.mark.parametrize("partition", [-1, 1])
def test_many_records_are_what_they_are_one_by_one(partition: int) -> None:
    chance = random.Random(5)
    given: list[Any] = []
    for number in range(3000):
        value = b"%d" % number + b"." * chance.choice([0, 1, 60, 130, 700])
        given.append(chance.choice([value, value, value, value.decode(), (b"key", value)]))
    accumulator, _ = make(partitions=3, batch_size=3000)
    deliveries = ManyDeliveries("t", NobodyWaits())
    assert accumulator.append_many(deliveries, "t", given, 0, partition) == len(given)
    batches = take_all(accumulator)
    assert len(batches) > 100
    assert all(batch.builder.size <= 3000 for batch in batches)
    assert sum(batch.held for batch in batches) == accumulator.buffered_bytes
    found = values(batches)
    found.remove(b"first")
    as_bytes = [each[1] if isinstance(each, tuple) else each for each in given]
    as_bytes = [each.encode() if isinstance(each, str) else each for each in as_bytes]
    by_number = sorted(found, key=lambda value: int(value.rstrip(b".")))
    assert by_number == as_bytes
    batches.sort(key=lambda batch: batch.created_ms)
    for number, batch in enumerate(batches):
        batch.base_offset = 10_000 * number
        batch.state = STORED
    assert len(deliveries) == len(given)
    told = [
        offset
        for each in deliveries.result()
        for offset in range(each.offset, each.offset + each.records)
    ]
    assert len(set(told)) == len(given)


def test_many_records_leave_a_partition_when_a_batch_s_worth_of_bytes_is_there() -> None:
    accumulator, _ = make(partitions=50, batch_size=2000)
    deliveries = ManyDeliveries("t", NobodyWaits())
    accumulator.append_many(deliveries, "t", [b"x" * 100] * 1000, 0, -1)
    sizes = [0] * 50
    for batch in take_all(accumulator):
        sizes[batch.partition] += batch.builder.size
    assert sum(1 for size in sizes if size) > 20


def test_a_list_that_shrinks_while_it_is_taken_ends_there() -> None:
    given = [b"x" * 100] * 100

    def shrink(filled: bool) -> None:
        del given[60:]

    accumulator = Accumulator(ProducerConfig(batch_size=1000), ManualClock(), NobodyWaits(), shrink)
    accumulator.append("t", -1, -1, None, b"first", None)
    accumulator.assign(accumulator.topics["t"], 1)
    given += [b"x" * 100] * 40
    deliveries = ManyDeliveries("t", NobodyWaits())
    assert accumulator.append_many(deliveries, "t", given, 0, -1) == 60
    assert len(deliveries) == 60


def test_the_buffer_of_a_stored_batch_is_used_again_once_nobody_looks_at_it() -> None:
    accumulator, _ = make(batch_size=1024)
    fill = [b"x" * 400] * 2
    accumulator.append_many(ManyDeliveries("t", NobodyWaits()), "t", fill, 0, -1)
    [first] = take_all(accumulator)
    kept = first.data = first.builder.build()
    before = bytes(kept)
    first.state = STORED
    accumulator.complete(first)
    for _ in range(3):
        accumulator.append_many(ManyDeliveries("t", NobodyWaits()), "t", [b"y" * 400], 0, -1)
        take_all(accumulator)
    assert bytes(kept) == before
    address = kept.obj
    del kept
    accumulator.append_many(ManyDeliveries("t", NobodyWaits()), "t", [b"z" * 400], 0, -1)
    [again] = take_all(accumulator)
    assert again.builder.build().obj is address
    assert values([again]) == [b"z" * 400]


def test_the_buffer_of_a_batch_that_failed_is_not_used_again() -> None:
    accumulator, _ = make(batch_size=1024)
    accumulator.append_many(ManyDeliveries("t", NobodyWaits()), "t", [b"x" * 800], 0, -1)
    [first] = take_all(accumulator)
    buffer = first.builder.build().obj
    first.state = FAILED
    accumulator.complete(first)
    accumulator.append_many(ManyDeliveries("t", NobodyWaits()), "t", [b"y" * 800], 0, -1)
    [again] = take_all(accumulator)
    assert again.builder.build().obj is not buffer


def buffers_of(batches: list[Batch]) -> list[object]:
    found: list[object] = []
    for batch in batches:
        batch.data = batch.builder.build()
        found.append(batch.data.obj)
    return found


def used_again(accumulator: Accumulator, buffers: list[object], batch_bytes: int) -> int:
    """Return how many of so many batches have one of the buffers."""
    fill = [b"y" * (batch_bytes - 1000)] * len(buffers)
    accumulator.append_many(ManyDeliveries("t", NobodyWaits()), "t", fill, 0, -1)
    again = [id(each) for each in buffers_of(take_all(accumulator))]
    return sum(id(each) in again for each in buffers)


@pytest.mark.parametrize("is_idle", [False, True])
def test_all_buffers_are_used_again_under_load_and_a_few_are_kept_without(is_idle: bool) -> None:
    size = 2 << 20
    accumulator, _ = make(batch_size=size, max_request_size=size)
    fill = [b"x" * (size - 1000)] * 6
    accumulator.append_many(ManyDeliveries("t", NobodyWaits()), "t", fill, 0, -1)
    batches = take_all(accumulator)
    if not is_idle:
        accumulator.append_many(ManyDeliveries("t", NobodyWaits()), "t", [b"still there"], 0, -1)
        take_all(accumulator)
    buffers = buffers_of(batches)
    for batch in batches:
        batch.state = STORED
        accumulator.complete(batch)
    assert used_again(accumulator, buffers, size) == (4 if is_idle else 6)


def test_spare_buffers_and_batches_take_no_more_than_buffer_memory() -> None:
    size = 1 << 20
    accumulator, _ = make(batch_size=size, max_request_size=size, buffer_memory=3 * size)
    fill = [b"x" * (size - 1000)] * 3
    accumulator.append_many(ManyDeliveries("t", NobodyWaits()), "t", fill, 0, -1)
    batches = take_all(accumulator)
    for each in range(2):  # others wait
        accumulator.append("t", -1, -1, None, b"%d" % each, None)
        take_all(accumulator)
    buffers = buffers_of(batches)
    for batch in batches:
        batch.state = STORED
        accumulator.complete(batch)
    assert used_again(accumulator, buffers, size) == 1


class Core:
    def __init__(self, accumulator: Accumulator, config: ProducerConfig) -> None:
        self.accumulator = accumulator
        self.config = config
        self.clock: Clock = ManualClock(1000)

    def wait(self, reached: Callable[[], bool], timeout: float | None) -> bool:
        return reached()

    def flush(self, timeout: float | None) -> int:
        raise AssertionError("nobody waits here")


@pytest.mark.parametrize("partitions", [1, 3])
def test_what_send_appends_in_one_step_is_what_append_does(partitions: int) -> None:
    config = ProducerConfig(batch_size=600, max_request_size=900, buffer_memory=9000)
    chance = random.Random(11)
    given = [
        (chance.choice([None, b"k", b"key%d" % each]), b"v" * chance.choice([0, 1, 90, 400, 700]))
        for each in range(60)
    ]
    found = []
    for at_once in (False, True):
        random.seed(5)
        accumulator = Accumulator(config, ManualClock(1000), NobodyWaits(), Notes())
        sending = Sending(Core(accumulator, config), None)
        sending.send("t", b"first")
        accumulator.assign(accumulator.topics["t"], partitions)
        handles = []
        for key, value in given:
            if at_once:
                handles.append(sending.try_send("t", value, key) if accumulator.has_room else None)
            else:
                handles.append(accumulator.append("t", -1, -1, key, value, None))
        places = [None if each is None else (each.partition, each.index) for each in handles]
        taken = accumulator.buffered_bytes
        stamps = [None if each is None else each.timestamp_ms for each in handles]
        found.append((places, stamps, taken, values(take_all(accumulator))))
    assert found[0] == found[1]
    assert None in found[0][0], "the buffer became full"


def test_what_is_no_record_is_named_and_what_came_before_it_is_kept() -> None:
    accumulator, _ = make()
    deliveries = ManyDeliveries("t", NobodyWaits())
    with pytest.raises(RecordError, match="int is neither"):
        accumulator.append_many(deliveries, "t", [b"a", b"b", 3], 0, -1)
    assert len(deliveries) == 2
    with pytest.raises(RecordError, match="the value is of type float, neither bytes nor str"):
        accumulator.append_many(deliveries, "t", [(b"k", 1.5)], 0, -1)


class BusyClock(ManualClock):
    """A clock in whose reading something else happens, as another thread may do it there."""

    def __init__(self) -> None:
        super().__init__(1000)
        self.meanwhile: Callable[[], None] | None = None

    def monotonic_ms(self) -> float:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().monotonic_ms()


def test_a_batch_that_is_taken_while_the_next_one_is_made_is_sent_once() -> None:
    clock, notes = BusyClock(), Notes()
    accumulator = Accumulator(ProducerConfig(batch_size=200), clock, NobodyWaits(), notes)
    accumulator.append("t", -1, -1, None, b"first", None)
    accumulator.assign(accumulator.topics["t"], 1)
    (queue,) = accumulator.topics["t"].queues
    taken: list[Batch | None] = []
    clock.meanwhile = lambda: taken.append(accumulator.take_open(queue))
    accumulator.append("t", -1, -1, None, b"x" * 150, None)
    (batch,) = taken
    assert batch is not None
    assert list(queue.closed) == []
    assert values([batch, *take_all(accumulator)]) == [b"first", b"x" * 150]


def test_threads_that_append_at_once_lose_nothing() -> None:
    accumulator, _ = make(partitions=2, batch_size=2000)
    per_thread = 3000

    def run(name: int) -> None:
        for number in range(per_thread):
            headers = [("h", b"%d" % number)] if number % 7 == 0 else None
            accumulator.append("t", -1, -1, None, b"%d-%d" % (name, number), headers)

    threads = [threading.Thread(target=run, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    taken: list[Batch] = []
    while any(thread.is_alive() for thread in threads):
        taken += take_all(accumulator)
    for thread in threads:
        thread.join()
    taken += take_all(accumulator)
    found = values(taken)
    assert len(found) == 4 * per_thread + 1
    for name in range(4):
        own = [value for value in found if value.startswith(b"%d-" % name)]
        assert len(set(own)) == per_thread


def test_the_oldest_batch_is_found_while_another_thread_opens_batches() -> None:
    accumulator, _ = make(batch_size=1)
    ending = threading.Event()
    failed: list[BaseException] = []

    def look() -> None:
        try:
            while not ending.is_set():
                assert accumulator.oldest() is not None
        except BaseException as error:
            failed.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(20_000):
            accumulator.append("t", 0, -1, None, b"x", None)
    finally:
        ending.set()
        looking.join()
        sys.setswitchinterval(before)
    assert failed == []
