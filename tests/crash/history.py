"""Judges what producers and consumers saw, after Jepsen's workload for Kafka.

A history is what was noted outside of the store: every send with its outcome, everything that
consumers were given while it went on, and what a reader found at the very end. Values are unique in
a partition. What may be wrong:

    lost                  acknowledged, not there at the end, though what came later is
    unseen                acknowledged, and nothing from there on was ever read
    taken back            a consumer was given it, and it is not there at the end
    duplicate             one value at two offsets
    inconsistent offsets  one offset, two values
    failed read           read, though the producer was told that it is not stored
    never sent            read, and nobody sent it
    poll skip             a consumer was given what is behind a record, and never the record
    nonmonotonic poll     a consumer was given an offset that is not behind the one before
    nonmonotonic send     a producer was told an offset that is not behind the one before
    reordered             a producer's values in another order than it sent them

An outcome is "ok" with an offset, "fail" for what is not stored, and "info" where nobody can know:
that may be there or not, but not twice.

Jepsen: jepsen.tests.kafka.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

OK, FAIL, INFO = "ok", "fail", "info"

_EXAMPLES_MAX = 5

Place = tuple[str, int]
"""A topic and a partition of it."""


class Found(NamedTuple):
    """A record as it was read."""

    offset: int
    value: bytes
    key: bytes | None = None


@dataclass(slots=True)
class Send:
    """One send; an outcome that nobody has told of yet is "info".

    Attributes:
        producer: who sent it.
        place: where to.
        value: unique in the partition.
        key: its key.
        outcome: "ok", "fail" or "info".
        offset: where it was acknowledged; -1 where nobody said.
    """

    producer: str
    place: Place
    value: bytes
    key: bytes | None = None
    outcome: str = INFO
    offset: int = -1


@dataclass(slots=True)
class Poll:
    """What one poll gave of one partition.

    Attributes:
        consumer: who polled; another name after it was assigned or moved anew.
        place: the partition.
        found: the records, in the order in which they were given.
    """

    consumer: str
    place: Place
    found: list[Found]


@dataclass
class History:
    """All that was seen.

    Attributes:
        sends: the sends, those of one producer in its order.
        polls: the polls, those of one consumer in its order.
        at_end: what was read at the very end, from each partition's start, in the order read.
        starts: where partitions begin, where that is not 0: what is before may be gone.
        compacted: topics in which a record may be gone when one of its key is behind it.
        weak: topics whose tail a power cut may take: only what is there at the end is judged.
    """

    sends: list[Send] = field(default_factory=list)
    polls: list[Poll] = field(default_factory=list)
    at_end: dict[Place, list[Found]] = field(default_factory=dict)
    starts: dict[Place, int] = field(default_factory=dict)
    compacted: set[str] = field(default_factory=set)
    weak: set[str] = field(default_factory=set)


@dataclass
class Verdict:
    """What is wrong with a history.

    Attributes:
        acknowledged: sends that were acknowledged.
        counts: how often, by the name of what is wrong.
        examples: the first few of each, in words.
    """

    acknowledged: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def note(self, what: str, example: str) -> None:
        """Take note of something that is wrong."""
        self.counts[what] += 1
        if self.counts[what] <= _EXAMPLES_MAX:
            self.examples.append(f"{what}: {example}")

    @property
    def lost(self) -> int:
        """Records that somebody was told are stored, and that are not."""
        return self.counts["lost"] + self.counts["unseen"] + self.counts["taken back"]

    @property
    def duplicated(self) -> int:
        """Records that are there more than once."""
        return self.counts["duplicate"]

    @property
    def reordered(self) -> int:
        """Records that are not in their producer's order."""
        return self.counts["reordered"] + self.counts["nonmonotonic send"]

    @property
    def bad(self) -> int:
        """Whatever else is wrong."""
        return self.counts.total() - self.lost - self.duplicated - self.reordered


def judge(history: History) -> Verdict:
    """Return what is wrong with a history."""
    verdict = Verdict()
    sends: dict[Place, list[Send]] = defaultdict(list)
    polls: dict[Place, list[Poll]] = defaultdict(list)
    for send in history.sends:
        sends[send.place].append(send)
    for poll in history.polls:
        polls[poll.place].append(poll)
    for place in sorted({*sends, *polls, *history.at_end}):
        _Partition(history, verdict, place, sends[place], polls[place]).judge()
    verdict.acknowledged = sum(send.outcome == OK for send in history.sends)
    return verdict


