"""Groups that go over from one protocol to the other, with members of both in them."""

from __future__ import annotations

import pytest

from ottla.coordinator.group.classic import ClassicGroup
from ottla.coordinator.group.consumer.group import MemberState
from ottla.coordinator.group.consumer.migration import encoded_assignment
from ottla.coordinator.group.told import assignment_of
from ottla.errors import codes
from ottla.protocol.codec import encode
from ottla.protocol.messages.embedded_data import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)
from tests.coordinator.group.consumer.members import ConsumerShard, shard_of, told
from tests.coordinator.group.shards import REBALANCE_MS, SESSION_MS, subscription


@pytest.fixture
def shard() -> ConsumerShard:
    return shard_of(("t", 4))


def topic(shard: ConsumerShard) -> bytes:
    return shard.cluster.topics["t"].topic_id


def owning(*partitions: int) -> dict[str, bytes]:
    """Return what a cooperative consumer says that joins again."""
    owned = ConsumerProtocolSubscription.TopicPartition(topic="t", partitions=list(partitions))
    value = ConsumerProtocolSubscription(topics=["t"], owned_partitions=[owned])
    return {"range": b"\0\1" + encode(value, 1)}


def assigned(shard: ConsumerShard, *partitions: int) -> bytes:
    return encoded_assignment([(topic(shard), each) for each in partitions], shard.cluster, b"\0\0")


def decoded(assignment: bytes) -> list[int]:
    found = assignment_of(assignment).assigned_partitions
    return [index for each in found for index in each.partitions]


def classic(shard: ConsumerShard, count: int = 2) -> list[str]:
    """Let classic members form a group, with the topic's partitions shared among them."""
    members = shard.joined(count)
    generation = shard.group().generation_id
    others = [shard.sync(each, generation) for each in members[1:]]
    share = 4 // count
    assignments = {
        member: assigned(shard, *range(number * share, (number + 1) * share))
        for number, member in enumerate(members)
    }
    synced = [shard.sync(members[0], generation, assignments), *others]
    assert {each.error for each in synced} == {codes.NONE}
    return members


def synced(shard: ConsumerShard, member: str, generation: int) -> list[int]:
    asked = shard.sync(member, generation)
    assert asked.error == codes.NONE
    return decoded(asked.response.assignment)


# -- upgrade


def test_a_classic_group_becomes_a_consumer_group_with_its_members(shard: ConsumerShard) -> None:
    first, second = classic(shard)
    generation = shard.group().generation_id
    assert told(shard.enter("new")) == {}
    group = shard.consumers()
    assert set(group.members) == {first, second, "new"}
    assert group.group_epoch == generation + 1
    assert shard.assigned(first) == {"t": [0, 1]}
    assert shard.assigned(second) == {"t": [2, 3]}
    for member in (first, second):
        assert shard.heartbeat(member, generation) == codes.REBALANCE_IN_PROGRESS


def test_cooperative_members_give_up_what_they_have_to_and_no_more(shard: ConsumerShard) -> None:
    first, second = classic(shard)
    generation = shard.group().generation_id
    shard.enter("new")
    again = shard.join(first, protocols=owning(0, 1))
    assert again.response.generation_id == generation
    kept = synced(shard, first, generation)
    given_up = {0, 1} - set(kept)
    assert len(kept) == 1
    assert shard.member(first).state is MemberState.UNREVOKED_PARTITIONS
    assert shard.heartbeat(first, generation) == codes.REBALANCE_IN_PROGRESS
    assert told(shard.beat("new", generation + 1)) is None
    rejoined = shard.join(first, protocols=owning(*kept))
    assert rejoined.response.generation_id == generation + 1
    assert synced(shard, first, generation + 1) == kept
    assert shard.heartbeat(first, generation + 1) == codes.NONE
    assert told(shard.beat("new", generation + 1)) == {topic(shard): sorted(given_up)}
    stays = shard.join(second, protocols=owning(2, 3))
    assert stays.response.generation_id == generation + 1
    assert synced(shard, second, generation + 1) == [2, 3]
    assert shard.consumers().state_name == "Stable"


