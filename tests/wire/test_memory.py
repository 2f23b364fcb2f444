"""Memory that is lent: never to two at once, and again when nobody has a view of it."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from ottla.wire.memory import CHUNKS_MAX, Memory, Spares


def test_memory_that_somebody_has_a_view_of_is_not_lent_again() -> None:
    memory = Memory(1 << 20)
    first = memory.lend(5000)
    part = first[10:20].toreadonly()
    chunk = first.obj
    del first
    gc.collect()
    assert memory.lend(5000).obj is not chunk
    del part
    lent = [memory.lend(5000) for _ in range(2)]
    assert any(each.obj is chunk for each in lent)
    assert lent[0].obj is not lent[1].obj


def test_what_was_lent_last_is_lent_first_again() -> None:
    memory = Memory(1 << 20)
    lent = [memory.lend(5000) for _ in range(3)]
    chunks = [each.obj for each in lent]
    del lent
    gc.collect()
    for _ in range(3):
        assert memory.lend(5000).obj is chunks[2]
    held = memory.lend(5000)
    assert memory.lend(5000).obj is chunks[1]
    del held
    gc.collect()
    assert memory.lend(5000).obj is chunks[1]


def test_what_is_more_than_may_be_kept_is_as_any_other_memory() -> None:
    memory = Memory(8192)
    chunk = memory.lend(1 << 20).obj
    assert isinstance(chunk, bytearray)
    assert len(chunk) == 1 << 20
    assert memory.lend(1 << 20).obj is not chunk


@given(
    sizes=st.lists(st.tuples(st.integers(0, 40_000), st.booleans()), max_size=3 * CHUNKS_MAX),
    kept_bytes_max=st.sampled_from([0, 4096, 65536, 1 << 22]),
)
def test_each_has_its_own_memory_of_at_least_the_size_it_asked_for(
    sizes: list[tuple[int, bool]], kept_bytes_max: int
) -> None:
    memory = Memory(kept_bytes_max)
    held: list[tuple[memoryview, int]] = []
    for index, (size, is_held) in enumerate(sizes):
        view = memory.lend(size)
        assert len(view) >= size
        view[:] = bytes([index % 256]) * len(view)
        if is_held:
            held.append((view, index % 256))
        del view
    for view, filling in held:
        assert bytes(view) == bytes([filling]) * len(view)


def test_a_spare_buffer_is_taken_once_nobody_looks_at_it_and_the_last_one_first() -> None:
    spares = Spares(8)
    assert spares.take() is None
    first, second = bytearray(8), bytearray(8)
    view = memoryview(second)[2:4]
    for each in (first, second, bytearray(9)):
        spares.put(each)
    assert len(spares) == 2, "one of another size was kept"
    assert spares.take() is None, "somebody looks at the last one"
    assert spares.take() is first
    assert spares.take() is None
    view.release()
    assert spares.take() is second
    assert len(second) == 8


def test_of_spare_buffers_those_are_let_go_of_that_were_used_longest_ago() -> None:
    spares = Spares(8)
    buffers = [bytearray(8) for _ in range(3)]
    for each in buffers:
        spares.put(each)
    spares.reduce(1)
    assert len(spares) == 1
    assert spares.take() is buffers[2]
