"""SyncGroup, versions 0-5: a member asks what it is assigned; the leader tells what all are.

    3   static members (KIP-345)
    5   protocol type and name, which must be the group's

The response waits for the leader, and until what it assigned is stored.
Kafka: GroupCoordinatorService.syncGroup, KIP-559.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.broker.groups import asker_of
from ottla.coordinator.group.rebalance import sync_error
from ottla.errors import codes

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.coordinator.group.coordinator import GroupCoordinator
    from ottla.coordinator.group.decision import Answer, Decision
    from ottla.coordinator.group.timers import Now
    from ottla.protocol.messages.api_14_sync_group import SyncGroupRequest


_FIRST_VERSION_WITH_PROTOCOL = 5


def handle(engine: Engine, request: SyncGroupRequest, version: int, context: Context) -> Reply:
    """Sync, and wait."""
    if not request.group_id:
        return sync_error(codes.INVALID_GROUP_ID)
    if version >= _FIRST_VERSION_WITH_PROTOCOL and (
        request.protocol_type is None or request.protocol_name is None
    ):
        return sync_error(codes.INCONSISTENT_GROUP_PROTOCOL)

    def decide(coordinator: GroupCoordinator, answer: Answer, now: Now) -> Decision:
        asker = asker_of(context, version, answer)
        return coordinator.sync(request, asker, now)

    return engine.groups.ask(request.group_id, decide, sync_error)
