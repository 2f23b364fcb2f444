"""Static members of consumer groups."""

from __future__ import annotations

import pytest

from ottla.errors import codes
from tests.coordinator.group.consumer.members import (
    SESSION_MS,
    ConsumerShard,
    shard_of,
    told,
)


@pytest.fixture
def shard() -> ConsumerShard:
    shard = shard_of(("t", 4))
    shard.enter("a", instance_id="one")
    return shard


def topic(shard: ConsumerShard) -> bytes:
    return shard.cluster.topics["t"].topic_id


def test_a_static_member_that_comes_back_has_what_it_had(shard: ConsumerShard) -> None:
    response = shard.beat("a", -2, instance_id="one")
    assert (response.error_code, response.member_epoch) == (codes.NONE, -2)
    assert shard.assigned("a") == {"t": [0, 1, 2, 3]}
    again = shard.enter("b", instance_id="one")
    assert told(again) == {topic(shard): [0, 1, 2, 3]}
    assert again.member_epoch == 1
    assert list(shard.consumers().members) == ["b"]
    assert shard.consumers().state_name == "Stable"


def test_its_partitions_wait_for_it_as_long_as_its_session(shard: ConsumerShard) -> None:
    shard.beat("a", -2, instance_id="one")
    assert told(shard.enter("other")) == {}
    shard.advance(SESSION_MS - 1)
    shard.beat("other", 2)
    assert shard.assigned("other") == {}
    shard.advance(1)
    assert told(shard.beat("other", 2)) == {topic(shard): [0, 1, 2, 3]}


def test_nobody_takes_the_place_of_a_static_member_that_has_not_left(
    shard: ConsumerShard,
) -> None:
    assert shard.enter("b", instance_id="one").error_code == codes.UNRELEASED_INSTANCE_ID
    assert shard.enter("a", instance_id="one").error_code == codes.NONE
    assert list(shard.consumers().members) == ["a"]


def test_the_former_self_of_a_static_member_is_fenced(shard: ConsumerShard) -> None:
    shard.beat("a", -2, instance_id="one")
    shard.enter("b", instance_id="one")
    assert shard.beat("a", 1, instance_id="one").error_code == codes.FENCED_INSTANCE_ID
    assert shard.beat("a", -1, instance_id="one").error_code == codes.FENCED_INSTANCE_ID
    assert shard.beat("a", 1).error_code == codes.UNKNOWN_MEMBER_ID


def test_a_static_member_that_is_away_is_fenced_until_it_joins(shard: ConsumerShard) -> None:
    shard.beat("a", -2, instance_id="one")
    assert shard.beat("a", 1, instance_id="one").error_code == codes.FENCED_MEMBER_EPOCH
    assert told(shard.enter("a", instance_id="one")) == {topic(shard): [0, 1, 2, 3]}


def test_a_name_that_is_not_known_is_no_member(shard: ConsumerShard) -> None:
    assert shard.beat("a", 1, instance_id="two").error_code == codes.UNKNOWN_MEMBER_ID
    assert shard.beat("a", -2, instance_id="two").error_code == codes.UNKNOWN_MEMBER_ID


def test_a_static_member_may_leave_for_good(shard: ConsumerShard) -> None:
    shard.beat("a", -1, instance_id="one")
    assert shard.consumers().is_empty
    assert shard.consumers().instances == {}


def test_who_comes_back_with_other_topics_begins_a_rebalance(shard: ConsumerShard) -> None:
    other = shard.create("other", 1)
    shard.beat("a", -2, instance_id="one")
    response = shard.enter("b", "other", instance_id="one")
    assert told(response) == {other: [0]}
    assert response.member_epoch == 2


def test_an_administrator_removes_a_static_member_by_its_name(shard: ConsumerShard) -> None:
    response = shard.leave(("", "one"), ("", "two"), ("a", None))
    assert [each.error_code for each in response.members] == [
        codes.NONE,
        codes.UNKNOWN_MEMBER_ID,
        codes.NONE,
    ]
    assert shard.consumers().is_empty
