"""The outcomes of other clients' suites are read, counted and compared as they are."""

from __future__ import annotations

import json

from tests.suites.outcomes import (
    FAILED,
    PASSED,
    SKIPPED,
    Expected,
    Outcome,
    counts,
    of_junit,
    of_librdkafka,
    of_mocha,
    table,
)

OUTCOMES = [
    Outcome("good", PASSED),
    Outcome("bad", FAILED, "it broke"),
    Outcome("left out", SKIPPED, "too old"),
]


def test_a_failure_that_is_not_expected_is_told_and_an_expected_one_is_not() -> None:
    assert Expected({}, {}).differences(OUTCOMES) == ["fails, which is new: bad: it broke"]
    assert Expected({"bad": "later: x"}, {}).differences(OUTCOMES) == []


def test_an_expected_failure_that_passes_or_is_skipped_or_is_gone_is_told() -> None:
    expected = Expected(dict.fromkeys(("bad", "good", "left out", "gone"), "later: x"), {})
    assert expected.differences(OUTCOMES) == [
        "passed, and was expected to fail: good",
        "skipped, and was expected to fail: left out",
        "was expected to fail, and did not run: gone",
    ]


def test_an_unsteady_test_is_never_news() -> None:
    for result in (PASSED, FAILED):
        assert Expected({}, {"x": "suite: slow"}).differences([Outcome("x", result)]) == []


def test_the_table_has_what_did_not_pass_and_the_reason_that_is_known() -> None:
    lines = table(OUTCOMES, Expected({"bad": "later: x"}, {})).splitlines()
    assert lines[0] == counts(OUTCOMES) == "1 passed, 1 failed, 1 skipped"
    assert lines[-2:] == ["| bad | failed | later: x |", "| left out | skipped | too old |"]


def test_a_test_that_passes_and_whose_clean_up_fails_has_failed() -> None:
    report = (
        "<testsuites><testsuite>"
        '<testcase classname="m" name="a"/>'
        '<testcase classname="m" name="a"><error message="could not\n  close"/></testcase>'
        '<testcase classname="m" name="b"><skipped message="old"/></testcase>'
        "</testsuite></testsuites>"
    )
    assert of_junit(report) == [
        Outcome("m::a", FAILED, "could not close"),
        Outcome("m::b", SKIPPED, "old"),
    ]


def test_the_report_of_mocha_is_read() -> None:
    report = {
        "passes": [{"fullTitle": "a"}],
        "pending": [{"fullTitle": "b"}],
        "failures": [{"fullTitle": "c", "err": {"message": "no"}}],
    }
    assert of_mocha(json.dumps(report)) == [
        Outcome("a", PASSED),
        Outcome("b", SKIPPED, "pending"),
        Outcome("c", FAILED, "no"),
    ]


def test_what_librdkafka_did_not_come_to_has_failed() -> None:
    states = {"<MAIN>": "PASSED", "a": "PASSED", "b": "RUNNING", "c": "DNS", "d": "SKIPPED"}
    report = {"tests": {name: {"state": state} for name, state in states.items()}}
    assert [each.result for each in of_librdkafka(json.dumps(report))] == [
        PASSED,
        FAILED,
        FAILED,
        SKIPPED,
    ]
