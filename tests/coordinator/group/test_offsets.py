"""Committed offsets: who may commit, what is fetched, deleted and expires, and transactions."""

from __future__ import annotations

from typing import Any

import pytest

from ottla.coordinator.group.coordinator import Commit, Committer
from ottla.coordinator.group.offsets import CommittedOffset
from ottla.coordinator.group.records import GroupCodec, offset_record
from ottla.errors import codes
from ottla.protocol.messages.group_records import OffsetCommitValue
from tests.coordinator.group.shards import TOPIC_ID, Shard, subscription

DAY_MS = 24 * 3_600_000
RETENTION_MS = 7 * DAY_MS


def test_what_a_member_commits_is_fetched_with_all_that_it_said() -> None:
    shard = Shard()
    (one,) = shard.stable()
    assert shard.commit(42, member_id=one, generation=1, metadata="m") == codes.NONE
    found = shard.coordinator.fetch("g", "t", 0, stable=True)
    now_ms = shard.now.wall_ms
    assert found == CommittedOffset(42, 3, "m", now_ms, -1, TOPIC_ID, len(shard.log) - 1)
    assert shard.reloaded().coordinator.fetch("g", "t", 0, stable=True) == found


def test_no_metadata_is_empty_metadata() -> None:
    shard = Shard()
    shard.commit(1, metadata=None)
    found = shard.coordinator.fetch("g", "t", 0, stable=False)
    assert isinstance(found, CommittedOffset) and found.metadata == ""


def test_what_was_never_committed_is_none() -> None:
    shard = Shard()
    assert shard.committed() is None
    shard.commit(1)
    assert shard.committed("u") is None
    assert shard.coordinator.fetch("g", "t", 1, stable=True) is None


def test_metadata_may_be_as_long_as_the_broker_says() -> None:
    shard = Shard(offset_metadata_max_bytes=5)
    assert shard.commit(1, metadata="12345") == codes.NONE
    assert shard.commit(2, metadata="123456") == codes.OFFSET_METADATA_TOO_LARGE
    assert shard.committed() == 1


def test_some_of_several_offsets_may_be_refused() -> None:
    shard = Shard(offset_metadata_max_bytes=1)
    commits = [Commit("t", TOPIC_ID, each, each, -1, "x" * each) for each in range(3)]
    errors, decision = shard.coordinator.commit(Committer("g"), commits, shard.now)
    assert errors == [codes.NONE, codes.NONE, codes.OFFSET_METADATA_TOO_LARGE]
    assert len(decision.records) == 2
    assert shard.coordinator.groups == {}, "a decision changes nothing"


# -- who may commit


def test_somebody_who_is_no_member_makes_a_simple_group() -> None:
    shard = Shard()
    assert shard.commit(7) == codes.NONE
    group = shard.group()
    assert (group.state_name, group.protocol_type, group.is_stored) == ("Empty", None, False)
    assert shard.reloaded().committed() == 7


def test_a_member_of_a_group_that_is_not_there_is_told_so() -> None:
    shard = Shard()
    assert shard.commit(1, member_id="m", generation=1, version=9) == codes.GROUP_ID_NOT_FOUND
    assert shard.commit(1, member_id="m", generation=1, version=8) == codes.ILLEGAL_GENERATION


@pytest.mark.parametrize(
    ("committer", "error"),
    [
        ({}, codes.UNKNOWN_MEMBER_ID),
        ({"member_id": "x", "generation": 1}, codes.UNKNOWN_MEMBER_ID),
        ({"member_id": "ONE", "generation": 0}, codes.ILLEGAL_GENERATION),
        ({"member_id": "ONE", "generation": 2}, codes.ILLEGAL_GENERATION),
        ({"member_id": "ONE", "generation": -1}, codes.ILLEGAL_GENERATION),
        ({"member_id": "ONE", "generation": 1}, codes.NONE),
        ({"group_instance_id": "i"}, codes.UNKNOWN_MEMBER_ID),
    ],
)
def test_a_group_with_members_takes_commits_of_its_generation(
    committer: dict[str, Any], error: int
) -> None:
    shard = Shard()
    (one,) = shard.stable()
    if committer.get("member_id") == "ONE":
        committer = {**committer, "member_id": one}
    assert shard.commit(1, **committer) == error


