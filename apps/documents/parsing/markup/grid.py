"""Cells that cover several columns or rows of a table."""

from __future__ import annotations

from collections.abc import Iterable

MAX_WIDE, MAX_HIGH = 100, 65_534  # columns and rows that one cell may cover; HTML has the latter
# A page of some kilobytes can have cells that cover hundreds of millions of places.
_EMPTY, _EMPTY_PER_CELL = 10_000, 20  # places without a cell: so many in a table, and so many more for each cell


class Grid:
    """One table, row by row: a cell that covers several places is in the first of them, the others are empty.

    Where far more are empty than a table has, rows are what their cells are, until there are cells enough.
    """

    def __init__(self) -> None:
        self.covered: dict[int, int] = {}  # column: rows still covered by a cell above
        self._cells = self._empty = 0

    def row(self, cells: Iterable[tuple[str, int, int]]) -> list[str]:
        """The texts of a row's cells, (text, columns, rows) each, in their columns."""
        cells = list(cells)
        self._cells += len(cells)
        if self._empty > _EMPTY + _EMPTY_PER_CELL * self._cells:
            self.covered = {}
            return [text for text, _, _ in cells]
        placed: list[str] = []
        below: dict[int, int] = {}
        for text, wide, high in cells:
            wide, high = max(1, min(wide, MAX_WIDE)), max(1, min(high, MAX_HIGH))
            while self.covered.get(len(placed)):
                placed.append("")
            for at in range(len(placed), len(placed) + wide):
                below[at] = high - 1
            placed += [text] + [""] * (wide - 1)
        self._empty += len(placed) - len(cells)
        below |= {at: left - 1 for at, left in self.covered.items() if at not in below}
        self.covered = {at: left for at, left in below.items() if left > 0}
        return placed


def number(text: str | None, otherwise: int = 1) -> int:
    """Of an attribute such as rowspan."""
    return int(text) if text and text.isdecimal() and len(text) < 6 else otherwise
