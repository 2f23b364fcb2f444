"""Syncing, heartbeats and leaving: how a generation becomes stable, and how it ends."""

from __future__ import annotations

import pytest

from ottla.coordinator.group.records import GroupCodec
from ottla.errors import codes
from ottla.protocol.messages.group_records import GroupMetadataValue
from tests.coordinator.group.shards import REBALANCE_MS, SESSION_MS, Shard


def test_followers_wait_for_the_leader_and_all_get_what_it_assigns() -> None:
    shard = Shard()
    one, two, three = shard.joined(3)
    second, third = shard.sync(two, 2), shard.sync(three, 2)
    assert not second.is_answered
    first = shard.sync(one, 2, {one: b"a", two: b"b"})
    assert [each.response.assignment for each in (first, second, third)] == [b"a", b"b", b""]
    assert first.response.protocol_type == "consumer"
    assert first.response.protocol_name == "range"
    assert shard.state == "Stable"
    value = GroupCodec().decode(*shard.log[-1])
    assert value is not None and isinstance(value.value, GroupMetadataValue)
    assert value.value.generation == 2
    assert value.value.current_state_timestamp == shard.now.wall_ms


def test_a_member_that_syncs_late_gets_what_it_was_assigned() -> None:
    shard = Shard()
    one, two = shard.joined(2)
    shard.sync(one, 2, {one: b"a", two: b"b"})
    assert shard.state == "Stable"
    assert shard.sync(two, 2).response.assignment == b"b"
    assert shard.sync(two, 2).response.assignment == b"b"


