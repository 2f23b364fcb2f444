"""What a repair leaves is what Kafka's own tools have nothing to say about."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ottla.broker.fsck import check
from ottla.log.files import OsFiles
from ottla.records.batch import iterate_headers
from tests.kafka import our_store
from tests.kafka.our_store import TOPICS, Found, read
from tests.kafka.real_kafka import KafkaJars

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Found]]:
    folder = tmp_path_factory.mktemp("repaired") / "store"
    return folder, our_store.write_store(folder)


def test_nothing_is_wrong_with_a_store_to_which_everything_has_happened(
    written: tuple[Path, dict[str, Found]],
) -> None:
    report = check(OsFiles(read_only=True), str(written[0]))
    assert [str(each) for each in report.findings] == []
    assert report.counts.records > 500


@pytest.mark.kafka
def test_kafka_dump_log_has_nothing_to_say_about_repaired_partitions(
    written: tuple[Path, dict[str, Found]], kafka_jars: KafkaJars, tmp_path: Path
) -> None:
    found = written[1]
    folder = shutil.copytree(written[0], tmp_path / "store")
    damaged = {}
    for topic in TOPICS:
        path = max((folder / f"{topic}-0").glob("*.log"), key=lambda path: path.stat().st_size)
        content = bytearray(path.read_bytes())
        batches = list(iterate_headers(content))
        content[batches[len(batches) // 2].position + 70] ^= 1
        path.write_bytes(content)
        damaged[topic] = path
    report = check(OsFiles(), str(folder), repair=True)
    assert report.is_well
    told = {each.path: each for each in report.findings}
    assert set(told) == {str(path) for path in damaged.values()}
    for topic, path in damaged.items():
        kafka_jars.dump_log(path.parent)
        lost = told[str(path)]
        assert lost.offset is not None
        assert lost.offset_end is not None
        left = [each for each in found[topic] if not lost.offset <= each[0] < lost.offset_end]
        assert len(left) < len(found[topic])
        assert read(folder, topic) == left
