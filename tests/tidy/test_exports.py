"""What users import is there, and says what it is."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest

import ottla
from ottla import errors
from ottla.errors import tree
from tests.tidy.repository import assert_none


def _documented_members(cls: type) -> Iterator[tuple[str, object]]:
    for owner in cls.__mro__:
        if owner.__module__.startswith("ottla."):
            for name, member in vars(owner).items():
                if not name.startswith("_") and (callable(member) or isinstance(member, property)):
                    yield f"{owner.__name__}.{name}", member


def test_the_export_table_and_all_name_the_same() -> None:
    assert sorted(ottla.__all__) == sorted([*ottla._EXPORTS, "__version__"])


@pytest.mark.parametrize("name", sorted(ottla._EXPORTS))
def test_a_public_name_exists_and_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(getattr(ottla, name))


@pytest.mark.parametrize("name", sorted(ottla._EXPORTS))
def test_every_public_method_of_a_public_class_has_a_docstring(name: str) -> None:
    value = getattr(ottla, name)
    assert inspect.isclass(value)
    missing = [each for each, member in _documented_members(value) if not inspect.getdoc(member)]
    assert_none(missing, "without a docstring")


def test_the_errors_that_are_exported_exist_once() -> None:
    assert len(set(errors.__all__)) == len(errors.__all__)
    missing = [name for name in errors.__all__ if not hasattr(errors, name)]
    assert_none(missing, "exported, but not there")


def test_every_exception_of_the_tree_is_exported() -> None:
    classes = {
        name
        for name, value in vars(tree).items()
        if inspect.isclass(value) and issubclass(value, tree.KafkaError)
    }
    assert_none(classes - set(errors.__all__), "not exported")
