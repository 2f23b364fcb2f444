"""Static members (KIP-345): they come back without a rebalance, and only one can have a name."""

from __future__ import annotations

import pytest

from ottla.coordinator.group.member_ids import is_later
from ottla.errors import codes
from ottla.protocol.codec import encode
from ottla.protocol.messages.embedded_data import ConsumerProtocolAssignment
from tests.coordinator.group.consumer.members import ConsumerShard
from tests.coordinator.group.shards import REBALANCE_MS, SESSION_MS, Shard, subscription


def assignment(**topics: list[int]) -> bytes:
    """Return what a consumer is told to read."""
    named = [
        ConsumerProtocolAssignment.TopicPartition(topic=topic, partitions=numbers)
        for topic, numbers in topics.items()
    ]
    return b"\0\0" + encode(ConsumerProtocolAssignment(assigned_partitions=named), 0)


def stable(shard: Shard, *instances: str) -> list[str]:
    """Let static members form a stable group, each assigned its name; the first leads."""
    joins = [shard.join(instance=each) for each in instances]
    members = [joins[0].response.member_id]
    if len(instances) > 1:
        shard.join(members[0], instance=instances[0])
        members += [each.response.member_id for each in joins[1:]]
    generation = shard.group().generation_id
    assignment = {member: name.encode() for member, name in zip(members, instances, strict=True)}
    followers = zip(members[1:], instances[1:], strict=True)
    for member, name in followers:
        shard.sync(member, generation, group_instance_id=name)
    shard.sync(members[0], generation, assignment, group_instance_id=instances[0])
    assert shard.state == "Stable"
    return members


def test_a_static_member_that_starts_again_takes_its_place_without_a_rebalance() -> None:
    shard = Shard()
    one, two = stable(shard, "a", "b")
    asked = shard.join(instance="b")
    new = asked.response.member_id
    assert asked.error == codes.NONE
    assert new != two
    assert (asked.response.generation_id, asked.response.leader) == (2, one)
    assert asked.response.members == [] and not asked.response.skip_assignment
    assert shard.state == "Stable"
    assert shard.sync(new, 2, group_instance_id="b").response.assignment == b"b"
    assert shard.heartbeat(new, 2, "b") == codes.NONE
    assert shard.heartbeat(one, 2, "a") == codes.NONE


def test_who_had_the_name_before_is_fenced_everywhere() -> None:
    shard = Shard()
    _, two = stable(shard, "a", "b")
    shard.join(instance="b")
    assert shard.heartbeat(two, 2, "b") == codes.FENCED_INSTANCE_ID
    assert shard.sync(two, 2, group_instance_id="b").error == codes.FENCED_INSTANCE_ID
    assert shard.join(two, instance="b").error == codes.FENCED_INSTANCE_ID
    left = shard.leave((two, "b"))
    assert left.members[0].error_code == codes.FENCED_INSTANCE_ID
    error = shard.commit(1, member_id=two, group_instance_id="b", generation=2)
    assert error == codes.FENCED_INSTANCE_ID
    assert shard.heartbeat(two, 2) == codes.UNKNOWN_MEMBER_ID


def test_a_leader_that_starts_again_is_told_not_to_assign_anything() -> None:
    shard = Shard()
    one, two = stable(shard, "a", "b")
    response = shard.join(instance="a").response
    assert response.skip_assignment
    assert response.leader == response.member_id != one
    assert [each.member_id for each in response.members] == [response.member_id, two]
    assert shard.group().leader_id == response.member_id


def test_before_version_9_a_leader_that_starts_again_is_told_that_another_one_leads() -> None:
    shard = Shard()
    one, _ = stable(shard, "a", "b")
    response = shard.join(instance="a", version=8).response
    assert not response.skip_assignment
    assert response.leader == one != response.member_id
    assert response.members == []


def test_after_a_start_the_new_id_is_the_one_that_counts() -> None:
    shard = Shard()
    _, two = stable(shard, "a", "b")
    new = shard.join(instance="b").response.member_id
    again = shard.reloaded()
    assert again.heartbeat(new, 2, "b") == codes.NONE
    assert again.heartbeat(two, 2, "b") == codes.FENCED_INSTANCE_ID


