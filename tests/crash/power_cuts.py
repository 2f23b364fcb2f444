"""Power cuts: the file system below a serving broker is shut down without writing its log.

The store is on an image that is mounted through a loop device. Under load the file system is told
to stop at once and to write nothing any more, not even its log (the ioctl that ext4 and xfs have
for tests of this kind): what was not synced is gone, in files and in folders. The broker is killed
a moment later, so that it has time to say something untrue. Then the image is mounted again, which
replays the file system's log, the broker starts on what is left, and the producers go on. Now and
then the broker is started once more before that, on the file system that is shut down.

On ext4 an fdatasync that is under way at that moment may succeed, though what it was to write is
gone; nothing that has lost its power says anything, so what is told between the cut and the end of
the broker does not count there. xfs tells the truth, and on it everything counts.

What was acknowledged, or given to a consumer, must be there; a topic with os durability may lose
its tail, and nothing else. An image lives for some rounds: stores with a history are cut as well.

Linux: EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN; xfstests' "godown".
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.compat.serving import COMMAND
from tests.crash.history import judge
from tests.crash.kills import SETTINGS, add, bad, close, pause, scratch, tell
from tests.crash.load import Load, Topic, connecting_soon
from tests.crash.process import BrokerProcess, DidNotStart
from tests.crash.report import Row

FILE_SYSTEMS = ("ext4", "xfs")
CYCLES_FULL = 600
CYCLES_SHORT = 25
CYCLES_A_ROUND = 6
ROUNDS_AN_IMAGE = 4

LOAD_S_MAX = 0.2
AFTERLIFE_S_MAX = 0.05
"""How long the broker may go on after the cut."""

ANSWER_TIMEOUT_S = 60.0

LET_GO_S_MAX = 60.0
"""How long somebody else may hold a file system that is unmounted here."""

_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = struct.pack("=I", 2)
_IMAGE_BYTES = 320 << 20
_UNTRUE = ("ext4",)
"""Where a sync may succeed while the file system is shut down: seen with Linux 6.18."""

_WITHOUT_DISK = 0.15
_TOOLS = ("losetup", "mount", "umount")


def topics_of(name: str) -> list[Topic]:
    """Return topics whose segments are short, all but one of them durable."""
    short = {"segment.ms": "40"}
    return [
        Topic(f"steady-{name}", 2, short),
        Topic(f"sized-{name}", 1, {"segment.bytes": "1048576"}),
        Topic(
            f"compacted-{name}",
            1,
            short | {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"},
        ),
        Topic(f"retained-{name}", 1, short | {"retention.bytes": "60000"}, loses_start=True),
        Topic(f"trimmed-{name}", 1, short, is_trimmed=True),
        Topic(f"os-{name}", 1, short | {"ottla.durability": "os"}, is_weak=True),
    ]


def why_not(file_system: str) -> str:
    """Return why power cuts cannot be tried on this machine, or ""."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "needs Linux, and root to mount"
    for tool in (*_TOOLS, f"mkfs.{file_system}"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    found = _run("losetup", "--find", may_fail=True)
    return "" if found else "there are no loop devices"


def _run(*command: str, may_fail: bool = False) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 and not may_fail:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


class Image:
    """A file system in a file.

    Args:
        folder: where the file and the mount point are.
        file_system: "ext4" or "xfs".

    Attributes:
        mounted: where it is mounted.
    """

    def __init__(self, folder: Path, file_system: str) -> None:
        self.mounted = folder / "mounted"
        self.mounted.mkdir()
        image = folder / "image"
        with image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        quiet = ("-q",) if file_system == "xfs" else ("-q", "-F")
        _run(f"mkfs.{file_system}", *quiet, str(image))
        self._file_system = file_system
        self._device = _run("losetup", "--find", "--show", str(image))

    def mount(self) -> None:
        """Mount it; the file system's log is replayed."""
        _run("mount", "-t", self._file_system, self._device, str(self.mounted))

    def unmount(self) -> None:
        """Unmount it, and wait until the kernel has let go of it.

        Where somebody else holds the file system a moment longer (another mount namespace, or a
        process that looks at it just then), `umount` succeeds and the next mount is the same file
        system again, shut down as it is.

        Raises:
            OSError: it is held for longer than `LET_GO_S_MAX`.
        """
        _run("umount", str(self.mounted))
        until = time.monotonic() + LET_GO_S_MAX
        while not self._is_free():
            if time.monotonic() > until:
                raise OSError(f"{self._device} is unmounted here, and still mounted elsewhere")
            time.sleep(0.01)

    def _is_free(self) -> bool:
        try:
            os.close(os.open(self._device, os.O_RDONLY | os.O_EXCL))
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise
        return True

    def cut(self) -> None:
        """Let nothing be written any more."""
        descriptor = os.open(self.mounted, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Let go of mount and device, in whatever state they are."""
        _run("umount", "-l", str(self.mounted), may_fail=True)
        _run("losetup", "-d", self._device, may_fail=True)


@contextmanager
def image_in(folder: Path, file_system: str) -> Iterator[Image]:
    """Make an image and mount it."""
    image = Image(folder, file_system)
    try:
        image.mount()
        yield image
    finally:
        image.remove()


def rows(full: bool, *, cycles: int | None = None, seed: int = 0) -> list[Row]:
    """Run it on every file system.

    Args:
        full: whether to run the number of cycles that is promised, or a few.
        cycles: how many on each file system, where it is neither.
        seed: where chance begins.
    """
    wanted = cycles or (CYCLES_FULL if full else CYCLES_SHORT)
    return [PowerCuts(each, wanted, seed).run() for each in FILE_SYSTEMS]


class PowerCuts:
    """A run on one file system.

    Args:
        file_system: "ext4" or "xfs".
        cycles: how many cuts.
        seed: where chance begins.
        command: what to run instead of `ottla`.
        settings: broker configs.
    """

    def __init__(
        self,
        file_system: str,
        cycles: int,
        seed: int,
        command: Sequence[str] = COMMAND,
        settings: Mapping[str, str] = SETTINGS,
    ) -> None:
        self.row = Row(f"power cut, {file_system}")
        self._file_system = file_system
        self._cycles = cycles
        self._seed = seed
        self._command = command
        self._settings = settings
        self._chance = random.Random(f"{file_system} {seed}")
        self._is_over = False

    def run(self) -> Row:
        """Run it, one image after the other."""
        self.row.skipped = why_not(self._file_system)
        if self.row.skipped:
            return self.row
        began = time.monotonic()
        with connecting_soon():
            while self.row.tried < self._cycles and not self._is_over:
                with (
                    scratch(self.row) as folder,
                    image_in(folder, self._file_system) as image,
                ):
                    self._run_image(folder, image)
        self.row.seconds = time.monotonic() - began
        return self.row

    def _run_image(self, folder: Path, image: Image) -> None:
        store = image.mounted / "store"
        broker = BrokerProcess(store, folder / "said", self._settings, self._command)
        load = Load(broker.address, self._chance.getrandbits(32))
        try:
            broker.start()
            for number in range(ROUNDS_AN_IMAGE):
                if self.row.tried < self._cycles and not (self._is_over or load.hangs):
                    self._run_round(broker, load, image, str(number))
            if broker.stop() != 0:
                bad(self.row, f"it did not stop: {broker.last_words()}")
        except DidNotStart as error:
            bad(self.row, f"it did not start: {error}")
            self._is_over = True
        finally:
            broker.kill()
            self._is_over |= close(load, self.row)

    def _run_round(self, broker: BrokerProcess, load: Load, image: Image, name: str) -> None:
        load.begin(topics_of(name))
        for _ in range(min(CYCLES_A_ROUND, self._cycles - self.row.tried)):
            if not self._is_over:
                self._cut(broker, load, image)
                self.row.tried += 1
        history = load.end()
        load.read_to_the_end(history)
        add(self.row, judge(history), load.problems)
        load.problems.clear()
        tell(
            f"{self.row.what}: {self.row.tried} of {self._cycles} cuts, "
            f"{self.row.acknowledged} records acknowledged, seed {self._seed}"
        )

    def _cut(self, broker: BrokerProcess, load: Load, image: Image) -> None:
        """Cut it once, and leave it serving."""
        if not load.wait_for_an_answer(ANSWER_TIMEOUT_S):
            bad(self.row, f"nothing is acknowledged any more: {broker.last_words()}")
            self._is_over = True
        pause(self._chance.uniform(0, LOAD_S_MAX))
        if self._file_system in _UNTRUE:
            load.doubt()
        image.cut()
        pause(self._chance.uniform(0, AFTERLIFE_S_MAX))
        broker.kill()
        if self._file_system in _UNTRUE:
            load.trust()
        if self._chance.random() < _WITHOUT_DISK:
            broker.launch()
            if broker.wait_until_ready():  # what it acknowledges now will be missing
                pause(LOAD_S_MAX)
            broker.kill()
        image.unmount()
        image.mount()
        broker.start()
