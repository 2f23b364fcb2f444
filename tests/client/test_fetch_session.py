"""What a consumer says of its partitions to a broker that remembers, and to one that does not."""

from __future__ import annotations

from typing import Any

import pytest

import ottla.client.fetch_session as session_module
from ottla import Broker, Consumer, Producer
from ottla.client.admin import Admin
from ottla.client.config import ConsumerConfig
from ottla.client.fetcher import Fetcher
from ottla.client.lookup import TopicPartition
from ottla.errors import KafkaStorageError, codes
from ottla.protocol.codec import encode
from ottla.protocol.messages.api_01_fetch import FetchRequest, FetchResponse
from ottla.records.builder import BatchBuilder
from tests.client.scripted import TOPIC_ID, Script

VERSION = 13
ID = 7
ALL = {0: 0, 1: 0, 2: 0}


def batch(base_offset: int = 0) -> bytes:
    builder = BatchBuilder()
    builder.append(1_700_000_000_000, b"k", b"v", None, 1 << 30)
    data = bytearray(builder.build(0, None, -1, -1, -1))
    data[:8] = base_offset.to_bytes(8, "big")
    return bytes(data)


def found(
    partition: int, *, records: bytes = b"", error: int = 0, end: int = 1, stable_end: int = -1
) -> FetchResponse.PartitionData:
    return FetchResponse.PartitionData(
        partition_index=partition,
        error_code=error,
        records=records,
        high_watermark=end,
        last_stable_offset=stable_end,
    )


class Fetching:
    """A fetcher of topic t, and a test for its broker."""

    def __init__(self, partitions: int = 3, **settings: Any) -> None:
        self.script = Script(partitions=partitions, linger_ms=0)
        self.script.settle()
        self.cluster = self.script.core.cluster
        self.fetcher = Fetcher(ConsumerConfig(**settings), self.cluster, self.script.clock)
        self.fetcher.assign([TopicPartition("t", number) for number in range(partitions)], None)
        for state in self.fetcher.partitions.values():
            state.seek(0)

    def asks_nothing(self) -> bool:
        self.fetcher.step()
        return not self.script.network.calls

    def asked(self) -> FetchRequest:
        """Return the fetch that is sent now; it is under way until it is answered."""
        self.fetcher.step()
        return self.asked_already()

    def asked_already(self) -> FetchRequest:
        """Return the fetch that was sent without another turn."""
        ((self.channel, self.call),) = self.script.network.calls
        self.script.network.calls.clear()
        request = self.call.request
        assert isinstance(request, FetchRequest)
        assert self.call.version == VERSION
        return request

    def answer(
        self, session_id: int, *parts: FetchResponse.PartitionData, error: int = codes.NONE
    ) -> None:
        topic = FetchResponse.FetchableTopicResponse(topic_id=TOPIC_ID, partitions=list(parts))
        response = FetchResponse(
            error_code=error, session_id=session_id, responses=[topic] if parts else []
        )
        self.channel.listener.answered(self.call, response)

    def begin(self) -> None:
        """Have a session made."""
        assert said(self.asked()) == (0, 0, ALL, [])
        self.answer(ID, *(found(number) for number in ALL))


def said(request: FetchRequest) -> tuple[int, int, dict[int, int], list[int]]:
    """Return a request's session id and epoch, the offsets that it names, and what it forgets."""
    named = {
        each.partition: each.fetch_offset for topic in request.topics for each in topic.partitions
    }
    forgotten = [number for topic in request.forgotten_topics_data for number in topic.partitions]
    assert all(topic.topic_id == TOPIC_ID for topic in request.forgotten_topics_data)
    return request.session_id, request.session_epoch, named, forgotten


@pytest.fixture
def fetching() -> Fetching:
    return Fetching()


