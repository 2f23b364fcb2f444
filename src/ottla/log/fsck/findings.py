"""What a check finds, and what it must be told of topics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from ottla.log.config import LogConfig

if TYPE_CHECKING:
    from ottla.log.recovery import Cut
    from ottla.records.record import Record

_SEVERITY_COLUMNS = 7


class Severity(StrEnum):
    """What a finding means for the data.

    Attributes:
        NOTE: nothing: a start puts it right by itself, or it is in nobody's way.
        PROBLEM: no record is lost, but something does not work, or not as it should.
        LOSS: records are lost, or cannot be read.
    """

    NOTE = "note"
    PROBLEM = "problem"
    LOSS = "loss"


@dataclass
class Finding:
    """Something that is not as it should be.

    Attributes:
        severity: what it means for the data.
        kind: what it is, for programs.
        path: the file or folder.
        what: what it is, for people.
        repair: what a repair does about it, such as "the file removed"; "" for nothing.
        position: where it is in the file, in bytes, or None.
        offset: the first offset that is lost, or None where none is.
        offset_end: the offset behind the last one that is lost.
        kept: the file that a repair moves damaged bytes to, or "".
        cut: the torn tail that it is, or None.
        is_repaired: whether it was repaired.
    """

    severity: Severity
    kind: str
    path: str
    what: str
    repair: str = ""
    position: int | None = None
    offset: int | None = None
    offset_end: int | None = None
    kept: str = ""
    cut: Cut | None = field(default=None, repr=False)
    is_repaired: bool = False

    @property
    def is_open(self) -> bool:
        """Whether somebody must do something about it."""
        return self.severity is not Severity.NOTE and not self.is_repaired

    def __str__(self) -> str:
        told = f"{self.path}: {self.what}"
        if self.cut is not None and self.is_repaired:
            told = str(self.cut)
        elif self.repair:
            told += f"; {'repaired' if self.is_repaired else 'with --repair'}: {self.repair}"
        return f"{self.severity:{_SEVERITY_COLUMNS}}  {told}"

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        fields = asdict(self)
        del fields["cut"]
        return {**fields, "severity": str(self.severity)}


@dataclass
class Counts:
    """How much was checked."""

    partitions: int = 0
    segments: int = 0
    batches: int = 0
    bytes: int = 0
    records: int = 0


@dataclass
class Report:
    """What became of a check.

    Attributes:
        path: the store.
        was_clean: whether it was stopped cleanly.
        counts: how much was checked.
        findings: what was found, in the order of the files.
    """

    path: str
    was_clean: bool = False
    counts: Counts = field(default_factory=Counts)
    findings: list[Finding] = field(default_factory=list)

    def number(self, *severities: Severity) -> int:
        """Return how many findings have one of the severities."""
        return sum(each.severity in severities for each in self.findings)

    @property
    def is_well(self) -> bool:
        """Whether nothing is left that somebody must do something about."""
        return not any(each.is_open for each in self.findings)


class TopicFacts(NamedTuple):
    """What the metadata says of a topic.

    Attributes:
        topic_id: its id, 16 bytes.
        partitions: how many it has.
        config: the settings of its logs.
    """

    topic_id: bytes
    partitions: int
    config: LogConfig


class Topics(NamedTuple):
    """What the metadata says of all topics.

    Attributes:
        by_name: the topics that there are.
        removed: the names of topics that were deleted, by their ids.
    """

    by_name: dict[str, TopicFacts]
    removed: dict[bytes, str]


class Metadata(NamedTuple):
    """Where the facts about topics come from: a log in the store, which is checked first.

    Attributes:
        topic: its topic.
        topic_id: the topic's id.
        learn: makes the facts of the log's records.
    """

    topic: str
    topic_id: bytes
    learn: Callable[[Iterable[Record]], Topics]


@dataclass(frozen=True)
class LogFacts:
    """What must be known of one partition's log to judge it.

    Attributes:
        was_clean: whether the store was stopped cleanly.
        config: the topic's settings.
        topic_id: the topic's id; None where it is not known.
        recovery_point: everything before it had been stored; None where that is not known.
        log_start_offset: where the log begins, as far as it was noted.
        contiguous_from: from this offset on no offset is missing.
        is_metadata: whether it says which topics there are; then nothing may be taken out of it.
    """

    was_clean: bool
    config: LogConfig = field(default_factory=LogConfig)
    topic_id: bytes | None = None
    recovery_point: int | None = None
    log_start_offset: int = 0
    contiguous_from: int = 1 << 63
    is_metadata: bool = False


def offsets_text(offset: int, offset_end: int) -> str:
    """Return how offsets are named, `offset_end` exclusive."""
    if offset_end - offset == 1:
        return f"offset {offset}"
    return f"offsets {offset} to {offset_end - 1}"
