"""Groups in a broker: what is answered when it is stored, what survives, and every version."""

from __future__ import annotations

from pathlib import Path

import pytest

import ottla.broker.groups as groups_module
from ottla.broker.groups import partition_of
from ottla.broker.internal_topics import GROUPS_TOPIC
from ottla.broker.requests import Pending
from ottla.coordinator.group.records import GroupCodec, offset_record
from ottla.errors import DiskFull, StorageError, codes
from ottla.log.memory_files import MemoryFile, MemoryFiles
from ottla.protocol.messages.api_03_metadata import MetadataRequest
from ottla.protocol.messages.api_08_offset_commit import OffsetCommitResponse
from ottla.protocol.messages.api_09_offset_fetch import OffsetFetchRequest, OffsetFetchResponse
from ottla.protocol.messages.api_10_find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.api_11_join_group import JoinGroupResponse
from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest
from ottla.protocol.messages.api_13_leave_group import LeaveGroupRequest
from ottla.protocol.messages.api_15_describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.api_16_list_groups import ListGroupsRequest
from ottla.protocol.messages.api_21_delete_records import DeleteRecordsRequest
from ottla.protocol.messages.api_32_describe_configs import DescribeConfigsRequest
from ottla.protocol.messages.api_37_create_partitions import CreatePartitionsRequest
from ottla.protocol.messages.api_42_delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.api_47_offset_delete import OffsetDeleteRequest
from ottla.protocol.messages.group_records import OffsetCommitValue
from ottla.records.batch import CONTROL, TRANSACTIONAL, iterate_headers, read_header
from ottla.records.builder import BatchBuilder
from tests.broker.asking import Asking, batch_of_values
from tests.broker.asking_groups import (
    SESSION_MS,
    advance,
    commit,
    commit_request,
    committed_error,
    fetch,
    fetched,
    heartbeat,
    join_request,
    restarted,
    stable,
    state_of,
    sync_request,
)

GOLDEN = Path(__file__).parent.parent / "data" / "segments" / "__consumer_offsets-5"


@pytest.fixture
def asking() -> Asking:
    asking = Asking()
    asking.create("t", 3)
    return asking


# -- the topic


@pytest.mark.parametrize(
    ("group_id", "partition"),
    [("goldg", 5), ("", 0), ("g", 3), ("a group", 16), ("polygenelubricants", 0), ("é中🎉", 7)],
)
def test_a_group_is_in_the_partition_that_kafka_looks_for_it_in(
    group_id: str, partition: int
) -> None:
    """ "polygenelubricants" is hashed to the one number that has no absolute value."""
    assert partition_of(group_id, 50) == partition


def test_the_topic_is_made_with_the_first_group_and_is_the_broker_s_own(asking: Asking) -> None:
    fetched(asking)
    asking.ask(ListGroupsRequest())
    asking.ask(FindCoordinatorRequest(coordinator_keys=["g"]))
    assert GROUPS_TOPIC not in asking.engine.cluster.topics
    assert commit(asking, 1) == codes.NONE
    topics = {each.name: each for each in asking.ask(MetadataRequest(topics=None)).topics}
    assert topics[GROUPS_TOPIC].is_internal
    assert not topics["t"].is_internal
    assert len(topics[GROUPS_TOPIC].partitions) == 50
    resource = DescribeConfigsRequest.DescribeConfigsResource(
        resource_type=2, resource_name=GROUPS_TOPIC, configuration_keys=None
    )
    (result,) = asking.ask(DescribeConfigsRequest(resources=[resource])).results
    configs = {each.name: each.value for each in result.configs}
    assert configs["cleanup.policy"] == "compact"
    assert configs["segment.bytes"] == "104857600"


def test_only_the_partitions_that_have_groups_have_logs(asking: Asking) -> None:
    commit(asking, 1)
    asking.ask(ListGroupsRequest())
    asking.ask(DescribeGroupsRequest(groups=["other"]))
    heartbeat(asking, "m", 1, "another")
    names = [each for each in asking.files.list("store") if each.startswith(GROUPS_TOPIC)]
    assert names == [f"{GROUPS_TOPIC}-3"]
    assert (GROUPS_TOPIC, 3) in asking.engine.partitions()
    assert len([each for each in asking.engine.partitions() if each[0] == GROUPS_TOPIC]) == 1


def test_how_many_partitions_it_has_can_be_set() -> None:
    asking = Asking(offsets_topic_num_partitions="7")
    asking.create("t")
    commit(asking, 1)
    assert asking.engine.cluster.topics[GROUPS_TOPIC].partitions == 7
    assert fetched(asking) == 1


