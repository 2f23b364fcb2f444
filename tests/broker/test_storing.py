"""A usual batch of the embedded door: what the handler would do and say, without its objects."""

from __future__ import annotations

import pytest

from ottla import Broker
from ottla.broker.appending import Storing, append_usual
from ottla.broker.caller import Caller
from ottla.broker.internal_topics import GROUPS_TOPIC
from ottla.broker.requests import CloseConnection
from ottla.errors import Closed, StorageError, codes
from ottla.log.memory_files import MemoryFile
from ottla.protocol.messages.api_00_produce import ProduceResponse
from tests.broker.asking import Asking, batch_of_values, produce_request
from tests.broker.test_appending import ends, of_producer, with_id

TIMEOUT_MS = 1000
"""That of `produce_request`."""


def asking(durability: str = "disk") -> Asking:
    broker = Asking(ottla_durability=durability)
    broker.create("t", 2)
    return broker


def stored(
    broker: Asking, batch: bytes | None, *, topic: str = "t", partition: int = 1
) -> Storing | None:
    """Have a batch appended by the topic's id."""
    known = broker.engine.cluster.topics.get(topic)
    topic_id = known.topic_id if known is not None else b"unknown".ljust(16)
    with broker.engine.lock:
        return append_usual(broker.engine, topic_id, partition, batch or b"", 13, TIMEOUT_MS)


def handled(broker: Asking, batch: bytes) -> object:
    request = with_id(broker, produce_request("t", batch, partition=1))
    return broker.ask_nowait(request, 13)


def told(response: object) -> tuple[int, int, int, str | None]:
    """Return what a response says of its only partition, and check that it is that one."""
    assert isinstance(response, ProduceResponse)
    (topic,) = response.responses
    (partition,) = topic.partition_responses
    assert partition.index == 1
    return (
        partition.error_code,
        partition.base_offset,
        partition.log_append_time_ms,
        partition.error_message,
    )


@pytest.mark.parametrize("version", [12, 13])
def test_a_batch_is_done_when_it_is_durable(version: int) -> None:
    broker = asking()
    key = "t" if version == 12 else broker.engine.cluster.topics["t"].topic_id
    for offset in range(3):
        storing = append_usual(broker.engine, key, 1, of_producer(offset), version, TIMEOUT_MS)
        assert storing is not None and not storing.is_done
        assert storing.appended.base_offset == offset
        broker.sync()
        assert storing.is_done and storing.response is None
    assert len(broker.engine.waits) <= 3
    broker.clock.advance(TIMEOUT_MS + 1)
    broker.engine.expire(broker.clock.monotonic_ms())
    assert len(broker.engine.waits) == 0


def test_where_a_topic_wants_no_sync_it_is_done_at_once() -> None:
    broker = asking("os")
    storing = stored(broker, of_producer(0))
    assert storing is not None and storing.is_done and storing.response is None
    assert len(broker.engine.waits) == 0


def test_a_batch_that_was_sent_before_is_where_its_first_copy_is() -> None:
    broker = asking()
    first, again = stored(broker, of_producer(0)), stored(broker, of_producer(0))
    assert first is not None and again is not None
    assert not again.is_done
    broker.sync()
    assert first.is_done and again.is_done
    assert again.appended.base_offset == first.appended.base_offset == 0
    later = stored(broker, of_producer(0))
    assert later is not None and later.is_done and later.response is None
    assert ends(broker) == [0, 1]


def test_what_is_not_stored_in_time_is_told_as_the_handler_tells_it() -> None:
    broker, other = asking(), asking()
    storing, pending = stored(broker, of_producer(0)), handled(other, of_producer(0))
    assert storing is not None
    for each in (broker, other):
        each.clock.advance(TIMEOUT_MS)
        each.engine.expire(each.clock.monotonic_ms())
    assert storing.is_done
    assert told(storing.response) == told(pending.response)  # type: ignore[attr-defined]  # Pending
    assert told(storing.response)[0] == codes.REQUEST_TIMED_OUT
    broker.sync()
    assert told(storing.response)[0] == codes.REQUEST_TIMED_OUT


def test_what_cannot_be_stored_is_told_as_the_handler_tells_it_and_again_when_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker, other = asking(), asking()
    storing, pending = stored(broker, of_producer(0)), handled(other, of_producer(0))
    assert storing is not None
    monkeypatch.setattr(MemoryFile, "begin_sync", fails)
    broker.sync()
    other.sync()
    assert told(storing.response) == told(pending.response)  # type: ignore[attr-defined]  # Pending
    assert told(storing.response)[0] == codes.KAFKA_STORAGE_ERROR
    again = stored(broker, of_producer(0))
    assert again is not None and again.is_done
    assert told(again.response) == told(storing.response)
    assert isinstance(again.response, ProduceResponse)
    assert again.response.responses[0].name == "t"
    assert stored(broker, of_producer(1)) is None


def fails(file: MemoryFile) -> object:
    def sync() -> None:
        raise StorageError(f"syncing {file.path} failed: Input/output error")

    return sync


@pytest.mark.parametrize(
    ("topic", "partition", "batch"),
    [
        ("u", 1, of_producer(0)),
        ("t", 2, of_producer(0)),
        (GROUPS_TOPIC, 0, of_producer(0)),
        ("t", 1, None),
        ("t", 1, of_producer(0)[:-1] + b"?"),
    ],
    ids=["topic", "partition", "internal", "empty", "checksum"],
)
def test_nothing_is_done_with_what_the_handler_would_refuse(
    topic: str, partition: int, batch: bytes | None
) -> None:
    broker = asking()
    broker.create(GROUPS_TOPIC)
    assert stored(broker, batch, topic=topic, partition=partition) is None
    assert ends(broker) == [0, 0]


def test_a_caller_is_told_when_the_broker_fails_or_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Broker() as broker:
        outcome = broker.engine.create_topic("t", 1, {})
        assert outcome.topic is not None
        topic_id, caller = outcome.topic.topic_id, Caller(broker)
        batch = batch_of_values(b"v", timestamp_ms=broker.engine.clock.now_ms())

        def breaks(*_: object) -> None:
            raise ZeroDivisionError("by design")

        with monkeypatch.context() as patch:
            patch.setattr(broker.engine, "append", breaks)
            with pytest.raises(CloseConnection, match="failed to answer ProduceRequest"):
                caller.append(topic_id, 0, batch, 13, TIMEOUT_MS)
        storing = caller.append(topic_id, 0, batch, 13, TIMEOUT_MS)
        assert storing is not None
        while not storing.is_done:
            caller.drive(1.0)
        assert storing.response is None
    with pytest.raises(Closed):
        caller.append(topic_id, 0, batch, 13, TIMEOUT_MS)
