"""What a broker does by itself: recovery points, retention, compaction, and a disk that is full."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import ottla.broker.engine as engine_module
import ottla.broker.housekeeper as housekeeper_module
from ottla import Broker, Consumer, Producer
from ottla.broker.broker import Broker as BrokerClass
from ottla.client.admin import Admin
from ottla.errors import DiskFull, KafkaError, StorageError
from ottla.log.files import OsFile, OsFiles
from ottla.log.partition_log import PartitionLog
from ottla.wire import Buffer
from tests.log.opening import call_before_syncs, open_as
from tests.log.writing import values_of

PATIENCE_S = 60.0


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something has come true."""
    waiting = threading.Event()
    for _ in range(int(PATIENCE_S / 0.02)):
        if condition():
            return
        waiting.wait(0.02)
    raise AssertionError("it did not happen")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "store"


def log_of(broker: BrokerClass, topic: str = "t") -> PartitionLog:
    with broker.engine.lock:
        log = broker.engine.log_of(topic, 0)
    assert log is not None
    return log


def checkpoint_of(store: Path) -> str:
    path = store / "recovery-point-offset-checkpoint"
    return path.read_text() if path.exists() else ""


def test_recovery_points_move_while_the_broker_runs(store: Path) -> None:
    settings = {"log.flush.offset.checkpoint.interval.ms": "20"}
    with Broker(store, settings=settings) as broker, Producer(broker) as producer:
        for number in range(5):
            producer.send("t", b"%d" % number).result(PATIENCE_S)
        eventually(lambda: "\nt 0 5\n" in checkpoint_of(store))
        names = [path.name for path in (store / "t-0").iterdir()]
        assert "00000000000000000000.index" in names
        assert "00000000000000000005.snapshot" in names
        crashed = store.with_name("crashed")
        shutil.copytree(store, crashed)
    with Broker(crashed) as again:
        assert not again.engine.store.was_clean
        assert log_of(again).failed is None
        assert len(values_of(log_of(again))) == 5


def test_a_log_that_grows_much_has_its_recovery_point_moved(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "UNCHECKED_BYTES_MAX", 1000)
    monkeypatch.setattr(housekeeper_module, "_GROWN_FOR_S", 0.0)
    with Broker(store) as broker, Producer(broker) as producer:
        producer.send("t", bytes(2000)).result(PATIENCE_S)
        eventually(lambda: "\nt 0 1\n" in checkpoint_of(store))