def test_an_empty_group_takes_commits_of_anybody_but_not_of_its_old_members() -> None:
    shard = Shard()
    (one,) = shard.stable()
    shard.leave((one, None))
    assert shard.commit(1) == codes.NONE
    assert shard.commit(1, member_id=one, generation=1) == codes.UNKNOWN_MEMBER_ID


def test_commits_go_on_while_members_join_again_and_wait_while_the_leader_assigns() -> None:
    shard = Shard()
    one, two = shard.stable(2)
    shard.join(one)
    assert shard.commit(1, member_id=two, generation=2) == codes.NONE
    shard.join(two)
    assert shard.commit(2, member_id=two, generation=2) == codes.ILLEGAL_GENERATION
    assert shard.commit(2, member_id=two, generation=3) == codes.REBALANCE_IN_PROGRESS
    shard.sync(one, 3, {})
    assert shard.commit(2, member_id=two, generation=3) == codes.NONE


def test_a_commit_is_as_good_as_a_heartbeat() -> None:
    shard = Shard()
    (one,) = shard.stable()
    for offset in range(5):
        shard.advance(9000)
        assert shard.commit(offset, member_id=one, generation=1) == codes.NONE
    assert shard.state == "Stable"


# -- deleting


def delete(shard: Shard, *partitions: tuple[str, int]) -> tuple[int, list[int]]:
    error, errors, decision = shard.coordinator.delete_offsets("g", list(partitions))
    shard.do(decision)
    return error, errors


def test_offsets_can_be_deleted_but_for_what_members_read() -> None:
    shard = Shard()
    shard.commit(1, topic="t")
    shard.commit(2, topic="u")
    shard.stable()
    refused = codes.GROUP_SUBSCRIBED_TO_TOPIC
    assert delete(shard, ("t", 0), ("u", 0), ("u", 9)) == (codes.NONE, [refused, 0, 0])
    assert (shard.committed("t"), shard.committed("u")) == (1, None)
    assert shard.reloaded().committed("u") is None


def test_of_a_group_whose_subscriptions_are_not_known_nothing_can_be_deleted() -> None:
    shard = Shard()
    asked = shard.join(version=3, protocol_type="connect")
    member = asked.response.member_id
    assert delete(shard, ("t", 0)) == (codes.NON_EMPTY_GROUP, [])
    shard.sync(member, 1, {})
    assert delete(shard, ("t", 0)) == (codes.NON_EMPTY_GROUP, [])
    shard.leave((member, None))
    assert delete(shard, ("t", 0)) == (codes.NONE, [codes.NONE])


def test_a_subscription_that_cannot_be_read_may_be_of_any_topic() -> None:
    shard = Shard()
    member = shard.join(version=3, protocols={"range": b"?"}).response.member_id
    shard.sync(member, 1, {})
    assert delete(shard, ("t", 0)) == (codes.NONE, [codes.GROUP_SUBSCRIBED_TO_TOPIC])


def test_nothing_can_be_deleted_of_a_group_that_is_not_there() -> None:
    assert delete(Shard(), ("t", 0)) == (codes.GROUP_ID_NOT_FOUND, [])


def delete_group(shard: Shard) -> int:
    error, decision = shard.coordinator.delete_group("g")
    shard.do(decision)
    return error


def test_a_group_without_members_can_be_deleted_with_its_offsets() -> None:
    shard = Shard()
    assert delete_group(shard) == codes.GROUP_ID_NOT_FOUND
    shard.commit(1)
    (one,) = shard.stable()
    assert delete_group(shard) == codes.NON_EMPTY_GROUP
    shard.leave((one, None))
    assert delete_group(shard) == codes.NONE
    for each in (shard, shard.reloaded()):
        assert each.coordinator.groups == {}
        assert each.committed() is None
    assert delete_group(shard) == codes.GROUP_ID_NOT_FOUND


def test_an_id_that_was_handed_out_is_forgotten_with_its_group() -> None:
    shard = Shard()
    shard.commit(1)
    member = shard.new_id()
    assert delete_group(shard) == codes.NONE
    assert shard.join(member).error == codes.UNKNOWN_MEMBER_ID
    shard.advance(60_000)
    assert shard.coordinator.groups == {}


# -- expiry


def expire(shard: Shard) -> None:
    for decision in shard.coordinator.expire_offsets(shard.now):
        shard.do(decision)


