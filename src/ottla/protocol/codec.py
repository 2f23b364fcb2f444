# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""One codec for all messages, driven by tables.

Every generated class has a `Schema`: its fields with the versions in which they exist, are
nullable or tagged. For each version that is really used the schema is turned once into a `Plan`,
a flat list of steps, and `encode` and `decode` do nothing but walk over a plan.

The rules are those of Kafka's generated classes:

- A field that the version does not have must hold its default, unless it is ignorable.
- Tagged fields are written only where they differ from their default; unknown ones are skipped.
  A tagged structure that may be None begins with a varint, 0 for None and 1 otherwise; one that is
  not tagged begins with an int8, -1 for None and 1 otherwise.
- A decoder trusts no length and no count: each is bounded by the bytes that remain, so nothing is
  allocated that the peer did not send, and bytes left over are an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import cython

from ottla.errors import DecodeError, EncodeError

if cython.compiled:
    from cython.cimports.ottla.wire.cursor import Reader, Writer
else:
    from ottla.wire.cursor import Reader, Writer

if TYPE_CHECKING:
    from ottla.protocol.message import Message
    from ottla.wire import Buffer

    M = TypeVar("M", bound=Message)

NEVER = 32767
"""As a first version: never. As a last version: no end."""

BOOL = 1
INT8 = 2
INT16 = 3
UINT16 = 4
INT32 = 5
UINT32 = 6
INT64 = 7
FLOAT64 = 8
STRING = 9
BYTES = 10
RECORDS = 11
UUID = 12
STRUCT = 13
ARRAY = 14

_FIXED_SIZE = {BOOL: 1, INT8: 1, INT16: 2, UINT16: 2, INT32: 4, UINT32: 4, INT64: 8, FLOAT64: 8}


class Field:
    """One field of a structure, for all versions.

    Args:
        name: the attribute.
        kind: one of the kinds above.
        versions: first and last version that have the field, inclusive.
        element: of an array of plain values their kind; of structures a function that returns
            their class.
        nullable: first and last version in which it may be None.
        tagged: first version in which it is a tagged field.
        tag: its tag.
        default: its default; structures and arrays are made anew for each object.
        ignorable: whether a version that lacks the field silently drops its value.
        flexible: False where the field keeps the old encoding in flexible versions.
    """

    __slots__ = (
        "default",
        "element",
        "flexible",
        "ignorable",
        "kind",
        "name",
        "nullable",
        "tag",
        "tagged",
        "versions",
    )

    def __init__(
        self,
        name: str,
        kind: int,
        versions: tuple[int, int],
        element: Any = None,
        *,
        nullable: tuple[int, int] = (NEVER, -1),
        tagged: int = NEVER,
        tag: int = -1,
        default: Any = None,
        ignorable: bool = False,
        flexible: bool = True,
    ) -> None:
        self.name = name
        self.kind = kind
        self.versions = versions
        self.element = element
        self.nullable = nullable
        self.tagged = tagged
        self.tag = tag
        self.default = default
        self.ignorable = ignorable
        self.flexible = flexible


class Schema:
    """The fields of one class in all versions.

    Args:
        versions: first and last valid version, inclusive; of a structure inside a message, that
            message's.
        flexible: the first flexible version.
        fields: in the order of the wire.
    """

    __slots__ = ("_plans", "fields", "flexible", "versions")

    def __init__(self, versions: tuple[int, int], flexible: int, fields: tuple[Field, ...]) -> None:
        self.versions = versions
        self.flexible = flexible
        self.fields = fields
        self._plans: dict[int, Plan] = {}

    def plan(self, cls: type, version: int) -> Plan:
        """Return the steps of `version`, made at its first use."""
        plan = self._plans.get(version)
        if plan is None:
            if not 0 <= version <= self.versions[1]:
                raise EncodeError(f"{cls.__name__} has no version {version}")
            plan = self._plans[version] = _make_plan(cls, self, version)
        return plan


@cython.final
@cython.cclass
class Plan:
    """The steps of one class at one version."""

    cls: Any
    flexible: cython.bint
    steps: list[Step]
    tagged: list[Step]
    absent: list[tuple[Step, bool]]
    size_min: cython.Py_ssize_t

    def __init__(self, cls: type, flexible: bool) -> None:
        self.cls = cls
        self.flexible = flexible
        self.steps = []
        self.tagged = []
        self.absent = []
        self.size_min = 1 if flexible else 0


_NO_PLAN = Plan(object, False)


