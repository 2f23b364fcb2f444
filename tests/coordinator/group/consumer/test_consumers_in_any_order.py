"""Whatever members and topics do: nothing is had by two, and in the end everything by somebody."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinator.group.consumer.group import MEMBER_STATES, ConsumerGroup
from ottla.errors import codes
from tests.coordinator.group.consumer.members import (
    REBALANCE_MS,
    Client,
    ConsumerShard,
    settle,
    shard_of,
)

KINDS = (
    "beat", "beat", "beat", "beat", "lost", "silent", "kill", "leave", "topics", "subscribe",
    "static", "time", "fail", "start",
)  # fmt: skip
STEPS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 3), st.integers(0, 3)),
    min_size=15,
    max_size=60,
)
SUBSCRIPTIONS = (
    {"subscribed_topic_names": ["t"], "subscribed_topic_regex": ""},
    {"subscribed_topic_names": ["u", "t"], "subscribed_topic_regex": ""},
    {"subscribed_topic_names": ["u"], "subscribed_topic_regex": ""},
    {"subscribed_topic_names": [], "subscribed_topic_regex": "[tu].*"},
)


class Crowd:
    """Members of one group, some of them static, and the partitions that they use."""

    def __init__(self) -> None:
        self.shard = shard_of(("t", 3))
        self.clients: dict[int, Client] = {}
        self.numbers = 0

    def client(self, slot: int, amount: int) -> Client:
        client = self.clients.get(slot)
        if client is None:
            self.numbers += 1
            fields = dict(SUBSCRIPTIONS[amount])
            if slot == 0:
                fields["instance_id"] = "static"
            client = self.clients[slot] = Client(self.shard, f"m{self.numbers}", **fields)
        client.shard = self.shard
        return client

    def step(self, kind: str, slot: int, amount: int) -> None:
        shard = self.shard
        if kind in ("beat", "lost", "silent", "leave", "subscribe", "static"):
            client = self.client(slot, amount)
            self._ask(kind, client, amount)
        elif kind == "kill":
            self.clients.pop(slot, None)
        elif kind == "topics":
            self._change_topics(amount)
        elif kind == "time":
            self._let_time_go_by(amount)
        elif kind == "fail":
            shard.failing = codes.NOT_COORDINATOR if amount == 0 else codes.NONE
        else:
            again = shard.reloaded()
            assert isinstance(again, ConsumerShard)
            again.failing = shard.failing
            self.shard = again

    def _ask(self, kind: str, client: Client, amount: int) -> None:
        client.is_unsure |= kind in ("lost", "silent")
        if kind == "beat":
            instance = {} if client.epoch == 0 else self._instance(client)
            client.beat(**instance)
        elif kind == "lost" and client.epoch > 0:
            self.shard.beat(
                client.member_id, client.epoch, owned=client.owned, **self._instance(client)
            )
        elif kind == "silent" and client.epoch > 0:
            self.shard.beat(client.member_id, client.epoch, **self._instance(client))
        elif kind == "subscribe" and client.epoch > 0:
            client.fields.update(SUBSCRIPTIONS[amount])
            client.beat(**SUBSCRIPTIONS[amount], **self._instance(client))
        elif kind in ("leave", "static"):
            is_static = "instance_id" in client.fields and kind == "static"
            epoch = -2 if is_static else -1
            client.owned = {}
            self.shard.beat(client.member_id, epoch, **self._instance(client))
            self.clients = {key: each for key, each in self.clients.items() if each is not client}

    def _instance(self, client: Client) -> dict[str, str]:
        return {key: value for key, value in client.fields.items() if key == "instance_id"}

    def _change_topics(self, amount: int) -> None:
        shard = self.shard
        topics = shard.cluster.topics
        if amount == 0 and "u" not in topics:
            shard.create("u", 2)
        elif amount == 1 and "u" in topics:
            shard.delete("u")
        elif amount == 2 and topics["t"].partitions < 8:
            shard.grow("t", topics["t"].partitions + 1)
        elif amount == 3 and "tt" not in topics:
            shard.create("tt", 2)

    def _let_time_go_by(self, amount: int) -> None:
        """Who is put out while it is silent stops using what it has by its own clock."""
        self.shard.advance(amount * 20_000)
        group = self.shard.coordinator.groups.get("g")
        members = group.members if isinstance(group, ConsumerGroup) else {}
        for client in self.clients.values():
            if client.member_id not in members:
                client.epoch, client.owned = 0, {}

    def check(self) -> None:
        """Check what holds between any two steps."""
        group = self.shard.coordinator.groups.get("g")
        if not isinstance(group, ConsumerGroup):
            return
        used = [each for client in self.clients.values() for each in client.partitions]
        assert len(used) == len(set(used)), "a partition is used by two"
        owners: dict[tuple[bytes, int], str] = {}
        for member in group.members.values():
            for partition in (*member.assigned, *member.pending_revocation):
                assert owners.setdefault(partition, member.member_id) == member.member_id
            assert member.state in MEMBER_STATES
            assert member.member_epoch <= group.assignment_epoch
        assert owners == group.owners
        assert group.assignment_epoch <= group.group_epoch
        assert set(group.regexes) == {
            each.topic_regex for each in group.members.values() if each.topic_regex
        }


@given(STEPS)
def test_no_partition_is_had_by_two_and_in_the_end_each_is_somebody_s(
    steps: list[tuple[str, int, int]],
) -> None:
    crowd = Crowd()
    for kind, slot, amount in steps:
        crowd.step(kind, slot, amount)
        crowd.check()
    crowd.shard.failing = codes.NONE
    for client in crowd.clients.values():
        client.shard = crowd.shard
        client.beat(**({} if client.epoch == 0 else crowd._instance(client)))
    _put_out_the_silent(crowd)
    settle(*crowd.clients.values())
    crowd.check()
    group = crowd.shard.coordinator.groups.get("g")
    if not isinstance(group, ConsumerGroup):
        assert not crowd.clients
        return
    assert set(group.members) == {each.member_id for each in crowd.clients.values()}
    topics = crowd.shard.cluster.topics
    wanted = {
        (topics[name].topic_id, index)
        for name in group.subscribed_topics()
        if name in topics
        for index in range(topics[name].partitions)
    }
    used = {each for client in crowd.clients.values() for each in client.partitions}
    assert used == wanted
    assert group.state_name == ("Stable" if crowd.clients else "Empty")
    assert crowd.shard.reloaded().known() == crowd.shard.known()


def _put_out_the_silent(crowd: Crowd) -> None:
    """Let the sessions of members that are gone end, while the others go on."""
    for _ in range(8):
        crowd.shard.advance(REBALANCE_MS / 6)
        for client in crowd.clients.values():
            client.beat(**({} if client.epoch == 0 else crowd._instance(client)))
