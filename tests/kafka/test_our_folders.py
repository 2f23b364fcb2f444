"""A real Kafka opens the partitions that we wrote, and goes on where we stopped.

Once it is told that they were stopped cleanly, so that it believes our indexes, snapshots and
checkpoints; and once it is not, so that it checks every batch and makes all of them anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ottla import Admin, Producer
from ottla.errors import codes
from ottla.protocol.messages.api_23_offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
)
from tests.kafka import our_store
from tests.kafka.our_store import TOPICS, Found, read
from tests.kafka.real_kafka import KafkaJars, RealKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

CHECKPOINTS = (
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "cleaner-offset-checkpoint",
)
ADOPTED = (*TOPICS, our_store.TRANSACTIONS)
KAFKA_S = "partition.metadata"
"""The topic has another id there."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Found]]:
    folder = tmp_path_factory.mktemp("ours") / "store"
    found = our_store.write_store(folder)
    our_store.write_transactions(folder)
    return folder, found


@pytest.mark.parametrize("topic", TOPICS)
def test_kafka_dump_log_has_nothing_to_say_about_what_we_wrote(
    written: tuple[Path, dict[str, Found]], kafka_jars: KafkaJars, topic: str
) -> None:
    folder, found = written
    dump = kafka_jars.dump_log(folder / f"{topic}-0")
    assert dump.count("| offset: ") >= len(found[topic]) > 0
    assert ("deleteHorizonMs: OptionalLong[" in dump) == (topic == "horizon")
    if topic == "idempotent":
        for producer_id, epoch in our_store.PRODUCERS:
            last = f"producerId: {producer_id} producerEpoch: {epoch} coordinatorEpoch: -1"
            assert last in dump


def test_kafka_dump_log_reads_our_metadata(
    written: tuple[Path, dict[str, Found]], kafka_jars: KafkaJars
) -> None:
    folder, _ = written
    kafka_jars.dump_log(folder / "__cluster_metadata-0")
    dump = kafka_jars.dump_records(folder / "__cluster_metadata-0", "cluster-metadata")
    for topic in TOPICS:
        assert f'"type":"TOPIC_RECORD","version":0,"data":{{"name":"{topic}"' in dump
    assert '"type":"PARTITION_RECORD"' in dump
    assert '"type":"PRODUCER_IDS_RECORD"' in dump
    assert '"name":"ottla.durability","value":"os"' in dump


def test_kafka_dump_log_reads_what_groups_have_committed(
    written: tuple[Path, dict[str, Found]], kafka_jars: KafkaJars
) -> None:
    folder, _ = written
    logs = [path for path in folder.glob("__consumer_offsets-*/*.log") if path.stat().st_size]
    dumps = [kafka_jars.dump_records(path.parent, "offsets") for path in logs]
    kafka_jars.dump_log(logs[0].parent)
    (dump,) = [dump for dump in dumps if f'"group":"{our_store.GROUP}"' in dump]
    assert '"topic":"relaxed","partition":0' in dump
    assert f'"offset":{our_store.DELETED},' in dump


def test_kafka_dump_log_reads_the_transactions_that_we_noted(
    written: tuple[Path, dict[str, Found]], kafka_jars: KafkaJars
) -> None:
    dump = kafka_jars.dump_log(written[0] / f"{our_store.TRANSACTIONS}-0")
    assert "producerId: 16 firstOffset: 4 lastOffset: 7 lastStableOffset: 8" in dump
    assert dump.count("endTxnMarker: ") == 3


@dataclass(frozen=True)
class Adopted:
    """A running Kafka whose partitions are those that we wrote.

    Attributes:
        address: where it listens.
        complaints: what it warned of until it served all of them.
    """

    address: str
    complaints: list[str]