class _Partition:
    """What was seen of one partition."""

    def __init__(
        self,
        history: History,
        verdict: Verdict,
        place: Place,
        sends: list[Send],
        polls: list[Poll],
    ) -> None:
        self._place = place
        self._sends = sends
        self._polls = polls
        self._at_end = history.at_end.get(place, [])
        self._start = history.starts.get(place, 0)
        self._is_compacted = place[0] in history.compacted
        self._is_weak = place[0] in history.weak
        self._verdict = verdict
        self._sent = {send.value: send for send in sends}
        self._there = {found.offset: found for found in self._at_end}
        self._last_of_key = {found.key: found.offset for found in self._at_end}

    def judge(self) -> None:
        self._judge_what_was_read()
        self._judge_order()
        self._judge_offsets_and_values()
        if self._is_weak:
            return
        self._judge_acknowledged()
        self._judge_taken_back()
        self._judge_told_offsets()
        self._judge_polls()

    def _note(self, what: str, example: str) -> None:
        topic, partition = self._place
        self._verdict.note(what, f"{topic}-{partition}: {example}")

    def _all_found(self) -> Iterable[Found]:
        """Return what was read; of a weak partition only what was there at the end."""
        yield from self._at_end
        if not self._is_weak:
            for poll in self._polls:
                yield from poll.found

    def _may_be_gone(self, offset: int, key: bytes | None) -> bool:
        if 0 <= offset < self._start:
            return True
        return self._is_compacted and self._last_of_key.get(key, -1) > offset

    def _judge_what_was_read(self) -> None:
        for value, found in {found.value: found for found in self._all_found()}.items():
            send = self._sent.get(value)
            if send is None:
                self._note("never sent", f"{value[:80]!r} at {found.offset}")
            elif send.outcome == FAIL:
                self._note("failed read", f"{value[:80]!r} at {found.offset}")
            elif send.key != found.key:
                self._note("never sent", f"{value[:80]!r} with key {found.key!r}, not {send.key!r}")

    def _judge_order(self) -> None:
        """Look at the acknowledged values: what nobody acknowledged may have come late."""
        number_of = {send.value: number for number, send in enumerate(self._sends)}
        last: dict[str, bytes] = {}
        seen: set[bytes] = set()
        for found in self._at_end:
            send = self._sent.get(found.value)
            if send is None or send.outcome != OK or found.value in seen:
                continue
            seen.add(found.value)
            before = last.get(send.producer)
            if before is not None and number_of[found.value] < number_of[before]:
                self._note("reordered", f"{found.value[:80]!r} behind {before[:80]!r}")
            else:
                last[send.producer] = found.value

    def _judge_offsets_and_values(self) -> None:
        value_at: dict[int, bytes] = {}
        offset_of: dict[bytes, int] = {}
        claims = [(found.offset, found.value) for found in self._all_found()]
        if not self._is_weak:
            told = [send for send in self._sends if send.outcome == OK and send.offset >= 0]
            claims += [(send.offset, send.value) for send in told]
        for offset, value in dict.fromkeys(claims):
            if value_at.setdefault(offset, value) != value:
                self._note("inconsistent offsets", f"{offset}: {value_at[offset]!r} and {value!r}")
            if offset_of.setdefault(value, offset) != offset:
                self._note("duplicate", f"{value[:80]!r} at {offset_of[value]} and {offset}")

    def _judge_acknowledged(self) -> None:
        last_read = max((found.offset for found in self._all_found()), default=-1)
        values = {found.value for found in self._at_end}
        for send in self._sends:
            if send.outcome != OK:
                continue
            if send.offset < 0:  # nobody can say whether it may be gone where some may
                is_there = send.value in values or self._start > 0 or self._is_compacted
            else:
                there = self._there.get(send.offset)
                is_there = there is not None and there.value == send.value
            if is_there or self._may_be_gone(send.offset, send.key):
                continue
            what = "lost" if last_read > send.offset else "unseen"
            self._note(what, f"{send.value[:80]!r} of {send.producer} at {send.offset}")

    def _judge_taken_back(self) -> None:
        """Look at what consumers were given and nobody acknowledged; the rest is judged above."""
        told: set[bytes] = set()
        for poll in self._polls:
            for found in poll.found:
                send = self._sent.get(found.value)
                if found.value in told or (send is not None and send.outcome == OK):
                    continue
                if found.offset in self._there or self._may_be_gone(found.offset, found.key):
                    continue
                told.add(found.value)
                self._note("taken back", f"{found.value[:80]!r} at {found.offset}")

    def _judge_told_offsets(self) -> None:
        last: dict[str, int] = {}
        for send in self._sends:
            if send.outcome == OK and send.offset >= 0:
                before = last.get(send.producer, -1)
                if send.offset <= before:
                    self._note(
                        "nonmonotonic send", f"{send.producer}: {send.offset} after {before}"
                    )
                last[send.producer] = send.offset

    def _judge_polls(self) -> None:
        offsets = sorted(self._there)
        positions: dict[str, int] = {}
        final = Poll("the last reader", self._place, self._at_end)
        for poll in [*self._polls, final]:
            for found in poll.found:
                before = positions.get(poll.consumer)
                positions[poll.consumer] = found.offset
                if before is None:
                    continue
                if found.offset <= before:
                    example = f"{poll.consumer}: {found.offset} after {before}"
                    self._note("nonmonotonic poll", example)
                elif found.offset > before + 1:
                    self._judge_gap(poll.consumer, before, found.offset, offsets)

    def _judge_gap(self, consumer: str, before: int, offset: int, offsets: list[int]) -> None:
        skipped = offsets[
            bisect.bisect_right(offsets, before) : bisect.bisect_left(offsets, offset)
        ]
        if skipped:
            example = f"{consumer}: {offset} after {before}, and {skipped[0]} is there"
            self._note("poll skip", example)
