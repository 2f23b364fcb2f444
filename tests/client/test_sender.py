"""The sender against a scripted broker: order, retries, sequences, and what is told in the end."""

from typing import Any

import pytest

from ottla.client.delivery import Delivery
from ottla.errors import (
    BrokerUnavailable,
    ClientError,
    OutcomeUnknown,
    Timeout,
    codes,
)
from ottla.errors.broker import MessageTooLarge, UnknownTopicOrPartition
from tests.client.scripted import Script


def error_of(delivery: Delivery) -> BaseException | None:
    assert delivery.done()
    return delivery.exception()


def test_a_batch_waits_for_linger_and_then_goes_with_the_first_sequences() -> None:
    script = Script(linger_ms=5)
    script.send()
    script.send()
    script.run()
    assert script.produced == []
    script.run(5)
    assert script.batches() == [(0, 101, 0, 2)]
    script.answer(offset=7)
    delivery = script.send()
    script.run(5)
    assert script.batches() == [(0, 101, 2, 1)]
    script.answer(offset=9)
    assert (delivery.state, delivery.offset) == ("stored", 9)


def test_a_flush_cuts_linger() -> None:
    script = Script(linger_ms=10_000)
    script.send()
    script.core.sender.hurry(1)
    script.run()
    assert len(script.produced) == 1


def test_one_request_carries_several_partitions() -> None:
    script = Script(partitions=3, linger_ms=0)
    for partition in range(3):
        script.send(partition=partition)
    script.run()
    assert sorted(script.batches()) == [(0, 101, 0, 1), (1, 101, 0, 1), (2, 101, 0, 1)]


def test_no_more_requests_are_under_way_than_allowed() -> None:
    script = Script(linger_ms=0, max_in_flight_requests_per_connection=2)
    script.settle()
    for _ in range(4):
        script.send()
        script.run()
    assert len(script.produced) == 2
    script.answer()
    script.run()
    assert [script.batches(0), script.batches(1)] == [[(0, 101, 2, 1)], [(0, 101, 3, 2)]]


def test_until_the_first_batch_is_stored_none_follows_that_could_take_its_place() -> None:
    script = Script(linger_ms=0, retry_backoff_ms=100)
    first = script.send()
    script.run()
    second = script.send()
    script.run()
    assert [script.batches(0)] == [[(0, 101, 0, 1)]] and len(script.produced) == 1
    script.answer(error=codes.NOT_LEADER_OR_FOLLOWER)
    script.run(100)
    assert [script.batches(0)] == [[(0, 101, 0, 1)]] and len(script.produced) == 1
    script.answer(offset=0)
    script.run()
    assert [script.batches(0)] == [[(0, 101, 1, 1)]]
    script.answer(offset=1)
    assert (first.offset, second.offset) == (0, 1)


def test_over_a_new_connection_one_batch_goes_alone_again() -> None:
    script = Script(linger_ms=0)
    script.settle()
    script.lose()
    script.clock.advance(200)
    for _ in range(2):
        script.send()
        script.run()
    assert len(script.produced) == 1
    script.answer()
    script.run()
    assert len(script.produced) == 1


def test_batches_of_two_identities_are_never_under_way_in_one_partition() -> None:
    script = Script(linger_ms=0)
    script.settle()
    deliveries = []
    for _ in range(3):
        deliveries.append(script.send())
        script.run()
        script.clock.advance(1)
    script.lose()
    script.run(200)
    deliveries.append(script.send())
    order = []
    for _ in range(20):
        script.run(100)
        if not script.produced:
            break
        assert len(script.produced) == 1
        [(_, producer_id, sequence, _)] = script.batches()
        if producer_id == 101:
            script.answer(error=codes.OUT_OF_ORDER_SEQUENCE_NUMBER)
        else:
            order.append((producer_id, sequence))
            script.answer(offset=len(order))
    assert [delivery.offset for delivery in deliveries] == [1, 2, 3, 4]


def test_what_is_refused_for_now_goes_again_with_its_sequences_and_before_what_is_newer() -> None:
    script = Script(linger_ms=0, retry_backoff_ms=100)
    first = script.send()
    script.run()
    script.answer(error=codes.NOT_LEADER_OR_FOLLOWER)
    second = script.send()
    script.run()
    assert script.produced == []
    script.run(100)
    assert [script.batches(0)] == [[(0, 101, 0, 1)]]
    script.answer(offset=0)
    script.run()
    assert [script.batches(0)] == [[(0, 101, 1, 1)]]
    script.answer(offset=1)
    assert (first.offset, second.offset) == (0, 1)


def test_after_a_lost_connection_everything_under_way_goes_again_in_order() -> None:
    script = Script(linger_ms=0)
    script.settle()
    deliveries = []
    for _ in range(3):
        deliveries.append(script.send())
        script.run()
        script.clock.advance(1)
    assert len(script.produced) == 3
    script.lose()
    script.run(200)
    assert [script.batches(0)] == [[(0, 101, 1, 1)]]
    script.answer(offset=0)
    script.run()
    assert [script.batches(0), script.batches(1)] == [[(0, 101, 2, 1)], [(0, 101, 3, 1)]]
    script.answer(offset=1)
    script.answer(offset=2)
    assert [delivery.offset for delivery in deliveries] == [0, 1, 2]