@cython.final
@cython.cclass
class Step:
    """What to do for one field at one version."""

    name: str
    kind: cython.int
    flexible: cython.bint
    nullable: cython.bint
    element_kind: cython.int
    element_plan: Plan
    element_size: cython.Py_ssize_t
    tag: cython.longlong
    default: Any
    makes_default: Any
    slots: tuple[str, ...]

    def __init__(self, field: Field, version: int, flexible: bool) -> None:
        self.name = field.name
        self.kind = field.kind
        self.flexible = flexible and field.flexible
        self.nullable = field.nullable[0] <= version <= field.nullable[1]
        self.tag = field.tag
        self.default = field.default
        self.makes_default = None
        self.slots = ()
        self.element_kind = 0
        self.element_plan = _NO_PLAN
        self.element_size = 0
        if field.kind == STRUCT:
            cls = field.element()
            self.element_plan = cls.SCHEMA.plan(cls, version)
            if field.default is not None:
                self.default = cls()
                self.makes_default = cls
                self.slots = cls.__slots__
        elif field.kind == ARRAY:
            if isinstance(field.element, int):
                self.element_kind = field.element
            else:
                cls = field.element()
                self.element_kind = STRUCT
                self.element_plan = cls.SCHEMA.plan(cls, version)
            if field.default is not None:
                self.default = []
                self.makes_default = list
            self.element_size = max(
                1, _size_min(self.element_kind, self.element_plan, self.flexible)
            )

    @cython.cfunc
    def new_default(self) -> object:
        """Return the default; structures and arrays are made anew."""
        return self.default if self.makes_default is None else self.makes_default()

    @cython.cfunc
    @cython.exceptval(check=True)
    def is_default(self, value: Any) -> cython.bint:
        """Tell whether a value is the default; the fields of a structure are looked at here."""
        if value is self.default:
            return True
        if not self.slots or type(value) is not type(self.default):
            return bool(value == self.default)
        for name in self.slots:
            mine, other = getattr(value, name), getattr(self.default, name)
            if mine is not other and mine != other:
                return False
        return True


def _make_plan(cls: type, schema: Schema, version: int) -> Plan:
    plan = Plan(cls, version >= schema.flexible)
    for field in schema.fields:
        step = Step(field, version, plan.flexible)
        if not field.versions[0] <= version <= field.versions[1]:
            plan.absent.append((step, field.ignorable))
        elif version >= field.tagged:
            plan.tagged.append(step)
        else:
            plan.steps.append(step)
            if step.kind == STRUCT and step.nullable:
                plan.size_min += 1
            else:
                plan.size_min += _size_min(step.kind, step.element_plan, step.flexible)
    plan.tagged.sort(key=_tag_of)
    return plan


def _tag_of(step: Step) -> int:
    return step.tag


def _size_min(kind: int, plan: Plan, flexible: bool) -> int:
    if kind in _FIXED_SIZE:
        return _FIXED_SIZE[kind]
    if kind == UUID:
        return 16
    if kind == STRUCT:
        return plan.size_min
    if flexible:
        return 1
    return 2 if kind == STRING else 4


def decode(cls: type[M], data: Buffer, version: int) -> M:
    """Decode a whole buffer as one message.

    Raises:
        DecodeError: the bytes are not such a message, or some are left over.
    """
    reader = Reader(data)
    message = decode_from(cls, reader, version)
    try:
        reader.finish()
    except DecodeError as error:
        raise _named(cls, version, error) from None
    return message


def decode_from(cls: type[M], reader: Reader, version: int) -> M:
    """Decode one message where the reader stands, and leave it behind the message.

    Raises:
        DecodeError: the bytes are not such a message.
    """
    plan: Plan = cls.SCHEMA.plan(cls, version)
    try:
        message: M = _decode_struct(plan, reader)
    except DecodeError as error:
        raise _named(cls, version, error) from None
    return message


def _named(cls: type, version: int, error: DecodeError) -> DecodeError:
    return DecodeError(f"{cls.__name__} version {version}: {error.what}")


@cython.cfunc
def _decode_struct(plan: Plan, reader: Reader) -> Any:
    message = plan.cls.__new__(plan.cls)
    step: Step
    for step in plan.steps:
        setattr(message, step.name, _decode_field(step, reader, step.nullable))
    for entry in plan.absent:
        step = entry[0]
        setattr(message, step.name, step.new_default())
    if plan.flexible:
        _decode_tagged(plan, message, reader)
    return message


