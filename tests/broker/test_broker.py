"""The broker as an object: who does its work, who is woken, and what ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ottla import Broker, Producer
from ottla.broker.broker import parse_address
from ottla.broker.caller import Caller
from ottla.broker.requests import Context, Pending, Reply
from ottla.errors import Closed, ConfigError, StoreInUse, codes
from ottla.log.memory_files import MemoryFile
from ottla.protocol.message import ApiMessage
from ottla.protocol.messages.api_00_produce import ProduceResponse
from ottla.protocol.messages.api_01_fetch import FetchResponse
from ottla.protocol.messages.api_03_metadata import MetadataRequest, MetadataResponse
from tests.broker.asking import batch_of_values, fetch_request, produce_request

WAIT_S = 30.0


def ask(broker: Broker, request: ApiMessage) -> ApiMessage | None:
    """Ask the broker, and wait for its answer."""
    caller = Caller(broker)
    return answer(caller, caller.handle(request, 12, Context()))


def answer(caller: Caller, reply: Reply) -> ApiMessage | None:
    """Drive the broker until a reply is there."""
    while isinstance(reply, Pending) and not reply.is_done:
        caller.drive(WAIT_S)
    return reply.response if isinstance(reply, Pending) else reply


def make_topic(broker: Broker, name: str = "t") -> MetadataResponse:
    topics = [MetadataRequest.MetadataRequestTopic(name=name)]
    response = ask(broker, MetadataRequest(topics=topics))
    assert isinstance(response, MetadataResponse)
    return response


def produce(broker: Broker, value: bytes = b"v") -> ProduceResponse.PartitionProduceResponse:
    now_ms = broker.engine.clock.now_ms()
    request = produce_request("t", batch_of_values(value, timestamp_ms=now_ms))
    response = ask(broker, request)
    assert isinstance(response, ProduceResponse)
    return response.responses[0].partition_responses[0]


def in_thread(work: Callable[[], object]) -> Callable[[], object]:
    """Begin something in a thread and return what waits for it."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()

    def wait() -> object:
        thread.join(WAIT_S)
        assert results, "it never ended"
        return results[0]

    return wait


def test_the_caller_s_own_thread_makes_its_records_durable(tmp_path: Path) -> None:
    with Broker(tmp_path / "store") as broker:
        make_topic(broker)
        threads = threading.active_count()
        assert produce(broker).base_offset == 0
        assert threading.active_count() == threads


def test_many_threads_drive_one_broker_and_every_record_is_stored(tmp_path: Path) -> None:
    with Broker(tmp_path / "store") as broker:
        make_topic(broker)
        waits = [in_thread(lambda: [produce(broker) for _ in range(25)]) for _ in range(4)]
        found: list[int] = []
        for wait in waits:
            stored = wait()
            assert isinstance(stored, list)
            failed = [(each.error_code, each.error_message) for each in stored if each.error_code]
            assert not failed
            offsets = [each.base_offset for each in stored]
            assert offsets == sorted(offsets)
            found += offsets
        assert sorted(found) == list(range(100))


class _Idle(dict[Caller, None]):
    """Callers that wait; releases `more` with each that begins to."""

    def __init__(self) -> None:
        super().__init__()
        self.more = threading.Semaphore(0)

    def __setitem__(self, caller: Caller, value: None) -> None:
        super().__setitem__(caller, value)
        self.more.release()


