"""The check of one partition's folder: every batch, from the first byte, and all that is beside.

What is told apart, as a start tells it apart (`ottla.log.recovery`):

    a torn tail    after a stop that was not clean: nothing of it had been stored, and nothing
                   intact lies behind it; the next start cuts it off
    damage         anything else: bytes that are no intact batches, offsets that are missing, a
                   segment that is gone, a log that ends before what had been stored

A repair takes damaged bytes out, and puts empty batches in the place of the offsets that are lost,
as compaction leaves them: so every record that is intact keeps its offset, no offset is given out
twice, and no reader stumbles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from ottla.errors import CorruptLog, StorageError
from ottla.log import checkpoints
from ottla.log.fsck.findings import Counts, Finding, LogFacts, Severity, offsets_text
from ottla.log.fsck.indexes import AbortedCheck, SegmentIndexes
from ottla.log.fsck.plan import (
    OFFSETS_MAX,
    CutOff,
    Empty,
    Kept,
    Moved,
    Reindex,
    Replace,
    Rewrite,
    Step,
    spread,
)
from ottla.log.producer_state import ProducerState
from ottla.log.recovery import CLEANED, CUT, SWAP, Cut, offsets_of
from ottla.log.scan import Batch, Damage, find_intact, scan
from ottla.log.segment import DELETED, file_name

if TYPE_CHECKING:
    from ottla.log.files import File, Files

_EVERY_OFFSET = 1 << 63
_LEFTOVERS = {
    DELETED: "what a removal has left; the next start removes it",
    CLEANED: "what a compaction has left that was interrupted; the next start removes it",
    ".tmp": "a file that was not written to its end; the next start removes it",
    SWAP: "a compaction that was interrupted; the next start finishes it",
    CUT: "bytes that were taken out of the log before; nothing needs them",
}
_METADATA_HINT = (
    "; --repair does not touch it, for what is lost may say which topics there are and what of "
    "them is kept: put back {folder} from a backup"
)


@dataclass
class _Walked:
    """A segment that was read.

    Attributes:
        base_offset: its base offset.
        path: its file.
        size: bytes in it.
        number: which one it is.
    """

    base_offset: int
    path: str
    size: int
    number: int


class _Problem(NamedTuple):
    """Where something is wrong in the batches.

    Attributes:
        segment: the segment; where a segment is missing, the one behind it.
        damage: what is wrong; its offsets are right.
        is_missing: whether a whole segment is missing.
        batches_before: how many intact batches lie before it.
        timestamp: the largest timestamp before it.
        leader_epoch: the last epoch before it.
    """

    segment: _Walked
    damage: Damage
    is_missing: bool
    batches_before: int
    timestamp: int
    leader_epoch: int


class LogCheck:
    """The check of one partition's folder.

    Args:
        files: where it is.
        folder: the folder.
        facts: what is known of it.

    Attributes:
        counts: how much was checked.
        findings: what was found.
        steps: what a repair does.
        end: the offset behind the last record, as it is after a repair.
        gap_end: the offset behind the last gap that compaction left, or 0.
        is_whole: whether the batches are all there, but for a torn tail.
        stored_end: everything before this offset had been stored.
    """

    def __init__(self, files: Files, folder: str, facts: LogFacts) -> None:
        self.counts = Counts(partitions=1)
        self.findings: list[Finding] = []
        self.steps: list[Step] = []
        self.end = 0
        self.gap_end = 0
        self.is_whole = True
        self.stored_end = 0
        self._files = files
        self._folder = folder
        self._facts = facts
        self._names: list[str] = []
        self._segments: list[_Walked] = []
        self._problems: list[_Problem] = []
        self._aborted = AbortedCheck()
        self._epochs: list[tuple[int, int]] = []
        self._timestamp = 0

    def run(self) -> None:
        """Do it."""
        self._names = self._files.list(self._folder)
        snapshots = offsets_of(self._names, ".snapshot")
        facts = self._facts
        self.stored_end = facts.recovery_point or 0
        if (facts.was_clean or facts.recovery_point is None) and snapshots:
            self.stored_end = max(self.stored_end, snapshots[-1])
        self._note_leftovers()
        bases = offsets_of(self._names, ".log")
        try:
            for base, following in zip_longest(bases, bases[1:]):
                self._walk(base, following)
            self._judge()
            self._check_snapshots(snapshots)
            self._check_epochs()
            self._check_topic_id()
        except StorageError as error:
            self.is_whole = False
            self.steps.clear()
            self._add(
                Severity.LOSS,
                "unreadable",
                self._folder,
                f"{error.what}; --repair does not touch it: copy the folder to another disk, as "
                "far as it can be read, and check the copy",
            )

    def _add(self, severity: Severity, kind: str, path: str, what: str, **more: object) -> Finding:
        finding = Finding(severity, kind, path, what)
        for name, value in more.items():
            setattr(finding, name, value)
        self.findings.append(finding)
        return finding

    def _path(self, offset: int, suffix: str) -> str:
        return f"{self._folder}/{file_name(offset, suffix)}"

    def _note_leftovers(self) -> None:
        for name in self._names:
            for suffix, what in _LEFTOVERS.items():
                if name.endswith(suffix):
                    kind = "kept-aside" if suffix == CUT else "leftover"
                    self._add(Severity.NOTE, kind, f"{self._folder}/{name}", what)
        for base in offsets_of(self._names, f".log{SWAP}"):
            path = self._path(base, f".log{SWAP}")
            for found in scan(self._files.open(path, create=False), 0, base, _EVERY_OFFSET):
                if isinstance(found, Damage):
                    what = f"the next start refuses the partition: {found.reason}"
                    self._add(Severity.LOSS, "bad-swap", path, what, position=found.start)
                    break

    # -- batches

    def _walk(self, base: int, following: int | None) -> None:
        """Read one segment; `following` is the base offset of the next one, or None."""
        path = self._path(base, ".log")
        file = self._files.open(path, create=False)
        segment = _Walked(base, path, file.size(), len(self._segments))
        self.counts.segments += 1
        if self._segments and base > self.end:
            if self.end >= self._facts.contiguous_from:
                reason = f"offset {base} where {self.end} is the next"
                self._note_problem(segment, Damage(0, 0, self.end, base, reason, False), True)
            else:
                self.gap_end = base
        elif base < self.end:
            what = (
                f"it begins at offset {base}, and the one before it ends at {self.end}: two "
                "records have one offset; --repair does not touch it, for nothing tells which "
                "is right"
            )
            self._add(Severity.PROBLEM, "overlap", path, what)
        self._segments.append(segment)
        self.end = base
        problems_before = len(self._problems)
        indexes = SegmentIndexes(self._files, self._folder, base, self._facts)
        self._aborted.begin_segment()
        try:
            for found in self._scan(file, base, following):
                if isinstance(found, Damage):
                    self._note_problem(segment, found, False)
                    self.end = found.offset_end
                else:
                    self._visit(found)
                    indexes.visit(found)
        finally:
            file.close()
        if len(self._problems) == problems_before:
            self._judge_indexes(segment, indexes)

    def _scan(self, file: File, base: int, following: int | None) -> Iterator[Batch | Damage]:
        """Walk through a segment; the offsets of a damage are right, as far as anybody knows."""
        end_known = following if following is not None else self.stored_end
        offset_end = base + OFFSETS_MAX + 1 if following is None else following
        for found in scan(file, 0, base, self._facts.contiguous_from, offset_end):
            if not isinstance(found, Damage) or not found.is_tail:
                yield found
                continue
            if found.is_misplaced:
                whole = find_intact(file, found.start, found.offset)
                if (
                    whole is not None
                    and whole.position == found.start
                    and whole.position + whole.header.size == found.end
                    and whole.header.last_offset + 1 == end_known
                ):  # a gap before the last batch, whose offsets what follows confirms
                    gap_end = whole.header.base_offset
                    yield found._replace(end=found.start, offset_end=gap_end, is_tail=False)
                    yield whole
                    continue
            yield found._replace(offset_end=max(found.offset, end_known))

    def _note_problem(self, segment: _Walked, damage: Damage, is_missing: bool) -> None:
        epoch = self._epochs[-1][0] if self._epochs else 0
        self._problems.append(
            _Problem(segment, damage, is_missing, self.counts.batches, self._timestamp, epoch)
        )

    def _visit(self, batch: Batch) -> None:
        header = batch.header
        counts = self.counts
        counts.batches += 1
        counts.bytes += header.size
        counts.records += header.records_count
        if header.base_offset > self.end:
            self.gap_end = header.base_offset
        self.end = header.last_offset + 1
        self._timestamp = max(self._timestamp, header.max_timestamp)
        self._aborted.visit(batch)
        epochs, epoch = self._epochs, header.leader_epoch
        if not epochs or epochs[-1][0] != epoch:
            # An epoch is not covered by the checksum: one that is too large is found out by the
            # next batch, for epochs never become smaller.
            while epochs and epochs[-1][0] > epoch:
                epochs.pop()
            if epoch >= 0 and (not epochs or epochs[-1][0] < epoch):
                epochs.append((epoch, header.base_offset))

    def _judge(self) -> None:
        """Tell a torn tail from damage, and see whether the log is as long as it must be."""
        problems = self._problems
        if problems and self._is_torn(problems[0]):
            self._plan_cut(problems[0])
            return
        self.is_whole = not problems
        for segment in self._segments:
            own = [each for each in problems if each.segment is segment]
            for problem in own:
                if problem.is_missing:
                    self._plan_missing(problem)
            damaged = [each for each in own if not each.is_missing]
            if damaged:
                self._plan_rewrite(segment, damaged)
        if self.end < self.stored_end:
            self.is_whole = False
            self._plan_end()

    def _is_torn(self, problem: _Problem) -> bool:
        """Tell whether the first problem is a torn tail; see `ottla.log.recovery`."""
        damage = problem.damage
        return (
            not self._facts.was_clean
            and damage.offset >= self.stored_end
            and not damage.is_misplaced
            and problem.batches_before == self.counts.batches
        )

    def _plan_cut(self, problem: _Problem) -> None:
        self.end = problem.damage.offset
        for segment in self._segments[problem.segment.number :]:
            removes = problem.is_missing or segment is not problem.segment
            position = 0 if removes else problem.damage.start
            reason = "it lies behind a torn batch" if removes else problem.damage.reason
            size = segment.size - position
            kept = self._free_name(segment.path, position) if size else ""
            finding = self._add(
                Severity.NOTE,
                "torn-tail",
                segment.path,
                f"{size} bytes at byte {position} that a crash left unfinished and nobody was "
                f"told were stored ({reason}); the next start cuts them off",
                repair=f"cut off, and moved to {kept}" if size else "the empty segment removed",
                position=position,
                kept=kept,
                cut=Cut(segment.path, position, size, reason, kept) if size else None,
            )
            action = CutOff(segment.base_offset, position, kept, removes=removes)
            self.steps.append(Step(action, [finding]))

    def _free_name(self, path: str, position: int) -> str:
        """Return a name for the bytes that stand at a position; nothing is ever overwritten."""
        name = f"{path}.{position}{CUT}"
        number = 2
        while name.rpartition("/")[2] in self._names:
            name = f"{path}.{position}-{number}{CUT}"
            number += 1
        return name

    def _plan_missing(self, problem: _Problem) -> None:
        damage = problem.damage
        lost = offsets_text(damage.offset, damage.offset_end)
        self._plan_empty(
            problem,
            "missing-segment",
            f"the segment is missing: {lost} are lost",
            damage.offset,
            damage.offset_end,
        )

    def _plan_end(self) -> None:
        start, self.end = self.end, self.stored_end
        what = (
            f"the log ends at offset {start}, and everything before {self.end} had been stored: "
            f"{offsets_text(start, self.end)} are lost"
        )
        epoch = self._epochs[-1][0] if self._epochs else 0
        place = _Walked(start, self._path(start, ".log"), 0, 0)
        damage = Damage(0, 0, start, self.end, "", True)
        problem = _Problem(place, damage, True, 0, self._timestamp, epoch)
        self._plan_empty(problem, "missing-end", what, start, self.end)

    def _plan_empty(
        self, problem: _Problem, kind: str, what: str, offset: int, offset_end: int
    ) -> None:
        """Plan new segments with empty batches in them."""
        lost = offsets_text(offset, offset_end)
        finding = self._add(
            Severity.LOSS,
            kind,
            self._path(offset, ".log"),
            what,
            offset=offset,
            offset_end=offset_end,
        )
        if self._facts.is_metadata:
            finding.what += _METADATA_HINT.format(folder=self._folder)
            return
        finding.repair = f"a segment made with an empty batch for {lost}"
        empty = Empty(offset, offset_end, problem.timestamp, problem.leader_epoch)
        for base, part in spread(offset, empty):
            self.steps.append(Step(Rewrite(base, [part]), [finding]))

    def _plan_rewrite(self, segment: _Walked, problems: list[_Problem]) -> None:
        """Plan a segment without its damaged stretches, and with empty batches in their places."""
        parts: list[Kept | Moved | Empty] = []
        behind: list[tuple[int, Empty]] = []
        findings = []
        position = 0
        for problem in problems:
            damage = problem.damage
            size = damage.end - damage.start
            kept = self._free_name(segment.path, damage.start) if size else ""
            findings.append(self._damage_finding(segment, damage, kept))
            if damage.start > position:
                parts.append(Kept(position, damage.start))
            if size:
                parts.append(Moved(damage.start, damage.end, kept))
            empty = Empty(damage.offset, damage.offset_end, problem.timestamp, problem.leader_epoch)
            for base, part in spread(segment.base_offset, empty):
                if base == segment.base_offset:
                    parts.append(part)
                else:
                    behind.append((base, part))
            position = damage.end
        if position < segment.size:
            parts.append(Kept(position, segment.size))
        if not self._facts.is_metadata:
            self.steps.append(Step(Rewrite(segment.base_offset, parts), findings))
            self.steps += [Step(Rewrite(base, [part]), findings) for base, part in behind]

    def _damage_finding(self, segment: _Walked, damage: Damage, kept: str) -> Finding:
        facts = self._facts
        size = damage.end - damage.start
        is_lost = damage.offset_end > damage.offset
        lost = offsets_text(damage.offset, damage.offset_end) if is_lost else ""
        what = f"damaged at byte {damage.start}: {damage.reason}"
        repairs = []
        if size:
            what = f"{size} bytes damaged at byte {damage.start}: {damage.reason}"
            repairs.append(f"the damaged bytes moved to {kept}")
        is_unknown = False
        if is_lost and damage.offset < facts.contiguous_from:
            what += f"; what compaction had left of {lost} is lost"
            repairs.append(f"an empty batch put in the place of {lost}")
        elif is_lost:
            what += f"; {lost} {'is' if damage.offset_end - damage.offset == 1 else 'are'} lost"
            repairs.append(f"an empty batch put in the place of {lost}")
        elif damage.is_tail and segment is self._segments[-1]:
            if facts.was_clean or damage.is_misplaced:
                is_unknown = damage.is_misplaced or damage.offset != self.stored_end
                what += "; what was in them is lost" if is_unknown else "; no record is missing"
            else:
                what += "; nobody was told that it was stored"
        else:
            what += "; no record is missing"
        intact_behind = self._problems[0].batches_before < self.counts.batches
        if not facts.was_clean and not facts.config.durable and intact_behind:
            what += "; a start before a repair may cut it off together with intact records behind"
        finding = self._add(
            Severity.LOSS if is_lost or is_unknown else Severity.PROBLEM,
            "damage" if size else "missing-offsets",
            segment.path,
            what,
            position=damage.start,
            offset=damage.offset if is_lost else None,
            offset_end=damage.offset_end if is_lost else None,
        )
        if facts.is_metadata:
            finding.what += _METADATA_HINT.format(folder=self._folder)
        else:
            finding.repair, finding.kept = ", and ".join(repairs), kept
        return finding

    # -- what is beside the batches

    def _judge_indexes(self, segment: _Walked, indexes: SegmentIndexes) -> None:
        findings = []
        for suffix, problem in indexes.finish(self.end, has_batches=segment.size > 0).items():
            path = self._path(segment.base_offset, suffix)
            what = f"the index does not agree with the batches: {problem}"
            repair = "the index made anew from the batches"
            findings.append(self._add(Severity.PROBLEM, "bad-index", path, what, repair=repair))
        if findings:
            self.steps.append(Step(Reindex(segment.base_offset), findings))
        if not indexes.does_count:
            return
        path = self._path(segment.base_offset, ".txnindex")
        content = self._files.read(path)
        problem, expected = self._aborted.finish(
            content,
            path,
            indexes.offset_end,
            is_compacted=self._facts.contiguous_from > segment.base_offset,
        )
        if problem:
            what = f"the index does not agree with the batches: {problem}"
            repair = "the index made anew from the batches"
            finding = self._add(Severity.PROBLEM, "bad-index", path, what, repair=repair)
            self.steps.append(Step(Replace(path, expected or None), [finding]))

    def _check_snapshots(self, snapshots: list[int]) -> None:
        for offset in snapshots:
            path = self._path(offset, ".snapshot")
            if offset > self.end:
                what = f"a snapshot at offset {offset}, behind the log's end {self.end}"
                severity, kind = Severity.NOTE, "snapshot-behind-end"
            else:
                try:
                    ProducerState.load(self._files.read(path) or b"", path)
                    continue
                except CorruptLog as error:
                    what = f"a snapshot that cannot be read: {error.reason}"
                severity, kind = Severity.PROBLEM, "bad-snapshot"
            repair = "removed, for what it held is in the log as well"
            finding = self._add(severity, kind, path, what, repair=repair)
            self.steps.append(Step(Replace(path, None), [finding]))

    def _check_epochs(self) -> None:
        path = f"{self._folder}/{checkpoints.LEADER_EPOCHS}"
        content = self._files.read(path)
        problem = ""
        try:
            epochs = checkpoints.decode_epochs(content, path)
        except CorruptLog as error:
            epochs, problem = [], error.reason
        if content is None and self._epochs and self._epochs[-1][0] > 0:
            problem = f"it is missing, and the log is in epoch {self._epochs[-1][0]}"
        for (epoch, start), following in zip_longest(epochs, epochs[1:]):
            if following is not None and not (epoch < following[0] and start < following[1]):
                problem = problem or f"epoch {following[0]} is not behind epoch {epoch}"
            elif start > self.end:
                problem = problem or f"epoch {epoch} begins at {start}, behind the end {self.end}"
        if problem:
            finding = self._add(
                Severity.PROBLEM,
                "bad-leader-epochs",
                path,
                f"the leader epochs cannot be used: {problem}",
                repair="made anew from the batches",
            )
            rebuilt = checkpoints.encode_epochs(self._epochs or [(0, 0)])
            kept = "" if content is None else f"{path}{CUT}"
            self.steps.append(Step(Replace(path, rebuilt, kept), [finding]))

    def _check_topic_id(self) -> None:
        path = f"{self._folder}/{checkpoints.PARTITION_METADATA}"
        content = self._files.read(path)
        known = self._facts.topic_id
        try:
            checkpoints.decode_partition_metadata(content, path)
        except CorruptLog as error:
            finding = self._add(Severity.PROBLEM, "bad-topic-id", path, error.reason)
            if known is not None:
                finding.repair = f"the topic's id written, {checkpoints.uuid_text(known)}"
                encoded = checkpoints.encode_partition_metadata(known)
                self.steps.append(Step(Replace(path, encoded, f"{path}{CUT}"), [finding]))
            else:
                finding.what += (
                    "; --repair does not touch it, for no topic is known that it belongs to: move "
                    "the folder elsewhere, or the store cannot be opened"
                )
            return
        if content is None:
            what = "the file with the topic's id is missing; the next start writes it"
            self._add(Severity.NOTE, "no-topic-id", path, what)
