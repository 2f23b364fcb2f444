"""Groups of our consumers and the real coordinator in one history after the other, from seeds.

    python -m tests.client.simulated_groups [HISTORIES [FIRST_SEED]]

A history has members of the classic, of the consumer protocol, or of both in one group. They come,
go, are killed, stand still, and their users are busy; messages are slow or lost, the broker starts
again, topics get partitions. Every member has the parts that a `Consumer` has, without its thread;
what it does with a record is to note that it had it. Checked is, whenever something has happened,

- that no two members own one partition, among those that the coordinator counts as its members;
- that nothing is committed that nobody has read;
- and when the disturbances are over, that the group comes to rest: everything is owned by one
  member, nothing changes hands any more, and everything was read and is committed.

One seed is one history. With PYTHONHASHSEED=0 it is the same each time.
"""

from __future__ import annotations

import logging
import random
import sys
from collections import defaultdict
from functools import partial
from typing import Any

from ottla.client.config import ConsumerConfig
from ottla.client.consumer_core import ConsumerCore
from ottla.client.consumer_membership import ConsumerMembership
from ottla.client.lookup import TopicPartition
from ottla.client.offsets import Commit
from ottla.client.rebalancing import Listeners, Rebalancing
from ottla.coordinator.group.classic import ClassicGroup
from ottla.coordinator.group.consumer.group import ConsumerGroup
from tests.client.simulated_broker import Broker, Happenings, Network

SESSION_MS = 6000
POLL_INTERVAL_MS = 15_000
KINDS = ("classic", "consumer", "both")
_MEMBERS_MAX = 4
_DISTURBED_MS = 60_000
_TO_REST_MS = 150_000
_AT_REST_MS = 30_000
_LOOK_MS = 3000
_SETTINGS = {
    "group_consumer_session_timeout_ms": SESSION_MS,
    "group_consumer_heartbeat_interval_ms": 1000,
}


class Member:
    """A consumer, and its user.

    Attributes:
        is_stopped: whether its process stands still until `goes_on_ms`.
    """

    def __init__(self, history: History, name: str, protocol: str, instance_id: str | None) -> None:
        settings: dict[str, Any] = {
            "group_protocol": protocol,
            "group_instance_id": instance_id,
        }
        if protocol == "classic":
            settings |= {"session_timeout_ms": SESSION_MS, "heartbeat_interval_ms": 1000}
        config = ConsumerConfig(
            group_id="g",
            max_poll_interval_ms=POLL_INTERVAL_MS,
            auto_commit_interval_ms=2000,
            metadata_max_age_ms=5000,
            **settings,
        )
        self.history = history
        self.name = name
        self.instance_id = instance_id
        self.network = Network(history.broker)
        self.network.arrived = self._wake
        self.core = ConsumerCore(self.network, config, history.happenings.clock, None)
        self.core.driver._closed = True  # the history does all turns
        assert self.core.group is not None
        self.group = self.core.group
        if isinstance(self.group.membership, ConsumerMembership):
            self.group.membership.member_id = name
        self.rebalancing = Rebalancing(self.core)
        self.rebalancing.listeners = Listeners(on_assigned=self._assigned)
        self.goes_on_ms = 0.0
        self.is_leaving = False
        self._last_commit: Commit | None = None
        self._is_woken = False
        self._due_ms: float | None = None
        self.core.subscribe(["t"], None)
        self._wake()
        history.happenings.after(0, self.poll)

    @property
    def is_there(self) -> bool:
        return self in self.history.members

    def _assigned(self, consumer: object, partitions: list[TopicPartition]) -> None:
        for where in partitions:
            self.core.fetcher.partitions[where].is_paused = True  # nothing is fetched, but read

    # -- turns

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self.history.happenings.at(self.goes_on_ms, self._turn)

    def _turn(self) -> None:
        self._is_woken = False
        if not self.is_there:
            return
        if self.history.happenings.now < self.goes_on_ms:
            self._wake()
            return
        self.network.poll(0)
        due_ms = self.core.step()
        self.network.poll(0)
        now = self.history.happenings.now
        if due_ms is not None and due_ms <= now:
            due_ms = self.core.step()
        if due_ms is not None and due_ms != self._due_ms:
            self._due_ms = due_ms
            self.history.happenings.at(max(due_ms, now + 1), partial(self._is_due, due_ms))
        if self._last_commit is not None and self._last_commit.is_done:
            self._last_commit = None
            self.group.leave()
            self._wake()
        elif self.is_leaving and self._last_commit is None and self.group.has_left_for_good:
            self.history.members.remove(self)
            self.core.close()
        self.core.take_error()

    def _is_due(self, due_ms: float) -> None:
        if due_ms == self._due_ms:
            self._due_ms = None
            self._wake()

    # -- the user

    def poll(self) -> None:
        """Do what a user does in a poll, and with what it gives."""
        history = self.history
        if not self.is_there or self.is_leaving:
            return
        if history.happenings.now < self.goes_on_ms:
            history.happenings.at(self.goes_on_ms, self.poll)
            return
        membership = self.group.membership
        membership.polled(history.happenings.now)
        has_change = membership.has_change()
        if self.rebalancing.carry_out(None, 0):
            self._read()
        if has_change or not membership.is_settled:
            self._wake()
        history.happenings.after(history.busy_ms(), self.poll)

    def _read(self) -> None:
        for where, state in self.core.fetcher.partitions.items():
            if state.position is None:
                continue
            count = self.history.broker.ends[where] - state.position
            if count > 0:
                count = min(count, int(4 * self.history.rng.random()))
                self.history.seen[where].update(range(state.position, state.position + count))
                state.position += count

    def close(self) -> None:
        """Commit and leave, as `Consumer.close` does."""
        self.is_leaving = True
        self._last_commit = self.core.commit_finished()
        self._wake()

    @property
    def counts(self) -> bool:
        """Whether the coordinator counts it as a member."""
        identity = self.group.membership.identity
        group = self.history.broker.shard.coordinator.groups.get("g")
        if identity is None or not isinstance(group, ClassicGroup | ConsumerGroup):
            return False
        return identity.member_id in group.members