def test_what_a_cooperative_member_is_still_to_give_back_is_nobody_else_s_when_a_group_goes_over(
    shard: ConsumerShard,
) -> None:
    [first] = classic(shard, 1)
    again = shard.join(first, protocols=owning(0, 1, 2, 3))
    generation = again.response.generation_id
    assert shard.sync(first, generation, {first: assigned(shard, 0, 1)}).error == codes.NONE
    assert told(shard.enter("new")) == {}, "its user may read 2 and 3 still"
    assert shard.member(first).state is MemberState.UNREVOKED_PARTITIONS
    assert shard.heartbeat(first, generation) == codes.REBALANCE_IN_PROGRESS
    shard.join(first, protocols=owning(0, 1, 2, 3))
    assert synced(shard, first, generation) == [0, 1]
    assert told(shard.beat("new", generation + 1)) is None
    rejoined = shard.join(first, protocols=owning(0, 1))
    assert rejoined.response.generation_id == generation + 1
    assert told(shard.beat("new", generation + 1)) == {topic(shard): [2, 3]}


def test_a_member_that_was_put_out_and_says_that_it_has_partitions_is_told(
    shard: ConsumerShard,
) -> None:
    first, second = classic(shard)
    shard.enter("new")
    shard.leave((first, None))
    assert shard.join(first, protocols=owning(0, 1)).error == codes.UNKNOWN_MEMBER_ID
    assert set(shard.consumers().members) == {second, "new"}
    assert shard.join(first, protocols=owning()).error == codes.NONE, "an id that it was just given"


def test_eager_members_have_nothing_when_they_join(shard: ConsumerShard) -> None:
    first, _ = classic(shard)
    generation = shard.group().generation_id
    shard.enter("new")
    asked = shard.join(first)
    assert asked.response.generation_id == generation + 1
    assert asked.response.leader == ""
    assert len(synced(shard, first, generation + 1)) == 1


def test_a_classic_member_that_waits_for_others_joins_again_when_they_are_done(
    shard: ConsumerShard,
) -> None:
    shard.enter("a")
    member = shard.new_id()
    joined = shard.join(member)
    assert joined.response.generation_id == 2
    assert synced(shard, member, 2) == []
    assert shard.heartbeat(member, 2) == codes.NONE
    kept = told(shard.beat("a", 1))
    shard.beat("a", 1, owned=kept)
    assert shard.heartbeat(member, 2) == codes.REBALANCE_IN_PROGRESS
    assert shard.join(member).response.generation_id == 2
    assert len(synced(shard, member, 2)) == 2
    assert shard.heartbeat(member, 2) == codes.NONE


def test_a_group_in_a_rebalance_becomes_a_consumer_group_too(shard: ConsumerShard) -> None:
    (first,) = classic(shard, 1)
    second = shard.new_id()
    waiting = shard.join(second)
    assert not waiting.is_answered
    shard.enter("new")
    assert waiting.error == codes.REBALANCE_IN_PROGRESS
    assert set(shard.consumers().members) >= {first, "new"}
    assert shard.timers.next_deadline_ms() is not None


def test_an_empty_classic_group_becomes_a_consumer_group_whatever_the_policy() -> None:
    shard = shard_of(("t", 2), group_consumer_migration_policy="disabled")
    (member,) = shard.stable()
    shard.leave((member, None))
    shard.commit(5)
    assert shard.enter("a").member_epoch == 1
    assert shard.committed() == 5


def test_offsets_alone_are_no_hindrance(shard: ConsumerShard) -> None:
    shard.commit(5)
    assert told(shard.enter("a")) == {topic(shard): [0, 1, 2, 3]}
    assert shard.committed() == 5


@pytest.mark.parametrize("policy", ["disabled", "downgrade"])
def test_where_the_policy_does_not_allow_it_no_group_is_upgraded(policy: str) -> None:
    shard = shard_of(("t", 4), group_consumer_migration_policy=policy)
    classic(shard)
    assert shard.enter("new").error_code == codes.GROUP_ID_NOT_FOUND
    assert isinstance(shard.coordinator.groups["g"], ClassicGroup)


def test_what_is_no_group_of_consumers_is_not_upgraded(shard: ConsumerShard) -> None:
    shard.join(version=3, protocol_type="connect")
    assert shard.enter("new").error_code == codes.GROUP_ID_NOT_FOUND


def test_a_group_whose_members_say_nothing_that_can_be_read_is_not_upgraded(
    shard: ConsumerShard,
) -> None:
    shard.join(version=3, protocols={"range": b"\0"})
    assert shard.enter("new").error_code == codes.GROUP_ID_NOT_FOUND


