"""C1, C2, C3, C9: how fast clients send, to the same `ottla serve` with durability `os`."""

from __future__ import annotations

from bench.clients.sides import Load, OneBroker
from bench.harness import Case, Goal, Options

RECORDS = "records/s"
MB = "MB/s"
OTTLA, CONFLUENT, AIOKAFKA = "ottla send", "confluent produce", "aiokafka send"
MANY, AIOKAFKA_MANY = "ottla send_many", "aiokafka batches"
CONFLUENT_MANY, KAFKA_PYTHON = "confluent produce_batch", "kafka-python send"

_CODECS = {"gzip": 1.0, "snappy": 1.0, "lz4": 1.5, "zstd": 1.5}
_SLOW = 10
"""The clients that are pure Python for each record send a tenth."""


def cases(options: Options) -> list[Case]:
    """Return the cases."""
    small = Load(options.count(2_000_000, 300_000))
    large = Load(options.count(500_000, 80_000), value_bytes=1000)
    document = Load(options.count(500_000, 80_000), value_bytes=200, kind="json")
    return [
        _one_by_one(options, small),
        _many(options, small),
        _large(options, large),
        *(_compressed(options, document, codec) for codec in _CODECS),
    ]


def _one_by_one(options: Options, load: Load) -> Case:
    broker = OneBroker(options)
    sides = [
        broker.produce_side("ottla", OTTLA, load),
        broker.produce_side("confluent", CONFLUENT, load),
    ]
    if not options.is_quick:
        sides += [
            broker.produce_side("aiokafka", AIOKAFKA, load.fewer(_SLOW)),
            broker.produce_side("kafka_python", KAFKA_PYTHON, load.fewer(_SLOW)),
        ]
    return Case(
        "C1",
        "produce 100 B, one by one",
        sides,
        [Goal(RECORDS, OTTLA, CONFLUENT, at_least=5)],
        during=broker.running,
        is_quick=True,
    )


def _many(options: Options, load: Load) -> Case:
    broker = OneBroker(options)
    sides = [
        broker.produce_side("ottla", MANY, load, "produce_many"),
        broker.produce_side("confluent", CONFLUENT, load),
        broker.produce_side("aiokafka", AIOKAFKA_MANY, load, "produce_many"),
    ]
    if not options.is_quick:
        sides.append(broker.produce_side("confluent", CONFLUENT_MANY, load, "produce_many"))
    return Case(
        "C2",
        "produce 100 B, many at once",
        sides,
        [
            Goal(RECORDS, MANY, CONFLUENT, at_least=10),
            Goal(RECORDS, MANY, AIOKAFKA_MANY, at_least=5),
        ],
        during=broker.running,
        is_quick=True,
    )


def _large(options: Options, load: Load) -> Case:
    broker = OneBroker(options)
    return Case(
        "C3",
        "produce 1 KB, one by one",
        [
            broker.produce_side("ottla", OTTLA, load),
            broker.produce_side("confluent", CONFLUENT, load),
        ],
        [Goal(MB, OTTLA, CONFLUENT, at_least=3)],
        during=broker.running,
        is_quick=True,
    )


def _compressed(options: Options, load: Load, codec: str) -> Case:
    broker = OneBroker(options)
    packed = Load(load.count, load.value_bytes, load.kind, codec)
    return Case(
        "C9",
        f"produce 200 B of JSON, {codec}",
        [
            broker.produce_side("ottla", OTTLA, packed),
            broker.produce_side("confluent", CONFLUENT, packed),
        ],
        [Goal(RECORDS, OTTLA, CONFLUENT, at_least=_CODECS[codec])],
        during=broker.running,
        is_quick=codec in ("lz4", "zstd"),
    )
