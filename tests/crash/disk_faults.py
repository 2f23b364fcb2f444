"""Disks that are full, read-only or gone, for real: small file systems that are mounted for it.

A full disk (a tmpfs of 16 MiB): a served broker is sent records until it refuses them with
KAFKA_STORAGE_ERROR and a clear text; reads go on; then records are deleted with DeleteRecords, or
the foreign file goes that had filled the disk, and writing goes on by itself. Some cycles begin
with `kill -9` in the full state. After each step everything that was confirmed and not deleted is
read and compared.

A read-only disk (ext4 in a file, whose journal is aborted under the broker, as after an error of
the disk below it): writes are refused, reads go on, nothing spins, and after a mount as new all
that was confirmed is there.

Needs root, and a machine on which it may mount.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from ottla import Admin, Consumer, Producer
from ottla.errors import DeliveryError, KafkaError
from tests.crash.process import BrokerProcess, DidNotStart
from tests.crash.report import Row

FULL_DISK, READ_ONLY = "full disk, tmpfs 16 MiB", "read-only disk, ext4"
CYCLES_FULL, CYCLES_SHORT = 100, 4
READ_ONLY_FULL, READ_ONLY_SHORT = 20, 1
NO_ROOM, CHANGELESS = "no space left", "Read-only file system"
NO_ID = "the broker gave no producer id: KAFKA_STORAGE_ERROR"
"""What a producer is told that had none yet; the protocol has no words for the reason there."""

TOPIC = "t"
VALUE_BYTES = 60_000
ROOM_BYTES = 5 << 20
"""With so much room, and a little less, a disk is one that is not full any more."""

PATIENCE_S = 60.0
SETTINGS = {"log.retention.check.interval.ms": "200", "auto.create.topics.enable": "false"}
BRIEF = {"delivery_timeout_ms": 1000, "request_timeout_ms": 1000, "linger_ms": 0}
LINES_MAX = 100
CPU_SHARE_MAX = 0.3


def why_not(*tools: str) -> str:
    """Return why nothing can be mounted here, or ""."""
    if not sys.platform.startswith("linux"):
        return "it mounts as Linux does"
    if os.geteuid() != 0:
        return "only root may mount"
    for tool in ("mount", "umount", *tools):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    try:
        with tmpfs(1):
            return ""
    except subprocess.CalledProcessError as error:
        return f"nothing can be mounted here: {error.stderr.decode().strip()}"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def _mounted(*options: str) -> Iterator[Path]:
    """Mount something on a new folder, and let nothing of it stay."""
    folder = Path(tempfile.mkdtemp(prefix="ottla-mount-"))
    try:
        _run("mount", *options, str(folder))
        try:
            yield folder
        finally:
            _run("umount", "-l", str(folder))
    finally:
        folder.rmdir()


@contextlib.contextmanager
def tmpfs(size_mib: int) -> Iterator[Path]:
    """Mount an empty file system in memory that is soon full."""
    with _mounted("-t", "tmpfs", "-o", f"size={size_mib}m", "ottla-test") as folder:
        yield folder


@contextlib.contextmanager
def ext4_image(size_mib: int) -> Iterator[Path]:
    """Make a file that holds an ext4 file system."""
    with tempfile.TemporaryDirectory(prefix="ottla-image-") as folder:
        image = Path(folder) / "image"
        with image.open("wb") as file:
            file.truncate(size_mib << 20)
        _run("mkfs.ext4", "-q", "-F", str(image))
        yield image


@contextlib.contextmanager
def ext4(image: Path, *options: str) -> Iterator[Path]:
    """Mount an image."""
    with _mounted("-o", ",".join(("loop", *options)), str(image)) as folder:
        yield folder


def make_read_only(folder: Path) -> None:
    """Make a mounted ext4 refuse every change from now on, whoever has files open in it."""
    _run("mount", "-o", "remount,abort", str(folder))


class _Process(BrokerProcess):
    """A broker's process that is looked at."""

    @property
    def pid(self) -> int:
        """Its id."""
        assert self._process is not None
        return self._process.pid

    def cpu_s(self) -> float:
        """Return the processor time that it has used."""
        line = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(line[11]) + int(line[12])) / os.sysconf("SC_CLK_TCK")


