"""PDF: the text layer with its pages, headings and tables, and OCR of what is a picture."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image, ImageDraw, ImageFont

from apps.documents.parsing import Parsed, ocr, parse
from tests.support.parsed import code_of, shown

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
needs_tesseract = pytest.mark.skipif(ocr.engine() is None, reason="tesseract is not installed")


def sample(name: str) -> Parsed:
    return parse((SAMPLES / name).read_bytes(), filename=name)


def test_pdf_gives_title_headings_paragraphs_and_pages() -> None:
    parsed = sample("sample.pdf")
    assert parsed.title == "Harbour report 2024"
    assert [(block.kind, block.page) for block in parsed.blocks] == [
        ("heading", 1), ("paragraph", 1), ("paragraph", 1), ("paragraph", 2),
    ]  # fmt: skip
    assert shown(parsed)[1][1].startswith("The harbour opened in spring and the cranes\nwere painted")


def test_a_truncated_pdf_is_corrupt_and_one_without_text_is_empty() -> None:
    data = (SAMPLES / "sample.pdf").read_bytes()
    assert code_of(data[:60]) == "corrupt"
    assert code_of(re.sub(rb"\([^()]*\) Tj", b"() Tj      ", data)) == "empty"


def page(*texts: tuple[float, float, str], size: float = 12) -> bytes:
    """A PDF of one page with texts at (x, y)."""
    body = b"BT /F1 %d Tf " % size
    body += b"".join(b"1 0 0 1 %f %f Tm (%s) Tj " % (x, y, text.encode("cp1252")) for x, y, text in texts) + b"ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >> stream\n%s\nendstream" % (len(body), body),
    ]
    whole = b"%PDF-1.4\n" + b"".join(b"%d 0 obj %s endobj\n" % pair for pair in enumerate(objects, start=1))
    return whole + b"trailer << /Root 1 0 R >>"


def test_a_table_keeps_its_cells_apart() -> None:
    rows = [("Product", "Expected", "Actual"), ("Rope", "450", "427"), ("Anchor", "780", "778")]
    texts = [
        (x, 600 - 16 * number, cell)
        for number, row in enumerate(rows)
        for x, cell in zip((72, 250, 400), row, strict=True)
    ]
    intro = [(72, 700, "The stock was counted in spring, and what was found is in the table below.")]
    assert shown(parse(page(*intro, *texts))) == [
        ("paragraph", intro[0][2]),
        ("table", "Product | Expected | Actual\nRope | 450 | 427\nAnchor | 780 | 778"),
    ]


def test_a_single_line_with_a_gap_is_no_table() -> None:
    parsed = parse(page((72, 700, "Print date"), (400, 700, "2024-12-15"), (72, 600, "A paragraph of its own.")))
    assert {kind for kind, _ in shown(parsed)} == {"paragraph"} and "Print date 2024-12-15" in parsed.text


def test_form_fields_and_comments_follow_the_pages_text() -> None:
    notes = (
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (berth) /TU (Number of the berth) /V (17 b) /Rect [0 0 9 9] >>",
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (empty) /V () /Rect [0 0 9 9] >>",
        b"<< /Type /Annot /Subtype /Text /T (Ann) /Contents (Why so dear?) /Rect [0 0 9 9] >>",
        b"<< /Type /Annot /Subtype /FreeText /Contents (Paid.) /Rect [0 0 9 9] >>",
        b"<< /Type /Annot /Subtype /Text /F 2 /Contents (hidden) /Rect [0 0 9 9] >>",
        b"<< /Type /Annot /Subtype /Link /Rect [0 0 9 9] /A << /S /URI /URI (https://example.org) >> >>",
    )
    data = page((72, 700, "A bill.")).replace(b"/Contents 4 0 R", b"/Contents 4 0 R /Annots [%s]" % b" ".join(notes))
    assert [text for _, text in shown(parse(data))] == [
        "A bill.",
        "Number of the berth: 17 b",
        "Comment (Ann): Why so dear?",
        "Paid.",
    ]


def picture(*lines: str) -> Image.Image:
    image = Image.new("L", (1700, 400 + 80 * len(lines)), "white")
    drawn = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        drawn.text((120, 120 + 80 * number), line, fill="black", font=ImageFont.load_default(48))
    return image


def scan(*lines: str) -> bytes:
    """A PDF of one page that is a picture."""
    written = io.BytesIO()
    picture(*lines).save(written, "PDF", resolution=200)
    return written.getvalue()


@needs_tesseract
def test_a_page_that_is_a_picture_is_read_and_noted() -> None:
    parsed = parse(scan("The harbour opened in spring.", "It has three cranes."))
    assert " ".join(parsed.text.split()) == "The harbour opened in spring. It has three cranes."
    assert parsed.blocks[0].page == 1 and parsed.notes == ["Page 1: a picture, read by OCR; expect mistakes."]


def test_without_tesseract_a_scan_is_empty_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "engine", lambda: None)
    assert code_of(scan("The harbour opened in spring.")) == "empty"
    with pytest.raises(Exception, match="tesseract"):
        parse(scan("The harbour opened in spring."))


def test_without_tesseract_the_pages_that_are_text_are_read_and_the_others_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ocr, "engine", lambda: None)
    whole = pypdfium2.PdfDocument.new()
    for data in (page((72, 700, "A page of text.")), scan("Not read."), scan("Nor this.")):
        whole.import_pages(pypdfium2.PdfDocument(data))
    written = io.BytesIO()
    whole.save(written)
    parsed = parse(written.getvalue())
    assert shown(parsed) == [("paragraph", "A page of text.")]
    assert parsed.notes == [f"Pages 2-3: a picture, not read: {ocr.MISSING}."]


@needs_tesseract
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"])
def test_pictures_of_text_are_read(form: str) -> None:
    written = io.BytesIO()
    picture("The harbour opened in spring.").save(written, form)
    assert parse(written.getvalue()).text == "The harbour opened in spring."


@needs_tesseract
def test_each_frame_of_a_tiff_is_a_page() -> None:
    written = io.BytesIO()
    picture("The first page.").save(written, "TIFF", save_all=True, append_images=[picture("The second page.")])
    parsed = parse(written.getvalue())
    assert [block.page for block in parsed.blocks] == [1, 2] and "second page" in parsed.text


@needs_tesseract
def test_a_small_or_transparent_picture_is_made_readable() -> None:
    small = picture("The harbour opened in spring.").resize((425, 120), Image.Resampling.LANCZOS)
    ink = Image.new("RGBA", small.size, (0, 0, 0, 0))
    ink.putalpha(small.point(lambda grey: 255 - grey))
    written = io.BytesIO()
    ink.save(written, "PNG")
    assert parse(written.getvalue()).text == "The harbour opened in spring."


def test_a_damaged_picture_is_corrupt_and_a_giant_too_large() -> None:
    if ocr.engine() is None:
        pytest.skip("tesseract is not installed")
    assert code_of(b"\x89PNG\r\n\x1a\n" + bytes(100), filename="a.png") == "corrupt"
    written = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(written, "PNG")
    assert code_of(written.getvalue()) == "too_large"
