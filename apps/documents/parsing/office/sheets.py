"""Spreadsheets (.xlsx, .xlsm, .xlsb, .xls, .ods): a page per sheet, a table per region between empty rows.

calamine reads the values; it drops errors and knows neither comments nor text boxes, which for .xlsx are taken from
the package's XML.
"""

from __future__ import annotations

import datetime
import io
import struct
from collections.abc import Callable, Iterator
from itertools import chain, groupby, islice
from typing import Any

from python_calamine import CalamineSheet, CalamineWorkbook

from apps.documents.parsing.archives.zipped import open_zip, read_member
from apps.documents.parsing.build import LONG_TABLE, Builder, is_header
from apps.documents.parsing.legacy.ole import open_ole
from apps.documents.parsing.office.ooxml import Package, figure
from apps.documents.parsing.office.sheets_cells import duration, moment, time_of_day
from apps.documents.parsing.office.sheets_extra import Extras, errors, is_too_large
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "sheets/1"

HEAD = 200  # rows of a region that are looked at before it is written
MAX_MERGED = 100_000  # cells
_FILE_PASS = 0x2F  # MS-XLS 2.4.117
_RECORDS = 40  # at the beginning of a workbook, it is among these
_MANIFEST = "META-INF/manifest.xml"

Row = list[str]


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """The cells that hold something, then the comments and text boxes of the sheet. Hidden sheets are read too.

    Raises ParseError: "encrypted", "corrupt".
    """
    built = Builder()
    extras = _extras(data, built)
    workbook = _guarded(lambda: CalamineWorkbook.from_filelike(io.BytesIO(data)))
    names = _names(workbook, extras)
    if not names:
        if not data.startswith(b"PK"):
            _refuse_password(data)
        raise ParseError("corrupt", "The spreadsheet is damaged and cannot be read.")
    for number, name in enumerate(names, start=1):
        built.page = number
        values = _regions(_rows(built, workbook, name, extras))
        remarks = (remark for remark in extras.remarks(name) if remark) if extras else ()
        for count, piece in enumerate(chain(values, remarks)):
            if not count:
                built.heading(name, 1)
            if isinstance(piece, str):
                built.paragraph(piece)
            else:
                built.table(piece)
    if built.notes and not built:
        raise ParseError("corrupt", "The spreadsheet is damaged and none of its sheets can be read.")
    return built.parsed(media_type=media_type, parser=FINGERPRINT, title=extras.title if extras else None)


def _names(workbook: CalamineWorkbook | None, extras: Extras | None) -> list[str]:
    return list(workbook.sheet_names) if workbook else extras.names if extras else []


def _extras(data: bytes, built: Builder) -> Extras | None:
    """Refuses what needs a password; what else a package holds if it is one of Excel."""
    if not data.startswith(b"PK"):
        return None
    with open_zip(data) as archive:
        names = set(archive.namelist())
        if _MANIFEST in names and b"encryption-data" in read_member(archive, _MANIFEST):  # OpenDocument 1.3, 3.4.1
            raise ParseError("encrypted", "The spreadsheet is encrypted and needs a password.")
    if "xl/workbook.bin" in names or "mimetype" in names:
        return None
    return Extras(Package(data, built))


def _refuse_password(data: bytes) -> None:
    """A workbook of Excel 97 says among its first records that the others are encrypted."""
    with open_ole(data) as ole:
        name = next((name for name in ("Workbook", "Book") if ole.exists(name)), None)
        beginning = b"" if name is None else ole.openstream(name).read(64 * 1024)
    at = 0
    for _ in range(_RECORDS):
        if at + 4 > len(beginning):
            return
        kind, size = struct.unpack_from("<HH", beginning, at)
        if kind == _FILE_PASS:
            raise ParseError("encrypted", "The workbook is encrypted and needs a password.")
        at += 4 + size


def _guarded(read: Callable[[], Any]) -> Any:
    """What `read` gives, None where calamine fails; a panic of its is no Exception."""
    try:
        return read()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException:
        return None


