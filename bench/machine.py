"""What figures were measured on, and how they are summed up."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import ottla

_SYNCS = 200
_BLOCK = bytes(4096)


def facts() -> str:
    """Return what the machine is, and what runs on it."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"ottla {ottla.__version__}, {platform.python_implementation()} "
        f"{platform.python_version()}, {platform.platform()}, {os.cpu_count()} CPUs, "
        f"load before the run {load}"
    )


def file_system(folder: Path) -> str:
    """Return the kind of file system that a folder is on, and where it is mounted."""
    found = ("?", "/")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if folder.resolve().is_relative_to(where) and len(where) >= len(found[1]):
            found = (kind, where)
    return f"{found[0]} on {found[1]}"


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which `part` of all values are."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def sync_times_ms(folder: Path) -> list[float]:
    """Append 4 KiB to a new file and make it durable, again and again; what each sync took."""
    taken = []
    path = folder / "synced"
    with path.open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(_BLOCK)
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - begin) * 1000)
    path.unlink()
    return taken
