"""Tables in XML, of the HTML model (tr, td), the CALS model (row, entry) and DITA's simple one (strow, stentry)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from apps.documents.parsing.markup.grid import Grid, number
from apps.documents.parsing.markup.xml_tree import Element, local

_ROWS = frozenset({"tr", "row", "strow", "sthead"})
_CELLS = frozenset({"td", "th", "entry", "entrytbl", "stentry", "cell"})


def rows(table: Element, text_of: Callable[[Element], str]) -> Iterator[list[str]]:
    """Rows of cells; a cell that covers several is in the first of them, the others are empty."""
    columns = {each.get("colname"): number for number, each in enumerate(table.iter("{*}colspec"))}
    grid = Grid()
    for row in _rows(table):
        cells = (cell for cell in row if local(cell).lower() in _CELLS)
        yield grid.row((text_of(cell), *_span(cell, columns)) for cell in cells)


def _rows(element: Element) -> Iterator[Element]:
    """The table's own rows: those of a table in a cell are text of that cell."""
    for each in element:
        if local(each).lower() in _ROWS:
            yield each
        else:
            yield from _rows(each)


def _span(cell: Element, columns: dict[str | None, int]) -> tuple[int, int]:
    """(columns, rows) that a cell covers."""
    wide = number(cell.get("colspan") or cell.get("cols"))
    first, last = columns.get(cell.get("namest")), columns.get(cell.get("nameend"))
    if first is not None and last is not None:
        wide = last - first + 1
    high = number(cell.get("morerows"), 0) + 1 if cell.get("morerows") else number(cell.get("rowspan"))
    return wide, high