def _rows(built: Builder, workbook: CalamineWorkbook | None, name: str, extras: Extras | None) -> Iterator[Row]:
    """The rows of a sheet as text: by calamine, else slower from the XML, else none and a note."""
    xml = extras.cells(name) if extras else b""
    read: CalamineSheet | None = None
    is_sparse = is_too_large(xml)
    if workbook and not is_sparse:
        read = _guarded(lambda: workbook.get_sheet_by_name(name))
    if read is None and not is_sparse:
        built.note("A sheet is damaged; some or all of it is missing.")
    if read is None and extras:
        yield from extras.rows(xml)
    elif read is not None and read.start is not None:
        yield from _shown(read, read.start[1], errors(xml))


def _shown(read: CalamineSheet, first: int, wrong: dict[int, dict[int, str]]) -> Iterator[Row]:
    """Rows from the first of the sheet, columns from its `first` used one; `wrong` are the cells in error."""
    covered = _covered(read.merged_cell_ranges or [], first)
    show = _SHOWN
    for number, values in enumerate(read.iter_rows()):
        if values[:1] == [""] and values.count("") == len(values) and number not in wrong and number not in covered:
            yield []
            continue
        row = [value if type(value) is str else show[type(value)](value) for value in values]
        if number in wrong:
            for at, text in wrong[number].items():
                if 0 <= at - first < len(row):
                    row[at - first] = text
        if number in covered:
            for at in covered[number]:
                if 0 <= at < len(row):
                    row[at] = " "  # not empty: what lies beneath a merged cell does not part a table
        yield row


def _covered(merged: list[tuple[tuple[int, int], tuple[int, int]]], first: int) -> dict[int, list[int]]:
    """Row -> columns of the cells that a merged one hides, columns from the sheet's first."""
    covered: dict[int, list[int]] = {}
    left = MAX_MERGED
    for (top, start), (bottom, end) in merged:
        left -= (bottom - top + 1) * (end - start + 1)
        if left < 0:
            break
        for row in range(top, bottom + 1):
            columns = range(start + (row == top), end + 1)
            covered.setdefault(row, []).extend(column - first for column in columns)
    return covered


def _regions(rows: Iterator[Row]) -> Iterator[str | Iterator[Row]]:
    """What stands between empty rows; columns' names with an empty row under them belong to what follows."""
    names: Row = []
    for region in (region for filled, region in groupby(rows, key=any) if filled):
        head = list(islice(region, HEAD))
        if names:
            if len(head) > 1 and _filled(head[0]) == _filled(names):
                head.insert(0, names)
            else:
                yield from _pieces([names], iter(()))
            names = []
        if len(head) == 1 and is_header([cell for cell in head[0] if cell]):
            names = head[0]
        else:
            yield from _pieces(head, region)
    if names:
        yield from _pieces([names], iter(()))


def _filled(row: Row) -> list[int]:
    return [at for at, cell in enumerate(row) if cell]


def _pieces(head: list[Row], rest: Iterator[Row]) -> Iterator[str | Iterator[Row]]:
    """A table without the empty columns before its first; a cell alone in its row over it is a paragraph."""
    widths = [sum(map(bool, map(str.strip, row))) for row in head]
    if max(widths) <= 1 and len(head) <= LONG_TABLE:
        yield "\n".join(map("".join, head))
        return
    first = min(_filled(row)[0] for row in head)
    titles = next((at for at, row in enumerate(head) if widths[at] > 1 or not row[first]), 0)
    if titles:
        yield "\n".join(map("".join, head[:titles]))
    rows = chain(head[titles:], rest)
    yield (row if any(row[:first]) else row[first:] for row in rows) if first else rows


_SHOWN: dict[type, Callable[[Any], str]] = {
    float: figure,
    int: str,
    bool: lambda value: "TRUE" if value else "FALSE",
    datetime.date: datetime.date.isoformat,
    datetime.datetime: moment,
    datetime.time: time_of_day,
    datetime.timedelta: duration,
}