def test_nobody_else_writes_to_it(asking: Asking) -> None:
    commit(asking, 1)
    produced = asking.produce(GROUPS_TOPIC, batch_of_values(b"x"), partition=3)
    assert produced.error_code == codes.INVALID_TOPIC_EXCEPTION
    partition = DeleteRecordsRequest.DeleteRecordsPartition(partition_index=3, offset=-1)
    topic = DeleteRecordsRequest.DeleteRecordsTopic(name=GROUPS_TOPIC, partitions=[partition])
    (deleted,) = asking.ask(DeleteRecordsRequest(topics=[topic])).topics
    assert deleted.partitions[0].error_code == codes.INVALID_TOPIC_EXCEPTION
    assert fetched(restarted(asking)) == 1


def test_it_keeps_its_number_of_partitions(asking: Asking) -> None:
    commit(asking, 1)
    wanted = CreatePartitionsRequest.CreatePartitionsTopic(
        name=GROUPS_TOPIC, count=60, assignments=None
    )
    (result,) = asking.ask(CreatePartitionsRequest(topics=[wanted])).results
    assert result.error_code == codes.INVALID_PARTITIONS
    assert fetched(asking) == 1


def test_where_it_is_deleted_so_are_all_groups_and_it_is_made_again(asking: Asking) -> None:
    member = stable(asking)
    commit(asking, 1, group_id="other")
    other = asking.ask(join_request()).member_id
    joining = asking.ask_nowait(join_request(other))
    assert isinstance(joining, Pending)
    asking.engine.delete_topic(asking.engine.cluster.topics[GROUPS_TOPIC])
    assert isinstance(joining.response, JoinGroupResponse)
    assert joining.response.error_code == codes.NOT_COORDINATOR
    asking.sync()
    assert heartbeat(asking, member, 1) == codes.UNKNOWN_MEMBER_ID
    assert fetched(asking, group_id="other") == -1
    assert asking.engine.groups.next_deadline_ms() is None
    assert commit(asking, 2) == codes.NONE
    assert fetched(asking) == 2
    assert fetched(asking.after_power_cut()) == 2


# -- what is answered is stored


def test_a_commit_is_answered_when_it_and_the_topic_are_stored(asking: Asking) -> None:
    reply = asking.ask_nowait(commit_request(7), 9)
    assert isinstance(reply, Pending) and not reply.is_done
    lost = asking.after_power_cut()
    assert fetched(lost) == -1
    asking.sync()
    assert reply.is_done
    assert fetched(asking.after_power_cut()) == 7


def test_a_commit_is_not_confirmed_where_the_topic_s_creation_may_be_lost(asking: Asking) -> None:
    """Both are in one round of syncs; the metadata's fails, and that of the offsets is good."""
    reply = asking.ask_nowait(commit_request(7), 9)
    begun = asking.engine.commit.begin()
    assert begun is not None
    errors = begun.run()
    assert errors == [None, None]
    asking.engine.commit.end([StorageError("the disk is gone"), None])
    assert isinstance(reply, Pending) and isinstance(reply.response, OffsetCommitResponse)
    assert committed_error(reply.response) == codes.NOT_COORDINATOR


def test_who_fetches_sees_nothing_that_a_power_cut_could_take_back(asking: Asking) -> None:
    commit(asking, 1)
    asking.ask_nowait(commit_request(2), 9)
    asked = OffsetFetchRequest.OffsetFetchRequestTopics(name="t", partition_indexes=[0])
    group = OffsetFetchRequest.OffsetFetchRequestGroup(group_id="g", topics=[asked])
    reply = asking.ask_nowait(OffsetFetchRequest(groups=[group]), 9)
    assert isinstance(reply, Pending) and not reply.is_done
    asking.sync()
    assert isinstance(reply.response, OffsetFetchResponse)
    assert reply.response.groups[0].topics[0].partitions[0].committed_offset == 2


def test_an_assignment_is_told_when_it_is_stored(asking: Asking) -> None:
    member = asking.ask(join_request()).member_id
    asking.ask(join_request(member))
    reply = asking.ask_nowait(sync_request(member, 1, {member: b"a"}))
    assert isinstance(reply, Pending) and not reply.is_done
    late = asking.ask_nowait(sync_request(member, 1, {}))
    assert isinstance(late, Pending) and not late.is_done
    asking.sync()
    assert reply.is_done and late.is_done
    assert state_of(asking.after_power_cut()) == "Stable"


