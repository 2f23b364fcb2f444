"""Who is to have which partitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinator.group.consumer.assignors import (
    ASSIGNORS,
    Assignment,
    Subscriber,
    assign_ranges,
    assign_uniformly,
)

TOPICS = [b"x", b"y", b"z"]
COUNTS = st.fixed_dictionaries({each: st.integers(0, 7) for each in TOPICS})
SUBSCRIPTIONS = st.dictionaries(
    st.sampled_from("abcdef"), st.frozensets(st.sampled_from(TOPICS)), max_size=6
)


def subscribers(
    topics: dict[str, frozenset[bytes]], known: Assignment | None = None
) -> dict[str, Subscriber]:
    target = known or {}
    return {
        member: Subscriber(None, topic_ids, target.get(member, frozenset()))
        for member, topic_ids in topics.items()
    }


def everybody(members: str, *topics: bytes) -> dict[str, frozenset[bytes]]:
    return dict.fromkeys(members, frozenset(topics))


def sizes(assignment: Assignment) -> list[int]:
    return sorted(len(each) for each in assignment.values())


@given(SUBSCRIPTIONS, COUNTS, st.sampled_from(list(ASSIGNORS)), SUBSCRIPTIONS)
def test_every_partition_has_one_owner_among_its_subscribers(
    topics: dict[str, frozenset[bytes]],
    counts: dict[bytes, int],
    name: str,
    before: dict[str, frozenset[bytes]],
) -> None:
    known = ASSIGNORS[name](subscribers(before), counts)
    assignment = ASSIGNORS[name](subscribers(topics, known), counts)
    owned = [partition for partitions in assignment.values() for partition in partitions]
    subscribed = frozenset().union(*topics.values())
    assert sorted(owned) == [
        (topic, i) for topic in sorted(subscribed) for i in range(counts[topic])
    ]
    for member, partitions in assignment.items():
        assert {topic for topic, _ in partitions} <= topics[member]
    assert assignment.keys() == topics.keys()


@given(SUBSCRIPTIONS, COUNTS)
def test_uniform_moves_nothing_where_nothing_has_changed(
    topics: dict[str, frozenset[bytes]], counts: dict[bytes, int]
) -> None:
    known = assign_uniformly(subscribers(topics), counts)
    assert assign_uniformly(subscribers(topics, known), counts) == known


@given(st.sets(st.sampled_from("abcdef"), min_size=1), COUNTS, st.sets(st.sampled_from("abcdef")))
def test_uniform_is_even_and_moves_no_more_than_it_must(
    members: set[str], counts: dict[bytes, int], before: set[str]
) -> None:
    known = assign_uniformly(subscribers(everybody("".join(sorted(before)), *TOPICS)), counts)
    now = everybody("".join(sorted(members)), *TOPICS)
    assignment = assign_uniformly(subscribers(now, known), counts)
    assert max(sizes(assignment)) - min(sizes(assignment)) <= 1
    least, more = divmod(sum(counts.values()), len(members))
    had = sorted((len(known.get(each, ())) for each in members), reverse=True)
    could_keep = sum(min(size, least + (i < more)) for i, size in enumerate(had))
    kept = sum(len(assignment[each] & known.get(each, frozenset())) for each in members)
    assert kept == could_keep


def test_uniform_levels_members_with_different_subscriptions() -> None:
    topics = {"a": frozenset({b"x", b"y"}), "b": frozenset({b"x"})}
    assignment = assign_uniformly(subscribers(topics), {b"x": 4, b"y": 4})
    assert sizes(assignment) == [4, 4]
    assert {topic for topic, _ in assignment["a"]} == {b"y"}


def test_a_range_puts_partitions_of_the_same_number_together() -> None:
    assignment = assign_ranges(subscribers(everybody("ab", b"x", b"y")), {b"x": 3, b"y": 3})
    assert assignment["a"] == {(b"x", 0), (b"x", 1), (b"y", 0), (b"y", 1)}
    assert assignment["b"] == {(b"x", 2), (b"y", 2)}


def test_a_range_follows_the_order_of_instance_ids_and_then_of_member_ids() -> None:
    topics = frozenset({b"x"})
    members = {
        "a": Subscriber(None, topics),
        "b": Subscriber("2", topics),
        "c": Subscriber("1", topics),
    }
    assignment = assign_ranges(members, {b"x": 3})
    assert assignment == {"c": {(b"x", 0)}, "b": {(b"x", 1)}, "a": {(b"x", 2)}}