def test_a_duplicate_is_a_success() -> None:
    script = Script(linger_ms=0)
    delivery = script.send()
    script.run()
    script.answer(error=codes.DUPLICATE_SEQUENCE_NUMBER)
    assert (delivery.state, delivery.offset) == ("stored", None)


def test_what_was_sent_and_never_answered_ends_unknown_and_the_next_has_a_new_identity() -> None:
    script = Script(linger_ms=0, delivery_timeout_ms=1000, request_timeout_ms=60_000)
    lost = script.send()
    script.run()
    script.run(1001)
    assert isinstance(error_of(lost), OutcomeUnknown)
    assert "may or may not be stored" in str(error_of(lost))
    script.produced.clear()
    script.send()
    script.run()
    assert script.batches() == [(0, 102, 0, 1)]


def test_what_was_sent_behind_it_ends_unknown_with_it_and_what_was_not_sent_goes_on() -> None:
    script = Script(
        linger_ms=0,
        delivery_timeout_ms=1000,
        request_timeout_ms=60_000,
        max_in_flight_requests_per_connection=2,
    )
    script.settle()
    first = script.send()
    script.run()
    script.clock.advance(10)
    second = script.send()
    script.run()
    script.clock.advance(10)
    third = script.send()
    script.run(985)
    assert isinstance(error_of(first), OutcomeUnknown)
    assert isinstance(error_of(second), OutcomeUnknown)
    assert not third.done()
    script.lose()
    script.run()
    assert script.batches() == [(0, 102, 0, 1)]


def test_what_was_never_sent_in_time_is_known_not_to_be_stored() -> None:
    script = Script(linger_ms=0, delivery_timeout_ms=1000)
    script.send()
    script.run()
    script.answer()
    script.network.refuses = True
    script.lose()
    delivery = script.send()
    for _ in range(20):
        script.run(100)
    error = error_of(delivery)
    assert isinstance(error, Timeout)
    assert "It was NOT stored" in str(error)
    assert "nothing is listening" in str(error)


def test_a_producer_that_was_connected_keeps_trying_and_delivers_when_the_broker_is_back() -> None:
    script = Script(linger_ms=0, delivery_timeout_ms=120_000)
    script.send()
    script.run()
    script.answer()
    script.network.refuses = True
    script.lose()
    delivery = script.send()
    for _ in range(60):
        script.run(1000)
    assert not delivery.done()
    script.network.refuses = False
    for _ in range(3):
        script.run(1000)
    script.answer(offset=5)
    assert delivery.offset == 5


def test_a_producer_that_was_never_connected_gives_up_after_three_refusals() -> None:
    script = Script(linger_ms=0)
    script.network.refuses = True
    delivery = script.send()
    for _ in range(10):
        script.run(100)
    assert isinstance(error_of(delivery), BrokerUnavailable)
    assert "3 tries" in str(error_of(delivery))
    script.network.refuses = False
    again = script.send()
    script.run()
    script.answer()
    assert again.state == "stored"


def test_a_refusal_for_good_ends_only_its_batch_and_those_behind_get_new_sequences() -> None:
    script = Script(linger_ms=0)
    script.settle()
    bad = script.send()
    script.run()
    script.clock.advance(1)
    behind = script.send()
    script.run()
    script.answer(error=codes.MESSAGE_TOO_LARGE)
    script.answer(error=codes.OUT_OF_ORDER_SEQUENCE_NUMBER)
    assert isinstance(error_of(bad), MessageTooLarge)
    script.run(100)
    assert script.batches() == [(0, 102, 0, 1)]
    script.answer(offset=3)
    assert behind.offset == 3


def test_a_batch_that_is_too_large_for_the_topic_names_the_setting_that_makes_it_smaller() -> None:
    script = Script(linger_ms=0)
    script.settle()
    first, second = script.send(), script.send()
    script.run()
    script.answer(error=codes.MESSAGE_TOO_LARGE)
    for refused in (first, second):
        error = error_of(refused)
        assert isinstance(error, MessageTooLarge)
        (step,) = error.next_steps
        assert "Set batch_size" in step
        assert "2 records" in step
    alone = script.send()
    script.run(100)
    script.answer(error=codes.MESSAGE_TOO_LARGE)
    error = error_of(alone)
    assert isinstance(error, MessageTooLarge)
    assert not error.next_steps


def test_an_unknown_topic_is_told_after_a_while_with_what_to_do() -> None:
    script = Script(linger_ms=0)
    script.topic_error = codes.UNKNOWN_TOPIC_OR_PARTITION
    delivery = script.send()
    for _ in range(40):
        script.run(200)
    error = error_of(delivery)
    assert isinstance(error, UnknownTopicOrPartition)
    assert "ottla topics create t" in str(error)


def test_an_invalid_topic_is_told_at_once() -> None:
    script = Script(linger_ms=0)
    script.topic_error = codes.INVALID_TOPIC_EXCEPTION
    delivery = script.send()
    script.run()
    assert delivery.state == "failed"