def test_after_the_first_fetch_only_what_has_changed_is_named(fetching: Fetching) -> None:
    fetching.begin()
    assert said(fetching.asked()) == (ID, 1, {}, [])
    fetching.answer(ID, found(1, records=batch()))
    assert said(fetching.asked()) == (ID, 2, {1: 1}, [])
    fetching.answer(ID)
    assert len(fetching.fetcher.take(10)) == 1
    fetching.script.clock.advance(1000)
    assert said(fetching.asked()) == (ID, 3, {}, [])


def test_what_an_answer_has_left_is_asked_for_before_the_answer_is_read(fetching: Fetching) -> None:
    fetching.begin()
    fetching.asked()
    fetching.answer(ID, found(1, records=batch(), end=9))
    ahead = fetching.asked_already()
    assert said(ahead) == (ID, 2, {1: 1}, [])
    assert ahead.max_wait_ms == 0
    assert len(fetching.fetcher.take(10)) == 1
    fetching.answer(ID, found(1, records=batch(1), end=9))
    assert said(fetching.asked_already()) == (ID, 3, {1: 2}, [])
    fetching.answer(ID, found(1, records=batch(2), end=9))
    assert not fetching.script.network.calls  # two answers of it lie here
    assert said(fetching.asked()) == (ID, 4, {}, [1])


def test_nothing_is_fetched_while_as_much_lies_unread_as_one_fetch_may_bring() -> None:
    fetching = Fetching(fetch_max_bytes=2 * len(batch()))
    fetching.begin()
    fetching.asked()
    fetching.answer(ID, *(found(number, records=batch(), end=9) for number in (0, 1)))
    assert not fetching.script.network.calls
    assert fetching.asks_nothing()
    state = fetching.fetcher.partitions[TopicPartition("t", 0)]
    state.is_paused = True  # what is not given out must not keep others from being read
    assert said(fetching.asked()) == (ID, 2, {1: 1}, [0])
    fetching.answer(ID)
    state.is_paused = False
    assert fetching.asks_nothing()
    fetching.script.clock.advance(1000)
    assert fetching.asks_nothing()
    assert len(fetching.fetcher.take(10)) == 2
    assert said(fetching.asked()) == (ID, 3, {0: 1}, [])


def test_where_an_answer_has_brought_nothing_or_all_there_is_no_fetch_is_sent_ahead(
    fetching: Fetching,
) -> None:
    fetching.begin()
    fetching.asked()
    fetching.answer(ID, found(1, end=9))
    assert not fetching.script.network.calls
    fetching.asked()
    fetching.answer(ID, found(1, records=batch(), end=1))
    assert not fetching.script.network.calls


def test_what_is_not_stable_yet_is_not_fetched_ahead_for_who_reads_what_is_committed() -> None:
    fetching = Fetching(isolation_level="read_committed")
    fetching.begin()
    fetching.asked()
    fetching.answer(ID, found(1, records=batch(), end=9, stable_end=1))
    assert not fetching.script.network.calls


def test_a_paused_partition_is_forgotten_and_named_when_it_goes_on(fetching: Fetching) -> None:
    fetching.begin()
    state = fetching.fetcher.partitions[TopicPartition("t", 2)]
    state.is_paused = True
    assert said(fetching.asked()) == (ID, 1, {}, [2])
    fetching.answer(ID)
    assert said(fetching.asked()) == (ID, 2, {}, [])
    fetching.answer(ID)
    state.is_paused = False
    assert said(fetching.asked()) == (ID, 3, {2: 0}, [])


def test_what_is_assigned_and_taken_away_is_named_once(fetching: Fetching) -> None:
    fetching.begin()
    fetching.fetcher.assign([TopicPartition("t", 0)], None)
    assert said(fetching.asked()) == (ID, 1, {}, [1, 2])
    fetching.answer(ID)
    fetching.fetcher.assign([TopicPartition("t", 0), TopicPartition("t", 1)], None)
    fetching.fetcher.partitions[TopicPartition("t", 1)].seek(5)
    assert said(fetching.asked()) == (ID, 2, {1: 5}, [])


