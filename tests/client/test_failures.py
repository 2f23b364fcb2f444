"""What happens to records when something goes wrong on the way, and what the user is told."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ottla import Admin, Broker, Consumer, Producer
from ottla.errors import (
    BrokerUnavailable,
    Closed,
    ConfigError,
    DeliveryError,
    FlushTimeout,
    KafkaError,
    RecordError,
    StorageError,
    StoreUnusable,
    Timeout,
)
from ottla.errors.broker import MessageTooLarge, UnknownTopicOrPartition


def read_all(address: object, topic: str) -> list[bytes]:
    with Consumer(address, topic, stop_at_end=True) as consumer:
        return [record.value for record in consumer]


def listen_again(folder: Path, address: str) -> Broker:
    broker = Broker(folder)
    host, _, port = address.rpartition(":")
    broker.listen(host, int(port))
    return broker


def test_a_broker_that_dies_between_send_and_flush_and_comes_back_gets_the_record(
    tmp_path: Path,
) -> None:
    broker = Broker(tmp_path)
    address = broker.listen()
    with Producer(address) as producer:
        producer.send("t", b"before")
        producer.flush()
        broker.close()
        producer.send("t", b"after")
        broker = listen_again(tmp_path, address)
        assert producer.flush() == 1
    assert read_all(address, "t") == [b"before", b"after"]
    broker.close()


def test_a_broker_that_dies_during_flush_and_comes_back_gets_the_record(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    address = broker.listen()
    with Producer(address) as producer:
        producer.send("t", b"before")
        producer.flush()
        broker.close()
        producer.send("t", b"after")
        with pytest.raises(FlushTimeout) as caught:
            producer.flush(timeout=0.3)
        assert (caught.value.failed, caught.value.pending) == (0, 1)
        assert "1 of 1 are still on their way" in str(caught.value)
        flushed: list[int] = []
        thread = threading.Thread(target=lambda: flushed.append(producer.flush()))
        thread.start()
        broker = listen_again(tmp_path, address)
        thread.join()
        assert flushed == [1]
    assert read_all(address, "t") == [b"before", b"after"]
    broker.close()


def test_a_broker_that_does_not_come_back_is_told_with_the_effect_on_the_data() -> None:
    broker = Broker()
    producer = Producer(broker.listen(), delivery_timeout_ms=500)
    producer.send("t", b"before")
    producer.flush()
    broker.close()
    producer.send("t", b"after")
    with pytest.raises(DeliveryError) as caught:
        producer.flush()
    assert isinstance(caught.value.causes[0], Timeout)
    assert "The record was NOT stored: 1 of 1 undelivered." in str(caught.value)
    producer.close()


def test_an_advertised_address_that_cannot_be_reached_is_told_as_exactly_that() -> None:
    broker = Broker(advertise="127.0.0.1:1")
    address = broker.listen()
    producer = Producer(address)
    producer.send("t", b"x")
    with pytest.raises(DeliveryError) as caught:
        producer.flush()
    [cause] = caught.value.causes
    assert isinstance(cause, BrokerUnavailable)
    assert cause.stage == "advertised"
    assert f"{address} answers, but says that the broker is at 127.0.0.1:1" in str(cause)
    assert "--advertise" in str(cause)
    producer.close()
    broker.close()


def test_a_topic_that_is_not_there_and_is_not_created_is_told_with_what_to_do() -> None:
    with Broker(settings={"auto.create.topics.enable": "false"}) as broker:
        producer = Producer(broker)
        producer.send("t", b"x")
        with pytest.raises(DeliveryError) as caught:
            producer.flush()
        assert isinstance(caught.value.causes[0], UnknownTopicOrPartition)
        assert "ottla topics create t" in str(caught.value)
        producer.close()


def test_a_record_larger_than_a_request_is_refused_by_send() -> None:
    with Broker() as broker, Producer(broker) as producer:
        with pytest.raises(RecordError, match="max_request_size"):
            producer.send("t", b"x" * 2_000_000)
        assert producer.flush() == 0


def test_a_record_larger_than_the_topic_allows_fails_alone() -> None:
    with Broker() as broker:
        with Admin(broker) as admin:
            admin.create_topic("t", configs={"max.message.bytes": "1000"})
        producer = Producer(broker)
        good = producer.send("t", b"good")
        good.result()
        producer.send("t", b"x" * 5000)
        with pytest.raises(DeliveryError) as caught:
            producer.flush()
        assert isinstance(caught.value.causes[0], MessageTooLarge)
        assert (caught.value.failed, caught.value.pending) == (1, 0)
        producer.send("t", b"also good").result()
        producer.close()
        assert read_all(broker, "t") == [b"good", b"also good"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"value": 17}, RecordError),
        ({"value": b"x", "key": 1.5}, RecordError),
        ({"value": b"x", "partition": -3}, RecordError),
        ({"value": b"x", "headers": [17]}, RecordError),
        ({"value": b"x", "headers": {"a": 17}}, RecordError),
    ],
)
def test_what_is_no_record_is_refused_by_send(
    arguments: dict[str, object], error: type[KafkaError]
) -> None:
    with Broker() as broker, Producer(broker) as producer:
        with pytest.raises(error):
            producer.send("t", **arguments)  # type: ignore[arg-type]  # what is wrong is the point
        with pytest.raises(error):
            producer.send("", b"x")
        assert producer.flush() == 0


def test_a_partition_that_is_not_there_is_refused() -> None:
    with Broker() as broker:
        producer = Producer(broker)
        producer.send("t", b"x", partition=3)
        with pytest.raises(DeliveryError, match="there is no partition 3"):
            producer.flush()
        with pytest.raises(RecordError, match="there is no partition 3"):
            producer.send("t", b"x", partition=3)
        producer.close()


def test_a_closed_producer_says_so() -> None:
    with Broker() as broker:
        producer = Producer(broker)
        producer.close()
        producer.close()
        with pytest.raises(Closed):
            producer.send("t", b"x")
        with pytest.raises(Closed):
            producer.flush()


def test_a_producer_is_closed_though_another_thread_waits_in_flush_for_a_broker_that_is_gone() -> (
    None
):
    with Broker() as broker:
        producer = Producer(broker.listen(), linger_ms=50, retry_backoff_ms=10)
        producer.send("t", b"x").result(30)
    ended: list[str] = []

    def flush() -> None:
        with pytest.raises(DeliveryError):
            producer.flush(120)
        ended.append("flush")

    def close() -> None:
        with pytest.raises(DeliveryError):
            producer.close(0)
        ended.append("close")

    producer.send("t", b"y")
    threads = [threading.Thread(target=each, daemon=True) for each in (flush, close)]
    threads[0].start()
    while not producer._core.sender.flushing:
        threads[0].join(0.001)
    threads[1].start()
    for thread in reversed(threads):
        thread.join(20)
    assert sorted(ended) == ["close", "flush"]


def test_a_folder_that_holds_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreUnusable, match=r"thesis\.txt"):
        Producer(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KafkaError) as caught:
        Producer(tmp_path / "file" / "store")
    assert "file/store" in str(caught.value)


def test_a_second_process_reaches_the_owner_where_that_listens(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        broker.listen()
        run_python(
            "import sys, ottla\n"
            "with ottla.Producer(sys.argv[1]) as producer:\n"
            "    producer.send('t', b'from the second')\n",
            str(tmp_path),
        )
        assert read_all(broker, "t") == [b"from the second"]


def test_a_second_process_is_told_who_holds_a_store_that_does_not_listen(tmp_path: Path) -> None:
    with Producer(tmp_path) as producer:
        producer.send("t", b"x")
        producer.flush()
        said = run_python(
            "import sys, ottla\n"
            "try:\n"
            "    ottla.Producer(sys.argv[1])\n"
            "except ottla.errors.StoreInUse as error:\n"
            "    print(error.pid, error)\n",
            str(tmp_path),
        )
    assert said.startswith(f"{os.getpid()} the store {tmp_path} is in use by process")


def test_one_process_opens_a_folder_as_often_as_it_likes(tmp_path: Path) -> None:
    with Producer(tmp_path) as first, Producer(tmp_path) as second:
        first.send("t", b"1")
        first.flush()
        second.send("t", b"2")
        second.flush()
        assert read_all(tmp_path, "t") == [b"1", b"2"]
    assert read_all(tmp_path, "t") == [b"1", b"2"]


def run_python(code: str, *arguments: str, code_expected: int = 0) -> str:
    """Run Python, and return what it printed, stderr behind stdout."""
    done = subprocess.run(
        [sys.executable, "-c", f"import ottla.errors\n{code}", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code_expected, done.stderr
    return done.stdout + done.stderr


def test_what_a_process_did_not_flush_is_delivered_when_it_ends(tmp_path: Path) -> None:
    run_python(
        "import sys, ottla\n"
        "producer = ottla.Producer(sys.argv[1], linger_ms=60000)\n"
        "producer.send('t', b'x')\n",
        str(tmp_path),
    )
    assert read_all(tmp_path, "t") == [b"x"]


def test_what_could_not_be_delivered_when_a_process_ends_is_counted_on_stderr() -> None:
    said = run_python(
        "import ottla\n"
        "producer = ottla.Producer('127.0.0.1:1')\n"
        "producer.send('t', b'x'); producer.send('t', b'y')\n",
    )
    assert "when the process ended: not sent: nothing is listening on 127.0.0.1:1" in said
    assert "2 of 2 undelivered" in said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_producer_cannot_be_used_after_a_fork_and_the_parent_s_goes_on(tmp_path: Path) -> None:
    said = run_python(
        "import os, sys, warnings, ottla\n"
        "warnings.simplefilter('ignore')\n"
        "producer = ottla.Producer(sys.argv[1])\n"
        "producer.send('t', b'parent before')\n"
        "producer.flush()\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        producer.send('t', b'child')\n"
        "    except ottla.errors.Forked as error:\n"
        "        os.write(1, str(error).encode() + b'\\n')\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "producer.send('t', b'parent after')\n"
        "producer.close()\n",
        str(tmp_path),
    )
    assert "made before a fork" in said
    assert read_all(tmp_path, "t") == [b"parent before", b"parent after"]


def test_a_setting_that_cannot_be_is_refused_at_once() -> None:
    for settings in (
        {"acks": 2},
        {"compression_type": "brotli"},
        {"enable_idempotence": True, "acks": 1},
        {"linger_ms": -1},
        {"max_in_flight_requests_per_connection": 0},
        {"batch_size": 0},
    ):
        with pytest.raises(ConfigError):
            Producer("localhost:1", **settings)


def test_a_full_disk_is_told_and_writing_goes_on_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_space(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Broker(tmp_path) as broker:
        with Producer(broker) as producer:
            producer.send("t", b"before")
            producer.flush()
            with monkeypatch.context() as full:
                full.setattr("ottla.log.files._write_at", no_space)
                waiting = producer.send("t", b"waits for room")
                with pytest.raises(FlushTimeout):
                    producer.flush(timeout=0.3)
                assert "no space left" in caplog.text
                assert read_all(broker, "t") == [b"before"]
            assert waiting.result().offset == 1
        with monkeypatch.context() as full:
            full.setattr("ottla.log.files._write_at", no_space)
            producer = Producer(broker, delivery_timeout_ms=300)
            producer.send("t", b"never")
            with pytest.raises(DeliveryError, match="no space left"):
                producer.flush()
            producer.close()
    assert read_all(tmp_path, "t") == [b"before", b"waits for room"]


def test_a_broker_that_can_give_no_producer_id_is_named_as_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StorageError("no space left")

    with Broker(tmp_path) as broker:
        monkeypatch.setattr(broker.engine, "reserve_producer_id", refuse)
        producer = Producer(broker, delivery_timeout_ms=300)
        with pytest.raises(Timeout, match="the broker gave no producer id: KAFKA_STORAGE_ERROR"):
            producer.send("t", b"a").result()
        with pytest.raises(DeliveryError):
            producer.close()
