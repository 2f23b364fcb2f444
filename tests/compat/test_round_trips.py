"""What any client writes, every client reads back after a restart: in order, and equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla import Admin
from ottla.records.batch import iterate_headers
from ottla.wire.compression import NAMES
from tests.compat.peers import PRODUCERS, READERS, Sent
from tests.compat.serving import Serving

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
RECORDS_OF_EACH_CODEC = 2000


def records_of(codec: str) -> list[Sent]:
    """Return records with and without keys, values and headers."""
    records = []
    for number in range(RECORDS_OF_EACH_CODEC):
        key = None if number % 5 == 0 else b"key-%d" % (number % 100)
        value = b"%s-%d-" % (codec.encode(), number) + b"x" * (number % 300)
        headers: tuple[tuple[str, bytes | None], ...] = ()
        if number % 3 == 0:
            headers = (("number", b"%d" % number), ("same", b""), ("same", b"\xff\x00"))
        records.append(Sent(key, value, headers))
    return records


def codecs_in(folder: Path) -> set[str]:
    """Return the codecs of the batches in a partition's first segment."""
    data = (folder / "00000000000000000000.log").read_bytes()
    return {NAMES[header.codec] for header in iterate_headers(data)}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRODUCERS)
def test_10_000_records_survive_a_restart_and_are_read_by_everybody(
    name: str, tmp_path: Path
) -> None:
    expected = [record for codec in CODECS for record in records_of(codec)]
    with Serving(tmp_path / "store") as serving:
        with Admin(serving.address) as admin:
            admin.create_topic("everybody", 1)
        for codec in CODECS:
            PRODUCERS[name](serving.address, "everybody", records_of(codec), codec)
        serving.restart()
        assert codecs_in(tmp_path / "store" / "everybody-0") == set(CODECS)
        for reader, read in READERS.items():
            found = read(serving.address, "everybody", len(expected))
            assert len(found) == len(expected), reader
            assert found == expected, reader
