"""The text layer of PDF files, through PDFium.

PDFium gives the characters in reading order with line ends; paragraphs come from the distance between
lines and headings from the size of their type. A scan has no text layer and is reported as empty.
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import pypdfium2
import pypdfium2.raw as pdfium

from apps.documents.parsing.normalise import normalise
from apps.documents.parsing.types import Block, Parsed, ParseError

FINGERPRINT = "pdf/1"

# A gap this many times the page's usual line pitch starts a paragraph; leading varies by a few percent.
_PARAGRAPH_GAP = 1.3
_HEADING_SCALE = 1.2  # of the body's type size
_HEADING_LENGTH = 160  # characters
_MAX_HEADING_SHARE = 0.25  # of all blocks; above it the sizes mean something else (slides, forms)

_SOFT_HYPHEN = re.compile("\ufffe(?=(.?))", re.DOTALL)
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")
# Private use, unassigned-by-intent and replacement characters: what a font without a Unicode map yields.
_UNREADABLE = re.compile("[\ue000-\uf8ff\ufffd\uffff\U000f0000-\U0010ffff]")
_MAX_UNREADABLE_SHARE = 0.5


@dataclass(slots=True)
class _Line:
    text: str
    page: int  # from 1
    y: float  # baseline in points, upwards
    size: float  # type size in points, 0 when unknown
    first: bool  # of its page


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Text layer of all readable pages, page number on each block; the title is the document's own.

    Raises ParseError: "encrypted" when a password is needed, "corrupt" when no page can be opened,
    "empty" when there is no text layer, "malformed" when most of it has no Unicode meaning.
    """
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
            raise ParseError("encrypted", "The PDF is encrypted and needs a password.") from None
        raise ParseError("corrupt", "The PDF is damaged and cannot be opened.") from None
    try:
        title = _title(document)
        lines = _lines(document)
    finally:
        document.close()
    text, blocks = _assemble(lines)
    return Parsed(text=text, blocks=blocks, media_type=media_type, title=title, parser=FINGERPRINT)


def _title(document: pypdfium2.PdfDocument) -> str | None:
    value = normalise(str(document.get_metadata_value("Title") or ""), trim=True).strip()
    return " ".join(value.split())[:500] or None


def _lines(document: pypdfium2.PdfDocument) -> list[_Line]:
    count = len(document)
    lines: list[_Line] = []
    failed = 0
    for index in range(count):
        try:
            page = document[index]
            try:
                lines.extend(_page_lines(page, index + 1))
            finally:
                page.close()
        except pypdfium2.PdfiumError:
            failed += 1
    if failed == count:
        raise ParseError("corrupt", "The PDF has no page that can be opened.")
    letters = sum(len(line.text) for line in lines)
    if not letters:
        raise ParseError("empty", "The PDF has no text layer; it may be a scan that needs OCR.")
    unreadable = sum(len(_UNREADABLE.findall(line.text)) for line in lines)
    if unreadable > _MAX_UNREADABLE_SHARE * letters:
        raise ParseError("malformed", "The PDF's fonts carry no Unicode meaning; its text cannot be read.")
    return lines


def _page_lines(page: pypdfium2.PdfPage, number: int) -> Iterator[_Line]:
    textpage = page.get_textpage()
    try:
        raw = textpage.get_text_range()
        x, y = ctypes.c_double(), ctypes.c_double()
        unit = 0  # PDFium counts UTF-16 units
        first = True
        for piece in raw.split("\n"):
            stripped = piece.strip()
            if stripped:
                lead = unit + len(piece) - len(piece.lstrip())
                index = pdfium.FPDFText_GetCharIndexFromTextIndex(textpage, lead)
                size = pdfium.FPDFText_GetFontSize(textpage, index) if index >= 0 else 0.0
                placed = index >= 0 and pdfium.FPDFText_GetCharOrigin(textpage, index, x, y)
                text = _readable(stripped)
                if text:
                    yield _Line(text, number, y.value if placed else 0.0, _visible_size(textpage, index, size), first)
                    first = False
            unit += len(piece) + 1 + sum(char > "\uffff" for char in piece) if not piece.isascii() else len(piece) + 1
    finally:
        textpage.close()