def test_an_answer_that_was_let_go_is_asked_for_again(fetching: Fetching) -> None:
    fetching.begin()
    fetching.asked()
    fetching.fetcher.partitions[TopicPartition("t", 1)].seek(
        0
    )  # it has been told, with this offset
    fetching.answer(ID, found(1, records=batch()))
    assert not fetching.fetcher.has_records
    assert said(fetching.asked()) == (ID, 2, {1: 0}, [])


def refused_for_good(fetching: Fetching, seconds: int) -> bool:
    """Refuse partition 1 for so long; returns whether the user is told."""
    for _ in range(seconds):
        fetching.asked()
        fetching.answer(ID, found(1, error=codes.KAFKA_STORAGE_ERROR))
        fetching.script.network.calls.clear()  # metadata is asked for
        fetching.script.clock.advance(1000)
    return fetching.fetcher.error is not None


def test_a_disk_that_stays_at_fault_is_told_and_not_waited_for_in_silence(
    fetching: Fetching,
) -> None:
    fetching.begin()
    assert not refused_for_good(fetching, 30)
    assert refused_for_good(fetching, 1)
    error = fetching.fetcher.take_error()
    assert isinstance(error, KafkaStorageError)
    assert "t/1 cannot be read at offset 0" in str(error)
    assert not refused_for_good(fetching, 29)  # it is tried again, and told again
    assert refused_for_good(fetching, 1)


def test_a_disk_that_was_at_fault_for_a_while_is_not_told(fetching: Fetching) -> None:
    fetching.begin()
    assert not refused_for_good(fetching, 30)
    fetching.asked()
    fetching.answer(ID, found(1, records=batch()))
    fetching.fetcher.take(10)
    fetching.script.clock.advance(1000)
    assert not refused_for_good(fetching, 30)


def test_a_partition_with_an_error_is_asked_for_again_after_a_while(fetching: Fetching) -> None:
    fetching.begin()
    fetching.asked()
    fetching.answer(ID, found(0, error=codes.NOT_LEADER_OR_FOLLOWER))
    assert said(fetching.asked()) == (ID, 2, {}, [0])
    fetching.answer(ID)
    fetching.script.clock.advance(1000)
    assert said(fetching.asked()) == (ID, 3, {0: 0}, [])


@pytest.mark.parametrize(
    ("error", "session_id"),
    [
        (codes.FETCH_SESSION_ID_NOT_FOUND, 0),
        (codes.INVALID_FETCH_SESSION_EPOCH, ID),
        (codes.FETCH_SESSION_TOPIC_ID_ERROR, ID),
    ],
)
def test_a_session_that_is_refused_is_begun_anew_at_once(
    fetching: Fetching, error: int, session_id: int
) -> None:
    fetching.begin()
    fetching.asked()
    fetching.answer(0, error=error)
    assert said(fetching.asked()) == (session_id, 0, ALL, [])
    fetching.answer(8, *(found(number) for number in ALL))
    assert said(fetching.asked()) == (8, 1, {}, [])
    assert fetching.fetcher.take_error() is None


def test_a_whole_fetch_that_is_refused_is_sent_again_after_a_while(fetching: Fetching) -> None:
    fetching.asked()
    fetching.answer(0, error=codes.INVALID_FETCH_SESSION_EPOCH)
    assert fetching.asks_nothing()
    fetching.script.clock.advance(1000)
    assert said(fetching.asked()) == (0, 0, ALL, [])
    assert fetching.fetcher.take_error() is None


def test_a_refusal_that_stays_is_told(fetching: Fetching) -> None:
    fetching.begin()
    fetching.asked()
    fetching.answer(0, error=codes.CLUSTER_AUTHORIZATION_FAILED)
    error = fetching.fetcher.take_error()
    assert error is not None
    assert "script:1 gives nothing" in str(error)