def test_a_log_that_has_grown_much_grows_on_for_a_while_before_it_is_synced(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync takes the disk's time from who writes; what is unchecked is bounded all the same."""
    monkeypatch.setattr(engine_module, "UNCHECKED_BYTES_MAX", 1000)
    monkeypatch.setattr(housekeeper_module, "_GROWN_FOR_S", 3600.0)
    with Broker(store) as broker, Producer(broker) as producer:
        keeper = broker._housekeeper
        producer.send("t", bytes(2000)).result(PATIENCE_S)
        eventually(lambda: keeper._grown_until_s is not None)
        producer.send("t", bytes(2000)).result(PATIENCE_S)
        keeper._save_grown()
        assert "\nt 0 0\n" in checkpoint_of(store) or not checkpoint_of(store)
        keeper._grown_until_s = 0.0
        broker.engine.wake_housekeeper()
        eventually(lambda: "\nt 0 2\n" in checkpoint_of(store))


def test_small_batches_move_the_recovery_point_sooner_for_each_takes_its_time_to_be_checked(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "UNCHECKED_BYTES_MAX", 8 * 1024)
    monkeypatch.setattr(housekeeper_module, "_GROWN_FOR_S", 0.0)
    with Broker(store) as broker, Producer(broker) as producer:
        producer.send("one", bytes(7000)).result(PATIENCE_S)
        for _ in range(8):
            producer.send("small", b"a").result(PATIENCE_S)
        eventually(lambda: "\nsmall 0 8\n" in checkpoint_of(store))
        assert "\none 0 0\n" in checkpoint_of(store)


def test_no_round_of_syncs_waits_for_what_nobody_waits_for(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was appended with durability `os` is written back before the round."""
    in_a_round = []

    def note(file: OsFile) -> None:
        if file.path.endswith("t-0/00000000000000000000.log"):
            in_a_round.append(broker.engine.commit.is_running)

    call_before_syncs(monkeypatch, note)
    monkeypatch.setattr(engine_module, "UNCHECKED_BYTES_MAX", 1000)
    monkeypatch.setattr(housekeeper_module, "_GROWN_FOR_S", 0.0)
    with Broker(store, durability="os") as broker, Producer(broker) as producer:
        producer.send("t", bytes(2000)).result(PATIENCE_S)
        eventually(lambda: "\nt 0 1\n" in checkpoint_of(store))
    assert in_a_round == [False]


def test_a_topic_that_is_deleted_while_it_is_written_back_is_no_error(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written_back: list[str] = []
    write_back = housekeeper_module.Housekeeper._write_back

    def deleting(keeper: housekeeper_module.Housekeeper, log: PartitionLog) -> None:
        write_back(keeper, log)
        if log.topic == "t":
            with Producer(broker) as another, Admin(broker) as admin:
                another.send("t", b"behind what was written back").result(PATIENCE_S)
                admin.delete_topic("t")
            written_back.append(log.topic)

    monkeypatch.setattr(housekeeper_module.Housekeeper, "_write_back", deleting)
    monkeypatch.setattr(engine_module, "UNCHECKED_BYTES_MAX", 1000)
    monkeypatch.setattr(housekeeper_module, "_GROWN_FOR_S", 0.0)
    with Broker(store, durability="os") as broker, Producer(broker) as producer:
        producer.send("t", bytes(2000)).result(PATIENCE_S)
        eventually(lambda: written_back == ["t"])
        producer.send("u", bytes(2000)).result(PATIENCE_S)
        eventually(lambda: "\nu 0 1\n" in checkpoint_of(store))
    assert "was deleted" not in caplog.text


def test_a_log_that_cannot_be_written_back_takes_nothing_more(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(file: OsFile) -> None:
        if file.path.endswith("t-0/00000000000000000000.log"):
            raise StorageError(f"syncing {file.path} failed: Input/output error")

    call_before_syncs(monkeypatch, fail)
    monkeypatch.setattr(engine_module, "UNCHECKED_BYTES_MAX", 1000)
    monkeypatch.setattr(housekeeper_module, "_GROWN_FOR_S", 0.0)
    with Broker(store, durability="os") as broker, Producer(broker) as producer:
        producer.send("t", bytes(2000)).result(PATIENCE_S)
        eventually(lambda: log_of(broker).failed is not None)
        eventually(lambda: "could not be made durable" in caplog.text)
    assert "\nt 0 1\n" not in checkpoint_of(store)


def test_after_a_crash_all_logs_are_looked_at(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Broker(store) as broker, Producer(broker) as producer:
        for number in range(3):
            producer.send("t", b"%d" % number).result(PATIENCE_S)
    (store / ".kafka_cleanshutdown").unlink()
    (store / "recovery-point-offset-checkpoint").unlink()
    path = store / "t-0" / "00000000000000000000.log"
    content = bytearray(path.read_bytes())
    content[65] ^= 1
    path.write_bytes(content)
    with Broker(store):
        eventually(lambda: "is damaged at byte 0" in caplog.text)
    assert not (store / ".kafka_cleanshutdown").exists()


def test_old_records_are_removed_by_themselves(store: Path) -> None:
    settings = {"log.retention.check.interval.ms": "20", "log.retention.ms": "1"}
    with Broker(store, settings=settings) as broker, Producer(broker) as producer:
        producer.send("t", b"a").result(PATIENCE_S)
        log = log_of(broker)
        eventually(lambda: log.log_start_offset == 1)
        eventually(lambda: log.size == 0 and not list((store / "t-0").glob("*.deleted")))
        assert producer.send("t", b"b").result(PATIENCE_S).offset == 1


def test_compacted_topics_are_compacted_by_themselves(store: Path) -> None:
    settings = {"log.cleaner.backoff.ms": "20"}
    with Broker(store, settings=settings) as broker, Producer(broker) as producer:
        configs = {"cleanup.policy": "compact", "segment.bytes": str(1 << 20)}
        with Admin(broker) as admin:
            admin.create_topic("t", partitions=1, configs=configs)
        for number in range(60):
            producer.send("t", bytes(60_000), key=b"%d" % (number % 2)).result(PATIENCE_S)
        log = log_of(broker)
        before = log.log_end_offset
        eventually(lambda: log.size < 30 * 60_000)
        assert log.log_end_offset == before
        with Consumer(broker, "t", stop_at_end=True) as consumer:
            found = {record.key: record.offset for record in consumer}
        assert found == {b"0": 58, b"1": 59}
        eventually(lambda: "\nt 0 " in (store / "cleaner-offset-checkpoint").read_text())


def test_a_folder_that_cannot_be_listed_for_a_while_does_not_end_compaction(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"log.cleaner.backoff.ms": "20"}
    failures: list[str] = []

    def fail(files: OsFiles, folder: str) -> list[str]:
        if folder == str(store) and threading.current_thread().name == "ottla-cleaner":
            failures.append(folder)
            raise StorageError(f"listing {folder} failed: Input/output error")
        return really(files, folder)

    really = OsFiles.list
    with Broker(store, settings=settings) as broker, Producer(broker) as producer:
        configs = {"cleanup.policy": "compact", "segment.bytes": str(1 << 20)}
        with monkeypatch.context() as patch, Admin(broker) as admin:
            patch.setattr(OsFiles, "list", fail)
            admin.create_topic("t", partitions=1, configs=configs)
            eventually(lambda: len(failures) > 2)
        for number in range(60):
            producer.send("t", bytes(60_000), key=b"%d" % (number % 2)).result(PATIENCE_S)
        eventually(lambda: log_of(broker).size < 30 * 60_000)


class Disk:
    """A disk that can be full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        disk, reserve = self, OsFiles.reserve

        class Filling(OsFile):
            def append(self, buffers: Sequence[Buffer]) -> None:
                if disk.is_full and "/t-" in self.path:
                    raise DiskFull(f"no space left while writing to {self.path}")
                super().append(buffers)

        def reserve_or_fail(files: OsFiles, path: str, size: int) -> None:
            if self.is_full:
                raise DiskFull(f"no space left while writing to {path}")
            reserve(files, path, size)

        open_as(monkeypatch, Filling)
        monkeypatch.setattr(OsFiles, "reserve", reserve_or_fail)


def test_a_full_disk_refuses_writes_serves_reads_and_heals_by_itself(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    with Broker(store) as broker:
        with Producer(broker) as producer:
            producer.send("t", b"a").result(PATIENCE_S)
        disk.is_full = True
        producer = Producer(broker, delivery_timeout_ms=300, request_timeout_ms=200, linger_ms=0)
        with pytest.raises(KafkaError, match="no space left"):
            producer.send("t", b"b").result(PATIENCE_S)
        with pytest.raises(KafkaError):
            producer.close()
        assert not (store / ".reserve").exists()
        with Consumer(broker, "t", stop_at_end=True) as consumer:
            assert [record.value for record in consumer] == [b"a"]
        with Admin(broker) as admin:
            admin.delete_records("t", 0, 1)
        assert log_of(broker).log_start_offset == 1
        disk.is_full = False
        eventually(lambda: broker.engine.store.full is None)
        assert (store / ".reserve").stat().st_size == 256 * 1024
        with Producer(broker) as producer:
            assert producer.send("t", b"c").result(PATIENCE_S).offset == 1


def test_a_store_that_is_removed_under_the_broker_confirms_nothing_more(store: Path) -> None:
    broker = Broker(store)
    with Producer(broker) as producer:
        producer.send("t", b"a").result(PATIENCE_S)
    shutil.rmtree(store)
    producer = Producer(broker, delivery_timeout_ms=300, request_timeout_ms=200, linger_ms=0)
    with pytest.raises(KafkaError, match="somebody has removed it"):
        producer.send("t", b"b").result(PATIENCE_S)
    with pytest.raises(KafkaError):
        producer.close()
    with pytest.raises(StorageError):
        broker.close()


def test_a_broker_that_is_closed_stops_its_threads(store: Path) -> None:
    before = set(threading.enumerate())
    with Broker(store) as broker, Admin(broker) as admin:
        admin.create_topic("t", configs={"cleanup.policy": "compact"})
        eventually(lambda: any(each.name == "ottla-cleaner" for each in threading.enumerate()))
    assert set(threading.enumerate()) == before
