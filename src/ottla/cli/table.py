"""Tables on a terminal: a header, and columns as wide as what stands in them."""

from __future__ import annotations

from collections.abc import Sequence


def lines_of(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return a table's lines; numbers stand to the right, None is a dash."""
    texts = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    is_right = [
        all(isinstance(row[column], int | float | None) for row in rows)
        for column in range(len(header))
    ]
    widths = [max(len(row[column]) for row in (header, *texts)) for column in range(len(header))]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_right, strict=True)
        ).rstrip()
        for row in (list(header), *texts)
    ]
