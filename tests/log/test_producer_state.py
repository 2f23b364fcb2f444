"""Idempotent producers: what is new, what was there before, and what is out of order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.errors import CorruptLog, codes
from ottla.log.producer_state import BATCHES_REMEMBERED, Duplicate, ProducerState
from ottla.records.batch import BatchHeader, read_header
from tests.log.writing import NOW, batch

SEQUENCE_MAX = 2**31 - 1


def header(
    sequence: int, count: int = 1, *, epoch: int = 0, producer_id: int = 7, timestamp_ms: int = NOW
) -> BatchHeader:
    producer = (producer_id, epoch, sequence)
    return read_header(batch(*[b"v"] * count, timestamp_ms=timestamp_ms, producer=producer))


def state_after(*headers: BatchHeader) -> ProducerState:
    """Return the state after batches that were appended one behind the other from offset 0."""
    state = ProducerState()
    offset = 0
    for each in headers:
        state.update(each, offset)
        offset += each.records_count
    return state


def test_the_next_sequence_is_taken_and_no_other() -> None:
    state = state_after(header(0, 3))
    assert state.check(header(3)) == codes.NONE
    for sequence in (1, 2, 4, SEQUENCE_MAX):
        assert state.check(header(sequence)) == codes.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_producer_that_is_not_known_may_begin_anywhere() -> None:
    assert ProducerState().check(header(41)) == codes.NONE


def test_producers_do_not_concern_each_other() -> None:
    state = state_after(header(0, 3))
    assert state.check(header(0, 3, producer_id=8)) == codes.NONE


def test_a_batch_that_was_appended_is_answered_with_its_old_offsets() -> None:
    sent = [header(0, 3), header(3), header(4, 2)]
    state = state_after(*sent)
    assert [state.check(each) for each in sent] == [
        Duplicate(0, 2, NOW),
        Duplicate(3, 3, NOW),
        Duplicate(4, 5, NOW),
    ]
    # The same first sequence with other records behind it is not the same batch.
    assert state.check(header(0, 2)) == codes.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_only_the_last_batches_are_known_as_duplicates() -> None:
    sent = [header(number) for number in range(BATCHES_REMEMBERED + 1)]
    state = state_after(*sent)
    assert state.check(sent[0]) == codes.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert all(isinstance(state.check(each), Duplicate) for each in sent[1:])


def test_sequences_begin_again_behind_the_largest() -> None:
    state = state_after(header(SEQUENCE_MAX))
    assert state.check(header(0)) == codes.NONE
    assert state.check(header(1)) == codes.OUT_OF_ORDER_SEQUENCE_NUMBER
    over = header(SEQUENCE_MAX - 1, 4)
    state = state_after(over)
    assert state.check(over) == Duplicate(0, 3, NOW)
    assert state.check(header(2)) == codes.NONE


def test_a_new_epoch_begins_at_zero_and_ends_the_one_before() -> None:
    state = state_after(header(0, 3))
    assert state.check(header(3, epoch=1)) == codes.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert state.check(header(0, epoch=1)) == codes.NONE
    state.update(header(0, epoch=1), 3)
    assert state.check(header(3)) == codes.INVALID_PRODUCER_EPOCH
    assert state.check(header(0, 3)) == codes.INVALID_PRODUCER_EPOCH
    assert state.check(header(0, epoch=1)) == Duplicate(3, 3, NOW)


def test_batches_without_a_producer_are_not_remembered() -> None:
    state = state_after(read_header(batch(b"v")))
    assert len(state) == 0


def test_producers_that_are_silent_for_long_are_forgotten() -> None:
    state = state_after(header(0, timestamp_ms=NOW), header(0, producer_id=8, timestamp_ms=NOW + 1))
    state.expire(NOW + 100, 100)
    assert len(state) == 2
    state.expire(NOW + 101, 100)
    assert state.get(7) is None
    assert state.get(8) is not None


def test_a_snapshot_brings_back_the_last_batches_of_each() -> None:
    state = state_after(header(0, 3), header(3, 2), header(SEQUENCE_MAX, 2, producer_id=8))
    again = ProducerState.load(state.snapshot(), "s")
    assert again.snapshot() == state.snapshot()
    assert again.check(header(3, 2)) == Duplicate(3, 4, NOW)
    assert again.check(header(5)) == codes.NONE
    assert again.check(header(0, 3)) == Duplicate(0, 2, NOW)
    assert again.check(header(2)) == codes.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert again.check(header(SEQUENCE_MAX, 2, producer_id=8)) == Duplicate(5, 6, NOW)
    assert again.check(header(1, producer_id=8)) == codes.NONE


SNAPSHOT = state_after(header(0, 3), header(0, producer_id=8)).snapshot()


@pytest.mark.parametrize("size", range(len(SNAPSHOT)))
def test_a_snapshot_that_is_cut_off_is_refused(size: int) -> None:
    with pytest.raises(CorruptLog) as caught:
        ProducerState.load(SNAPSHOT[:size], "folder/9.snapshot")
    assert caught.value.path == "folder/9.snapshot"


@pytest.mark.parametrize("at", range(len(SNAPSHOT)))
def test_a_snapshot_with_a_flipped_bit_is_refused(at: int) -> None:
    damaged = bytearray(SNAPSHOT)
    damaged[at] ^= 0x10
    with pytest.raises(CorruptLog):
        ProducerState.load(bytes(damaged), "s")


@given(st.binary(max_size=200))
def test_no_bytes_are_taken_for_a_snapshot_that_are_none(content: bytes) -> None:
    with pytest.raises(CorruptLog):
        ProducerState.load(content, "s")
    with pytest.raises(CorruptLog):
        ProducerState.load(b"\0\1" + content, "s")


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.data())
def test_whatever_is_sent_again_stands_there_once(counts: list[int], data: st.DataObject) -> None:
    """A client sends batches in order, and any of the last five again at any time."""
    state = ProducerState()
    sent: list[BatchHeader] = []
    offsets: list[int] = []
    sequence = offset = 0
    for count in counts:
        new = header(sequence, count)
        assert state.check(new) == codes.NONE
        state.update(new, offset)
        sent.append(new)
        offsets.append(offset)
        sequence += count
        offset += count
        back = data.draw(st.integers(1, min(len(sent), BATCHES_REMEMBERED)))
        again = state.check(sent[-back])
        assert isinstance(again, Duplicate)
        assert again.base_offset == offsets[-back]