def wait(shard: Shard, milliseconds: int) -> None:
    """Let time go by without anybody's session coming to its end."""
    shard.clock.advance(milliseconds)
    expire(shard)


def test_offsets_of_nobody_expire_after_their_commit_and_the_group_with_the_last() -> None:
    shard = Shard()
    shard.commit(1, topic="t")
    wait(shard, DAY_MS)
    shard.commit(2, topic="u")
    wait(shard, RETENTION_MS - DAY_MS - 1)
    assert (shard.committed("t"), shard.committed("u")) == (1, 2)
    wait(shard, 1)
    assert (shard.committed("t"), shard.committed("u")) == (None, 2)
    wait(shard, DAY_MS)
    assert shard.coordinator.groups == {}
    assert shard.reloaded().coordinator.groups == {}


def test_offsets_of_a_group_that_became_empty_expire_after_that() -> None:
    shard = Shard()
    (one,) = shard.stable()
    shard.commit(1, member_id=one, generation=1)
    wait(shard, 3 * DAY_MS)
    shard.leave((one, None))
    wait(shard, RETENTION_MS - 1)
    assert shard.committed() == 1
    assert shard.reloaded().committed() == 1
    wait(shard, 1)
    assert shard.coordinator.groups == {}


def test_an_offset_that_was_set_for_an_empty_group_counts_from_then() -> None:
    shard = Shard()
    (one,) = shard.stable()
    shard.commit(1, topic="u", member_id=one, generation=1)
    shard.leave((one, None))
    shard.clock.advance(RETENTION_MS - 1)
    shard.commit(2, topic="t")
    wait(shard, RETENTION_MS - 1)
    assert (shard.committed("t"), shard.committed("u")) == (2, None)


def test_an_empty_group_that_never_committed_goes_at_once() -> None:
    shard = Shard()
    (one,) = shard.stable()
    shard.leave((one, None))
    expire(shard)
    assert shard.coordinator.groups == {}


def test_what_a_stable_group_reads_never_expires_and_what_it_no_longer_reads_does() -> None:
    shard = Shard()
    shard.commit(1, topic="t")
    shard.commit(2, topic="old")
    shard.stable()
    wait(shard, RETENTION_MS - 1)
    assert shard.committed("old") == 2
    wait(shard, 1)
    assert (shard.committed("t"), shard.committed("old")) == (1, None)
    wait(shard, 100 * RETENTION_MS)
    assert shard.committed("t") == 1
    assert "g" in shard.coordinator.groups


def test_nothing_expires_during_a_rebalance() -> None:
    shard = Shard()
    shard.commit(2, topic="old")
    one, _ = shard.stable(2)
    shard.join(one)
    wait(shard, 2 * RETENTION_MS)
    assert shard.committed("old") == 2


def test_nothing_expires_of_a_group_whose_subscriptions_are_not_known() -> None:
    shard = Shard()
    shard.commit(1)
    asked = shard.join(version=3, protocol_type="connect")
    shard.sync(asked.response.member_id, 1, {})
    wait(shard, 2 * RETENTION_MS)
    assert shard.committed() == 1


def test_a_client_may_say_itself_how_long_an_offset_is_kept() -> None:
    shard = Shard()
    shard.commit(1, retention_ms=1000, version=4)
    assert shard.reloaded().committed() == 1
    wait(shard, 999)
    assert shard.committed() == 1
    wait(shard, 1)
    assert shard.committed() is None


def test_a_client_of_version_1_may_say_when_it_committed() -> None:
    shard = Shard()
    shard.commit(1, commit_timestamp_ms=shard.now.wall_ms - RETENTION_MS + 10)
    wait(shard, 9)
    assert shard.committed() == 1
    wait(shard, 1)
    assert shard.committed() is None


def test_a_group_that_somebody_is_about_to_join_stays() -> None:
    shard = Shard()
    member = shard.new_id()
    expire(shard)
    assert shard.join(member).response.generation_id == 1


# -- topics that are gone


def test_offsets_of_a_topic_that_is_gone_go_with_it() -> None:
    shard = Shard()
    shard.commit(1, topic="t")
    shard.commit(2, topic="u")
    asked: list[tuple[str, bytes]] = []

    def is_there(topic: str, topic_id: bytes) -> bool:
        asked.append((topic, topic_id))
        return topic != "t"

    for decision in shard.coordinator.forget_topics(is_there):
        shard.do(decision)
    assert (shard.committed("t"), shard.committed("u")) == (None, 2)
    assert asked == [("t", TOPIC_ID), ("u", TOPIC_ID)]


