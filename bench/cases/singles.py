"""C4, C5: how long one record takes until it is confirmed, over TCP and in an embedded store."""

from __future__ import annotations

import shutil
from dataclasses import replace

from bench.clients.settings import SINGLE
from bench.clients.sides import Load, OneBroker, read_all, sample_of, times, work
from bench.clients.task import Task
from bench.harness import Case, Goal, Options, Sample, Side
from bench.machine import sync_times_ms

P50, P99 = "p50 us", "p99 us"
OTTLA, CONFLUENT = "ottla", "confluent"
EMBEDDED_OS, EMBEDDED_DISK = "embedded, os", "embedded, disk"
OVER_TCP, SYNC = "over TCP, os", "fdatasync"

_ALLOWANCE_US = 30.0


def cases(options: Options) -> list[Case]:
    """Return the cases."""
    load = Load(options.count(5000, 1000))
    broker = OneBroker(options)
    over_tcp = Case(
        "C4",
        "send + flush of one record over TCP",
        [
            broker.single_side("ottla", OTTLA, load),
            broker.single_side("confluent", CONFLUENT, load),
        ],
        [
            Goal(P50, OTTLA, CONFLUENT, at_most=1.0),
            Goal(P99, OTTLA, CONFLUENT, at_most=1.0),
        ],
        during=broker.running,
        is_quick=True,
    )
    broker = OneBroker(options)
    embedded = Case(
        "C5",
        "send + flush of one record, embedded",
        [
            embedded_side(options, EMBEDDED_OS, "os", load),
            embedded_side(options, EMBEDDED_DISK, "disk", load),
            broker.single_side("ottla", OVER_TCP, load),
            sync_side(options),
        ],
        [
            Goal(P50, EMBEDDED_OS, OVER_TCP, at_most=0.25),
            Goal(P50, EMBEDDED_DISK, SYNC, at_most=1.0, allowance=_ALLOWANCE_US),
        ],
        during=broker.running,
        is_quick=True,
    )
    return [over_tcp, embedded]


def embedded_side(options: Options, name: str, durability: str, load: Load) -> Side:
    """Return a side that sends record after record to a store of its own process."""
    settings = SINGLE["ottla"]

    def run(_: int) -> Sample:
        folder = options.new_folder("embedded")
        count, size, kind = load.count, load.value_bytes, load.kind
        task = Task(str(folder), "bench", count, size, kind, settings, durability=durability)
        result = work("ottla", "singles", task)
        sample = sample_of(load, result, read_all(str(folder), "bench"))
        shutil.rmtree(folder)
        figures = times(result.taken_us)
        return replace(sample, figures=figures, broker_cpu_s=None, broker_peak_mb=None)

    return Side(name, run, {"durability": durability, "records": f"{load.count:,}"})


def sync_side(options: Options) -> Side:
    """Return a side that only makes blocks durable: what the disk itself takes."""

    def run(_: int) -> Sample:
        folder = options.new_folder("synced")
        return Sample(times([each * 1000 for each in sync_times_ms(folder)]))

    return Side(SYNC, run, {"block": "4 KiB, appended"})
