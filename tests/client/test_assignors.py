"""How partitions are shared among the members of a group."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.client.assignors import (
    ASSIGNORS,
    Assignment,
    Subscription,
    assign_range,
    assign_round_robin,
    assign_sticky,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from ottla.client.config import ASSIGNOR_NAMES, ConsumerConfig
from ottla.client.lookup import TopicPartition
from ottla.errors import ConfigError, DecodeError


def wants(*topics: str, instance_id: str | None = None) -> Subscription:
    return Subscription(frozenset(topics), instance_id=instance_id)


def spelled(assignment: Assignment) -> dict[str, str]:
    """Return an assignment as "t0 t1 u0"."""
    return {
        member: " ".join(f"{topic}{number}" for topic, number in assigned)
        for member, assigned in assignment.items()
    }


def test_range_gives_neighbours_and_the_first_members_one_more() -> None:
    members = {"a": wants("t", "u"), "b": wants("t", "u"), "c": wants("t")}
    assert spelled(assign_range(members, {"t": 7, "u": 3})) == {
        "a": "t0 t1 t2 u0 u1",
        "b": "t3 t4 u2",
        "c": "t5 t6",
    }


def test_static_members_come_first_whatever_their_ids() -> None:
    members = {"a": wants("t"), "z": wants("t", instance_id="1"), "y": wants("t", instance_id="2")}
    assert spelled(assign_range(members, {"t": 3})) == {"z": "t0", "y": "t1", "a": "t2"}


def test_round_robin_takes_turns_past_those_that_do_not_want_a_topic() -> None:
    members = {"a": wants("t"), "b": wants("t", "u"), "c": wants("u")}
    assert spelled(assign_round_robin(members, {"t": 3, "u": 2})) == {
        "a": "t0 t2",
        "b": "t1 u0",
        "c": "u1",
    }


@pytest.mark.parametrize("assignor", ASSIGNORS.values(), ids=list(ASSIGNORS))
def test_topics_that_nobody_wants_or_that_are_not_there_are_nobodys(assignor: object) -> None:
    for each in ASSIGNORS.values():
        assert spelled(each.assign({"a": wants("t", "gone")}, {"t": 1, "u": 5})) == {"a": "t0"}
        assert each.assign({"a": wants("gone")}, {}) == {"a": []}


def test_a_consumer_can_be_told_all_of_them_by_name() -> None:
    assert tuple(ASSIGNORS) == ASSIGNOR_NAMES
    settings = ConsumerConfig(partition_assignment_strategy="range,roundrobin")
    assert settings.assignors == ("range", "roundrobin")
    for wrong in ("", "sticky", ("range", "best")):
        with pytest.raises(ConfigError, match="'cooperative-sticky', 'range', 'roundrobin'"):
            ConsumerConfig(partition_assignment_strategy=wrong)


class Group:
    """Members that do as they are told, generation after generation."""

    def __init__(self, topics: dict[str, int]) -> None:
        self.topics = topics
        self.wishes: dict[str, frozenset[str]] = {}
        self.owned: dict[str, frozenset[TopicPartition]] = {}
        self.generation = 0
        self.moves = 0

    def join(self, member: str, *topics: str) -> None:
        self.wishes[member] = frozenset(topics)
        self.owned.setdefault(member, frozenset())

    def leave(self, member: str) -> None:
        del self.wishes[member], self.owned[member]

    def rebalance(self) -> int:
        """Go through generations until nobody gives anything back; returns how many it took."""
        for count in range(1, 10):
            members = {
                member: Subscription(topics, self.owned[member], self.generation)
                for member, topics in self.wishes.items()
            }
            assignment = assign_sticky(members, self.topics)
            self.generation += 1
            before = self.owned
            self.owned = {member: frozenset(assigned) for member, assigned in assignment.items()}
            for member, assigned in self.owned.items():
                for other, had in before.items():
                    assert other == member or not assigned & had, "read by two"
            lost = [each for member in before for each in before[member] - self.owned[member]]
            if not lost:
                return count
            self.moves += len(lost)
        raise AssertionError("never comes to rest")

    def check(self) -> None:
        """All partitions that somebody wants are somebody's, and as evenly as can be."""
        owned = [each for assigned in self.owned.values() for each in assigned]
        wanted = frozenset().union(*self.wishes.values())
        assert sorted(owned) == sorted(
            TopicPartition(topic, number)
            for topic in wanted
            for number in range(self.topics.get(topic, 0))
        )
        for member, assigned in self.owned.items():
            for where in assigned:
                assert where.topic in self.wishes[member]
                for other, topics in self.wishes.items():
                    if where.topic in topics:
                        assert len(assigned) - len(self.owned[other]) <= 1


