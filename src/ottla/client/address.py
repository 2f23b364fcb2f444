"""What an address means.

    "host:port[,host:port]"     one broker or several, over TCP
    "./folder", a path          the store in that folder, in this process
    a `Broker` object           that broker, in this process
    nothing                     $OTTLA_BROKER, or else the store in ./ottla-data

Nothing is guessed: what is neither is refused with how it would have to be written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ottla.errors import ConfigError

if TYPE_CHECKING:
    from ottla.client.network import Network
    from ottla.clock import Clock

DEFAULT_FOLDER = "./ottla-data"
ADDRESS_VARIABLE = "OTTLA_BROKER"

_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^\s/\\:,]+):(?P<port>\d{1,5})")


def default_address() -> str:
    """Return the address where none is given."""
    return os.environ.get(ADDRESS_VARIABLE) or DEFAULT_FOLDER


def parse_brokers(address: str) -> list[tuple[str, int]] | None:
    """Return (host, port) pairs, or None where the address is none of brokers.

    >>> parse_brokers("localhost:9092,[::1]:9093")
    [('localhost', 9092), ('::1', 9093)]
    """
    brokers = []
    for part in address.split(","):
        match = _HOST_AND_PORT.fullmatch(part.strip())
        if match is None:
            return None
        port = int(match["port"])
        if not 0 < port < 65536:
            raise ConfigError(f"address {address!r}: there is no port {port}")
        brokers.append((match["host"].strip("[]"), port))
    return brokers


def open_network(address: object, client_id: str, clock: Clock) -> Network:
    """Return what leads to an address; nothing is connected yet.

    Raises:
        ConfigError: it is no address.
        StorageError: the folder cannot be opened as a store.
    """
    if address is None:
        address = default_address()
    if isinstance(address, list | tuple):
        address = ",".join(_as_text(each) for each in address)
    if isinstance(address, str):
        brokers = parse_brokers(address)
        if brokers is not None:
            from ottla.client.tcp import TcpNetwork

            return TcpNetwork(brokers, client_id, clock)
        if not _is_path(address):
            raise ConfigError(
                f"{address!r} is neither host:port nor a folder",
                next_steps=(
                    f"A broker:   '{address}:9092' (host and port)",
                    f"A folder:   './{address}' (with a slash)",
                ),
            )
    from ottla.embedded import open_embedded

    return open_embedded(address, client_id, clock)


def _as_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Sequence) and len(part) == 2:
        return f"{part[0]}:{part[1]}"
    raise ConfigError(f"{part!r} is no address: give host:port")


def _is_path(address: str) -> bool:
    return (
        os.sep in address
        or "/" in address
        or address.startswith((".", "~"))
        or os.path.isdir(address)
    )
