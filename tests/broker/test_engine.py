"""The engine: topics and their logs over starts, stops and crashes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ottla.broker.engine import METADATA_TOPIC
from ottla.coordinator.cluster.state import TOPIC_RESOURCE
from ottla.errors import CorruptLog, KafkaError, StorageError, StoreInUse, codes
from ottla.log.memory_files import MemoryFile, MemoryFiles
from ottla.log.producer_state import ProducerState
from ottla.protocol.messages.api_00_produce import ProduceResponse
from tests.broker.asking import Asking, batch_of_values, produce_request


def test_topics_records_and_configs_are_there_after_a_clean_stop() -> None:
    asking = Asking()
    topic_id = asking.create("t", 2, retention_ms="1000")
    asking.produce("t", batch_of_values(b"a"))
    asking.engine.close()
    again = Asking(asking.files)
    topic = again.engine.cluster.topics["t"]
    assert (topic.topic_id, topic.partitions) == (topic_id, 2)
    assert topic.configs == {"retention.ms": "1000"}
    assert again.fetch("t").high_watermark == 1
    assert again.engine.store.was_clean


def test_an_engine_that_cannot_load_lets_go_of_the_store() -> None:
    asking = Asking()
    asking.create("t")
    asking.engine.close()
    path = "store/__cluster_metadata-0/00000000000000000000.log"
    content = asking.files.read(path)
    assert content is not None
    asking.files.write(path, content[:57] + b"\xff" * 4 + content[61:])
    for _ in range(2):
        with pytest.raises(KafkaError) as caught:
            Asking(asking.files)
        assert not isinstance(caught.value, StoreInUse)


def test_a_deleted_topic_leaves_no_folder_and_whoever_waits_is_told() -> None:
    asking = Asking()
    asking.create("t", 2)
    waiting = asking.ask_nowait(produce_request("t", batch_of_values(b"a")), 12)
    asking.engine.delete_topic(asking.engine.cluster.topics["t"])
    assert waiting.is_done
    assert isinstance(waiting.response, ProduceResponse)
    partition = waiting.response.responses[0].partition_responses[0]
    assert partition.error_code == codes.KAFKA_STORAGE_ERROR
    assert "deleted" in (partition.error_message or "")
    asking.sync()
    assert not [name for name in asking.files.list("store") if name.startswith("t-")]


def test_a_topic_made_again_at_once_shares_nothing_with_the_old_one() -> None:
    asking = Asking()
    old_id = asking.create("t")
    asking.produce("t", batch_of_values(b"a", producer=(5, 0, 0)))
    asking.engine.delete_topic(asking.engine.cluster.topics["t"])
    assert asking.create("t") != old_id
    assert asking.fetch("t").high_watermark == 0
    assert asking.produce("t", batch_of_values(b"b", producer=(5, 0, 0))).base_offset == 0
    assert asking.after_power_cut().fetch("t").high_watermark == 1


@pytest.mark.parametrize("another_is_synced", [False, True])
def test_a_power_cut_before_a_deletion_is_stored_leaves_the_whole_topic(
    another_is_synced: bool,
) -> None:
    """The new name of the folder may be on the disk: a partition made meanwhile syncs it."""
    asking = Asking()
    asking.create("t")
    asking.create("other")
    asking.produce("t", batch_of_values(b"a"))
    asking.engine.delete_topic(asking.engine.cluster.topics["t"])
    asking.engine.remove_files()
    if another_is_synced:
        asking.files.sync_folder("store")
    again = asking.after_power_cut()
    assert again.fetch("t").high_watermark == 1
    assert not [name for name in again.files.list("store") if name.endswith("-delete")]


def test_a_deletion_that_was_stored_stays_done_whatever_was_left_of_it() -> None:
    asking = Asking()
    asking.create("t")
    asking.produce("t", batch_of_values(b"a"))
    asking.engine.delete_topic(asking.engine.cluster.topics["t"])
    running = asking.engine.commit.begin()
    assert running is not None
    asking.engine.commit.end(running.run())
    asking.files.sync_folder("store")
    again = asking.after_power_cut()
    assert "t" not in again.engine.cluster.topics
    assert not [name for name in again.files.list("store") if name.startswith("t-")]


def test_a_folder_that_the_metadata_does_not_know_is_put_aside_and_not_deleted() -> None:
    asking = Asking()
    asking.create("t")
    asking.produce("t", batch_of_values(b"a"))
    asking.engine.close()
    for name in asking.files.list("store/__cluster_metadata-0"):
        asking.files.remove(f"store/__cluster_metadata-0/{name}")
    again = Asking(asking.files)
    assert again.engine.cluster.topics == {}
    (stray,) = [name for name in again.files.list("store") if name.endswith("-stray")]
    assert stray.startswith("t-0.")
    again.create("t")
    assert again.fetch("t").high_watermark == 0


def test_a_damaged_partition_refuses_writes_and_what_is_intact_in_it_is_served() -> None:
    asking = Asking(MemoryFiles())
    asking.create("good")
    asking.create("bad", segment_bytes="1048576")
    for _ in range(3):
        asking.produce("bad", batch_of_values(bytes(600_000)))
    asking.produce("good", batch_of_values(b"a"))
    asking.engine.store.abandon()
    path = "store/bad-0/00000000000000000000.log"
    content = bytearray(asking.files.read(path) or b"")
    content[100] ^= 1
    asking.files.write(path, bytes(content))
    again = Asking(asking.files)
    log = again.engine.log_of("bad", 0)
    assert log is not None
    assert isinstance(log.failed, CorruptLog)
    assert again.fetch("good").high_watermark == 1
    assert again.fetch("bad", offset=0).error_code == codes.KAFKA_STORAGE_ERROR
    assert again.fetch("bad", offset=1).error_code == codes.NONE
    answer = again.produce("bad", batch_of_values(b"b"))
    assert answer.error_code == codes.KAFKA_STORAGE_ERROR
    assert path in (answer.error_message or "")


def test_new_partitions_are_open_at_once() -> None:
    asking = Asking()
    asking.create("t")
    asking.engine.create_partitions(asking.engine.cluster.topics["t"], 3)
    assert asking.produce("t", batch_of_values(b"a"), partition=2).base_offset == 0


def test_the_metadata_s_own_topic_can_be_neither_made_nor_written_to() -> None:
    asking = Asking()
    outcome = asking.engine.create_topic("__cluster_metadata", 1, {})
    assert outcome.error == codes.INVALID_TOPIC_EXCEPTION
    answer = asking.produce("__cluster_metadata", batch_of_values(b"a"))
    assert answer.error_code == codes.UNKNOWN_TOPIC_OR_PARTITION


def test_what_waits_for_a_sync_is_answered_when_the_topic_wants_none_any_more() -> None:
    asking = Asking()
    asking.create("t")
    waiting = asking.ask_nowait(produce_request("t", batch_of_values(b"a")), 12)
    change: dict[str, str | None] = {"ottla.durability": "os"}
    asking.engine.apply_config_change(TOPIC_RESOURCE, "t", change)
    assert waiting.is_done
    back: dict[str, str | None] = {"ottla.durability": None}
    asking.engine.apply_config_change(TOPIC_RESOURCE, "t", back)
    asking.sync()
    assert asking.after_power_cut().fetch("t").high_watermark == 1


def test_a_disk_that_is_full_refuses_and_goes_on_when_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asking = Asking()
    asking.create("t")

    def full(*_: object) -> None:
        raise StorageError("no space left on the disk")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFile, "append", full)
        answer = asking.produce("t", batch_of_values(b"a"))
        assert answer.error_code == codes.KAFKA_STORAGE_ERROR
        assert "no space left" in (answer.error_message or "")
        assert asking.engine.create_topic("new", 1, {}).error == codes.KAFKA_STORAGE_ERROR
        assert "new" not in asking.engine.cluster.topics
    assert asking.produce("t", batch_of_values(b"b")).base_offset == 0


class Interrupted(ProducerState):
    """Producers that are interrupted when they are to remember a batch."""

    def update(self, *_: object) -> None:
        raise KeyboardInterrupt


def test_an_append_that_was_interrupted_stops_the_log_before_offsets_go_wrong() -> None:
    asking = Asking()
    asking.create("t")
    asking.produce("t", batch_of_values(b"a"))
    log = asking.engine.store.logs["t", 0]
    log.producers = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        asking.produce("t", batch_of_values(b"b", producer=(1, 0, 0)))
    answer = asking.produce("t", batch_of_values(b"c"))
    assert answer.error_code == codes.KAFKA_STORAGE_ERROR
    assert "interrupted" in (answer.error_message or "")


def test_a_produce_that_is_not_stored_in_time_is_told_so() -> None:
    asking = Asking()
    asking.create("t")
    waiting = asking.ask_nowait(produce_request("t", batch_of_values(b"a")), 12)
    asking.clock.advance(999)
    asking.engine.expire(asking.clock.monotonic_ms())
    assert not waiting.is_done
    asking.clock.advance(1)
    asking.engine.expire(asking.clock.monotonic_ms())
    partition = waiting.response.responses[0].partition_responses[0]
    assert (partition.error_code, partition.base_offset) == (codes.REQUEST_TIMED_OUT, -1)
    asking.sync()
    assert asking.fetch("t").high_watermark == 1


def test_once_the_metadata_may_not_be_on_the_disk_nothing_more_is_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asking = Asking()
    asking.create("before")
    assert asking.produce("before", batch_of_values(b"a")).error_code == codes.NONE

    def begin_sync(file: MemoryFile) -> Callable[[], None]:
        def sync() -> None:
            raise StorageError(f"syncing {file.path} failed: Input/output error")

        return sync if METADATA_TOPIC in file.path else lambda: None

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFile, "begin_sync", begin_sync)
        asking.engine.create_topic("new", 1, {})
        waiting = asking.ask_nowait(produce_request("new", batch_of_values(b"b")), 12)
        asking.sync()
    answer = waiting.response.responses[0].partition_responses[0]
    assert answer.error_code == codes.KAFKA_STORAGE_ERROR
    for topic in ("before", "new"):
        answer = asking.produce(topic, batch_of_values(b"c"))
        assert answer.error_code == codes.KAFKA_STORAGE_ERROR
        assert "Restart the broker" in (answer.error_message or "")
    assert asking.fetch("before").records is not None
    again = asking.after_power_cut()
    assert "new" not in again.engine.cluster.topics
    assert again.produce("before", batch_of_values(b"d")).base_offset == 1
