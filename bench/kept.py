"""What a whole run came to, as the JSON that is kept."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.harness import Goal, Measured, Outcome, Sample

FORMAT = 1


@dataclass
class Run:
    """A run.

    Attributes:
        date: when it began, UTC.
        commit: what was measured.
        command: how it was called.
        machine: what it was measured on, by name.
        versions: of ottla and of its peers.
        load_before: of the machine, before the first case.
        load_after: and after the last.
        rounds: how many rounds each case had that did not choose another number.
        outcomes: what each case came to.
    """

    date: str
    commit: str
    command: str = ""
    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    load_before: str = ""
    load_after: str = ""
    rounds: int = 0
    outcomes: list[Outcome] = field(default_factory=list)


def to_json(run: Run) -> str:
    """Return a run as JSON: every sample, and medians and ratios for those who read the file."""
    kept: dict[str, Any] = {"format": FORMAT, **asdict(run)}
    for shown, outcome in zip(kept["outcomes"], run.outcomes, strict=True):
        for side, measured in zip(shown["sides"], outcome.sides, strict=True):
            side["medians"] = {name: measured.median(name) for name in measured.figures()}
        shown["reached"] = [
            {"must": each.goal.must(), "ratio": each.ratio, "reached": each.is_reached}
            for each in outcome.reached()
        ]
    return json.dumps(kept, indent=1) + "\n"


def from_json(text: str) -> Run:
    """Return the run that `to_json` has written.

    Raises:
        ValueError: it was not, or by another version of this module.
    """
    kept = json.loads(text)
    if not isinstance(kept, dict) or kept.pop("format", None) != FORMAT:
        raise ValueError("this is not a run of the bench, or one of another version")
    outcomes = [_outcome(each) for each in kept.pop("outcomes")]
    return Run(**kept, outcomes=outcomes)


def _outcome(kept: dict[str, Any]) -> Outcome:
    kept.pop("reached")
    goals = [Goal(**each) for each in kept.pop("goals")]
    return Outcome(**kept | {"goals": goals, "sides": [_measured(each) for each in kept["sides"]]})


def _measured(kept: dict[str, Any]) -> Measured:
    kept.pop("medians")
    return Measured(**kept | {"samples": [Sample(**each) for each in kept["samples"]]})
