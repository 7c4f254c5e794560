"""Tables in XML, of the HTML model (tr, td), the CALS model (row, entry) and DITA's simple one (strow, stentry)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from apps.documents.parsing.markup.xml_tree import Element, local

MAX_SPAN = 100  # columns or rows that one cell may cover
_ROWS = frozenset({"tr", "row", "strow", "sthead"})
_CELLS = frozenset({"td", "th", "entry", "entrytbl", "stentry", "cell"})


def rows(table: Element, text_of: Callable[[Element], str]) -> Iterator[list[str]]:
    """Rows of cells; a cell that covers several is in the first of them, the others are empty."""
    columns = {each.get("colname"): number for number, each in enumerate(table.iter("{*}colspec"))}
    covered: dict[int, int] = {}  # column: rows still covered by a cell above
    for row in _rows(table):
        cells: list[str] = []
        below: dict[int, int] = {}
        for cell in row:
            if local(cell).lower() not in _CELLS:
                continue
            while covered.get(len(cells)):
                cells.append("")
            wide, high = _span(cell, columns)
            for at in range(len(cells), len(cells) + wide):
                below[at] = high - 1
            cells += [text_of(cell)] + [""] * (wide - 1)
        below |= {at: left - 1 for at, left in covered.items() if at not in below}
        covered = {at: left for at, left in below.items() if left > 0}
        yield cells


def _rows(element: Element) -> Iterator[Element]:
    """The table's own rows: those of a table in a cell are text of that cell."""
    for each in element:
        if local(each).lower() in _ROWS:
            yield each
        else:
            yield from _rows(each)


def _span(cell: Element, columns: dict[str | None, int]) -> tuple[int, int]:
    """(columns, rows) that a cell covers."""
    wide = _number(cell.get("colspan") or cell.get("cols"), 1)
    first, last = columns.get(cell.get("namest")), columns.get(cell.get("nameend"))
    if first is not None and last is not None:
        wide = last - first + 1
    high = _number(cell.get("morerows"), 0) + 1 if cell.get("morerows") else _number(cell.get("rowspan"), 1)
    return max(1, min(wide, MAX_SPAN)), max(1, min(high, MAX_SPAN))


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 6 else otherwise
