"""Our consumer's fetch sessions on a real Kafka: what it says there of a thousand partitions."""

from __future__ import annotations

import pytest

from ottla import Admin, Consumer, Producer
from ottla.client.fetch_session import FetchSession, Wanted
from ottla.client.lookup import TopicPartition
from ottla.protocol.messages.api_01_fetch import FetchRequest
from tests.kafka.real_kafka import RealKafka

PARTITIONS = 1000
RECORDS = 30


@pytest.mark.kafka
def test_a_session_goes_on_while_records_come_to_some_of_many_partitions(
    real_kafka: RealKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []
    plain = FetchSession.ask

    def ask(
        session: FetchSession, wanted: dict[TopicPartition, Wanted], request: FetchRequest
    ) -> None:
        plain(session, wanted, request)
        named = sum(len(topic.partitions) for topic in request.topics)
        asked.append((request.session_id, request.session_epoch, named))

    monkeypatch.setattr(FetchSession, "ask", ask)
    topic = "our-sessions"
    with Admin(real_kafka.address) as admin:
        admin.create_topic(topic, PARTITIONS)
    with (
        Producer(real_kafka.address) as producer,
        Consumer(real_kafka.address, topic) as consumer,
    ):
        seen: list[bytes | None] = []
        for number in range(RECORDS):
            producer.send(topic, b"%d" % number, partition=number * 37 % PARTITIONS)
            producer.flush()
            while len(seen) <= number:
                seen += [record.value for record in consumer.poll(10)]
    assert seen == [b"%d" % number for number in range(RECORDS)]
    begun = [each for each in asked if each[1] == 0]
    assert begun == [(0, 0, PARTITIONS)]
    assert all(named <= 2 for _, _, named in asked[1:])
    assert [epoch for _, epoch, _ in asked] == list(range(len(asked)))
    assert len({session_id for session_id, _, _ in asked[1:]}) == 1
    with Admin(real_kafka.address) as admin:
        admin.delete_topic(topic)