def test_a_name_that_cannot_be_stored_with_its_new_id_stays_with_the_old_one() -> None:
    shard = Shard()
    _, two = stable(shard, "a", "b")
    shard.failing = codes.NOT_COORDINATOR
    asked = shard.join(instance="b")
    assert asked.error == codes.NOT_COORDINATOR
    assert asked.response.member_id == ""
    assert shard.heartbeat(two, 2, "b") == codes.NONE
    shard.advance(SESSION_MS)
    assert two not in shard.group().members


def test_one_that_would_change_the_protocol_begins_a_rebalance() -> None:
    shard = Shard()
    one = shard.join(instance="a", protocols={"x": b"", "y": b""}).response.member_id
    shard.sync(one, 1, {one: b""}, group_instance_id="a")
    asked = shard.join(instance="a", protocols={"y": b"", "x": b""})
    assert (asked.error, asked.response.generation_id) == (codes.NONE, 2)
    assert asked.response.protocol_name == "y"
    assert shard.heartbeat(one, 1, "a") == codes.FENCED_INSTANCE_ID


def test_one_that_starts_again_with_another_subscription_keeps_it_for_the_next_time() -> None:
    shard = Shard()
    stable(shard, "a", "b")
    shard.join(instance="b", protocols={"range": subscription("u"), "sticky": b"s"})
    assert shard.group().subscribed_topics == frozenset({"t", "u"})
    (other,) = [each for each in shard.group().members.values() if each.group_instance_id == "b"]
    assert list(other.protocols) == ["range", "sticky"]


def consumers(
    assigned: list[int], *, has: int, protocol: str = "range"
) -> tuple[ConsumerShard, str]:
    """Return a stable group with the static member "a", which leads, and has the topic "t"."""
    shard = ConsumerShard()
    shard.create("t", has)
    member = shard.join(instance="a", protocols={protocol: subscription("t")}).response.member_id
    told = {member: assignment(t=assigned)}
    shard.sync(member, 1, told, group_instance_id="a")
    return shard, member


@pytest.mark.parametrize(
    ("assigned", "has", "protocol", "generation"),
    [
        ([0, 1], 2, "range", 1),
        ([0, 1], 3, "range", 2),  # it has grown
        ([1], 2, "cooperative-sticky", 2),  # somebody was to give it back first
        ([1], 2, "own", 1),  # it may be meant so
    ],
)
def test_one_that_starts_again_while_partitions_are_left_over_begins_a_rebalance(
    assigned: list[int], has: int, protocol: str, generation: int
) -> None:
    shard, _ = consumers(assigned, has=has, protocol=protocol)
    response = shard.join(instance="a", protocols={protocol: subscription("t")}).response
    assert response.generation_id == generation
    assert response.leader == response.member_id
    assert response.skip_assignment == (generation == 1)


def test_one_that_starts_again_and_wants_another_topic_begins_a_rebalance() -> None:
    shard, _ = consumers([0], has=1)
    shard.create("u")
    response = shard.join(instance="a", protocols={"range": subscription("t", "u")}).response
    assert (response.generation_id, response.skip_assignment) == (2, False)


def test_of_an_assignment_that_cannot_be_read_nothing_is_thought_to_be_missing() -> None:
    shard, member = consumers([0], has=2)
    shard.group().members[member].assignment = b"\0"
    response = shard.join(instance="a", protocols={"range": subscription("t")}).response
    assert (response.generation_id, response.skip_assignment) == (1, True)


def test_who_has_taken_a_place_that_a_start_has_forgotten_joins_anew_and_is_not_fenced() -> None:
    shard = Shard()
    one, two = stable(shard, "a", "b")
    shard.clock.advance(1)
    shard.join(one, instance="a")
    new = shard.join(instance="b").response.member_id
    again = shard.reloaded()  # nobody has synced: the last record is that of the first generation
    assert again.heartbeat(new, 3, "b") == codes.UNKNOWN_MEMBER_ID
    assert again.sync(new, 3, group_instance_id="b").error == codes.UNKNOWN_MEMBER_ID
    assert again.join(new, instance="b").error == codes.UNKNOWN_MEMBER_ID
    again.clock.advance(1)
    assert again.join(instance="b").error == codes.NONE
    assert again.heartbeat(two, 2, "b") == codes.FENCED_INSTANCE_ID
    assert again.heartbeat(new, 3, "b") == codes.FENCED_INSTANCE_ID


