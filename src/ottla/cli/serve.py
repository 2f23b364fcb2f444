"""`ottla serve`: serves a store over Kafka's protocol until it is told to stop."""

from __future__ import annotations

import logging
import sys

import click

from ottla.broker.broker import Broker, parse_address
from ottla.broker.server import serve


@click.command()
@click.argument("folder", metavar="[DIR]", default="./ottla-data")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="localhost:9092",
    show_default=True,
    help="Where to listen; port 0 picks one that is free.",
)
@click.option(
    "--advertise",
    metavar="HOST:PORT",
    help="What clients are told to connect to, where it is not the address that they came to.",
)
@click.option(
    "--durability",
    type=click.Choice(("disk", "os")),
    default="disk",
    show_default=True,
    help="Confirm a record when it has been synced to the disk, or when it has been written.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A broker config; repeatable."
)
def command(
    folder: str, listen: str, advertise: str | None, durability: str, settings: tuple[str, ...]
) -> None:
    """Serve the store in DIR (./ottla-data) to every Kafka client.

    Prints `ready HOST:PORT` when it accepts connections. SIGTERM and Ctrl-C stop it with nothing
    lost.
    """
    host, port = _parse_listen(listen)
    given = dict(_parse_setting(text) for text in settings)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    with Broker(folder, durability=durability, advertise=advertise, settings=given) as broker:
        serve(broker, host, port, lambda address: click.echo(f"ready {address}"))


def _parse_listen(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if colon and port == "0":
        return parse_address(f"{host}:1")[0], 0
    return parse_address(text)


def _parse_setting(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.UsageError(f"a broker config is NAME=VALUE, not {text!r}")
    return name, value
