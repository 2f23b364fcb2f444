"""The small text files: written as Kafka writes them, and refused where they are damaged."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.errors import CorruptLog
from ottla.log import checkpoints
from ottla.log.checkpoints import OffsetCheckpoint
from ottla.log.files import OsFiles
from ottla.log.memory_files import MemoryFiles

OFFSETS = {("t", 0): 5, ("other.topic-1", 12): 0, ("t", 1): 2**63 - 1}


def test_offsets_stand_one_in_a_line_behind_version_and_count() -> None:
    content = checkpoints.encode_offsets({("t", 0): 5, ("u-v", 12): 7})
    assert content == b"0\n2\nt 0 5\nu-v 12 7\n"
    assert checkpoints.encode_offsets({}) == b"0\n0\n"


@given(
    st.dictionaries(
        st.tuples(st.text("ab.-_", min_size=1), st.integers(0, 2**31 - 1)),
        st.integers(0, 2**63 - 1),
    )
)
def test_offsets_come_back(offsets: checkpoints.Offsets) -> None:
    assert checkpoints.decode_offsets(checkpoints.encode_offsets(offsets), "p") == offsets


@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1))))
def test_epochs_come_back(epochs: list[tuple[int, int]]) -> None:
    assert checkpoints.decode_epochs(checkpoints.encode_epochs(epochs), "p") == epochs


def test_nothing_is_in_a_file_that_is_not_there() -> None:
    assert checkpoints.decode_offsets(None, "p") == {}
    assert checkpoints.decode_epochs(None, "p") == []
    assert checkpoints.decode_partition_metadata(None, "p") is None


DAMAGED = [
    b"",
    b"0",
    b"0\n",
    b"1\n0\n",
    b"x\n0\n",
    b"0\nx\n",
    b"0\n-1\n",
    b"0\n2\nt 0 5\n",
    b"0\n0\nt 0 5\n",
    b"0\n1\nt 0\n",
    b"0\n1\nt 0 5 6\n",
    b"0\n1\nt zero 5\n",
    b"0\n1\nt 0 five\n",
    b"0\n1\n\xff 0 5\n",
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_checkpoint_is_refused_with_its_path(content: bytes) -> None:
    with pytest.raises(CorruptLog) as caught:
        checkpoints.decode_offsets(content, "store/checkpoint")
    assert caught.value.path == "store/checkpoint"
    with pytest.raises(CorruptLog):
        checkpoints.decode_epochs(content, "store/epochs")


@pytest.mark.parametrize("size", range(len(checkpoints.encode_offsets(OFFSETS))))
def test_a_checkpoint_that_is_cut_off_is_never_read_as_another(size: int) -> None:
    content = checkpoints.encode_offsets(OFFSETS)
    try:
        found = checkpoints.decode_offsets(content[:size], "p")
    except CorruptLog:
        return
    pytest.fail(f"{content[:size]!r} was read as {found}")


@given(st.binary(max_size=60))
def test_no_bytes_do_anything_but_be_refused_or_read(content: bytes) -> None:
    for decode in (
        checkpoints.decode_offsets,
        checkpoints.decode_epochs,
        checkpoints.decode_partition_metadata,
    ):
        with contextlib.suppress(CorruptLog):
            decode(content, "p")
    checkpoints.decode_properties(content)


def test_a_partition_s_metadata_is_written_as_kafka_writes_it() -> None:
    topic_id = bytes(range(16))
    content = checkpoints.encode_partition_metadata(topic_id)
    assert content == b"version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw"
    assert checkpoints.decode_partition_metadata(content, "p") == topic_id
    assert checkpoints.decode_partition_metadata(content + b"\n", "p") == topic_id


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version: 0\n",
        b"version: 0\ntopic_id",
        b"version: 0\ntopic_id: \n",
        b"version: 0\ntopic_id: AAECAwQFBgcICQoLDA0O",
        b"version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODwAA",
    ],
)
def test_a_damaged_topic_id_is_refused(content: bytes) -> None:
    with pytest.raises(CorruptLog) as caught:
        checkpoints.decode_partition_metadata(content, "t-0/partition.metadata")
    assert caught.value.path == "t-0/partition.metadata"


def test_new_ids_are_random_and_never_look_like_an_option() -> None:
    ids = {checkpoints.new_uuid() for _ in range(500)}
    assert len(ids) == 500
    for each in ids:
        text = checkpoints.uuid_text(each)
        assert not text.startswith("-")
        assert checkpoints.uuid_bytes(text) == each
        assert (each[6] >> 4, each[8] >> 6) == (4, 2)


def test_properties_come_back_without_comments_and_blanks() -> None:
    properties = {"version": "1", "cluster.id": "a=b", "node.id": "1"}
    content = checkpoints.encode_properties(properties)
    assert content == b"version=1\ncluster.id=a=b\nnode.id=1\n"
    found = checkpoints.decode_properties(b"#Mon Nov 23\n\nno value\n" + content)
    assert found == properties
    assert checkpoints.decode_properties(b" node.id = 1 \r\n") == {"node.id": "1"}


def test_what_is_noted_is_there_at_once_and_durable_once_it_is_written() -> None:
    files = MemoryFiles(model_power_cuts=True)
    checkpoint = OffsetCheckpoint(files, "s/c")
    write = checkpoint.note(OFFSETS)
    assert checkpoint.get("t", 0) == 5
    assert OffsetCheckpoint(files, "s/c").get("t", 0) == 0
    write()
    again = OffsetCheckpoint(files.after_power_cut(), "s/c")
    assert [again.get(*key) for key in OFFSETS] == list(OFFSETS.values())


def test_only_what_is_there_is_forgotten_and_kept() -> None:
    files = MemoryFiles()
    checkpoint = OffsetCheckpoint(files, "s/c")
    checkpoint.note({("t", 0): 5, ("u", 0): 6})()
    checkpoint.forget("other", 0)
    checkpoint.forget("t", 0)
    assert files.read("s/c") == b"0\n1\nu 0 6\n"
    checkpoint.note({("v", 0): 7})()
    assert files.read("s/c") == b"0\n2\nu 0 6\nv 0 7\n"


def test_what_was_dropped_is_durably_gone_before_another_takes_its_name() -> None:
    files = MemoryFiles()
    checkpoint = OffsetCheckpoint(files, "s/c")
    checkpoint.note({("t", 0): 5})()
    checkpoint.drop("t", 0)
    assert files.read("s/c") == b"0\n1\nt 0 5\n"
    checkpoint.forget("t", 0)
    assert files.read("s/c") == b"0\n0\n"


def test_threads_that_write_one_checkpoint_do_not_disturb_each_other(tmp_path: Path) -> None:
    checkpoint = OffsetCheckpoint(OsFiles(), str(tmp_path / "c"))
    failed: list[BaseException] = []
    start = threading.Barrier(4)

    def write_often() -> None:
        start.wait()
        try:
            for offset in range(50):
                checkpoint.note({("t", 0): offset})()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert OffsetCheckpoint(OsFiles(), str(tmp_path / "c")).get("t", 0) == checkpoint.get("t", 0)
