"""The producer, against a broker in this process."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla import Admin, Broker, Consumer, Delivery, KafkaProducer, Producer, RecordMetadata
from ottla.client.network import Call
from ottla.errors import BufferFull, ClientError, FlushTimeout, RecordError, Timeout
from ottla.protocol.messages.api_00_produce import ProduceRequest
from ottla.wire.compression import NAMES


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


def values_of(address: object, topic: str) -> list[object]:
    with Consumer(address, topic, stop_at_end=True) as consumer:
        return [record.value for record in consumer]


def test_flush_returns_when_everything_is_stored_and_tells_how_much(broker: Broker) -> None:
    with Producer(broker) as producer:
        handles = [producer.send("t", f"{number}") for number in range(5)]
        assert all(handle.state in ("buffered", "sent") for handle in handles)
        assert producer.flush() == 5
        assert [handle.offset for handle in handles] == [0, 1, 2, 3, 4]
        assert producer.flush() == 0
    assert values_of(broker, "t") == [b"0", b"1", b"2", b"3", b"4"]


def test_result_waits_for_one_record_without_a_flush(broker: Broker) -> None:
    with Producer(broker, linger_ms=60_000) as producer:
        handle = producer.send("t", b"x", timestamp_ms=1234)
        assert handle.result(30) == RecordMetadata("t", 0, 0, 1234)
        assert handle.exception() is None
        assert handle.done()
        assert repr(handle) == "<Delivery to t: stored>"


def test_what_is_not_flushed_is_sent_after_linger_by_itself(broker: Broker) -> None:
    with Producer(broker, linger_ms=1) as producer:
        stored = threading.Event()
        producer.send("t", b"x", on_delivery=lambda delivery: stored.set())
        assert stored.wait(30)


def test_leaving_the_block_flushes(broker: Broker) -> None:
    with Producer(broker, linger_ms=60_000) as producer:
        producer.send("t", b"x")
    assert values_of(broker, "t") == [b"x"]


def test_keys_headers_partitions_and_timestamps_arrive(broker: Broker) -> None:
    with Admin(broker) as admin:
        admin.create_topic("t", 3)
    with Producer(broker) as producer:
        producer.send("t", "text", "key", {"a": b"1", "b": "text", "c": None}, 2, 99)
        producer.send("t", bytearray(b"v"), memoryview(b"k"), [("a", b"")], 2)
        producer.send("t", partition=2)
    with Consumer(broker) as consumer:
        consumer.assign([("t", 2)])
        first, second, third = consumer.poll(30)
    assert (first.key, first.value, first.timestamp_ms) == (b"key", b"text", 99)
    assert first.headers == [("a", b"1"), ("b", b"text"), ("c", None)]
    assert (second.key, second.value, second.headers) == (b"k", b"v", [("a", b"")])
    assert (third.key, third.value, third.headers) == (None, None, [])


@pytest.mark.parametrize("codec", NAMES)
def test_every_codec_is_read_back(broker: Broker, codec: str) -> None:
    expected = [b"value %d " % number * 20 for number in range(500)]
    with Producer(broker, compression_type=codec) as producer:
        for value in expected:
            producer.send("t", value)
    assert values_of(broker, "t") == expected


def test_records_with_one_key_keep_their_order(broker: Broker) -> None:
    with Admin(broker) as admin:
        admin.create_topic("t", 4)
    with Producer(broker, batch_size=200, linger_ms=0) as producer:
        for number in range(2000):
            producer.send("t", f"{number}", key=f"{number % 10}")
    with Consumer(broker, "t", stop_at_end=True) as consumer:
        records = list(consumer)
    assert len(records) == 2000
    for key in range(10):
        own = [record for record in records if record.key == b"%d" % key]
        assert [int(record.value) for record in own] == list(range(key, 2000, 10))
        assert len({record.partition for record in own}) == 1


def test_serializers_are_used(broker: Broker) -> None:
    with Producer(broker, key_serializer=str.encode, value_serializer=repr) as producer:
        producer.send("t", {"a": 1}, key="k")
        producer.send_many("t", [[1], ("k", [2])])
    assert values_of(broker, "t") == [b"{'a': 1}", b"[1]", b"[2]"]


def test_a_serializer_that_makes_no_bytes_is_told(broker: Broker) -> None:
    producer = Producer(broker, value_serializer=len)
    with producer, pytest.raises(RecordError, match="int, neither bytes nor str"):
        producer.send("t", "abc")


def test_callbacks_are_called_with_the_handle(broker: Broker) -> None:
    called: list[Delivery] = []
    with Producer(broker) as producer:
        handle = producer.send("t", b"x", on_delivery=called.append)
        handle.add_done_callback(called.append)
        producer.flush()
    assert called == [handle, handle]


def test_a_callback_cannot_close_the_producer_and_is_told_so(broker: Broker) -> None:
    told: list[str] = []

    def close(delivery: Delivery) -> None:
        try:
            producer.close()
        except ClientError as error:
            told.append(error.what)

    with Producer(broker) as producer:
        producer.send("t", b"x", on_delivery=close)
        assert producer.flush() == 1
        assert told == ["a delivery callback cannot close the producer"]
        producer.send("t", b"y").result(30)
    assert values_of(broker, "t") == [b"x", b"y"]


def test_send_many_gives_one_handle(broker: Broker) -> None:
    with Producer(broker, batch_size=1000) as producer:
        deliveries = producer.send_many("t", (f"{number}" for number in range(1000)))
        ranges = deliveries.result(30)
    assert len(deliveries) == 1000
    assert sum(each.records for each in ranges) == 1000
    assert [each.offset for each in ranges] == sorted(each.offset for each in ranges)
    assert values_of(broker, "t") == [b"%d" % number for number in range(1000)]


def test_a_full_buffer_makes_send_wait_and_try_send_raise(broker: Broker) -> None:
    with Producer(broker, buffer_memory=2000, linger_ms=60_000) as producer:
        producer.send("t", b"x").result()
        with pytest.raises(BufferFull) as caught:
            for _ in range(100):
                producer.try_send("t", b"x" * 100)
        assert isinstance(caught.value, BufferError)
        for _ in range(100):
            producer.send("t", b"x" * 100)
        producer.flush()
        assert producer.try_send("t", b"x").result().offset > 100


def test_send_waits_no_longer_than_max_block_ms() -> None:
    broker = Broker()
    address = broker.listen()
    producer = Producer(address, buffer_memory=100, max_block_ms=50, delivery_timeout_ms=300)
    producer.send("t", b"x").result()
    broker.close()
    producer.send("t", b"x" * 200)
    with pytest.raises(BufferFull, match=r"no room in the producer's buffer for 0\.05 s"):
        producer.send("t", b"x")
    with pytest.raises(ClientError):
        producer.close()


def test_a_timeout_of_result_leaves_the_record_on_its_way() -> None:
    broker = Broker()
    producer = Producer(broker.listen(), delivery_timeout_ms=500)
    producer.send("t", b"x").result()
    broker.close()
    handle = producer.send("t", b"x")
    with pytest.raises(Timeout, match=r"no confirmation within 0\.01 s"):
        handle.result(0.01)
    with pytest.raises(FlushTimeout):
        producer.flush(0.01)
    assert not handle.done()
    with pytest.raises(ClientError):
        producer.close()


def test_several_threads_flush_what_they_sent(broker: Broker) -> None:
    with Producer(broker) as producer:

        def run(name: int) -> None:
            for number in range(200):
                handle = producer.send("t", f"{name}-{number}")
                producer.flush()
                assert handle.state == "stored"

        threads = [threading.Thread(target=run, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(values_of(broker, "t"))) == 800


def test_the_name_that_people_know_takes_bootstrap_servers(broker: Broker) -> None:
    with KafkaProducer(bootstrap_servers=[broker.listen()]) as producer:
        producer.send("t", b"x")
    assert values_of(broker, "t") == [b"x"]


def test_state_tells_whether_a_broker_is_connected(broker: Broker) -> None:
    producer = Producer(broker)
    assert (producer.state, producer.is_connected) == ("disconnected", False)
    producer.send("t", b"x")
    producer.flush()
    assert (producer.state, producer.is_connected) == ("connected", True)
    producer.close()
    assert producer.state == "closed"
    assert "closed" in repr(producer)


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("over", ["tcp", "embedded"])
def test_a_request_that_was_answered_is_gone_without_the_garbage_collector(
    broker: Broker, over: str, no_garbage_collector: None
) -> None:
    """Its records would be held as well: no batch could use their memory again."""
    with Producer(broker.listen() if over == "tcp" else broker) as producer:
        for number in range(5):
            producer.send("answered", b"%d" % number)
            producer.flush()
        requests = [each.request for each in gc.get_objects() if isinstance(each, Call)]
    assert "answered" not in str([each for each in requests if isinstance(each, ProduceRequest)])


@pytest.mark.parametrize("over", ["tcp", "embedded", "memory"])
def test_a_life_is_observed_from_the_record_to_its_availability(over: str, tmp_path: Path) -> None:
    with Broker(None if over == "memory" else tmp_path) as broker:
        address = broker.listen() if over == "tcp" else broker
        with Producer(address, trace=True) as producer:
            handle = producer.send("t", b"Hello Kafka", key=b"k")
            before = producer.trace(handle)
            assert [event.name for event in before.events] == ["created", "buffered"]
            producer.flush()
            life = producer.trace(handle)
    assert (life.topic, life.partition, life.offset) == ("t", 0, 0)
    names = [event.name for event in life.events]
    # "buffered" is noted when send returns: another thread may have connected by then.
    assert names[0] == "created"
    assert sorted(names[1:3]) == ["buffered", "connected"]
    assert names[3:5] == ["sent", "accepted"]
    assert sorted(names[5:7]) == ["available", "stored"]
    assert names[7:] == ["confirmed"]
    times = [event.at_ns for event in life.events]
    assert times == sorted(times)
    observers = {event.name: event.observer for event in life.events}
    assert observers["accepted"] == observers["stored"] == observers["available"] == "broker"
    assert "available to consumers" in life.text()


def test_without_trace_nothing_is_recorded(broker: Broker) -> None:
    with Producer(broker) as producer:
        handle = producer.send("t", b"x")
        with pytest.raises(ClientError, match="nothing was recorded"):
            producer.trace(handle)


def test_a_producer_that_is_let_go_of_with_records_warns_and_still_delivers(
    broker: Broker, recwarn: pytest.WarningsRecorder
) -> None:
    producer = Producer(broker, linger_ms=60_000)
    handle = producer.send("t", b"x")
    del producer
    [warning] = [each for each in recwarn if each.category is ResourceWarning]
    assert "undelivered records" in str(warning.message)
    assert handle.result(30).offset == 0
