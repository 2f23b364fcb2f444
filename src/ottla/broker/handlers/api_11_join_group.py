"""JoinGroup, versions 0-9: become a member of a group, or join again for its next generation.

    1   a rebalance timeout of its own; before, the session timeout is meant
    4   a new dynamic member is given an id first, and joins with that (MEMBER_ID_REQUIRED)
    5   static members (KIP-345)
    7   protocol types; before, no protocol is the empty one
    8   the reason, which is not told anybody
    9   a leader may be told to assign nothing (KIP-814)

The response waits for the group's next generation.
Kafka: GroupCoordinatorService.joinGroup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.broker.groups import asker_of
from ottla.coordinator.group.rebalance import join_error
from ottla.errors import codes
from ottla.protocol.messages.api_11_join_group import JoinGroupRequest, JoinGroupResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.coordinator.group.coordinator import GroupCoordinator
    from ottla.coordinator.group.decision import Answer, Decision
    from ottla.coordinator.group.timers import Now
    from ottla.protocol.message import ApiMessage


_FIRST_VERSION_WITH_NO_PROTOCOL = 7


def handle(engine: Engine, request: JoinGroupRequest, version: int, context: Context) -> Reply:
    """Join, and wait."""

    def refused(error: int) -> JoinGroupResponse:
        return _as_of(version, join_error(error, request.member_id))

    if not request.group_id:
        return refused(codes.INVALID_GROUP_ID)

    def decide(coordinator: GroupCoordinator, answer: Answer, now: Now) -> Decision:
        def answer_as_of(response: ApiMessage) -> None:
            answer(_as_of(version, response))

        asker = asker_of(context, version, answer_as_of)
        return coordinator.join(request, asker, now)

    return engine.groups.ask(request.group_id, decide, refused, creates=True)


def _as_of(version: int, response: ApiMessage) -> JoinGroupResponse:
    assert isinstance(response, JoinGroupResponse)
    if version < _FIRST_VERSION_WITH_NO_PROTOCOL and response.protocol_name is None:
        response.protocol_name = ""
    return response
