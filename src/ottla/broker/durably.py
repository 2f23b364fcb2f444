"""Answers that wait until the change of the metadata that they tell of is durable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from ottla.broker.requests import Pending
from ottla.errors import codes

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Reply
    from ottla.errors import StorageError
    from ottla.protocol.message import ApiMessage


class Result(Protocol):
    """The part of a response that tells of one change."""

    error_code: int
    error_message: str | None


def answer_durably(
    engine: Engine, response: ApiMessage, results: Iterable[Result], failure: int
) -> Reply:
    """Return the response as soon as everything that was appended to the metadata is stored.

    Args:
        engine: the broker.
        response: what is answered.
        results: its parts; those without an error get one where it could not be stored.
        failure: the error code that they get.
    """
    pending = Pending()

    def stored(error: StorageError | None) -> None:
        if error is not None:
            for result in results:
                if result.error_code == codes.NONE:
                    result.error_code = failure
                    result.error_message = str(error)
        pending.finish(response)

    engine.metadata.when_stored(stored)
    return response if pending.is_done else pending
