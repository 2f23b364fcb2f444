"""Every module is there for something, and the lists of modules are true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from ottla import _compiled
from tests.tidy.repository import (
    ROOT,
    SRC,
    assert_none,
    is_written_by_hand,
    modules,
    shown,
    tree_of,
)

ENTRY_POINTS = {"ottla", "ottla.cli.main"}

_DOTTED = re.compile(r"ottla(\.\w+)+\.?")


def _mentioned(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports: at once, when needed, or by a name in a string.

    "ottla.cli." stands for all modules of a package: one is chosen when the program runs.
    """
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.level == 0, f"relative import in {shown(path)}"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and _DOTTED.fullmatch(str(node.value)):
            yield str(node.value)


def test_every_module_is_used_by_another_or_is_an_entry_point() -> None:
    known = modules()
    used = {
        name
        for module, path in known.items()
        if module != "ottla._compiled"
        for name in _mentioned(path)
        if name != module
    }
    packages = {name.rpartition(".")[0] for name in known}
    dead = {
        name
        for name, path in known.items()
        if name not in used | packages | ENTRY_POINTS
        and f"{name.rpartition('.')[0]}." not in used
        and is_written_by_hand(path)
    }
    assert_none(dead, "modules that nothing in the package uses")


def test_every_compiled_module_has_its_source() -> None:
    missing = [name for name in _compiled.MODULES if name not in modules()]
    assert_none(missing, "compiled modules without a source")
    assert len(set(_compiled.MODULES)) == len(_compiled.MODULES)


def test_every_pxd_belongs_to_a_compiled_module() -> None:
    compiled = {SRC / f"{name.replace('.', '/')}.pxd" for name in _compiled.MODULES}
    left = [shown(path) for path in SRC.rglob("*.pxd") if path not in compiled]
    assert_none(left, "declarations of no compiled module")


def test_only_the_compiled_modules_import_cython() -> None:
    importing = {name for name, path in modules().items() if "cython" in set(_mentioned(path))}
    assert_none(importing - set(_compiled.MODULES), "not compiled, but import cython")


def test_the_tests_are_no_packages() -> None:
    found = [shown(path) for path in (ROOT / "tests").rglob("__init__.py")]
    assert_none(found, "pytest imports by file here, and mypy knows the tests as namespaces")
