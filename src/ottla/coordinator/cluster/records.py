"""How metadata records stand in the metadata log.

A value is a frame version, the record's API key and its version, all unsigned varints, and the
record. There are no keys.

Kafka: AbstractApiMessageSerde, MetadataRecordSerde.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.errors import DecodeError
from ottla.protocol.codec import decode_from, encode_to
from ottla.protocol.messages.metadata_records import (
    ConfigRecord,
    PartitionRecord,
    ProducerIdsRecord,
    RemoveTopicRecord,
    TopicRecord,
)
from ottla.wire.cursor import Reader, Writer

if TYPE_CHECKING:
    from ottla.protocol.message import ApiMessage

_FRAME_VERSION = 1
_RECORD_VERSION = 0
_RECORDS: dict[int, type[ApiMessage]] = {
    cls.API_KEY: cls
    for cls in (ConfigRecord, PartitionRecord, ProducerIdsRecord, RemoveTopicRecord, TopicRecord)
}


class MetadataCodec:
    """Encodes and decodes metadata records."""

    def encode(self, record: ApiMessage) -> tuple[bytes | None, bytes | None]:
        writer = Writer()
        writer.uvarint(_FRAME_VERSION)
        writer.uvarint(record.API_KEY)
        writer.uvarint(_RECORD_VERSION)
        encode_to(writer, record, _RECORD_VERSION)
        return None, writer.joined()

    def decode(self, key: bytes | None, value: bytes | None) -> ApiMessage:
        reader = Reader(value or b"")
        frame_version = reader.uvarint()
        api_key, version = reader.uvarint(), reader.uvarint()
        cls = _RECORDS.get(api_key)
        if frame_version != _FRAME_VERSION or cls is None:
            raise DecodeError(f"a metadata record of frame {frame_version} and key {api_key}")
        record = decode_from(cls, reader, version)
        reader.finish()
        return record