def test_a_group_with_an_assignor_of_its_own_is_not_upgraded(shard: ConsumerShard) -> None:
    value = ConsumerProtocolAssignment(user_data=b"mine")
    for name, error in (("mine", codes.GROUP_ID_NOT_FOUND), ("sticky", codes.NONE)):
        spoken = {name: subscription("t")}
        member = shard.join(version=3, protocols=spoken, group_id=name).response.member_id
        request = {member: b"\0\0" + encode(value, 0)}
        assert shard.sync(member, 1, request, group_id=name).error == codes.NONE
        assert shard.enter("new", group_id=name).error_code == error


def test_too_large_a_group_is_not_upgraded() -> None:
    shard = shard_of(("t", 4), group_consumer_max_size=1)
    classic(shard)
    assert shard.enter("new").error_code == codes.GROUP_ID_NOT_FOUND


def test_nothing_happens_to_a_classic_group_when_it_cannot_be_stored(shard: ConsumerShard) -> None:
    first, _ = classic(shard)
    generation = shard.group().generation_id
    shard.failing = codes.NOT_COORDINATOR
    assert shard.enter("new").error_code == codes.NOT_COORDINATOR
    assert shard.heartbeat(first, generation) == codes.NONE


# -- classic members


def test_a_classic_member_is_asked_to_join_with_the_id_that_it_is_given(
    shard: ConsumerShard,
) -> None:
    shard.enter("a")
    asked = shard.join()
    assert asked.error == codes.MEMBER_ID_REQUIRED
    assert asked.response.member_id.startswith("c-")
    assert shard.join(version=3).error == codes.NONE


def test_a_classic_member_must_speak_what_the_others_speak(shard: ConsumerShard) -> None:
    shard.enter("a")
    assert shard.join(version=3, protocol_type="connect").error == (
        codes.INCONSISTENT_GROUP_PROTOCOL
    )
    assert shard.join(version=3, protocols={"range": b""}).error == (
        codes.INCONSISTENT_GROUP_PROTOCOL
    )
    shard.join(version=3)
    other = {"other": subscription("t")}
    assert shard.join(version=3, protocols=other).error == codes.INCONSISTENT_GROUP_PROTOCOL


def test_requests_of_classic_members_are_checked(shard: ConsumerShard) -> None:
    shard.enter("a")
    member = shard.join(version=3).response.member_id
    assert shard.heartbeat("a", 1) == codes.UNKNOWN_MEMBER_ID
    assert shard.heartbeat("?", 1) == codes.UNKNOWN_MEMBER_ID
    assert shard.heartbeat(member, 1) == codes.ILLEGAL_GENERATION
    assert shard.sync(member, 1).error == codes.ILLEGAL_GENERATION
    wrong = shard.sync(member, 2, protocol_name="other")
    assert wrong.error == codes.INCONSISTENT_GROUP_PROTOCOL
    assert shard.commit(1, member_id=member, generation=2) == codes.NONE
    assert shard.commit(1, member_id=member, generation=1) == codes.ILLEGAL_GENERATION
    assert shard.consumers().check_fetch(member, 1) == codes.ILLEGAL_GENERATION


def test_who_syncs_when_the_group_went_on_joins_again(shard: ConsumerShard) -> None:
    shard.enter("a")
    member = shard.join(version=3).response.member_id
    shard.enter("b")
    assert shard.sync(member, 2).error == codes.REBALANCE_IN_PROGRESS


def test_a_group_may_be_full_for_classic_members() -> None:
    shard = shard_of(("t", 4), group_consumer_max_size=1)
    shard.enter("a")
    assert shard.join(version=3).error == codes.GROUP_MAX_SIZE_REACHED


def test_new_partitions_are_told_to_classic_members(shard: ConsumerShard) -> None:
    shard.enter("a")
    member = shard.join(version=3).response.member_id
    shard.sync(member, 2)
    assert shard.heartbeat(member, 2) == codes.NONE
    shard.grow("t", 6)
    assert shard.heartbeat(member, 2) == codes.REBALANCE_IN_PROGRESS


def test_a_classic_member_has_its_own_session(shard: ConsumerShard) -> None:
    shard.enter("a")
    member = shard.join(version=3).response.member_id
    shard.sync(member, 2)
    shard.advance(SESSION_MS - 1)
    assert member in shard.consumers().members
    shard.advance(1)
    assert member not in shard.consumers().members


def test_a_classic_member_that_does_not_sync_is_put_out(shard: ConsumerShard) -> None:
    shard.enter("a")
    member = shard.join(version=3).response.member_id
    for _ in range(12):
        shard.advance(REBALANCE_MS / 12)
        shard.beat("a", 1)
        shard.heartbeat(member, 2)
    assert member not in shard.consumers().members


