"""A store with damage in it, for the tests of its check: made, changed, looked at and repaired."""

from __future__ import annotations

from collections.abc import Callable

from ottla.broker.engine import Engine
from ottla.broker.fsck import check
from ottla.clock import ManualClock
from ottla.log.fsck.findings import Finding, Report
from ottla.log.memory_files import MemoryFiles
from ottla.records.batch import iterate_headers, iterate_records
from tests.log.writing import NOW, append, batch, save, sync

STORE = "store"
FOLDER = f"{STORE}/t-0"
LOG = f"{FOLDER}/00000000000000000000.log"
METADATA_LOG = f"{STORE}/__cluster_metadata-0/00000000000000000000.log"
RECOVERY_POINTS = f"{STORE}/recovery-point-offset-checkpoint"
SIZE = len(batch(b"000"))
COUNT = 12
CONFIGS = {"segment.bytes": str(4 * SIZE), "index.interval.bytes": "1"}


def make_store(
    *, clean: bool = True, saved: int = 0, configs: dict[str, str] | None = None
) -> MemoryFiles:
    """Make a store with one topic, and twelve batches of one record in its three segments.

    Args:
        clean: whether it was stopped cleanly; if not, its process was killed.
        saved: after how many batches the recovery point was taken, where it was killed.
        configs: the topic's configs.
    """
    files = MemoryFiles(model_power_cuts=True)
    engine = Engine.open(files, STORE, ManualClock())
    engine.create_topic("t", 1, CONFIGS if configs is None else configs)
    log = engine.log_of("t", 0)
    assert log is not None
    for number in range(COUNT):
        append(log, b"%03d" % number, timestamp_ms=NOW + number)
        if number + 1 == saved:
            save(log, files)
            engine.store.note_recovery_points()()
    sync(log)
    if clean:
        engine.close()
        return files
    metadata_round = engine.commit.begin()
    assert metadata_round is not None
    engine.commit.end(metadata_round.run())
    return files.after_kill()


def records_of(files: MemoryFiles, *, and_write: bool = True) -> dict[int, bytes]:
    """Open the store as a broker does, read all records by their offsets, and write one more."""
    engine = Engine.open(files, STORE, ManualClock())
    log = engine.log_of("t", 0)
    assert log is not None
    assert log.failed is None
    found: dict[int, bytes] = {}
    at = log.log_start_offset
    while data := log.read(at, 1 << 20, at_least_one=True):
        for header in iterate_headers(data):
            found.update((each.offset, each.value) for each in iterate_records(data, header))
            at = header.last_offset + 1
    assert at == log.log_end_offset
    if and_write:
        assert append(log, b"new") == at
        sync(log)
    engine.close()
    return found


def expected(*lost: int) -> dict[int, bytes]:
    return {number: b"%03d" % number for number in range(COUNT) if number not in lost}


def rewrite(files: MemoryFiles, path: str, change: Callable[[bytes], bytes]) -> bytes:
    """Change a file's content, and return what it was."""
    content = files.read(path)
    assert content is not None
    files.write(path, change(content))
    return content


def flipped(at: int, bit: int = 1) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[at] ^= bit
        return bytes(changed)

    return change


def segment(base: int, suffix: str = ".log") -> str:
    return f"{FOLDER}/{base:020}{suffix}"


def one(report: Report) -> Finding:
    (finding,) = report.findings
    return finding


def open_findings(report: Report) -> list[str]:
    return [str(each) for each in report.findings if each.is_open]


class Looking(MemoryFiles):
    """Files that refuse every change; they share their content with others."""

    def __init__(self, files: MemoryFiles) -> None:
        super().__init__(model_power_cuts=True)
        self._root = files._root

    def step(self, what: str, path: str) -> None:
        assert what in ("read", "list", "open"), (what, path)


def look(files: MemoryFiles) -> Report:
    """Check without a repair, and see that nothing is changed."""
    before = files.everything()
    report = check(Looking(files), STORE)
    assert files.everything() == before
    return report


def assert_repairs(files: MemoryFiles, *lost: int) -> Report:
    """Repair, and see that all but some records are there, and that nothing is wrong then."""
    report = check(files, STORE, repair=True)
    assert open_findings(report) == []
    assert open_findings(look(files)) == []
    assert records_of(files) == expected(*lost)
    assert open_findings(look(files)) == []
    return report
