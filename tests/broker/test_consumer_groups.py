"""Consumer groups in a broker: requests that cannot be, what is told of groups, what survives."""

from __future__ import annotations

from typing import Any

import pytest

from ottla.broker.handlers.api_15_describe_groups import GROUP_OPERATIONS
from ottla.errors import ConfigError, codes
from ottla.protocol.messages.api_09_offset_fetch import OffsetFetchRequest
from ottla.protocol.messages.api_15_describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.api_16_list_groups import ListGroupsRequest
from ottla.protocol.messages.api_18_api_versions import ApiVersionsRequest
from ottla.protocol.messages.api_42_delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.api_68_consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)
from ottla.protocol.messages.api_69_consumer_group_describe import ConsumerGroupDescribeRequest
from tests.broker.asking import Asking
from tests.broker.asking_groups import advance, commit, fetched, join_request, restarted
from tests.coordinator.group.shards import subscription


@pytest.fixture
def asking() -> Asking:
    asking = Asking()
    asking.create("t", 3)
    return asking


def beat_request(member_id: str, epoch: int, **fields: Any) -> ConsumerGroupHeartbeatRequest:
    if epoch == 0:
        fields = {
            "rebalance_timeout_ms": 60_000,
            "subscribed_topic_names": ["t"],
            "topic_partitions": [],
            **fields,
        }
    fields.setdefault("group_id", "g")
    return ConsumerGroupHeartbeatRequest(member_id=member_id, member_epoch=epoch, **fields)


def beat(
    asking: Asking, member_id: str, epoch: int, version: int = 1, **fields: Any
) -> ConsumerGroupHeartbeatResponse:
    response: ConsumerGroupHeartbeatResponse
    response = asking.ask(beat_request(member_id, epoch, **fields), version)
    return response


@pytest.mark.parametrize(
    ("member_id", "epoch", "version", "fields"),
    [
        ("", 0, 1, {}),
        ("", 1, 0, {}),
        ("", -1, 0, {}),
        ("a", 0, 1, {"group_id": " "}),
        ("a", 1, 1, {"instance_id": ""}),
        ("a", 1, 1, {"rack_id": ""}),
        ("a", 0, 1, {"rebalance_timeout_ms": -1}),
        ("a", 0, 1, {"topic_partitions": None}),
        ("a", 0, 1, {"topic_partitions": [ConsumerGroupHeartbeatRequest.TopicPartitions()]}),
        ("a", 0, 1, {"subscribed_topic_names": None}),
        ("a", -2, 1, {}),
        ("a", -3, 1, {}),
    ],
)
def test_a_request_that_cannot_be_is_refused(
    asking: Asking, member_id: str, epoch: int, version: int, fields: dict[str, Any]
) -> None:
    response = beat(asking, member_id, epoch, version, **fields)
    assert response.error_code == codes.INVALID_REQUEST
    assert response.error_message


def test_an_assignor_that_there_is_not_is_refused(asking: Asking) -> None:
    response = beat(asking, "a", 0, server_assignor="mine")
    assert response.error_code == codes.UNSUPPORTED_ASSIGNOR
    assert "uniform, range" in (response.error_message or "")


def test_a_member_of_the_first_version_is_named_by_the_broker(asking: Asking) -> None:
    response = beat(asking, "", 0, version=0)
    assert response.error_code == codes.NONE
    assert response.member_id


def test_a_group_that_never_was_has_no_member(asking: Asking) -> None:
    assert beat(asking, "a", 1).error_code == codes.GROUP_ID_NOT_FOUND


def test_the_broker_s_configs_count() -> None:
    asking = Asking(
        group_consumer_session_timeout_ms="2000",
        group_consumer_heartbeat_interval_ms="700",
        group_consumer_max_size="1",
        group_consumer_assignors="range",
        group_consumer_migration_policy="DISABLED",
    )
    asking.create("t", 3)
    assert beat(asking, "a", 0).heartbeat_interval_ms == 700
    assert beat(asking, "b", 0).error_code == codes.GROUP_MAX_SIZE_REACHED
    refused = beat(asking, "a", 0, server_assignor="uniform")
    assert refused.error_code == codes.UNSUPPORTED_ASSIGNOR
    asking.ask(join_request(group_id="classic"), 3)
    other = beat(asking, "c", 0, group_id="classic")
    assert other.error_code == codes.GROUP_ID_NOT_FOUND
    advance(asking, 2000)
    assert beat(asking, "a", 1).error_code == codes.UNKNOWN_MEMBER_ID


def test_an_assignor_that_cannot_be_loaded_is_no_config() -> None:
    with pytest.raises(ConfigError, match=r"there is no 'org\.Mine', only uniform, range"):
        Asking(group_consumer_assignors="uniform,org.Mine")


