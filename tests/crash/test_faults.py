"""Each step of the scripted workload fails once: a part of them.

All of them: `python -m tests.crash`.
"""

from __future__ import annotations

import errno

import pytest

from ottla.clock import ManualClock
from ottla.errors import codes
from ottla.protocol.messages.api_01_fetch import FetchRequest
from tests.crash.faults import KINDS, run
from tests.crash.faulty_files import Fault, FaultyFiles
from tests.crash.lives import NOW_MS, Life, batch
from tests.crash.promises import Book, Partition, Sent, Topic


@pytest.mark.slow
@pytest.mark.parametrize("what", KINDS)
def test_nothing_but_refusals_comes_of_a_fault(what: str) -> None:
    row, problems = run(what, full=False)
    assert row.is_good, "\n".join([str(row), *problems[:5]])


def test_a_partition_that_cannot_be_read_is_refused_alone() -> None:
    files = FaultyFiles()
    book = Book()
    life = Life(files, ManualClock(NOW_MS), book)
    outcome = life.engine.create_topic("t", 2, {})
    assert outcome.topic is not None
    topic_id = outcome.topic.topic_id
    book.topics[topic_id] = Topic("t", {0: Partition(), 1: Partition()})
    for number in (0, 1):
        data = batch(number, [Sent(None, b"%d" % number)], timestamp_ms=NOW_MS)
        assert life.produce(topic_id, number, data) == (codes.NONE, 0)
    partitions = [
        FetchRequest.FetchPartition(partition=number, partition_max_bytes=1000) for number in (0, 1)
    ]
    topics = [FetchRequest.FetchTopic(topic_id=topic_id, partitions=partitions)]
    request = FetchRequest(max_bytes=1000, min_bytes=0, topics=topics)
    files.fault = Fault(files.steps + 1, errno.EIO)
    first, second = life.ask(request).responses[0].partitions
    assert files.fault.hit.startswith("read store/t-0/")
    assert (first.error_code, second.error_code) == (codes.KAFKA_STORAGE_ERROR, codes.NONE)
    assert second.records
    first, second = life.ask(request).responses[0].partitions
    assert (first.error_code, second.error_code) == (codes.NONE, codes.NONE)
