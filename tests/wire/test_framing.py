"""Frames out of any chunks of bytes, with memory that follows what has really arrived."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.wire.framing import (
    KEPT_BYTES_MAX,
    ROOM_BYTES_LEFT,
    ROOM_BYTES_MAX,
    ROOM_BYTES_MIN,
    FrameBuffer,
    FrameError,
)

FRAME_BYTES_MAX = 1024 * 1024

either_use = pytest.mark.parametrize("reuse", [True, False], ids=["reuse", "own"])


def framed(*payloads: bytes) -> bytes:
    return b"".join(struct.pack(">i", len(payload)) + payload for payload in payloads)


def receive(buffer: FrameBuffer, data: bytes) -> int:
    """Receive as much of `data` as there is room for, as a socket would; return how much."""
    room = buffer.room()
    size = min(len(room), len(data))
    room[:size] = data[:size]
    buffer.received(size)
    return size


def feed(buffer: FrameBuffer, data: bytes, chunk_bytes: int) -> list[bytes]:
    """Receive all of `data` in chunks and return copies of the frames that came out."""
    frames = []
    position = 0
    while position < len(data):
        position += receive(buffer, data[position : position + chunk_bytes])
        while (frame := buffer.next_frame()) is not None:
            frames.append(bytes(frame))
    return frames


@either_use
@pytest.mark.parametrize("chunk_bytes", [1, 3, 4, 5, 4096, 1 << 20])
def test_frames_come_out_whatever_the_chunks(reuse: bool, chunk_bytes: int) -> None:
    payloads = [b"", b"a", b"bc" * 1000, b"", b"d" * 5000, b"e" * 20_000, b"f"]
    buffer = FrameBuffer(FRAME_BYTES_MAX, reuse)
    assert feed(buffer, framed(*payloads), chunk_bytes) == payloads
    assert buffer.pending() == 0


@either_use
@given(data=st.data())
def test_frames_come_out_whatever_the_sizes(reuse: bool, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.one_of(st.integers(0, 50), st.integers(0, 12_000)), max_size=20))
    payloads = [bytes([index & 0xFF]) * size for index, size in enumerate(sizes)]
    buffer = FrameBuffer(FRAME_BYTES_MAX, reuse)
    stream, found = framed(*payloads), []
    while stream:
        chunk = data.draw(st.integers(1, 15_000))
        found += feed(buffer, stream[:chunk], chunk)
        stream = stream[chunk:]
    assert found == payloads


@either_use
def test_several_frames_in_one_chunk_are_handed_out_one_by_one(reuse: bool) -> None:
    buffer = FrameBuffer(FRAME_BYTES_MAX, reuse)
    receive(buffer, framed(b"one", b"two", b"three")[:-1])
    assert buffer.next_frame() == b"one"
    assert buffer.next_frame() == b"two"
    assert buffer.next_frame() is None
    assert buffer.pending() == 4 + 4
    receive(buffer, b"e")
    assert buffer.next_frame() == b"three"
    assert buffer.next_frame() is None


def test_frames_that_are_not_reused_keep_their_bytes() -> None:
    payloads = [bytes([index]) * (index * 97) for index in range(100)]
    buffer = FrameBuffer(FRAME_BYTES_MAX, reuse=False)
    stream, frames = framed(*payloads), []
    while stream:
        stream = stream[receive(buffer, stream[:1000]) :]
        while (frame := buffer.next_frame()) is not None:
            frames.append(frame)
    assert frames == payloads


def test_memory_is_reused_where_that_is_allowed() -> None:
    buffer = FrameBuffer(FRAME_BYTES_MAX, reuse=True)
    rooms = set()
    for _ in range(10):
        rooms.add(id(buffer.room().obj))
        feed(buffer, framed(b"x" * 1000), 1004)
    assert len(rooms) == 1


def test_small_frames_share_a_chunk_until_little_of_it_is_left() -> None:
    buffer = FrameBuffer(FRAME_BYTES_MAX, reuse=False)
    chunks: list[object] = []
    for number in range(100):
        chunk = buffer.room().obj
        if not chunks or chunks[-1] is not chunk:
            chunks.append(chunk)
        assert feed(buffer, framed(b"%060d" % number), 1000) == [b"%060d" % number]
    used_of_each = ROOM_BYTES_MIN - ROOM_BYTES_LEFT
    assert len(chunks) == 1 + 100 * 64 // used_of_each


@either_use
@pytest.mark.parametrize("size", [-1, -(1 << 31), 101, 0x16030100, 0x7FFFFFFF])
def test_a_size_that_cannot_be_is_an_error_that_shows_the_first_bytes(
    reuse: bool, size: int
) -> None:
    buffer = FrameBuffer(100, reuse)
    receive(buffer, framed(b"fine"))
    assert buffer.next_frame() == b"fine"
    receive(buffer, struct.pack(">i", size) + b"h" * 100)
    for _ in range(2):
        with pytest.raises(FrameError, match="at most 100 are allowed") as caught:
            buffer.next_frame()
        assert caught.value.size == size
        assert caught.value.head == struct.pack(">i", size) + b"h" * 60


@either_use
def test_the_largest_frame_is_accepted(reuse: bool) -> None:
    buffer = FrameBuffer(100, reuse)
    assert feed(buffer, framed(b"x" * 100), 7) == [b"x" * 100]


@either_use
def test_an_announced_size_alone_takes_no_memory(reuse: bool) -> None:
    buffer = FrameBuffer(1 << 30, reuse)
    receive(buffer, struct.pack(">i", 1 << 30))
    for _ in range(100):
        receive(buffer, b"x" * 10)
        assert len(buffer.room()) <= 2 * ROOM_BYTES_MIN


@either_use
def test_room_grows_with_what_arrives(reuse: bool) -> None:
    buffer = FrameBuffer(1 << 30, reuse)
    data = framed(bytes(8 * 1024 * 1024))
    position = 0
    while position < len(data):
        assert len(buffer.room()) <= max(ROOM_BYTES_MIN, 2 * position) + ROOM_BYTES_MAX
        position += receive(buffer, data[position : position + 60_000])
    assert buffer.next_frame() == data[4:]


@either_use
@pytest.mark.parametrize("chunk_bytes", [1, 100])
def test_bytes_that_trickle_in_are_seldom_copied(reuse: bool, chunk_bytes: int) -> None:
    """Every new chunk copies what is pending: there must be few of them, not one for each byte."""
    buffer = FrameBuffer(FRAME_BYTES_MAX, reuse)
    data = framed(bytes(100_000))
    chunks: list[object] = []
    position = 0
    while position < len(data):
        owner = buffer.room().obj
        if not chunks or chunks[-1] is not owner:
            chunks.append(owner)
        position += receive(buffer, data[position : position + chunk_bytes])
    assert buffer.next_frame() == data[4:]
    assert len(chunks) < 12


def test_a_buffer_that_grew_for_one_frame_is_let_go() -> None:
    buffer = FrameBuffer(2 * KEPT_BYTES_MAX, reuse=True)
    feed(buffer, framed(bytes(KEPT_BYTES_MAX + 1)), ROOM_BYTES_MAX)
    assert len(buffer.room()) <= ROOM_BYTES_MAX


def test_an_idle_buffer_lets_its_memory_go_and_a_busy_one_keeps_its_bytes() -> None:
    buffer = FrameBuffer(FRAME_BYTES_MAX, reuse=True)
    feed(buffer, framed(bytes(500_000)), 100_000)
    buffer.release()
    assert len(buffer.room()) == ROOM_BYTES_MIN
    receive(buffer, b"\x00\x00")
    buffer.release()
    receive(buffer, b"\x00\x01x")
    assert buffer.next_frame() == b"x"