def test_to_join_and_to_be_alive_need_no_disk(asking: Asking) -> None:
    member = stable(asking)
    asking.ask_nowait(commit_request(1, group_id="g"), 9)
    request = HeartbeatRequest(group_id="g", member_id=member, generation_id=1)
    assert not isinstance(asking.ask_nowait(request), Pending)
    assert not isinstance(asking.ask_nowait(join_request()), Pending)


def test_with_durability_os_nothing_waits_for_the_disk() -> None:
    asking = Asking(ottla_durability="os")
    asking.create("t")
    commit(asking, 1)
    assert not isinstance(asking.ask_nowait(commit_request(2), 9), Pending)


def test_offsets_and_members_survive_a_clean_stop_and_a_power_cut(asking: Asking) -> None:
    member = stable(asking)
    joined = asking.ask(commit_request(5, member_id=member, generation_id_or_member_epoch=1), 9)
    assert committed_error(joined) == codes.NONE
    for again in (asking.after_power_cut(), restarted(asking)):
        assert fetched(again) == 5
        assert heartbeat(again, member, 1) == codes.NONE
        advance(again, SESSION_MS - 500)
        assert heartbeat(again, member, 1) == codes.NONE
        advance(again, SESSION_MS)
        assert heartbeat(again, member, 1) == codes.UNKNOWN_MEMBER_ID
        assert state_of(again) == "Empty"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DiskFull("no space"), codes.COORDINATOR_NOT_AVAILABLE),
        (StorageError("broken"), codes.NOT_COORDINATOR),
    ],
)
def test_what_cannot_be_appended_is_refused_and_later_it_goes_on(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, error: StorageError, code: int
) -> None:
    commit(asking, 1)
    member = asking.ask(join_request()).member_id
    asking.ask(join_request(member))

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFile, "append", fail)
        assert asking.ask(sync_request(member, 1, {})).error_code == code
        assert commit(asking, 2, member_id=member, generation_id_or_member_epoch=1) == code
        left = LeaveGroupRequest.MemberIdentity(member_id=member)
        assert asking.ask(LeaveGroupRequest(group_id="g", members=[left])).error_code == code
        (deleted,) = asking.ask(DeleteGroupsRequest(groups_names=["g"])).results
        assert deleted.error_code == codes.NON_EMPTY_GROUP
    asking.engine.store.full = None
    advance(asking, 6000)
    assert state_of(asking) == "Empty"
    assert fetched(asking) == 1
    assert commit(asking, 2) == codes.NONE


def test_where_the_topic_or_a_log_cannot_be_made_there_is_no_coordinator_yet(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("broken")

    not_available = codes.COORDINATOR_NOT_AVAILABLE
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFile, "append", fail)
        assert commit(asking, 1) == not_available
        assert asking.ask(join_request()).error_code == not_available
    assert GROUPS_TOPIC not in asking.engine.cluster.topics
    commit(asking, 1, group_id="goldg")
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFiles, "make_folder", fail)
        assert commit(asking, 1) == not_available
    assert commit(asking, 1) == codes.NONE


def test_after_a_sync_that_failed_there_is_no_coordinator(asking: Asking) -> None:
    member = stable(asking)
    committing = asking.ask_nowait(
        commit_request(1, member_id=member, generation_id_or_member_epoch=1), 9
    )
    begun = asking.engine.commit.begin()
    assert begun is not None
    asking.engine.commit.end([StorageError("the disk is gone")] * len(begun.parts))
    assert committed_error(committing.response) == codes.NOT_COORDINATOR
    assert heartbeat(asking, member, 1) == codes.NOT_COORDINATOR
    assert asking.ask(join_request()).error_code == codes.NOT_COORDINATOR


# -- loading


def test_nothing_is_answered_from_a_shard_that_is_not_loaded(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups_module, "LOAD_AT_ONCE_BYTES", 0)
    member = stable(asking)
    commit(asking, 5, member_id=member, generation_id_or_member_epoch=1)
    again = restarted(asking)
    loading = codes.COORDINATOR_LOAD_IN_PROGRESS
    assert commit(again, 6) == loading
    assert again.ask(join_request(member)).error_code == loading
    assert again.ask(sync_request(member, 1, {})).error_code == loading
    left = again.ask(LeaveGroupRequest(group_id="g", members=[]))
    assert left.error_code == loading
    assert again.ask(ListGroupsRequest()).error_code == loading
    (described,) = again.ask(DescribeGroupsRequest(groups=["g"])).groups
    assert described.error_code == loading
    (deleted,) = again.ask(DeleteGroupsRequest(groups_names=["g"])).results
    assert deleted.error_code == loading
    assert again.ask(OffsetDeleteRequest(group_id="g")).error_code == loading
    group = OffsetFetchRequest.OffsetFetchRequestGroup(group_id="g", topics=None)
    (fetching,) = again.ask(OffsetFetchRequest(groups=[group]), 9).groups
    assert fetching.error_code == loading
    assert heartbeat(again, member, 1) == codes.NONE
    again.engine.groups.load_waiting()
    assert fetched(again) == 5
    assert heartbeat(again, member, 1) == codes.NONE