@cython.cfunc
def _decode_tagged(plan: Plan, message: object, reader: Reader) -> object:
    step: Step
    for step in plan.tagged:
        setattr(message, step.name, step.new_default())
    count: cython.longlong = reader.uvarint()
    if count > reader.remaining() // 2:
        raise DecodeError(f"{count} tagged fields, {reader.remaining()} bytes remain")
    last: cython.longlong = -1
    while count > 0:
        count -= 1
        tag: cython.longlong = reader.uvarint()
        if tag <= last:
            raise DecodeError(f"tag {tag} after tag {last}")
        last = tag
        size: cython.longlong = reader.uvarint()
        reader.need(size)
        end: cython.Py_ssize_t = reader.position + size
        for step in plan.tagged:
            if step.tag == tag:
                if step.kind == STRUCT and step.nullable and reader.uvarint() == 0:
                    setattr(message, step.name, None)
                else:
                    setattr(message, step.name, _decode_field(step, reader, False))
                if reader.position != end:
                    raise DecodeError(f"tagged field {step.name} is not {size} bytes long")
                break
        else:
            reader.skip(size)
    return None


@cython.cfunc
def _decode_field(step: Step, reader: Reader, marked: cython.bint) -> object:
    """Decode one field; `marked` tells whether a structure has a byte before it that says None."""
    if step.kind == ARRAY:
        return _decode_array(step, reader)
    nullable: cython.bint = marked if step.kind == STRUCT else step.nullable
    return _decode_value(step.kind, step.element_plan, step.flexible, nullable, reader)


@cython.cfunc
def _decode_array(step: Step, reader: Reader) -> object:
    count: cython.longlong = reader.uvarint() - 1 if step.flexible else reader.int32()
    if count < 0:
        if count == -1 and step.nullable:
            return None
        raise DecodeError(f"array {step.name} has a count of {count}")
    if count > reader.remaining() // step.element_size:
        raise DecodeError(
            f"array {step.name} has a count of {count}, {reader.remaining()} bytes remain"
        )
    values: list[Any] = []
    while count > 0:
        count -= 1
        values.append(
            _decode_value(step.element_kind, step.element_plan, step.flexible, False, reader)
        )
    return values


@cython.cfunc
def _decode_value(
    kind: cython.int, plan: Plan, flexible: cython.bint, nullable: cython.bint, reader: Reader
) -> object:
    size: cython.longlong
    if kind == INT32:
        return reader.int32()
    if kind == INT64:
        return reader.int64()
    if kind == INT16:
        return reader.int16()
    if kind == STRING:
        size = reader.uvarint() - 1 if flexible else reader.int16()
        if size < 0:
            return _null(size, nullable)
        return reader.text(size)
    if kind == STRUCT:
        if nullable and reader.int8() < 0:
            return None
        return _decode_struct(plan, reader)
    if kind in (BYTES, RECORDS):
        size = reader.uvarint() - 1 if flexible else reader.int32()
        if size < 0:
            return _null(size, nullable)
        return reader.view(size) if kind == RECORDS else reader.raw(size)
    if kind == UUID:
        return reader.raw(16)
    if kind == BOOL:
        return reader.int8() != 0
    if kind == INT8:
        return reader.int8()
    if kind == UINT16:
        return reader.uint16()
    if kind == UINT32:
        return reader.uint32()
    return reader.float64()


@cython.cfunc
def _null(size: cython.longlong, nullable: cython.bint) -> object:
    if size == -1 and nullable:
        return None
    raise DecodeError(f"a length of {size} where there must be a value")


def encode(message: Message, version: int) -> bytes:
    """Encode a message.

    Raises:
        EncodeError: a value does not fit its field, or the version cannot carry it.
    """
    writer = Writer()
    encode_to(writer, message, version)
    return writer.joined()


def encode_to(writer: Writer, message: Message, version: int) -> None:
    """Append a message to a writer; large buffers in it are kept by reference.

    Raises:
        EncodeError: a value does not fit its field, or the version cannot carry it.
    """
    cls: type = type(message)
    plan: Plan = message.SCHEMA.plan(cls, version)
    try:
        _encode_struct(plan, message, writer)
    except EncodeError as error:
        raise EncodeError(f"{cls.__name__} version {version}: {error.what}") from error.__cause__


