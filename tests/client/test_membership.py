"""A member of a classic group, against a scripted coordinator, with a clock that stands still."""

from __future__ import annotations

import logging

import pytest

from ottla.client.assignors import Subscription, decode_subscription
from ottla.client.classic_membership import State
from ottla.client.offsets import OffsetAndMetadata
from ottla.errors import CommitFailed, FencedMember, codes
from ottla.errors.broker import GroupAuthorizationFailed, InconsistentGroupProtocol
from ottla.protocol.messages.api_08_offset_commit import OffsetCommitRequest
from ottla.protocol.messages.api_11_join_group import JoinGroupRequest
from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest
from ottla.protocol.messages.api_13_leave_group import LeaveGroupRequest
from ottla.protocol.messages.api_14_sync_group import SyncGroupRequest
from ottla.protocol.messages.api_15_describe_groups import DescribeGroupsResponse
from tests.client.scripted_group import ME, OTHER, GroupScript, parts

RETRY_MS = 100


def test_a_member_joins_syncs_and_reads_without_any_waiting() -> None:
    script = GroupScript()
    began_ms = script.clock.monotonic_ms()
    script.poll()
    script.refuse_join(codes.MEMBER_ID_REQUIRED, ME)
    assert script.join(1).member_id == ME
    assert script.sync(0, 1, 2, 3) == {ME: [0, 1, 2, 3]}
    assert script.clock.monotonic_ms() == began_ms
    script.poll()
    assert script.changes == [("assigned", [0, 1, 2, 3])]
    assert script.membership.is_settled
    positions = {
        where.partition: each.position for where, each in script.core.fetcher.partitions.items()
    }
    assert positions == {0: 0, 1: 0, 2: 0, 3: 0}


def test_what_is_told_of_oneself_names_both_assignors_and_what_is_owned() -> None:
    script = GroupScript()
    script.become_member(0, 1)
    script.heartbeat(codes.REBALANCE_IN_PROGRESS)
    request = script.next(JoinGroupRequest)
    assert [each.name for each in request.protocols] == ["cooperative-sticky", "range"]
    for each in request.protocols:
        told = decode_subscription(each.metadata)
        assert told == Subscription(frozenset(["t"]), parts(0, 1), 1)


def test_heartbeats_go_on_while_nobody_polls() -> None:
    script = GroupScript(heartbeat_interval_ms=3000)
    script.become_member(0)
    for _ in range(20):
        script.heartbeat()
    assert script.sent[-20:] == ["Heartbeat"] * 20
    assert script.membership.state is State.STABLE


def test_a_cooperative_member_joins_again_without_its_user_and_gives_back_what_moves() -> None:
    script = GroupScript()
    script.become_member(0, 1, 2, 3)
    script.heartbeat(codes.REBALANCE_IN_PROGRESS)
    newcomer = {OTHER: Subscription(frozenset(["t"]))}
    script.join(2, others=newcomer)
    assert script.sync(0, 1) == {ME: [0, 1], OTHER: []}, "what is read still is nobody's yet"
    assert script.membership.owned == parts(0, 1, 2, 3)
    assert script.changes[1:] == []
    script.poll()
    assert script.changes[1:] == [("revoked", [2, 3])]
    told = decode_subscription(script.next(JoinGroupRequest).protocols[0].metadata)
    assert told.owned == parts(0, 1)
    script.join(3, others=newcomer)
    assert script.sync(0, 1) == {ME: [0, 1], OTHER: [2, 3]}
    script.poll()
    assert script.changes[2:] == []
    assert script.membership.is_settled


def test_an_eager_member_gives_everything_back_before_it_joins_again() -> None:
    script = GroupScript(partition_assignment_strategy="range")
    script.become_member(0, 1, protocol="range")
    script.heartbeat(codes.REBALANCE_IN_PROGRESS)
    assert script.waiting == [], "its user still reads"
    script.heartbeat(codes.REBALANCE_IN_PROGRESS)
    script.poll()
    assert script.changes == [("assigned", [0, 1]), ("revoked", [0, 1])]
    assert decode_subscription(script.join(2, protocol="range").protocols[0].metadata).owned == (
        frozenset()
    )
    script.sync(1)
    script.poll()
    assert script.changes[2:] == [("assigned", [1])]


