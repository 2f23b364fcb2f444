"""The check of a whole store: its metadata first, then every partition, then what is noted of them.

The folder is locked meanwhile, so that nobody writes to it. Nothing is opened the way a start opens
it, for a start removes the mark of a clean stop, cuts off torn tails and makes indexes anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ottla.errors import (
    CorruptLog,
    CorruptRecords,
    DecodeError,
    StoreInUse,
    StoreUnusable,
)
from ottla.log import checkpoints
from ottla.log.config import LogConfig
from ottla.log.fsck.findings import Finding, LogFacts, Metadata, Report, Severity, Topics
from ottla.log.fsck.partition import LogCheck
from ottla.log.fsck.plan import Replace, Rewrite, Step
from ottla.log.fsck.repair import Repair
from ottla.log.log_dir import CLEAN_SHUTDOWN
from ottla.log.recovery import CUT, offsets_of
from ottla.log.scan import Batch, scan
from ottla.log.segment import file_name
from ottla.records.batch import iterate_records, read_header

if TYPE_CHECKING:
    from ottla.log.files import Files
    from ottla.records.record import Record

_PARTITION_FOLDER = re.compile(r"(.+)-(\d+)")
_EVERY_OFFSET = 1 << 63
_LEFTOVERS = {
    "-delete": "what a deleted partition has left; the next start removes it",
    "-stray": "a partition that no topic of the metadata has; it was put aside, and stays so",
    ".tmp": "a file that was not written to its end; nothing needs it",
    CUT: "a file that was damaged and has been replaced; nothing needs it",
}
_NOTED = {
    checkpoints.RECOVERY_POINTS: "made anew from the snapshots, so that a start may check more",
    checkpoints.LOG_STARTS: (
        "made anew without entries, so that records that were deleted may be readable again"
    ),
    checkpoints.CLEANER_OFFSETS: "made anew from the gaps, so that compaction begins anew",
}


def check_store(files: Files, path: str, metadata: Metadata, *, repair: bool = False) -> Report:
    """Check a store that nobody has open.

    Args:
        files: where it is.
        path: its folder.
        metadata: where the facts about its topics come from.
        repair: whether to repair what can be repaired.

    Raises:
        StoreInUse: a process has it open.
        StoreUnusable: it is no store.
        StorageError: a repair failed; what was repaired until then is, and nothing is worse.
    """
    names = files.list(path)
    if checkpoints.META_PROPERTIES not in names and f"{metadata.topic}-0" not in names:
        raise StoreUnusable(
            f"there is no store in {path}: it has no {checkpoints.META_PROPERTIES}",
            "Nothing was read or written.",
            ("Give the folder that `ottla serve` is given, or a Broker.",),
        )
    try:
        unlock = files.lock(path)
    except StoreInUse as error:
        error.next_steps = ("Stop that process first: a check needs a store that stands still.",)
        raise
    try:
        check = _StoreCheck(files, path, metadata, repair=repair)
        check.run(names)
        return check.report
    finally:
        unlock()


class _StoreCheck:
    """One check, and the repair of what it finds."""

    def __init__(self, files: Files, path: str, metadata: Metadata, *, repair: bool) -> None:
        self.report = Report(path)
        self._files = files
        self._path = path
        self._metadata = metadata
        self._repairs = repair
        self._clean_mark = f"{path}/{CLEAN_SHUTDOWN}"
        self._noted: dict[str, checkpoints.Offsets | None] = {}
        self._changed: dict[str, list[Finding]] = {}
        self._topics: Topics | None = None
        self._logs: dict[tuple[str, int], LogCheck] = {}

    def run(self, names: list[str]) -> None:
        """Do it."""
        self.report.was_clean = self._files.read(self._clean_mark) is not None
        self._check_properties()
        for name in _NOTED:
            self._read_noted(name)
        for name in names:
            for suffix, what in _LEFTOVERS.items():
                if name.endswith(suffix):
                    kind = "stray" if suffix == "-stray" else "leftover"
                    self._add(Severity.NOTE, kind, f"{self._path}/{name}", what)
        folders = [found for name in names if (found := _PARTITION_FOLDER.fullmatch(name))]
        if f"{self._metadata.topic}-0" in names:
            self._check_metadata()
        elif folders:
            what = (
                "the folder is missing, and with it what topics there are; the next start puts all "
                "partitions aside; --repair does not touch it: put it back from a backup"
            )
            folder = f"{self._path}/{self._metadata.topic}-0"
            self._add(Severity.LOSS, "bad-metadata", folder, what)
        for found in folders:
            if found[0] != f"{self._metadata.topic}-0":
                self._check_partition(found[0], found[1], int(found[2]))
        self._find_missing(names)
        self._write_noted()

    def _add(
        self, severity: Severity, kind: str, path: str, what: str, repair: str = ""
    ) -> Finding:
        finding = Finding(severity, kind, path, what, repair)
        self.report.findings.append(finding)
        return finding

    # -- the store's own files

    def _check_properties(self) -> None:
        path = f"{self._path}/{checkpoints.META_PROPERTIES}"
        content = self._files.read(path)
        problem = "it is missing"
        if content is not None:
            properties = checkpoints.decode_properties(content)
            if properties.get("cluster.id") and properties.get("node.id", "").isdecimal():
                return
            problem = "there is no good cluster.id and node.id in it"
        self._add(
            Severity.PROBLEM,
            "bad-properties",
            path,
            f"{problem}: the store cannot be opened; --repair does not touch it: put back the "
            "file that belongs to this data",
        )

    def _read_noted(self, name: str) -> None:
        path = f"{self._path}/{name}"
        try:
            self._noted[name] = checkpoints.decode_offsets(self._files.read(path), path)
        except CorruptLog as error:
            self._noted[name] = None
            what = f"the store cannot be opened: {error.reason}"
            finding = self._add(Severity.PROBLEM, "bad-checkpoint", path, what, _NOTED[name])
            self._changed.setdefault(name, []).append(finding)

    def _write_noted(self) -> None:
        """Write those checkpoints anew that were damaged, or have entries that cannot be."""
        for name, findings in self._changed.items():
            noted = self._noted[name]
            if noted is None and name == checkpoints.RECOVERY_POINTS:
                noted = {key: min(log.stored_end, log.end) for key, log in self._logs.items()}
            elif noted is None and name == checkpoints.CLEANER_OFFSETS:
                noted = {
                    key: log.gap_end
                    for key, log in self._logs.items()
                    if log.gap_end and not self._config(key[0]).compact
                }
            path = f"{self._path}/{name}"
            kept = f"{path}{CUT}" if self._noted[name] is None else ""
            step = Step(Replace(path, checkpoints.encode_offsets(noted or {}), kept), findings)
            self._carry_out(self._path, LogConfig(), [step])

    def _note(self, name: str, topic: str, partition: int) -> int | None:
        """Return what a checkpoint says of a partition: 0 for nothing, None where it is damaged."""
        noted = self._noted[name]
        return None if noted is None else noted.get((topic, partition), 0)

    def _config(self, topic: str) -> LogConfig:
        known = None if self._topics is None else self._topics.by_name.get(topic)
        return LogConfig() if known is None else known.config

    # -- partitions

    def _facts(self, topic: str, partition: int, topic_id: bytes | None) -> LogFacts:
        config = self._config(topic)
        cleaned = self._note(checkpoints.CLEANER_OFFSETS, topic, partition)
        return LogFacts(
            was_clean=self.report.was_clean,
            config=config,
            topic_id=topic_id,
            recovery_point=self._note(checkpoints.RECOVERY_POINTS, topic, partition),
            log_start_offset=self._note(checkpoints.LOG_STARTS, topic, partition) or 0,
            contiguous_from=_EVERY_OFFSET
            if topic_id is None or config.compact or cleaned is None
            else cleaned,
        )

    def _check_metadata(self) -> None:
        """Check the log of the metadata, and learn from it what topics there are."""
        metadata = self._metadata
        folder = f"{self._path}/{metadata.topic}-0"
        facts = replace(
            self._facts(metadata.topic, 0, metadata.topic_id), contiguous_from=0, is_metadata=True
        )
        log = self._check_log(metadata.topic, 0, folder, facts)
        if not log.is_whole:
            return
        try:
            self._topics = metadata.learn(self._records(folder))
        except (CorruptRecords, DecodeError, KeyError, ValueError) as error:
            reason = error.what if isinstance(error, DecodeError) else repr(error)
            what = (
                f"the metadata cannot be replayed, so the store cannot be opened: {reason}; "
                f"--repair does not touch it: put back {folder} from a backup"
            )
            self._add(Severity.LOSS, "bad-metadata", folder, what)

    def _records(self, folder: str) -> Iterator[Record]:
        for base in offsets_of(self._files.list(folder), ".log"):
            file = self._files.open(f"{folder}/{file_name(base, '.log')}", create=False)
            for found in scan(file, 0, base, _EVERY_OFFSET):
                if not isinstance(found, Batch):
                    break
                header = read_header(found.data)
                if not header.is_control:
                    yield from iterate_records(found.data, header)
            file.close()

    def _check_partition(self, name: str, topic: str, partition: int) -> None:
        folder = f"{self._path}/{name}"
        topics = self._topics
        topic_id = None
        if topics is not None:
            known = topics.by_name.get(topic)
            own_id, is_readable = self._own_id(folder)
            if known is None or own_id not in (None, known.topic_id):
                if is_readable:
                    self._note_stray(folder, topic, own_id, topics)
            elif partition >= known.partitions:
                what = f"the topic {topic} has {known.partitions} partition(s); nothing uses this"
                self._add(Severity.NOTE, "stray", folder, what)
            else:
                topic_id = known.topic_id
        facts = self._facts(topic, partition, topic_id)
        log = self._check_log(topic, partition, folder, facts)
        if topic_id is not None:
            self._check_noted(topic, partition, facts, log)

    def _own_id(self, folder: str) -> tuple[bytes | None, bool]:
        """Return the topic id in a partition's folder, and whether it can be read."""
        path = f"{folder}/{checkpoints.PARTITION_METADATA}"
        try:
            return checkpoints.decode_partition_metadata(self._files.read(path), path), True
        except CorruptLog:
            return None, False

    def _note_stray(self, folder: str, topic: str, own_id: bytes | None, topics: Topics) -> None:
        if own_id in topics.removed:
            what = f"the topic {topic} was deleted; the next start removes the folder"
            self._add(Severity.NOTE, "leftover", folder, what)
            return
        doom = "removes it with all that is in it"
        if own_id is not None:
            doom = f"renames it to {folder}.{checkpoints.uuid_text(own_id)}-stray"
        what = (
            f"it belongs to no topic that the metadata knows: the next start {doom}; --repair does "
            "not touch it: where its records are wanted, move it elsewhere before that"
        )
        self._add(Severity.PROBLEM, "stray", folder, what)

    def _check_log(self, topic: str, partition: int, folder: str, facts: LogFacts) -> LogCheck:
        """Check one partition's folder, and repair it and check it again if that is wanted."""
        log = self._logs[topic, partition] = LogCheck(self._files, folder, facts)
        log.run()
        report, counts = self.report, self.report.counts
        report.findings += log.findings
        for name in ("partitions", "segments", "batches", "bytes", "records"):
            setattr(counts, name, getattr(counts, name) + getattr(log.counts, name))
        if not self._repairs or not log.steps:
            return log
        self._carry_out(folder, facts.config, log.steps)
        was_clean = self._files.read(self._clean_mark) is not None
        again = LogCheck(self._files, folder, replace(facts, was_clean=was_clean))
        again.run()
        told = {(each.kind, each.path, each.what) for each in log.findings if not each.is_repaired}
        left = [each for each in again.findings if each.is_open]
        report.findings += [each for each in left if (each.kind, each.path, each.what) not in told]
        return log

    def _carry_out(self, folder: str, config: LogConfig, steps: list[Step]) -> None:
        if not self._repairs:
            return
        repair = Repair(self._files, folder, config, self._clean_mark)
        for step in steps:
            repair.carry_out(step.action)
            for finding in step.findings:
                finding.is_repaired = finding.repair != ""

    def _check_noted(self, topic: str, partition: int, facts: LogFacts, log: LogCheck) -> None:
        """See whether what is noted of a log can be; entries that cannot are taken out."""
        if facts.log_start_offset > log.end:
            self._take_out(
                checkpoints.LOG_STARTS,
                (topic, partition),
                f"{topic}-{partition} begins at offset {facts.log_start_offset}, and ends at "
                f"{log.end}: the next start removes all that is in it",
                "the entry removed; records that were deleted may be readable again",
            )
        cleaned = self._note(checkpoints.CLEANER_OFFSETS, topic, partition) or 0
        if cleaned > log.end:
            self._take_out(
                checkpoints.CLEANER_OFFSETS,
                (topic, partition),
                f"{topic}-{partition} was compacted up to offset {cleaned}, and ends at {log.end}",
                "the entry corrected",
                0 if facts.config.compact else log.gap_end,
            )

    def _take_out(
        self, name: str, key: tuple[str, int], what: str, repair: str, instead: int = 0
    ) -> None:
        noted = dict(self._noted[name] or {})
        noted.pop(key, None)
        if instead:
            noted[key] = instead
        self._noted[name] = noted
        finding = self._add(
            Severity.PROBLEM, "bad-checkpoint", f"{self._path}/{name}", what, repair
        )
        self._changed.setdefault(name, []).append(finding)

    def _find_missing(self, names: list[str]) -> None:
        """Find partitions of which something had been stored, and whose folders are gone."""
        topics = self._topics
        if topics is None:
            return
        was_removed = set(topics.removed.values())
        for topic, known in topics.by_name.items():
            for partition in range(known.partitions):
                end = self._note(checkpoints.RECOVERY_POINTS, topic, partition)
                if not end or f"{topic}-{partition}" in names or topic in was_removed:
                    continue
                self._note_missing(topic, partition, known.topic_id, end)

    def _note_missing(self, topic: str, partition: int, topic_id: bytes, end: int) -> None:
        folder = f"{self._path}/{topic}-{partition}"
        what = f"the folder is missing: everything before offset {end} had been stored, and is lost"
        repair = f"an empty log made that goes on at offset {end}"
        finding = self._add(Severity.LOSS, "missing-partition", folder, what, repair)
        finding.offset = self._note(checkpoints.LOG_STARTS, topic, partition) or 0
        finding.offset_end = end
        path = f"{folder}/{checkpoints.PARTITION_METADATA}"
        steps = [
            Step(Rewrite(end, [])),
            Step(Replace(path, checkpoints.encode_partition_metadata(topic_id)), [finding]),
        ]
        self._carry_out(folder, self._config(topic), steps)