class _SlowJob:
    """A part of a round of syncs that tells when it has begun, and ends when it may."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.may_end.wait(WAIT_S)


def test_what_was_written_during_a_round_is_synced_though_others_have_their_answers_by_then() -> (
    None
):
    with Broker() as broker:
        make_topic(broker)
        broker.idle_callers = idle = _Idle()
        job = _SlowJob()
        now_ms = broker.engine.clock.now_ms()
        batch = batch_of_values(b"v", timestamp_ms=now_ms)
        request = produce_request("t", batch)
        request.timeout_ms = int(WAIT_S * 10_000)
        callers = [Caller(broker) for _ in range(3)]
        replies = [each.handle(request, 12, Context()) for each in callers[:2]]
        broker.engine.commit.add_job(job, lambda error: None)
        waits = [in_thread(lambda: answer(callers[0], replies[0]))]
        assert job.begun.wait(WAIT_S)
        waits.append(in_thread(lambda: answer(callers[1], replies[1])))
        assert idle.more.acquire(timeout=WAIT_S)
        # It comes too late for the round, and waits behind one that the round will answer.
        late = callers[2].handle(request, 12, Context())
        waits.append(in_thread(lambda: answer(callers[2], late)))
        assert idle.more.acquire(timeout=WAIT_S)
        job.may_end.set()
        for wait in waits:
            response = wait()
            assert isinstance(response, ProduceResponse)
            assert response.responses[0].partition_responses[0].error_code == codes.NONE


def test_whoever_waits_hears_of_the_round_that_another_has_run() -> None:
    with Broker() as broker:
        make_topic(broker)
        broker.idle_callers = idle = _Idle()
        job = _SlowJob()
        batch = batch_of_values(b"v", timestamp_ms=broker.engine.clock.now_ms())
        syncer, waiter = Caller(broker), Caller(broker)
        storing = [each.append("t", 0, batch, 12, WAIT_S * 10_000) for each in (syncer, waiter)]
        broker.engine.commit.add_job(job, lambda error: None)
        waits = [in_thread(partial(syncer.drive, 0))]
        assert job.begun.wait(WAIT_S)
        waits.append(in_thread(partial(waiter.drive, WAIT_S * 10)))
        assert idle.more.acquire(timeout=WAIT_S)
        job.may_end.set()
        for wait in waits:
            wait()
        assert [each is not None and each.is_done for each in storing] == [True, True]


class _RoundOver(threading.Condition):
    """Tells when somebody waits for the end of a round, with the lock held still."""

    def __init__(self, lock: threading.RLock) -> None:
        super().__init__(lock)
        self.is_waited_for = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.is_waited_for.set()
        return super().wait(timeout)


def test_closing_waits_for_the_round_that_another_thread_runs() -> None:
    broker = Broker()
    broker._round_over = round_over = _RoundOver(broker.engine.lock)
    job = _SlowJob()
    caller = Caller(broker)
    broker.engine.commit.add_job(job, lambda error: None)
    waits = [in_thread(partial(caller.drive, 0))]
    assert job.begun.wait(WAIT_S)
    waits.append(in_thread(broker.close))
    assert round_over.is_waited_for.wait(WAIT_S)
    with broker.engine.lock:
        job.may_end.set()
    for wait in waits:
        wait()


def test_whoever_waits_for_records_is_woken_by_another_thread_s_append() -> None:
    with Broker() as broker:
        make_topic(broker)
        request = fetch_request("t", min_bytes=1, max_wait_ms=int(WAIT_S * 10_000))
        wait = in_thread(lambda: ask(broker, request))
        produce(broker)
        response = wait()
        assert isinstance(response, FetchResponse)
        assert response.responses[0].partitions[0].high_watermark == 1


def test_a_long_poll_ends_by_itself() -> None:
    with Broker() as broker:
        make_topic(broker)
        request = fetch_request("t", min_bytes=1, max_wait_ms=20)
        response = ask(broker, request)
        assert isinstance(response, FetchResponse)
        assert not response.responses[0].partitions[0].records


def test_wake_ends_a_drive_that_waits_and_the_next_one() -> None:
    with Broker() as broker:
        caller = Caller(broker)
        caller.drive(0)
        caller.wake()
        caller.drive(WAIT_S * 10)
        begun = threading.Event()

        def drive_twice() -> bool:
            caller.drive(0)
            begun.set()
            caller.drive(WAIT_S * 10)
            return True

        wait = in_thread(drive_twice)
        begun.wait(WAIT_S)
        caller.wake()
        assert wait()


def test_a_sync_that_was_interrupted_is_done_again_and_nobody_waits_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Broker() as broker:
        make_topic(broker)
        now_ms = broker.engine.clock.now_ms()
        request = produce_request("t", batch_of_values(b"v", timestamp_ms=now_ms))
        caller = Caller(broker)
        reply = caller.handle(request, 12, Context())
        assert isinstance(reply, Pending)
        synced: list[str] = []
        really = MemoryFile.begin_sync

        def begin_sync(file: MemoryFile) -> Callable[[], None]:
            sync = really(file)

            def interrupted() -> None:
                synced.append("again" if synced else "interrupted")
                if synced == ["interrupted"]:
                    raise KeyboardInterrupt
                sync()

            return interrupted

        with monkeypatch.context() as patch:
            patch.setattr(MemoryFile, "begin_sync", begin_sync)
            with pytest.raises(KeyboardInterrupt):
                caller.drive(0)
        assert synced == ["interrupted", "again"]
        assert reply.is_done
        assert not broker.engine.commit.is_running


def test_closing_answers_whatever_waits_and_refuses_the_rest() -> None:
    broker = Broker()
    make_topic(broker)
    request = fetch_request("t", min_bytes=1, max_wait_ms=600_000)
    caller = Caller(broker)
    reply = caller.handle(request, 12, Context())
    assert isinstance(reply, Pending)
    broker.close()
    broker.close()
    assert reply.is_done
    with pytest.raises(Closed):
        caller.handle(MetadataRequest(), 12, Context())
    with pytest.raises(Closed):
        broker.listen()


def test_a_store_has_one_owner_and_its_address_is_known(tmp_path: Path) -> None:
    with Broker(tmp_path / "store") as broker:
        address = broker.listen()
        with pytest.raises(StoreInUse) as caught:
            Broker(tmp_path / "store")
        assert caught.value.address == address
        assert caught.value.pid == os.getpid()
        with pytest.raises(ConfigError):
            broker.listen()
    with Broker(tmp_path / "store") as broker:
        assert broker.address == ""


def test_a_port_that_is_taken_is_told_and_the_broker_can_listen_elsewhere() -> None:
    with Broker() as first, Broker() as second:
        host, port = parse_address(first.listen())
        with pytest.raises(ConfigError, match=str(port)):
            second.listen(host, port)
        assert second.listen()


@pytest.mark.parametrize("address", ["", "host", "host:", ":9092", "host:x", "host:0", "h:70000"])
def test_an_address_that_is_none_cannot_be_advertised(address: str) -> None:
    with pytest.raises(ConfigError):
        Broker(advertise=address)


def test_addresses_are_taken_apart() -> None:
    assert parse_address("example.com:9092") == ("example.com", 9092)
    assert parse_address("[::1]:9092") == ("::1", 9092)


def test_what_is_advertised_is_told_instead_of_the_address_that_was_reached() -> None:
    with Broker(advertise="kafka.example:1234") as broker:
        (told,) = make_topic(broker).brokers
        assert (told.host, told.port) == ("kafka.example", 1234)


def test_an_embedded_caller_and_the_server_share_one_log(tmp_path: Path) -> None:
    from ottla import Consumer, Producer

    with Broker(tmp_path / "store") as broker:
        address = broker.listen()
        with Producer(address) as remote, Producer(broker) as local:
            for producer in (remote, local, remote, local):
                producer.send("t", b"v").result(WAIT_S)
        with Consumer(address, "t", stop_at_end=True) as consumer:
            assert [record.offset for record in consumer] == [0, 1, 2, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_process_cannot_use_the_parent_s_broker(tmp_path: Path) -> None:
    script = f"""
