"""Deadlines that are put off often, in one heap for all shards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinator.group.decision import Decision
from ottla.coordinator.group.timers import Now, ShardTimers, Timers


def at(milliseconds: float) -> Now:
    return Now(0, milliseconds)


class Fired:
    """Deadlines, and what has come up."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.names: list[str] = []

    def shard(self, number: int = 0) -> ShardTimers:
        return self.timers.of_shard(number)

    def set(self, name: str, now_ms: float, delay_ms: float, shard: int = 0) -> None:
        def action(now: Now) -> Decision:
            self.names.append(name)
            return Decision()

        self.shard(shard).set((name,), at(now_ms), delay_ms, action)

    def fire(self, now_ms: float) -> list[int]:
        shards = []
        for shard, action in self.timers.due(now_ms):
            shards.append(shard)
            action(at(now_ms))
        return shards


def test_what_is_due_comes_in_order_and_once() -> None:
    fired = Fired()
    fired.set("b", 0, 20)
    fired.set("a", 0, 10, shard=7)
    assert fired.timers.next_deadline_ms() == 10
    assert fired.fire(9) == []
    assert fired.fire(20) == [7, 0]
    assert fired.names == ["a", "b"]
    assert fired.timers.next_deadline_ms() is None
    assert fired.fire(1000) == []


def test_a_deadline_that_is_put_off_or_brought_forward_comes_once() -> None:
    fired = Fired()
    fired.set("a", 0, 10)
    fired.set("a", 5, 10)
    assert fired.timers.next_deadline_ms() == 15
    fired.set("a", 5, 2)
    assert fired.timers.next_deadline_ms() == 7
    assert fired.fire(100) == [0]


def test_what_is_cancelled_does_not_come_and_can_be_set_again() -> None:
    fired = Fired()
    fired.set("a", 0, 10)
    fired.shard().cancel(("a",))
    fired.shard().cancel(("never set",))
    assert fired.timers.next_deadline_ms() is None
    fired.set("a", 0, 30)
    assert fired.fire(29) == []
    assert fired.fire(30) == [0]


def test_shards_have_deadlines_of_their_own() -> None:
    fired = Fired()
    fired.set("a", 0, 10, shard=1)
    fired.set("a", 0, 10, shard=2)
    fired.timers.cancel_all(1)
    assert fired.fire(10) == [2]


def test_an_action_may_set_its_deadline_again() -> None:
    timers = Timers()
    count = 0

    def again(now: Now) -> Decision:
        nonlocal count
        count += 1
        timers.set((0, ("a",)), now, 10, again)
        return Decision()

    timers.set((0, ("a",)), at(0), 10, again)
    for now_ms in (10, 20, 30):
        for _, action in timers.due(now_ms):
            action(at(now_ms))
    assert count == 3


def test_all_can_have_their_whole_time_again() -> None:
    fired = Fired()
    fired.set("a", 0, 10)
    fired.set("b", 0, 20)
    fired.timers.restart(at(100))
    assert fired.fire(109) == []
    assert fired.fire(110) == [0]
    assert fired.timers.next_deadline_ms() == 120


def test_a_deadline_that_is_put_off_very_often_takes_one_place() -> None:
    fired = Fired()
    for now_ms in range(10_000):
        fired.set("a", now_ms, 10)
    assert len(fired.timers._heap) == 1


STEPS = st.lists(
    st.tuples(st.sampled_from(["set", "cancel", "fire"]), st.sampled_from("abc"), st.integers(0, 9))
)


@given(STEPS)
def test_what_comes_up_is_what_a_plain_dictionary_says(steps: list[tuple[str, str, int]]) -> None:
    fired = Fired()
    wanted: dict[str, int] = {}
    now_ms = 0
    for step, name, number in steps:
        if step == "set":
            fired.set(name, now_ms, number)
            wanted[name] = now_ms + number
        elif step == "cancel":
            fired.shard().cancel((name,))
            wanted.pop(name, None)
        else:
            now_ms += number
            due = {each for each, deadline in wanted.items() if deadline <= now_ms}
            fired.names.clear()
            fired.fire(now_ms)
            assert len(fired.names) == len(due) and set(fired.names) == due
            wanted = {each: deadline for each, deadline in wanted.items() if each not in due}
        assert fired.timers.next_deadline_ms() == min(wanted.values(), default=None)
