"""The exceptions that Ottla raises, except the one class per Kafka error code (`broker`).

    KafkaError
      ProtocolError
        LocalProtocolError     we were about to break the protocol
          EncodeError          a value that the version on the wire cannot carry
        RemoteProtocolError    the peer broke it
          DecodeError          bytes that are not what they must be
            CorruptRecords     a record batch that was damaged: checksum, size, structure
            InvalidRecords     a record batch that is whole, but says what cannot be
            UnsupportedCodec   a codec that is not one of Kafka's
          NotKafka             whatever answered does not speak Kafka
      BrokerError              an error code that a broker answered; see ottla.errors.broker
      StorageError
        CorruptLog             damage in a log: file, position, reason
        DiskFull               no space left
        StoreUnusable          not a store, not writable, or stopped after a failed fsync
        StoreInUse             another process owns the directory
      ClientError
        BrokerUnavailable      no broker could be reached
        Closed  Forked         the client can no longer be used
        Timeout                something did not happen in time
        BufferFull             the producer's buffer is full
        ConfigError            a setting that cannot be
        RecordError            a record that cannot be made from what was given
        DeliveryError          records that were not delivered
        GroupError             something is wrong with a consumer's place in its group
          CommitFailed         offsets were not committed, and will not be
          FencedMember         another member has taken its group.instance.id
          NoCommittedOffset    nothing is committed, and nothing says where to begin
        DeserializationFailed  a key or value that its deserializer cannot read
        WokenUp                `wakeup` was called
      OutcomeUnknown           a record that may or may not be stored

Each says what happened, what it means for the data, and what to do next; the text is built here
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class KafkaError(Exception):
    """The base of all of them.

    Args:
        what: what happened, in one sentence without a final stop.
        effect: what it means for the data; empty where it means nothing.
        next_steps: what to do next, one line each.
    """

    def __init__(self, what: str, effect: str = "", next_steps: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.effect = effect
        self.next_steps = tuple(next_steps)

    def __str__(self) -> str:
        lines = [self.what]
        if self.effect:
            lines.append(f"  {self.effect}")
        lines.extend(f"  {step}" for step in self.next_steps)
        return "\n".join(lines)


class ProtocolError(KafkaError):
    """Kafka's protocol was, or would have been, broken."""


class LocalProtocolError(ProtocolError):
    """We were about to break the protocol."""


class EncodeError(LocalProtocolError):
    """A value cannot be written in the version that was asked for."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol."""


class DecodeError(RemoteProtocolError):
    """Bytes from a peer or a disk are not what they must be."""


class CorruptRecords(DecodeError):
    """A record batch was damaged: its checksum, a size or its structure is wrong."""


class InvalidRecords(DecodeError):
    """A record batch arrived whole, but says what cannot be."""


class UnsupportedCodec(DecodeError):
    """A record batch names a codec that is not one of Kafka's."""


class NotKafka(RemoteProtocolError):
    """Whatever answered does not speak Kafka's protocol."""


class BrokerError(KafkaError):
    """An error code that a broker answered; there is one subclass for each code.

    Attributes:
        code: the number on the wire.
        name: Kafka's name of it, such as "UNKNOWN_TOPIC_OR_PARTITION".
        retriable: the same request may succeed later.
        refresh_metadata: the client should ask for metadata before it tries again.
    """

    code: int = -1
    name: str = "UNKNOWN_SERVER_ERROR"
    retriable: bool = False
    refresh_metadata: bool = False


class StorageError(KafkaError):
    """Something is wrong with a store or with the disk under it."""


class CorruptLog(StorageError):
    """A log holds bytes that are not what was written.

    Attributes:
        path: the file.
        position: where the damage begins, in bytes from the start of the file.
        reason: what is wrong there.
    """

    def __init__(self, path: str, position: int, reason: str, effect: str = "") -> None:
        super().__init__(f"{path} is damaged at byte {position}: {reason}", effect)
        self.path = path
        self.position = position
        self.reason = reason


class DiskFull(StorageError):
    """There is no space left where the store is."""


class StoreUnusable(StorageError):
    """The directory cannot be used as a store."""