def _visible_size(textpage: pypdfium2.PdfTextPage, index: int, size: float) -> float:
    """Type size in points as it appears: producers often set size 1 and scale through the text matrix."""
    if index < 0:
        return 0.0
    matrix = pdfium.FS_MATRIX()
    if not pdfium.FPDFText_GetMatrix(textpage, index, matrix):
        return size
    return round(size * (matrix.c**2 + matrix.d**2) ** 0.5, 1)


def _readable(line: str) -> str:
    line = _SOFT_HYPHEN.sub(_joined, line)
    return normalise(_INVISIBLE.sub("", line).replace("\u00a0", " "), trim=True).strip()


def _joined(match: re.Match[str]) -> str:
    """PDFium marks a hyphen at a line's end with U+FFFE: it goes before a small letter, else it stays."""
    following = match.group(1)
    return "" if following.islower() else "-"


def _assemble(lines: list[_Line]) -> tuple[str, list[Block]]:
    """Lines to paragraphs by vertical distance and size, then headings by size against the body."""
    groups: list[list[_Line]] = []
    pitches = _pitches(lines)
    for previous, line in zip([None, *lines], lines, strict=False):
        if previous is None or _starts_block(previous, line, pitches.get(line.page, 0.0)):
            groups.append([])
        groups[-1].append(line)
    levels = _heading_levels(lines, groups)
    parts: list[str] = []
    blocks: list[Block] = []
    at = 0
    for group in groups:
        level = _level_of(group, levels)
        text = (" " if level else "\n").join(line.text for line in group)
        if at:
            parts.append("\n\n")
            at += 2
        parts.append(text)
        kind = "heading" if level else "paragraph"
        blocks.append(Block(kind, at, at + len(text), level, group[0].page))
        at += len(text)
    return "".join(parts), blocks


def _pitches(lines: list[_Line]) -> dict[int, float]:
    """Usual distance between consecutive baselines, per page, in points."""
    gaps: dict[int, list[float]] = {}
    for above, below in pairwise(lines):
        if above.page == below.page and 0.5 < above.y - below.y < 100:
            gaps.setdefault(above.page, []).append(above.y - below.y)
    return {page: median(values) for page, values in gaps.items()}


def _starts_block(previous: _Line, line: _Line, pitch: float) -> bool:
    if line.first:
        return True
    if previous.size and line.size and abs(previous.size - line.size) > 0.15 * previous.size:
        # A raised note mark or a drop cap changes size within a sentence; a heading changes it between two.
        return (
            previous.text[-1:] in ".!?:;。！？"
            or max(previous.size, line.size) > _HEADING_SCALE * previous.size
            or (previous.size > _HEADING_SCALE * line.size)
        )
    gap = previous.y - line.y
    if gap < -pitch:
        return True  # upwards: next column
    return bool(pitch) and gap > _PARAGRAPH_GAP * pitch


def _heading_levels(lines: list[_Line], groups: list[list[_Line]]) -> dict[float, int]:
    """Type size -> heading level 1..6, largest first; empty when sizes do not tell headings apart."""
    weight: Counter[float] = Counter()
    for line in lines:
        weight[line.size] += len(line.text)
    body = weight.most_common(1)[0][0] if weight else 0.0
    if body <= 0:
        return {}
    heads = [group for group in groups if _looks_like_heading(group, body)]
    if len(heads) > _MAX_HEADING_SHARE * len(groups):
        return {}
    sizes = sorted({group[0].size for group in heads}, reverse=True)
    return {size: min(rank, 6) for rank, size in enumerate(sizes, start=1)}


def _looks_like_heading(group: list[_Line], body: float) -> bool:
    length = sum(len(line.text) for line in group)
    return (
        len(group) <= 3
        and 3 <= length <= _HEADING_LENGTH
        and all(line.size >= _HEADING_SCALE * body for line in group)
        and any(char.isalpha() for line in group for char in line.text)
    )


def _level_of(group: list[_Line], levels: dict[float, int]) -> int:
    length = sum(len(line.text) for line in group)
    if len(group) > 3 or not 3 <= length <= _HEADING_LENGTH:
        return 0
    return levels.get(group[0].size, 0) if len({line.size for line in group}) == 1 else 0
