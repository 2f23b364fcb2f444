"""Some histories of groups; `python -m tests.client.simulated_groups` runs as many as one likes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ottla.client.classic_membership import ClassicMembership
from ottla.client.consumer_core import ConsumerCore
from ottla.client.consumer_membership import ConsumerMembership
from ottla.client.offsets import OffsetAndMetadata, Offsets
from ottla.protocol.messages.api_11_join_group import JoinGroupRequest
from ottla.protocol.messages.api_68_consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from tests.client.simulated_groups import KINDS, History

HISTORIES = 80
PARTS = 4


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_partition_is_had_by_two_nothing_is_skipped_and_every_group_comes_to_rest(
    part: int,
) -> None:
    for seed in range(part, HISTORIES, PARTS):
        History(seed).run()


def _run_until_it_is_found(kind: str) -> None:
    for seed in range(KINDS.index(kind), 180, len(KINDS)):
        History(seed).run()


def _gives_back_before_its_user_has(patch: pytest.MonkeyPatch) -> None:
    heartbeat = ConsumerMembership._heartbeat

    def say(self: ConsumerMembership) -> ConsumerGroupHeartbeatRequest:
        owned, revoked = self._owned, self._revoked
        self._owned = {where: key for where, key in owned.items() if where not in revoked}
        self._revoked = frozenset()
        try:
            return heartbeat(self)
        finally:
            self._owned, self._revoked = owned, revoked

    patch.setattr(ConsumerMembership, "_heartbeat", say)


def _joins_again_as_if_it_read_nothing(patch: pytest.MonkeyPatch) -> None:
    join = ClassicMembership._join_request

    def say(self: ClassicMembership) -> JoinGroupRequest:
        owned, self._owned = self._owned, frozenset()
        try:
            return join(self)
        finally:
            self._owned = owned

    patch.setattr(ClassicMembership, "_join_request", say)


def _commits_one_more_than_was_read(patch: pytest.MonkeyPatch) -> None:
    finished = ConsumerCore.finished

    def say(self: ConsumerCore) -> Offsets:
        return {where: OffsetAndMetadata(each.offset + 1) for where, each in finished(self).items()}

    patch.setattr(ConsumerCore, "finished", say)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "plant", "finding"),
    [
        ("consumer", _gives_back_before_its_user_has, "TopicPartition.* is m.*'s and m.*'s"),
        ("classic", _joins_again_as_if_it_read_nothing, "TopicPartition.* is m.*'s and m.*'s"),
        ("both", _commits_one_more_than_was_read, "was never read"),
    ],
)
def test_a_planted_bug_is_found(
    kind: str,
    plant: Callable[[pytest.MonkeyPatch], None],
    finding: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=finding):
        _run_until_it_is_found(kind)