def test_everything_is_lost_when_the_group_changes_to_an_eager_assignor() -> None:
    script = GroupScript()
    script.become_member(0, 1)
    script.heartbeat(codes.REBALANCE_IN_PROGRESS)
    script.join(2, protocol="range", leads=False)
    assert script.membership.owned == frozenset()
    script.sync(1, 2)
    script.poll()
    assert script.changes[1:] == [("lost", [0, 1]), ("assigned", [1, 2])]


@pytest.mark.parametrize("code", [codes.UNKNOWN_MEMBER_ID, codes.ILLEGAL_GENERATION])
def test_a_member_that_is_out_has_lost_everything_and_joins_anew(code: int) -> None:
    script = GroupScript()
    script.become_member(0, 1)
    script.heartbeat(code)
    expected = "" if code == codes.UNKNOWN_MEMBER_ID else ME
    assert script.next(JoinGroupRequest).member_id == expected
    assert script.membership.identity is None
    script.poll()
    assert script.changes[1:] == [("lost", [0, 1])]
    script.join(5)
    script.sync(0, 1)
    script.poll()
    assert script.changes[2:] == [("assigned", [0, 1])]


@pytest.mark.parametrize(
    "code",
    [
        codes.COORDINATOR_LOAD_IN_PROGRESS,
        codes.COORDINATOR_NOT_AVAILABLE,
        codes.NOT_COORDINATOR,
    ],
)
def test_a_coordinator_that_cannot_is_asked_again_and_looked_for_where_it_has_moved(
    code: int,
) -> None:
    script = GroupScript()
    script.poll()
    script.refuse_join(code)
    assert script.waiting == []
    script.run(RETRY_MS)
    script.join(1)
    assert script.finder_asked == (1 if code == codes.COORDINATOR_LOAD_IN_PROGRESS else 2)
    script.sync(0, error=code)
    script.run(RETRY_MS)
    script.join(2)
    script.sync(0)
    script.poll()
    script.heartbeat(code)
    script.run(RETRY_MS)
    script.next(HeartbeatRequest)
    assert script.changes == [("assigned", [0])]


@pytest.mark.parametrize("when", ["join", "sync", "heartbeat"])
def test_a_connection_that_breaks_costs_no_partition(when: str) -> None:
    script = GroupScript()
    script.become_member(0, 1)
    script.heartbeat(codes.REBALANCE_IN_PROGRESS)
    if when != "join":
        script.join(2)
    if when == "heartbeat":
        script.sync(0, 1)
        script.run(script.config.heartbeat_interval_ms)
        script.next(HeartbeatRequest)
    script.lose()
    script.run(RETRY_MS)
    script.run(RETRY_MS)
    if when == "heartbeat":
        script.next(HeartbeatRequest)
    else:
        assert script.join(3).member_id == ME
        script.sync(0, 1)
    script.poll()
    assert script.changes == [("assigned", [0, 1])]
    assert script.membership.is_settled


def test_a_sync_that_a_rebalance_overtakes_is_followed_by_a_join() -> None:
    script = GroupScript()
    script.become_member(0, 1)
    script.heartbeat(codes.REBALANCE_IN_PROGRESS)
    script.join(2)
    script.sync(error=codes.REBALANCE_IN_PROGRESS)
    told = decode_subscription(script.next(JoinGroupRequest).protocols[0].metadata)
    assert (told.owned, told.generation_id) == (parts(0, 1), 1), "owned since generation 1"


