"""The history checker, with a history by hand for everything that may be wrong."""

from __future__ import annotations

from tests.crash.history import FAIL, INFO, OK, Found, History, Poll, Send, Verdict, judge

PLACE = ("t", 0)


def sent(number: int, offset: int = -1, outcome: str = OK, producer: str = "p") -> Send:
    """Return a send of the value `number`."""
    return Send(producer, PLACE, b"%d" % number, None, outcome, offset)


def found(*numbers: int, at: int = 0) -> list[Found]:
    """Return values as they were read side by side."""
    return [Found(at + index, b"%d" % number) for index, number in enumerate(numbers)]


def polled(*numbers: int, at: int = 0, consumer: str = "c") -> Poll:
    return Poll(consumer, PLACE, found(*numbers, at=at))


def judged(sends: list[Send], at_end: list[Found], *polls: Poll, start: int = 0) -> Verdict:
    return judge(History(sends, list(polls), {PLACE: at_end}, {PLACE: start}))


def counts(sends: list[Send], at_end: list[Found], *polls: Poll, start: int = 0) -> dict[str, int]:
    return dict(judged(sends, at_end, *polls, start=start).counts)


def test_nothing_is_wrong_with_a_history_in_which_all_went_well() -> None:
    sends = [sent(0, 0), sent(1, 1), sent(2, outcome=INFO), sent(3, outcome=FAIL), sent(4, 2)]
    verdict = judged(sends, found(0, 1, 4), polled(0, 1), polled(4, at=2))
    assert not verdict.counts
    assert verdict.acknowledged == 3


def test_what_nobody_knows_the_outcome_of_may_be_there_in_any_order() -> None:
    sends = [sent(0, outcome=INFO), sent(1, 0), sent(2, outcome=INFO)]
    assert counts(sends, found(1, 0)) == {}


def test_an_acknowledged_record_is_lost_where_what_came_later_is_there() -> None:
    sends = [sent(0, 0), sent(1, 1), sent(2, 2)]
    assert counts(sends, [found(0)[0], *found(2, at=2)]) == {"lost": 1}


def test_an_acknowledged_record_is_unseen_where_nothing_from_there_on_was_read() -> None:
    assert counts([sent(0, 0), sent(1, 1)], found(0)) == {"unseen": 1}
    assert counts([sent(0, 0)], []) == {"unseen": 1}


def test_an_acknowledged_record_that_was_read_before_is_lost_and_not_taken_back_as_well() -> None:
    assert counts([sent(0, 0), sent(1, 1)], found(0), polled(0, 1)) == {"unseen": 1}


def test_an_acknowledged_record_without_an_offset_is_lost_where_it_is_nowhere() -> None:
    assert counts([sent(0), sent(1, 0)], found(1)) == {"lost": 1}
    assert counts([sent(0), sent(1, 1)], found(0, 1)) == {}


def test_a_record_that_a_consumer_was_given_and_that_is_gone_was_taken_back() -> None:
    sends = [sent(0, 0), sent(1, outcome=INFO)]
    verdict = judged(sends, found(0), polled(0, 1), polled(1, at=1, consumer="another"))
    assert dict(verdict.counts) == {"taken back": 1}
    assert verdict.lost == 1


def test_one_value_at_two_offsets_is_a_duplicate() -> None:
    assert counts([sent(0, 0), sent(1, 1)], found(0, 1, 0)) == {"duplicate": 1}
    assert counts([sent(0, outcome=INFO)], found(0, 0)) == {"duplicate": 1}


def test_a_value_that_was_acknowledged_elsewhere_is_lost_there_and_a_duplicate() -> None:
    assert counts([sent(0, 0), sent(1, 2)], found(0, 1)) == {"duplicate": 1, "unseen": 1}


def test_two_values_at_one_offset_are_inconsistent() -> None:
    sends = [sent(0, outcome=INFO), sent(1, outcome=INFO)]
    seen = counts(sends, found(0), polled(1))
    assert seen == {"inconsistent offsets": 1}
    assert counts([sent(0, 0), sent(1, 0, producer="q")], found(0)) == {
        "inconsistent offsets": 1,
        "unseen": 1,
    }


