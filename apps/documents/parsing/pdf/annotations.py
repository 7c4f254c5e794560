"""What stands on a PDF page beside its text layer: values of form fields, comments, text boxes."""

from __future__ import annotations

import ctypes
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from apps.documents.parsing.build import inline

MAX_ANNOTATIONS = 10_000  # of a page
_MAX_BYTES = 1024**2  # of one value, UTF-16

_BOXES = frozenset({pdfium.FPDF_ANNOT_FREETEXT})
_COMMENTS = frozenset(
    {
        *(pdfium.FPDF_ANNOT_TEXT, pdfium.FPDF_ANNOT_HIGHLIGHT, pdfium.FPDF_ANNOT_UNDERLINE, pdfium.FPDF_ANNOT_SQUIGGLY),
        *(pdfium.FPDF_ANNOT_STRIKEOUT, pdfium.FPDF_ANNOT_STAMP, pdfium.FPDF_ANNOT_INK, pdfium.FPDF_ANNOT_CARET),
    }
)
_TOLD = _BOXES | _COMMENTS | {pdfium.FPDF_ANNOT_WIDGET}  # most are links


def annotation_lines(page: pypdfium2.PdfPage) -> list[str]:
    """Lines in the order of the page's annotations: "field: value", the text of a box, "Comment (author): text"."""
    found: list[str] = []
    for index in range(min(pdfium.FPDFPage_GetAnnotCount(page.raw), MAX_ANNOTATIONS)):
        annotation = pdfium.FPDFPage_GetAnnot(page.raw, index)
        if not annotation:
            continue
        try:
            line = _line(annotation)
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)
        if line and line not in found[-1:]:
            found.append(line)
    return found


def _line(annotation: Any) -> str:
    kind = pdfium.FPDFAnnot_GetSubtype(annotation)
    if kind not in _TOLD or pdfium.FPDFAnnot_GetFlags(annotation) & pdfium.FPDF_ANNOT_FLAG_HIDDEN:
        return ""
    if kind == pdfium.FPDF_ANNOT_WIDGET:
        value = _value(annotation, b"V")
        name = _value(annotation, b"TU") or _value(annotation, b"T")
        return f"{name}: {value}" if value and name else value
    if kind in _BOXES:
        return _value(annotation, b"Contents")
    if kind in _COMMENTS and (text := _value(annotation, b"Contents")):
        author = _value(annotation, b"T")
        return f"Comment ({author}): {text}" if author else f"Comment: {text}"
    return ""


def _value(annotation: Any, key: bytes) -> str:
    """A text of the annotation's own dictionary on one line, "" where there is none."""
    size = pdfium.FPDFAnnot_GetStringValue(annotation, key, None, 0)
    if not 2 < size <= _MAX_BYTES:
        return ""
    buffer = (ctypes.c_ushort * (size // 2))()
    pdfium.FPDFAnnot_GetStringValue(annotation, key, buffer, size)
    return inline(bytes(buffer)[:-2].decode("utf-16-le", "ignore"))
