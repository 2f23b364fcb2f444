"""A way to the broker on which answers take their time, and are lost when the broker is killed.

Without it a client has nearly every answer that a broker gave before it was killed: they lie in the
kernel's buffers. Here a client often has none of the last few, though what they tell of has been
stored, synced and perhaps written into a snapshot; it sends all of it again.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading

_CHUNK_BYTES = 1 << 16
_RESET = struct.pack("ii", 1, 0)


class LateAnswers:
    """Forwards connections to a broker.

    Args:
        target: where the broker listens.
        seed: where chance begins.
        delay_s_max: how long an answer may take.

    Attributes:
        address: where it listens itself.
    """

    def __init__(self, target: str, seed: int, delay_s_max: float = 0.1) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._delay_s_max = delay_s_max
        self._chance = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._guard = threading.Lock()
        self._links: list[_Link] = []
        self._closed = False
        threading.Thread(target=self._accept, name="late answers", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(self._target)
            except OSError:
                _reset(client)
                continue
            for each in (client, broker):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(client, broker)
            with self._guard:
                self._links.append(link)
            threading.Thread(target=link.forward, daemon=True).start()
            delays = random.Random(self._chance.random())
            threading.Thread(
                target=link.answer, args=(delays, self._delay_s_max), daemon=True
            ).start()

    def cut(self) -> None:
        """Break all connections; answers that are on their way are lost."""
        with self._guard:
            links, self._links = self._links, []
        for link in links:
            link.cut()

    def close(self) -> None:
        """Accept nothing any more, and break all connections."""
        with contextlib.suppress(OSError):  # it wakes the thread that accepts
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


class _Link:
    """One connection of a client, and that to the broker which belongs to it."""

    def __init__(self, client: socket.socket, broker: socket.socket) -> None:
        self._client = client
        self._broker = broker
        self._is_cut = threading.Event()

    def forward(self) -> None:
        """Bring what the client says to the broker at once."""
        with contextlib.suppress(OSError):
            while data := self._client.recv(_CHUNK_BYTES):
                self._broker.sendall(data)
        self.cut()

    def answer(self, delays: random.Random, delay_s_max: float) -> None:
        """Bring what the broker says to the client, later."""
        with contextlib.suppress(OSError):
            while data := self._broker.recv(_CHUNK_BYTES):
                if self._is_cut.wait(delays.uniform(0, delay_s_max)):
                    break
                self._client.sendall(data)
        self.cut()

    def cut(self) -> None:
        """Break both connections."""
        if not self._is_cut.is_set():
            self._is_cut.set()
            _reset(self._client)
            _reset(self._broker)


def _reset(connection: socket.socket) -> None:
    """Close a connection so that nothing that is on its way arrives, and its threads wake."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