def test_a_topic_that_is_deleted_while_it_is_loaded_leaves_nothing(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups_module, "LOAD_AT_ONCE_BYTES", 0)
    monkeypatch.setattr("ottla.coordinator.runtime._READ_BYTES", 100)
    stable(asking)
    commit(asking, 1, group_id="other")
    again = restarted(asking)
    assert commit(again, 1) == codes.COORDINATOR_LOAD_IN_PROGRESS
    (shard,) = again.engine.groups._shards.items()
    assert again.engine.groups._load_some(*shard)
    again.engine.delete_topic(again.engine.cluster.topics[GROUPS_TOPIC])
    again.sync()
    again.engine.groups.load_waiting()
    again.engine.groups.load_all()
    assert not again.engine.groups._load_some(*shard)
    assert again.engine.groups.next_deadline_ms() is None
    monkeypatch.setattr(groups_module, "LOAD_AT_ONCE_BYTES", 1 << 20)
    assert commit(again, 2) == codes.NONE
    assert state_of(again) == "Empty"


def test_all_shards_are_loaded_after_a_start_and_sessions_begin(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups_module, "LOAD_AT_ONCE_BYTES", 0)
    monkeypatch.setattr("ottla.coordinator.runtime._READ_BYTES", 200)
    for number in range(5):
        stable(asking, f"g{number}")
        for offset in range(5):
            commit(asking, offset, group_id=f"c{number}")
    again = restarted(asking)
    assert again.engine.groups.next_deadline_ms() is None
    again.engine.groups.load_all()
    assert again.engine.groups.has_new_deadlines()
    assert not again.engine.groups.has_new_deadlines()
    assert again.engine.groups.next_deadline_ms() == again.clock.monotonic_ms() + SESSION_MS
    states = {each.group_id: each.group_state for each in again.ask(ListGroupsRequest()).groups}
    assert states == {
        **{f"g{number}": "Stable" for number in range(5)},
        **{f"c{number}": "Empty" for number in range(5)},
    }


def test_groups_that_cannot_be_read_are_not_there_and_the_others_are(asking: Asking) -> None:
    commit(asking, 1)
    commit(asking, 2, group_id="goldg")
    log = asking.engine.store.logs[GROUPS_TOPIC, 3]
    batch = batch_of_values(b"\0\x63", key=b"\0\2\0\1g")
    log.append(batch, read_header(batch))
    again = restarted(asking)
    assert commit(again, 2) == codes.COORDINATOR_NOT_AVAILABLE
    assert commit(again, 2) == codes.COORDINATOR_NOT_AVAILABLE
    assert fetched(again, group_id="goldg") == 2


def test_what_a_real_kafka_wrote_is_loaded(asking: Asking) -> None:
    commit(asking, 1, group_id="goldg")
    data = (GOLDEN / "00000000000000000000.log").read_bytes()
    log = asking.engine.store.logs[GROUPS_TOPIC, 5]
    for header in iterate_headers(data):
        log.append(data, header)
    again = restarted(asking)
    partition = fetch(again, "goldtx", "goldg")
    assert partition.committed_offset == -1, "its topic is not there"
    (listed,) = again.ask(ListGroupsRequest()).groups
    assert (listed.group_id, listed.group_state) == ("goldg", "Empty")
    assert fetch(again, "t", "goldg").committed_offset == 1