def test_a_leader_that_never_syncs_is_replaced_and_the_others_go_on() -> None:
    script = GroupScript()
    script.poll()
    script.join(1, leads=False)
    script.run(60_000)
    script.poll()
    script.next(SyncGroupRequest)
    script.sync(error=codes.REBALANCE_IN_PROGRESS)
    script.join(2)
    script.sync(0)
    script.poll()
    assert script.changes == [("assigned", [0])]


def test_a_fenced_static_member_stops_for_good_and_says_why() -> None:
    script = GroupScript(group_instance_id="one")
    script.become_member(0, 1)
    script.heartbeat(codes.FENCED_INSTANCE_ID)
    for _ in range(2):
        error = script.core.take_error()
        assert isinstance(error, FencedMember)
        assert "'one'" in error.what
    script.poll()
    assert script.changes[1:] == [("lost", [0, 1])]
    script.poll(60_000)
    assert script.waiting == []


def test_a_static_member_that_a_late_join_of_its_own_puts_out_joins_again_and_is_not_fenced() -> (
    None
):
    script = GroupScript(group_instance_id="one")
    script.poll()
    script.next(JoinGroupRequest)
    script.lose()  # the coordinator may get it all the same, and later than the next one
    script.run(RETRY_MS)
    script.run(RETRY_MS)
    script.refuse_join(codes.FENCED_INSTANCE_ID)
    assert script.core.take_error() is None
    assert script.next(JoinGroupRequest).member_id == ""
    script.refuse_join(codes.FENCED_INSTANCE_ID)
    assert isinstance(script.core.take_error(), FencedMember)


