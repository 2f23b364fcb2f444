"""What figures were measured on, and how they are summed up."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import ottla
from ottla._compiled import MODULES, is_compiled

_PEERS = ("confluent-kafka", "aiokafka", "kafka-python", "pyarrow")
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


def by_name(folder: Path) -> dict[str, str]:
    """Return what the machine is, fact by fact.

    Args:
        folder: on the disk that is measured.
    """
    return {
        "processor": _line_of("/proc/cpuinfo", "model name"),
        "cores": str(os.cpu_count()),
        "memory": _line_of("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "file system": file_system(folder),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "form": "compiled" if all(map(is_compiled, MODULES)) else "pure Python",
    }


def versions() -> dict[str, str]:
    """Return the versions of ottla and of its peers, of those that are installed."""
    found = {"ottla": ottla.__version__}
    for name in _PEERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    with contextlib.suppress(ImportError):
        confluent_kafka = importlib.import_module("confluent_kafka")
        found["librdkafka"] = str(confluent_kafka.libversion()[0])
    return found


def load() -> str:
    """Return how much the machine has to do: of the last 1, 5 and 15 minutes."""
    return ", ".join(f"{each:.2f}" for each in os.getloadavg())


def commit() -> str:
    """Return the commit that is measured, with a + where `src` differs; "?" outside of git."""
    root = Path(__file__).parents[1]
    try:
        name = _git(root, "rev-parse", "--short", "HEAD")
        return name + ("+" if _git(root, "status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.CalledProcessError):
        return "?"


def _git(root: Path, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _line_of(path: str, name: str) -> str:
    """Return what the first line of that name in a file says."""
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return "?"


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
