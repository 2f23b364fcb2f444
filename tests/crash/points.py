"""The power is cut at every point of the scripted workload, and the store must open again.

A point is a step of the workload (see `faulty_files`) together with what the cut leaves of what is
not synced then:

    of the files    nothing; everything; the right sizes with zeros or with garbage; of the last
                    write any first part: every length of a small one, of a larger one every length
                    within the header and every 512 bytes
    of the names    none; all; the first few in order, as a journal keeps them

Right after a step is right before the next one, when only more has been promised; so each step is
looked at before it, and the end of the run too. Where two points leave the same bytes, and the same
was promised, they are one.

Besides: the process is killed at each step, and the power cut when the next one has promised more;
and the power is cut a second time before each step of a start after a cut.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from ottla.clock import ManualClock
from ottla.errors import KafkaError
from ottla.log import checkpoints
from ottla.log.memory_files import Content, Folder, MemoryFiles, NameChange, Survival
from ottla.records.batch import HEADER_BYTES
from ottla.wire import Buffer
from tests.crash.faulty_files import CHANGES, FaultyFiles
from tests.crash.judging import judge
from tests.crash.lives import Life
from tests.crash.promises import Book, Verdict
from tests.crash.report import Row
from tests.crash.workload import Workload

_SMALL_BYTES = 512
_SECTOR_BYTES = 512
_ALL_NAMES = 1 << 62


@dataclass(frozen=True)
class Left(Survival):
    """What a cut leaves.

    Attributes:
        contents: "nothing", "everything", "zeros", "garbage"; or "torn": of the last write to the
            file `torn` the first `size` bytes, and everything else.
        names_until: the changes of names up to this number are left.
        torn: the number of the file, or -1.
        size: see above.
    """

    contents: str
    names_until: int
    torn: int = -1
    size: int = 0

    def content(self, file: Content) -> bytes:
        if self.contents == "nothing":
            return bytes(file.durable)
        left = bytearray(file.durable)
        for change in file.changes:
            data = change.data
            is_last = change is file.changes[-1]
            if data is not None and self.contents == "zeros":
                data = bytes(len(data))
            elif data is not None and self.contents == "garbage":
                data = random.Random(len(data)).randbytes(len(data))
            elif data is not None and is_last and file.number == self.torn:
                data = data[: self.size]
            change._replace(data=data).apply(left)
        return bytes(left)

    def names(self, folder: Folder) -> list[NameChange]:
        return [change for change in folder.changes if change.number <= self.names_until]


def cuts(files: MemoryFiles, last_written: int) -> Iterator[Left]:
    """Iterate over what a cut may leave now.

    Args:
        files: the files.
        last_written: the number of the file that was written in the last step, or -1.
    """
    contents, names = files.unsynced()
    for until in (0, _ALL_NAMES):
        for content in ("nothing", "everything", "zeros", "garbage"):
            yield Left(content, until)
        for file in contents:
            if file.number == last_written and file.changes[-1].data is not None:
                for size in _torn_sizes(len(file.changes[-1].data)):
                    yield Left("torn", until, file.number, size)
    for change in names:
        yield Left("nothing", change.number)
        yield Left("everything", change.number)


def _torn_sizes(size: int) -> list[int]:
    if size <= _SMALL_BYTES:
        return list(range(size))
    return sorted({*range(HEADER_BYTES + 1), *range(0, size, _SECTOR_BYTES)})


class Walk:
    """A run of the workload that stops before each step that changes something, and at the end.

    Args:
        visit: called with this at each stop.

    Attributes:
        files: the files as they are.
        book: what has been promised.
        stops: how many stops there were.
        last_written: the number of the file that the last step wrote, or -1.
        label: the step that comes next.
    """

    def __init__(self, visit: Callable[[Walk], None]) -> None:
        self._visit = visit
        self.stops = 0
        self.last_written = -1
        self.label = ""
        self.files = _Noting(before=self._before)
        self._workload = Workload(self.files)
        self.book = self._workload.book

    def run(self) -> None:
        """Run it."""
        self._workload.run()
        self._before("end", "")

    @property
    def now_ms(self) -> int:
        """The time."""
        return self._workload.clock.now_ms()

    def _before(self, what: str, path: str) -> None:
        if what not in CHANGES and what != "end":
            return
        self.stops += 1
        self.label = f"{what} {path}"
        self.last_written = self.files.written
        self.files.written = -1
        self._visit(self)


class _Noting(FaultyFiles):
    """Files that know which was written last."""

    written = -1

    def write_at(
        self, path: str, content: Content, position: int, buffers: Sequence[Buffer]
    ) -> int:
        size = super().write_at(path, content, position, buffers)
        self.written = content.number
        return size


def fingerprint(files: MemoryFiles, book: Book) -> bytes:
    """Return what tells a store and the promises about it from others."""
    digest = hashlib.blake2b(b"%d" % book.version, digest_size=16)
    for path, content in files.everything().items():
        digest.update(b"%s %d " % (path.encode(), len(content)))
        digest.update(content)
    return digest.digest()


class Trial:
    """Looks at points, and adds up what came of them.

    Args:
        row: what it came to.
        chance: which of the points are looked at; None for all.
        share: how many of them, 0 to 1.

    Attributes:
        problems: the first ones, in words.
    """

    def __init__(self, row: Row, chance: random.Random | None, share: float) -> None:
        self.row = row
        self.problems: list[str] = []
        self._chance = chance
        self._share = share
        self._seen: set[bytes] = set()

    def is_chosen(self) -> bool:
        """Tell whether the next point is to be looked at."""
        return self._chance is None or self._chance.random() < self._share

    def is_new(self, files: MemoryFiles, book: Book) -> bool:
        """Tell whether no point before was the same."""
        print_ = fingerprint(files, book)
        if print_ in self._seen:
            return False
        self._seen.add(print_)
        return True

    def look(self, files: MemoryFiles, walk: Walk, what: str, *, twice: bool) -> None:
        """Look at a point."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoints, "new_uuid", judges_uuids())
            verdict = judge(files, walk.book, walk.now_ms, twice=twice)
        self.row.tried += 1
        self.row.acknowledged += walk.book.acknowledged
        note(self.row, verdict)
        if verdict.problems and len(self.problems) < 20:
            where = f"before step {walk.files.steps + 1}, {walk.label}, {what}"
            self.problems.append(f"{where}: {verdict.problems[0]}")