@pytest.mark.parametrize(("marker", "offset"), [(b"\0\0\0\0", 1), (b"\0\0\0\1", 5)])
def test_offsets_of_transactions_are_loaded_with_the_markers_that_ended_them(
    asking: Asking, marker: bytes, offset: int
) -> None:
    commit(asking, 1)
    record = offset_record("g", "t", 0, OffsetCommitValue(offset=5))
    log = asking.engine.store.logs[GROUPS_TOPIC, 3]
    for key, value, attributes in (
        (*GroupCodec().encode(record), TRANSACTIONAL),
        (marker, bytes(6), TRANSACTIONAL | CONTROL),
    ):
        builder = BatchBuilder()
        builder.append(0, key, value, None, 1 << 20)
        sequence = -1 if attributes & CONTROL else 0
        batch = builder.build(0, None, 7, 0, sequence, attributes)
        log.append(batch, read_header(batch))
        if attributes == TRANSACTIONAL:
            during = restarted(asking)
            stable = fetch(during, require_stable=True)
            assert stable.error_code == codes.UNSTABLE_OFFSET_COMMIT
            assert fetched(during) == 1
            asking = during
            log = asking.engine.store.logs[GROUPS_TOPIC, 3]
    assert fetch(restarted(asking), require_stable=True).committed_offset == offset


# -- topics that come and go


def test_what_was_committed_for_a_topic_goes_with_it(asking: Asking) -> None:
    asking.create("u")
    commit(asking, 1)
    commit(asking, 2, topic="u")
    commit(asking, 3, group_id="other")
    asking.engine.delete_topic(asking.engine.cluster.topics["t"])
    asking.sync()
    for each in (asking, asking.after_power_cut()):
        assert (fetched(each), fetched(each, "u"), fetched(each, group_id="other")) == (-1, 2, -1)


def test_what_was_committed_does_not_count_for_another_topic_of_the_name(asking: Asking) -> None:
    """The broker stops before the commits' removal is stored, and the topic is made again."""
    commit(asking, 1)
    again = restarted(asking)
    assert not again.engine.groups._shards
    again.engine.delete_topic(again.engine.cluster.topics["t"])
    again.create("t")
    assert fetched(again) == -1
    assert commit(again, 5) == codes.NONE
    assert fetched(restarted(again)) == 5


def test_only_offsets_of_topics_that_there_are_can_be_committed(asking: Asking) -> None:
    assert commit(asking, 1, topic="x") == codes.UNKNOWN_TOPIC_OR_PARTITION
    assert commit(asking, 1, version=10, topic_id=b"x" * 16) == codes.UNKNOWN_TOPIC_ID
    assert GROUPS_TOPIC not in asking.engine.cluster.topics
    request = commit_request(1)
    request.topics += commit_request(2, topic="x").topics
    response = asking.ask(request, 9)
    errors = [each.partitions[0].error_code for each in response.topics]
    assert errors == [codes.NONE, codes.UNKNOWN_TOPIC_OR_PARTITION]


def test_old_offsets_are_removed_by_the_housekeeper_s_task() -> None:
    asking = Asking(offsets_retention_minutes="1")
    asking.create("t")
    commit(asking, 1)
    asking.clock.advance(59_999)
    asking.engine.groups.expire_offsets()
    assert fetched(asking) == 1
    asking.clock.advance(1)
    asking.engine.groups.expire_offsets()
    assert fetched(asking) == -1
    assert asking.ask(ListGroupsRequest()).groups == []


# -- time


def test_a_member_that_is_silent_is_out_when_the_broker_looks_at_its_clock(asking: Asking) -> None:
    member = stable(asking)
    assert asking.engine.next_deadline_ms() == SESSION_MS
    advance(asking, SESSION_MS - 500)
    assert heartbeat(asking, member, 1) == codes.NONE
    advance(asking, SESSION_MS)
    assert heartbeat(asking, member, 1) == codes.UNKNOWN_MEMBER_ID
    assert asking.engine.next_deadline_ms() is None


def test_nobody_is_out_because_the_machine_slept(asking: Asking) -> None:
    member = stable(asking)
    asking.clock.advance(3_600_000)
    asking.engine.expire(asking.clock.monotonic_ms())
    assert state_of(asking) == "Stable"
    advance(asking, SESSION_MS - 500)
    assert heartbeat(asking, member, 1) == codes.NONE
    advance(asking, SESSION_MS)
    assert state_of(asking) == "Empty"


def test_deadlines_of_fetches_and_of_groups_are_both_kept(asking: Asking) -> None:
    stable(asking)
    waiting = Pending(5.0, lambda: waiting.finish(None))
    asking.engine.waits.add(waiting)
    assert asking.engine.next_deadline_ms() == 5.0
    asking.clock.advance(5)
    asking.engine.expire(asking.clock.monotonic_ms())
    assert waiting.is_done
    assert asking.engine.next_deadline_ms() == SESSION_MS
