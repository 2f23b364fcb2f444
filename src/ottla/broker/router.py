"""Finds a request's handler, and the classes of its messages.

They are imported when the first request of an API comes, so that an embedded `send` pays for what
it uses, and a server accepts connections before it knows everything. A server imports the others
soon after its start (`load_all`): what it serves is of one version then, whatever is installed
while it runs.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from ottla.broker.apis import API_VERSIONS, APIS
from ottla.broker.requests import CloseConnection, Pending

if TYPE_CHECKING:
    from collections.abc import Callable

    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context, Reply
    from ottla.protocol.message import ApiMessage
    from ottla.wire.cursor import Reader, Writer

_LOG = logging.getLogger("ottla.broker")


class Served(NamedTuple):
    """How one version of an API is served.

    Attributes:
        version: the version.
        request_class: the class of its requests.
        response_class: the class of its responses.
        request_is_flexible: whether the header of the request has tagged fields.
        response_is_flexible: whether that of the response has; never in ApiVersions, whose reader
            may not know yet what the broker understands.
        handler: what answers; Any: each takes its own class of requests.
        usual: what answers a usual request from bytes to bytes, and tells whether it did, or None.
    """

    version: int
    request_class: type[ApiMessage]
    response_class: type[ApiMessage]
    request_is_flexible: bool
    response_is_flexible: bool
    handler: Callable[[Engine, Any, int, Context], Reply]
    usual: Callable[[Engine, Reader, int, Writer], bool] | None


_LOADED: dict[int, Served] = {}
"""By the first four bytes of a request's header, which are API key and version."""


def find_served(key_and_version: int) -> Served | None:
    """Return how a version of an API is served, or None where it is not.

    Args:
        key_and_version: the first four bytes of a request's header.
    """
    return _LOADED.get(key_and_version) or _load(key_and_version)


def _load(key_and_version: int) -> Served | None:
    key, version = key_and_version >> 16, key_and_version & 0xFFFF
    api = APIS.get(key)
    if api is None or not api.min_version <= version <= api.max_version:
        return None
    module = f"api_{key:02}_{api.name}"
    messages = import_module(f"ottla.protocol.messages.{module}")
    name = api.name.title().replace("_", "")
    request: type[ApiMessage] = getattr(messages, f"{name}Request")
    response: type[ApiMessage] = getattr(messages, f"{name}Response")
    handlers = import_module(f"ottla.broker.handlers.{module}")
    loaded = _LOADED[key_and_version] = Served(
        version,
        request,
        response,
        version >= request.SCHEMA.flexible,
        version >= response.SCHEMA.flexible and key != API_VERSIONS,
        handlers.handle,
        getattr(handlers, "answer_usual", None),
    )
    return loaded


def load_all() -> None:
    """Import the handlers of all APIs, in some thread."""
    for key, api in APIS.items():
        find_served(key << 16 | api.max_version)


def handle(engine: Engine, request: ApiMessage, version: int, context: Context) -> Reply:
    """Answer a request; called with `engine.lock` held.

    Raises:
        CloseConnection: there is no other answer.
    """
    found = find_served(request.API_KEY << 16 | version)
    if found is None:
        raise CloseConnection(f"{type(request).__name__} version {version} is not served")
    return answer(engine, found, request, context)


def answer(engine: Engine, served: Served, request: ApiMessage, context: Context) -> Reply:
    """Answer a request of a version that is served; called with `engine.lock` held.

    Raises:
        CloseConnection: there is no other answer.
    """
    try:
        reply = served.handler(engine, request, served.version, context)
    except CloseConnection:
        raise
    except Exception as error:
        raise failed(served, error) from error
    if isinstance(reply, Pending):
        engine.waits.add(reply)
    return reply


def failed(served: Served, error: Exception) -> CloseConnection:
    """Log that a request could not be answered, and make what ends its connection."""
    name = served.request_class.__name__
    _LOG.error("%s version %d could not be answered", name, served.version, exc_info=error)
    return CloseConnection(
        f"the broker failed to answer {name}: {error}", "What became of the request is not known."
    )
