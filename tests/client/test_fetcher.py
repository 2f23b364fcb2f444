"""What a consumer makes of an answer, from a log that a real Kafka wrote transactions into."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ottla.client.config import ConsumerConfig
from ottla.client.fetcher import Fetcher, PartitionState, RecordList
from ottla.client.lookup import EARLIEST, Lookup, TopicPartition
from ottla.errors import BrokerUnavailable
from ottla.protocol.messages.api_01_fetch import FetchResponse
from ottla.records.columns_builder import ColumnsBuilder
from ottla.records.record import Record
from ottla.wire.memory import Memory
from tests.client.scripted import Script

SEGMENTS = Path(__file__).parents[1] / "data" / "segments"
EXPECTED = json.loads((SEGMENTS / "goldtx-expected.json").read_text())
# Offsets 3, 7 and 11 are markers; the transaction of 4 to 6 was aborted.
PRODUCER_OF_ABORTED = int.from_bytes(
    (SEGMENTS / "goldtx-0" / "00000000000000000000.txnindex").read_bytes()[2:10], "big"
)


in_both_forms = pytest.mark.parametrize("columns", [False, True], ids=["records", "columns"])


def answered(size: int | None = None) -> PartitionState:
    state = PartitionState(TopicPartition("goldtx", 0))
    state.seek(0)
    data = (SEGMENTS / "goldtx-0" / "00000000000000000000.log").read_bytes()
    aborted = FetchResponse.AbortedTransaction(producer_id=PRODUCER_OF_ABORTED, first_offset=4)
    state.add(
        FetchResponse.PartitionData(
            records=data[:size], high_watermark=12, aborted_transactions=[aborted]
        )
    )
    return state


def taken(
    state: PartitionState, *, committed_only: bool, at_once: int = 100, columns: bool = False
) -> list[Record]:
    records: list[Record] = []
    while True:
        into = ColumnsBuilder(Memory(0)) if columns else RecordList()
        state.take(into, at_once, committed_only=committed_only)
        if isinstance(into, RecordList):
            found = into.records
        else:
            into.end_run(*state.where)
            found = list(into.finish().records())
        if not found:
            return records
        records += found


@in_both_forms
@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_read_uncommitted_gives_everything_but_the_markers(at_once: int, columns: bool) -> None:
    state = answered()
    records = taken(state, committed_only=False, at_once=at_once, columns=columns)
    assert [(each.offset, each.value.decode()) for each in records] == [
        (each["offset"], each["value"]) for each in EXPECTED
    ]
    assert state.position == 12


@in_both_forms
@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_read_committed_leaves_out_what_was_aborted(at_once: int, columns: bool) -> None:
    state = answered()
    records = taken(state, committed_only=True, at_once=at_once, columns=columns)
    assert [each.offset for each in records] == [
        each["offset"] for each in EXPECTED if each["committed"]
    ]
    assert state.position == 12


def test_a_batch_that_is_cut_off_at_the_end_of_an_answer_is_left_for_the_next() -> None:
    whole = len((SEGMENTS / "goldtx-0" / "00000000000000000000.log").read_bytes())
    state = answered(whole - 5)
    records = taken(state, committed_only=False)
    assert records[-1].offset == 10
    assert state.fetch_offset == 11


@in_both_forms
def test_reading_begins_in_the_middle_of_a_batch(columns: bool) -> None:
    state = answered()
    state.position = 5
    records = taken(state, committed_only=False, columns=columns)
    assert [each.offset for each in records] == [5, 6, 8, 9, 10]


@pytest.mark.parametrize("what", ["fetch", "lookup"])
def test_a_connection_that_is_found_gone_while_partitions_are_looked_at_is_no_error(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(partitions=2, linger_ms=0)
    script.settle()
    cluster, clock = script.core.cluster, script.clock
    partitions = [TopicPartition("t", number) for number in range(2)]
    answers = iter([None, BrokerUnavailable("gone")])
    monkeypatch.setattr(script.network.channels[-1], "why_gone", lambda: next(answers))
    if what == "fetch":
        fetcher = Fetcher(ConsumerConfig(), cluster, clock)
        fetcher.assign(partitions, None)
        for state in fetcher.partitions.values():
            state.seek(0)
        fetcher.step()
    else:
        Lookup(cluster, clock, dict.fromkeys(partitions, EARLIEST), 0, 100).step(1e9)
    assert len(script.network.calls) == 1
    script.lose()
