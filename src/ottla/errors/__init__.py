"""Every exception that Ottla raises.

The tree is drawn in `ottla.errors.tree`; `ottla.errors.broker` has one class for each of Kafka's
error codes, all of them subclasses of `BrokerError`, and `ottla.errors.codes` the numbers.
"""

from collections.abc import Sequence

from ottla.errors import codes, tree
from ottla.errors.broker import *  # noqa: F403 - one class for each code, listed in its __all__
from ottla.errors.broker import BY_CODE
from ottla.errors.broker import __all__ as _broker_errors
from ottla.errors.tree import (
    BrokerError,
    BrokerUnavailable,
    BufferFull,
    ClientError,
    Closed,
    CommitFailed,
    ConfigError,
    CorruptLog,
    CorruptRecords,
    DecodeError,
    DeliveryError,
    DeserializationFailed,
    DiskFull,
    EncodeError,
    FencedMember,
    FlushTimeout,
    Forked,
    GroupError,
    InvalidRecords,
    KafkaError,
    LocalProtocolError,
    MissingExtra,
    NoCommittedOffset,
    NotKafka,
    OutcomeUnknown,
    ProtocolError,
    RecordError,
    RemoteProtocolError,
    StorageError,
    StoreInUse,
    StoreUnusable,
    Timeout,
    UnsupportedCodec,
    WokenUp,
)


def broker_error(
    code: int, what: str = "", effect: str = "", next_steps: Sequence[str] = ()
) -> BrokerError:
    """Make the exception for an error code that a broker answered.

    Args:
        code: the number on the wire; one that is not known becomes a plain `BrokerError`.
        what: what was refused; the code's name stands behind it.
        effect: what it means for the data.
        next_steps: what to do next.
    """
    cls = BY_CODE.get(code, BrokerError)
    name = cls.name if code in BY_CODE else f"error code {code}"
    error = cls(f"{what}: {name}" if what else name, effect, next_steps)
    error.code = code
    return error


__all__ = [  # noqa: PLE0604 - the last line adds a list of names
    "BrokerError",
    "BrokerUnavailable",
    "BufferFull",
    "ClientError",
    "Closed",
    "CommitFailed",
    "ConfigError",
    "CorruptLog",
    "CorruptRecords",
    "DecodeError",
    "DeliveryError",
    "DeserializationFailed",
    "DiskFull",
    "EncodeError",
    "FencedMember",
    "FlushTimeout",
    "Forked",
    "GroupError",
    "InvalidRecords",
    "KafkaError",
    "LocalProtocolError",
    "MissingExtra",
    "NoCommittedOffset",
    "NotKafka",
    "OutcomeUnknown",
    "ProtocolError",
    "RecordError",
    "RemoteProtocolError",
    "StorageError",
    "StoreInUse",
    "StoreUnusable",
    "Timeout",
    "UnsupportedCodec",
    "WokenUp",
    "broker_error",
    "codes",
    "tree",
    *_broker_errors,
]