@pytest.fixture(scope="module", params=["stopped cleanly", "crashed"])
def adopted(
    request: pytest.FixtureRequest,
    written: tuple[Path, dict[str, Found]],
    kafka_jars: KafkaJars,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Adopted]:
    kafka = RealKafka(kafka_jars, tmp_path_factory.mktemp("adopting"))
    try:
        kafka.start()
        with Admin(kafka.address) as admin:
            for topic in ADOPTED:
                admin.create_topic(topic, 1, configs={"segment.bytes": our_store.SEGMENT})
        kafka.stop()
        _put_in_place(written[0], kafka.data)
        if request.param == "crashed":
            (kafka.data / ".kafka_cleanshutdown").unlink()
        kafka.start()
        for topic in ADOPTED:
            read(kafka.address, topic)
        yield Adopted(kafka.address, kafka.complaints())
    finally:
        kafka.stop()


def _put_in_place(ours: Path, theirs: Path) -> None:
    for topic in ADOPTED:
        folder = theirs / f"{topic}-0"
        for path in folder.iterdir():
            if path.name != KAFKA_S:
                path.unlink()
        for path in (ours / f"{topic}-0").iterdir():
            if path.name != KAFKA_S:
                shutil.copy(path, folder / path.name)
    for name in CHECKPOINTS:
        shutil.copy(ours / name, theirs / name)


def test_a_real_kafka_complains_about_nothing(adopted: Adopted) -> None:
    assert adopted.complaints == []


@pytest.mark.parametrize("topic", TOPICS)
def test_a_real_kafka_serves_what_we_wrote_and_goes_on_behind_it(
    written: tuple[Path, dict[str, Found]], adopted: Adopted, topic: str
) -> None:
    found = written[1][topic]
    served = read(adopted.address, topic)
    assert served[: len(found)] == found  # other tests may have written behind it
    with Producer(adopted.address) as producer:
        stored = producer.send(topic, b"new", key=b"new").result(our_store.WAIT_S)
    assert stored.offset == served[-1][0] + 1


def test_a_real_kafka_begins_where_records_were_deleted(adopted: Adopted) -> None:
    assert read(adopted.address, "started")[0][0] == our_store.DELETED


@pytest.mark.parametrize("producer", our_store.PRODUCERS)
def test_a_real_kafka_knows_the_sequences_of_our_producers(
    adopted: Adopted, producer: tuple[int, int]
) -> None:
    """The last batch is a duplicate, one that is left out is missed, the next is appended."""
    sequence = 2 * (our_store.BATCHES - 1)
    batches = 2 * our_store.BATCHES - len(our_store.PRODUCERS)
    offset = 2 * (batches + our_store.PRODUCERS.index(producer))
    address = adopted.address
    assert our_store.produce_again(address, "idempotent", producer, sequence) == (0, offset)
    error, _ = our_store.produce_again(address, "idempotent", producer, sequence + 4)
    assert error == codes.OUT_OF_ORDER_SEQUENCE_NUMBER
    error, appended = our_store.produce_again(address, "idempotent", producer, sequence + 2)
    assert error == 0
    assert appended > offset


def test_a_real_kafka_knows_where_our_leader_epochs_ended(
    written: tuple[Path, dict[str, Found]], adopted: Adopted
) -> None:
    """The crash began epoch 1; ten records were written in it."""
    asked = OffsetForLeaderEpochRequest.OffsetForLeaderPartition(partition=0, leader_epoch=0)
    topic = OffsetForLeaderEpochRequest.OffsetForLeaderTopic(topic="crashed", partitions=[asked])
    request = OffsetForLeaderEpochRequest(replica_id=-1, topics=[topic])
    answer = our_store.ask(adopted.address, request, OffsetForLeaderEpochResponse, 3)
    assert isinstance(answer, OffsetForLeaderEpochResponse)
    told = answer.topics[0].partitions[0]
    last_offset = written[1]["crashed"][-1][0]
    assert (told.error_code, told.leader_epoch, told.end_offset) == (0, 0, last_offset + 1 - 10)


def test_a_real_kafka_leaves_out_what_our_index_says_was_aborted(adopted: Adopted) -> None:
    topic = our_store.TRANSACTIONS
    everything = [offset for offset, *_ in read(adopted.address, topic)]
    assert everything == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    committed = [offset for offset, *_ in read(adopted.address, topic, "read_committed")]
    assert committed == [0, 1, 2, 8, 9, 10]
