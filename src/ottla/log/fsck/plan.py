"""What a repair does, as data: a check plans it, and `repair` carries it out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ottla.log.fsck.findings import Finding

OFFSETS_MAX = 0x7FFFFFFF
"""How far an offset may be from its segment's base offset, and from its batch's."""


class Kept(NamedTuple):
    """Bytes of a segment that stay where they are among the others; `end` is exclusive."""

    start: int
    end: int


class Moved(NamedTuple):
    """Bytes of a segment that are moved to a file beside it; `end` is exclusive."""

    start: int
    end: int
    path: str


class Empty(NamedTuple):
    """Offsets that an empty batch stands for, since their records are lost.

    Attributes:
        offset: the first one.
        offset_end: behind the last one.
        timestamp: what it is stamped with, so that it grows old with its neighbours.
        leader_epoch: the epoch of its neighbours.
    """

    offset: int
    offset_end: int
    timestamp: int
    leader_epoch: int


@dataclass(frozen=True)
class Rewrite:
    """A segment is written anew, or a new one is made.

    Attributes:
        base_offset: its base offset.
        parts: what it is made of, in order.
    """

    base_offset: int
    parts: list[Kept | Moved | Empty]


@dataclass(frozen=True)
class CutOff:
    """A segment's tail is moved to a file beside it; a segment that is cut at 0 is removed.

    Attributes:
        base_offset: its base offset.
        position: where it is cut, in bytes.
        kept: the file that the tail is moved to, or "" where there is none.
        removes: whether the segment goes.
    """

    base_offset: int
    position: int
    kept: str
    removes: bool


@dataclass(frozen=True)
class Reindex:
    """The offset index and the time index of a segment are made anew from its batches."""

    base_offset: int


@dataclass(frozen=True)
class Replace:
    """A small file gets another content; what stood in it is kept beside it, if it was damaged.

    Attributes:
        path: the file.
        content: the new content; None where it goes.
        kept: the file that the old content is moved to, or "".
    """

    path: str
    content: bytes | None
    kept: str = ""


Action = Rewrite | CutOff | Reindex | Replace


@dataclass(frozen=True)
class Step:
    """An action, and the findings that it is the repair of."""

    action: Action
    findings: list[Finding] = field(default_factory=list)


def spread(base_offset: int, empty: Empty) -> list[tuple[int, Empty]]:
    """Return (base offset, offsets) such that none is too far from its segment's base offset.

    The first is for the segment that is given, the others for new ones behind it.
    """
    found = []
    offset = empty.offset
    while offset < empty.offset_end:
        end = min(empty.offset_end, base_offset + OFFSETS_MAX)
        if end > offset:
            found.append((base_offset, empty._replace(offset=offset, offset_end=end)))
            offset = end
        base_offset = offset
    return found
