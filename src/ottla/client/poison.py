"""Records that a deserializer cannot read: what becomes of them.

Whatever is chosen, the position moves on behind the record: it is never read again and again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ottla.errors import DeserializationFailed

if TYPE_CHECKING:
    from ottla.client.config import ConsumerConfig, Deserializer
    from ottla.client.producer import Producer
    from ottla.records.record import Record

_LOG = logging.getLogger("ottla.client")


class Deserializers:
    """Makes keys and values of bytes.

    Args:
        config: the consumer's settings.
    """

    def __init__(self, config: ConsumerConfig) -> None:
        self._of_key = config.key_deserializer
        self._of_value = config.value_deserializer
        self._on_poison = config.on_poison

    def __bool__(self) -> bool:
        return self._of_key is not None or self._of_value is not None

    def can_read(self, record: Record, *, as_bytes: bool = False) -> bool:
        """Deserialize a record in place; False where it is to be left out.

        Args:
            record: the record.
            as_bytes: whether it is to stay as it is.

        Raises:
            DeserializationFailed: a deserializer raised, and "raise" was chosen.
        """
        try:
            key = _made("key", self._of_key, record.key, record)
            value = _made("value", self._of_value, record.value, record)
        except DeserializationFailed as error:
            if callable(self._on_poison):
                self._on_poison(error)
                return False
            if self._on_poison == "skip":
                _LOG.warning("%s", error.what)
                return False
            raise
        if not as_bytes:
            record.replace(key, value)
        return True


def _made(part: str, make: Deserializer | None, data: object, record: Record) -> object:
    if make is None or not isinstance(data, bytes):
        return data
    try:
        return make(data)
    except Exception as error:
        raise DeserializationFailed(
            f"{record.topic}/{record.partition}: the {part} of the record at offset "
            f"{record.offset} cannot be deserialized: {type(error).__name__}: {error}",
            "The record is at `.record` of this error; the next poll goes on behind it.",
            (
                "Leave such records out with on_poison='skip', or send them elsewhere with "
                "on_poison=dead_letters(producer, topic).",
            ),
            record=record,
            part=part,
        ) from error


def dead_letters(producer: Producer, topic: str) -> Callable[[DeserializationFailed], None]:
    """Return what sends records that cannot be read to a topic of their own, as they are.

    Each is stored there before reading goes on. Headers say where it comes from and what is wrong.

    Args:
        producer: sends them; it must have no serializers.
        topic: the topic for them.
    """

    def send(error: DeserializationFailed) -> None:
        record: Record = error.record
        headers = [
            *record.headers,
            ("ottla.topic", record.topic.encode()),
            ("ottla.partition", b"%d" % record.partition),
            ("ottla.offset", b"%d" % record.offset),
            ("ottla.error", error.what.encode()),
        ]
        producer.send(topic, record.value, record.key, headers).result()

    return send
