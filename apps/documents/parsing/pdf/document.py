"""PDF files through PDFium: the text layer, and OCR of the pages that are pictures."""

from __future__ import annotations

import re

import pypdfium2
import pypdfium2.raw as pdfium

from apps.documents.parsing import ocr
from apps.documents.parsing.build import inline
from apps.documents.parsing.pdf.annotations import annotation_lines
from apps.documents.parsing.pdf.layout import assemble
from apps.documents.parsing.pdf.text import Line, page_lines
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "pdf/3"

# Private use, unassigned-by-intent and replacement characters: what a font without a Unicode map yields.
_UNREADABLE = re.compile("[\ue000-\uf8ff\ufffd\uffff\U000f0000-\U0010ffff]")
_MAX_UNREADABLE_SHARE = 0.5

_STAMP = 25  # characters: fewer on a page that is a picture are a page number or a scanner's stamp
_PICTURE_SHARE = 0.5  # of the page that a picture covers when the page is one
# A word with a sign in its middle or a small letter before a capital: common where OCR has failed, rare in any text.
_ODD = re.compile(r"[^\W\d_](?:[^\w\s.'’,/@:;&)(-]+\w|[$£€%*+=<>«»^~|])|[a-z][A-Z]{1,2}\b")
_ODD_WORD = re.compile(rf"\w*(?:{_ODD.pattern})\w*")
_ODD_SIGNS, _LEAST_ODD_SIGNS = "«»*^~|<>=£$%+&".encode("latin-1"), 0.005  # of the characters
_MAX_ODD_SHARE = 0.03  # of the words
_SCAN_DPI, _SCAN_PIXELS = 300, 5000  # resolution, and the longest side
_NAMED_RUNS = 5  # of pages, in a note


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Text of all readable pages, page number on each block, form fields and comments after each page's text.

    The title is the document's own.

    Pages that are pictures are read by OCR, also those whose text layer is the debris of an earlier OCR. Raises
    ParseError: "encrypted" when a password is needed, "corrupt" when no page can be opened, "empty" when there is no
    text, "malformed" when most of it has no Unicode meaning.
    """
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
            raise ParseError("encrypted", "The PDF is encrypted and needs a password.") from None
        raise ParseError("corrupt", "The PDF is damaged and cannot be opened.") from None
    try:
        title = inline(str(document.get_metadata_value("Title") or ""))
        reader = _Reader(document)
        reader.read()
    finally:
        document.close()
    built = assemble(reader.lines)
    for note in reader.notes():
        built.note(note)
    return built.parsed(media_type=media_type, parser=FINGERPRINT, title=title)


class _Reader:
    """The lines of all pages, and which pages they could not be had of."""

    def __init__(self, document: pypdfium2.PdfDocument) -> None:
        self.lines: list[Line] = []
        self._document = document
        self._failed: list[int] = []
        self._unread: list[int] = []  # pictures, for want of an OCR program or because it failed
        self._read: list[int] = []  # by OCR
        self._debris: list[int] = []  # their text layer is bad, and there is nothing better
        self._why = ocr.MISSING
        self._letters = self._unreadable = 0

    def read(self) -> None:
        """Raises ParseError when there is nothing to show for it."""
        count = len(self._document)
        for number in range(1, count + 1):
            try:
                page = self._document[number - 1]
                try:
                    self._add(self._page(page, number))
                finally:
                    page.close()
            except pypdfium2.PdfiumError:
                self._failed.append(number)
        if len(self._failed) == count:
            raise ParseError("corrupt", "The PDF has no page that can be opened.")
        if not self._letters:
            reason = f"its pages are pictures, and {self._why}" if self._unread else "its pages are blank"
            raise ParseError("empty", f"The PDF has no text: {reason}.")
        if self._unreadable > _MAX_UNREADABLE_SHARE * self._letters:
            raise ParseError("malformed", "The PDF's fonts carry no Unicode meaning; its text cannot be read.")

    def notes(self) -> list[str]:
        """Sentences about the pages that were not read, or not well."""
        told = (
            (self._failed, "{}: cannot be opened, left out."),
            (self._read, "{}: a picture, read by OCR; expect mistakes."),
            (self._unread, f"{{}}: a picture, not read: {self._why}."),
            (self._debris, "{}: the text is that of an earlier OCR and looks damaged."),
        )
        return [sentence.format(_pages(numbers)) for numbers, sentence in told if numbers]

    def _add(self, lines: list[Line]) -> None:
        text = "".join([line.text for line in lines])
        self._letters += len(text)
        self._unreadable += 0 if text.isascii() else len(_UNREADABLE.findall(text))
        self.lines += lines

    def _page(self, page: pypdfium2.PdfPage, number: int) -> list[Line]:
        lines = page_lines(page, number)
        text = "".join([line.text for line in lines])
        stamped = len(text) < _STAMP
        beside = [Line(text, number, opens=True) for text in annotation_lines(page)]
        if not (stamped or _is_debris(text, lines)) or not _is_picture(page):
            return lines + beside
        if ocr.engine() is None:
            (self._unread if stamped else self._debris).append(number)
            return lines + beside
        try:
            read = [Line(text, number, opens=True) for text in ocr.read(_picture(page))]
        except ParseError as error:
            self._why = error.detail.rstrip(".").lower()
            (self._unread if stamped else self._debris).append(number)
            return lines + beside
        if read:
            self._read.append(number)
        return (lines + read if stamped else read or lines) + beside


def _is_debris(text: str, lines: list[Line]) -> bool:
    plain = text.encode("latin-1", "ignore")  # nearly all pages have few odd signs: the rest takes its time
    if len(plain) - len(plain.translate(None, _ODD_SIGNS)) < _LEAST_ODD_SIGNS * len(text):
        return False
    # To look for what is odd takes a seventh of looking for the words around it.
    odd = sum(len(_ODD_WORD.findall(line.text)) for line in lines if _ODD.search(line.text))
    return odd > _MAX_ODD_SHARE * (text.count(" ") + len(lines))


def _is_picture(page: pypdfium2.PdfPage) -> bool:
    """Does one picture cover most of the page?"""
    width, height = page.get_size()
    for picture in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        left, bottom, right, top = picture.get_bounds()
        if (right - left) * (top - bottom) >= _PICTURE_SHARE * width * height:
            return True
    return False


def _picture(page: pypdfium2.PdfPage) -> bytes:
    """The page as a greyscale PGM."""
    scale = min(_SCAN_DPI / 72, _SCAN_PIXELS / max(1.0, *page.get_size()))
    bitmap = page.render(scale=scale, grayscale=True)
    try:
        rows = memoryview(bitmap.buffer).cast("B")
        pixels = b"".join(rows[at : at + bitmap.width] for at in range(0, bitmap.stride * bitmap.height, bitmap.stride))
        return ocr.pgm(bitmap.width, bitmap.height, pixels)
    finally:
        bitmap.close()


def _pages(numbers: list[int]) -> str:
    """ "Page 3", "Pages 1-4, 7, 9 and 12 more"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    named = ", ".join("-".join(map(str, run)) for run in runs[:_NAMED_RUNS])
    more = sum(run[-1] - run[0] + 1 for run in runs[_NAMED_RUNS:])
    return ("Pages " if len(numbers) > 1 else "Page ") + named + (f" and {more} more" if more else "")