def test_a_classic_member_that_does_not_join_again_is_put_out(shard: ConsumerShard) -> None:
    shard.enter("a")
    member = shard.join(version=3).response.member_id
    shard.sync(member, 2)
    shard.enter("b")
    for _ in range(13):
        shard.heartbeat(member, 2)
        shard.beat("a", 1)
        shard.beat("b", 3)
        shard.advance(REBALANCE_MS / 12)
    assert member not in shard.consumers().members


# -- downgrade


def mixed(shard: ConsumerShard) -> str:
    """Let "a", and a classic member besides, form a group."""
    shard.enter("a")
    member: str = shard.join(version=3).response.member_id
    shard.sync(member, 2)
    return member


def test_when_the_last_consumer_leaves_the_group_is_a_classic_one(shard: ConsumerShard) -> None:
    member = mixed(shard)
    shard.commit(9, member_id=member, generation=2)
    shard.beat("a", -1)
    group = shard.group()
    assert (group.state_name, group.generation_id) == ("PreparingRebalance", 2)
    assert list(group.members) == [member]
    assert shard.heartbeat(member, 2) == codes.REBALANCE_IN_PROGRESS
    joined = shard.join(member)
    assert joined.response.leader == member
    assert joined.response.generation_id == 3
    assert shard.committed() == 9
    assert isinstance(shard.reloaded().coordinator.groups["g"], ClassicGroup)


def test_a_rebalance_that_follows_a_downgrade_is_not_lost_by_a_restart(
    shard: ConsumerShard,
) -> None:
    member = mixed(shard)
    shard.beat("a", -1)
    again = shard.reloaded()  # before the member was told
    assert isinstance(again, ConsumerShard)
    assert again.heartbeat(member, 2) == codes.REBALANCE_IN_PROGRESS
    joined = again.join(member)
    assert (joined.response.leader, joined.response.generation_id) == (member, 3)
    again.sync(member, 3, {member: assigned(shard, 0, 1, 2, 3)})
    assert again.state == "Stable"
    assert again.reloaded().heartbeat(member, 3) == codes.NONE


def test_when_the_last_consumer_is_silent_too(shard: ConsumerShard) -> None:
    member = mixed(shard)
    for _ in range(9):
        shard.advance(5000)
        shard.heartbeat(member, 2)
    assert isinstance(shard.coordinator.groups["g"], ClassicGroup)


@pytest.mark.parametrize("policy", ["disabled", "upgrade"])
def test_where_the_policy_does_not_allow_it_no_group_is_downgraded(policy: str) -> None:
    shard = shard_of(("t", 4), group_consumer_migration_policy=policy)
    member = mixed(shard)
    shard.beat("a", -1)
    assert list(shard.consumers().members) == [member]


def test_a_static_member_goes_over_to_the_other_protocol_and_back(shard: ConsumerShard) -> None:
    shard.enter("a", instance_id="one")
    joined = shard.join(instance="one")
    assert joined.error == codes.NONE
    member = joined.response.member_id
    assert list(shard.group().members) == [member]
    assert shard.sync(member, joined.response.generation_id).error == codes.REBALANCE_IN_PROGRESS
    assert shard.join(member, instance="one").response.leader == member
    shard.enter("b", instance_id="one")
    assert list(shard.consumers().members) == ["b"]


def test_a_classic_member_begins_a_classic_group_where_a_consumer_group_is_empty(
    shard: ConsumerShard,
) -> None:
    shard.enter("a")
    shard.beat("a", -1)
    shard.commit(4)
    assert shard.join("?").error == codes.UNKNOWN_MEMBER_ID
    assert not shard.consumers().members
    shard.stable()
    again = shard.reloaded()
    assert isinstance(again.coordinator.groups["g"], ClassicGroup)
    assert again.committed() == 4


def test_who_leaves_by_the_classic_request_leaves_whatever_it_speaks(shard: ConsumerShard) -> None:
    member = mixed(shard)
    shard.leave((member, None), ("a", None))
    assert shard.consumers().is_empty


def test_a_downgrade_that_cannot_be_stored_is_none(shard: ConsumerShard) -> None:
    member = mixed(shard)
    shard.failing = codes.NOT_COORDINATOR
    assert shard.beat("a", -1).error_code == codes.NOT_COORDINATOR
    assert set(shard.consumers().members) == {member, "a"}
