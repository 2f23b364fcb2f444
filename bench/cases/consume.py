"""C6, C7: how fast clients read a topic that librdkafka has written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from bench.clients.sides import Filled, Load, OneBroker, consume_side
from bench.harness import Case, Goal, NotRun, Options
from ottla import Consumer

RECORDS = "records/s"
OTTLA, CONFLUENT, AIOKAFKA = "ottla iterate", "confluent consume", "aiokafka getmany"
KAFKA_PYTHON = "kafka-python poll"
COLUMNS, ARROW = "ottla poll_batch", "ottla to_arrow"

_SLOW = 10
_COLUMNS_TITLE = "consume 100 B as columns"


def cases(options: Options) -> list[Case | NotRun]:
    """Return the cases."""
    load = Load(options.count(2_000_000, 300_000))
    return [_records(options, load), _columns(options, load)]


def _records(options: Options, load: Load) -> Case:
    broker = OneBroker(options)
    filled, slow = Filled(load), Filled(load.fewer(_SLOW))
    sides = [
        consume_side(broker, filled, "ottla", OTTLA),
        consume_side(broker, filled, "confluent", CONFLUENT),
        consume_side(broker, filled, "aiokafka", AIOKAFKA),
    ]
    if not options.is_quick:
        sides.append(consume_side(broker, slow, "kafka_python", KAFKA_PYTHON))
    return Case(
        "C6",
        "consume 100 B, every value touched",
        sides,
        [
            Goal(RECORDS, OTTLA, CONFLUENT, at_least=5),
            Goal(RECORDS, OTTLA, AIOKAFKA, at_least=5),
        ],
        during=_filling(broker, [filled] if options.is_quick else [filled, slow]),
        is_quick=True,
    )


def _columns(options: Options, load: Load) -> Case | NotRun:
    if not hasattr(Consumer, "poll_batch"):
        return NotRun("C7", _COLUMNS_TITLE, "Consumer has no poll_batch yet")
    broker = OneBroker(options)
    filled = Filled(load)
    return Case(
        "C7",
        _COLUMNS_TITLE,
        [
            consume_side(broker, filled, "ottla", COLUMNS, "consume_columns"),
            consume_side(broker, filled, "ottla", ARROW, "consume_arrow"),
            consume_side(broker, filled, "confluent", CONFLUENT),
        ],
        [
            Goal(RECORDS, COLUMNS, CONFLUENT, at_least=30),
            Goal(RECORDS, ARROW, CONFLUENT, at_least=30),
        ],
        during=_filling(broker, [filled]),
        is_quick=True,
    )


def _filling(
    broker: OneBroker, topics: list[Filled]
) -> Callable[[], AbstractContextManager[object]]:
    """Return what serves while the case runs, with topics to be read."""

    @contextlib.contextmanager
    def running() -> Iterator[None]:
        with broker.running():
            for each in topics:
                each.topic = broker.filled(each.load)
            yield

    return running