import os, sys
from ottla import Broker
from ottla.broker.caller import Caller
from ottla.broker.requests import Context
from ottla.errors import Forked
from ottla.protocol.messages.api_03_metadata import MetadataRequest
broker = Broker({str(tmp_path / "store")!r})
caller = Caller(broker)
if os.fork() == 0:
    try:
        caller.handle(MetadataRequest(), 12, Context())
    except Forked:
        broker.close()
        os._exit(7)
    os._exit(1)
_, status = os.wait()
caller.handle(MetadataRequest(), 12, Context())
broker.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False, timeout=WAIT_S)
    assert ended.returncode == 7


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM here")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_served_store_stops_cleanly_by_a_signal(tmp_path: Path, how: signal.Signals) -> None:
    script = f"""
from ottla import Broker
from ottla.broker.server import serve
with Broker({str(tmp_path / "store")!r}) as broker:
    serve(broker, "127.0.0.1", 0, lambda address: print(address, flush=True))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            with Producer(address) as producer:
                producer.send("t", b"v").result(WAIT_S)
                process.send_signal(how)
                assert process.wait(WAIT_S) == 0
        finally:
            process.kill()
    with Broker(tmp_path / "store") as broker:
        assert broker.engine.store.was_clean
        log = broker.engine.log_of("t", 0)
        assert log is not None
        assert log.high_watermark == 1
        assert make_topic(broker, "t").topics[0].error_code == codes.NONE


def test_a_store_is_served_though_its_owner_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Broker(tmp_path) as broker:
        broker.listen()
        (tmp_path / ".owner.tmp").mkdir()  # nothing can be written there
        with pytest.raises(StoreInUse, match=str(os.getpid())):
            Broker(tmp_path)
    assert "do not find this broker" in caplog.text
    assert not (tmp_path / ".owner").exists()
    with Broker(tmp_path) as broker, pytest.raises(StoreInUse):
        Broker(tmp_path)


def test_of_many_callers_only_those_are_woken_whose_requests_are_answered(tmp_path: Path) -> None:
    with Broker(tmp_path / "store") as broker:
        make_topic(broker)
        produce(broker)
        waiting = Caller(broker)
        request = fetch_request("t", offset=1, min_bytes=1, max_wait_ms=int(WAIT_S * 10_000))
        reply = waiting.handle(request, 12, Context())
        begun = threading.Event()

        def wait_for_records() -> int:
            turns = 0
            begun.set()
            while isinstance(reply, Pending) and not reply.is_done:
                waiting.drive(WAIT_S)
                turns += 1
            return turns

        wait = in_thread(wait_for_records)
        begun.wait(WAIT_S)
        topics = [MetadataRequest.MetadataRequestTopic(name="another")]
        for _ in range(20):
            ask(broker, MetadataRequest(topics=topics))
        produce(broker)
        turns = wait()
        assert isinstance(turns, int)
        assert turns <= 3