@cython.cfunc
def _encode_struct(plan: Plan, message: object, writer: Writer) -> object:
    step: Step
    for step in plan.steps:
        _encode_field(step, getattr(message, step.name), writer, step.nullable)
    for entry in plan.absent:
        if not entry[1]:
            step = entry[0]
            value = getattr(message, step.name)
            if not step.is_default(value):
                raise EncodeError(f"this version cannot carry {step.name}={value!r}")
    if plan.flexible:
        _encode_tagged(plan, message, writer)
    return None


@cython.cfunc
def _encode_tagged(plan: Plan, message: object, writer: Writer) -> object:
    step: Step
    present: list[tuple[Step, Any]] = []
    for step in plan.tagged:
        value = getattr(message, step.name)
        if not step.is_default(value):
            present.append((step, value))
    writer.uvarint(len(present))
    for entry in present:
        step = entry[0]
        inner = Writer()
        marked: cython.bint = step.kind == STRUCT and step.nullable
        if marked:
            inner.uvarint(0 if entry[1] is None else 1)
        if entry[1] is not None or not marked:
            _encode_field(step, entry[1], inner, False)
        writer.uvarint(step.tag)
        writer.uvarint(inner.size())
        writer.raw(inner.joined())
    return None


@cython.cfunc
def _encode_field(step: Step, value: object, writer: Writer, marked: cython.bint) -> object:
    nullable: cython.bint = marked if step.kind == STRUCT else step.nullable
    try:
        if step.kind == ARRAY:
            _encode_array(step, value, writer)
        else:
            _encode_value(step.kind, step.element_plan, step.flexible, nullable, value, writer)
    except EncodeError:
        raise
    except (TypeError, OverflowError, AttributeError, UnicodeError) as error:
        raise EncodeError(f"{step.name}={value!r}: {error}") from error
    return None


@cython.cfunc
def _encode_array(step: Step, values: Any, writer: Writer) -> object:
    if values is None:
        if not step.nullable:
            raise EncodeError(f"{step.name} cannot be None")
        if step.flexible:
            writer.uvarint(0)
        else:
            writer.int32(-1)
        return None
    if step.flexible:
        writer.uvarint(len(values) + 1)
    else:
        writer.int32(len(values))
    for value in values:
        _encode_value(step.element_kind, step.element_plan, step.flexible, False, value, writer)
    return None


@cython.cfunc
def _encode_value(
    kind: cython.int,
    plan: Plan,
    flexible: cython.bint,
    nullable: cython.bint,
    value: Any,
    writer: Writer,
) -> object:
    if kind == INT32:
        writer.int32(_integer(value))
    elif kind == INT64:
        writer.int64(_integer(value))
    elif kind == INT16:
        writer.int16(_integer(value))
    elif kind == STRING:
        _encode_sized(None if value is None else value.encode(), flexible, nullable, True, writer)
    elif kind == STRUCT:
        if nullable:
            writer.int8(-1 if value is None else 1)
        if value is not None or not nullable:
            if type(value) is not plan.cls:
                raise TypeError(f"not a {plan.cls.__name__}")
            _encode_struct(plan, value, writer)
    elif kind in (BYTES, RECORDS):
        _encode_sized(value, flexible, nullable, False, writer)
    elif kind == UUID:
        if len(value) != 16:
            raise TypeError("a uuid is 16 bytes")
        writer.raw(value)
    elif kind == BOOL:
        writer.int8(1 if value else 0)
    elif kind == INT8:
        writer.int8(_integer(value))
    elif kind == UINT16:
        writer.uint16(_integer(value))
    elif kind == UINT32:
        writer.uint32(_integer(value))
    elif isinstance(value, (float, int)):
        writer.float64(value)
    else:
        raise TypeError("not a number")
    return None


@cython.cfunc
def _integer(value: Any) -> Any:
    """Return an integer as it is; C would cut a float down to one."""
    if not isinstance(value, int):
        raise TypeError("not an integer")
    return value


@cython.cfunc
def _encode_sized(
    data: Any, flexible: cython.bint, nullable: cython.bint, short: cython.bint, writer: Writer
) -> object:
    if data is None:
        if not nullable:
            raise TypeError("None where there must be a value")
        if flexible:
            writer.uvarint(0)
        elif short:
            writer.int16(-1)
        else:
            writer.int32(-1)
        return None
    if not isinstance(data, bytes):
        data = memoryview(data).cast("B")
    size: cython.Py_ssize_t = len(data)
    if flexible:
        writer.uvarint(size + 1)
    elif short:
        writer.int16(size)
    else:
        writer.int32(size)
    writer.raw(data)
    return None
