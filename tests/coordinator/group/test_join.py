"""Joining a classic group: ids, generations, leaders, protocols, and how long all of it takes."""

from __future__ import annotations

from typing import Any

import pytest

from ottla.coordinator.group.rebalance import NEW_MEMBER_JOIN_TIMEOUT_MS
from ottla.errors import codes
from tests.coordinator.group.shards import REBALANCE_MS, SESSION_MS, Asked, Shard, subscription


def told(asked: Asked) -> tuple[int, int, str, int]:
    """Return error, generation, leader and how many members are told."""
    response: Any = asked.response
    return response.error_code, response.generation_id, response.leader, len(response.members)


def test_a_new_dynamic_member_is_given_an_id_and_leads_the_first_generation() -> None:
    shard = Shard()
    asked = shard.join()
    assert asked.error == codes.MEMBER_ID_REQUIRED
    member = asked.response.member_id
    assert member == "c-1"
    assert shard.state == "Empty"
    asked = shard.join(member)
    assert told(asked) == (codes.NONE, 1, member, 1)
    assert asked.response.member_id == member
    assert asked.response.protocol_name == "range"
    assert asked.response.protocol_type == "consumer"
    assert asked.response.members[0].metadata == subscription("t")
    assert shard.state == "CompletingRebalance"


@pytest.mark.parametrize("version", [0, 3])
def test_before_version_4_a_new_member_joins_at_once(version: int) -> None:
    asked = Shard().join(version=version)
    assert told(asked) == (codes.NONE, 1, "c-1", 1)


def test_a_static_member_joins_at_once_and_its_id_names_it_and_the_time() -> None:
    shard = Shard()
    asked = shard.join(instance="i")
    assert told(asked) == (codes.NONE, 1, f"i-{shard.now.wall_ms:012x}-1", 1)
    assert asked.response.members[0].group_instance_id == "i"


def test_without_a_rebalance_timeout_the_session_timeout_is_meant() -> None:
    shard = Shard()
    shard.join(version=0, rebalance_ms=-1)
    assert shard.group().rebalance_timeout_ms == SESSION_MS


@pytest.mark.parametrize("session_ms", [5999, 1_800_001, 0, -1])
def test_a_session_timeout_must_be_within_the_broker_s_limits(session_ms: int) -> None:
    shard = Shard()
    asked = shard.join(session_ms=session_ms)
    assert asked.error == codes.INVALID_SESSION_TIMEOUT
    assert shard.coordinator.groups == {}


def test_the_limits_of_a_session_timeout_are_inclusive() -> None:
    for session_ms in (6000, 1_800_000):
        assert Shard().join(session_ms=session_ms, version=3).error == codes.NONE


def test_an_id_that_nobody_was_given_is_unknown() -> None:
    shard = Shard()
    assert shard.join("x").error == codes.UNKNOWN_MEMBER_ID
    assert shard.coordinator.groups == {}
    shard.stable()
    assert shard.join("x").error == codes.UNKNOWN_MEMBER_ID


def test_an_id_that_was_never_used_is_forgotten_after_its_session_and_so_is_its_group() -> None:
    shard = Shard()
    member = shard.new_id()
    shard.advance(SESSION_MS - 1)
    assert "g" in shard.coordinator.groups
    shard.advance(1)
    assert shard.coordinator.groups == {}
    assert shard.join(member).error == codes.UNKNOWN_MEMBER_ID
    assert shard.log == []


@pytest.mark.parametrize(
    ("protocol_type", "protocols"),
    [("", {"range": b""}), ("consumer", {}), ("", {})],
)
def test_a_member_must_speak_something(protocol_type: str, protocols: dict[str, bytes]) -> None:
    shard = Shard()
    asked = shard.join(protocol_type=protocol_type, protocols=protocols)
    assert asked.error == codes.INCONSISTENT_GROUP_PROTOCOL
    assert shard.coordinator.groups == {}


def test_a_member_must_speak_what_the_others_do() -> None:
    shard = Shard()
    shard.stable()
    assert shard.join(protocol_type="connect").error == codes.INCONSISTENT_GROUP_PROTOCOL
    assert shard.join(protocols={"other": b""}).error == codes.INCONSISTENT_GROUP_PROTOCOL
    assert shard.join(protocols={"other": b"", "range": b""}).error == codes.MEMBER_ID_REQUIRED


def test_any_protocol_type_makes_a_group_and_an_empty_group_can_have_another_one() -> None:
    shard = Shard()
    asked = shard.join(version=3, protocol_type="connect", protocols={"sessioned": b"x"})
    member = asked.response.member_id
    assert asked.response.protocol_type == "connect"
    shard.sync(member, 1, {member: b"a"})
    shard.leave((member, None))
    assert shard.state == "Empty"
    asked = shard.join(version=3, protocol_type="sr", protocols={"v0": b"y"})
    assert told(asked)[:2] == (codes.NONE, 3)
    assert asked.response.protocol_type == "sr"


