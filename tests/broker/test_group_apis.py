"""The groups' APIs in all their versions: what is asked, and what is told."""

from __future__ import annotations

from typing import Any

import pytest

import ottla.broker.groups as groups_module
from ottla.broker.requests import Pending
from ottla.errors import codes
from ottla.protocol.codec import decode, encode
from ottla.protocol.message import ZERO_UUID, ApiMessage
from ottla.protocol.messages.api_09_offset_fetch import OffsetFetchRequest
from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest
from ottla.protocol.messages.api_13_leave_group import LeaveGroupRequest
from ottla.protocol.messages.api_15_describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.api_16_list_groups import ListGroupsRequest
from ottla.protocol.messages.api_42_delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from ottla.protocol.messages.api_47_offset_delete import OffsetDeleteRequest
from tests.broker.asking import Asking
from tests.broker.asking_groups import (
    commit,
    commit_request,
    committed_error,
    fetched,
    heartbeat,
    join_request,
    restarted,
    stable,
    sync_request,
)


@pytest.fixture
def asking() -> Asking:
    asking = Asking()
    asking.create("t", 3)
    return asking


@pytest.mark.parametrize("version", range(11))
def test_every_version_of_commit_and_fetch(asking: Asking, version: int) -> None:
    topic_id = asking.engine.cluster.topics["t"].topic_id
    request = commit_request(5, metadata="m", leader_epoch=4)
    request.topics[0].topic_id = topic_id if version >= 10 else ZERO_UUID
    request.topics[0].partitions[0].commit_timestamp = asking.clock.now_ms()
    assert committed_error(ask_on_the_wire(asking, request, version)) == codes.NONE
    response = ask_on_the_wire(asking, fetch_request(version, topic_id), version)
    group = response if version < 8 else response.groups[0]
    assert group.error_code == codes.NONE
    (topic,) = group.topics
    assert topic.topic_id == topic_id if version >= 10 else topic.name == "t"
    known, unknown = topic.partitions
    assert (known.committed_offset, known.metadata) == (5, "m")
    assert known.committed_leader_epoch == (4 if version >= 6 else -1)
    assert (unknown.committed_offset, unknown.metadata, unknown.error_code) == (-1, "", 0)


def ask_on_the_wire(asking: Asking, request: ApiMessage, version: int) -> Any:
    """Ask in a version that may be older than any that Kafka 4 has."""
    request = decode(type(request), encode(request, version), version)
    reply = asking.ask_nowait(request, version)
    asking.sync()
    response: Any = reply.response if isinstance(reply, Pending) else reply
    return decode(type(response), encode(response, version), version)


def fetch_request(version: int, topic_id: bytes) -> OffsetFetchRequest:
    """Ask for partitions 0 and 1 of "t"."""
    if version < 8:
        earlier = OffsetFetchRequest.OffsetFetchRequestTopic(name="t", partition_indexes=[0, 1])
        return OffsetFetchRequest(group_id="g", topics=[earlier])
    asked = OffsetFetchRequest.OffsetFetchRequestTopics(
        name="t", topic_id=topic_id if version >= 10 else ZERO_UUID, partition_indexes=[0, 1]
    )
    group = OffsetFetchRequest.OffsetFetchRequestGroup(group_id="g", topics=[asked])
    return OffsetFetchRequest(groups=[group])


@pytest.mark.parametrize("version", [2, 7, 8, 9, 10])
def test_no_topics_are_all_topics(asking: Asking, version: int) -> None:
    asking.create("u")
    commit(asking, 1)
    commit(asking, 2, topic="u")
    group = OffsetFetchRequest.OffsetFetchRequestGroup(group_id="g", topics=None)
    request = (
        OffsetFetchRequest(group_id="g", topics=None)
        if version < 8
        else OffsetFetchRequest(groups=[group])
    )
    response = asking.ask(request, version)
    found = response if version < 8 else response.groups[0]
    assert sorted(each.partitions[0].committed_offset for each in found.topics) == [1, 2]


def test_several_groups_are_fetched_at_once(asking: Asking) -> None:
    for number in range(5):
        commit(asking, number, group_id=f"g{number}")
    groups = [
        OffsetFetchRequest.OffsetFetchRequestGroup(group_id=f"g{number}", topics=None)
        for number in range(6)
    ]
    response = asking.ask(OffsetFetchRequest(groups=groups), 9)
    assert [each.group_id for each in response.groups] == [f"g{number}" for number in range(6)]
    found = [
        [topic.partitions[0].committed_offset for topic in each.topics] for each in response.groups
    ]
    assert found == [[0], [1], [2], [3], [4], []]


