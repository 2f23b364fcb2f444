"""Whatever members do, and in whatever order: nobody waits for ever, and a start finds it all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinator.group.classic import State
from ottla.errors import codes
from tests.coordinator.group.shards import REBALANCE_MS, SESSION_MS, Asked, Shard

ASKING = ("new", "old", "static", "join", "sync", "sync", "beat", "leave", "commit")
AROUND = ("time", "fail", "start", "expire", "delete")
STEPS = st.lists(
    st.tuples(st.sampled_from(ASKING + AROUND), st.integers(0, 3), st.integers(0, 4)), max_size=60
)


class Crowd:
    """Members that do whatever they are told to, with what they know."""

    def __init__(self) -> None:
        self.shard = Shard()
        self.asked: list[Asked] = []
        self.ids: list[str] = ["?"]
        self.generation = 0

    def step(self, kind: str, number: int, amount: int) -> None:
        shard = self.shard
        member = self.ids[-1 - number % len(self.ids)]
        self._learn()
        if kind == "new":
            self._ask(shard.join())
        elif kind == "old":
            self._ask(shard.join(version=3, protocols={"range": b"%d" % number}))
        elif kind == "static":
            self._ask(shard.join(instance="ab"[number % 2]))
        elif kind == "join":
            self._ask(shard.join(member, instance=self._instance(member)))
        elif kind == "sync":
            self._ask(shard.sync(member, self.generation, dict.fromkeys(self.ids, b"a")))
        elif kind == "beat":
            shard.heartbeat(member, self.generation)
        elif kind == "leave":
            shard.leave((member, self._instance(member)), ("", "ab"[number % 2]))
        elif kind == "commit":
            shard.commit(amount, member_id=member, generation=self.generation)
            shard.commit(amount)
        elif kind == "time":
            shard.advance(amount * SESSION_MS / 2)
        elif kind == "expire":
            for decision in shard.coordinator.expire_offsets(shard.now):
                shard.do(decision)
        elif kind == "delete":
            shard.do(shard.coordinator.delete_group("g")[1])
        elif kind == "fail":
            shard.failing = codes.NOT_COORDINATOR if amount == 0 else codes.NONE
        else:
            failing = shard.failing
            self.shard = shard.reloaded()
            self.shard.failing = failing
            self.asked.clear()

    def _ask(self, asked: Asked) -> None:
        self.asked.append(asked)
        self._learn()

    def _instance(self, member: str) -> str | None:
        return member[0] if member[0] in "ab" else None

    def _learn(self) -> None:
        for asked in self.asked:
            for answer in asked.answers:
                member = getattr(answer, "member_id", "")
                if member and member not in self.ids:
                    self.ids.append(member)
                self.generation = max(self.generation, getattr(answer, "generation_id", 0))
        self.asked = [each for each in self.asked if not each.is_answered]

    def check(self) -> None:
        """Check what holds between any two steps."""
        for asked in self.asked:
            assert len(asked.answers) <= 1
        group = self.shard.coordinator.groups.get("g")
        if group is None:
            return
        group = self.shard.group()
        members = group.members
        assert group.state is not State.DEAD
        if group.state in (State.COMPLETING_REBALANCE, State.STABLE):
            assert group.leader_id in members
            assert group.protocol_name is not None
            assert all(group.protocol_name in each.protocols for each in members.values())
            assert all(each.awaiting_join is None for each in members.values())
        if group.state is State.EMPTY:
            assert not members
        if group.state is not State.COMPLETING_REBALANCE:
            assert all(each.awaiting_sync is None for each in members.values())
        names = [each.group_instance_id for each in members.values() if each.group_instance_id]
        assert len(names) == len(set(names))
        assert group.unsynced <= members.keys()
        assert not group.pending_members & members.keys()


@given(STEPS)
def test_every_request_is_answered_once_and_silence_ends_in_an_empty_group(
    steps: list[tuple[str, int, int]],
) -> None:
    crowd = Crowd()
    for kind, number, amount in steps:
        crowd.step(kind, number, amount)
        crowd.check()
    shard = crowd.shard
    shard.failing = codes.NONE
    shard.advance(20 * REBALANCE_MS)
    assert all(len(asked.answers) == 1 for asked in crowd.asked)
    assert all(group.is_empty for group in shard.coordinator.groups.values())
    assert shard.timers.next_deadline_ms() is None
    assert shard.reloaded().known() == shard.known()
