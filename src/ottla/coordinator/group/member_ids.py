"""The ids that a coordinator gives to static members: they tell when they were given.

Who has taken a static member's place while the group was in a rebalance is in no record yet. A
broker that starts again knows the one before it, and must not fence the one that lives: fenced it
would be for good. So it is told from one that has lost its place by its id, which is the later one,
and is asked to join anew. Kafka fences it.
"""

from __future__ import annotations

_TIME_DIGITS = 12


def static_member_id_of(instance_id: str, wall_ms: int, unique: str) -> str:
    """Make the id of a static member."""
    return f"{instance_id}-{wall_ms:0{_TIME_DIGITS}x}-{unique}"


def is_later(member_id: str, other: str, instance_id: str) -> bool:
    """Tell whether a static member's id was surely given later than another one."""
    given, given_other = _given_ms(member_id, instance_id), _given_ms(other, instance_id)
    return given is not None and given_other is not None and given > given_other


def _given_ms(member_id: str, instance_id: str) -> int | None:
    prefix = f"{instance_id}-"
    time, dash, unique = member_id.removeprefix(prefix).partition("-")
    if not member_id.startswith(prefix) or not dash or not unique or len(time) != _TIME_DIGITS:
        return None
    try:
        return int(time, 16)
    except ValueError:
        return None
