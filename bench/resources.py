"""What processes take of the machine, as the kernel tells it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_CPUCLOCK_SCHED = 2
"""With the process's id the number of its clock, as clock_getcpuclockid() makes it."""

_FORGET_PEAK = "5\n"
_BLOCK = bytes(1 << 20)


def ready_page_cache(size: int) -> None:
    """Write a file and let go of it, so that its memory is at hand for what is written next.

    A virtual machine gives memory that has been free for seconds back to its host, and whoever
    writes next waits for that: what the page cache takes differs by a factor of four by it. What is
    compared begins alike with this, whatever ran before.

    Args:
        size: how many bytes will be written, about.
    """
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(size // len(_BLOCK) + 1):
            file.write(_BLOCK)


@dataclass(frozen=True)
class Process:
    """A process.

    Attributes:
        pid: its id.
    """

    pid: int

    def cpu_s(self) -> float:
        """Return the processor's time that it has taken, of all its threads."""
        return time.clock_gettime(~self.pid << 3 | _CPUCLOCK_SCHED)

    def resident_mb(self) -> float:
        """Return how much memory it has."""
        return self._status("VmRSS")

    def peak_mb(self) -> float:
        """Return the most memory that it had, since `forget_peak`.

        The kernel's `ru_maxrss` would begin with what its parent had.
        """
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Let `peak_mb` begin anew, where the kernel allows that."""
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/clear_refs").write_text(_FORGET_PEAK)

    def _status(self, name: str) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise LookupError(f"process {self.pid} has ended")