# -- transactions


class Transaction:
    """Offsets that are committed in a transaction."""

    def __init__(self, shard: Shard, producer_id: int) -> None:
        self._shard = shard
        self._producer_id = producer_id

    def commit(self, offset: int, at: int, topic: str = "t") -> None:
        value = OffsetCommitValue(offset=offset, commit_timestamp=self._shard.now.wall_ms)
        record = GroupCodec().decode(*GroupCodec().encode(offset_record("g", topic, 0, value)))
        assert record is not None
        self._shard.coordinator.replay(record, at, self._producer_id)

    def end(self, *, is_commit: bool) -> None:
        self._shard.coordinator.replay_end_of_transaction(self._producer_id, is_commit=is_commit)


def test_offsets_of_a_transaction_are_seen_when_it_is_committed() -> None:
    shard = Shard()
    transaction = Transaction(shard, 7)
    transaction.commit(5, at=0)
    assert shard.committed() is None
    assert shard.coordinator.fetch("g", "t", 0, stable=True) == codes.UNSTABLE_OFFSET_COMMIT
    assert shard.coordinator.fetch("g", "u", 0, stable=True) is None
    transaction.end(is_commit=True)
    assert shard.committed() == 5
    assert not shard.coordinator.offsets.has_open_transaction("g")
    assert isinstance(shard.coordinator.fetch("g", "t", 0, stable=True), CommittedOffset)


def test_offsets_of_a_transaction_that_is_aborted_are_never_seen() -> None:
    shard = Shard()
    shard.commit(1)
    transaction = Transaction(shard, 7)
    transaction.commit(5, at=9)
    transaction.end(is_commit=False)
    assert shard.committed() == 1
    assert shard.coordinator.fetch("g", "t", 0, stable=True) != codes.UNSTABLE_OFFSET_COMMIT
    transaction.end(is_commit=True)
    assert shard.committed() == 1


@pytest.mark.parametrize(("at", "wanted"), [(0, 1), (9, 5)])
def test_of_a_plain_commit_and_a_transaction_s_the_later_record_counts(
    at: int, wanted: int
) -> None:
    shard = Shard()
    shard.commit(0)
    shard.commit(1)
    transaction = Transaction(shard, 7)
    transaction.commit(5, at=at)
    transaction.end(is_commit=True)
    assert shard.committed() == wanted


def test_transactions_do_not_mix() -> None:
    shard = Shard()
    one, two = Transaction(shard, 1), Transaction(shard, 2)
    one.commit(10, at=0)
    two.commit(20, at=1)
    two.commit(21, at=2, topic="u")
    one.end(is_commit=True)
    assert (shard.committed("t"), shard.committed("u")) == (10, None)
    assert shard.coordinator.offsets.has_open_transaction("g")
    two.end(is_commit=True)
    assert (shard.committed("t"), shard.committed("u")) == (20, 21)


def test_nothing_expires_that_a_transaction_may_change_nor_its_group() -> None:
    shard = Shard()
    shard.commit(1)
    transaction = Transaction(shard, 7)
    transaction.commit(5, at=9)
    transaction.commit(6, at=10, topic="u")
    wait(shard, 2 * RETENTION_MS)
    assert shard.committed() == 1
    transaction.end(is_commit=False)
    wait(shard, 0)
    assert shard.coordinator.groups == {}


def test_an_offset_that_is_deleted_takes_what_is_pending_with_it() -> None:
    shard = Shard()
    transaction = Transaction(shard, 7)
    transaction.commit(5, at=0)
    assert delete(shard, ("t", 0)) == (codes.NONE, [codes.NONE])
    transaction.end(is_commit=True)
    assert shard.committed() is None


def test_the_subscriptions_of_all_members_count() -> None:
    shard = Shard()
    one = shard.join(version=3, protocols={"range": subscription("a", "b")}).response.member_id
    shard.join(version=3, protocols={"range": subscription("c")})
    shard.join(one, protocols={"range": subscription("a", "b")})
    assert shard.group().subscribed_topics == frozenset({"a", "b", "c"})