def test_a_member_whose_user_does_not_poll_leaves_says_so_and_comes_back_when_it_polls(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = GroupScript(max_poll_interval_ms=10_000)
    script.become_member(0, 1)
    for _ in range(3):
        script.heartbeat()
    with caplog.at_level(logging.WARNING):
        script.run(1000)
    assert "nothing was polled for 10.0 s (max_poll_interval_ms)" in caplog.text
    left = script.leave()
    assert [each.member_id for each in left.members] == [ME]
    commit = script.core.commit(script.core.given())
    assert isinstance(commit.error, CommitFailed)
    assert "max_poll_interval_ms" in commit.error.what
    script.run(60_000)
    assert script.waiting == []
    script.poll()
    assert script.changes[1:] == [("lost", [0, 1])]
    assert script.join(4).member_id == ""
    script.sync(0, 1)
    script.poll()
    assert script.changes[2:] == [("assigned", [0, 1])]


def test_a_static_member_never_says_that_it_leaves() -> None:
    script = GroupScript(group_instance_id="one", max_poll_interval_ms=10_000)
    script.become_member(0, 1)
    assert script.core.group is not None
    script.core.group.leave()
    script.run()
    assert script.core.group.has_left_for_good
    assert script.waiting == []


def test_a_member_that_leaves_while_it_joins_says_so_on_another_connection() -> None:
    script = GroupScript()
    script.poll()
    script.refuse_join(codes.MEMBER_ID_REQUIRED, ME)
    [(joining, _)] = script.waiting
    assert script.core.group is not None
    script.core.group.leave()
    script.run()
    assert script.waiting[1][0] is not joining
    [_, (channel, _)] = script.waiting
    assert channel.is_open
    assert script.next(LeaveGroupRequest).members[0].member_id == ME


def test_a_leader_joins_again_when_a_topic_of_anybody_gets_partitions() -> None:
    script = GroupScript(metadata_max_age_ms=1000, heartbeat_interval_ms=40_000)
    script.poll()
    script.join(1, others={OTHER: Subscription(frozenset(["u"]))})
    script.sync(0, 1)
    script.poll()
    script.run(1000)
    assert script.waiting == []
    script.partitions = 5
    script.run(1000)
    script.join(2, others={OTHER: Subscription(frozenset(["u"]))})
    assert script.sync(0, 1) == {ME: [0, 1, 2, 3, 4], OTHER: [0, 1, 2, 3, 4]}


def test_a_leader_that_is_told_not_to_assign_still_looks_after_the_topics() -> None:
    script = GroupScript(
        group_instance_id="one", metadata_max_age_ms=1000, heartbeat_interval_ms=40_000
    )
    script.poll()
    script.join(7, skip=True)
    assert script.sync(0, 1) == {}
    script.poll()
    script.describe({ME: (0, 1, 2, 3)})
    script.partitions = 5
    script.run(1000)
    script.next(JoinGroupRequest)


@pytest.mark.parametrize(
    ("assigned", "state", "joins"),
    [
        ({ME: (0, 1), OTHER: (2, 3)}, "Stable", False),
        ({ME: (0, 1), OTHER: (2,)}, "Stable", True),  # it has grown
        ({ME: (), OTHER: ()}, "PreparingRebalance", False),
        ({}, "Dead", False),
    ],
)
def test_a_leader_that_is_told_not_to_assign_joins_again_where_something_is_nobody_s(
    assigned: dict[str, tuple[int, ...]], state: str, joins: bool
) -> None:
    script = GroupScript(group_instance_id="one")
    script.poll()
    script.join(7, skip=True, others={OTHER: Subscription(frozenset(["t"]))})
    script.sync(0, 1)
    script.lose()
    script.run(RETRY_MS)
    script.describe(assigned, state)
    script.poll()
    assert [type(call.request) for _, call in script.waiting] == [JoinGroupRequest] * joins


def test_a_leader_that_cannot_read_what_a_member_has_leaves_it_at_that() -> None:
    script = GroupScript(group_instance_id="one")
    script.poll()
    script.join(7, skip=True)
    script.sync(0, 1)
    member = DescribeGroupsResponse.DescribedGroupMember(member_assignment=b"\xff\xff")
    group = DescribeGroupsResponse.DescribedGroup(group_state="Stable", members=[member])
    script.answer(DescribeGroupsResponse(groups=[group]))
    assert script.waiting == []


def test_a_leader_that_has_assigned_does_not_ask_what_the_others_have() -> None:
    script = GroupScript(group_instance_id="one")
    script.become_member(0, 1, 2, 3)
    assert script.waiting == []


def test_other_topics_while_a_join_is_under_way_are_joined_for_afterwards() -> None:
    script = GroupScript("t")
    script.poll()
    script.core.subscribe(["u"], None)
    script.run()
    script.join(1)
    assert decode_subscription(script.join(2).protocols[0].metadata).topics == {"u"}
    script.sync(0, topic="u")
    script.poll()
    assert script.membership.owned == parts(0, topic="u")


def test_a_group_with_no_common_assignor_is_told_with_what_to_do() -> None:
    script = GroupScript()
    script.poll()
    script.refuse_join(codes.INCONSISTENT_GROUP_PROTOCOL)
    error = script.core.take_error()
    assert isinstance(error, InconsistentGroupProtocol)
    assert "cooperative-sticky, range" in str(error)
    script.run(60_000)
    assert script.waiting == [], "it is tried again when the user polls again"
    script.poll()
    script.next(JoinGroupRequest)


def test_a_refusal_for_good_is_told_once_for_each_time_that_it_was_tried() -> None:
    script = GroupScript()
    script.poll()
    script.refuse_join(codes.GROUP_AUTHORIZATION_FAILED)
    assert isinstance(script.core.take_error(), GroupAuthorizationFailed)
    assert script.core.take_error() is None


def test_garbage_from_a_member_is_told_by_the_leader_and_breaks_nothing() -> None:
    script = GroupScript()
    script.poll()
    request = script.next(JoinGroupRequest)
    request.protocols[0].metadata = b"\0"
    script.join(1)
    assert script.core.take_error() is not None
    assert script.membership.owned == frozenset()


# -- commits


def test_a_commit_goes_as_the_member_and_generation_that_it_is() -> None:
    script = GroupScript()
    script.become_member(0, 1, generation=4)
    commit = script.core.commit(script.core.given())
    script.run()
    request = script.next(OffsetCommitRequest)
    assert (request.generation_id_or_member_epoch, request.member_id) == (4, ME)
    assert script.commit() == {0: 0, 1: 0}
    assert commit.is_done and commit.error is None


def test_one_commit_is_under_way_at_a_time_and_those_that_wait_go_together() -> None:
    script = GroupScript()
    script.become_member(0, 1)
    first = script.core.commit({where: at(5) for where in parts(0)})
    script.run()
    second = script.core.commit({where: at(6) for where in parts(0, 1)})
    third = script.core.commit({where: at(3) for where in parts(0)})
    script.run()
    assert script.commit() == {0: 5}
    assert (first.is_done, second.is_done) == (True, False)
    assert script.commit() == {0: 3, 1: 6}
    assert second.is_done and third.is_done


def test_a_commit_during_a_rebalance_waits_for_its_end_and_goes_as_the_new_generation() -> None:
    script = GroupScript()
    script.become_member(0, 1)
    commit = script.core.commit(script.core.given())
    script.run()
    script.commit(codes.REBALANCE_IN_PROGRESS)
    script.heartbeat(codes.REBALANCE_IN_PROGRESS)
    # The heartbeat's time was over; the commit is tried again meanwhile.
    script.commit(codes.REBALANCE_IN_PROGRESS)
    script.join(2)
    script.sync(0, 1)
    script.run(RETRY_MS)
    assert script.next(OffsetCommitRequest).generation_id_or_member_epoch == 2
    script.commit()
    assert commit.is_done and commit.error is None


def test_a_commit_with_an_old_generation_fails_for_what_is_lost() -> None:
    script = GroupScript()
    script.become_member(0, 1)
    commit = script.core.commit(script.core.given())
    script.run()
    script.commit(codes.ILLEGAL_GENERATION)
    assert isinstance(commit.error, CommitFailed)
    assert "ILLEGAL_GENERATION" in commit.error.what
    assert commit.error.partitions == tuple(sorted(parts(0, 1)))
    script.next(JoinGroupRequest)


def test_what_is_not_assigned_is_never_committed() -> None:
    script = GroupScript()
    script.become_member(0)
    commit = script.core.commit({where: at(9) for where in parts(0, 2)})
    assert isinstance(commit.error, CommitFailed)
    assert commit.error.partitions == tuple(parts(2))
    script.run()
    assert script.waiting == []


def test_a_commit_outlives_a_coordinator_that_moves() -> None:
    script = GroupScript()
    script.become_member(0)
    commit = script.core.commit(script.core.given())
    script.run()
    script.commit(codes.NOT_COORDINATOR)
    script.run(RETRY_MS)
    assert script.finder_asked == 2
    script.lose()
    script.run(RETRY_MS)
    script.run(RETRY_MS)
    script.commit()
    assert commit.is_done and commit.error is None


def test_what_was_finished_is_committed_by_itself_before_it_is_given_back() -> None:
    script = GroupScript(enable_auto_commit=True, auto_commit_interval_ms=100_000)
    script.committed = dict.fromkeys(parts(0, 1), 10)
    script.become_member(0, 1)
    script.core.seek(next(iter(parts(1))), 20)
    script.heartbeat(codes.REBALANCE_IN_PROGRESS)
    script.join(2)
    script.sync(0)
    script.poll()
    assert script.changes[1:] == [], "on_revoked comes after the commit"
    assert script.commit() == {1: 20}
    script.poll()
    assert script.changes[1:] == [("revoked", [1])]


def at(offset: int) -> OffsetAndMetadata:
    return OffsetAndMetadata(offset)


def test_connections_that_broke_and_are_not_needed_let_the_client_sleep() -> None:
    script = GroupScript()
    script.become_member(0)
    [state] = script.core.fetcher.partitions.values()
    state.is_paused = True
    script.lose()
    for _ in range(5):
        due_ms = script.core.step()
        assert due_ms is not None and due_ms > script.clock.monotonic_ms()
        script.run(due_ms - script.clock.monotonic_ms())
