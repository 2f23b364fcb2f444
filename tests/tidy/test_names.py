"""Names say what is inside, and exceptions from the tools' rules say why."""

from __future__ import annotations

import re
import tokenize
from pathlib import Path

from ottla.broker.apis import APIS
from tests.tidy.repository import SRC, assert_none, modules, python_files, shown

NAMES_THAT_SAY_NOTHING = {"util", "utils", "helper", "helpers", "common", "misc", "manager"}
HANDLERS = SRC / "ottla" / "broker" / "handlers"

_NOQA = re.compile(r"#\s*noqa\b", re.IGNORECASE)
_NOQA_WITH_REASON = re.compile(r"# noqa: [A-Z]+\d+(, [A-Z]+\d+)* - \S.*")
_TYPE_IGNORE = re.compile(r"#\s*type:\s*ignore\b")
_TYPE_IGNORE_WITH_REASON = re.compile(r"# type: ignore\[[a-z-]+(, [a-z-]+)*\]  # \S.*")


def _comments(path: Path) -> list[tuple[int, str]]:
    with tokenize.open(path) as source:
        tokens = list(tokenize.generate_tokens(source.readline))
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def _without_reason(marked: re.Pattern[str], allowed: re.Pattern[str]) -> list[str]:
    return [
        f"{shown(path)}:{line} {comment}"
        for path in python_files()
        if path.suffix != ".pxd"
        for line, comment in _comments(path)
        if marked.search(comment) and not allowed.search(comment)
    ]


def test_no_module_has_a_name_that_says_nothing() -> None:
    found = [
        shown(path)
        for path in python_files()
        if NAMES_THAT_SAY_NOTHING & set(re.split(r"[_.]", path.name))
        or NAMES_THAT_SAY_NOTHING & set(path.parts)
    ]
    assert_none(found, "modules whose names say nothing")


def test_every_noqa_names_its_rule_and_a_reason() -> None:
    found = _without_reason(_NOQA, _NOQA_WITH_REASON)
    assert_none(found, "write `# noqa: CODE - reason`")


def test_every_type_ignore_names_its_error_and_a_reason() -> None:
    found = _without_reason(_TYPE_IGNORE, _TYPE_IGNORE_WITH_REASON)
    assert_none(found, "write `# type: ignore[code]  # reason`")


def test_every_handler_is_named_after_the_messages_that_it_answers() -> None:
    names = {path.stem for path in HANDLERS.glob("*.py")} - {"__init__"}
    assert names
    messages = {name.rpartition(".")[2] for name in modules() if ".protocol.messages.api_" in name}
    assert_none(names - messages, "handlers that are not named after a message")


def test_every_handler_serves_the_versions_that_its_first_line_names() -> None:
    found = []
    for key, api in APIS.items():
        path = HANDLERS / f"api_{key:02}_{api.name}.py"
        is_one = api.min_version == api.max_version
        versions = f"-{api.max_version}:" if not is_one else ":"
        told = f", version{'s'[is_one:]} {api.min_version}{versions}"
        if told not in path.read_text().splitlines()[0]:
            found.append(f"{shown(path)} does not say{told}")
    assert_none(found, "handlers that name other versions than the table")
    assert len(APIS) == len(list(HANDLERS.glob("api_*.py")))