def note(row: Row, verdict: Verdict) -> None:
    """Add what was wrong to a row."""
    row.lost += len(verdict.lost)
    row.duplicated += len(verdict.duplicated)
    row.reordered += len(verdict.reordered)
    row.bad += len(verdict.bad)


def judges_uuids() -> Callable[[], bytes]:
    """Return what makes uuids for the judge, apart from those of the workload."""
    count = iter(range(1, 1 << 30))
    return lambda: b"judge" + next(count).to_bytes(11, "big")


def power_cuts(full: bool) -> tuple[Row, list[str]]:
    """Cut the power at each point."""
    begun = time.perf_counter()
    row = Row("power cut at each point, model", exist=0 if full else None)
    if full:
        counting = Trial(row, None, 1)
        Walk(lambda walk: _count(walk, counting)).run()
    trial = Trial(row, None if full else random.Random(1), 0.01)

    def visit(walk: Walk) -> None:
        for left in cuts(walk.files, walk.last_written):
            if trial.is_chosen():
                found = walk.files.after_power_cut(left)
                if trial.is_new(found, walk.book):
                    trial.look(found, walk, str(left), twice=trial.row.tried % 5 == 0)

    Walk(visit).run()
    row.seconds = time.perf_counter() - begun
    return row, trial.problems


def _count(walk: Walk, trial: Trial) -> None:
    for left in cuts(walk.files, walk.last_written):
        found = walk.files.after_power_cut(left)
        if trial.is_new(found, walk.book):
            assert trial.row.exist is not None
            trial.row.exist += 1


def kills(full: bool) -> tuple[Row, list[str]]:
    """Kill the process before each step, and cut the power when the next has promised more."""
    begun = time.perf_counter()
    row = Row("kill at each step, then power cut", exist=None)
    trial = Trial(row, None if full else random.Random(2), 0.1)

    def visit(walk: Walk) -> None:
        if trial.is_chosen():
            trial.look(walk.files.after_kill(), walk, "kill", twice=True)

    walk = Walk(visit)
    walk.run()
    row.exist = walk.stops if full else None
    row.seconds = time.perf_counter() - begun
    return row, trial.problems


def second_cuts(full: bool) -> tuple[Row, list[str]]:
    """Cut the power a second time, before each step of the start after the first time.

    The first cut is before each step of the workload, in turn with a torn write, with nothing and
    with everything left; the second leaves nothing or everything, of files and of names.
    """
    begun = time.perf_counter()
    row = Row("second power cut, in the recovery", exist=0 if full else None)
    trial = Trial(row, None if full else random.Random(3), 0.2)
    first = Trial(Row(""), None, 1)

    def visit(walk: Walk) -> None:
        if full or (trial.is_chosen() and trial.is_chosen()):
            left = _first_cut(walk)
            found = walk.files.after_power_cut(left)
            if first.is_new(found, walk.book):
                _cut_again(trial, found, walk, left)

    Walk(visit).run()
    row.seconds = time.perf_counter() - begun
    return row, trial.problems


def _first_cut(walk: Walk) -> Left:
    torn = [left for left in cuts(walk.files, walk.last_written) if left.contents == "torn"]
    if torn:
        return torn[len(torn) * 3 // 4]
    return Left("nothing" if walk.stops % 2 else "everything", _ALL_NAMES)


_SECOND_CUTS = [
    Left(contents, names) for contents in ("nothing", "everything") for names in (0, _ALL_NAMES)
]


def _cut_again(trial: Trial, files: MemoryFiles, walk: Walk, left: Left) -> None:
    """Start once, and stop before each step."""

    def before(what: str, path: str) -> None:
        if what in CHANGES:
            for again in _SECOND_CUTS:
                if not trial.is_chosen():
                    continue
                found = starting.after_power_cut(again)
                if trial.is_new(found, walk.book):
                    if trial.row.exist is not None:
                        trial.row.exist += 1
                    trial.look(found, walk, f"{left}, then before {what} {path}", twice=False)

    starting = FaultyFiles(files, before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "new_uuid", judges_uuids())
        try:
            life = Life(starting, ManualClock(walk.now_ms), Book())
            life.guarded(life.housekeeper.look_at_all)
        except KafkaError as error:
            trial.problems.append(f"{walk.label}, {left}: {error}")
            trial.row.bad += 1


def rows(full: bool) -> list[Row]:
    """Run all of it, or the short form."""
    return [power_cuts(full)[0], kills(full)[0], second_cuts(full)[0]]
