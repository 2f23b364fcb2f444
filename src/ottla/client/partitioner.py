# cython: cdivision=True
"""Which partition a record goes to.

A key goes where Java's client sends it: murmur2 of its bytes, byte for byte. A record without a
key goes where the last one went until a batch's worth of bytes is there (KIP-794), so that batches
fill; the next partition is drawn at random, and the longer the queue of a partition is the less
likely it is drawn.

Kafka: Utils.murmur2, BuiltInPartitioner.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import cython

_M = cython.declare(cython.uint, 0x5BD1E995)
_SEED = cython.declare(cython.uint, 0x9747B28C)
_MASK = cython.declare(cython.ulonglong, 0xFFFFFFFF)
_NO_LIMIT = 0x7FFFFFFF
_DRAWS_MAX = 32


def murmur2(data: bytes) -> int:
    """Return Kafka's 32-bit hash of bytes, unsigned. Kafka: Utils.murmur2."""
    return _murmur2(data, len(data))


def _murmur2(data: bytes, size: cython.Py_ssize_t) -> int:
    view: cython.p_const_uchar
    view = data
    m: cython.ulonglong = _M
    h: cython.ulonglong = (_SEED ^ size) & _MASK
    k: cython.ulonglong
    at: cython.Py_ssize_t = 0
    while size - at >= 4:
        k = view[at] | (view[at + 1] << 8) | (view[at + 2] << 16)
        k |= cython.cast(cython.ulonglong, view[at + 3]) << 24
        k = (k * m) & _MASK
        k ^= k >> 24
        k = (k * m) & _MASK
        h = ((h * m) & _MASK) ^ k
        at += 4
    rest: cython.Py_ssize_t = size - at
    if rest == 3:
        h ^= view[at + 2] << 16
    if rest >= 2:
        h ^= view[at + 1] << 8
    if rest >= 1:
        h ^= view[at]
        h = (h * m) & _MASK
    h ^= h >> 13
    h = (h * m) & _MASK
    h ^= h >> 15
    hashed: int = cython.cast(cython.uint, h)
    return hashed


class Partitioner:
    """Chooses the partitions of one topic's records.

    Attributes:
        partition: where the next record without a key goes.

    Args:
        partitions: how many the topic has.
        sticky_bytes: how many bytes go to one partition before another is drawn.
    """

    def __init__(self, partitions: int, sticky_bytes: int) -> None:
        self._partitions = partitions
        self._sticky_bytes = sticky_bytes
        self._bytes = 0
        self.partition = random.randrange(partitions)

    def for_key(self, key: bytes) -> int:
        """Return the partition of a key. Kafka: Utils.toPositive(Utils.murmur2(key)) % n."""
        return (_murmur2(key, len(key)) & 0x7FFFFFFF) % self._partitions

    def appended(self, size: cython.Py_ssize_t) -> bool:
        """Take note of bytes that went to `partition`; tells whether another is due."""
        self._bytes += size
        return self._bytes >= self._sticky_bytes and self._partitions > 1

    def left(self) -> int:
        """Return how many bytes are missing until another is due."""
        return _NO_LIMIT if self._partitions == 1 else self._sticky_bytes - self._bytes

    def draw(self, queued: Mapping[int, int]) -> None:
        """Draw the next partition: one that has so many batches less than the longest queue is so
        many times likelier, and one more.

        Args:
            queued: how many batches wait for each partition for which any wait; -1 for those
                without a leader, which are not drawn unless there is no other.
        """
        self._bytes = 0
        longest = max(0, *queued.values()) if queued else 0
        for _ in range(_DRAWS_MAX):  # quicker than to weigh all of them, as few have a queue
            drawn = random.randrange(self._partitions)
            if random.randrange(longest + 1) < _weight(queued.get(drawn, 0), longest):
                self.partition = drawn
                return
        weights = [_weight(queued.get(each, 0), longest) for each in range(self._partitions)]
        if not any(weights):
            self.partition = random.randrange(self._partitions)
            return
        self.partition = random.choices(range(len(weights)), weights)[0]


def _weight(queued: int, longest: int) -> int:
    return 0 if queued < 0 else longest + 1 - queued
