"""How a command ends: exit codes, and the options that all commands share.

0 ok, 1 failed, 2 usage, 3 unreachable, 4 partly done, 5 refused, 124 timed out, 130 Ctrl-C
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ottla.errors import (
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    DeliveryError,
    KafkaError,
    NotKafka,
    Timeout,
    codes,
)

FAILED, USAGE, UNREACHABLE, PARTLY, REFUSED, TIMED_OUT = 1, 2, 3, 4, 5, 124

_REFUSALS = {
    codes.TOPIC_AUTHORIZATION_FAILED,
    codes.GROUP_AUTHORIZATION_FAILED,
    codes.CLUSTER_AUTHORIZATION_FAILED,
    codes.SASL_AUTHENTICATION_FAILED,
}
F = TypeVar("F", bound=Callable[..., Any])


class PartlyDone(KafkaError):
    """Some of what was asked for was done."""


class Refused(KafkaError):
    """What was asked for is not done while things are as they are."""


def exit_code_of(error: BaseException) -> int:
    """Return the exit code for an exception; one that is none of ours is raised again."""
    if not isinstance(error, KafkaError):
        raise error
    if isinstance(error, PartlyDone):
        return PARTLY
    if isinstance(error, Refused):
        return REFUSED
    if isinstance(error, DeliveryError):
        return exit_code_of(error.causes[0]) if error.causes else FAILED
    if isinstance(error, BrokerUnavailable | NotKafka):
        return UNREACHABLE
    if isinstance(error, Timeout):
        return TIMED_OUT
    if isinstance(error, ConfigError):
        return USAGE
    if isinstance(error, BrokerError) and error.code in _REFUSALS:
        return REFUSED
    return FAILED


def broker_option(function: F) -> F:
    """Add `-b/--broker`."""
    return click.option(
        "-b",
        "--broker",
        "address",
        metavar="ADDRESS",
        envvar="OTTLA_BROKER",
        default="./ottla-data",
        show_default=True,
        help="host:port[,host:port], or a folder with an embedded store. Also $OTTLA_BROKER.",
    )(function)


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def text_or_base64(name: str, data: bytes | None) -> dict[str, str | None]:
    """Return bytes for JSON: under their name where they are UTF-8, else `NAME_base64`."""
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        import base64

        return {f"{name}_base64": base64.b64encode(data).decode()}
