"""What a broker remembers of our fetches, so that each names only what has changed (KIP-227).

The first fetch names all partitions; where the broker has made a session of it, the next ones name
those that are new or are read from another offset, and those that are wanted no more. Its answers
leave out what has nothing new, too. Whenever it is not certain that both sides know the same - an
answer was lost, the broker has forgotten the session, a topic has another id - all are named again.

What was answered with records or an error is named again in any case: whoever asked may have let
the answer go.

Kafka: FetchSessionHandler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ottla.errors import codes
from ottla.protocol.message import ZERO_UUID
from ottla.protocol.messages.api_01_fetch import FetchRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ottla.client.lookup import TopicPartition
    from ottla.protocol.messages.api_01_fetch import FetchResponse

_INITIAL_EPOCH, _FINAL_EPOCH = 0, -1
_EPOCH_MAX = 2**31 - 1
_SESSION_ERRORS = (
    codes.FETCH_SESSION_ID_NOT_FOUND,
    codes.INVALID_FETCH_SESSION_EPOCH,
    codes.FETCH_SESSION_TOPIC_ID_ERROR,
    codes.INCONSISTENT_TOPIC_ID,
)


class Wanted(NamedTuple):
    """What is wanted of a partition.

    Attributes:
        topic_id: the id of its topic; `ZERO_UUID` where there is none.
        leader_epoch: the epoch of its leader, as far as we know.
        offset: the offset to read from.
    """

    topic_id: bytes
    leader_epoch: int
    offset: int


class FetchSession:
    """The session with one broker, if there is one; one fetch at a time is under way.

    Args:
        bytes_max: how many bytes of each partition are wanted at most.

    Attributes:
        session_id: its id, 0 where there is none.
    """

    def __init__(self, bytes_max: int) -> None:
        self.session_id = 0
        self._epoch = _INITIAL_EPOCH
        self._bytes_max = bytes_max
        self._told: dict[TopicPartition, Wanted] = {}
        self._answered: set[TopicPartition] = set()

    def ask(self, wanted: dict[TopicPartition, Wanted], request: FetchRequest) -> None:
        """Put into a request what has to be said of the partitions that are wanted now."""
        if self._epoch != _INITIAL_EPOCH and self._has_other_topics(wanted):
            self._epoch = _INITIAL_EPOCH
        told = self._told if self._epoch != _INITIAL_EPOCH else {}
        request.session_id, request.session_epoch = self.session_id, self._epoch
        topics: dict[str, FetchRequest.FetchTopic] = {}
        for where, each in wanted.items():
            if told.get(where) == each and where not in self._answered:
                continue
            topic = topics.get(where.topic)
            if topic is None:
                topic = topics[where.topic] = FetchRequest.FetchTopic(
                    topic=where.topic, topic_id=each.topic_id
                )
            topic.partitions.append(
                FetchRequest.FetchPartition(
                    partition=where.partition,
                    current_leader_epoch=each.leader_epoch,
                    fetch_offset=each.offset,
                    partition_max_bytes=self._bytes_max,
                )
            )
        request.topics = list(topics.values())
        request.forgotten_topics_data = _forgotten(told, wanted)
        self._told = wanted
        self._answered.clear()

    def _has_other_topics(self, wanted: Mapping[TopicPartition, Wanted]) -> bool:
        """Tell whether a topic has another id, or topics are to be named otherwise than before."""
        told = self._told
        if any(
            told[where].topic_id != each.topic_id for where, each in wanted.items() if where in told
        ):
            return True
        return _have_ids(wanted.values()) != _have_ids(told.values())

    def answered(self, response: FetchResponse) -> None:
        """Take note of an answer: there is a session now, it goes on, or there is none any more."""
        if response.session_id == 0:
            self._end()
        elif self._epoch == _INITIAL_EPOCH or response.session_id == self.session_id:
            self.session_id = response.session_id
            self._epoch = self._epoch + 1 if self._epoch < _EPOCH_MAX else 1
        else:
            self.lost()

    def tells(self, where: TopicPartition) -> None:
        """Take note that an answer has records of a partition, or an error."""
        self._answered.add(where)

    def refused(self, code: int) -> bool:
        """Take note that a fetch was refused; tells whether it is only to be asked in full."""
        was_incremental = self._epoch != _INITIAL_EPOCH
        if code == codes.FETCH_SESSION_ID_NOT_FOUND:
            self._end()
        else:
            self.lost()
        return was_incremental and code in _SESSION_ERRORS

    def lost(self) -> None:
        """Begin anew, since nobody knows what became of a fetch; the broker closes the session."""
        self._epoch = _INITIAL_EPOCH

    def farewell(self) -> FetchRequest:
        """Return the request that has the broker close the session."""
        return FetchRequest(session_id=self.session_id, session_epoch=_FINAL_EPOCH)

    def _end(self) -> None:
        self.session_id, self._epoch = 0, _INITIAL_EPOCH


def _have_ids(partitions: Iterable[Wanted]) -> bool:
    return all(each.topic_id != ZERO_UUID for each in partitions)


def _forgotten(
    told: Mapping[TopicPartition, Wanted], wanted: Mapping[TopicPartition, Wanted]
) -> list[FetchRequest.ForgottenTopic]:
    topics: dict[str, FetchRequest.ForgottenTopic] = {}
    for where, each in told.items():
        if where in wanted:
            continue
        topic = topics.get(where.topic)
        if topic is None:
            topic = topics[where.topic] = FetchRequest.ForgottenTopic(
                topic=where.topic, topic_id=each.topic_id
            )
        topic.partitions.append(where.partition)
    return list(topics.values())
