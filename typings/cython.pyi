"""What the compiled modules use of Cython's pure-Python mode, for mypy.

C integers and pointers are what they are when the source runs uncompiled: ints and buffers.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

T = TypeVar("T")

compiled: Literal[False]

bint: TypeAlias = bool
char: TypeAlias = int
uchar: TypeAlias = int
short: TypeAlias = int
ushort: TypeAlias = int
int: TypeAlias = int  # noqa: A001 - Cython's own name
uint: TypeAlias = int
long: TypeAlias = int
longlong: TypeAlias = int
ulonglong: TypeAlias = int
size_t: TypeAlias = int
Py_ssize_t: TypeAlias = int
double: TypeAlias = float
p_uchar: TypeAlias = Any
p_const_uchar: TypeAlias = Any
p_int: TypeAlias = Any
p_longlong: TypeAlias = Any
void: TypeAlias = None
NULL: Any

def cast(kind: Any, value: Any) -> Any: ...
def address(value: Any) -> Any: ...
def declare(kind: Any, value: Any = ...) -> Any: ...
def cclass(cls: type[T]) -> type[T]: ...
def final(cls: type[T]) -> type[T]: ...
def freelist(size: int) -> Callable[[type[T]], type[T]]: ...
def cfunc(function: T) -> T: ...
def ccall(function: T) -> T: ...
def inline(function: T) -> T: ...

nogil: Any

def no_gc(cls: type[T]) -> type[T]: ...
def locals(**kinds: Any) -> Callable[[T], T]: ...  # noqa: A001 - Cython's own name
def returns(kind: Any) -> Callable[[T], T]: ...
def exceptval(value: Any = ..., *, check: bool = ...) -> Callable[[T], T]: ...