def test_the_protocol_is_what_most_like_best_among_those_that_all_speak() -> None:
    shard = Shard()
    first = shard.join(version=3, protocols={"a": b"1a", "b": b"1b", "c": b"1c"})
    one = first.response.member_id
    two = shard.join(version=3, protocols={"b": b"2b", "a": b"2a"})
    three = shard.join(version=3, protocols={"b": b"3b", "a": b"3a"})
    again = shard.join(one, protocols={"a": b"1a", "b": b"1b", "c": b"1c"})
    assert {each.response.protocol_name for each in (again, two, three)} == {"b"}
    assert [each.metadata for each in again.response.members] == [b"1b", b"2b", b"3b"]


def test_of_two_that_are_liked_alike_it_is_what_the_first_member_likes_better() -> None:
    shard = Shard()
    one = shard.join(version=3, protocols={"a": b"", "b": b""}).response.member_id
    shard.join(version=3, protocols={"b": b"", "a": b""})
    again = shard.join(one, protocols={"a": b"", "b": b""})
    assert again.response.protocol_name == "a"


def test_who_joins_a_stable_group_waits_until_its_members_have_joined_again() -> None:
    shard = Shard()
    (one,) = shard.stable()
    two = shard.new_id()
    assert shard.state == "Stable"
    asked = shard.join(two)
    assert not asked.is_answered
    assert shard.state == "PreparingRebalance"
    assert shard.heartbeat(one, 1) == codes.REBALANCE_IN_PROGRESS
    again = shard.join(one)
    assert told(again) == (codes.NONE, 2, one, 2)
    assert told(asked) == (codes.NONE, 2, one, 0)


