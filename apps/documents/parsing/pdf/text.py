"""The lines of a PDF page's text layer, and the cells of those that look like rows of a table.

PDFium gives the characters in reading order with line ends; where each line stands and how large its type is tells
paragraphs and headings apart later (pdf_layout.py).
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from apps.documents.parsing.build import INVISIBLE
from apps.documents.parsing.normalise import normalise

# Beside its characters a row of a table has gaps: it is wider than a line of running text in the same type. Measured
# in type sizes per character; Latin text is set at 0.4 to 0.55, capitals at 0.7.
_WIDE = 0.62
_GAP = 1.2  # type sizes between two cells; a word space is 0.25, stretched in justified text up to 0.8
_MOST_SPACES = 60  # in a line that is looked at for cells

_SPACES = re.compile(" +")
_SOFT_HYPHEN = re.compile("\ufffe(?=(.?))", re.DOTALL)


@dataclass(slots=True)
class Line:
    """A line of text. Lengths in points, upwards and to the right; `size` is that of the type, 0 when unknown."""

    text: str
    page: int  # from 1
    y: float = 0.0  # of the baseline
    size: float = 0.0
    opens: bool = False  # begins a block whatever stands before it: the first of its page
    cells: tuple[tuple[float, str], ...] = ()  # (left edge, text) of two or more, of what may be a row of a table


def page_lines(page: pypdfium2.PdfPage, number: int) -> list[Line]:
    """The lines of a page's text layer in reading order."""
    textpage = page.get_textpage()
    try:
        raw = textpage.get_text_range()
        handle = textpage.raw
        # PDFium counts UTF-16 units of the text and characters of the page, which differ where a character has no text.
        narrow = len(raw.encode("utf-16-le", "surrogatepass")) == 2 * len(raw)
        same = narrow and pdfium.FPDFText_CountChars(handle) == len(raw)
        lines: list[Line] = []
        for text, at in _pieces(raw, narrow):
            readable = text if text.isascii() and text.isprintable() else _readable(text)
            if not readable:
                continue
            index = at if same else pdfium.FPDFText_GetCharIndexFromTextIndex(handle, at)
            if index >= 0 and _origin(handle, index, _X_REF, _Y_REF):
                y, size = _Y.value, _visible_size(handle, index)
                cells = _cells(handle, text, index, size) if " " in text else ()
                lines.append(Line(readable, number, y, size, not lines, cells))
            else:
                lines.append(Line(readable, number, opens=not lines))
        return lines
    finally:
        textpage.close()


def _pieces(raw: str, narrow: bool) -> Iterator[tuple[str, int]]:
    """Each line that is not blank, stripped, and at how many UTF-16 units it begins."""
    at = 0
    for piece in raw.split("\n"):
        if text := piece.strip():
            yield text, at if piece[0] == text[0] else at + len(piece) - len(piece.lstrip())
        at += (len(piece) if narrow else len(piece.encode("utf-16-le", "surrogatepass")) // 2) + 1


def _untyped(function: Any, result: type = ctypes.c_int) -> Any:
    """A function of PDFium for arguments that are C values already: checking their types takes longer than the call."""
    return ctypes.PYFUNCTYPE(result)(ctypes.cast(function, ctypes.c_void_p).value or 0)


_origin, _matrix = _untyped(pdfium.FPDFText_GetCharOrigin), _untyped(pdfium.FPDFText_GetMatrix)
_font_size = _untyped(pdfium.FPDFText_GetFontSize, ctypes.c_double)
_char_box = _untyped(pdfium.FPDFText_GetCharBox)
_X, _Y = ctypes.c_double(), ctypes.c_double()  # where the last character asked for stands
_LEFT, _RIGHT, _BOTTOM, _TOP = (ctypes.c_double() for _ in range(4))  # of the last box asked for
_MATRIX = pdfium.FS_MATRIX()
_X_REF, _Y_REF, _MATRIX_REF = map(ctypes.byref, (_X, _Y, _MATRIX))
_LEFT_REF, _RIGHT_REF, _BOTTOM_REF, _TOP_REF = map(ctypes.byref, (_LEFT, _RIGHT, _BOTTOM, _TOP))


def _visible_size(handle: Any, index: int) -> float:
    """Type size in points as it appears: producers often set size 1 and scale through the text matrix."""
    size: float = _font_size(handle, index)
    return _scaled(size, _MATRIX.c, _MATRIX.d) if _matrix(handle, index, _MATRIX_REF) else size


@lru_cache(1024)  # a document has few sizes
def _scaled(size: float, tilt: float, height: float) -> float:
    return round(size * (height if tilt == 0.0 and height > 0 else (tilt * tilt + height * height) ** 0.5), 1)


def _cells(handle: Any, text: str, index: int, size: float) -> tuple[tuple[float, str], ...]:
    """The parts of a line between wide gaps, if it has any; `index` is that of its first character, which stands at _X.

    Two or more, or none.
    """
    if not _char_box(handle, index + len(text) - 1, _LEFT_REF, _RIGHT_REF, _BOTTOM_REF, _TOP_REF):
        return ()
    left = _X.value
    if _RIGHT.value - left < _WIDE * size * len(text) or text.count(" ") > _MOST_SPACES or not text.isprintable():
        return ()
    cells = []
    start, edge = 0, left
    for match in _SPACES.finditer(text):
        if not _char_box(handle, index + match.start() - 1, _LEFT_REF, _RIGHT_REF, _BOTTOM_REF, _TOP_REF):
            return ()
        before = _RIGHT.value
        if not _char_box(handle, index + match.end(), _LEFT_REF, _RIGHT_REF, _BOTTOM_REF, _TOP_REF):
            return ()
        if _LEFT.value - before > _GAP * size:
            cells.append((edge, text[start : match.start()]))
            start, edge = match.end(), _LEFT.value
    return (*cells, (edge, text[start:])) if cells else ()


def _readable(line: str) -> str:
    if line.isascii() and line.isprintable():
        return line
    line = _SOFT_HYPHEN.sub(_joined, line)
    return normalise(INVISIBLE.sub("", line).replace("\u00a0", " "), trim=True).strip()


def _joined(match: re.Match[str]) -> str:
    """PDFium marks a hyphen at a line's end with U+FFFE: it goes before a small letter, else it stays."""
    following = match.group(1)
    return "" if following.islower() else "-"