def test_a_topic_that_appears_in_time_gets_its_records() -> None:
    script = Script(linger_ms=0)
    script.topic_error = codes.UNKNOWN_TOPIC_OR_PARTITION
    delivery = script.send()
    script.run(500)
    script.topic_error = codes.NONE
    script.run(500)
    script.answer(offset=1)
    assert delivery.offset == 1


def test_with_acks_0_a_record_counts_once_it_has_left() -> None:
    script = Script(linger_ms=0, acks=0)
    delivery = script.send()
    script.run()
    assert script.batches() == [(0, -1, -1, 1)]
    assert (delivery.state, delivery.offset) == ("stored", None)


def test_a_producer_without_idempotence_has_no_sequences() -> None:
    script = Script(linger_ms=0, acks=1)
    script.send()
    script.run()
    assert script.batches() == [(0, -1, -1, 1)]


def test_a_request_without_an_answer_breaks_the_connection_and_goes_again() -> None:
    script = Script(linger_ms=0, request_timeout_ms=1000)
    script.send()
    script.run()
    script.produced.clear()
    script.run(1001)
    script.run(200)
    assert script.batches() == [(0, 101, 0, 1)]
    assert len(script.network.channels) == 2


def test_a_callback_that_raises_does_not_keep_others_from_being_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script(linger_ms=0)
    called: list[Delivery] = []

    def broken(delivery: Delivery) -> None:
        raise ValueError("the user's own")

    script.send().add_done_callback(broken)
    script.send().add_done_callback(called.append)
    script.run()
    script.answer()
    assert len(called) == 1
    assert "a delivery callback failed" in caplog.text


def test_a_callback_cannot_wait_for_other_deliveries() -> None:
    script = Script(linger_ms=0)
    other = script.send()
    caught: list[BaseException] = []

    def waits(delivery: Delivery) -> None:
        try:
            script.core.wait(lambda: False, None)
        except ClientError as error:
            caught.append(error)

    other.add_done_callback(waits)
    script.run()
    script.network.arriving.append(script.answer)
    script.core.driver.push()
    assert "callback cannot wait" in str(caught[0])


def test_what_the_broker_refused_each_time_is_known_not_to_be_stored() -> None:
    script = Script(linger_ms=0, delivery_timeout_ms=1000)
    delivery = script.send()
    for _ in range(4):
        script.run()
        script.answer(error=codes.NOT_ENOUGH_REPLICAS)
        script.run(300)
    error = error_of(delivery)
    assert isinstance(error, Timeout)
    assert "NOT_ENOUGH_REPLICAS" in error.what
    assert error.effect == "It was NOT stored."


def test_what_had_no_answer_once_stays_unknown_whatever_is_answered_later() -> None:
    script = Script(linger_ms=0, delivery_timeout_ms=1000)
    delivery = script.send()
    script.run()
    script.lose()
    script.run(200)
    script.answer(error=codes.NOT_LEADER_OR_FOLLOWER)
    script.run(1000)
    assert isinstance(error_of(delivery), OutcomeUnknown)


class _Leaders(list[int]):
    """Leaders that remember whose was asked for."""

    def __init__(self, leaders: list[int]) -> None:
        super().__init__(leaders)
        self.asked: list[int] = []

    def __getitem__(self, partition: Any) -> Any:
        self.asked.append(partition)
        return super().__getitem__(partition)


def test_only_partitions_with_something_to_send_are_looked_at() -> None:
    script = Script(partitions=1000, linger_ms=5)
    for partition in range(1000):
        script.send(partition=partition)
    script.run()
    script.run(5)
    for _ in range(len(script.produced)):
        script.answer()
    script.run()
    topic = script.core.cluster.topics["t"]
    topic.leaders = leaders = _Leaders(topic.leaders)
    asked = leaders.asked
    script.send(partition=17)
    script.send(partition=900)
    script.run()
    assert asked == []
    script.run(5)
    assert script.batches() == [(17, 101, 1, 1), (900, 101, 1, 1)]
    script.answer()
    script.run()
    assert set(asked) == {17, 900} and len(asked) == 2


def test_partitions_wait_in_turn_for_requests_that_are_full() -> None:
    script = Script(
        partitions=6, linger_ms=0, max_request_size=1000, max_in_flight_requests_per_connection=1
    )
    handles = [script.send(b"x" * 400, partition) for partition in (*range(6), *range(6))]
    script.run()
    order = []
    while script.produced:
        order += [partition for partition, _, _, _ in script.batches()]
        script.answer()
        script.run()
    assert order == list(range(6))
    assert all(handle.state == "stored" for handle in handles)


def test_a_batch_that_filled_while_another_thread_laid_its_partition_aside_is_sent() -> None:
    script = Script(linger_ms=10_000, batch_size=1000)
    script.send()
    script.run()
    script.run(10_000)
    script.answer()
    script.run()
    accumulator = script.core.accumulator
    [queue] = accumulator.topics["t"].queues
    script.send(b"x" * 600)
    script.send(b"x" * 600)
    accumulator.lay_aside(queue)
    script.run()
    assert script.batches() == [(0, 101, 1, 1)]
