# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What compaction does with one batch: note its keys, and rewrite it with the records that stay.

A batch that loses records keeps its offsets, sequences and producer, so that nobody who counts them
sees a gap that is none. A record without a value stays until the batch's delete horizon has passed;
the horizon is set when the batch is first rewritten, and then stands in the field of the base
timestamp (attribute bit 6, KIP-534).

Kafka: Cleaner.shouldRetainRecord, MemoryRecords.filterTo, DefaultRecordBatch.writeEmptyHeader.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cython

from ottla.records.batch import (
    CODEC_MASK,
    CRC_START,
    HEADER_BYTES,
    LENGTH_END,
    NO_TIMESTAMP,
    BatchHeader,
    iterate_records,
)
from ottla.wire.compression import NONE, compress
from ottla.wire.crc32c import crc32c

if TYPE_CHECKING:
    from ottla.records.batch import RecordIterator
    from ottla.wire import Buffer

if cython.compiled:
    from cython.cimports.ottla.records.batch import RecordIterator  # noqa: TC002 - for its fields

DELETE_HORIZON = 0x40
"""The attribute bit that says that the base timestamp is the delete horizon."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
_CRC = struct.Struct(">I")
_CRC_AT = 17
_MAGIC = 2
_ENTRY_BYTES = cython.declare(cython.Py_ssize_t, 150)
"""About what an entry of a dictionary takes besides the key itself."""


def index_keys(
    data: Buffer, header: BatchHeader, latest: dict[bytes, int], offset_min: cython.longlong
) -> int:
    """Note the last offset of each key in a batch.

    Args:
        data: the buffer that the header was read from.
        header: the batch's header.
        latest: offsets by key; those of the batch's records are put in.
        offset_min: records before it do not count.

    Returns:
        About how many bytes of memory the new keys take.

    Raises:
        CorruptRecords: the records are not what the header says.
    """
    records: RecordIterator = iterate_records(data, header)
    added: cython.Py_ssize_t = 0
    while records._left > 0:
        records._step()
        if records._key_size < 0 or records._offset < offset_min:
            continue
        key: bytes = records._source.slice(records._key_start, records._key_size)
        if key not in latest:
            added += records._key_size + _ENTRY_BYTES
        latest[key] = records._offset
    return added


def filter_batch(
    data: Buffer,
    header: BatchHeader,
    latest: dict[bytes, int],
    offset_end: cython.longlong,
    now_ms: cython.longlong,
    delete_retention_ms: cython.longlong,
) -> Buffer | None:
    """Return a batch with only the records that stay.

    A record stays if it is the last of its key, and has a value or its delete horizon has not come.
    Records without a key go: a compacted topic has none.

    Args:
        data: the buffer that the header was read from.
        header: the batch's header.
        latest: offsets by key, of all records before `offset_end`.
        offset_end: what lies behind it stays.
        now_ms: milliseconds since 1970.
        delete_retention_ms: how long a record without a value stays from now on, if this is the
            first time that the batch is looked at.

    Returns:
        The batch as it is, the batch as it must be written, or None if no record stays.

    Raises:
        CorruptRecords: the records are not what the header says.
    """
    has_horizon: cython.bint = header.attributes & DELETE_HORIZON != 0
    keep_deletes: cython.bint = not has_horizon or now_ms < header.base_timestamp
    records: RecordIterator = iterate_records(data, header)
    kept: list[tuple[int, int, bytes]] = []
    has_deletes: cython.bint = False
    count: cython.int = records._left
    while records._left > 0:
        records._step()
        if records._offset < offset_end:
            if records._key_size < 0:
                continue
            key: bytes = records._source.slice(records._key_start, records._key_size)
            if latest.get(key, -1) > records._offset:
                continue
            if records._value_size < 0 and not keep_deletes:
                continue
        if records._value_size < 0:
            has_deletes = True
        kept.append(_record(records))
    if not kept:
        return None
    sets_horizon: cython.bint = has_deletes and not has_horizon
    if len(kept) == count and not sets_horizon:
        return memoryview(data)[header.position : header.position + header.size]
    horizon_ms = now_ms + delete_retention_ms if sets_horizon else header.base_timestamp
    return _rebuilt(header, kept, horizon_ms, sets_horizon)


def with_delete_horizon(data: Buffer, header: BatchHeader, horizon_ms: int) -> Buffer:
    """Return a batch with all its records and a delete horizon, in milliseconds since 1970."""
    records: RecordIterator = iterate_records(data, header)
    kept: list[tuple[int, int, bytes]] = []
    while records._left > 0:
        records._step()
        kept.append(_record(records))
    return _rebuilt(header, kept, horizon_ms, True)


@cython.cfunc
def _record(records: RecordIterator) -> tuple[int, int, bytes]:
    """Return timestamp and offset of the current record, and its bytes from the key on."""
    rest: bytes = _varint(records._key_size) + records._source.slice(
        records._key_start, records._end - records._key_start
    )
    return records._timestamp, records._offset, rest


def _rebuilt(
    header: BatchHeader, kept: list[tuple[int, int, bytes]], base_ms: int, sets_horizon: bool
) -> Buffer:
    body = bytearray()
    max_timestamp = NO_TIMESTAMP
    for timestamp, offset, rest in kept:
        max_timestamp = max(max_timestamp, timestamp)
        middle = _varint(timestamp - base_ms) + _varint(offset - header.base_offset)
        body += _varint(1 + len(middle) + len(rest))
        body.append(0)
        body += middle
        body += rest
    attributes = header.attributes & ~CODEC_MASK
    if sets_horizon:
        attributes |= DELETE_HORIZON
    if header.is_log_append_time:
        max_timestamp = header.max_timestamp
    content: Buffer = body
    if header.codec != NONE:
        packed = compress(header.codec, memoryview(body), None)
        if len(packed) < len(body):
            content = packed
            attributes |= header.codec
    return _batch(header, attributes, (base_ms, max_timestamp), len(kept), content)


def empty_batch(header: BatchHeader) -> Buffer:
    """Return a batch without records that keeps another's offsets, sequences and producer."""
    attributes = header.attributes & ~(CODEC_MASK | DELETE_HORIZON)
    return _batch(header, attributes, (NO_TIMESTAMP, header.max_timestamp), 0, b"")


def _batch(
    header: BatchHeader, attributes: int, timestamps: tuple[int, int], count: int, content: Buffer
) -> Buffer:
    """Put a header like another before records."""
    size = HEADER_BYTES + len(content)
    batch = bytearray(size)
    _HEADER.pack_into(
        batch,
        0,
        header.base_offset,
        size - LENGTH_END,
        header.leader_epoch,
        _MAGIC,
        0,
        attributes,
        header.last_offset_delta,
        *timestamps,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        count,
    )
    batch[HEADER_BYTES:] = content
    _CRC.pack_into(batch, _CRC_AT, crc32c(memoryview(batch)[CRC_START:]))
    return batch


def _varint(value: int) -> bytes:
    """Encode a zigzag varint."""
    bits = (value << 1) ^ (value >> 63)
    encoded = bytearray()
    while bits > 0x7F:
        encoded.append(bits & 0x7F | 0x80)
        bits >>= 7
    encoded.append(bits)
    return bytes(encoded)
