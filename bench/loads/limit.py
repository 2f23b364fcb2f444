"""What this machine does with bytes: the loopback's copy, and writing into the page cache.

    python -m bench.loads.limit JSON        the fields of `Load`

The layout is that of `bench.loads.bulk` and a broker: this process sends, another one takes it. For
the loopback that one receives blocks into one buffer and answers each; for the page cache it is
sent an order for each block, writes one that it has to a new file, and answers. So both take what
a broker takes at least, without anything that a broker does between.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.loads.process import ROOT, Meter, Outcome, serve
from bench.resources import ready_page_cache

MODULE = "bench.loads.limit"
LOOPBACK, PAGE_CACHE = "loopback", "page cache"

_ANSWER = b"\0\0\0\0"
_HEAD = struct.Struct(">i")


@dataclass(frozen=True)
class Load:
    """What is to be done.

    Attributes:
        what: one of the two.
        path: the file that is written; it is removed in the end.
        blocks: how many.
        block_bytes: how large they are.
        in_flight: how many are under way.
    """

    what: str
    path: str
    blocks: int
    block_bytes: int = 1_000_000
    in_flight: int = 5


def _take(load: Load, connection: socket.socket) -> None:
    """Be the other process."""
    block = bytearray(load.block_bytes)
    view = memoryview(block)
    if load.what == LOOPBACK:
        for _ in range(load.blocks):
            connection.recv_into(view, load.block_bytes, socket.MSG_WAITALL)
            connection.sendall(_ANSWER)
        return
    file = os.open(load.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    head = bytearray(_HEAD.size)
    for _ in range(load.blocks):
        connection.recv_into(head, _HEAD.size, socket.MSG_WAITALL)
        written = os.write(file, view)
        assert written == load.block_bytes, "the disk is full"
        connection.sendall(_ANSWER)
    os.close(file)


def prepare(settings: dict[str, Any]) -> Callable[[], Outcome]:
    """Start the other process, and connect."""
    load = Load(**settings)
    listener = socket.create_server(("127.0.0.1", 0))
    code = "from bench.loads import limit; limit.take()"
    arguments = [str(listener.getsockname()[1]), sys.argv[1]]
    taker = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT)
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if load.what == PAGE_CACHE:
        ready_page_cache(load.blocks * load.block_bytes)
    sent = bytes(load.block_bytes) if load.what == LOOPBACK else _HEAD.pack(load.block_bytes)

    def run() -> Outcome:
        meter = Meter()
        answer = bytearray(len(_ANSWER))
        for number in range(load.blocks + load.in_flight):
            if number >= load.in_flight:
                connection.recv_into(answer, len(_ANSWER), socket.MSG_WAITALL)
            if number < load.blocks:
                connection.sendall(sent)
        outcome = meter.outcome(load.blocks, load.blocks * load.block_bytes)
        connection.close()
        taker.wait()
        if load.what == PAGE_CACHE:
            os.unlink(load.path)
        return outcome

    return run


def take() -> None:
    """Be the other process, as the command line says."""
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _take(Load(**json.loads(sys.argv[2])), connection)


if __name__ == "__main__":
    serve(prepare)