class History:
    """What happens from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.happenings = Happenings()
        self.broker = Broker(self.happenings, self.rng, **_SETTINGS)
        self.broker.committed = self._committed
        self.seen: dict[tuple[str, int], set[int]] = defaultdict(set)
        self.members: list[Member] = []
        self.kind = KINDS[seed % len(KINDS)]
        self._names = 0
        self._is_disturbed = True
        self.broker.shard.create("t", 1)
        self.broker.ends["t", 0] = 0
        self._grow(self.rng.randint(1, 4))

    def busy_ms(self) -> float:
        """Return how long a user takes until it polls again."""
        if self._is_disturbed and self.rng.random() < 0.01:
            return 2 * POLL_INTERVAL_MS * self.rng.random()
        return 300 * self.rng.random()

    def _grow(self, count: int) -> None:
        partitions = self.broker.shard.cluster.topics["t"].partitions
        self.broker.shard.grow("t", partitions + count)
        for number in range(partitions, partitions + count):
            self.broker.ends["t", number] = 0

    def _committed(self, topic: str, partition: int, offset: int) -> None:
        seen = self.seen[topic, partition]
        skipped = set(range(offset)) - seen
        assert not skipped, f"{offset} is committed for {partition}, and {skipped} was never read"

    # -- disturbances

    def _start(self) -> None:
        self._names += 1
        protocol = self.rng.choice(KINDS[:2]) if self.kind == "both" else self.kind
        instance_id = None
        if self.rng.random() < 0.3:
            used = {each.instance_id for each in self.members}
            instance_id = next((name for name in ("x", "y") if name not in used), None)
        self.members.append(Member(self, f"m{self._names:05}", protocol, instance_id))

    def _disturb(self) -> None:
        if not self._is_disturbed:
            return
        rng = self.rng
        staying = [each for each in self.members if not each.is_leaving]
        kind = rng.choice(("start", "close", "kill", "stop", "restart", "grow", "write", "write"))
        if kind == "start" and len(self.members) < _MEMBERS_MAX:
            self._start()
        elif kind == "close" and staying:
            rng.choice(staying).close()
        elif kind == "kill" and staying:
            self.members.remove(killed := rng.choice(staying))
            for each in list(self.broker.connections):
                if each._network is killed.network:
                    each.close()
        elif kind == "stop" and staying:
            rng.choice(staying).goes_on_ms = self.happenings.now + 2 * SESSION_MS * rng.random()
        elif kind == "restart" and self.broker.is_up:
            self.broker.restart(1000 * rng.random())
        elif kind == "grow" and len(self.broker.ends) < 8:
            self._grow(1)
        else:
            self._write()
        self.happenings.after(3000 * rng.random(), self._disturb)

    def _write(self) -> None:
        for where in self.broker.ends:
            self.broker.ends[where] += self.rng.randint(0, 5)

    # -- time

    def run(self) -> None:
        """Let everything happen, and check it.

        Raises:
            AssertionError: something has happened that must not.
        """
        rng = self.rng
        self.broker.loss = rng.choice((0.0, 0.01, 0.05))
        self.broker.slowness = rng.choice((0.0, 0.02, 0.1))
        for _ in range(rng.randint(1, 3)):
            self._start()
        self._write()
        self.happenings.after(1000 * rng.random(), self._disturb)
        self._go_on(_DISTURBED_MS)
        self._is_disturbed = False
        self.broker.loss = self.broker.slowness = 0.0
        if not [each for each in self.members if not each.is_leaving]:
            self._start()
        self._write()
        self._come_to_rest()

    def _come_to_rest(self) -> None:
        """Go on until everything has been as it is to be for a while."""
        end_ms = self.happenings.now + _TO_REST_MS
        owners: dict[TopicPartition, str] | None = None
        since_ms = self.happenings.now
        while owners is None or self.happenings.now - since_ms < _AT_REST_MS:
            self._go_on(_LOOK_MS)
            is_late = self.happenings.now >= end_ms
            found = None
            try:
                found = self._check_rest()
            except AssertionError:
                if is_late:
                    raise
            if found != owners:
                assert not is_late, "partitions go on changing hands"
                owners, since_ms = found, self.happenings.now

    def _go_on(self, milliseconds: float) -> None:
        happenings = self.happenings
        end_ms = happenings.now + milliseconds
        while True:
            next_ms = happenings.next_ms()
            shard = self.broker.shard
            timer_ms = shard.timers.next_deadline_ms() if self.broker.is_up else None
            if timer_ms is not None and (next_ms is None or timer_ms <= next_ms):
                if timer_ms > end_ms:
                    break
                shard.advance(max(timer_ms - happenings.now, 0))
            else:
                if next_ms is None or next_ms > end_ms:
                    break
                happenings.clock.advance(next_ms - happenings.now)
                happenings.pop()()
            self._check()
        happenings.clock.advance(max(end_ms - happenings.now, 0))

    def _check(self) -> None:
        owned = [each.group.membership.owned for each in self.members]
        if sum(map(len, owned)) == len(frozenset().union(*owned)):
            return
        owners: dict[TopicPartition, Member] = {}
        for member, partitions in zip(self.members, owned, strict=True):
            if member.counts:
                for where in partitions:
                    other = owners.setdefault(where, member)
                    assert other is member, f"{where} is {other.name}'s and {member.name}'s"

    def _check_rest(self) -> dict[TopicPartition, str]:
        owners: dict[TopicPartition, str] = {}
        for member in self.members:
            assert not member.is_leaving, f"{member.name} never comes to an end"
            assert member.group.membership.is_settled, f"{member.name} comes not to rest"
            for where in member.group.membership.owned:
                assert where not in owners
                owners[where] = member.name
        assert owners.keys() == self.broker.ends.keys(), "not everything is owned"
        for partition, end in self.broker.ends.items():
            assert self.seen[partition] >= set(range(end)), f"not all of {partition} was read"
            found = self.broker.committed_of(*partition)
            assert found == end, f"{found} is committed for {partition}, and {end} was read"
        return owners


def main() -> None:
    """Run histories, and say which fail."""
    logging.disable()
    count, first = (int(each) for each in [*sys.argv[1:], "10000", "0"][:2])
    failed = 0
    for number in range(1, count + 1):
        seed = first + number - 1
        try:
            History(seed).run()
        except AssertionError as error:
            failed += 1
            sys.stdout.write(f"seed {seed} ({KINDS[seed % len(KINDS)]}): {error}\n")
        if number % 100 == 0 or number == count:
            sys.stdout.write(f"{number} histories, {failed} failed; the last seed was {seed}\n")
            sys.stdout.flush()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