def test_a_leader_that_never_syncs_is_out_and_the_rebalance_begins_anew() -> None:
    shard = Shard()
    one, two = shard.joined(2)
    waiting = shard.sync(two, 2)
    for _ in range(REBALANCE_MS // 5000 - 1):
        shard.advance(5000)
        assert shard.heartbeat(one, 2) == codes.NONE
    assert not waiting.is_answered
    shard.advance(5000)
    assert waiting.error == codes.REBALANCE_IN_PROGRESS
    assert shard.heartbeat(one, 2) == codes.UNKNOWN_MEMBER_ID
    again = shard.join(two).response
    assert (again.generation_id, again.leader) == (3, two)


def test_a_follower_that_never_syncs_is_out_though_the_group_is_stable() -> None:
    shard = Shard()
    one, two = shard.joined(2)
    shard.sync(one, 2, {one: b"a", two: b"b"})
    for _ in range(REBALANCE_MS // 5000):
        shard.advance(5000)
        shard.heartbeat(one, 2)
        shard.heartbeat(two, 2)
    assert shard.state == "PreparingRebalance"
    assert list(shard.group().members) == [one]


def test_where_nobody_ever_syncs_the_group_ends_up_empty() -> None:
    shard = Shard()
    (one,) = shard.joined()
    for _ in range(REBALANCE_MS // 5000):
        shard.advance(5000)
        shard.heartbeat(one, 1)
    assert shard.state == "Empty"
    assert shard.group().generation_id == 2


def test_when_all_have_synced_nobody_is_waited_for() -> None:
    shard = Shard()
    one, two = shard.joined(2)
    shard.sync(two, 2)
    shard.sync(one, 2, {})
    for _ in range(REBALANCE_MS // 5000 + 1):
        shard.advance(5000)
        assert shard.heartbeat(one, 2) == shard.heartbeat(two, 2) == codes.NONE


def test_a_sync_is_judged_by_member_generation_and_protocol() -> None:
    shard = Shard()
    (one,) = shard.joined()
    assert shard.sync("x", 1).error == codes.UNKNOWN_MEMBER_ID
    assert shard.sync(one, 0).error == codes.ILLEGAL_GENERATION
    assert shard.sync(one, 2).error == codes.ILLEGAL_GENERATION
    wrong_type = shard.sync(one, 1, protocol_type="connect", protocol_name="range")
    assert wrong_type.error == codes.INCONSISTENT_GROUP_PROTOCOL
    wrong_name = shard.sync(one, 1, protocol_type="consumer", protocol_name="x")
    assert wrong_name.error == codes.INCONSISTENT_GROUP_PROTOCOL
    good = shard.sync(one, 1, {}, protocol_type="consumer", protocol_name="range")
    assert good.error == codes.NONE


def test_a_sync_during_a_rebalance_says_so() -> None:
    shard = Shard()
    one, _ = shard.stable(2)
    shard.join(one)
    assert shard.sync(one, 2).error == codes.REBALANCE_IN_PROGRESS


def test_a_sync_for_the_generation_before_is_refused() -> None:
    shard = Shard()
    one, two = shard.stable(2)
    shard.join(one)
    shard.join(two)
    assert shard.group().generation_id == 3
    assert shard.sync(two, 2).error == codes.ILLEGAL_GENERATION


def test_nobody_knows_a_group_that_is_not_there() -> None:
    shard = Shard()
    assert shard.sync("x", 1).error == codes.UNKNOWN_MEMBER_ID
    assert shard.heartbeat("x", 1) == codes.UNKNOWN_MEMBER_ID
    assert shard.leave(("x", None)).error_code == codes.UNKNOWN_MEMBER_ID


def test_a_member_that_syncs_twice_has_its_first_sync_ended() -> None:
    shard = Shard()
    one, two = shard.joined(2)
    first = shard.sync(two, 2)
    second = shard.sync(two, 2)
    assert first.error == codes.REBALANCE_IN_PROGRESS
    shard.sync(one, 2, {two: b"b"})
    assert second.response.assignment == b"b"


# -- heartbeats


def test_heartbeats_keep_a_member_and_silence_ends_its_membership() -> None:
    shard = Shard()
    (one,) = shard.stable()
    for _ in range(10):
        shard.advance(SESSION_MS - 1)
        assert shard.heartbeat(one, 1) == codes.NONE
    shard.advance(SESSION_MS - 1)
    assert shard.state == "Stable"
    shard.advance(1)
    assert shard.state == "Empty"
    assert shard.heartbeat(one, 1) == codes.UNKNOWN_MEMBER_ID


def test_a_member_that_falls_silent_costs_the_others_a_rebalance() -> None:
    shard = Shard()
    one, two = shard.stable(2)
    shard.advance(SESSION_MS - 1)
    shard.heartbeat(two, 2)
    shard.advance(1)
    assert shard.heartbeat(two, 2) == codes.REBALANCE_IN_PROGRESS
    again = shard.join(two).response
    assert (again.generation_id, again.leader, len(again.members)) == (3, two, 1)
    assert shard.join(one).error == codes.UNKNOWN_MEMBER_ID


def test_a_heartbeat_is_judged_by_member_and_generation() -> None:
    shard = Shard()
    (one,) = shard.stable()
    assert shard.heartbeat(one, 0) == codes.ILLEGAL_GENERATION
    assert shard.heartbeat(one, 2) == codes.ILLEGAL_GENERATION
    assert shard.heartbeat("x", 1) == codes.UNKNOWN_MEMBER_ID


def test_a_heartbeat_with_an_id_that_has_not_joined_is_of_no_member() -> None:
    shard = Shard()
    shard.stable()
    assert shard.heartbeat(shard.new_id(), 1) == codes.UNKNOWN_MEMBER_ID


def test_heartbeats_are_good_before_the_leader_has_assigned() -> None:
    shard = Shard()
    _, two = shard.joined(2)
    assert shard.heartbeat(two, 2) == codes.NONE


def test_a_member_that_waits_for_its_assignment_need_not_be_heard() -> None:
    shard = Shard()
    one, two = shard.joined(2)
    waiting = shard.sync(two, 2)
    for _ in range(4):
        shard.advance(SESSION_MS // 2)
        shard.heartbeat(one, 2)
    assert not waiting.is_answered
    shard.sync(one, 2, {two: b"b"})
    assert waiting.response.assignment == b"b"
    shard.advance(SESSION_MS - 1)
    assert two in shard.group().members


# -- leaving


def test_the_last_member_leaves_a_group_that_is_empty_and_remembers_its_generation() -> None:
    shard = Shard()
    (one,) = shard.stable()
    response = shard.leave((one, None))
    assert response.error_code == codes.NONE
    assert [(each.member_id, each.error_code) for each in response.members] == [(one, codes.NONE)]
    group = shard.group()
    assert (shard.state, group.generation_id, group.protocol_type) == ("Empty", 2, "consumer")
    assert (group.protocol_name, group.leader_id) == (None, None)
    assert shard.join(version=3).response.generation_id == 3


def test_members_that_leave_cost_the_others_one_rebalance() -> None:
    shard = Shard()
    one, two, three = shard.stable(3)
    response = shard.leave((one, None), (two, None), ("x", None))
    errors = [each.error_code for each in response.members]
    assert errors == [codes.NONE, codes.NONE, codes.UNKNOWN_MEMBER_ID]
    assert shard.heartbeat(three, 2) == codes.REBALANCE_IN_PROGRESS
    again = shard.join(three).response
    assert (again.generation_id, again.leader) == (3, three)


def test_who_leaves_while_others_wait_for_it_ends_their_waiting() -> None:
    shard = Shard()
    one, two = shard.stable(2)
    again = shard.join(one)
    assert not again.is_answered
    shard.leave((two, None))
    assert again.response.generation_id == 3


def test_an_id_that_has_not_joined_can_be_given_back() -> None:
    shard = Shard()
    (one,) = shard.stable()
    pending = shard.new_id()
    response = shard.leave((pending, None))
    assert response.members[0].error_code == codes.NONE
    assert shard.state == "Stable"
    assert shard.join(pending).error == codes.UNKNOWN_MEMBER_ID
    assert shard.heartbeat(one, 1) == codes.NONE


def test_an_id_that_is_given_back_is_not_waited_for_and_costs_one_rebalance_only() -> None:
    shard = Shard()
    (one,) = shard.stable()
    pending = shard.new_id()
    shard.join(version=3)
    again = shard.join(one)
    assert not again.is_answered
    shard.leave((pending, None))
    assert again.response.generation_id == 2
    assert shard.state == "CompletingRebalance"


def test_who_waits_and_leaves_is_told_that_it_is_no_member() -> None:
    shard = Shard()
    one, two = shard.stable(2)
    again = shard.join(one)
    shard.leave((one, None))
    assert again.error == codes.UNKNOWN_MEMBER_ID
    assert shard.heartbeat(two, 2) == codes.REBALANCE_IN_PROGRESS


# -- what cannot be stored


def test_an_assignment_that_cannot_be_stored_is_told_to_all_and_made_anew() -> None:
    shard = Shard()
    one, two = shard.joined(2)
    waiting = shard.sync(two, 2)
    shard.failing = codes.COORDINATOR_NOT_AVAILABLE
    asked = shard.sync(one, 2, {one: b"a", two: b"b"})
    assert asked.error == waiting.error == codes.COORDINATOR_NOT_AVAILABLE
    assert shard.state == "PreparingRebalance"
    shard.failing = codes.NONE
    shard.join(one)
    shard.join(two)
    waiting = shard.sync(two, 3)
    assert shard.sync(one, 3, {one: b"a", two: b"b"}).error == codes.NONE
    assert waiting.response.assignment == b"b"


def test_that_a_group_is_empty_is_noted_later_where_it_cannot_be_stored() -> None:
    shard = Shard()
    (one,) = shard.stable()
    shard.failing = codes.NOT_COORDINATOR
    assert shard.leave((one, None)).error_code == codes.NOT_COORDINATOR
    assert shard.state == "PreparingRebalance"
    shard.advance(60_000)
    assert shard.state == "PreparingRebalance"
    shard.failing = codes.NONE
    shard.advance(5000)
    assert (shard.state, shard.group().generation_id) == ("Empty", 2)


def test_a_group_whose_end_could_not_be_noted_takes_new_members() -> None:
    shard = Shard()
    (one,) = shard.stable()
    shard.failing = codes.NOT_COORDINATOR
    shard.leave((one, None))
    shard.failing = codes.NONE
    assert shard.join(version=3).response.generation_id == 2


@pytest.mark.parametrize("count", [1, 3])
def test_after_a_start_the_members_go_on_with_whole_sessions(count: int) -> None:
    shard = Shard()
    members = shard.stable(count)
    generation = shard.group().generation_id
    shard.advance(SESSION_MS - 1)
    again = shard.reloaded()
    again.advance(SESSION_MS - 1)
    for member in members:
        assert again.heartbeat(member, generation) == codes.NONE
        assert again.sync(member, generation).response.assignment == member.encode()
    again.advance(SESSION_MS)
    assert again.state == "Empty"


def test_a_rebalance_that_a_stop_interrupted_is_as_if_it_had_not_begun() -> None:
    shard = Shard()
    one, two = shard.stable(2)
    shard.join(one)
    shard.join(two)
    assert shard.group().generation_id == 3
    again = shard.reloaded()
    assert (again.state, again.group().generation_id) == ("Stable", 2)
    assert again.heartbeat(two, 3) == codes.ILLEGAL_GENERATION
    assert not again.join(two, protocols={"range": b"other"}).is_answered
