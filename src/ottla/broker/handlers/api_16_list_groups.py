"""ListGroups, versions 0-5: all groups there are.

    4   their states; only those in some states
    5   their kinds; only those of some kinds

Kafka: GroupCoordinatorService.listGroups, KIP-518, KIP-848.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.broker.groups import merged
from ottla.coordinator.group.decision import Decision
from ottla.errors import codes
from ottla.protocol.messages.api_16_list_groups import ListGroupsRequest, ListGroupsResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.coordinator.group.coordinator import GroupCoordinator
    from ottla.coordinator.group.decision import Answer
    from ottla.coordinator.group.timers import Now
    from ottla.protocol.message import ApiMessage


def handle(engine: Engine, request: ListGroupsRequest, version: int, context: Context) -> Reply:
    """List them."""
    states = {each.lower() for each in request.states_filter}
    kinds = {each.lower() for each in request.types_filter}

    def decide(coordinator: GroupCoordinator, answer: Answer, now: Now) -> Decision:
        groups = [
            ListGroupsResponse.ListedGroup(
                group_id=group.group_id,
                protocol_type=group.protocol_type or "",
                group_state=group.state_name,
                group_type=group.kind,
            )
            for group in coordinator.listed(states, kinds)
        ]
        decision = Decision(waits=True)
        decision.reply(answer, ListGroupsResponse(groups=groups), _refused)
        return decision

    return merged(engine.groups.ask_all(decide, _refused), _merge)


def _refused(error: int) -> ListGroupsResponse:
    return ListGroupsResponse(error_code=error)


def _merge(responses: list[ApiMessage]) -> ListGroupsResponse:
    whole = ListGroupsResponse()
    for response in responses:
        assert isinstance(response, ListGroupsResponse)
        if response.error_code != codes.NONE:
            return response
        whole.groups += response.groups
    return whole
