"""Cells of an Excel workbook from its XML, for what calamine refuses, and how a date is written.

Slower than calamine by far, but it takes a sheet that is damaged in places and cells that lie far apart.
"""

from __future__ import annotations

import datetime
import io
import re
from collections.abc import Iterator

from lxml import etree

from apps.documents.parsing.office.ooxml import Element, Package, S, figure, transitional
from apps.documents.parsing.types import ParseError

MAX_GAP = 64  # empty columns that are kept between two cells
MAX_TEXT = 50_000_000  # characters of one workbook: a shared string can be in a million cells
_PLACE = re.compile(r"([A-Z]{1,3})\d+")
_DATES = frozenset((*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)))  # ECMA-376 part 1, 18.8.30
_LITERAL = re.compile(r"\"[^\"]*\"|\\.|_.|\*.|\[(?![hms]+\])[^\]]*\]", re.IGNORECASE)
_DATE_FORM = re.compile(r"[dmyhs]", re.IGNORECASE)


class Cells:
    """Reads sheets of one workbook; shared strings and formats are read when they are first needed."""

    def __init__(self, package: Package, main: str, workbook: Element) -> None:
        self._package = package
        self._main = main
        properties = workbook.find(S + "workbookPr")
        late = properties is not None and properties.get("date1904") in ("1", "true")
        self._epoch = datetime.datetime(1904, 1, 1) if late else datetime.datetime(1899, 12, 30)
        self._left = MAX_TEXT
        self._strings: list[str] | None = None
        self._dates: set[int] | None = None

    def rows(self, xml: bytes) -> Iterator[list[str]]:
        """The rows with cells, [] for all empty ones between two of them."""
        last = 0
        for row in _elements(xml, S + "row"):
            number = row.get("r", "")
            here = int(number) if number.isdecimal() else last + 1
            if here > last + 1:
                yield []
            last = here
            yield self._row(row)

    def _row(self, row: Element) -> list[str]:
        cells: list[str] = []
        last = -1
        for cell in row.iterfind(S + "c"):
            text = self._text(cell)
            if not text:
                continue
            self._left -= len(text)
            if self._left < 0:
                raise ParseError("too_large", f"The cells hold more than {MAX_TEXT} characters.")
            place = _PLACE.match(cell.get("r", ""))
            column = column_of(place.group(1)) if place else last + 1
            cells += [""] * min(max(0, column - last - 1), MAX_GAP)
            cells.append(text)
            last = column
        return cells

    def _text(self, cell: Element) -> str:
        kind, value = cell.get("t", "n"), cell.findtext(S + "v") or ""
        if kind == "inlineStr":
            return "".join(_strings(cell))
        if kind == "b":
            return {"1": "TRUE", "0": "FALSE"}.get(value, value)
        if kind == "s":
            strings = self._shared()
            return strings[int(value)] if value.isdecimal() and int(value) < len(strings) else ""
        return value if kind in ("str", "e", "d") else self._number(value, cell.get("s", "0"))

    def _number(self, value: str, style: str) -> str:
        try:
            number = float(value)
            if not style.isdecimal() or int(style) not in self._date_styles():
                return figure(number)
            if 0 <= number < 1:
                return time_of_day((self._epoch + datetime.timedelta(number)).time())
            return moment(self._epoch + datetime.timedelta(number))
        except (ValueError, OverflowError):
            return value

    def _shared(self) -> list[str]:
        if self._strings is None:
            names = self._package.related(self._main, "sharedStrings") or ["xl/sharedStrings.xml"]
            data = self._package.data(names[0]) or b""
            self._strings = ["".join(_strings(item)) for item in _elements(data, S + "si")]
        return self._strings

    def _date_styles(self) -> set[int]:
        """Indices of the cell formats that show a date or a time."""
        if self._dates is None:
            root = self._package.part(next(iter(self._package.related(self._main, "styles")), "xl/styles.xml"))
            forms = {} if root is None else {form.get("numFmtId"): form for form in root.iter(S + "numFmt")}
            dates = {
                key for key, form in forms.items() if _DATE_FORM.search(_LITERAL.sub("", form.get("formatCode", "")))
            }
            dates |= {str(number) for number in _DATES if str(number) not in forms}
            styles = [] if root is None else root.findall(f"{S}cellXfs/{S}xf")
            self._dates = {at for at, style in enumerate(styles) if style.get("numFmtId") in dates}
        return self._dates


def _elements(data: bytes, tag: str) -> Iterator[Element]:
    """Elements of that name one by one, each forgotten before the next."""
    options = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False, "recover": True}
    try:
        for _, element in etree.iterparse(io.BytesIO(transitional(data)), tag=tag, **options):
            yield element
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
    except etree.XMLSyntaxError:
        return


def _strings(parent: Element) -> Iterator[str]:
    """The text of a string without its reading aids (rPh)."""
    for text in parent.iter(S + "t"):
        if text.getparent().tag != S + "rPh":
            yield text.text or ""


def column_of(letters: str) -> int:
    """Number of a column from 0: 0 of A, 26 of AA."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number - 1


def moment(value: datetime.datetime) -> str:
    """ISO date and time to the second, without a time where it is midnight."""
    if value.microsecond >= 500_000 and value.year < datetime.MAXYEAR:  # a double is a few microseconds off
        value += datetime.timedelta(seconds=1)
    return value.isoformat(" ", "seconds").removesuffix(" 00:00:00")


def time_of_day(value: datetime.time) -> str:
    """ISO time to the second."""
    return moment(datetime.datetime.combine(datetime.date(1900, 1, 1), value)).partition(" ")[2] or "00:00:00"


def duration(value: datetime.timedelta) -> str:
    """Hours, minutes and seconds: "30:05:00"."""
    seconds = round(value.total_seconds())
    minutes, rest = divmod(abs(seconds), 60)
    return f"{'-' if seconds < 0 else ''}{minutes // 60}:{minutes % 60:02}:{rest:02}"
