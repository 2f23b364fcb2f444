"""What a shard decides: records to append, and who is answered what when they are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ottla.coordinator.group.records import GroupRecord
    from ottla.protocol.message import ApiMessage

Answer = Callable[["ApiMessage"], None]
"""Takes the response to a request, once."""


class Reply(NamedTuple):
    """A response on its way.

    Attributes:
        answer: takes it.
        response: what it is.
        refused: makes the response that takes its place where the records cannot be stored, of
            the error code that tells why.
    """

    answer: Answer
    response: ApiMessage
    refused: Callable[[int], ApiMessage]


@dataclass(slots=True)
class Decision:
    """What is to be done, in this order, by whoever runs the shard.

    Append `records` and replay them, call `appended`, and let the replies go when everything that
    the log holds is stored, or at once where nothing waits. Where the records cannot be appended
    nothing of theirs has happened: `refused` is called with the error code, and what it decides is
    done in their stead.

    Attributes:
        records: what is appended; where there is nothing, nothing durable changes.
        replies: who is answered.
        waits: whether the replies wait for what others appended: they tell what they saw of it.
        appended: changes soft state that belongs to the records.
        refused: changes soft state where they could not be appended.
    """

    records: list[GroupRecord] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    waits: bool = False
    appended: Callable[[], None] | None = None
    refused: Callable[[int], Decision] | None = None

    def reply(
        self, answer: Answer, response: ApiMessage, refused: Callable[[int], ApiMessage]
    ) -> None:
        """Have somebody answered."""
        self.replies.append(Reply(answer, response, refused))
