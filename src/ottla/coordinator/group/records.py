"""How the records of groups stand in `__consumer_offsets`.

    key      type 2, the key's fields       type: 0 or 1 an offset, 2 a classic group, 3.. others
    value    version 2, the value's fields  None: what the key names is gone

Every type that Kafka has is decoded, so that whoever replays picks what it knows; a type from a
later version is passed over, as Kafka does. Types 0 and 1 are the same but for the name.

Kafka: GroupCoordinatorRecordSerde, CoordinatorRecordSerde, GroupCoordinatorRecordHelpers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ottla.errors import DecodeError
from ottla.protocol.codec import decode_from, encode_to
from ottla.protocol.messages import group_records
from ottla.protocol.messages.group_records import (
    GroupMetadataKey,
    GroupMetadataValue,
    OffsetCommitKey,
    OffsetCommitValue,
)
from ottla.wire.cursor import Reader, Writer

if TYPE_CHECKING:
    from ottla.protocol.message import ApiMessage

_LEGACY_OFFSET, _OFFSET = 0, 1
_GROUP_VALUE_VERSION = 3
_OFFSET_VALUE_VERSION = 4
_OFFSET_VALUE_VERSION_WITH_EXPIRY = 1
"""The one version that says when a commit expires; it has no leader epoch and no topic id."""


def _classes(suffix: str) -> dict[int, type[ApiMessage]]:
    names = (name for name in group_records.__all__ if name.endswith(suffix))
    classes: list[type[ApiMessage]] = [getattr(group_records, name) for name in names]
    return {cls.API_KEY: cls for cls in classes}


_KEYS: dict[int, type[ApiMessage]] = {**_classes("Key"), _LEGACY_OFFSET: OffsetCommitKey}
_VALUES: dict[int, type[ApiMessage]] = {**_classes("Value"), _LEGACY_OFFSET: OffsetCommitValue}


class GroupRecord(NamedTuple):
    """One record of `__consumer_offsets`.

    Attributes:
        key: what it is about.
        value: what is so from now on; None: it is gone.
    """

    key: ApiMessage
    value: ApiMessage | None


class GroupCodec:
    """Encodes and decodes the records of groups."""

    def encode(self, record: GroupRecord) -> tuple[bytes | None, bytes | None]:
        key = _encoded(record.key, record.key.API_KEY, 0)
        if record.value is None:
            return key, None
        version = _version_of(record.value)
        return key, _encoded(record.value, version, version)

    def decode(self, key: bytes | None, value: bytes | None) -> GroupRecord | None:
        if key is None:
            raise DecodeError("a record of a group without a key")
        reader = Reader(key)
        kind = reader.int16()
        if kind not in _KEYS:
            return None
        decoded_key = _decoded(_KEYS[kind], reader, 0)
        if value is None:
            return GroupRecord(decoded_key, None)
        reader = Reader(value)
        version = reader.int16()
        value_class = _VALUES[kind]
        if not 0 <= version <= value_class.SCHEMA.versions[1]:
            raise DecodeError(f"{value_class.__name__} of version {version}")
        return GroupRecord(decoded_key, _decoded(value_class, reader, version))


def _version_of(value: ApiMessage) -> int:
    if isinstance(value, GroupMetadataValue):
        return _GROUP_VALUE_VERSION
    if isinstance(value, OffsetCommitValue):
        expires = value.expire_timestamp != -1
        return _OFFSET_VALUE_VERSION_WITH_EXPIRY if expires else _OFFSET_VALUE_VERSION
    return value.SCHEMA.versions[1]


def _encoded(message: ApiMessage, prefix: int, version: int) -> bytes:
    writer = Writer()
    writer.int16(prefix)
    encode_to(writer, message, version)
    return writer.joined()


def _decoded(cls: type[ApiMessage], reader: Reader, version: int) -> ApiMessage:
    message = decode_from(cls, reader, version)
    reader.finish()
    return message


def group_record(group_id: str, value: GroupMetadataValue | None) -> GroupRecord:
    """Return the record of a classic group; without a value, of its end."""
    return GroupRecord(GroupMetadataKey(group=group_id), value)


def offset_record(
    group_id: str, topic: str, partition: int, value: OffsetCommitValue | None
) -> GroupRecord:
    """Return the record of a committed offset; without a value, of its removal."""
    return GroupRecord(OffsetCommitKey(group=group_id, topic=topic, partition=partition), value)
