"""Members of the consumer protocol: they join, stay, leave, and what they are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ottla.coordinator.group.consumer.group import MEMBER_STATES, GoesOn, MemberState
from ottla.errors import codes
from tests.coordinator.group.consumer.members import (
    REBALANCE_MS,
    SESSION_MS,
    Client,
    ConsumerShard,
    settle,
    shard_of,
    told,
)
from tests.coordinator.group.shards import TOPIC_ID


@pytest.fixture
def shard() -> ConsumerShard:
    return shard_of(("t", 6))


def topic(shard: ConsumerShard, name: str = "t") -> bytes:
    return shard.cluster.topics[name].topic_id


# -- joining


def test_the_first_member_gets_everything_at_once(shard: ConsumerShard) -> None:
    response = shard.enter("a")
    assert told(response) == {topic(shard): [0, 1, 2, 3, 4, 5]}
    assert (response.member_id, response.member_epoch) == ("a", 1)
    assert response.heartbeat_interval_ms == 5000
    assert shard.consumers().state_name == "Stable"


def test_a_member_without_an_id_is_given_one(shard: ConsumerShard) -> None:
    response = shard.enter("")
    assert response.member_id
    assert list(shard.consumers().members) == [response.member_id]


def test_a_heartbeat_with_nothing_new_stores_and_tells_nothing(shard: ConsumerShard) -> None:
    shard.enter("a")
    size = len(shard.log)
    assert told(shard.beat("a", 1)) is None
    assert len(shard.log) == size


def test_a_member_that_says_all_is_told_all(shard: ConsumerShard) -> None:
    shard.enter("a")
    response = shard.beat(
        "a", 1, owned={}, subscribed_topic_names=["t"], rebalance_timeout_ms=REBALANCE_MS
    )
    assert told(response) == {topic(shard): [0, 1, 2, 3, 4, 5]}


def test_what_others_have_is_not_given_before_they_have_given_it_up(shard: ConsumerShard) -> None:
    shard.enter("a")
    assert told(shard.enter("b")) == {}
    assert shard.member("b").state is MemberState.UNRELEASED_PARTITIONS
    assert shard.consumers().state_name == "Reconciling"
    response = shard.beat("a", 1)
    assert told(response) == {topic(shard): [0, 1, 2]}
    assert response.member_epoch == 1
    assert shard.member("a").state is MemberState.UNREVOKED_PARTITIONS
    assert told(shard.beat("b", 2)) is None
    still = shard.beat("a", 1, owned={topic(shard): [0, 1, 2, 5]})
    assert (told(still), still.member_epoch) == (None, 1)
    assert shard.beat("a", 1, owned={topic(shard): [0, 1, 2]}).member_epoch == 2
    assert told(shard.beat("b", 2)) == {topic(shard): [3, 4, 5]}
    assert shard.consumers().state_name == "Stable"


def test_a_member_that_wants_other_topics_gives_up_what_it_has(shard: ConsumerShard) -> None:
    other = shard.create("other", 2)
    shard.enter("a")
    response = shard.beat("a", 1, subscribed_topic_names=["other"])
    assert told(response) == {}
    done = shard.beat("a", 1, owned={})
    assert told(done) == {other: [0, 1]}
    assert done.member_epoch == 2


def test_who_changes_its_mind_while_it_gives_up_gives_up_that_too(shard: ConsumerShard) -> None:
    other = shard.create("other", 2)
    shard.enter("a", "t", "other")
    shard.enter("b", "t")
    shard.beat("a", 1)
    revoked = set(shard.member("a").pending_revocation)
    kept = {each for each in shard.member("a").assigned if each[0] == other}
    assert revoked
    assert kept
    response = shard.beat("a", 1, subscribed_topic_names=["t"])
    assert other not in (told(response) or {})
    assert set(shard.member("a").pending_revocation) == revoked | kept


def test_a_topic_that_does_not_exist_is_assigned_when_it_does(shard: ConsumerShard) -> None:
    assert told(shard.enter("a", "later")) == {}
    later = shard.create("later", 2)
    assert told(shard.beat("a", 1)) == {later: [0, 1]}


def test_more_partitions_are_seen_with_the_next_heartbeat(shard: ConsumerShard) -> None:
    shard.enter("a")
    shard.grow("t", 8)
    assert told(shard.beat("a", 1)) == {topic(shard): [0, 1, 2, 3, 4, 5, 6, 7]}


def test_a_deleted_topic_is_given_up_and_its_successor_is_another_one(
    shard: ConsumerShard,
) -> None:
    shard.enter("a")
    shard.delete("t")
    assert told(shard.beat("a", 1)) == {}
    assert shard.beat("a", 1, owned={}).member_epoch == 2
    again = shard.create("t", 2)
    assert told(shard.beat("a", 2)) == {again: [0, 1]}


def test_topics_that_nobody_reads_change_nothing(shard: ConsumerShard) -> None:
    shard.enter("a")
    size = len(shard.log)
    shard.create("unread", 3)
    shard.beat("a", 1)
    assert len(shard.log) == size


def test_the_group_may_be_full() -> None:
    shard = shard_of(("t", 2), group_consumer_max_size=1)
    shard.enter("a")
    assert shard.enter("b").error_code == codes.GROUP_MAX_SIZE_REACHED
    assert shard.enter("a").error_code == codes.NONE


def test_most_members_choose_the_assignor() -> None:
    shard = shard_of(("t", 3), ("u", 3))
    shard.enter("a", "t", "u", server_assignor="range")
    shard.enter("b", "t", "u", server_assignor="range")
    a, b = Client(shard, "a"), Client(shard, "b")
    a.epoch, b.epoch = 1, 2
    a.owned = {topic(shard, name): [0, 1, 2] for name in "tu"}
    settle(a, b)
    assert shard.assigned("a") == {"t": [0, 1], "u": [0, 1]}
    assert shard.assigned("b") == {"t": [2], "u": [2]}


# -- fencing


def test_a_member_that_is_none_is_told_so(shard: ConsumerShard) -> None:
    assert shard.beat("a", 1).error_code == codes.GROUP_ID_NOT_FOUND
    assert shard.beat("a", -1).error_code == codes.GROUP_ID_NOT_FOUND
    shard.enter("a")
    assert shard.beat("b", 1).error_code == codes.UNKNOWN_MEMBER_ID
    assert shard.beat("b", -1).error_code == codes.UNKNOWN_MEMBER_ID


def test_a_member_in_an_epoch_that_is_not_its_is_fenced(shard: ConsumerShard) -> None:
    shard.enter("a")
    shard.grow("t", 7)
    shard.beat("a", 1)
    shard.grow("t", 8)
    shard.beat("a", 2)
    assert shard.member("a").member_epoch == 3
    assert shard.beat("a", 4).error_code == codes.FENCED_MEMBER_EPOCH
    assert shard.beat("a", 1, owned={}).error_code == codes.FENCED_MEMBER_EPOCH
    assert shard.beat("a", 2).error_code == codes.FENCED_MEMBER_EPOCH
    too_many = shard.beat("a", 2, owned={topic(shard): [9]})
    assert too_many.error_code == codes.FENCED_MEMBER_EPOCH


def test_a_member_whose_answer_was_lost_may_come_with_the_epoch_before(
    shard: ConsumerShard,
) -> None:
    shard.enter("a")
    shard.grow("t", 7)
    shard.beat("a", 1)
    response = shard.beat("a", 1, owned={topic(shard): [0, 1]})
    assert response.error_code == codes.NONE
    assert response.member_epoch == 2


def test_a_fenced_member_joins_again_with_nothing(shard: ConsumerShard) -> None:
    shard.enter("a")
    shard.enter("b")
    shard.beat("a", 1)
    assert shard.member("a").state is MemberState.UNREVOKED_PARTITIONS
    response = shard.enter("a")
    assert told(response) == {topic(shard): [0, 1, 2]}
    assert response.member_epoch == 2
    assert told(shard.beat("b", 2)) == {topic(shard): [3, 4, 5]}


def test_a_member_in_a_state_that_is_not_known_gives_up_everything(shard: ConsumerShard) -> None:
    shard.enter("a")
    members = shard.consumers().members
    members["a"] = replace(members["a"], state=MemberState.UNKNOWN)
    assert shard.beat("a", 1).error_code == codes.FENCED_MEMBER_EPOCH
    assert told(shard.enter("a")) == {topic(shard): [0, 1, 2, 3, 4, 5]}


# -- leaving and deadlines


def test_what_a_member_had_that_left_goes_to_others(shard: ConsumerShard) -> None:
    a, b = Client(shard, "a"), Client(shard, "b")
    a.join()
    b.join()
    settle(a, b)
    response = shard.beat("a", -1)
    assert (response.member_id, response.member_epoch) == ("a", -1)
    assert shard.consumers().state_name == "Assigning"
    b.beat()
    assert len(b.partitions) == 6


def test_the_last_member_leaves_an_empty_group(shard: ConsumerShard) -> None:
    shard.enter("a")
    shard.beat("a", -1)
    assert shard.consumers().state_name == "Empty"
    assert shard.timers.next_deadline_ms() is None
    assert shard.enter("b").member_epoch == 3


def test_a_silent_member_is_put_out_when_its_session_is_over(shard: ConsumerShard) -> None:
    shard.enter("a")
    shard.advance(SESSION_MS - 1)
    shard.beat("a", 1)
    shard.advance(SESSION_MS - 1)
    assert not shard.consumers().is_empty
    shard.advance(1)
    assert shard.consumers().is_empty
    assert shard.beat("a", 1).error_code == codes.UNKNOWN_MEMBER_ID


def test_a_member_that_does_not_give_up_in_time_is_put_out(shard: ConsumerShard) -> None:
    shard.enter("a")
    shard.enter("b")
    shard.beat("a", 1)
    for _ in range(5):
        shard.advance(REBALANCE_MS / 6)
        shard.beat("a", 1)
        shard.beat("b", 2)
    shard.advance(REBALANCE_MS / 6 - 1)
    assert "a" in shard.consumers().members
    shard.advance(1)
    assert "a" not in shard.consumers().members
    assert told(shard.beat("b", 2)) == {topic(shard): [0, 1, 2, 3, 4, 5]}


def test_a_member_that_gave_up_in_time_stays(shard: ConsumerShard) -> None:
    shard.enter("a")
    shard.enter("b")
    shard.beat("a", 1)
    shard.beat("a", 1, owned={topic(shard): [0, 1, 2]})
    for _ in range(4):
        shard.advance(REBALANCE_MS / 2)
        shard.beat("a", 2)
        shard.beat("b", 2)
    assert set(shard.consumers().members) == {"a", "b"}


def test_deadlines_begin_anew_with_a_start(shard: ConsumerShard) -> None:
    shard.enter("a")
    shard.enter("b")
    shard.beat("a", 1)
    again = shard.reloaded()
    assert isinstance(again, ConsumerShard)
    again.advance(SESSION_MS - 1)
    again.beat("a", 1)
    again.beat("b", 2)
    again.advance(REBALANCE_MS - SESSION_MS)
    assert set(again.consumers().members) == {"a", "b"}
    again.advance(1)
    assert set(again.consumers().members) == {"b"}


# -- what cannot be stored


def test_nothing_has_happened_when_records_cannot_be_stored(shard: ConsumerShard) -> None:
    shard.enter("a")
    before = shard.known()
    shard.failing = codes.NOT_COORDINATOR
    assert shard.enter("b").error_code == codes.NOT_COORDINATOR
    assert shard.beat("a", -1).error_code == codes.NOT_COORDINATOR
    shard.grow("t", 9)
    assert shard.beat("a", 1).error_code == codes.NOT_COORDINATOR
    assert shard.known() == before
    shard.failing = codes.NONE
    assert told(shard.beat("a", 1)) == {topic(shard): list(range(9))}


def test_a_silent_member_is_put_out_later_where_that_cannot_be_stored_now(
    shard: ConsumerShard,
) -> None:
    shard.enter("a")
    shard.failing = codes.NOT_COORDINATOR
    shard.advance(SESSION_MS)
    assert not shard.consumers().is_empty
    shard.failing = codes.NONE
    shard.advance(5000)
    assert shard.consumers().is_empty


# -- the table


def test_every_state_has_its_rules() -> None:
    assert set(MEMBER_STATES) == set(MemberState)
    assert {rules.goes_on for rules in MEMBER_STATES.values()} == set(GoesOn)
    for state, rules in MEMBER_STATES.items():
        assert state not in rules.following
        assert MemberState.UNKNOWN not in rules.following


def test_a_number_that_is_no_state_is_the_unknown_one() -> None:
    assert MemberState(99) is MemberState.UNKNOWN


# -- offsets


def commit(shard: ConsumerShard, epoch: int, version: int = 9, member: str = "a") -> int:
    return shard.commit(7, member_id=member, generation=epoch, version=version)


def test_a_member_commits_in_its_epoch(shard: ConsumerShard) -> None:
    assert shard.commit(1) == codes.NONE
    shard.enter("a")
    assert commit(shard, 1) == codes.NONE
    assert commit(shard, 1, version=8) == codes.UNSUPPORTED_VERSION
    assert commit(shard, 2) == codes.STALE_MEMBER_EPOCH
    assert commit(shard, 1, member="b") == codes.UNKNOWN_MEMBER_ID
    assert shard.commit(1) == codes.UNKNOWN_MEMBER_ID
    assert shard.committed() == 7


def test_a_member_that_went_on_commits_in_an_old_epoch_what_it_had_then() -> None:
    shard = shard_of()
    for record in shard.cluster.create_topic("t", TOPIC_ID, 1, {}).records:
        shard.cluster.replay(record)
    shard.enter("a")
    shard.create("u", 1)
    shard.beat("a", 1, subscribed_topic_names=["t", "u"])
    assert shard.member("a").member_epoch == 2
    assert commit(shard, 1) == codes.NONE
    assert commit(shard, 0) == codes.STALE_MEMBER_EPOCH
    shard.beat("a", 2, subscribed_topic_names=["u"])
    shard.beat("a", 2, owned={})
    assert commit(shard, 2) == codes.STALE_MEMBER_EPOCH


def test_offsets_are_fetched_in_the_member_s_epoch(shard: ConsumerShard) -> None:
    shard.enter("a")
    group = shard.consumers()
    assert group.check_fetch(None, -1) == codes.NONE
    assert group.check_fetch("a", 1) == codes.NONE
    assert group.check_fetch("a", 2) == codes.STALE_MEMBER_EPOCH
    assert group.check_fetch("b", 1) == codes.UNKNOWN_MEMBER_ID


def test_what_members_read_does_not_expire_and_an_empty_group_goes(shard: ConsumerShard) -> None:
    shard.enter("a")
    commit(shard, 1)
    shard.commit(3, topic="other", member_id="a", generation=0)
    week_ms = shard.coordinator._settings.offsets_retention_ms
    shard.clock.advance(week_ms)
    for decision in shard.coordinator.expire_offsets(shard.now):
        shard.do(decision)
    assert shard.committed() == 7
    shard.beat("a", -1)
    for decision in shard.coordinator.expire_offsets(shard.now):
        shard.do(decision)
    assert shard.coordinator.groups == {}
    assert shard.reloaded().coordinator.groups == {}


def test_a_group_with_members_cannot_be_deleted_and_an_empty_one_can(
    shard: ConsumerShard,
) -> None:
    shard.enter("a")
    error, decision = shard.coordinator.delete_group("g")
    assert error == codes.NON_EMPTY_GROUP
    assert decision.records == []
    shard.beat("a", -1)
    error, decision = shard.coordinator.delete_group("g")
    assert error == codes.NONE
    shard.do(decision)
    assert shard.reloaded().coordinator.groups == {}
