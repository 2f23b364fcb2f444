"""The records of `__consumer_offsets`: Kafka's own ones are read, and ours are as Kafka's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla.coordinator.cluster.state import ClusterState
from ottla.coordinator.group.coordinator import GroupCoordinator
from ottla.coordinator.group.offsets import CommittedOffset
from ottla.coordinator.group.rebalance import Settings
from ottla.coordinator.group.records import (
    GroupCodec,
    GroupRecord,
    group_record,
    offset_record,
)
from ottla.coordinator.group.timers import Timers
from ottla.errors import DecodeError
from ottla.log.checkpoints import PARTITION_METADATA, decode_partition_metadata
from ottla.protocol.messages import group_records
from ottla.protocol.messages.group_records import (
    ConsumerGroupMetadataKey,
    GroupMetadataValue,
    OffsetCommitKey,
    OffsetCommitValue,
)
from ottla.records.batch import iterate_headers, iterate_records
from tests.protocol.golden import Vector, vectors

SEGMENTS = Path(__file__).parent.parent.parent / "data" / "segments"
GOLDEN = [each for each in vectors() if each.message in group_records.__all__]


def pair(vector: Vector) -> tuple[bytes, bytes | None]:
    """Return a golden key or value as a record, with a key of its type."""
    cls = getattr(group_records, vector.message)
    kind = cls.API_KEY.to_bytes(2, "big")
    if vector.message.endswith("Key"):
        return kind + vector.encoded, None
    key_name = vector.message.removesuffix("Value") + "Key"
    (key,) = [each.encoded for each in GOLDEN if each.message == key_name and each.case == "filled"]
    return kind + key, vector.version.to_bytes(2, "big") + vector.encoded


@pytest.mark.parametrize("vector", GOLDEN, ids=lambda vector: vector.id)
def test_every_record_that_kafka_writes_can_be_read(vector: Vector) -> None:
    record = GroupCodec().decode(*pair(vector))
    assert record is not None
    key, value = GroupCodec().encode(record)
    if record.key.API_KEY == 1:
        assert key is not None and key[2:] == pair(vector)[0][2:]
    else:
        assert key == pair(vector)[0]
    assert (value is None) == vector.message.endswith("Key")


def test_a_record_that_kafka_wrote_is_written_byte_for_byte() -> None:
    data = (SEGMENTS / "__consumer_offsets-5" / "00000000000000000000.log").read_bytes()
    codec = GroupCodec()
    for header in iterate_headers(data):
        for record in iterate_records(data, header):
            decoded = codec.decode(record.key, record.value)
            assert decoded is not None
            assert codec.encode(decoded) == (record.key, record.value)


def test_a_segment_that_kafka_wrote_is_loaded() -> None:
    data = (SEGMENTS / "__consumer_offsets-5" / "00000000000000000000.log").read_bytes()
    coordinator = GroupCoordinator(Timers().of_shard(5), Settings(), lambda: "", ClusterState(1))
    for header in iterate_headers(data):
        for record in iterate_records(data, header):
            decoded = GroupCodec().decode(record.key, record.value)
            assert decoded is not None
            coordinator.replay(decoded, record.offset, header.producer_id)
    (group,) = coordinator.groups.values()
    assert (group.group_id, group.state_name, group.protocol_type) == ("goldg", "Empty", None)
    found = coordinator.fetch("goldg", "goldtx", 0, stable=False)
    assert isinstance(found, CommittedOffset)
    assert (found.offset, found.leader_epoch, found.metadata) == (9, -1, "seen\0")
    assert found.commit_timestamp_ms == 0x1A207550A7C
    path = SEGMENTS / "goldtx-0" / PARTITION_METADATA
    assert found.topic_id == decode_partition_metadata(path.read_bytes(), str(path))


def test_a_commit_with_an_expiry_is_written_in_the_version_that_has_one() -> None:
    plain = OffsetCommitValue(offset=1, leader_epoch=2, topic_id=bytes(range(16)))
    limited = OffsetCommitValue(offset=1, expire_timestamp=5)
    for value, version in ((plain, 4), (limited, 1)):
        record = offset_record("g", "t", 3, value)
        key, encoded = GroupCodec().encode(record)
        assert encoded is not None and encoded[:2] == version.to_bytes(2, "big")
        assert GroupCodec().decode(key, encoded) == record


def test_a_group_is_written_in_version_3() -> None:
    value = GroupMetadataValue(protocol_type="consumer", protocol=None, leader=None)
    key, encoded = GroupCodec().encode(group_record("g", value))
    assert key == b"\0\2\0\1g"
    assert encoded is not None and encoded[:2] == b"\0\3"
    assert GroupCodec().decode(key, encoded) == group_record("g", value)


def test_the_end_of_a_group_or_an_offset_is_a_record_without_a_value() -> None:
    for record in (group_record("g", None), offset_record("g", "t", 0, None)):
        key, value = GroupCodec().encode(record)
        assert value is None
        assert GroupCodec().decode(key, value) == record


def test_offsets_of_the_first_format_are_offsets() -> None:
    record = GroupCodec().decode(b"\0\0\0\1g\0\1t\0\0\0\7", None)
    assert record == GroupRecord(OffsetCommitKey(group="g", topic="t", partition=7), None)


def test_a_type_of_a_later_version_is_passed_over() -> None:
    assert GroupCodec().decode(b"\x7f\x00 whatever", b"it is") is None


def test_records_of_other_kinds_of_groups_change_nothing() -> None:
    coordinator = GroupCoordinator(Timers().of_shard(5), Settings(), lambda: "", ClusterState(1))
    coordinator.replay(GroupRecord(ConsumerGroupMetadataKey(group_id="g"), None), 0, -1)
    assert coordinator.groups == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b""),
        (b"", None),
        (b"\0", None),
        (b"\0\1\0\1g", None),
        (b"\0\2\0\1g!", None),
        (b"\0\2\0\1g", b""),
        (b"\0\2\0\1g", b"\0\5"),
        (b"\0\2\0\1g", b"\xff\xff"),
        (b"\0\2\0\1g", b"\0\3\0\0"),
    ],
)
def test_what_is_no_record_is_an_error(key: bytes | None, value: bytes | None) -> None:
    with pytest.raises(DecodeError):
        GroupCodec().decode(key, value)