class StoreInUse(StorageError):
    """Another process owns the directory.

    Attributes:
        path: the directory.
        pid: the owner's process id, 0 where it is not known.
        address: where the owner listens as "host:port", or "" where it does not.
    """

    def __init__(self, path: str, pid: int, command: str, address: str = "") -> None:
        holder = f"process {pid} ({command})" if pid else "another process"
        how = "stop that process and run `ottla serve` on the directory; then all reach it"
        if address:
            how = f"it is served already on {address}"
        share = f"Share it:          {how}"
        super().__init__(
            f"the store {path} is in use by {holder}",
            "Nothing was read or written.",
            (share, "Or use another:    give another directory"),
        )
        self.path = path
        self.pid = pid
        self.address = address


class ClientError(KafkaError):
    """Something is wrong on the client's side."""


class BrokerUnavailable(ClientError, ConnectionError):
    """No broker could be reached at the address.

    Attributes:
        address: what was to be reached.
        stage: how far it got: "resolve", "connect", "handshake", "metadata" or "advertised".
    """

    def __init__(
        self,
        what: str,
        effect: str = "",
        next_steps: Sequence[str] = (),
        *,
        address: str = "",
        stage: str = "connect",
    ) -> None:
        KafkaError.__init__(self, what, effect, next_steps)
        self.address = address
        self.stage = stage


class Closed(ClientError):
    """The client, store or broker was closed and cannot be used any more."""


class Forked(ClientError):
    """The client was made in a parent process and cannot be used after a fork."""


class Timeout(ClientError, TimeoutError):
    """Something did not happen within the time that was given."""


class BufferFull(ClientError, BufferError):
    """The producer's buffer has no room for the record."""


class ConfigError(ClientError, ValueError):
    """A setting or an argument has a value that cannot be."""


class RecordError(ClientError, ValueError):
    """A record cannot be made from what was given."""


class DeliveryError(ClientError):
    """Records were not delivered: `flush`, `close` or the end of a `with` block says so.

    Attributes:
        failed: how many records are known not to be stored, or whose outcome is unknown.
        pending: how many had no outcome yet.
        causes: the first different causes.
    """

    def __init__(
        self,
        what: str,
        effect: str,
        next_steps: Sequence[str] = (),
        *,
        failed: int = 0,
        pending: int = 0,
        causes: Sequence[BaseException] = (),
    ) -> None:
        super().__init__(what, effect, next_steps)
        self.failed = failed
        self.pending = pending
        self.causes = tuple(causes)


class FlushTimeout(DeliveryError, TimeoutError):
    """`flush(timeout)` ran out of time; the records are still on their way."""


class OutcomeUnknown(KafkaError):
    """A record was sent and no answer came: it may or may not be stored."""


class GroupError(ClientError):
    """Something is wrong with a consumer's place in its group."""


class CommitFailed(GroupError):
    """Offsets were not committed, and the same commit never will be.

    Attributes:
        partitions: what was not committed, as (topic, partition).
    """

    def __init__(
        self,
        what: str,
        effect: str = "",
        next_steps: Sequence[str] = (),
        *,
        partitions: Sequence[tuple[str, int]] = (),
    ) -> None:
        super().__init__(what, effect, next_steps)
        self.partitions = tuple(partitions)


class FencedMember(GroupError):
    """Another member has joined with the same group.instance.id; this one is out for good."""


class NoCommittedOffset(GroupError):
    """A group has committed nothing for a partition, and nothing says where to begin.

    Attributes:
        partitions: where, as (topic, partition).
    """

    def __init__(
        self,
        what: str,
        effect: str = "",
        next_steps: Sequence[str] = (),
        *,
        partitions: Sequence[tuple[str, int]] = (),
    ) -> None:
        super().__init__(what, effect, next_steps)
        self.partitions = tuple(partitions)


class DeserializationFailed(ClientError, ValueError):
    """A deserializer raised for a record's key or value; the position is behind the record.

    Attributes:
        record: the record, with its key and value as the bytes that they are.
        part: "key" or "value".
    """

    def __init__(
        self,
        what: str,
        effect: str = "",
        next_steps: Sequence[str] = (),
        *,
        record: Any = None,
        part: str = "value",
    ) -> None:
        super().__init__(what, effect, next_steps)
        self.record = record
        self.part = part


class WokenUp(ClientError):
    """Another thread called `wakeup`."""


class MissingExtra(ClientError, ImportError):
    """A library is not installed that only some need, and that is asked for by an extra."""
