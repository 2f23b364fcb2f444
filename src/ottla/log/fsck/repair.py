"""Carrying out what a check has planned, so that it can be stopped at any moment.

Each file is written beside the old one, synced, and takes its place in one step; bytes that are
taken out of a segment are durable in their own file before. The indexes of a segment that is
written anew are removed before: a start makes missing ones anew, and would believe wrong ones. So
whatever a crash leaves is the log as it was, or with some of its damage repaired.

Before the first segment is changed the mark of a clean stop is removed: the next start checks what
lies behind the recovery point and begins a new leader epoch, as after any stop that may have lost
records.
"""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ottla.log.files import draft_of
from ottla.log.fsck.plan import CutOff, Empty, Kept, Moved, Reindex, Replace, Rewrite
from ottla.log.segment import SUFFIXES, Segment, file_name
from ottla.records.batch import read_header
from ottla.records.builder import batch_of
from ottla.records.compaction import empty_batch

if TYPE_CHECKING:
    from ottla.log.config import LogConfig
    from ottla.log.files import File, Files
    from ottla.log.fsck.plan import Action
    from ottla.wire import Buffer

_COPY_BYTES = 1 << 20
_INDEXES = (".index", ".timeindex")
_PREFIX = struct.Struct(">qii")
_DELTA = struct.Struct(">i")
_DELTA_AT = 23


class Repair:
    """Carries out actions in one partition's folder, or in the store's.

    Args:
        files: where the folder is.
        folder: the folder.
        config: the topic's settings.
        clean_mark: the file that says that the store was stopped cleanly.
    """

    def __init__(self, files: Files, folder: str, config: LogConfig, clean_mark: str) -> None:
        self._files = files
        self._folder = folder
        self._config = config
        self._clean_mark = clean_mark

    def carry_out(self, action: Action) -> None:
        """Carry out one action.

        Raises:
            StorageError: something cannot be read or written; the log is as it was, or that far
                repaired.
        """
        if isinstance(action, Rewrite):
            self._rewrite(action)
        elif isinstance(action, CutOff):
            self._cut_off(action)
        elif isinstance(action, Reindex):
            self._reindex(action.base_offset)
        else:
            self._replace(action)

    def _path(self, base_offset: int, suffix: str = ".log") -> str:
        return f"{self._folder}/{file_name(base_offset, suffix)}"

    def _unmark(self) -> None:
        self._files.remove(self._clean_mark)
        self._files.sync_folder(posixpath.dirname(self._clean_mark))

    def _rewrite(self, action: Rewrite) -> None:
        files, path = self._files, self._path(action.base_offset)
        self._unmark()
        files.make_folder(self._folder)
        moved = [part for part in action.parts if isinstance(part, Moved)]
        kept = [part for part in action.parts if isinstance(part, Kept)]
        old = files.open(path, create=False) if moved or kept else None
        for each in moved:
            assert old is not None
            with self._writing(each.path) as file:
                _copy(old, each.start, each.end, file)
        with self._writing(path) as file:
            for part in action.parts:
                if isinstance(part, Empty):
                    file.append([_empty(part)])
                elif isinstance(part, Kept):
                    assert old is not None
                    _copy(old, part.start, part.end, file)
            for suffix in _INDEXES:
                files.remove(self._path(action.base_offset, suffix))
            files.sync_folder(self._folder)
        if old is not None:
            old.close()
        self._reindex(action.base_offset)

    @contextmanager
    def _writing(self, path: str) -> Iterator[File]:
        """Write a file beside another one, whose place it takes when all is written and durable."""
        files = self._files
        files.remove(draft_of(path))
        file = files.open(draft_of(path), create=True)
        try:
            yield file
            file.begin_sync()()
            file.end_sync()
        finally:
            file.close()
        files.rename(draft_of(path), path)
        files.sync_folder(posixpath.dirname(path))

    def _cut_off(self, action: CutOff) -> None:
        files = self._files
        self._unmark()
        segment = files.open(self._path(action.base_offset), create=False)
        try:
            if action.kept:
                with self._writing(action.kept) as file:
                    _copy(segment, action.position, segment.size(), file)
            if not action.removes:
                segment.truncate(action.position)
                segment.begin_sync()()
                segment.end_sync()
        finally:
            segment.close()
        if action.removes:
            for suffix in SUFFIXES:
                files.remove(self._path(action.base_offset, suffix))
            files.sync_folder(self._folder)

    def _reindex(self, base_offset: int) -> None:
        segment = Segment.open(self._files, self._folder, base_offset, self._config)
        try:
            segment.trust_until(0)
            segment.recover(_pass_over, 0, base_offset, 1 << 63)
            for path, content in segment.indexes():
                if path.endswith(_INDEXES):
                    self._files.write(path, content)
        finally:
            segment.close()

    def _replace(self, action: Replace) -> None:
        files = self._files
        old = files.read(action.path)
        if action.kept and old is not None:
            files.write(action.kept, old)
        if action.content is not None:
            files.make_folder(posixpath.dirname(action.path))
            files.write(action.path, action.content)
        else:
            files.remove(action.path)
            files.sync_folder(posixpath.dirname(action.path))


def _pass_over(batch: object) -> None:
    pass


def _copy(source: File, start: int, end: int, target: File) -> None:
    while start < end:
        data = source.read(start, min(_COPY_BYTES, end - start))
        target.append([data])
        start += len(data)


def _empty(part: Empty) -> Buffer:
    """Return a batch without records, such as compaction leaves."""
    like = bytearray(batch_of([(None, None)], part.timestamp))
    _PREFIX.pack_into(like, 0, part.offset, len(like) - 12, part.leader_epoch)
    _DELTA.pack_into(like, _DELTA_AT, part.offset_end - part.offset - 1)
    return empty_batch(read_header(like))
