"""Cells that cover several columns or rows of a table."""

from __future__ import annotations

from collections.abc import Iterable

MAX_WIDE, MAX_HIGH = 100, 65_534  # columns and rows that one cell may cover; HTML has the latter


class Grid:
    """One table, row by row: a cell that covers several places is in the first of them, the others are empty."""

    def __init__(self) -> None:
        self.covered: dict[int, int] = {}  # column: rows still covered by a cell above

    def row(self, cells: Iterable[tuple[str, int, int]]) -> list[str]:
        """The texts of a row's cells, (text, columns, rows) each, in their columns."""
        placed: list[str] = []
        below: dict[int, int] = {}
        for text, wide, high in cells:
            wide, high = max(1, min(wide, MAX_WIDE)), max(1, min(high, MAX_HIGH))
            while self.covered.get(len(placed)):
                placed.append("")
            for at in range(len(placed), len(placed) + wide):
                below[at] = high - 1
            placed += [text] + [""] * (wide - 1)
        below |= {at: left - 1 for at, left in self.covered.items() if at not in below}
        self.covered = {at: left for at, left in below.items() if left > 0}
        return placed


def number(text: str | None, otherwise: int = 1) -> int:
    """Of an attribute such as rowspan."""
    return int(text) if text and text.isdecimal() and len(text) < 6 else otherwise
