"""`ottla serve` as a process of its own, as users run it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

COMMAND = (sys.executable, "-c", "from ottla.cli.main import main; main()")
_STOP_TIMEOUT_S = 60


PORTS = range(10_000, 32_000)
"""Below those that Linux gives to whoever connects.

One of those could be taken by a connection, or by a broker of another test that asks for any port,
while a broker that was killed is not back yet.
"""


def free_port() -> int:
    """Return a port that is free now, and that nobody is given who does not ask for it."""
    chance = random.SystemRandom()
    while True:
        port = chance.choice(PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Serving:
    """A served store, on one port across restarts.

    Args:
        folder: the store.
        options: more options of `ottla serve`.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        environment = {key: value for key, value in os.environ.items() if key != "OTTLA_BROKER"}
        self._process = subprocess.Popen(
            [*COMMAND, "serve", str(self.folder), "--listen", self.address, *self._options],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line != f"ready {self.address}\n":
            self.stop(signal.SIGKILL)
            raise AssertionError(f"it did not start: {line!r}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop it and return its exit code."""
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

    def restart(self) -> None:
        """Stop it cleanly and start it again."""
        assert self.stop() == 0
        self.start()

    def __enter__(self) -> Serving:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
