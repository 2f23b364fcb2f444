"""LeaveGroup, versions 0-5: members leave their group.

    3   several at once, static ones by their instance id; before, the one member's error is the
        response's
    5   the reason, which is not told anybody

Kafka: GroupCoordinatorService.leaveGroup, KIP-345.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.broker.groups import asker_of
from ottla.errors import codes
from ottla.protocol.messages.api_13_leave_group import LeaveGroupRequest, LeaveGroupResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.coordinator.group.coordinator import GroupCoordinator
    from ottla.coordinator.group.decision import Answer, Decision
    from ottla.coordinator.group.timers import Now
    from ottla.protocol.message import ApiMessage


_FIRST_VERSION_OF_SEVERAL = 3


def handle(engine: Engine, request: LeaveGroupRequest, version: int, context: Context) -> Reply:
    """Let them leave."""
    if not request.group_id:
        return _refused(codes.INVALID_GROUP_ID)
    is_one = version < _FIRST_VERSION_OF_SEVERAL
    if is_one:
        request.members = [LeaveGroupRequest.MemberIdentity(member_id=request.member_id)]

    def decide(coordinator: GroupCoordinator, answer: Answer, now: Now) -> Decision:
        asker = asker_of(context, version, lambda response: answer(told(response)))
        return coordinator.leave(request, asker, now)

    def told(response: ApiMessage) -> LeaveGroupResponse:
        assert isinstance(response, LeaveGroupResponse)
        if is_one and response.members:
            return _refused(response.members[0].error_code)
        return response

    return engine.groups.ask(request.group_id, decide, _refused)


def _refused(error: int) -> LeaveGroupResponse:
    return LeaveGroupResponse(error_code=error)