def test_a_failed_write_must_not_be_read() -> None:
    assert counts([sent(0, outcome=FAIL)], found(0)) == {"failed read": 1}
    assert counts([sent(0, outcome=FAIL)], [], polled(0)) == {"failed read": 1, "taken back": 1}


def test_what_nobody_sent_must_not_be_read() -> None:
    verdict = judged([], found(7))
    assert dict(verdict.counts) == {"never sent": 1}
    assert verdict.bad == 1
    assert counts([sent(0, 0)], [Found(0, b"0", b"another key")]) == {"never sent": 1}


def test_a_consumer_must_not_skip_what_is_there() -> None:
    sends = [sent(number, number) for number in range(4)]
    skipped = counts(sends, found(0, 1, 2, 3), polled(0), polled(2, 3, at=2))
    assert skipped == {"poll skip": 1}
    after_a_seek = counts(sends, found(0, 1, 2, 3), polled(0), polled(2, at=2, consumer="c2"))
    assert after_a_seek == {}


def test_a_consumer_may_pass_over_offsets_that_hold_nothing() -> None:
    sends = [sent(0, 0), sent(1, 5)]
    at_end = [*found(0), *found(1, at=5)]
    assert counts(sends, at_end, polled(0), polled(1, at=5)) == {}


def test_a_consumer_must_not_go_back() -> None:
    sends = [sent(0, 0), sent(1, 1)]
    assert counts(sends, found(0, 1), polled(0, 1), polled(1, at=1)) == {"nonmonotonic poll": 1}


def test_the_last_reader_must_not_go_back_either() -> None:
    sends = [sent(0, 0), sent(1, 1)]
    backwards = list(reversed(found(0, 1)))
    assert counts(sends, backwards) == {"nonmonotonic poll": 1, "reordered": 1}


def test_a_producer_must_not_be_told_smaller_offsets_for_later_sends() -> None:
    verdict = judged([sent(0, 1), sent(1, 0)], found(1, 0))
    assert dict(verdict.counts) == {"nonmonotonic send": 1, "reordered": 1}
    assert verdict.reordered == 2


def test_each_producer_has_an_order_of_its_own() -> None:
    mixed = [sent(0, producer="p"), sent(1, producer="q"), sent(2, producer="p")]
    assert counts(mixed, found(1, 0, 2)) == {}
    assert counts(mixed, found(2, 1, 0)) == {"reordered": 1}


def test_what_was_deleted_from_the_start_may_be_gone_and_nothing_behind_it() -> None:
    sends = [sent(0, 0), sent(1, 1), sent(2, 2)]
    assert counts(sends, found(2, at=2), polled(0, 1), start=2) == {}
    assert counts(sends, found(2, at=2), start=1) == {"lost": 1}


def test_a_compacted_topic_keeps_the_last_record_of_each_key() -> None:
    sends = [
        Send("p", PLACE, b"0", b"k", OK, 0),
        Send("p", PLACE, b"1", b"other", OK, 1),
        Send("p", PLACE, b"2", b"k", OK, 2),
    ]
    compacted = {PLACE: [Found(1, b"1", b"other"), Found(2, b"2", b"k")]}
    assert not judge(History(sends, [], compacted, compacted={"t"})).counts
    assert judge(History(sends, [], compacted)).counts == {"lost": 1}
    other_gone = {PLACE: [Found(2, b"2", b"k")]}
    assert judge(History(sends, [], other_gone, compacted={"t"})).counts == {"lost": 1}


def test_a_weak_topic_may_lose_its_tail_and_nothing_more() -> None:
    sends = [sent(0, 0), sent(1, 1), sent(2, 2), sent(3, 1)]
    polls = [polled(0, 1, 2), polled(3, at=1)]

    def weak(*numbers: int) -> dict[str, int]:
        history = History(sends, polls, {PLACE: found(*numbers)}, weak={"t"})
        return dict(judge(history).counts)

    assert weak(0, 3) == {}
    assert weak(0, 3, 0) == {"duplicate": 1}
    assert weak(3, 0) == {"reordered": 1}
    assert weak(0, 9) == {"never sent": 1}


def test_only_the_first_examples_are_kept_and_all_are_counted() -> None:
    verdict = judged([], found(*range(100)))
    assert verdict.bad == 100
    assert len(verdict.examples) == 5
    assert "t-0: b'0' at 0" in verdict.examples[0]
