"""Heartbeat, versions 0-4: a member is alive, and learns whether it has to join again.

    3   static members (KIP-345)

While a group is being loaded nobody is told that it is: its members' sessions begin then.
Kafka: GroupCoordinatorService.heartbeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.broker.groups import asker_of
from ottla.errors import codes
from ottla.protocol.messages.api_12_heartbeat import HeartbeatRequest, HeartbeatResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.coordinator.group.coordinator import GroupCoordinator
    from ottla.coordinator.group.decision import Answer, Decision
    from ottla.coordinator.group.timers import Now


def handle(engine: Engine, request: HeartbeatRequest, version: int, context: Context) -> Reply:
    """Take note of it."""
    if not request.group_id:
        return HeartbeatResponse(error_code=codes.INVALID_GROUP_ID)

    def decide(coordinator: GroupCoordinator, answer: Answer, now: Now) -> Decision:
        asker = asker_of(context, version, answer)
        return coordinator.heartbeat(request, asker, now)

    return engine.groups.ask(request.group_id, decide, _refused)


def _refused(error: int) -> HeartbeatResponse:
    is_loading = error == codes.COORDINATOR_LOAD_IN_PROGRESS
    return HeartbeatResponse(error_code=codes.NONE if is_loading else error)
