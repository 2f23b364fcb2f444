"""Members that subscribe to regular expressions."""

from __future__ import annotations

import pytest

from ottla.errors import codes
from tests.coordinator.group.consumer.members import ConsumerShard, shard_of, told


@pytest.fixture
def shard() -> ConsumerShard:
    return shard_of(("foo", 2), ("bar", 1), ("internal", 1))


def read(shard: ConsumerShard, member_id: str = "a") -> list[str]:
    return sorted(shard.assigned(member_id))


def test_what_matches_as_a_whole_is_assigned(shard: ConsumerShard) -> None:
    shard.create("a-foo", 1)
    shard.enter("a", subscribed_topic_regex="fo*")
    assert read(shard) == ["foo"]


def test_internal_topics_match_nothing(shard: ConsumerShard) -> None:
    shard.enter("a", subscribed_topic_regex=".*")
    assert read(shard) == ["bar", "foo"]


def test_names_and_an_expression_go_together(shard: ConsumerShard) -> None:
    shard.enter("a", subscribed_topic_regex="f.*", subscribed_topic_names=["bar"])
    assert read(shard) == ["bar", "foo"]


def test_a_new_topic_that_matches_is_seen_with_the_next_heartbeat(shard: ConsumerShard) -> None:
    shard.enter("a", subscribed_topic_regex="f.*")
    shard.create("fresh", 1)
    shard.beat("a", 1)
    assert read(shard) == ["foo", "fresh"]
    shard.delete("foo")
    shard.beat("a", 2)
    shard.beat("a", 2, owned={shard.cluster.topics["fresh"].topic_id: [0]})
    assert read(shard) == ["fresh"]


def test_a_topic_that_came_while_nobody_listened_is_seen_after_a_start(
    shard: ConsumerShard,
) -> None:
    shard.enter("a", subscribed_topic_regex="f.*")
    shard.create("fresh", 1)
    again = shard.reloaded()
    assert isinstance(again, ConsumerShard)
    again.beat("a", 1)
    assert read(again) == ["foo", "fresh"]


@pytest.mark.parametrize("regex", ["(", "[a", "a**", "(?=a)", r"(a)\1", "x" * 501, "a{1001}"])
def test_what_cannot_be_an_expression_is_refused(shard: ConsumerShard, regex: str) -> None:
    response = shard.enter("a", subscribed_topic_regex=regex)
    assert response.error_code == codes.INVALID_REGULAR_EXPRESSION
    assert shard.coordinator.groups == {}


def test_an_expression_nobody_subscribes_to_any_more_is_forgotten(shard: ConsumerShard) -> None:
    shard.enter("a", subscribed_topic_regex="f.*")
    shard.enter("b", subscribed_topic_regex="f.*")
    shard.beat("a", 1, subscribed_topic_regex="b.*")
    assert set(shard.consumers().regexes) == {"f.*", "b.*"}
    shard.beat("b", -1)
    assert set(shard.consumers().regexes) == {"b.*"}
    response = shard.enter("a", "bar", subscribed_topic_regex="", subscribed_topic_names=["bar"])
    assert told(response) == {shard.cluster.topics["bar"].topic_id: [0]}
    assert shard.consumers().regexes == {}


def test_the_topics_of_an_expression_are_subscribed_to(shard: ConsumerShard) -> None:
    shard.enter("a", subscribed_topic_regex="f.*")
    assert shard.consumers().is_subscribed_to("foo")
    assert not shard.consumers().is_subscribed_to("bar")