class Store:
    """A served store on such a disk, and what was confirmed of it.

    Args:
        said: the file, outside of the disk, that takes what the broker says.

    Attributes:
        folder: the mounted file system.
        broker: the broker's process.
        confirmed: the values that were confirmed and not deleted, by offset.
        unknown: the values of which nobody knows.
        problems: what was wrong.
        acknowledged, lost, duplicated, reordered: how many records.
    """

    folder: Path
    broker: _Process

    def __init__(self, said: Path) -> None:
        self.said = said
        self.confirmed: dict[int, bytes] = {}
        self.unknown: set[bytes] = set()
        self.problems: list[str] = []
        self.acknowledged = self.lost = self.duplicated = self.reordered = 0
        self._number = 0

    @contextlib.contextmanager
    def on(self, folder: Path) -> Iterator[Store]:
        """Be on a mounted disk; the broker is ended at the end, so that nothing holds the disk."""
        self.folder = folder
        self.broker = _Process(folder / "store", self.said, SETTINGS)
        try:
            yield self
        finally:
            self.broker.kill()

    def begin(self) -> None:
        """Begin on an empty disk."""
        self.broker.start()
        with self.admin() as admin:
            admin.create_topic(TOPIC, configs={"segment.bytes": str(1 << 20)})

    def admin(self) -> Admin:
        return Admin(self.broker.address, timeout=PATIENCE_S)

    def producer(self, **settings: int) -> Producer:
        return Producer(self.broker.address, **settings)

    def send_one(self, producer: Producer, size: int = VALUE_BYTES) -> KafkaError | None:
        """Send a record and wait for it; returns why it was not stored, or None."""
        self._number += 1
        value = (b"%09d-" % self._number).ljust(size, b".")
        delivery = producer.send(TOPIC, value)
        try:
            delivery.result(PATIENCE_S)
        except KafkaError as error:
            if NO_ROOM not in str(error):
                self.unknown.add(value)
            return error
        assert delivery.offset is not None
        self.confirmed[delivery.offset] = value
        self.acknowledged += 1
        return None

    def fill(self, count_max: int = 1000, size: int = VALUE_BYTES) -> KafkaError | None:
        """Send until one is refused, and return why; None where none was."""
        producer = self.producer(**BRIEF)
        try:
            for _ in range(count_max):
                refused = self.send_one(producer, size)
                if refused is not None:
                    return refused
            return None
        finally:
            with contextlib.suppress(DeliveryError):
                producer.close()

    def refuses(self, why: str) -> None:
        """See that a record is refused, and that client and log tell why."""
        refused = self.fill()
        if "KAFKA_STORAGE_ERROR" not in str(refused):
            self.problems.append(f"it was not refused with KAFKA_STORAGE_ERROR: {refused!r}")
        elif why not in str(refused) and NO_ID not in str(refused):
            self.problems.append(f"the client is not told {why!r}: {refused}")
        if why not in self.said.read_text():
            self.problems.append(f"the log does not tell {why!r}: {self.broker.last_words()}")

    def goes_on(self) -> None:
        """See that writing goes on by itself."""
        settings = {"delivery_timeout_ms": int(PATIENCE_S * 1000), "linger_ms": 0}
        with self.producer(**settings) as producer:
            refused = self.send_one(producer, 100)
        if refused is not None:
            self.problems.append(f"writing does not go on: {refused}")

    def delete_before(self, offset: int) -> None:
        with self.admin() as admin:
            admin.delete_records(TOPIC, 0, offset)
        self.confirmed = {at: value for at, value in self.confirmed.items() if at >= offset}

    def _read(self) -> list[tuple[int, bytes]]:
        """Read until there is nothing behind what was confirmed; not for ever, though."""
        last = max(self.confirmed, default=-1)
        found: list[tuple[int, bytes]] = []
        deadline = time.monotonic() + PATIENCE_S
        with Consumer(self.broker.address, TOPIC, auto_offset_reset="earliest") as consumer:
            while time.monotonic() < deadline:
                records = consumer.poll(0.2)
                found += [(record.offset, record.value or b"") for record in records]
                if not records and (last < 0 or (found and found[-1][0] >= last)):
                    return found
        self.problems.append(f"reading does not come to offset {last}")
        return found

    def compare(self) -> None:
        """Read everything and see that it is what was confirmed."""
        found = self._read()
        by_offset = dict(found)
        lost = [at for at, value in self.confirmed.items() if by_offset.get(at) != value]
        values = [value for _, value in found]
        expected = set(self.confirmed.values()) | self.unknown
        self.lost += len(lost)
        self.duplicated += len(values) - len(set(values))
        self.reordered += sum(later < earlier for earlier, later in pairwise(values))
        wrong = [at for at, value in found if value not in expected]
        if lost or wrong:
            self.problems.append(f"offsets {lost[:5]} are lost, at {wrong[:5]} is what was refused")

    def note(self, row: Row) -> None:
        text = self.said.read_text()
        if "Traceback" in text:
            self.problems.append(f"it said: {text[text.index('Traceback') :][:2000]}")
        row.acknowledged += self.acknowledged
        row.lost += self.lost
        row.duplicated += self.duplicated
        row.reordered += self.reordered
        row.bad += len(self.problems)
        row.problems += self.problems

    def is_quiet(self, seconds: float = 1.0) -> None:
        """See that the broker does next to nothing, and says little, when nobody asks it."""
        lines, used = self.said.read_text().count("\n"), self.broker.cpu_s()
        time.sleep(seconds)
        if self.broker.cpu_s() - used > CPU_SHARE_MAX * seconds:
            self.problems.append("it spins")
        more = self.said.read_text().count("\n") - lines
        if more > LINES_MAX * seconds:
            self.problems.append(f"it says {more} lines a second: {self.broker.last_words()}")