def test_an_unknown_topic_id_is_told_for_its_partitions(asking: Asking) -> None:
    asked = OffsetFetchRequest.OffsetFetchRequestTopics(topic_id=b"x" * 16, partition_indexes=[0])
    group = OffsetFetchRequest.OffsetFetchRequestGroup(group_id="g", topics=[asked])
    (found,) = asking.ask(OffsetFetchRequest(groups=[group]), 10).groups
    assert found.topics[0].topic_id == b"x" * 16
    assert found.topics[0].partitions[0].error_code == codes.UNKNOWN_TOPIC_ID


@pytest.mark.parametrize("version", range(2))
def test_the_first_versions_of_fetch_tell_errors_with_each_partition(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    monkeypatch.setattr(groups_module, "LOAD_AT_ONCE_BYTES", 0)
    commit(asking, 1)
    asking.engine.groups.load_waiting()
    commit(asking, 1)
    again = restarted(asking)
    topic_id = again.engine.cluster.topics["t"].topic_id
    response = again.ask(fetch_request(version, topic_id), version)
    assert [each.error_code for each in response.topics[0].partitions] == [
        codes.COORDINATOR_LOAD_IN_PROGRESS
    ] * 2


@pytest.mark.parametrize("version", range(10))
def test_every_version_of_join_sync_heartbeat_and_leave(asking: Asking, version: int) -> None:
    joined = asking.ask(join_request(), version)
    if version >= 4:
        assert joined.error_code == codes.MEMBER_ID_REQUIRED
        joined = asking.ask(join_request(joined.member_id), version)
    member = joined.member_id
    assert (joined.error_code, joined.generation_id, joined.leader) == (codes.NONE, 1, member)
    assert joined.protocol_name == "range"
    synced = asking.ask(sync_request(member, 1, {member: b"a"}), min(version, 5))
    assert synced.assignment == b"a"
    beat = HeartbeatRequest(group_id="g", member_id=member, generation_id=1)
    assert asking.ask(beat, min(version, 4)).error_code == codes.NONE
    leaving = LeaveGroupRequest(group_id="g", member_id=member)
    if version >= 3:
        identity = LeaveGroupRequest.MemberIdentity(member_id=member)
        leaving = LeaveGroupRequest(group_id="g", members=[identity])
    assert asking.ask(leaving, min(version, 5)).error_code == codes.NONE
    left = asking.ask(leaving, min(version, 5))
    errors = [left.error_code, *(each.error_code for each in left.members)]
    unknown = codes.UNKNOWN_MEMBER_ID
    assert errors == ([unknown] if version < 3 else [codes.NONE, unknown])


@pytest.mark.parametrize("version", range(10))
def test_every_version_of_join_tells_an_error(asking: Asking, version: int) -> None:
    refused = asking.ask(join_request("x"), version)
    assert (refused.error_code, refused.member_id) == (codes.UNKNOWN_MEMBER_ID, "x")
    assert refused.protocol_name == (None if version >= 7 else "")
    assert refused.generation_id == -1


def test_static_members_are_known_by_their_names(asking: Asking) -> None:
    joined = asking.ask(join_request(group_instance_id="i"))
    asking.ask(sync_request(joined.member_id, 1, {joined.member_id: b"a"}))
    beat = HeartbeatRequest(group_id="g", member_id="x", generation_id=1, group_instance_id="i")
    assert asking.ask(beat, 3).error_code == codes.FENCED_INSTANCE_ID
    identity = LeaveGroupRequest.MemberIdentity(group_instance_id="i")
    left = asking.ask(LeaveGroupRequest(group_id="g", members=[identity]), 3)
    assert [(each.group_instance_id, each.error_code) for each in left.members] == [("i", 0)]


def test_a_group_without_a_name_takes_offsets_but_no_members(asking: Asking) -> None:
    invalid = codes.INVALID_GROUP_ID
    assert asking.ask(join_request(group_id="")).error_code == invalid
    assert asking.ask(sync_request("m", 1, {}, "")).error_code == invalid
    assert heartbeat(asking, "m", 1, "") == invalid
    assert asking.ask(LeaveGroupRequest(group_id="", members=[])).error_code == invalid
    assert commit(asking, 4, group_id="") == codes.NONE
    assert fetched(asking, group_id="") == 4


def test_from_version_5_a_sync_must_name_its_protocol(asking: Asking) -> None:
    member = asking.ask(join_request()).member_id
    asking.ask(join_request(member))
    request = sync_request(member, 1, {})
    request.protocol_name = None
    assert asking.ask(request, 5).error_code == codes.INCONSISTENT_GROUP_PROTOCOL
    assert asking.ask(request, 4).error_code == codes.NONE


# -- describing, listing and deleting


@pytest.mark.parametrize("version", range(7))
def test_a_group_is_described_with_its_members(asking: Asking, version: int) -> None:
    member = stable(asking)
    request = DescribeGroupsRequest(groups=["g", "x"], include_authorized_operations=version >= 3)
    known, unknown = asking.ask(request, version).groups
    assert (known.error_code, known.group_state) == (codes.NONE, "Stable")
    assert (known.protocol_type, known.protocol_data) == ("consumer", "range")
    assert [each.member_id for each in known.members] == [member]
    told = known.members[0]
    assert (told.client_id, told.member_assignment) == ("test", b"mine")
    assert told.member_metadata == bytes(6)
    assert known.authorized_operations == (0xD48 if version >= 3 else -(1 << 31))
    assert unknown.group_state == "Dead"
    assert unknown.error_code == (codes.GROUP_ID_NOT_FOUND if version >= 6 else codes.NONE)


def test_of_a_group_that_is_not_stable_assignments_are_not_known(asking: Asking) -> None:
    member = asking.ask(join_request()).member_id
    asking.ask(join_request(member))
    (group,) = asking.ask(DescribeGroupsRequest(groups=["g"])).groups
    assert (group.group_state, group.protocol_data) == ("CompletingRebalance", "")
    assert (group.members[0].member_metadata, group.members[0].member_assignment) == (b"", b"")


@pytest.mark.parametrize("version", range(6))
def test_groups_are_listed(asking: Asking, version: int) -> None:
    assert asking.ask(ListGroupsRequest(), version).groups == []
    stable(asking)
    commit(asking, 1, group_id="simple")
    groups = {each.group_id: each for each in asking.ask(ListGroupsRequest(), version).groups}
    assert {name: each.protocol_type for name, each in groups.items()} == {
        "g": "consumer",
        "simple": "",
    }
    assert groups["g"].group_state == ("Stable" if version >= 4 else "")
    assert groups["g"].group_type == ("classic" if version >= 5 else "")


def test_groups_of_some_states_or_kinds_are_listed(asking: Asking) -> None:
    stable(asking)
    commit(asking, 1, group_id="simple")

    def listed(**filters: list[str]) -> list[str]:
        groups = asking.ask(ListGroupsRequest(**filters)).groups
        return [each.group_id for each in groups]

    assert listed(states_filter=["stable"]) == ["g"]
    assert listed(states_filter=["Empty", "Dead"]) == ["simple"]
    assert sorted(listed(types_filter=["Classic"])) == ["g", "simple"]
    assert listed(types_filter=["consumer"]) == []


@pytest.mark.parametrize("version", range(3))
def test_groups_are_deleted_when_that_is_stored(asking: Asking, version: int) -> None:
    stable(asking)
    commit(asking, 1, group_id="a")
    commit(asking, 1, group_id="b")
    request = DeleteGroupsRequest(groups_names=["g", "a", "b", "x"])
    reply = asking.ask_nowait(request, version)
    assert isinstance(reply, Pending) and not reply.is_done
    results = asking.ask(request, version).results
    assert len(results) == 4
    asking.sync()
    assert reply.is_done
    assert isinstance(reply.response, DeleteGroupsResponse)
    errors = {each.group_id: each.error_code for each in reply.response.results}
    assert errors == {
        "g": codes.NON_EMPTY_GROUP,
        "a": codes.NONE,
        "b": codes.NONE,
        "x": codes.GROUP_ID_NOT_FOUND,
    }
    for each in (asking, asking.after_power_cut()):
        assert [group.group_id for group in each.ask(ListGroupsRequest()).groups] == ["g"]


def delete_offsets(asking: Asking, *topics: str) -> Any:
    return asking.ask(
        OffsetDeleteRequest(
            group_id="g",
            topics=[
                OffsetDeleteRequest.OffsetDeleteRequestTopic(
                    name=topic,
                    partitions=[
                        OffsetDeleteRequest.OffsetDeleteRequestPartition(partition_index=0)
                    ],
                )
                for topic in topics
            ],
        )
    )


def test_offsets_are_deleted(asking: Asking) -> None:
    assert delete_offsets(asking, "t").error_code == codes.GROUP_ID_NOT_FOUND
    asking.create("u")
    commit(asking, 1)
    commit(asking, 2, topic="u")
    response = delete_offsets(asking, "x", "t")
    assert response.error_code == codes.NONE
    errors = [each.partitions[0].error_code for each in response.topics]
    assert errors == [codes.UNKNOWN_TOPIC_OR_PARTITION, codes.NONE]
    for each in (asking, asking.after_power_cut()):
        assert (fetched(each), fetched(each, "u")) == (-1, 2)
