"""DescribeGroups, versions 0-6: classic groups with their members.

    3   authorized operations
    4   static members
    6   a group that is not there is an error; before, it is dead

What the members were assigned is told of a stable group; of others it is not known. A group that
was never anything but offsets is empty.
Kafka: GroupMetadataManager.describeGroups, KIP-1043.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ottla.broker.groups import merged
from ottla.coordinator.group.classic import ClassicGroup, State
from ottla.coordinator.group.decision import Decision
from ottla.errors import codes
from ottla.protocol.messages.api_15_describe_groups import (
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.coordinator.group.coordinator import GroupCoordinator
    from ottla.coordinator.group.decision import Answer
    from ottla.coordinator.group.timers import Now
    from ottla.protocol.message import ApiMessage


GROUP_OPERATIONS = 0xD48
"""What may be done with a group where nothing is forbidden, as bits. Kafka: AclEntry."""

_FIRST_VERSION_WITH_NOT_FOUND = 6

_Group: TypeAlias = DescribeGroupsResponse.DescribedGroup


def handle(engine: Engine, request: DescribeGroupsRequest, version: int, context: Context) -> Reply:
    """Tell of each group that was asked for."""
    replies = [_ask(engine, group_id, version) for group_id in request.groups]

    def merge(responses: list[ApiMessage]) -> DescribeGroupsResponse:
        groups: list[_Group] = []
        for response in responses:
            assert isinstance(response, DescribeGroupsResponse)
            groups += response.groups
        if request.include_authorized_operations:
            for group in groups:
                if group.error_code == codes.NONE:
                    group.authorized_operations = GROUP_OPERATIONS
        return DescribeGroupsResponse(groups=groups)

    return merged(replies, merge)


def _ask(engine: Engine, group_id: str, version: int) -> Reply:
    def refused(error: int) -> DescribeGroupsResponse:
        return DescribeGroupsResponse(
            groups=[_Group(group_id=group_id, error_code=error, error_message=None)]
        )

    def decide(coordinator: GroupCoordinator, answer: Answer, now: Now) -> Decision:
        group = coordinator.groups.get(group_id)
        if isinstance(group, ClassicGroup):
            described = _describe(group)
        else:
            described = _dead(group_id, version, is_there=group is not None)
        decision = Decision(waits=True)
        decision.reply(answer, DescribeGroupsResponse(groups=[described]), refused)
        return decision

    return engine.groups.ask(group_id, decide, refused)


def _dead(group_id: str, version: int, *, is_there: bool) -> _Group:
    group = _Group(group_id=group_id, error_message=None, group_state=State.DEAD.value)
    if version >= _FIRST_VERSION_WITH_NOT_FOUND:
        what = "is not a classic group" if is_there else "not found"
        group.error_code = codes.GROUP_ID_NOT_FOUND
        group.error_message = f"Group {group_id} {what}."
    return group


def _describe(group: ClassicGroup) -> _Group:
    is_stable = group.state is State.STABLE
    name = group.protocol_name or ""
    return _Group(
        error_message=None,
        group_id=group.group_id,
        group_state=group.state_name,
        protocol_type=group.protocol_type or "",
        protocol_data=name if is_stable else "",
        members=[
            DescribeGroupsResponse.DescribedGroupMember(
                member_id=member.member_id,
                group_instance_id=member.group_instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                member_metadata=member.protocols.get(name, b"") if is_stable else b"",
                member_assignment=member.assignment if is_stable else b"",
            )
            for member in group.members.values()
        ],
    )
