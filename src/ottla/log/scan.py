"""Walking through the bytes of a segment: which batches are intact, and what lies between them.

A batch is intact when its checksum is right and its offsets are those that come next. Where one is
not, the walk looks for the next one that is, byte by byte, so that damage never hides what lies
behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ottla.errors import CorruptRecords
from ottla.records.batch import HEADER_BYTES, BatchHeader, check_crc, read_header

if TYPE_CHECKING:
    from ottla.log.files import File

_READ_BYTES = 1 << 20
_MAGIC = b"\x02"
_MAGIC_AT = 16
_SECTOR_BYTES = 512
_ZEROS = re.compile(rb"\0{13,}")
_HOLES_WITHIN_BYTES = 64 << 20
"""Holes are looked for in so much; what is not checkpointed yet is less."""

_JUMP_MAX = 1 << 31
"""No offset found behind damage is further ahead than this."""

_EVERY_OFFSET = 1 << 63


class Batch(NamedTuple):
    """An intact batch.

    Attributes:
        position: where it begins, in bytes.
        header: its header.
        data: all of it.
    """

    position: int
    header: BatchHeader
    data: memoryview


class Damage(NamedTuple):
    """A stretch of bytes that are no intact batches, or a place where offsets are missing.

    Attributes:
        start: where it begins, in bytes.
        end: where it ends, exclusive; `start` where there are no bytes, and only offsets missing.
        offset: the first offset that is missing.
        offset_end: the offset of the next intact batch; `offset` where none follows.
        reason: what is wrong.
        is_tail: whether nothing intact follows in this segment.
        is_misplaced: whether it begins with a batch that is whole, and stands at a wrong offset; no
            crash leaves that.
    """

    start: int
    end: int
    offset: int
    offset_end: int
    reason: str
    is_tail: bool
    is_misplaced: bool = False


def scan(
    file: File,
    position: int,
    next_offset: int,
    contiguous_from: int,
    offset_end: int = _EVERY_OFFSET,
) -> Iterator[Batch | Damage]:
    """Walk through a segment's file.

    Args:
        file: the file of batches.
        position: where a batch begins.
        next_offset: the offset that it should have, or come before it.
        contiguous_from: from this offset on no offset is missing; before it compaction may have
            left gaps.
        offset_end: no batch in the file ends behind this offset.
    """
    while position < file.size():
        reason = ""
        misplaced: BatchHeader | None = None
        for found in _batches(file, position):
            if isinstance(found, str):
                reason = found
                break
            reason = _misplaced(found.header, next_offset, contiguous_from, offset_end)
            if not reason and found.header.base_offset > next_offset:
                reason = _contradicted(file, found, next_offset)
            if reason:
                misplaced = found.header
                break
            yield found
            next_offset = found.header.last_offset + 1
            position = found.position + found.header.size
        if not reason:
            return
        if misplaced is not None and _is_confirmed(file, position, misplaced, next_offset):
            yield Damage(
                position, position, next_offset, misplaced.base_offset, reason, False, True
            )
            next_offset = misplaced.base_offset
            continue
        following = find_intact(file, position + 1, next_offset)
        end = file.size() if following is None else following.position
        offset = next_offset if following is None else following.header.base_offset
        yield Damage(
            position,
            end,
            next_offset,
            offset,
            reason,
            following is None,
            misplaced is not None,
        )
        position, next_offset = end, offset


def _is_confirmed(file: File, position: int, header: BatchHeader, next_offset: int) -> bool:
    """Tell whether the batch behind one that leaves a gap confirms its offsets."""
    if header.base_offset <= next_offset:
        return False
    position += header.size
    following = next(_batches(file, position), "")
    return isinstance(following, Batch) and following.header.base_offset == header.last_offset + 1


def _misplaced(header: BatchHeader, next_offset: int, contiguous_from: int, offset_end: int) -> str:
    """Return what is wrong with the offsets of a batch, or ""."""
    if header.last_offset_delta < 0:
        return f"a batch ends {-header.last_offset_delta} offsets before it begins"
    gap = header.base_offset - next_offset
    if gap < 0 or (gap > 0 and next_offset >= contiguous_from):
        return f"offset {header.base_offset} where {next_offset} is the next"
    if header.last_offset >= offset_end:
        return f"offset {header.last_offset}, which is not before {offset_end}"
    return ""


def _contradicted(file: File, batch: Batch, next_offset: int) -> str:
    """Tell how the next batch contradicts one behind a gap, or "": no checksum covers offsets.

    It contradicts where it comes before it, unless the one after that speaks against it instead: by
    coming behind both, and not right behind the next one.
    """
    last_offset = batch.header.last_offset
    following = _header_at(file, batch.position + batch.header.size)
    if following is None or not next_offset <= following.base_offset <= last_offset:
        return ""
    position = batch.position + batch.header.size + following.size
    third = _header_at(file, position)
    if (
        third is not None
        and third.base_offset > last_offset
        and following.last_offset + 1 != third.base_offset
        and following.base_offset != next_offset
    ):
        return ""
    return f"offset {batch.header.base_offset} before offset {following.base_offset}"


def _header_at(file: File, position: int) -> BatchHeader | None:
    try:
        return read_header(file.read(position, HEADER_BYTES))
    except CorruptRecords:
        return None


def _batches(file: File, position: int) -> Iterator[Batch | str]:
    """Iterate over the batches from `position` on; what is wrong with one comes in its place."""
    while position < file.size():
        data = memoryview(file.read(position, _READ_BYTES))
        if not data:
            yield "the file has become shorter while it was read"
            return
        start = 0
        while start < len(data):
            try:
                header = read_header(data, start)
                if header.size > len(data) - start:
                    left = file.size() - position
                    if header.size > left:
                        raise CorruptRecords(
                            f"a batch of {header.size} bytes is cut off after {left}"
                        )
                    if start:
                        break
                    data = memoryview(file.read(position, header.size))
                check_crc(data, header)
            except CorruptRecords as error:
                if len(data) - start < HEADER_BYTES and position + len(data) - start < file.size():
                    break
                yield error.what
                return
            yield Batch(position, header, data[start : start + header.size])
            start += header.size
            position += header.size


def find_intact(file: File, position: int, offset_min: int) -> Batch | None:
    """Return the first intact batch at or behind a position, or None.

    Args:
        file: the file of batches.
        position: where to begin.
        offset_min: batches before this offset do not count.
    """
    while file.size() - position >= HEADER_BYTES:
        data = file.read(position, _READ_BYTES)
        at = data.find(_MAGIC, _MAGIC_AT)
        while at >= 0:
            found = _intact_at(file, data, position, at - _MAGIC_AT, offset_min)
            if found is not None:
                return found
            at = data.find(_MAGIC, at + 1)
        if len(data) < _READ_BYTES:
            return None
        position += len(data) - HEADER_BYTES + 1
    return None


def _intact_at(file: File, data: bytes, position: int, start: int, offset_min: int) -> Batch | None:
    """Return the intact batch that begins at `start` of the data at `position`, or None."""
    if len(data) - start < HEADER_BYTES:
        return None
    base_offset = int.from_bytes(data[start : start + 8], "big", signed=True)
    if not 0 <= base_offset - offset_min < _JUMP_MAX:
        return None
    try:
        header = read_header(data, start)
        if header.size > file.size() - position - start or header.last_offset_delta < 0:
            return None
        whole = memoryview(file.read(position + start, header.size))
        header = read_header(whole)
        check_crc(whole, header)
    except CorruptRecords:
        return None
    return Batch(position + start, header, whole)


def find_unwritten(file: File, damage: Damage) -> bool:
    """Tell whether sectors within damage were never written.

    Such are zeros, and where the zeros begin and end is where sectors do; or they begin with the
    damage, behind what was written before. Zeros that somebody has sent hardly ever lie like that.
    A few zeros at the beginning say nothing: offsets begin with such.
    """
    data = file.read(damage.start, min(damage.end - damage.start, _HOLES_WITHIN_BYTES))
    for zeros in _ZEROS.finditer(data):
        start, end = damage.start + zeros.start(), damage.start + zeros.end()
        begins = zeros.start() == 0 or start % _SECTOR_BYTES == 0
        ends = end % _SECTOR_BYTES == 0 or end == file.size()
        if begins and ends:
            return True
    return False
