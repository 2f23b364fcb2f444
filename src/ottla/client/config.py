"""The settings of the clients, under Kafka's names with underscores.

Times that end in `_ms` are milliseconds, sizes are bytes.

Kafka: ProducerConfig, ConsumerConfig, AdminClientConfig.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ottla.errors import ConfigError, DeserializationFailed
from ottla.wire.compression import NAMES

Serializer = Callable[[Any], bytes | None]
Deserializer = Callable[[bytes], Any]

ACKS_ALL = -1
ASSIGNOR_NAMES = ("cooperative-sticky", "range", "roundrobin")
"""The names of `ottla.client.assignors.ASSIGNORS`; what is compiled must not load those."""

GROUP_PROTOCOLS = ("classic", "consumer")
_CLASSIC_ONLY = ("session_timeout_ms", "heartbeat_interval_ms", "partition_assignment_strategy")
"""What the members of a classic group choose, and in the consumer protocol the broker."""

STARTUP_TIMEOUT_MS = 5000.0
"""How long a broker that was never reached is tried, unless the user says otherwise."""


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """What every client can be told.

    Attributes:
        client_id: what to be called in the broker's log.
        request_timeout_ms: how long an answer may take before the connection is given up.
        retry_backoff_ms: how long to wait before something is tried again.
        metadata_max_age_ms: how old what is known of the cluster may become.
        startup_timeout_ms: how long a broker that was never reached is tried; None for a few
            seconds, or three refusals.
    """

    client_id: str = "ottla"
    request_timeout_ms: float = 30_000
    retry_backoff_ms: float = 100
    metadata_max_age_ms: float = 300_000
    startup_timeout_ms: float | None = None

    @property
    def startup_limit_ms(self) -> float:
        """How long a broker that was never reached is tried, and one connection is waited for."""
        given = self.startup_timeout_ms
        return STARTUP_TIMEOUT_MS if given is None else given

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            if numeric and value < 0 and field.name not in ("acks",):
                raise ConfigError(f"{field.name}={value!r}: it must not be negative")


@dataclass(frozen=True, kw_only=True)
class ProducerConfig(ClientConfig):
    """What a producer can be told.

    Attributes:
        acks: "all" (or -1) and 1: stored and readable before it counts as delivered; 0: sent.
        enable_idempotence: whether a record that is sent again is stored once; needs acks="all".
        linger_ms: how long a batch waits for more records; `flush` cuts it short.
        batch_size: how large a batch may become before compression.
        max_request_size: how large a request, and a record in it, may become.
        buffer_memory: how many bytes of records may be undelivered at once.
        max_block_ms: how long `send` waits for room in the buffer.
        delivery_timeout_ms: how long a record may take from `send` to its confirmation.
        compression_type: "none", "gzip", "snappy", "lz4" or "zstd".
        compression_level: the codec's level; None for its default.
        max_in_flight_requests_per_connection: how many requests may wait for an answer; at most 5
            with idempotence.
        key_serializer: makes the bytes of a key; None stays None.
        value_serializer: makes the bytes of a value; None stays None.
        trace: whether the life of every record is recorded.
    """

    acks: str | int = "all"
    enable_idempotence: bool | None = None
    linger_ms: float = 5
    batch_size: int = 512 * 1024
    max_request_size: int = 1024 * 1024
    buffer_memory: int = 64 * 1024 * 1024
    max_block_ms: float = 60_000
    delivery_timeout_ms: float = 120_000
    compression_type: str = "none"
    compression_level: int | None = None
    max_in_flight_requests_per_connection: int = 5
    key_serializer: Serializer | None = None
    value_serializer: Serializer | None = None
    trace: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.acks not in ("all", -1, 0, 1, "-1", "0", "1"):
            raise ConfigError(f"acks={self.acks!r}: it must be 'all', 0 or 1")
        if self.compression_type not in NAMES:
            known = ", ".join(repr(name) for name in NAMES)
            raise ConfigError(f"compression_type={self.compression_type!r}: it must be {known}")
        if self.enable_idempotence and self.required_acks != ACKS_ALL:
            raise ConfigError(
                f"acks={self.acks!r} with enable_idempotence=True: idempotence needs acks='all'"
            )
        in_flight = self.max_in_flight_requests_per_connection
        if in_flight < 1 or (self.enable_idempotence and in_flight > 5):
            raise ConfigError(
                f"max_in_flight_requests_per_connection={in_flight}: it must be at least 1, and "
                "at most 5 with enable_idempotence=True"
            )
        if self.batch_size < 1 or self.buffer_memory < 1 or self.max_request_size < 1:
            raise ConfigError("batch_size, buffer_memory and max_request_size must be at least 1")

    @property
    def required_acks(self) -> int:
        """The acks as they stand in a request: -1, 0 or 1."""
        return ACKS_ALL if self.acks == "all" else int(self.acks)

    @property
    def is_idempotent(self) -> bool:
        """Whether the producer is idempotent: by default wherever it can be."""
        if self.enable_idempotence is not None:
            return self.enable_idempotence
        return self.required_acks == ACKS_ALL and self.max_in_flight_requests_per_connection <= 5

    @property
    def codec(self) -> int:
        """The number of the compression codec."""
        return NAMES.index(self.compression_type)


@dataclass(frozen=True, kw_only=True)
class ConsumerConfig(ClientConfig):
    """What a consumer can be told.

    Attributes:
        fetch_min_bytes: a broker answers a fetch when it has so many bytes,
        fetch_max_wait_ms: or when so much time has passed.
        fetch_max_bytes: how many bytes one fetch brings at most; none is sent while so many lie
            here unread.
        max_partition_fetch_bytes: how many of one partition.
        max_poll_records: how many records `poll` gives at most, unless it is told.
        isolation_level: "read_uncommitted" or "read_committed".
        auto_offset_reset: where to go on where a position is not in the log any more, and in a
            group where nothing is committed and no `start` given: "earliest", "latest" or "none"
            (raise).
        key_deserializer: makes a key of bytes; None stays None.
        value_deserializer: makes a value of bytes; None stays None.
        on_poison: what becomes of a record that a deserializer raises for: "raise"
            (`DeserializationFailed`), "skip" (it is logged), or a function that is called with the
            error, see `ottla.client.poison.dead_letters`. The position moves on in any case.
        group_id: the group; None for none. The same as `group`.
        group_instance_id: makes it a static member, which keeps its partitions for
            a session when it is stopped and started again (KIP-345).
        group_protocol: "consumer", where the broker assigns the partitions (KIP-848), or "classic";
            None for the first where the broker and the group have it, unless one of the three
            settings is given that only the second has.
        group_remote_assignor: by whom the broker has them assigned, with "consumer": "uniform",
            "range", or another one that it has; None for the first of its own.
        session_timeout_ms: a member that is not heard of for so long is out; with "classic", as
            the next one: with "consumer" both are the broker's to choose.
        heartbeat_interval_ms: how often it is heard of.
        max_poll_interval_ms: a member that does not ask for records for so long leaves: it logs
            that, and joins again when it polls again. A rebalance waits for members that long.
        enable_auto_commit: whether what was finished is committed by itself: what was given before
            the current poll, or before the record that an iterator has given last.
        auto_commit_interval_ms: how often.
        partition_assignment_strategy: with "classic" the assignors that it offers, the best one
            first: "cooperative-sticky", "range", "roundrobin".
        trace: whether it is recorded when what was fetched.
    """

    fetch_min_bytes: int = 1
    fetch_max_wait_ms: float = 500
    fetch_max_bytes: int = 50 * 1024 * 1024
    max_partition_fetch_bytes: int = 2 * 1024 * 1024
    max_poll_records: int = 500
    isolation_level: str = "read_uncommitted"
    auto_offset_reset: str = "earliest"
    key_deserializer: Deserializer | None = None
    value_deserializer: Deserializer | None = None
    on_poison: str | Callable[[DeserializationFailed], object] = "raise"
    group_id: str | None = None
    group_instance_id: str | None = None
    group_protocol: str | None = None
    group_remote_assignor: str | None = None
    session_timeout_ms: float = 45_000
    heartbeat_interval_ms: float = 3000
    max_poll_interval_ms: float = 300_000
    enable_auto_commit: bool = True
    auto_commit_interval_ms: float = 5000
    partition_assignment_strategy: str | Sequence[str] = ("cooperative-sticky", "range")
    trace: bool = False

    @property
    def assignors(self) -> tuple[str, ...]:
        """The names of the assignors."""
        given = self.partition_assignment_strategy
        return tuple(given.split(",")) if isinstance(given, str) else tuple(given)

    @property
    def protocol(self) -> str | None:
        """The protocol that was chosen, by name or by what else was; None for none."""
        if self.group_protocol is not None:
            return self.group_protocol
        if self._changed(_CLASSIC_ONLY):
            return "classic"
        return None if self.group_remote_assignor is None else "consumer"

    def _changed(self, names: Sequence[str]) -> list[str]:
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        return [name for name in names if getattr(self, name) != fields[name]]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_group()
        if not callable(self.on_poison) and self.on_poison not in ("raise", "skip"):
            raise ConfigError(
                f"on_poison={self.on_poison!r}: it must be 'raise', 'skip' or a function"
            )
        if self.isolation_level not in ("read_uncommitted", "read_committed"):
            raise ConfigError(
                f"isolation_level={self.isolation_level!r}: it must be 'read_uncommitted' or "
                "'read_committed'"
            )
        if self.auto_offset_reset not in ("earliest", "latest", "none"):
            raise ConfigError(
                f"auto_offset_reset={self.auto_offset_reset!r}: it must be 'earliest', 'latest' "
                "or 'none'"
            )

    def _check_protocol(self) -> None:
        given = self.group_protocol
        if given is not None and given not in GROUP_PROTOCOLS:
            raise ConfigError(
                f"group_protocol={given!r}: it must be 'classic' or 'consumer', or left out"
            )
        classic = self._changed(_CLASSIC_ONLY)
        if classic and (given == "consumer" or self.group_remote_assignor is not None):
            raise ConfigError(
                f"{classic[0]} is for group_protocol='classic'; in the consumer protocol the "
                "broker chooses it"
            )
        if given == "classic" and self.group_remote_assignor is not None:
            raise ConfigError("group_remote_assignor is for group_protocol='consumer'")

    def _check_group(self) -> None:
        self._check_protocol()
        unknown = [name for name in self.assignors if name not in ASSIGNOR_NAMES]
        if unknown or not self.assignors:
            known = ", ".join(repr(name) for name in ASSIGNOR_NAMES)
            raise ConfigError(
                f"partition_assignment_strategy={self.partition_assignment_strategy!r}: it must "
                f"name some of {known}"
            )
        if self.heartbeat_interval_ms >= self.session_timeout_ms:
            raise ConfigError(
                f"heartbeat_interval_ms={self.heartbeat_interval_ms:g}: it must be less than "
                f"session_timeout_ms={self.session_timeout_ms:g}, best a third of it"
            )
        for name in ("group_id", "group_instance_id"):
            if getattr(self, name) == "":
                raise ConfigError(f"{name}='': it must not be empty")
        if self.group_instance_id is not None and self.group_id is None:
            raise ConfigError("group_instance_id needs a group")


C = TypeVar("C", bound=ClientConfig)


def make_config(config_class: type[C], settings: Mapping[str, Any]) -> C:
    """Make a client's settings of keyword arguments.

    Raises:
        ConfigError: there is no such setting, or its value cannot be.
    """
    known = {field.name for field in dataclasses.fields(config_class)}
    unknown = sorted(set(settings) - known)
    if unknown:
        import difflib

        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = (f"Did you mean {close[0]}?",) if close else ()
        raise ConfigError(f"there is no setting {unknown[0]!r}", next_steps=hint)
    return config_class(**settings)
