"""The ratios of a run as bars, in SVG: right of the line Ottla is better than its peer.

The scale is logarithmic. A ratio that shall be small, of a latency for instance, is turned over, so
that longer to the right is better in every row. The mark in a row is what must be reached.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.harness import Reached
    from bench.kept import Run

_WIDTH = 1000
_LABELS = 470
_RIGHT = 70
_ROW = 22
_TOP = 40
_BOTTOM = 16
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
_REACHED, _MISSED, _LINE, _TEXT = "#2f855a", "#c05621", "#cbd5e0", "#1a202c"
_STYLE = 'font-family="system-ui, sans-serif" font-size="12"'


def better_by(reached: Reached) -> tuple[float, float] | None:
    """Return by how much ours is better and what it must be; None where that cannot be said."""
    goal, ratio = reached.goal, reached.ratio
    if ratio is None or ratio <= 0 or goal.against is None:
        return None
    if goal.at_least is not None:
        return ratio, goal.at_least
    return (1 / ratio, 1 / goal.at_most) if goal.at_most else None


def of(run: Run) -> str:
    """Return the picture of a run."""
    bars = []
    for outcome in run.outcomes:
        for reached in outcome.reached():
            found = better_by(reached)
            if found is not None:
                goal = reached.goal
                label = f"{outcome.number}  {outcome.title}: {goal.figure}, to {goal.against}"
                bars.append((label, *found, reached.is_reached))
    scale = _Scale([value for _, ratio, must, _ in bars for value in (ratio, must)])
    height = _TOP + _ROW * len(bars) + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" {_STYLE}>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        *(_grid(scale, step, height) for step in scale.steps),
    ]
    for number, (label, ratio, must, is_reached) in enumerate(bars):
        parts += _bar(scale, _TOP + _ROW * number, label, (ratio, must, is_reached))
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Scale:
    """Where a ratio is, from left to right."""

    def __init__(self, values: list[float]) -> None:
        least, most = min([0.5, *values]), max([10.0, *values])
        self._low = max((step for step in _STEPS if step <= least), default=_STEPS[0])
        self._high = min((step for step in _STEPS if step >= most), default=_STEPS[-1])
        self.steps = [step for step in _STEPS if self._low <= step <= self._high]

    def at(self, value: float) -> float:
        """Return the place of a value; what is beyond the scale is at its end."""
        kept = min(max(value, self._low), self._high)
        part = math.log(kept / self._low) / math.log(self._high / self._low)
        return round(_LABELS + part * (_WIDTH - _LABELS - _RIGHT), 1)


def _grid(scale: _Scale, step: float, height: int) -> str:
    place, width = scale.at(step), 2 if step == 1 else 1
    return (
        f'<line x1="{place}" y1="{_TOP - 8}" x2="{place}" y2="{height - _BOTTOM}" '
        f'stroke="{_TEXT if step == 1 else _LINE}" stroke-width="{width}"/>'
        f'<text x="{place}" y="{_TOP - 14}" text-anchor="middle" fill="{_TEXT}">{step:g}x</text>'
    )


def _bar(scale: _Scale, top: int, label: str, bar: tuple[float, float, bool]) -> list[str]:
    ratio, must, is_reached = bar
    ends = sorted((scale.at(1), scale.at(ratio)))
    middle, mark = top + _ROW / 2 + 4, scale.at(must)
    return [
        f'<text x="{_LABELS - 10}" y="{middle}" text-anchor="end" fill="{_TEXT}">'
        f"{escape(label)}</text>",
        f'<rect x="{ends[0]}" y="{top + 4}" width="{max(ends[1] - ends[0], 1):.1f}" '
        f'height="{_ROW - 8}" fill="{_REACHED if is_reached else _MISSED}"/>',
        f'<line x1="{mark}" y1="{top + 1}" x2="{mark}" y2="{top + _ROW - 1}" '
        f'stroke="{_TEXT}" stroke-width="3"/>',
        f'<text x="{max(ends[1], mark) + 8}" y="{middle}" fill="{_TEXT}">{ratio:.3g}x</text>',
    ]
