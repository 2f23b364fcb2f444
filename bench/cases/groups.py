"""G1: how long a group that did not exist yet waits for its first record, on an idle broker."""

from __future__ import annotations

from typing import Any

from bench.clients.sides import Load, OneBroker, times, work
from bench.clients.task import Task
from bench.harness import Case, Goal, Options, Sample, Side

_AT_MOST_US = 50_000
_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "ottla": ("ottla", {"auto_offset_reset": "earliest"}),
    "confluent": ("confluent", {"auto.offset.reset": "earliest"}),
    "confluent, consumer protocol": (
        "confluent",
        {"auto.offset.reset": "earliest", "group.protocol": "consumer"},
    ),
    "aiokafka": ("aiokafka", {"auto_offset_reset": "earliest"}),
}


def cases(options: Options) -> list[Case]:
    """Return the case."""
    broker = OneBroker(options)
    groups = options.count(20, 5)
    return [
        Case(
            "G1",
            "subscribe in a new group until its first record",
            [_side(broker, name, groups) for name in _SETTINGS],
            [Goal("p50 us", "ottla", at_most=_AT_MOST_US)],
            during=broker.running,
        )
    ]


def _side(broker: OneBroker, name: str, groups: int) -> Side:
    client, settings = _SETTINGS[name]

    def run(_: int) -> Sample:
        topic = broker.filled(Load(1))
        task = Task(broker.address, topic, groups, settings=settings, broker_pid=broker.pid)
        result = work(client, "first_of_groups", task)
        broker.delete(topic)
        return Sample(times(result.taken_us))

    return Side(name, run, {key: str(value) for key, value in settings.items()})
