"""Asking a broker's engine as members of groups, and as those who look after them, do."""

from __future__ import annotations

from typing import Any

from ottla.errors import codes
from ottla.protocol.message import ZERO_UUID
from ottla.protocol.messages.api_08_offset_commit import OffsetCommitRequest, OffsetCommitResponse
from ottla.protocol.messages.api_09_offset_fetch import OffsetFetchRequest, OffsetFetchResponse
from ottla.protocol.messages.api_11_join_group import JoinGroupRequest
from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest
from ottla.protocol.messages.api_14_sync_group import SyncGroupRequest
from ottla.protocol.messages.api_15_describe_groups import DescribeGroupsRequest
from tests.broker.asking import Asking

SESSION_MS = 10_000


def join_request(member_id: str = "", group_id: str = "g", **fields: Any) -> JoinGroupRequest:
    protocol = JoinGroupRequest.JoinGroupRequestProtocol(name="range", metadata=b"\0\0\0\0\0\0")
    return JoinGroupRequest(
        group_id=group_id,
        session_timeout_ms=fields.pop("session_timeout_ms", SESSION_MS),
        rebalance_timeout_ms=60_000,
        member_id=member_id,
        protocol_type="consumer",
        protocols=[protocol],
        **fields,
    )


def sync_request(
    member_id: str, generation: int, assignments: dict[str, bytes], group_id: str = "g"
) -> SyncGroupRequest:
    return SyncGroupRequest(
        group_id=group_id,
        generation_id=generation,
        member_id=member_id,
        protocol_type="consumer",
        protocol_name="range",
        assignments=[
            SyncGroupRequest.SyncGroupRequestAssignment(member_id=each, assignment=assignment)
            for each, assignment in assignments.items()
        ],
    )


def commit_request(
    offset: int, topic: str = "t", group_id: str = "g", partition: int = 0, **fields: Any
) -> OffsetCommitRequest:
    return OffsetCommitRequest(
        group_id=group_id,
        topics=[
            OffsetCommitRequest.OffsetCommitRequestTopic(
                name=topic,
                topic_id=fields.pop("topic_id", ZERO_UUID),
                partitions=[
                    OffsetCommitRequest.OffsetCommitRequestPartition(
                        partition_index=partition,
                        committed_offset=offset,
                        committed_leader_epoch=fields.pop("leader_epoch", -1),
                        committed_metadata=fields.pop("metadata", ""),
                    )
                ],
            )
        ],
        **fields,
    )


def commit(asking: Asking, offset: int, version: int = 9, **fields: Any) -> int:
    return committed_error(asking.ask(commit_request(offset, **fields), version))


def committed_error(response: OffsetCommitResponse) -> int:
    (topic,) = response.topics
    (partition,) = topic.partitions
    return partition.error_code


def fetch(
    asking: Asking, topic: str = "t", group_id: str = "g", version: int = 9, **fields: Any
) -> OffsetFetchResponse.OffsetFetchResponsePartitions:
    """Fetch what was committed for partition 0."""
    asked = OffsetFetchRequest.OffsetFetchRequestTopics(name=topic, partition_indexes=[0])
    group = OffsetFetchRequest.OffsetFetchRequestGroup(group_id=group_id, topics=[asked])
    response = asking.ask(OffsetFetchRequest(groups=[group], **fields), version)
    assert response.groups[0].error_code == codes.NONE
    partition: OffsetFetchResponse.OffsetFetchResponsePartitions
    (partition,) = response.groups[0].topics[0].partitions
    return partition


def fetched(asking: Asking, topic: str = "t", group_id: str = "g") -> int:
    return fetch(asking, topic, group_id).committed_offset


def heartbeat(asking: Asking, member_id: str, generation: int, group_id: str = "g") -> int:
    request = HeartbeatRequest(group_id=group_id, member_id=member_id, generation_id=generation)
    error: int = asking.ask(request).error_code
    return error


def state_of(asking: Asking, group_id: str = "g") -> str:
    (group,) = asking.ask(DescribeGroupsRequest(groups=[group_id]), 5).groups
    state: str = group.group_state
    return state


def stable(asking: Asking, group_id: str = "g") -> str:
    """Let one member form a stable group, and return its id."""
    member: str = asking.ask(join_request(group_id=group_id)).member_id
    joined = asking.ask(join_request(member, group_id))
    assert joined.error_code == codes.NONE
    generation = joined.generation_id
    synced = asking.ask(sync_request(member, generation, {member: b"mine"}, group_id))
    assert synced.assignment == b"mine"
    return member


def advance(asking: Asking, milliseconds: float) -> None:
    """Let time go by, in steps in which a broker that runs would look at it."""
    end_ms = asking.clock.monotonic_ms() + milliseconds
    while (left_ms := end_ms - asking.clock.monotonic_ms()) > 0:
        asking.clock.advance(min(left_ms, 500))
        asking.engine.expire(asking.clock.monotonic_ms())
    asking.sync()


def restarted(asking: Asking, **settings: str) -> Asking:
    """Return the same broker as it starts after a clean stop."""
    asking.sync()
    asking.engine.close()
    return Asking(asking.files, **settings)
