"""`ottla serve` as a process that is killed, also while it starts.

Unlike `tests.compat.serving` it may be killed before it is ready, may fail to start, and what it
says goes to a file that lies outside of the store.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.compat.serving import COMMAND, free_port

_READY_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 60
_TAIL_BYTES = 400


class BrokerProcess:
    """A broker, on one port across restarts.

    Args:
        folder: the store.
        said: the file that takes what it says on stderr.
        settings: broker configs.
        command: what to run instead of `ottla`.

    Attributes:
        address: where it listens.
    """

    def __init__(
        self,
        folder: Path,
        said: Path,
        settings: Mapping[str, str],
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._said = said
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [*command, "serve", str(folder), "--listen", self.address]
        for name, value in settings.items():
            self._command += ["--set", f"{name}={value}"]

    def advertise(self, address: str) -> None:
        """Have it tell clients another address than the one it listens at."""
        self._command += ["--advertise", address]

    def launch(self) -> None:
        """Start it, and do not wait for it."""
        assert self._process is None
        environment = {key: value for key, value in os.environ.items() if key != "OTTLA_BROKER"}
        with self._said.open("ab") as said:
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=said, env=environment
            )

    def wait_until_ready(self) -> bool:
        """Wait until it serves; False where it ended without, or said nothing in time."""
        assert self._process is not None and self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _READY_TIMEOUT_S)[0]:
            return False
        return self._process.stdout.readline() == f"ready {self.address}\n".encode()

    def start(self) -> None:
        """Start it, and wait until it serves.

        Raises:
            DidNotStart: it does not.
        """
        self.launch()
        if not self.wait_until_ready():
            self.kill()
            raise DidNotStart(self.last_words())

    def kill(self) -> None:
        """End it with SIGKILL, whatever it is doing."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Stop it cleanly; returns its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None or process.stdout is None:
            return 0
        process.send_signal(how)
        try:
            return process.wait(_STOP_TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def last_words(self) -> str:
        """Return the end of what it has said."""
        content = self._said.read_bytes() if self._said.exists() else b""
        return content[-_TAIL_BYTES:].decode(errors="replace")


class DidNotStart(Exception):
    """A broker that ended, or hangs, instead of serving."""
