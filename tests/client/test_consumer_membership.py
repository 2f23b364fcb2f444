"""A member of a group of the consumer protocol, against a scripted coordinator, in no time."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from ottla.client.classic_membership import ClassicMembership
from ottla.client.offsets import OffsetAndMetadata
from ottla.errors import BrokerError, ClientError, CommitFailed, FencedMember, codes
from ottla.errors.broker import GroupIdNotFound, UnreleasedInstanceId, UnsupportedVersion
from ottla.protocol.messages.api_08_offset_commit import OffsetCommitRequest
from ottla.protocol.messages.api_11_join_group import JoinGroupRequest
from tests.client.scripted_consumer_group import INTERVAL_MS, ConsumerGroupScript, id_of
from tests.client.scripted_group import parts

RETRY_MS = 100


def test_a_member_joins_with_all_that_it_is_and_reads_without_any_waiting() -> None:
    script = ConsumerGroupScript(
        group_remote_assignor="range", group_instance_id="one", max_poll_interval_ms=60_000
    )
    began_ms = script.clock.monotonic_ms()
    script.poll()
    asked = script.asked
    assert (asked.group_id, asked.member_epoch, asked.instance_id) == ("g", 0, "one")
    assert (asked.subscribed_topic_names, asked.server_assignor) == (["t"], "range")
    assert (asked.rebalance_timeout_ms, asked.topic_partitions) == (60_000, [])
    assert asked.subscribed_topic_regex is None
    assert len(asked.member_id) >= 20
    script.tell(1, 0, 1, 2, 3)
    script.poll()
    assert script.clock.monotonic_ms() == began_ms
    assert script.changes == [("assigned", [0, 1, 2, 3])]
    assert script.membership.is_settled
    positions = {
        where.partition: each.position for where, each in script.core.fetcher.partitions.items()
    }
    assert positions == {0: 0, 1: 0, 2: 0, 3: 0}
    assert script.is_quiet


def test_members_have_different_ids() -> None:
    one, another = ConsumerGroupScript(), ConsumerGroupScript()
    one.poll()
    another.poll()
    assert one.asked.member_id != another.asked.member_id


def test_a_heartbeat_says_nothing_but_what_has_changed() -> None:
    script = ConsumerGroupScript()
    script.enter(0, 1)
    first = script.beat()
    assert first.member_epoch == 1
    assert script.says_owned == [("t", [0, 1])], "what was taken since is told once"
    script.stay(1)
    second = script.beat()
    assert second.topic_partitions is None
    for each in (first, second):
        assert (each.subscribed_topic_names, each.rebalance_timeout_ms) == (None, -1)


def test_heartbeats_go_on_at_the_interval_of_the_broker_while_nobody_polls() -> None:
    script = ConsumerGroupScript()
    script.enter(0)
    for _ in range(20):
        script.run(INTERVAL_MS - 1)
        assert script.is_quiet
        script.run(1)
        script.stay(1)


def test_what_was_taken_away_is_given_back_by_the_user_before_the_broker_hears_of_it() -> None:
    script = ConsumerGroupScript()
    script.enter(0, 1, 2, 3)
    script.beat()
    script.tell(1, 0, 1)
    script.run(100)
    assert script.is_quiet, "its user still reads"
    assert script.membership.owned == parts(0, 1, 2, 3)
    assert not script.membership.is_settled
    script.beat()
    assert script.says_owned is None
    script.stay(1)
    script.poll()
    assert script.changes[1:] == [("revoked", [2, 3])]
    assert script.says_owned == [("t", [0, 1])], "at once"
    script.stay(2)
    assert script.membership.identity.generation_id == 2
    assert script.membership.is_settled
    assert script.is_quiet


def test_what_is_taken_away_and_given_at_once_is_first_given_back() -> None:
    script = ConsumerGroupScript()
    script.enter(0, 1)
    script.beat()
    script.tell(1, 1, 2)
    script.poll()
    assert script.changes[1:] == [("revoked", [0]), ("assigned", [2])]
    assert script.says_owned == [("t", [1, 2])]


def test_a_word_names_what_the_user_has_not_begun_with_for_it_may_before_the_answer_comes() -> None:
    script = ConsumerGroupScript()
    script.enter(0, 1)
    script.beat()
    script.tell(2, 0, 1, 2)  # nobody polls
    script.beat()
    script.tell(2, 0, 2)
    script.poll()
    assert script.changes[1:] == [("revoked", [1]), ("assigned", [2])]
    assert script.says_owned == [("t", [0, 2])], "what it leaves out is another's at once"
    script.tell(3, 0)
    assert script.is_quiet, "its user has begun with it"
    script.poll()
    assert script.changes[3:] == [("revoked", [2])]
    assert script.says_owned == [("t", [0])]


def test_what_is_taken_away_before_the_user_had_it_needs_a_word_all_the_same() -> None:
    script = ConsumerGroupScript()
    script.enter(0)
    script.beat()
    script.tell(2, 0, 1)
    script.beat()
    script.tell(2, 0)
    assert script.says_owned == [("t", [0])], "the broker waits for it"
    script.stay(3)
    script.poll()
    assert script.changes[1:] == []


def test_a_listener_that_raises_gives_back_all_the_same() -> None:
    script = ConsumerGroupScript()

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    script.enter(0, 1)
    script.rebalancing.listeners = script.rebalancing.listeners._replace(on_revoked=fail)
    script.beat()
    script.tell(1, 0)
    with pytest.raises(ZeroDivisionError):
        script.poll()
    script.run()
    assert script.says_owned == [("t", [0])]


@pytest.mark.parametrize("is_lost", [True, False])
def test_after_a_lost_answer_or_an_error_everything_is_said_again(is_lost: bool) -> None:
    script = ConsumerGroupScript()
    script.enter(0, 1)
    script.beat()
    if is_lost:
        script.lose()
    else:
        script.refuse(codes.COORDINATOR_LOAD_IN_PROGRESS)
    script.run(RETRY_MS)
    script.run(RETRY_MS)
    asked = script.asked
    assert (asked.member_epoch, asked.subscribed_topic_names) == (1, ["t"])
    assert asked.rebalance_timeout_ms > 0
    assert script.says_owned == [("t", [0, 1])]
    script.tell(1, 0, 1)
    script.poll()
    assert script.changes == [("assigned", [0, 1])], "it costs no partition"


def test_an_answer_that_never_comes_is_given_up_before_the_session_ends() -> None:
    script = ConsumerGroupScript()
    script.enter(0)
    script.beat()
    script.run(20_000)
    script.waiting.clear()
    script.run(RETRY_MS)
    assert script.says_owned == [("t", [0])]


@pytest.mark.parametrize("code", [codes.NOT_COORDINATOR, codes.COORDINATOR_NOT_AVAILABLE])
def test_a_coordinator_that_has_moved_is_looked_for(code: int) -> None:
    script = ConsumerGroupScript()
    script.poll()
    script.refuse(code)
    script.run(RETRY_MS)
    assert script.finder_asked == 2
    script.tell(1, 0)
    script.poll()
    script.beat()
    script.refuse(code)
    script.run(RETRY_MS)
    script.stay(1)
    assert script.finder_asked == 3
    assert script.changes == [("assigned", [0])]


@pytest.mark.parametrize(
    "code",
    [
        codes.FENCED_MEMBER_EPOCH,
        codes.UNKNOWN_MEMBER_ID,
        codes.GROUP_ID_NOT_FOUND,
        codes.ILLEGAL_GENERATION,
    ],
)
def test_a_member_that_is_out_has_lost_everything_and_joins_anew(code: int) -> None:
    script = ConsumerGroupScript()
    script.enter(0, 1, epoch=7)
    member_id = script.beat().member_id
    script.refuse(code)
    assert (script.asked.member_epoch, script.asked.member_id) == (0, member_id)
    assert script.says_owned == []
    assert script.asked.subscribed_topic_names == ["t"]
    assert script.membership.identity is None
    script.tell(9, 1)
    script.poll()
    assert script.changes[1:] == [("lost", [0, 1]), ("assigned", [1])]


def test_a_member_whose_user_does_not_poll_leaves_and_comes_back_when_it_polls(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = ConsumerGroupScript(max_poll_interval_ms=10_000)
    script.enter(0, 1)
    script.beat()
    script.stay(1)
    with caplog.at_level(logging.WARNING):
        script.run(INTERVAL_MS)
    assert "nothing was polled for 10.0 s (max_poll_interval_ms)" in caplog.text
    assert script.asked.member_epoch == -1
    commit = script.core.commit(script.core.given())
    assert isinstance(commit.error, CommitFailed)
    assert "max_poll_interval_ms" in commit.error.what
    script.stay(-1)
    script.run(60_000)
    assert script.is_quiet
    script.poll()
    assert script.changes[1:] == [("lost", [0, 1])]
    script.tell(3, 0, 1)
    script.poll()
    assert script.changes[2:] == [("assigned", [0, 1])]


def test_a_static_member_leaves_for_a_while() -> None:
    script = ConsumerGroupScript(group_instance_id="one")
    script.enter(0, 1)
    assert script.core.group is not None
    script.core.group.leave()
    script.run()
    assert (script.asked.member_epoch, script.asked.instance_id) == (-2, "one")
    assert not script.core.group.has_left_for_good
    script.stay(-2)
    assert script.core.group.has_left_for_good
    assert script.is_quiet


def test_what_leaves_while_it_joins_says_so_behind_it_on_the_same_connection() -> None:
    script = ConsumerGroupScript()
    script.poll()
    assert script.core.group is not None
    script.core.group.leave()
    script.run()
    [(joining, first), (leaving, second)] = script.waiting
    assert joining is leaving
    requests: list[Any] = [first.request, second.request]
    assert [each.member_epoch for each in requests] == [0, -1]


def test_a_consumer_that_was_never_heard_of_leaves_without_a_word() -> None:
    script = ConsumerGroupScript()
    assert script.core.group is not None
    script.core.group.leave()
    script.run()
    assert script.core.group.has_left_for_good
    assert script.is_quiet


def test_a_fenced_static_member_stops_for_good_and_says_why() -> None:
    script = ConsumerGroupScript(group_instance_id="one")
    script.enter(0, 1)
    script.beat()
    script.refuse(codes.FENCED_INSTANCE_ID)
    for _ in range(2):
        error = script.core.take_error()
        assert isinstance(error, FencedMember)
        assert "'one'" in error.what
    script.poll()
    assert script.changes[1:] == [("lost", [0, 1])]
    script.poll(60_000)
    assert script.is_quiet


@pytest.mark.parametrize(
    ("code", "step"),
    [
        (codes.UNRELEASED_INSTANCE_ID, "group.consumer.session.timeout.ms"),
        (codes.UNSUPPORTED_ASSIGNOR, "group.consumer.assignors"),
        (codes.GROUP_MAX_SIZE_REACHED, "group.consumer.max.size"),
        (codes.INVALID_REGULAR_EXPRESSION, "RE2"),
        (codes.GROUP_ID_NOT_FOUND, "group_protocol='classic'"),
        (codes.UNSUPPORTED_VERSION, "group_protocol='classic'"),
        (codes.GROUP_AUTHORIZATION_FAILED, ""),
    ],
)
def test_a_refusal_is_told_with_what_to_do_and_tried_again_when_the_user_polls(
    code: int, step: str
) -> None:
    script = ConsumerGroupScript(group_protocol="consumer", group_instance_id="one")
    script.poll()
    script.refuse(code, "Because it is so.")
    error = script.core.take_error()
    assert isinstance(error, BrokerError)
    assert error.code == code
    assert "group 'g' does not take it: Because it is so: " in error.what
    assert step in str(error)
    assert script.core.take_error() is None
    script.run(60_000)
    assert script.is_quiet
    script.poll()
    script.tell(1, 0)
    script.poll()
    assert script.changes == [("assigned", [0])]


def test_an_instance_id_that_is_another_s_is_named() -> None:
    script = ConsumerGroupScript(group_instance_id="one")
    script.poll()
    script.refuse(codes.UNRELEASED_INSTANCE_ID)
    error = script.core.take_error()
    assert isinstance(error, UnreleasedInstanceId)
    assert "group_instance_id='one'" in str(error)


# -- topics


def test_a_partition_that_the_metadata_does_not_know_yet_is_taken_when_it_does() -> None:
    script = ConsumerGroupScript(partitions=2)
    script.enter(0, 1)
    script.beat()
    script.tell(2, 0, 1, 2)
    script.poll()
    assert script.changes[1:] == []
    assert not script.membership.is_settled
    script.partitions = 3
    script.poll(RETRY_MS)
    assert script.changes[1:] == [("assigned", [2])]
    assert script.core.take_error() is None


def test_a_topic_whose_name_is_not_known_is_asked_for_by_its_id_until_it_is() -> None:
    script = ConsumerGroupScript()
    script.core.subscribe([], None, "[tu]+")
    script.unheard = {id_of("u")}
    script.poll()
    assert script.asked.subscribed_topic_regex == "[tu]+"
    assert script.asked.subscribed_topic_names == []
    script.tell(1, 0, u=[1])
    script.poll()
    assert script.membership.owned == parts(0)
    for _ in range(3):
        script.poll(RETRY_MS)
    assert script.membership.owned == parts(0)
    script.unheard.clear()
    script.poll(RETRY_MS)
    assert script.membership.owned == parts(0) | parts(1, topic="u")
    script.beat()
    assert script.says_owned == [("t", [0]), ("u", [1])]


def test_a_topic_that_was_made_anew_is_another_one() -> None:
    script = ConsumerGroupScript()
    script.enter(0)
    script.again["t"] = id_of("t-anew")
    script.beat()
    script.tell(2, 0, topic="t-anew")
    script.poll()
    assert script.changes[1:] == [("revoked", [0]), ("assigned", [0])]


def test_other_topics_are_wished_for_at_once_and_what_was_read_is_given_back() -> None:
    script = ConsumerGroupScript()
    script.enter(0)
    script.core.subscribe(["u"], None)
    script.run()
    assert script.asked.subscribed_topic_names == ["u"]
    assert script.asked.member_epoch == 1
    script.tell(1, u=[0])
    script.poll()
    assert script.membership.owned == parts(0, topic="u")


def test_other_topics_while_a_heartbeat_is_under_way_are_wished_for_afterwards() -> None:
    script = ConsumerGroupScript()
    script.poll()
    script.core.subscribe(["u"], None)
    script.run()
    script.tell(1, 0)
    assert script.asked.subscribed_topic_names == ["u"]


def test_a_pattern_is_taken_back_with_an_empty_one() -> None:
    script = ConsumerGroupScript()
    script.core.subscribe([], None, "t+")
    script.enter(0)
    script.core.subscribe(["t"], None)
    script.run()
    assert script.asked.subscribed_topic_regex == ""
    assert script.asked.subscribed_topic_names == ["t"]


# -- which protocol


def chosen(script: ConsumerGroupScript) -> type[Any]:
    return type(script.membership)


@pytest.mark.parametrize("versions", [None, (5, 9)])
def test_a_broker_without_the_protocol_gets_a_classic_member(
    versions: tuple[int, int] | None,
) -> None:
    script = ConsumerGroupScript(heartbeat_versions=versions)
    script.poll()
    script.next(JoinGroupRequest)
    assert chosen(script) is ClassicMembership
    assert script.core.take_error() is None


def test_a_broker_without_the_protocol_is_told_to_who_has_chosen_it() -> None:
    script = ConsumerGroupScript(heartbeat_versions=None, group_protocol="consumer")
    script.poll()
    error = script.core.take_error()
    assert isinstance(error, UnsupportedVersion)
    assert "group_protocol='classic'" in str(error)


@pytest.mark.parametrize("code", [codes.UNSUPPORTED_VERSION, codes.GROUP_ID_NOT_FOUND])
def test_a_group_that_cannot_go_over_is_joined_with_the_classic_protocol(code: int) -> None:
    script = ConsumerGroupScript()
    script.poll()
    script.refuse(code)
    script.poll()
    script.join(1)
    script.sync(0)
    script.poll()
    assert script.changes == [("assigned", [0])]
    assert script.core.take_error() is None


def test_a_group_that_has_become_a_classic_one_is_joined_again_and_what_was_had_is_lost() -> None:
    script = ConsumerGroupScript()
    script.enter(0, 1)
    script.beat()
    script.refuse(codes.UNKNOWN_MEMBER_ID)
    script.refuse(codes.GROUP_ID_NOT_FOUND)
    script.poll()
    assert script.changes[1:] == [("lost", [0, 1])]
    script.poll()
    script.join(1)
    script.sync(0)
    script.poll()
    assert script.changes[2:] == [("assigned", [0])]
    commit = script.core.commit(script.core.given())
    script.run()
    assert script.next(OffsetCommitRequest).generation_id_or_member_epoch == 1
    script.commit()
    assert commit.error is None


def test_a_classic_group_is_told_to_who_has_chosen_the_other_protocol() -> None:
    script = ConsumerGroupScript(group_protocol="consumer")
    script.poll()
    script.refuse(codes.GROUP_ID_NOT_FOUND, "Cannot upgrade classic group g.")
    error = script.core.take_error()
    assert isinstance(error, GroupIdNotFound)
    assert "group.consumer.migration.policy" in str(error)


@pytest.mark.parametrize(
    ("versions", "protocol"), [((0, 0), None), (None, None), ((0, 1), "classic")]
)
def test_a_pattern_for_the_broker_is_refused_where_no_broker_matches(
    versions: tuple[int, int] | None, protocol: str | None
) -> None:
    script = ConsumerGroupScript(heartbeat_versions=versions, group_protocol=protocol)
    script.core.subscribe([], None, "t+")
    script.poll()
    error = script.core.take_error()
    assert isinstance(error, ClientError)
    assert "re.compile" in str(error)
    assert script.is_quiet


# -- commits


def test_a_commit_goes_with_the_epoch_that_the_member_has() -> None:
    script = ConsumerGroupScript()
    script.enter(0, 1, epoch=4)
    commit = script.core.commit(script.core.given())
    script.run()
    request = script.next(OffsetCommitRequest)
    identity = script.membership.identity
    assert (request.generation_id_or_member_epoch, request.member_id) == (4, identity.member_id)
    assert script.commit() == {0: 0, 1: 0}
    assert commit.is_done and commit.error is None


def test_a_commit_with_a_stale_epoch_goes_again_with_the_new_one_for_what_is_still_owned() -> None:
    script = ConsumerGroupScript()
    script.enter(0, 1, epoch=4)
    commit = script.core.commit({where: OffsetAndMetadata(7) for where in parts(0)})
    script.run()
    script.commit(codes.STALE_MEMBER_EPOCH)
    assert not commit.is_done
    assert script.says_owned == [("t", [0, 1])], "the new epoch is asked for at once"
    script.tell(5, 0, 1)
    script.run(RETRY_MS)
    assert script.next(OffsetCommitRequest).generation_id_or_member_epoch == 5
    assert script.commit() == {0: 7}
    assert commit.is_done and commit.error is None


def test_a_commit_with_a_stale_epoch_fails_for_what_was_given_back() -> None:
    script = ConsumerGroupScript()
    script.enter(0, 1, epoch=4)
    commit = script.core.commit({where: OffsetAndMetadata(7) for where in parts(0, 1)})
    script.run()
    script.membership.given_back(parts(1))
    script.commit(codes.STALE_MEMBER_EPOCH)
    assert isinstance(commit.error, CommitFailed)
    assert commit.error.partitions == tuple(parts(1))


@pytest.mark.parametrize("code", [codes.UNKNOWN_MEMBER_ID, codes.GROUP_ID_NOT_FOUND])
def test_a_commit_of_no_member_fails_and_the_member_joins_anew(code: int) -> None:
    script = ConsumerGroupScript()
    script.enter(0, 1, epoch=4)
    commit = script.core.commit(script.core.given())
    script.run()
    script.commit(code)
    assert isinstance(commit.error, CommitFailed)
    assert commit.error.partitions == tuple(sorted(parts(0, 1)))
    assert script.asked.member_epoch == 0


def test_what_was_finished_is_committed_by_itself_before_it_is_given_back() -> None:
    script = ConsumerGroupScript(enable_auto_commit=True, auto_commit_interval_ms=100_000)
    script.committed = dict.fromkeys(parts(0, 1), 10)
    script.enter(0, 1)
    script.core.seek(next(iter(parts(1))), 20)
    script.beat()
    script.tell(1, 0)
    script.poll()
    assert script.changes[1:] == [], "on_revoked comes after the commit"
    assert script.commit() == {1: 20}
    script.poll()
    assert script.changes[1:] == [("revoked", [1])]
    assert script.says_owned == [("t", [0])]


def test_nothing_is_due_while_there_is_no_connection() -> None:
    script = ConsumerGroupScript()
    script.enter(0)
    script.network.refuses = True
    script.lose()
    for _ in range(3):
        script.run(INTERVAL_MS)
        now = script.clock.monotonic_ms()
        due = script.membership.step(now)
        assert due is None or due > now, "whoever waits would not wait"