@pytest.mark.parametrize("was_there", [False, True])
def test_a_broker_without_a_session_for_us_is_told_everything(
    fetching: Fetching, was_there: bool
) -> None:
    if was_there:
        fetching.begin()
    for _ in range(2):
        fetching.asked()
        fetching.answer(0, *(found(number) for number in ALL))
        assert said(fetching.asked()) == (0, 0, ALL, [])
        fetching.answer(0)


def test_an_answer_of_another_session_begins_a_new_one(fetching: Fetching) -> None:
    fetching.begin()
    fetching.asked()
    fetching.answer(ID + 1)
    assert said(fetching.asked()) == (ID, 0, ALL, [])


def test_after_a_lost_connection_everything_is_named(fetching: Fetching) -> None:
    fetching.begin()
    fetching.asked()
    fetching.script.lose()
    fetching.script.run(2000)
    assert fetching.asks_nothing()  # but it has the connection made
    fetching.script.run(0)
    assert said(fetching.asked()) == (ID, 0, ALL, [])


def test_a_topic_that_was_made_anew_begins_a_new_session(fetching: Fetching) -> None:
    fetching.begin()
    fetching.cluster.topics["t"].topic_id = bytes(15) + b"\x02"
    request = fetching.asked()
    assert said(request) == (ID, 0, ALL, [])
    assert request.topics[0].topic_id == bytes(15) + b"\x02"


def test_the_epoch_after_the_last_one_is_the_first(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_EPOCH_MAX", 2)
    fetching.begin()
    epochs = []
    for _ in range(4):
        epochs.append(fetching.asked().session_epoch)
        fetching.answer(ID)
    assert epochs == [1, 2, 1, 2]


def test_with_1000_partitions_a_fetch_names_what_has_changed_and_is_small() -> None:
    fetching = Fetching(1000)
    whole = fetching.asked()
    assert len(said(whole)[2]) == 1000
    assert len(encode(whole, VERSION)) > 20_000
    fetching.answer(ID, *(found(number) for number in range(1000)))
    fetching.asked()
    fetching.answer(ID, found(500, records=batch()))
    changed = fetching.asked()
    assert said(changed) == (ID, 2, {500: 1}, [])
    assert len(encode(changed, VERSION)) < 100


def test_a_consumer_that_is_closed_has_its_session_closed(fetching: Fetching) -> None:
    fetching.fetcher.close()
    assert not fetching.script.network.calls
    fetching.begin()
    fetching.asked()  # it waits at the broker, which hears of this behind it
    fetching.fetcher.close()
    ((_, call),) = fetching.script.network.calls
    assert isinstance(call.request, FetchRequest)
    assert said(call.request) == (ID, -1, {}, [])


def test_closed_consumers_leave_no_sessions_in_a_broker_in_this_process() -> None:
    with Broker() as broker:
        with Producer(broker) as producer:
            producer.send("t", b"x")
        for _ in range(3):
            with Consumer(broker, "t") as consumer:
                assert len(consumer.poll(10)) == 1
                assert consumer.poll(0) == []
            assert len(broker.engine.fetch_sessions) == 0


@pytest.mark.slow
def test_a_broker_that_forgets_a_session_loses_no_record() -> None:
    with Broker() as broker, Admin(broker) as admin:
        admin.create_topic("t", 50)
        with Producer(broker) as producer, Consumer(broker, "t") as consumer:
            seen: list[bytes | None] = []
            for number in range(20):
                producer.send("t", b"%d" % number, partition=number * 7 % 50)
                producer.flush()
                while len(seen) <= number:
                    seen += [record.value for record in consumer.poll(10)]
                sessions = broker.engine.fetch_sessions
                with broker.engine.lock:
                    assert len(sessions) == 1
                    (session,) = sessions._sessions.values()
                    assert len(session.partitions) == 50
                    if number % 5 == 0:
                        sessions.remove(session)
            assert seen == [b"%d" % number for number in range(20)]