def test_a_member_that_comes_takes_only_its_share_and_in_a_second_generation() -> None:
    group = Group({"t": 6})
    group.join("a", "t")
    assert group.rebalance() == 1
    group.join("b", "t")
    assert group.rebalance() == 2
    assert group.moves == 3
    group.join("c", "t")
    assert group.rebalance() == 2
    assert group.moves == 3 + 2
    group.check()


def test_a_member_that_goes_moves_nothing_of_the_others() -> None:
    group = Group({"t": 6})
    for member in "abc":
        group.join(member, "t")
    group.rebalance()
    before = {member: group.owned[member] for member in "ab"}
    group.leave("c")
    assert group.rebalance() == 1
    assert all(group.owned[member] >= before[member] for member in "ab")
    group.check()


def test_a_claim_of_an_older_generation_does_not_count_but_is_waited_for() -> None:
    where = TopicPartition("t", 0)
    topics = frozenset(["t"])
    members = {
        "late": Subscription(topics, frozenset([where]), 3),
        "now": Subscription(topics, frozenset([where]), 5),
    }
    assert spelled(assign_sticky(members, {"t": 1})) == {"late": "", "now": ""}
    members["late"] = Subscription(topics, frozenset(), 6)
    assert spelled(assign_sticky(members, {"t": 1})) == {"late": "", "now": "t0"}


@given(st.integers(0, 2**32))
def test_a_sticky_group_is_even_and_comes_to_rest_whatever_happens(seed: int) -> None:
    chance = random.Random(seed)
    names = ["t", "u", "v"]
    group = Group({name: chance.randrange(1, 9) for name in names})
    alike = chance.random() < 0.5
    for _ in range(8):
        member = chance.choice("abcdef")
        if member in group.wishes and chance.random() < 0.4 and len(group.wishes) > 1:
            group.leave(member)
        elif chance.random() < 0.2:
            group.topics[chance.choice(names)] += 1
        else:
            count = 3 if alike else chance.randrange(1, 4)
            group.join(member, *chance.sample(names, count))
        if group.wishes:
            group.rebalance()
            group.check()


def test_subscriptions_and_assignments_survive_the_wire() -> None:
    owned = frozenset([TopicPartition("t", 1), TopicPartition("t", 0), TopicPartition("u", 9)])
    subscription = Subscription(frozenset(["t", "u"]), owned, 7)
    assert decode_subscription(encode_subscription(subscription)) == subscription
    assert decode_assignment(encode_assignment(owned)) == owned
    assert decode_assignment(b"") == frozenset()


def test_older_versions_and_newer_ones_are_read_as_far_as_they_are_known() -> None:
    topics = struct.pack(">ih1s", 1, 1, b"t")
    assert decode_subscription(b"\0\0" + topics + b"\xff\xff\xff\xff") == wants("t")
    owned = struct.pack(">ih1sii", 1, 1, b"t", 1, 4)
    java = b"\0\1" + topics + struct.pack(">ii", 4, 12) + owned
    assert decode_subscription(java) == Subscription(
        frozenset("t"), frozenset([TopicPartition("t", 4)]), 12
    )
    newer = b"\0\x09" + encode_subscription(wants("t"))[2:] + b"whatever follows"
    assert decode_subscription(newer).topics == {"t"}


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\0\0\1", b"\xff\xff\0\0\0\0"])
def test_what_is_no_subscription_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_subscription(data)
    if data:
        with pytest.raises(DecodeError):
            decode_assignment(data)
