"""A consumer with a fetch session, as far as the broker sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ottla.broker.fetch_sessions import FetchSession, next_epoch
from ottla.broker.requests import Pending
from ottla.errors import codes
from ottla.protocol.messages.api_01_fetch import FetchRequest, FetchResponse
from tests.broker.asking import Asking

Where = tuple[str, int]
Told = dict[Where, FetchResponse.PartitionData]

FIRST_VERSION_WITH_IDS = 13


class SessionConsumer:
    """Fetches in a session.

    Attributes:
        session_id: the session's id; 0 before there is one.
        epoch: the epoch of the next fetch.
    """

    def __init__(self, asking: Asking, version: int = 12) -> None:
        self.session_id = 0
        self.epoch = 0
        self._asking = asking
        self._version = version
        self._ids: dict[str, bytes] = {}

    @property
    def session(self) -> FetchSession:
        """The broker's side of it."""
        session = self._asking.engine.fetch_sessions.get(self.session_id)
        assert session is not None
        return session

    def request(
        self, named: Mapping[Where, int] | None = None, forget: Iterable[Where] = (), **fields: Any
    ) -> FetchRequest:
        """Make a request that names partitions with the offsets to fetch from."""
        request = FetchRequest(
            max_bytes=1 << 20, session_id=self.session_id, session_epoch=self.epoch
        )
        partition_bytes = fields.pop("partition_max_bytes", 1 << 20)
        topics: dict[str, FetchRequest.FetchTopic] = {}
        for (name, number), offset in (named or {}).items():
            topic = topics.setdefault(
                name, FetchRequest.FetchTopic(topic=name, topic_id=self.id_of(name))
            )
            topic.partitions.append(
                FetchRequest.FetchPartition(
                    partition=number, fetch_offset=offset, partition_max_bytes=partition_bytes
                )
            )
        request.topics = list(topics.values())
        request.forgotten_topics_data = [
            FetchRequest.ForgottenTopic(topic=name, topic_id=self.id_of(name), partitions=[number])
            for name, number in forget
        ]
        for field, value in fields.items():
            setattr(request, field, value)
        return request

    def id_of(self, name: str) -> bytes:
        """Return the id that a topic had when it was named first."""
        topic = self._asking.engine.cluster.topics.get(name)
        return self._ids.setdefault(name, bytes(15) + b"\7" if topic is None else topic.topic_id)

    def fetch_nowait(
        self, named: Mapping[Where, int] | None = None, forget: Iterable[Where] = (), **fields: Any
    ) -> Any:
        """Fetch; returns a response or a `Pending`."""
        return self._asking.ask_nowait(self.request(named, forget, **fields), self._version)

    def fetch(
        self, named: Mapping[Where, int] | None = None, forget: Iterable[Where] = (), **fields: Any
    ) -> Told:
        """Fetch without waiting, go on to the next epoch, and return what is told."""
        response = self._asking.ask(self.request(named, forget, **fields), self._version)
        return self.take(response)

    def take(self, response: FetchResponse | Pending) -> Told:
        """Take over what is told by a response."""
        if isinstance(response, Pending):
            assert isinstance(response.response, FetchResponse)
            response = response.response
        assert response.error_code == codes.NONE
        self.epoch = next_epoch(self.epoch) if response.session_id else 0
        self.session_id = response.session_id
        names = {topic_id: name for name, topic_id in self._ids.items()}
        return {
            (
                names[bytes(topic.topic_id)]
                if self._version >= FIRST_VERSION_WITH_IDS
                else topic.topic,
                part.partition_index,
            ): part
            for topic in response.responses
            for part in topic.partitions
        }

    def error(self, **fields: Any) -> int:
        """Fetch, and return the error of the whole response."""
        response = self._asking.ask(self.request(**fields), self._version)
        assert response.responses == []
        code: int = response.error_code
        return code
