"""What a batch must be before it is appended, and what the broker changes in it.

A batch is taken over byte for byte wherever that is possible. It is copied and given a new checksum
where the topic stamps records itself or where its largest timestamp is not what it says, and built
anew where the topic wants another codec.

Kafka: LogValidator, UnifiedLog.analyzeAndValidateRecords.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import cython

from ottla.errors import CorruptRecords, InvalidRecords, UnsupportedCodec, codes
from ottla.records.batch import (
    CODEC_MASK,
    CRC_START,
    HEADER_BYTES,
    LOG_APPEND_TIME,
    NO_TIMESTAMP,
    TRANSACTIONAL,
    iterate_records,
    read_header,
    validate,
)
from ottla.records.builder import BatchBuilder
from ottla.wire.compression import GZIP, LZ4, NONE, SNAPPY, ZSTD
from ottla.wire.crc32c import crc32c

if cython.compiled:
    from cython.cimports.ottla.records.batch import BatchHeader, RecordsScan

if TYPE_CHECKING:
    from ottla.broker.configs import TopicConfig
    from ottla.records.batch import BatchHeader, RecordsScan
    from ottla.records.record import Record
    from ottla.wire import Buffer

CODECS = {"uncompressed": NONE, "gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}
"""What the config `compression.type` names; "producer" stands for whatever arrives."""

ZSTD_FIRST_VERSION = 7
"""The first version of Produce whose clients know zstd."""

_CRC = struct.Struct(">I")
_CRC_AT = 17
_ATTRIBUTES = struct.Struct(">h")
_ATTRIBUTES_AT = 21
_TIMESTAMP = struct.Struct(">q")
_MAX_TIMESTAMP_AT = 35
_SIZE_MAX = 0x7FFFFFFF
_NOT_A_PRODUCERS = TRANSACTIONAL | LOG_APPEND_TIME


class Refused(Exception):
    """A batch is not appended.

    Attributes:
        error: the error code.
        message: why, in words.
        records: the records that are wrong: (index in the batch, why).
    """

    def __init__(self, error: int, message: str, records: Sequence[tuple[int, str]] = ()) -> None:
        super().__init__(message)
        self.error = error
        self.message = message
        self.records = records


class Prepared:
    """A batch that may be appended.

    Attributes:
        batch: its bytes.
        header: its header.
        log_append_time_ms: how the broker stamped it, or -1.
    """

    def __init__(self, batch: Buffer, header: BatchHeader, log_append_time_ms: int) -> None:
        self.batch = batch
        self.header = header
        self.log_append_time_ms = log_append_time_ms


def prepare(
    batch: Buffer | None, config: TopicConfig, version: cython.int, now_ms: cython.longlong
) -> Prepared:
    """Check what a producer sent for one partition, and make of it what is appended.

    Args:
        batch: what it sent.
        config: the topic's config.
        version: of the Produce request.
        now_ms: the wall clock.

    Raises:
        Refused: it cannot be appended.
    """
    if not batch:
        raise Refused(codes.INVALID_RECORD, "a partition without a record batch")
    header: BatchHeader
    scan: RecordsScan
    header, scan = _validated(batch, config.max_message_bytes)
    if header.producer_id >= 0 or header.attributes & _NOT_A_PRODUCERS:
        _check_producer(header)
    codec: cython.int = header.attributes & CODEC_MASK
    if codec == ZSTD and version < ZSTD_FIRST_VERSION:
        raise Refused(
            codes.UNSUPPORTED_COMPRESSION_TYPE,
            f"Produce requests before version {ZSTD_FIRST_VERSION} cannot carry zstd",
        )
    if scan.first_null_key >= 0 and config.log_config.compact:
        raise _without_keys(batch, header)
    append_time = config.message_timestamp_type == "LogAppendTime"
    if not append_time:
        least = now_ms - config.message_timestamp_before_max_ms
        most = now_ms + config.message_timestamp_after_max_ms
        if scan.max_timestamp > most or NO_TIMESTAMP < least > scan.min_timestamp:
            _check_timestamps(batch, header, least, most)
    wanted: cython.int = CODECS.get(config.compression_type, codec)
    if codec != wanted:
        batch = _recompressed(batch, header, wanted)
        header = read_header(batch)
        if header.size > config.max_message_bytes:
            raise _too_large(header.size, config.max_message_bytes)
    if append_time:
        batch = _stamped(batch, header.attributes | LOG_APPEND_TIME, now_ms)
        return Prepared(batch, read_header(batch), now_ms)
    if header.max_timestamp != scan.max_timestamp:
        batch = _stamped(batch, header.attributes, scan.max_timestamp)
        header = read_header(batch)
    return Prepared(batch, header, NO_TIMESTAMP)


def _validated(batch: Buffer, bytes_max: int) -> tuple[BatchHeader, RecordsScan]:
    try:
        if len(batch) > bytes_max and len(batch) >= HEADER_BYTES:
            size = read_header(batch).size
            if bytes_max < size <= len(batch):
                raise _too_large(size, bytes_max)
        return validate(batch)
    except InvalidRecords as error:
        raise Refused(codes.INVALID_RECORD, error.what) from error
    except UnsupportedCodec as error:
        raise Refused(codes.UNSUPPORTED_COMPRESSION_TYPE, error.what) from error
    except CorruptRecords as error:
        raise Refused(codes.CORRUPT_MESSAGE, error.what) from error


def _too_large(size: int, bytes_max: int) -> Refused:
    return Refused(
        codes.MESSAGE_TOO_LARGE,
        f"The record batch size is {size} bytes, which exceeds the maximum configured value of "
        f"{bytes_max} (max.message.bytes).",
    )


@cython.cfunc
def _check_producer(header: BatchHeader) -> object:
    if header.attributes & TRANSACTIONAL:
        raise Refused(codes.INVALID_TXN_STATE, "this broker has no transactions")
    if header.attributes & LOG_APPEND_TIME:
        raise Refused(
            codes.INVALID_TIMESTAMP,
            "Invalid timestamp type in batch: a producer must not set LogAppendTime",
        )
    if header.producer_id >= 0 and (header.producer_epoch < 0 or header.base_sequence < 0):
        raise Refused(
            codes.INVALID_RECORD,
            f"epoch {header.producer_epoch} and sequence {header.base_sequence} of producer "
            f"{header.producer_id} cannot be",
        )
    return None


def _check_timestamps(batch: Buffer, header: BatchHeader, least: int, most: int) -> None:
    """Refuse records whose timestamps are too far from now. Kafka: validateTimestamp."""

    def is_wrong(record: Record) -> bool:
        timestamp = record.timestamp_ms
        return timestamp != NO_TIMESTAMP and not least <= timestamp <= most

    message = (
        f"a timestamp is out of range: it must be within [{least}, {most}], as "
        "message.timestamp.before.max.ms and message.timestamp.after.max.ms have it"
    )
    wrong = _wrong(batch, header, is_wrong, message)
    if wrong:
        raise Refused(codes.INVALID_TIMESTAMP, message, wrong)


def _without_keys(batch: Buffer, header: BatchHeader) -> Refused:
    message = "Compacted topic cannot accept message without key."
    wrong = _wrong(batch, header, lambda record: record.key is None, message)
    return Refused(codes.INVALID_RECORD, message, wrong)


def _wrong(
    batch: Buffer, header: BatchHeader, is_wrong: Callable[[Record], bool], message: str
) -> list[tuple[int, str]]:
    records = enumerate(iterate_records(batch, header))
    return [(index, message) for index, record in records if is_wrong(record)]


def _stamped(batch: Buffer, attributes: int, max_timestamp: int) -> bytearray:
    """Return a copy with other attributes and another largest timestamp."""
    copy = bytearray(batch)
    _ATTRIBUTES.pack_into(copy, _ATTRIBUTES_AT, attributes)
    _TIMESTAMP.pack_into(copy, _MAX_TIMESTAMP_AT, max_timestamp)
    _CRC.pack_into(copy, _CRC_AT, crc32c(memoryview(copy)[CRC_START:]))
    return copy


def _recompressed(batch: Buffer, header: BatchHeader, codec: int) -> memoryview:
    builder = BatchBuilder(header.size)
    try:
        for record in iterate_records(batch, header):
            builder.append(record.timestamp_ms, record.key, record.value, record.headers, _SIZE_MAX)
    except CorruptRecords as error:
        raise Refused(codes.CORRUPT_MESSAGE, error.what) from error
    return builder.build(
        codec,
        None,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        header.attributes & ~CODEC_MASK,
    )