@pytest.mark.parametrize(
    ("member_id", "other", "is_so"),
    [
        ("a-000000000002-x", "a-000000000001-y", True),
        ("a-000000000001-x", "a-000000000001-y", False),
        ("a-000000000001-x", "a-000000000002-y", False),
        ("a-000000000002-x", "a-3e7b1f52-9c1e-4f6b-9d55-0a4d3c9c1f00", False),  # Kafka's
        ("a-3e7b1f52-9c1e-4f6b-9d55-0a4d3c9c1f00", "a-000000000001-y", False),
        ("b-000000000002-x", "a-000000000001-y", False),
        ("a-00000000000g-x", "a-000000000001-y", False),
        ("a-000000000002", "a-000000000001-y", False),
        ("", "a-000000000001-y", False),
    ],
)
def test_of_two_ids_it_is_told_which_one_was_given_later(
    member_id: str, other: str, is_so: bool
) -> None:
    assert is_later(member_id, other, "a") is is_so


def test_one_that_starts_again_before_the_leader_has_assigned_begins_a_rebalance() -> None:
    shard = Shard()
    first = shard.join(instance="a").response.member_id
    second = shard.join(instance="b")
    shard.join(first, instance="a")
    two = second.response.member_id
    waiting = shard.sync(two, 2, group_instance_id="b")
    asked = shard.join(instance="b")
    assert waiting.error == codes.FENCED_INSTANCE_ID
    assert not asked.is_answered
    assert shard.join(first, instance="a").response.generation_id == 3
    assert asked.response.generation_id == 3


def test_one_that_starts_again_while_it_is_waited_for_is_there() -> None:
    shard = Shard()
    one, two = stable(shard, "a", "b")
    again = shard.join(one, instance="a")
    assert not again.is_answered
    asked = shard.join(instance="b")
    assert asked.response.generation_id == again.response.generation_id == 3
    assert shard.heartbeat(two, 3, "b") == codes.FENCED_INSTANCE_ID


def test_one_that_starts_twice_at_once_fences_itself() -> None:
    shard = Shard()
    stable(shard, "a", "b")
    one = shard.group().leader_id or ""
    shard.join(one, instance="a", protocols={"range": b"new"})
    first = shard.join(instance="c")
    assert not first.is_answered
    second = shard.join(instance="c")
    assert first.error == codes.FENCED_INSTANCE_ID
    assert not second.is_answered


def test_one_that_does_not_join_again_in_time_stays_a_member() -> None:
    shard = Shard()
    one, two = stable(shard, "a", "b")
    again = shard.join(one, instance="a")
    for _ in range(REBALANCE_MS // 5000):
        shard.advance(5000)
        shard.heartbeat(two, 2, "b")
    assert again.response.generation_id == 3
    assert [each.member_id for each in again.response.members] == [one, two]


def test_where_only_static_members_are_left_and_none_joins_their_sessions_end_it() -> None:
    shard = Shard()
    one, two = stable(shard, "a", "b")
    other = shard.join(version=3)
    shard.leave((other.response.member_id if other.is_answered else "c-3", None))
    assert shard.state == "PreparingRebalance"
    for _ in range(2 * REBALANCE_MS // 5000):
        shard.advance(5000)
        assert shard.heartbeat(one, 2, "a") == codes.REBALANCE_IN_PROGRESS
        assert shard.heartbeat(two, 2, "b") == codes.REBALANCE_IN_PROGRESS
    shard.advance(SESSION_MS)
    assert shard.state == "Empty"


def test_a_static_member_can_be_removed_by_its_name_alone() -> None:
    shard = Shard()
    stable(shard, "a", "b")
    response = shard.leave(("", "b"), ("", "x"), ("", None))
    errors = [each.error_code for each in response.members]
    assert errors == [codes.NONE, codes.UNKNOWN_MEMBER_ID, codes.UNKNOWN_MEMBER_ID]
    assert len(shard.group().members) == 1


def test_a_name_that_nobody_has_is_unknown() -> None:
    shard = Shard()
    one, _ = stable(shard, "a", "b")
    assert shard.heartbeat(one, 2, "x") == codes.UNKNOWN_MEMBER_ID
    assert shard.join(one, instance="x").error == codes.UNKNOWN_MEMBER_ID
