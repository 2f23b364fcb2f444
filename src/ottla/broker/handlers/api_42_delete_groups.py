"""DeleteGroups, versions 0-2: delete groups without members, with what they committed.

Kafka: GroupCoordinatorService.deleteGroups, KIP-229.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ottla.broker.groups import merged
from ottla.protocol.messages.api_42_delete_groups import DeleteGroupsRequest, DeleteGroupsResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.coordinator.group.coordinator import GroupCoordinator
    from ottla.coordinator.group.decision import Answer, Decision
    from ottla.coordinator.group.timers import Now
    from ottla.protocol.message import ApiMessage


_Result: TypeAlias = DeleteGroupsResponse.DeletableGroupResult


def handle(engine: Engine, request: DeleteGroupsRequest, version: int, context: Context) -> Reply:
    """Delete what can be deleted."""
    return merged([_delete(engine, each) for each in dict.fromkeys(request.groups_names)], _merge)


def _delete(engine: Engine, group_id: str) -> Reply:
    def result(error: int) -> DeleteGroupsResponse:
        return DeleteGroupsResponse(results=[_Result(group_id=group_id, error_code=error)])

    def decide(coordinator: GroupCoordinator, answer: Answer, now: Now) -> Decision:
        error, decision = coordinator.delete_group(group_id)
        decision.reply(answer, result(error), result)
        return decision

    return engine.groups.ask(group_id, decide, result)


def _merge(responses: list[ApiMessage]) -> DeleteGroupsResponse:
    whole = DeleteGroupsResponse()
    for response in responses:
        assert isinstance(response, DeleteGroupsResponse)
        whole.results += response.results
    return whole
