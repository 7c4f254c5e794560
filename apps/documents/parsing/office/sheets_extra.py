"""What calamine does not give of an Excel workbook: cells in error, comments, text boxes, titles of charts.

Also the rows of sheets that it cannot read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from apps.documents.parsing.build import inline
from apps.documents.parsing.office.drawing import C, text_of
from apps.documents.parsing.office.ooxml import A, Element, Package, R, S
from apps.documents.parsing.office.sheets_cells import Cells, column_of
from apps.documents.parsing.types import ParseError

MAX_CELLS = 30_000_000  # of a sheet from its first to its last: calamine keeps the empty ones too, 32 bytes each
MAX_ROWS, MAX_COLUMNS = 1_048_576, 16_384
_ERROR = b't="e"'
_ERROR_REACH, _PLACE_REACH = 9000, 200  # bytes from there to the value, past a formula, and back to the cell's place
_PLACE = re.compile(r"([A-Z]{1,3})(\d{1,7})")
_ROW = re.compile(rb'<(?:\w+:)?row\s[^>]{0,300}?\br="(\d{1,7})"')
_WIDE = ((rb'r="[A-Z]{3}\d', MAX_COLUMNS), (rb'r="[A-Z]{2}\d', 26 * 27), (rb"", 26))
_THREADED = "[Threaded comment]"
_XDR = "{http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing}"
_TC = "{http://schemas.microsoft.com/office/spreadsheetml/2018/threadedcomments}"


class Extras:
    """The parts of a workbook that hang on its sheets."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self.title = package.title()
        name, root = package.main("xl/workbook.xml")
        found = ((sheet.get("name"), package.target(name, sheet.get(R + "id"))) for sheet in root.iter(S + "sheet"))
        self._parts = {title: part for title, part in found if title and part}
        self._cells = Cells(package, name, root)
        people = (person for part in package.related(name, "person") for person in self._all(part, f"{_TC}person"))
        self._people = {person.get("id"): person.get("displayName", "") for person in people}

    def _all(self, part: str, tag: str) -> Iterator[Element]:
        root = self._package.part(part)
        return iter(()) if root is None else root.iter(tag)

    @property
    def names(self) -> list[str]:
        """The names of all sheets."""
        return list(self._parts)

    def cells(self, sheet: str) -> bytes:
        """The XML of a sheet, b"" where it has none or it is damaged."""
        try:
            return self._package.data(self._parts.get(sheet, "")) or b""
        except ParseError as error:
            if error.code != "corrupt":
                raise
            return b""

    def rows(self, xml: bytes) -> Iterator[list[str]]:
        """The rows of a sheet whose XML this is, without calamine."""
        return self._cells.rows(xml)

    def remarks(self, sheet: str) -> Iterator[str]:
        """Comments, text boxes and titles of charts, each once."""
        part = self._parts.get(sheet, "")
        threads = self._package.related(part, "threadedComment")
        for name in threads:
            for comment in self._all(name, f"{_TC}threadedComment"):
                author = self._people.get(comment.get("personId"), "")
                yield _remark(comment.get("ref"), author, comment.findtext(f"{_TC}text") or "")
        for name in self._package.related(part, "comments"):
            yield from self._comments(name, threaded=bool(threads))
        for name in self._package.related(part, "drawing"):
            yield from self._drawn(name)

    def _comments(self, name: str, *, threaded: bool) -> Iterator[str]:
        authors = [author.text or "" for author in self._all(name, S + "author")]
        for comment in self._all(name, S + "comment"):
            text = "".join(part.text or "" for part in comment.iterfind(f"{S}text//{S}t"))
            by = comment.get("authorId", "")
            author = authors[int(by)] if by.isdecimal() and int(by) < len(authors) else ""
            if author and text.startswith(f"{author}:"):  # as Excel puts it in bold above the words
                text = text[len(author) + 1 :]
            if not (threaded and text.startswith(_THREADED)):
                yield _remark(comment.get("ref"), "" if author.startswith("tc=") else author, text)

    def _drawn(self, name: str) -> Iterator[str]:
        for body in self._all(name, f"{_XDR}txBody"):
            yield "\n".join(map(text_of, body.iterfind(f"{A}p")))
        for chart in self._package.related(name, "chart"):
            for title in self._all(chart, f"{C}title"):
                yield "\n".join(map(text_of, title.iter(f"{A}p")))


def _remark(place: str | None, author: str, text: str) -> str:
    by = f" ({inline(author)})" if inline(author) else ""
    return f"Comment on {inline(place or 'a cell')}{by}: {text.strip()}" if text.strip() else ""


def errors(xml: bytes) -> dict[int, dict[int, str]]:
    """Row -> column -> "#N/A" and the like, both from 0, of the cells that hold an error."""
    found: dict[int, dict[int, str]] = {}
    at = xml.find(_ERROR)
    while at >= 0:
        place = _PLACE.match(_between(xml, xml.rfind(b'r="', max(0, at - _PLACE_REACH), at), b'"'))
        end = xml.find(b"</", at, at + _ERROR_REACH)
        value = xml.find(b"v>", at, at + _ERROR_REACH)
        text = _between(xml, value, b">") if value >= 0 and end >= 0 else ""
        if place and text.startswith("#"):
            column, row = place.groups()
            found.setdefault(int(row) - 1, {})[column_of(column)] = text
        at = xml.find(_ERROR, at + 1)
    return found


def _between(xml: bytes, at: int, opening: bytes) -> str:
    """What stands after the next `opening`, a little of it."""
    start = xml.find(opening, max(at, 0)) + 1
    return xml[start : start + 20].split(b"<")[0].split(b'"')[0].decode("ascii", "ignore") if at >= 0 else ""


def is_too_large(xml: bytes) -> bool:
    """Do the cells of a sheet lie so far apart that the empty ones between them fill the memory?"""
    first, last = _ROW.search(xml), _ROW.search(xml, max(0, _last_row(xml)))
    if first is None or last is None:
        return False
    rows = int(last.group(1)) - int(first.group(1)) + 1
    if rows * MAX_COLUMNS <= MAX_CELLS:
        return False
    return rows * next(width for pattern, width in _WIDE if re.search(pattern, xml)) > MAX_CELLS


def _last_row(xml: bytes) -> int:
    """Where the last row begins that a cell could be in."""
    return max(xml.rfind(b"<row "), xml.rfind(b":row ") - 20)
