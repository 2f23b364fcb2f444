"""What became of a suite's tests: read from its report, and compared with what was expected."""

from __future__ import annotations

import json
import re
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

EXPECTED = Path(__file__).parent / "expected"
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
KINDS = {
    "later": "a feature that is not served yet",
    "ours": "a bug of ours",
    "differs": "we differ on purpose",
    "suite": "the suite's own fault: it fails on a real Apache Kafka too",
}
"""Why a test may fail, by the first word of its reason."""

_LIBRDKAFKA_STATES = {
    "PASSED": (PASSED, ""),
    "SKIPPED": (SKIPPED, "needs no broker, or another kind of setup"),
    "FAILED": (FAILED, "see test-runner.log"),
    "RUNNING": (FAILED, "took too long, which ended all of them"),
    "DNS": (FAILED, "did not run, as one before it took too long"),
}
_SEVERITY = (PASSED, SKIPPED, FAILED)
_REASON_CHARS = 160


class Outcome(NamedTuple):
    """What became of one test.

    Attributes:
        test: its name.
        result: PASSED, FAILED or SKIPPED.
        reason: what the suite says of it; "" where it passed.
    """

    test: str
    result: str
    reason: str = ""


class Expected(NamedTuple):
    """What is expected of a suite against one kind of broker.

    Attributes:
        failures: why each test fails that does, by its name.
        unsteady: why some tests fail now and then; neither result of theirs is news.
    """

    failures: Mapping[str, str]
    unsteady: Mapping[str, str]

    @classmethod
    def load(cls, suite: str, broker: str) -> Expected:
        """Read what is expected of a suite; nothing fails where nothing is written."""
        file = EXPECTED / f"{suite}.toml"
        data = tomllib.loads(file.read_text()) if file.exists() else {}
        found = data.get(broker, {})
        return cls(found.get("failures", {}), found.get("unsteady", {}))

    def differences(self, outcomes: Sequence[Outcome]) -> list[str]:
        """Tell in which tests the outcome is another than expected, in sentences."""
        results = {each.test: each for each in outcomes}
        told = []
        for name, each in results.items():
            if name in self.unsteady:
                continue
            if each.result == FAILED and name not in self.failures:
                told.append(f"fails, which is new: {name}: {each.reason}")
            if each.result != FAILED and name in self.failures:
                told.append(f"{each.result}, and was expected to fail: {name}")
        for name in self.failures:
            if name not in results:
                told.append(f"was expected to fail, and did not run: {name}")
        return told


def merged(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return one outcome for each name, the worst: a test may pass and its clean-up fail."""
    worst: dict[str, Outcome] = {}
    for each in outcomes:
        other = worst.get(each.test)
        if other is None or _SEVERITY.index(each.result) > _SEVERITY.index(other.result):
            worst[each.test] = each
    return list(worst.values())


def of_junit(text: str) -> list[Outcome]:
    """Read the report that pytest writes for JUnit."""
    return merged(
        _of_case(case, f"{case.get('classname', '')}::{case.get('name', '')}")
        for case in ET.fromstring(text).iter("testcase")
    )


def _of_case(case: ET.Element, name: str) -> Outcome:
    for tag in ("failure", "error"):
        found = case.find(tag)
        if found is not None:
            return Outcome(name, FAILED, _short(found.get("message") or found.text or tag))
    skipped = case.find("skipped")
    if skipped is not None:
        return Outcome(name, SKIPPED, _short(skipped.get("message") or ""))
    return Outcome(name, PASSED)


def of_mocha(text: str) -> list[Outcome]:
    """Read the report of mocha's reporter "json"."""
    report = json.loads(text)
    outcomes = [Outcome(each["fullTitle"], PASSED) for each in report["passes"]]
    outcomes += [Outcome(each["fullTitle"], SKIPPED, "pending") for each in report["pending"]]
    outcomes += [
        Outcome(each["fullTitle"], FAILED, _short(each["err"].get("message", "")))
        for each in report["failures"]
    ]
    return merged(outcomes)


def of_librdkafka(text: str) -> list[Outcome]:
    """Read the report that librdkafka's test-runner writes as JSON."""
    return [
        Outcome(name, *_LIBRDKAFKA_STATES[each["state"]])
        for name, each in json.loads(text)["tests"].items()
        if name != "<MAIN>"
    ]


def _short(reason: str) -> str:
    line = re.sub(r"\s+", " ", reason).strip()
    return line if len(line) <= _REASON_CHARS else line[: _REASON_CHARS - 1] + "…"


def counts(outcomes: Sequence[Outcome]) -> str:
    """Tell how many there are of each result."""
    number = Counter(each.result for each in outcomes)
    return f"{number[PASSED]} passed, {number[FAILED]} failed, {number[SKIPPED]} skipped"


def table(outcomes: Sequence[Outcome], expected: Expected) -> str:
    """Return the counts, and a table of what did not pass, with the reason that is known."""
    lines = [counts(outcomes), "", "| test | result | why |", "|---|---|---|"]
    for each in outcomes:
        if each.result != PASSED:
            known = expected.failures.get(each.test) or expected.unsteady.get(each.test)
            why = known if known and each.result == FAILED else each.reason
            lines.append(f"| {each.test} | {each.result} | {why.replace('|', '/')} |")
    return "\n".join(lines)
