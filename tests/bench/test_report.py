"""What is kept of a run is what it came to, and the tables and the picture say the same."""

from __future__ import annotations

import json
import xml.etree.ElementTree
from pathlib import Path

import pytest

from bench import picture, report
from bench.harness import Goal, Measured, Outcome, Sample
from bench.kept import Run, from_json, to_json


def sample(value: float) -> Sample:
    """Return a sample with all that there may be."""
    return Sample({"records/s": value}, 0.5, 0.25, 30.0, 60.0, 9, 9, 9, is_same=True)


RUN = Run(
    date="2026-01-02T03:04:05+00:00",
    commit="abc1234",
    command="python -m bench C1",
    machine={"processor": "one"},
    versions={"ottla": "1"},
    load_before="0.10, 0.20, 0.30",
    load_after="1.00, 0.50, 0.30",
    rounds=3,
    outcomes=[
        Outcome(
            "C1",
            "produce | one by one",
            [
                Measured("ours", {"acks": "all"}, [sample(each) for each in (400, 600, 500)]),
                Measured("theirs", {}, [sample(100)]),
                Measured("another", why="No module named 'another'"),
            ],
            [
                Goal("records/s", "ours", "theirs", at_least=5),
                Goal("records/s", "ours", "theirs", at_most=0.5),
                Goal("records/s", "ours", "another", at_least=5),
            ],
            seconds=1.5,
        ),
        Outcome("C8", "asyncio", why="there is no asyncio client"),
    ],
)


def test_a_run_that_is_kept_comes_back_as_it_was() -> None:
    assert from_json(to_json(RUN)) == RUN


def test_what_is_kept_has_medians_and_ratios_for_those_who_read_it() -> None:
    kept = json.loads(to_json(RUN))["outcomes"][0]

    assert kept["sides"][0]["medians"] == {"records/s": 500}
    assert kept["reached"][0] == {"must": "≥ 5x", "ratio": 5, "reached": True}
    assert kept["reached"][2] == {"must": "≥ 5x", "ratio": None, "reached": False}


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 0}'])
def test_a_file_that_is_no_run_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a run of the bench"):
        from_json(text)


def test_the_table_has_a_row_for_each_goal_and_for_what_was_not_run() -> None:
    rows = report.rows(RUN)

    assert [row[-1] for row in rows] == [
        "reached",
        "MISSED",
        "not measured: another: No module named 'another'",
        "not measured: there is no asyncio client",
    ]
    assert rows[0][2:7] == ("ours: records/s, to theirs", "500", "100", "5x", "≥ 5x")


def test_the_text_says_what_was_measured_where() -> None:
    text = report.as_text(RUN)

    for fact in (
        "abc1234",
        "processor: one",
        "0.10, 0.20",
        "36 records were read back",
        "acks=all",
    ):
        assert fact in text


def test_the_spread_of_a_side_and_what_it_took_are_told() -> None:
    first, _, third = report.side_rows(RUN)

    assert first == ("C1", "ours", "records/s 500 (400 to 600)", "0.5", "0.25", "30", "60")
    assert third[2] == "not measured: No module named 'another'"


def test_a_document_gets_the_figures_between_its_marks(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"before\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n")
    kept = tmp_path / "run.json"
    kept.write_text(to_json(RUN))

    for _ in range(2):
        report.main([str(kept), "--into", str(document)])

    text = document.read_text()
    assert text.startswith("before\n\n") and text.endswith("\n\nafter\n")
    assert "old" not in text
    assert text.count("| C1 | produce \\| one by one | ours: records/s, to theirs |") == 2
    assert "(performance.svg)" in text
    assert (tmp_path / "performance.svg").read_text() == picture.of(RUN)


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("nothing here")

    with pytest.raises(ValueError, match="has no lines"):
        report.write_into(document, RUN)

    assert document.read_text() == "nothing here"
    assert not (tmp_path / "performance.svg").exists()


def test_longer_to_the_right_is_better_also_where_less_is_better() -> None:
    at_least, at_most, unmeasured = RUN.outcomes[0].reached()

    assert picture.better_by(at_least) == (5, 5)
    assert picture.better_by(at_most) == (0.2, 2)
    assert picture.better_by(unmeasured) is None


def test_the_picture_is_well_formed_and_has_a_bar_for_each_ratio() -> None:
    root = xml.etree.ElementTree.fromstring(picture.of(RUN))

    bars = [each for each in root if each.tag.endswith("rect") and "y" in each.attrib]
    assert len(bars) == 2
