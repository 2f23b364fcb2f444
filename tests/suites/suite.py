"""A suite of tests of somebody else's client: where it comes from, and how it is run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from tests.suites.outcomes import Outcome

KAFKA_AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
    "super.users": "User:ANONYMOUS",
}
"""What makes a real Apache Kafka serve ACLs, and let everybody in."""

_BUILT = "built"
"""Is in a suite's folder when it is ready to run."""

_FETCH_TIMEOUT_S = 600
_BUILD_TIMEOUT_S = 3600
_TAIL_CHARS = 3000
_END_S = 20


class Target(NamedTuple):
    """A running broker.

    Attributes:
        address: where it is, host:port.
        version: the version of Apache Kafka that a client takes it for.
    """

    address: str
    version: str


class SuiteError(Exception):
    """A suite could not be fetched, built or run."""


class Suite(ABC):
    """Fetches, builds and runs one suite, in a folder of its own.

    Attributes:
        name: what the command calls it.
        version: the client's version.
        package: what pip or npm calls the client, with its version.
        archive: the file that they fetch.
        sha256: of the archive.
        inner: the folder in the archive that has the source.
        settings: what the suite wants a broker to be started with.
        kafka_settings: what it wants besides of a real Apache Kafka.
        topics: those that it expects to be there, and their partitions.
        timeout_s: how long its tests may take in all.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    package: ClassVar[str]
    archive: ClassVar[str]
    sha256: ClassVar[str]
    inner: ClassVar[str]
    settings: ClassVar[Mapping[str, str]] = {}
    kafka_settings: ClassVar[Mapping[str, str]] = {}
    topics: ClassVar[Mapping[str, int]] = {}
    timeout_s: ClassVar[int] = 1800

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name
        self.source = self.folder / self.inner

    def ready(self) -> None:
        """Fetch it and build it, unless that has been done in this folder.

        Raises:
            SuiteError: it could not be had, or is not what it was.
        """
        mark = self.folder / _BUILT
        if mark.exists() and mark.read_text() == self.sha256:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        archive = self.folder / self.archive
        if not archive.exists():
            self.command(self.fetch_command(), self.folder, _FETCH_TIMEOUT_S)
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != self.sha256:
            raise SuiteError(f"{archive} has the SHA-256 {found}; expected {self.sha256}")
        with tarfile.open(archive) as tar:
            tar.extractall(self.folder, filter="data")
        self.build()
        mark.write_text(self.sha256)

    @abstractmethod
    def fetch_command(self) -> Sequence[str]:
        """Return the command that puts the archive into the folder where it runs."""

    @abstractmethod
    def build(self) -> None:
        """Make of the unpacked source what can be run."""

    @abstractmethod
    def run(self, target: Target, only: str) -> list[Outcome]:
        """Run the tests.

        Args:
            target: the broker.
            only: run what has this in its name, in the suite's own words; "" for all.
        """

    def command(
        self, command: Sequence[str], folder: Path, timeout_s: int = _BUILD_TIMEOUT_S
    ) -> None:
        """Run a command that has to succeed; what it says is kept in a file.

        Raises:
            SuiteError: it failed, with the end of what it said; or it took too long.
        """
        log = self._log(command)
        with _started(command, folder, {}, log) as process:
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                raise SuiteError(f"{' '.join(command)} took too long; see {log}") from None
        if code:
            said = log.read_text(errors="replace")[-_TAIL_CHARS:]
            raise SuiteError(f"{' '.join(command)} ended with {code}:\n{said}")

    def report_of(
        self, command: Sequence[str], folder: Path, variables: Mapping[str, str], report: Path
    ) -> str:
        """Run the tests, whatever comes of them, and return the report that they write.

        A client that hangs when all is over is ended some time after it has written it.

        Raises:
            SuiteError: there is none.
        """
        report.unlink(missing_ok=True)
        left_s = self.timeout_s
        with _started(command, folder, variables, self._log(command)) as process:
            while left_s > 0:
                left_s -= 1
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1)
                    break
                if report.exists() and report.stat().st_size > 0:
                    left_s = min(left_s, _END_S)
        if not report.exists():
            raise SuiteError(f"{' '.join(command)} wrote no report; see {self._log(command)}")
        return report.read_text()

    def _log(self, command: Sequence[str]) -> Path:
        return self.folder / f"{Path(command[0]).name}.log"

    def pip_download(self) -> list[str]:
        """Return the command that fetches a source distribution."""
        name = self.package.partition("==")[0]
        own = ["--no-deps", "--no-binary", name, "--dest", ".", self.package]
        return [sys.executable, "-m", "pip", "download", "-q", *own]

    def npm_pack(self) -> list[str]:
        """Return the command that fetches an npm package."""
        return ["npm", "pack", "--silent", self.package]


@contextlib.contextmanager
def _started(
    command: Sequence[str], folder: Path, variables: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command, in a process group that nothing of it outlives."""
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