def test_groups_are_listed_and_described_as_what_they_are(asking: Asking) -> None:
    beat(asking, "a", 0, rack_id="r", server_assignor="range")
    request_to_join = join_request()
    request_to_join.protocols[0].metadata = subscription("t")
    joined = asking.ask(request_to_join, 3)
    assert joined.error_code == codes.NONE
    (listed,) = asking.ask(ListGroupsRequest(types_filter=["Consumer"])).groups
    assert (listed.group_id, listed.protocol_type, listed.group_type) == (
        "g",
        "consumer",
        "consumer",
    )
    assert asking.ask(ListGroupsRequest(types_filter=["classic"])).groups == []
    assert asking.ask(ListGroupsRequest(states_filter=["reconciling"])).groups == [listed]
    request = ConsumerGroupDescribeRequest(
        group_ids=["g", "none"], include_authorized_operations=True
    )
    group, none = asking.ask(request).groups
    assert none.error_code == codes.GROUP_ID_NOT_FOUND
    assert (group.group_state, group.group_epoch) == ("Reconciling", 2)
    assert group.assignment_epoch == 2
    assert group.assignor_name == "range"
    assert group.authorized_operations == GROUP_OPERATIONS
    member, classic = group.members
    assert (member.member_id, member.rack_id, member.member_type) == ("a", "r", 1)
    assert (classic.member_id, classic.member_type) == (joined.member_id, 0)
    (assigned,) = member.assignment.topic_partitions
    assert (assigned.topic_name, assigned.partitions) == ("t", [0, 1, 2])
    (target,) = member.target_assignment.topic_partitions
    assert (target.topic_id, target.partitions) == (assigned.topic_id, [0, 1])
    (other,) = asking.ask(DescribeGroupsRequest(groups=["g"]), 6).groups
    assert other.error_code == codes.GROUP_ID_NOT_FOUND
    (dead,) = asking.ask(DescribeGroupsRequest(groups=["g"]), 5).groups
    assert dead.group_state == "Dead"


def test_a_classic_group_is_not_described_as_a_consumer_group(asking: Asking) -> None:
    asking.ask(join_request(), 3)
    (group,) = asking.ask(ConsumerGroupDescribeRequest(group_ids=["g"])).groups
    assert group.error_code == codes.GROUP_ID_NOT_FOUND
    assert "not a consumer group" in (group.error_message or "")


def test_a_member_goes_on_after_a_start_and_its_offsets_are_there(asking: Asking) -> None:
    beat(asking, "a", 0)
    assert commit(asking, 5, member_id="a", generation_id_or_member_epoch=1) == codes.NONE
    again = restarted(asking)
    response = beat(again, "a", 1)
    assert (response.error_code, response.member_epoch) == (codes.NONE, 1)
    assert fetched(again) == 5
    again.ask(DeleteGroupsRequest(groups_names=["g"]))
    assert beat(again, "a", 1).error_code == codes.NONE
    beat(again, "a", -1)
    (deleted,) = again.ask(DeleteGroupsRequest(groups_names=["g"])).results
    assert deleted.error_code == codes.NONE
    assert restarted(again).ask(ListGroupsRequest()).groups == []


def test_offsets_are_fetched_by_members_in_their_epoch(asking: Asking) -> None:
    beat(asking, "a", 0)

    def error(member_id: str | None, epoch: int) -> int:
        group = OffsetFetchRequest.OffsetFetchRequestGroup(
            group_id="g", topics=None, member_id=member_id, member_epoch=epoch
        )
        (found,) = asking.ask(OffsetFetchRequest(groups=[group]), 9).groups
        code: int = found.error_code
        return code

    assert error("a", 1) == codes.NONE
    assert error(None, -1) == codes.NONE
    assert error("a", 3) == codes.STALE_MEMBER_EPOCH
    assert error("b", 1) == codes.UNKNOWN_MEMBER_ID


def test_topics_are_seen_as_they_come_and_go(asking: Asking) -> None:
    beat(asking, "a", 0, subscribed_topic_names=["t", "later"])
    asking.create("later", 1)
    response = beat(asking, "a", 1)
    assert response.assignment is not None
    assert len(response.assignment.topic_partitions) == 2


@pytest.mark.parametrize("version", [3, 4])
def test_the_consumer_protocol_is_a_feature_that_is_finalized(asking: Asking, version: int) -> None:
    request = ApiVersionsRequest(client_software_name="x", client_software_version="1")
    response = asking.ask(request, version)
    (finalized,) = response.finalized_features
    assert finalized.name == "group.version"
    assert (finalized.min_version_level, finalized.max_version_level) == (1, 1)
    assert response.finalized_features_epoch == 0
    supported = [
        (each.name, each.min_version, each.max_version) for each in (response.supported_features)
    ]
    assert supported == ([("group.version", 0, 1)] if version == 4 else [])