def fill_foreign(path: Path) -> None:
    """Fill a disk with something that is not ours."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def full_disk_cycle(store: Store, chance: random.Random) -> None:
    """Fill the disk, look, perhaps kill, make room, and go on."""
    foreign = store.folder / "foreign"
    by_foreign = chance.random() < 0.4
    if by_foreign:
        was_full = store.fill(chance.randrange(60)) is not None
        fill_foreign(foreign)
        if chance.random() < 0.5 and store.confirmed and not was_full:
            # The first thing that asks for room is what makes some, out of what is held back.
            store.delete_before(min(store.confirmed) + 1)
    store.refuses(NO_ROOM)
    store.compare()
    if chance.random() < 0.4:
        if by_foreign:
            fill_foreign(foreign.with_name("more"))
        store.broker.kill()
        store.broker.start()
        store.compare()
        store.refuses(NO_ROOM)
    if by_foreign:
        foreign.unlink()
        foreign.with_name("more").unlink(missing_ok=True)
    if shutil.disk_usage(store.folder).free < ROOM_BYTES:
        offsets = sorted(store.confirmed)
        place = chance.choice([0.6, 0.9, 1.0])
        store.delete_before(offsets[-1] + 1 if place == 1.0 else offsets[int(len(offsets) * place)])
    store.goes_on()
    store.compare()


def full_disk(full: bool, seed: int = 1) -> Row:
    row = Row(FULL_DISK, exist=CYCLES_FULL if full else CYCLES_SHORT, skipped=why_not())
    if row.skipped:
        return row
    begin = time.monotonic()
    chance = random.Random(seed)
    with _said() as said, tmpfs(16) as folder, Store(said).on(folder) as store:
        store.begin()
        for _ in range(row.exist or 0):
            try:
                full_disk_cycle(store, chance)
            except (KafkaError, DidNotStart) as error:
                store.problems.append(f"{type(error).__name__}: {error}")
                break
            row.tried += 1
        if not store.problems and store.broker.stop() != 0:
            store.problems.append(f"it does not stop cleanly: {store.broker.last_words()}")
        store.note(row)
    row.seconds = time.monotonic() - begin
    return row


@contextlib.contextmanager
def _said() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ottla-said-") as folder:
        yield Path(folder) / "said"


def read_only_cycle(row: Row) -> None:
    """Have a disk become read-only under a broker, look, and look again after another mount."""
    with _said() as said, ext4_image(32) as image:
        store = Store(said)
        with ext4(image) as folder, store.on(folder):
            store.begin()
            store.fill(20)
            store.compare()
            make_read_only(folder)
            store.refuses(CHANGELESS)
            store.compare()
            store.is_quiet()
            if store.broker.stop() == 0:
                store.problems.append("it says that it stopped cleanly")
        with ext4(image) as folder, store.on(folder):
            store.broker.start()
            store.goes_on()
            store.compare()
            if store.broker.stop() != 0:
                store.problems.append(f"it does not stop cleanly: {store.broker.last_words()}")
        with ext4(image, "ro") as folder, store.on(folder):
            with contextlib.suppress(DidNotStart):
                store.broker.start()
                store.problems.append("it starts on a read-only disk")
            if CHANGELESS not in store.broker.last_words():
                store.problems.append(f"no clear error: {store.broker.last_words()}")
        store.note(row)


def read_only_disk(full: bool) -> Row:
    row = Row(READ_ONLY, exist=READ_ONLY_FULL if full else READ_ONLY_SHORT)
    row.skipped = why_not("mkfs.ext4")
    if row.skipped:
        return row
    begin = time.monotonic()
    for _ in range(row.exist or 0):
        try:
            read_only_cycle(row)
        except (KafkaError, DidNotStart) as error:
            row.bad += 1
            row.problems.append(f"{type(error).__name__}: {error}")
        row.tried += 1
    row.seconds = time.monotonic() - begin
    return row


def rows(full: bool) -> list[Row]:
    """Fill disks, and make others read-only; only some times in the short form."""
    return [full_disk(full), read_only_disk(full)]
