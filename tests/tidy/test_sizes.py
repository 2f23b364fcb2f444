"""Files, functions, lines and parameter lists stay small enough to read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.tidy.repository import assert_none, is_written_by_hand, python_files, shown, tree_of

FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 70
LINE_COLUMNS_MAX = 100
PARAMETERS_MAX = 6

# A record has seven parts; an object that held them on their way would be made for every record.
_RECORD = "a record's parts"
# Compiled classes cannot be dataclasses; their constructors list their fields.
_LOG = "what a log is, and what the store knows of it"
_FIELDS = "the fields of a compiled class"
MORE_PARAMETERS = {
    "src/ottla/client/accumulator.py _put": _RECORD,
    "src/ottla/client/accumulator.py _wait_for_topic": _RECORD,
    "src/ottla/client/sending.py send": _RECORD,
    "src/ottla/client/sending.py try_send": _RECORD,
    "src/ottla/log/partition_log.py __init__": _LOG,
    "src/ottla/log/partition_log.py open": _LOG,
    "src/ottla/protocol/codec.py __init__": _FIELDS,
    "src/ottla/records/record.py __init__": _FIELDS,
}
"""Functions that may have more parameters, and why."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions() -> Iterator[tuple[Path, Function]]:
    for path in python_files():
        if path.suffix == ".py" and is_written_by_hand(path):
            for node in ast.walk(tree_of(path)):
                if isinstance(node, Function):
                    yield path, node


def _parameters(function: Function) -> int:
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def _is_click_command(function: Function) -> bool:
    """Tell whether click calls it: then its parameters are the command's options."""
    return any(ast.unparse(each).startswith("click.command(") for each in function.decorator_list)


def test_no_file_is_longer_than_700_lines() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in _by_hand()}
    long = [f"{shown(path)}: {size}" for path, size in sizes.items() if size > FILE_LINES_MAX]
    assert_none(long, f"files of more than {FILE_LINES_MAX} lines")


def test_no_line_is_longer_than_100_columns() -> None:
    long = [
        f"{shown(path)}:{number}"
        for path in _by_hand()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if len(line) > LINE_COLUMNS_MAX
    ]
    assert_none(long, f"lines of more than {LINE_COLUMNS_MAX} columns")


def test_no_function_is_longer_than_70_lines() -> None:
    long = [
        f"{shown(path)}:{function.lineno} {function.name}: {size}"
        for path, function in _functions()
        if (size := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert_none(long, f"functions of more than {FUNCTION_LINES_MAX} lines")


def test_no_function_has_more_than_6_parameters_besides_self() -> None:
    many = {
        f"{shown(path)} {function.name}": _parameters(function)
        for path, function in _functions()
        if _parameters(function) > PARAMETERS_MAX and not _is_click_command(function)
    }
    found = [f"{name}: {count}" for name, count in many.items() if name not in MORE_PARAMETERS]
    assert_none(found, f"functions of more than {PARAMETERS_MAX} parameters")
    assert_none(set(MORE_PARAMETERS) - set(many), "no longer an exception")


def _by_hand() -> list[Path]:
    return [path for path in python_files() if is_written_by_hand(path)]
