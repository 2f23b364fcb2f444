"""What a run of faults came to: one row for each kind, and the table of them."""

from __future__ import annotations

from dataclasses import dataclass, field

_PROBLEMS_SHOWN = 5


@dataclass
class Row:
    """What came of one kind of fault.

    Attributes:
        what: the kind of fault, as "kill -9" or "power cut, ext4".
        tried: how many cycles were run, or points tried.
        exist: how many points there are, where they can be counted; else None.
        acknowledged: records that somebody was told were stored.
        lost: those of them that were not found where they were acknowledged.
        duplicated: records that were sent once and found more than once.
        reordered: records of one producer and partition that were found in another order.
        bad: stores that did not open, or held something that nobody sent.
        seconds: how long it took.
        skipped: why it was not run, "" where it was.
        problems: what was wrong, in words.
    """

    what: str
    tried: int = 0
    exist: int | None = None
    acknowledged: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    bad: int = 0
    seconds: float = 0.0
    skipped: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether it was run, all of it, and nothing was wrong."""
        wrong = self.lost + self.duplicated + self.reordered + self.bad
        is_whole = self.tried > 0 and self.exist in (None, self.tried)
        return is_whole and not wrong and not self.skipped


def table(rows: list[Row]) -> str:
    """Return the rows as a text."""
    names = ("tried", "exist", "acknowledged", "lost", "duplicated", "reordered", "bad", "seconds")
    lines = [f"{'fault':<34}" + "".join(f"{name:>13}" for name in names)]
    for row in rows:
        if row.skipped:
            lines.append(f"{row.what:<34}  not run: {row.skipped}")
            continue
        exist = "" if row.exist is None else str(row.exist)
        cells = [row.tried, exist, row.acknowledged, row.lost, row.duplicated, row.reordered]
        lines.append(
            f"{row.what:<34}"
            + "".join(f"{cell:>13}" for cell in [*cells, row.bad])
            + f"{row.seconds:>13.1f}"
        )
        lines += [f"    {problem}" for problem in row.problems[:_PROBLEMS_SHOWN]]
    return "\n".join(lines)
