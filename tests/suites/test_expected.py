"""The lists of expected failures are whole: each has a reason, and the document tells of each."""

from __future__ import annotations

import pytest

from tests.suites.__main__ import SUITES
from tests.suites.brokers import KAFKA, OTTLA
from tests.suites.outcomes import EXPECTED, KINDS, Expected
from tests.tidy.repository import ROOT

DOCUMENT = (ROOT / "docs" / "compat.md").read_text()


def test_every_list_is_of_a_suite_that_there_is() -> None:
    assert {path.stem for path in EXPECTED.glob("*.toml")} <= set(SUITES)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("broker", [OTTLA, KAFKA])
def test_every_reason_begins_with_its_kind(suite: str, broker: str) -> None:
    expected = Expected.load(suite, broker)
    reasons = [*expected.failures.values(), *expected.unsteady.values()]
    assert {reason.partition(": ")[0] for reason in reasons} <= set(KINDS)
    assert all(reason.partition(": ")[2] for reason in reasons)


@pytest.mark.parametrize("suite", SUITES)
def test_what_is_called_the_suite_s_own_fault_fails_on_a_real_kafka_too(suite: str) -> None:
    ours, real = Expected.load(suite, OTTLA), Expected.load(suite, KAFKA)
    known = {*real.failures, *real.unsteady}
    found = {**ours.failures, **ours.unsteady}
    assert {test for test, why in found.items() if why.startswith("suite:")} <= known


@pytest.mark.parametrize("suite", SUITES)
def test_the_document_names_every_suite_with_its_version_and_every_failure(suite: str) -> None:
    assert f"{suite} {SUITES[suite].version}" in DOCUMENT
    expected = Expected.load(suite, OTTLA)
    names = [name.rpartition("::")[2] for name in (*expected.failures, *expected.unsteady)]
    assert [name for name in names if f"`{name}`" not in DOCUMENT] == []
