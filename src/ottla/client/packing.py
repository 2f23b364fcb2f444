"""Compressing full batches in a thread beside the one that fills them.

A caller that has filled a batch goes on with the next one as soon as the full one is being
compressed, which is done without the interpreter's lock. It waits for that beginning, so that at
most one batch is compressed while one is filled: a caller does not run away from the codec, and the
thread gets the interpreter's lock without asking for it in vain, as it would beside a busy loop.

Batches that are closed because they have waited for long enough, or because of a `flush`, are
compressed by who sends them: nobody fills others meanwhile.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ottla.wire.compression import NONE

if TYPE_CHECKING:
    from ottla.client.delivery import Batch

_LOG = logging.getLogger("ottla.client")


def is_worthwhile(codec: int) -> bool:
    """Tell whether there is something to compress, and a second processor to do it."""
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    return codec != NONE and processors > 1


class Packer:
    """The thread that compresses.

    Attributes:
        given: batches that are marked as `is_packing` and wait for it, oldest first; None ends it.

    Args:
        codec: what to compress with.
        level: the codec's level; None for its default.
        packed: is called when a batch can be sent.
    """

    def __init__(self, codec: int, level: int | None, packed: Callable[[], None]) -> None:
        self.given: SimpleQueue[Batch | None] = SimpleQueue()
        self._codec = codec
        self._level = level
        self._packed = packed
        self._begun = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def look(self) -> None:
        """Start the thread when there is the first batch for it."""
        if self._thread is not None or self.given.empty():
            return
        with self._begun:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="ottla-packer", daemon=True)
                self._thread.start()

    def wait_until_begun(self) -> None:
        """Wait until no batch that was given waits any more."""
        self.look()
        with self._begun:
            while not self._closed and not self.given.empty():
                self._begun.wait()

    def _run(self) -> None:
        while (batch := self.given.get()) is not None:
            with self._begun:
                self._begun.notify_all()
            try:
                batch.builder.pack(self._codec, self._level)
            except Exception:
                # Whoever sends the batch tries it again, and reports it.
                _LOG.debug("a batch to %r could not be compressed", batch.topic, exc_info=True)
            batch.is_packing = False
            self._packed()

    def close(self) -> None:
        """End the thread; what is being compressed is waited for, and what waits is left."""
        with self._begun:
            self._closed = True
            self._begun.notify_all()
            thread = self._thread
        self.given.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()