def test_who_does_not_join_again_in_time_is_out() -> None:
    shard = Shard()
    one, two = shard.stable(2)
    again = shard.join(one)
    assert not again.is_answered
    for _ in range(REBALANCE_MS // 5000 - 1):
        shard.advance(5000)
        assert shard.heartbeat(two, 2) == codes.REBALANCE_IN_PROGRESS
        assert not again.is_answered
    shard.advance(5000)
    assert told(again) == (codes.NONE, 3, one, 1)
    assert shard.heartbeat(two, 2) == codes.UNKNOWN_MEMBER_ID


def test_a_leader_that_does_not_join_again_in_time_is_no_leader_any_more() -> None:
    shard = Shard()
    one, two = shard.stable(2)
    three = shard.new_id()
    asked = shard.join(three)
    again = shard.join(two)
    for _ in range(REBALANCE_MS // 5000):
        shard.advance(5000)
        shard.heartbeat(one, 2)
    assert told(again) == (codes.NONE, 3, two, 2)
    assert told(asked) == (codes.NONE, 3, two, 0)


def test_the_time_to_join_again_is_what_the_slowest_member_asks_for() -> None:
    shard = Shard()
    one = shard.join(version=3, rebalance_ms=20_000, session_ms=30_000).response.member_id
    shard.sync(one, 1)
    two = shard.join(version=3, rebalance_ms=40_000, session_ms=30_000)
    for _ in range(3):
        shard.advance(10_000)
        shard.heartbeat(one, 1)
    shard.advance(9_999)
    assert not two.is_answered
    shard.advance(1)
    assert told(two)[:2] == (codes.NONE, 2)


def test_a_member_that_joins_again_during_a_rebalance_has_its_first_join_ended() -> None:
    shard = Shard()
    shard.stable()
    two = shard.new_id()
    first = shard.join(two)
    second = shard.join(two)
    assert first.error == codes.REBALANCE_IN_PROGRESS
    assert not second.is_answered


def test_a_member_that_missed_its_answer_is_told_the_generation_again() -> None:
    shard = Shard()
    one, two = shard.joined(2)
    assert told(shard.join(one)) == (codes.NONE, 2, one, 2)
    assert told(shard.join(two)) == (codes.NONE, 2, one, 0)
    assert shard.state == "CompletingRebalance"


def test_a_member_that_wants_something_else_before_the_leader_has_assigned_begins_anew() -> None:
    shard = Shard()
    one, two = shard.joined(2)
    waiting = shard.sync(two, 2)
    asked = shard.join(one, protocols={"range": subscription("u")})
    assert not asked.is_answered
    assert waiting.error == codes.REBALANCE_IN_PROGRESS
    assert shard.state == "PreparingRebalance"
    assert told(shard.join(two))[:2] == (codes.NONE, 3)


def test_a_stable_group_s_follower_that_joins_again_unchanged_disturbs_nobody() -> None:
    shard = Shard()
    one, two = shard.stable(2)
    assert told(shard.join(two)) == (codes.NONE, 2, one, 0)
    assert shard.state == "Stable"


def test_a_stable_group_s_follower_that_reads_something_else_begins_a_rebalance() -> None:
    shard = Shard()
    _, two = shard.stable(2)
    assert not shard.join(two, protocols={"range": subscription("u")}).is_answered
    assert shard.state == "PreparingRebalance"


def test_a_stable_group_s_leader_that_joins_again_begins_a_rebalance() -> None:
    shard = Shard()
    one, _ = shard.stable(2)
    assert not shard.join(one).is_answered
    assert shard.state == "PreparingRebalance"


def test_a_new_member_that_waits_too_long_for_its_generation_is_told_to_begin_anew() -> None:
    shard = Shard()
    one = shard.join(version=3, rebalance_ms=900_000).response.member_id
    shard.sync(one, 1)
    asked = shard.join(version=3)
    for _ in range(NEW_MEMBER_JOIN_TIMEOUT_MS // 5000 - 1):
        shard.advance(5000)
        assert shard.heartbeat(one, 1) == codes.REBALANCE_IN_PROGRESS
    assert not asked.is_answered
    shard.advance(5000)
    assert asked.error == codes.UNKNOWN_MEMBER_ID
    assert asked.response.member_id == ""
    assert list(shard.group().members) == [one]


def test_a_known_member_that_waits_for_its_generation_need_not_be_heard() -> None:
    shard = Shard()
    one, two = shard.stable(2)
    again = shard.join(one)
    for _ in range(5):
        shard.advance(5000)
        shard.heartbeat(two, 2)
    assert not again.is_answered
    assert list(shard.group().members) == [one, two]


def test_an_id_that_was_handed_out_is_waited_for_like_a_member() -> None:
    shard = Shard()
    (one,) = shard.stable()
    asked = shard.join(version=3)
    shard.new_id()
    again = shard.join(one)
    assert not again.is_answered
    shard.advance(SESSION_MS)
    assert told(again)[:2] == told(asked)[:2] == (codes.NONE, 2)


# -- the initial delay


def test_the_first_generation_waits_for_others_where_the_broker_wants_that() -> None:
    shard = Shard(group_initial_rebalance_delay_ms=3000)
    one = shard.join(version=3)
    shard.advance(2999)
    assert not one.is_answered
    shard.advance(1)
    assert told(one)[:2] == (codes.NONE, 1)


def test_others_that_join_prolong_the_delay_up_to_the_rebalance_timeout() -> None:
    shard = Shard(group_initial_rebalance_delay_ms=3000)
    joins = [shard.join(version=3, rebalance_ms=10_000)]
    for _ in range(3):
        shard.advance(2900)
        joins.append(shard.join(version=3, rebalance_ms=10_000))
    shard.advance(10_000 - 3 * 2900 - 1)
    assert not joins[0].is_answered
    shard.advance(1)
    assert {each.response.generation_id for each in joins} == {1}
    assert len(joins[0].response.members) == 4


def test_the_delay_is_not_cut_short_when_somebody_leaves() -> None:
    shard = Shard(group_initial_rebalance_delay_ms=3000)
    shard.join(version=3)
    two = shard.join(version=3)
    shard.leave(("c-1", None))
    assert not two.is_answered
    shard.advance(6000)
    assert told(two)[:2] == (codes.NONE, 1)


def test_where_everybody_leaves_during_the_delay_the_group_is_empty() -> None:
    shard = Shard(group_initial_rebalance_delay_ms=3000)
    asked = shard.join(version=3)
    shard.leave(("c-1", None))
    assert asked.error == codes.UNKNOWN_MEMBER_ID
    assert shard.state == "Empty"
    shard.advance(60_000)
    assert shard.state == "Empty"


# -- the largest size


def test_a_group_that_is_full_takes_nobody_else() -> None:
    shard = Shard(group_max_size=2)
    one, two = shard.stable(2)
    asked = shard.join()
    assert asked.error == codes.GROUP_MAX_SIZE_REACHED
    assert asked.response.member_id == ""
    assert not shard.join(one).is_answered
    assert told(shard.join(two))[:2] == (codes.NONE, 3)


def test_in_a_rebalance_those_count_that_have_joined() -> None:
    shard = Shard(group_max_size=2)
    (one,) = shard.stable()
    shard.join(version=3)
    shard.join(version=3)
    assert shard.join(one).error == codes.GROUP_MAX_SIZE_REACHED
    assert one not in shard.group().members


def test_a_group_that_is_loaded_and_too_large_shrinks() -> None:
    shard = Shard()
    one, two = shard.stable(2)
    shard.settings["group_max_size"] = 1
    again = shard.reloaded()
    assert again.state == "PreparingRebalance"
    assert not again.join(one).is_answered
    assert again.join(two).error == codes.GROUP_MAX_SIZE_REACHED
