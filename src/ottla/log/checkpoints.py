"""The small text files of a store, in Kafka's formats.

    recovery-point-offset-checkpoint, log-start-offset-checkpoint,
    cleaner-offset-checkpoint                                        one for all partitions
    leader-epoch-checkpoint, partition.metadata                      one in each partition
    meta.properties                                                  one for the store

Kafka: CheckpointFile, OffsetCheckpointFile, LeaderEpochCheckpointFile, PartitionMetadataFile,
MetaProperties.
"""

from __future__ import annotations

import base64
import binascii
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ottla.errors import CorruptLog

if TYPE_CHECKING:
    from ottla.log.files import Files

RECOVERY_POINTS = "recovery-point-offset-checkpoint"
LOG_STARTS = "log-start-offset-checkpoint"
CLEANER_OFFSETS = "cleaner-offset-checkpoint"
LEADER_EPOCHS = "leader-epoch-checkpoint"
PARTITION_METADATA = "partition.metadata"
META_PROPERTIES = "meta.properties"

Offsets = dict[tuple[str, int], int]


def new_uuid() -> bytes:
    """Return 16 random bytes whose text does not begin with a dash. Kafka: Uuid.randomUuid."""
    while True:
        uuid = bytearray(os.urandom(16))
        uuid[6] = uuid[6] & 0x0F | 0x40
        uuid[8] = uuid[8] & 0x3F | 0x80
        if not uuid_text(uuid).startswith("-"):
            return bytes(uuid)


def uuid_text(uuid: bytes | bytearray) -> str:
    """Return 16 bytes as Kafka writes uuids: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(uuid).decode().rstrip("=")


def uuid_bytes(text: str) -> bytes:
    """Return the 16 bytes of a uuid as `uuid_text` writes it.

    Raises:
        ValueError: it is none.
    """
    try:
        uuid = base64.urlsafe_b64decode(text + "==")
    except binascii.Error as error:
        raise ValueError(f"{text!r} is not a uuid") from error
    if len(uuid) != 16:
        raise ValueError(f"{text!r} is not a uuid")
    return uuid


def encode_offsets(offsets: Offsets) -> bytes:
    """Encode an offset checkpoint: (topic, partition) -> offset."""
    lines = [f"{topic} {partition} {offset}" for (topic, partition), offset in offsets.items()]
    return _encode(lines)


def decode_offsets(content: bytes | None, path: str) -> Offsets:
    """Decode an offset checkpoint; nothing is in one that is not there.

    Raises:
        CorruptLog: it is damaged.
    """
    offsets = {}
    for entry in _decode(content, path):
        try:
            topic, partition, offset = entry.split(" ")
            offsets[topic, int(partition)] = int(offset)
        except ValueError as error:
            raise CorruptLog(path, 0, f"an entry that cannot be read: {entry!r}") from error
    return offsets


class OffsetCheckpoint:
    """An offset checkpoint and what stands in it.

    Raises:
        CorruptLog: the one that is there is damaged.
    """

    def __init__(self, files: Files, path: str) -> None:
        self._files = files
        self._path = path
        self._offsets = decode_offsets(files.read(path), path)
        self._is_behind = False
        self._writing = threading.Lock()

    def get(self, topic: str, partition: int) -> int:
        """Return a partition's offset, or 0 where none was noted."""
        return self._offsets.get((topic, partition), 0)

    def note(self, offsets: Offsets) -> Callable[[], None]:
        """Note other offsets, and return what makes them durable, in any thread.

        What was noted of other partitions stays.
        """
        self._offsets = self._offsets | offsets
        return self._write

    def drop(self, topic: str, partition: int) -> None:
        """Forget a partition that is gone; on the disk it may be noted until `forget`."""
        if (topic, partition) in self._offsets:
            kept = dict(self._offsets)
            del kept[topic, partition]
            self._offsets = kept
            self._is_behind = True

    def forget(self, topic: str, partition: int) -> None:
        """Durably forget a partition that is gone, before another takes its name."""
        self.drop(topic, partition)
        if self._is_behind:
            self._write()

    def _write(self) -> None:
        """Write what was noted last, so that no slow thread brings back what was before."""
        with self._writing:
            self._is_behind = False
            self._files.write(self._path, encode_offsets(self._offsets))


def encode_epochs(epochs: list[tuple[int, int]]) -> bytes:
    """Encode leader epochs as (epoch, its first offset), the oldest first."""
    return _encode([f"{epoch} {start}" for epoch, start in epochs])


def decode_epochs(content: bytes | None, path: str) -> list[tuple[int, int]]:
    """Decode leader epochs.

    Raises:
        CorruptLog: they are damaged.
    """
    epochs = []
    for entry in _decode(content, path):
        try:
            epoch, start = entry.split(" ")
            epochs.append((int(epoch), int(start)))
        except ValueError as error:
            raise CorruptLog(path, 0, f"an entry that cannot be read: {entry!r}") from error
    return epochs


def _encode(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in ["0", str(len(lines)), *lines]).encode()


def _decode(content: bytes | None, path: str) -> list[str]:
    if content is None:
        return []
    try:
        version, count, *entries = content.decode().splitlines()
        if not content.endswith(b"\n"):
            raise ValueError("the last line is cut off")
        if int(version) != 0 or int(count) != len(entries):
            raise ValueError("version or count is wrong")
    except ValueError as error:
        raise CorruptLog(path, 0, f"a checkpoint that cannot be read: {error}") from error
    return entries


def encode_partition_metadata(topic_id: bytes) -> bytes:
    """Encode a partition's topic id."""
    return f"version: 0\ntopic_id: {uuid_text(topic_id)}".encode()


def decode_partition_metadata(content: bytes | None, path: str) -> bytes | None:
    """Decode a partition's topic id; None where there is no such file.

    Raises:
        CorruptLog: it is damaged.
    """
    if content is None:
        return None
    try:
        fields = dict(line.split(": ", 1) for line in content.decode().splitlines())
        return uuid_bytes(fields["topic_id"])
    except (ValueError, KeyError) as error:
        raise CorruptLog(path, 0, f"a topic id that cannot be read: {error}") from error


def encode_properties(properties: dict[str, str]) -> bytes:
    """Encode `meta.properties`."""
    return "".join(f"{name}={value}\n" for name, value in properties.items()).encode()


def decode_properties(content: bytes) -> dict[str, str]:
    """Decode `meta.properties`; comments and lines without a value are passed over."""
    lines = content.decode(errors="replace").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}
