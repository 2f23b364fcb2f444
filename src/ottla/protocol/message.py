"""What every generated message class has in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from ottla.protocol.codec import Schema

UNSET: Any = object()
"""Stands for "not given" where the default is a new object."""

ZERO_UUID = bytes(16)
"""The uuid that means "none"."""


class Message:
    """A message, or a structure inside one, with one slot per field of any version.

    Every field has its schema's default; a field that the version on the wire does not have keeps
    it. Uuids are 16 bytes; `records` are any buffer, a view of the received one after decoding.
    """

    __slots__: tuple[str, ...] = ()
    __hash__ = None  # type: ignore[assignment]  # mutable, so not hashable
    SCHEMA: ClassVar[Schema]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


class ApiMessage(Message):
    """A request, a response or a record: what has an API key."""

    __slots__ = ()
    API_KEY: ClassVar[int]
