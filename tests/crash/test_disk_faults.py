"""Disks that are full, read-only, gone or unreadable, under a broker that goes on serving.

A few cycles of what `disk_faults` mounts; `python -m tests.crash` runs many. What needs no mount is
run as it is.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest

import ottla.log.files as files_module
from ottla.clock import ManualClock
from ottla.errors import codes
from ottla.protocol.messages.api_01_fetch import FetchRequest
from tests.crash.disk_faults import Store, full_disk, read_only_disk
from tests.crash.process import BrokerProcess, DidNotStart
from tests.crash.report import Row, table
from tests.crash.system_workload import ByHand

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="a process is looked at in Linux's /proc"
    ),
]


def check(row: Row) -> None:
    if row.skipped:
        pytest.skip(row.skipped)
    assert row.is_good, table([row])


def test_a_full_disk_refuses_writes_serves_reads_and_goes_on_by_itself_when_there_is_room() -> None:
    check(full_disk(full=False))


def test_a_disk_that_becomes_read_only_refuses_writes_serves_reads_and_has_lost_nothing() -> None:
    check(read_only_disk(full=False))


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return tmp_path / "said"


def test_a_store_that_is_removed_under_a_broker_confirms_nothing_more(
    tmp_path: Path, said: Path
) -> None:
    store = Store(said)
    with store.on(tmp_path):
        store.begin()
        assert store.fill(5, 100) is None
        shutil.rmtree(tmp_path / "store")
        store.refuses("somebody has removed it")
        store.is_quiet()
        assert store.broker.stop() != 0
    assert "Traceback" not in said.read_text()
    assert not store.problems, store.problems


def test_what_is_confirmed_in_a_store_that_was_renamed_is_there_under_its_new_name(
    tmp_path: Path, said: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    store = Store(said)
    with store.on(tmp_path):
        store.begin()
        assert store.fill(5) is None
        (tmp_path / "store").rename(elsewhere / "store")
        store.refuses("No such file or directory")
        store.is_quiet()
        assert store.broker.stop() != 0
    with store.on(elsewhere):
        store.broker.start()
        store.compare()
        store.goes_on()
        assert store.broker.stop() == 0
    assert "Traceback" not in said.read_text()
    assert not store.problems, store.problems


def test_a_partition_that_cannot_be_read_says_so_and_the_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_at = files_module._read_at

    def fail(descriptor: int, size: int, position: int) -> bytes:
        if "/a-0/" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_at(descriptor, size, position)

    broker = ByHand(str(tmp_path), ManualClock())
    broker.create("a")
    broker.send("a", [(partition, partition, "k", 0) for partition in range(3)])
    with monkeypatch.context() as patch:
        patch.setattr(files_module, "_read_at", fail)
        assert fetched(broker, "a") == [codes.KAFKA_STORAGE_ERROR, codes.NONE, codes.NONE]
    assert fetched(broker, "a") == [codes.NONE] * 3
    broker.close()


def fetched(broker: ByHand, name: str) -> list[int]:
    asked = [
        FetchRequest.FetchPartition(partition=partition, partition_max_bytes=1 << 20)
        for partition in range(3)
    ]
    topic_id = broker.engine.cluster.topics[name].topic_id
    topic = FetchRequest.FetchTopic(topic_id=topic_id, partitions=asked)
    response = broker.ask(FetchRequest(max_bytes=1 << 20, topics=[topic]))
    return [each.error_code for each in response.responses[0].partitions]


def test_a_second_broker_is_told_who_has_the_store(tmp_path: Path, said: Path) -> None:
    store = Store(said)
    with store.on(tmp_path):
        store.broker.start()
        second = BrokerProcess(tmp_path / "store", tmp_path / "second", {})
        with pytest.raises(DidNotStart) as refused:
            second.start()
        assert store.broker.address in str(refused.value)
        assert str(store.broker.pid) in str(refused.value)
        assert store.broker.stop() == 0
