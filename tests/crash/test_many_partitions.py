"""Far more partitions than the broker may have open files.

2,000 partitions and 256 descriptors; OTTLA_PARTITIONS=10000 makes it 10,000, and 1,024 descriptors
for them. How long the starts took and how much memory the broker has is told: `pytest -s`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from ottla import Admin, Consumer, Producer
from tests.compat import serving as serving_module
from tests.compat.serving import Serving

PARTITIONS = int(os.environ.get("OTTLA_PARTITIONS", "2000"))
DESCRIPTORS = 1024 if PARTITIONS >= 10_000 else 256
TIMEOUT_S = 300 if PARTITIONS >= 10_000 else 60
SERVE_WITH_FEW = (
    "import resource, sys; "
    f"resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS})); "
    "from ottla.cli.main import main; main()"
)


def tell(text: str) -> None:
    sys.stdout.write(f"\n{text}")


def start(serving: Serving, after: str) -> None:
    begin = time.perf_counter()
    serving.start()
    taken = time.perf_counter() - begin
    assert limit_of(serving) == DESCRIPTORS
    tell(f"started in {taken:.2f} s after {after}: {resident(serving)}")


def process_file(serving: Serving, name: str) -> list[str]:
    pid = json.loads((serving.folder / ".owner").read_text())["pid"]
    return Path(f"/proc/{pid}/{name}").read_text().splitlines()


def limit_of(serving: Serving) -> int:
    lines = process_file(serving, "limits")
    return next(int(line.split()[3]) for line in lines if line.startswith("Max open files"))


def resident(serving: Serving) -> str:
    lines = process_file(serving, "status")
    used = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return f"{used / 1024:.0f} MiB resident"


def produce_to_all(serving: Serving, run: int) -> dict[tuple[int, int], bytes]:
    """Send a record to each partition, and return what was confirmed by (partition, offset)."""
    settings = {"request_timeout_ms": TIMEOUT_S * 1000, "delivery_timeout_ms": TIMEOUT_S * 1000}
    with Producer(serving.address, **settings) as producer:
        sent = {
            partition: producer.send("many", value_of(partition, run), partition=partition)
            for partition in range(PARTITIONS)
        }
        producer.flush()
    assert all(each.state == "stored" for each in sent.values())
    found: dict[tuple[int, int], bytes] = {}
    for partition, each in sent.items():
        assert each.offset is not None
        found[partition, each.offset] = value_of(partition, run)
    return found


def value_of(partition: int, run: int) -> bytes:
    return b"%d of partition %d" % (run, partition)


def read_all(serving: Serving) -> dict[tuple[int, int], bytes]:
    with Consumer(serving.address, "many", stop_at_end=True) as consumer:
        return {(record.partition, record.offset): record.value for record in consumer}


@pytest.mark.slow
@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits and memory are read from Linux's /proc"
)
def test_all_of_many_partitions_are_written_and_read_with_few_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_module, "COMMAND", (sys.executable, "-c", SERVE_WITH_FEW))
    serving = Serving(tmp_path / "store")
    try:
        start(serving, "nothing")
        with Admin(serving.address, timeout=TIMEOUT_S) as admin:
            admin.create_topic("many", PARTITIONS)
        confirmed = produce_to_all(serving, 0)
        assert serving.stop() == 0
        start(serving, "a clean stop")
        assert read_all(serving) == confirmed
        confirmed |= produce_to_all(serving, 1)
        tell(f"everything written: {resident(serving)}")
        serving.stop(signal.SIGKILL)
        start(serving, "kill -9")
        assert read_all(serving) == confirmed
        tell(f"everything read: {resident(serving)}")
    finally:
        serving.stop()
    assert len(confirmed) == 2 * PARTITIONS
