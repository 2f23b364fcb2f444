"""B5 and B6: how long the first things take, and how much memory a gigabyte leaves behind.

B5 starts a broker on a store that was stopped cleanly, and runs the clock from just before its
process is started until the first message is confirmed, which is sent when the broker says that it
is ready. Then a gigabyte is sent through it, and its resident memory is read. B6 runs whole
processes, from their start to their exit, beside a bare interpreter. The modules have been compiled
by then, as they are wherever something has been run once.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path

from bench import brokers, serving
from bench.brokers import KAFKA, OTTLA
from bench.harness import Case, Goal, NotRun, Options, Sample, Side
from bench.loads import bulk
from bench.peer import Peer, frame_of
from bench.serving import Serving
from ottla import Admin
from ottla.protocol.codec import decode
from ottla.protocol.messages.api_00_produce import ProduceRequest, ProduceResponse
from ottla.records.builder import batch_of

_PRODUCE_VERSION = 8
_TOPIC = "first"
_MEGABYTES = 1000
_START_TIMEOUT_S = 120.0
_AT_MOST_TIME = 1 / 20
_AT_MOST_MEMORY = 1 / 8
_SEND_MS, _IMPORT_MS = 150.0, 60.0
_CLI = "from ottla.cli.main import main; main()"
_BARE, _IMPORT, _SEND = "python -c pass", "import ottla", "ottla send"
_COMMANDS = {
    _BARE: ("-c", "pass"),
    _IMPORT: ("-c", "import ottla"),
    "import Producer": ("-c", "from ottla import Producer"),
    "ottla --help": ("-c", _CLI, "--help"),
    _SEND: ("-c", _CLI, "send", "topic1", "Hello Kafka"),
}
_RUNS = 5
"""Of each command in a round; the median counts."""

Start = Callable[[Path], AbstractContextManager[Serving]]


def cases(options: Options) -> list[Case | NotRun]:
    """Return the cases."""
    return [_starts(options), _commands(options)]


def _starts(options: Options) -> Case:
    megabytes = options.count(_MEGABYTES)
    settings = {"then": f"{megabytes} batches of 1 MB, one connection, 5 under way"}

    def start_kafka(folder: Path) -> AbstractContextManager[Serving]:
        return serving.kafka(folder, brokers.jars_of(options))

    starts: dict[str, Start] = {OTTLA: serving.ottla, KAFKA: start_kafka}
    folders: dict[str, Path] = {}

    def run(name: str, _: int) -> Sample:
        start = starts[name]
        if name not in folders:
            folder = options.new_folder("starting") / "store"
            with start(folder) as broker, Admin(broker.address) as admin:
                admin.create_topic(_TOPIC, 1)
                _first(broker)
            folders[name] = folder
        begun = time.perf_counter()
        with start(folders[name]) as broker:
            _first(broker)
            first_s = time.perf_counter() - begun
            first_mb = broker.process.resident_mb()
            return _through(broker, megabytes, {"first s": first_s, "first MB": first_mb})

    return Case(
        "B5",
        f"start to the first confirmed message; memory after {megabytes / 1000:g} GB",
        [Side(name, partial(run, name), settings) for name in (OTTLA, KAFKA)],
        [
            Goal("first s", OTTLA, KAFKA, at_most=_AT_MOST_TIME),
            Goal("resident MB", OTTLA, KAFKA, at_most=_AT_MOST_MEMORY),
        ],
        is_quick=True,
    )


def _first(broker: Serving) -> None:
    """Send a message, and wait until it is confirmed."""
    batch = batch_of([(None, b"first")], time.time_ns() // 1_000_000)
    data = ProduceRequest.PartitionProduceData(index=0, records=batch)
    topic = ProduceRequest.TopicProduceData(name=_TOPIC, partition_data=[data])
    request = ProduceRequest(acks=-1, timeout_ms=60_000, topic_data=[topic])
    with closing(Peer(broker.address, _START_TIMEOUT_S)) as peer:
        while True:
            peer.socket.sendall(frame_of(request, _PRODUCE_VERSION))
            response = decode(ProduceResponse, peer.receive_frame()[4:], _PRODUCE_VERSION)
            error = response.responses[0].partition_responses[0].error_code
            if error == 0:
                return
            assert error in bulk.NOT_YET, f"error {error}"
            time.sleep(0.001)


def _through(broker: Serving, megabytes: int, figures: dict[str, float]) -> Sample:
    """Send so much, and return what the broker has then."""
    with Admin(broker.address) as admin:
        admin.create_topic("through", 1)
    load = {"address": broker.address, "topic": "through", "partitions": 1, "batches": megabytes}
    outcome, sample = brokers.apply(broker, bulk.MODULE, [load], lambda _: figures)
    sample.figures["resident MB"] = broker.process.resident_mb()
    proven = brokers.proven(sample, broker, "through", outcome)
    with Admin(broker.address) as admin:
        admin.delete_topic("through")
    return proven


def _commands(options: Options) -> Case:
    folders: list[Path] = []

    def run(name: str, _: int) -> Sample:
        if not folders:
            folders.append(options.new_folder("commands"))
            for command in _COMMANDS.values():
                _run_ms(command, folders[0])
        taken = [_run_ms(_COMMANDS[name], folders[0]) for _ in range(_RUNS)]
        return Sample({"ms": statistics.median(taken)})

    return Case(
        "B6",
        "whole processes, from start to exit",
        [Side(name, partial(run, name)) for name in _COMMANDS],
        [Goal("ms", _SEND, at_most=_SEND_MS), Goal("ms", _IMPORT, at_most=_IMPORT_MS)],
        is_quick=True,
    )


def _run_ms(command: tuple[str, ...], folder: Path) -> float:
    """Run a process in a folder, and return how long it took."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=serving.users_environment(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return (time.perf_counter() - start) * 1000
