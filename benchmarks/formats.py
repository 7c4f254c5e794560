"""Reading documents beside the bare library of their format: time in the sandbox over the library's own.

Files of more than 100 kB: real ones where the shared files are at hand, and made ones for the formats that have none so
large. The bare side is the shortest way to all the text with the library that people use for the format; it gives no
structure, and where it is another library than ours (python-docx, odfdo ...) it may give less text.
"""

from __future__ import annotations

import csv
import email
import email.policy
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from time import perf_counter

from apps.documents.parsing.sandbox import Sandbox

from .corpus import passages

FILES = Path(__file__).resolve().parents[2] / "shared" / "data" / "files" / "good"
VERSIONS = Path(__file__).resolve().parents[2] / "shared" / "data" / "versions"
ROUNDS = 5
ASKED = "<= 1.25 times the bare library"

Bare = Callable[[bytes], object]


def run(data: Path) -> Iterator[tuple[str, str, str]]:
    with Sandbox() as box:
        for name, content, label, bare in (*_real(), *_made()):
            parsed = box.parse(content, filename=name)  # the first of a format loads its parser
            bare(content)
            alone = min(_seconds(partial(bare, content)) for _ in range(ROUNDS))
            ours = min(_seconds(partial(box.parse, content, filename=name)) for _ in range(ROUNDS))
            pages = max((block.page or 0 for block in parsed.blocks), default=0)
            speed = f"{len(content) / 1e6 / ours:.1f} MB/s" + (f", {pages / ours:.0f} pages/s" if pages > 1 else "")
            figure = f"{name}, {len(content) / 1000:.0f} kB, beside {label}"
            yield figure, ASKED, f"{ours / alone:.2f} ({ours * 1000:.0f} and {alone * 1000:.0f} ms); {speed}"


def _seconds(call: Callable[[], object]) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started


def _real() -> Iterator[tuple[str, bytes, str, Bare]]:
    chosen = (
        ("kg__HHS2022.pdf", "PDFium", _pdf),
        ("llama__598us1r5_1b72.pdf", "PDFium", _pdf),
        ("docling__redp5110_sampled.pdf", "PDFium", _pdf),
        ("markitdown__test_wikipedia.html", "lexbor", _html),
        ("docling__wiki_duck.html", "lexbor", _html),
        ("docling__elife-56337.xml", "lxml itertext", _xml),
        ("unstructured__winter-sports.epub", "zipfile and lexbor", _epub),
        ("markitdown__test.docx", "python-docx", _docx),
        ("markitdown__test.pptx", "python-pptx", _pptx),
    )
    if FILES.is_dir():
        for name, label, bare in chosen:
            yield name, (FILES / name).read_bytes(), label, bare
    page = VERSIONS / "celery__userguide_configuration"
    if page.is_dir():
        yield "configuration.rst", max(page.glob("*.txt")).read_bytes(), "docutils", _rst


def _made() -> Iterator[tuple[str, bytes, str, Bare]]:
    texts, dice = passages(1_500), Random(3)
    rows = [[f"item {n}", f"{dice.random() * 100:.2f}", n, dice.choice(("yes", "no")), texts[n % 1_500][:60]]
            for n in range(5_000)]  # fmt: skip
    header = ["name", "price", "number", "in stock", "remark"]

    import docx

    document = docx.Document()
    for number, text in enumerate(texts):
        if number % 20 == 0:
            document.add_heading(f"Chapter {number // 20}", 1)
        document.add_paragraph(text)
    table = document.add_table(200, 5)
    for cells, values in zip(table.rows, rows, strict=False):
        for cell, value in zip(cells.cells, values, strict=True):
            cell.text = str(value)
    yield "made.docx", _saved(document.save), "python-docx", _docx

    import xlsxwriter

    def sheet(file: io.BytesIO) -> None:
        with xlsxwriter.Workbook(file) as book:
            page = book.add_worksheet("stock")
            for at, row in enumerate([header, *rows]):
                page.write_row(at, 0, row)

    yield "made.xlsx", _saved(sheet), "calamine", _calamine

    import odfdo

    written = odfdo.Document("text")
    written.body.clear()
    for number, text in enumerate(texts):
        if number % 20 == 0:
            written.body.append(odfdo.Header(1, f"Chapter {number // 20}"))
        written.body.append(odfdo.Paragraph(text))
    yield "made.odt", _saved(written.save), "odfdo", _odt

    lines = io.StringIO()
    csv.writer(lines).writerows([header, *rows])
    yield "made.csv", lines.getvalue().encode(), "csv", _csv
    records = [dict(zip(header, row, strict=True)) for row in rows]
    yield "made.json", json.dumps(records).encode(), "json", _json
    yield "made.jsonl", "\n".join(map(json.dumps, records)).encode(), "json", _json_lines
    yield (
        "made.md",
        "\n\n".join(f"## Part {n}\n\n{text}" for n, text in enumerate(texts)).encode(),
        "markdown-it",
        _markdown,
    )
    yield "made.txt", "\n\n".join(texts).encode(), "decode", bytes.decode
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["Subject"], message["From"], message["To"] = "Report", "a@example.org", "b@example.org"
    message.set_content("\n\n".join(texts))
    yield "made.eml", message.as_bytes(), "email", _email
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, text in enumerate(texts):
            archive.writestr(f"{number:04}.txt", text)
    yield "made.zip", packed.getvalue(), "zipfile", _zip


def _saved(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def _pdf(content: bytes) -> object:
    import pypdfium2

    document = pypdfium2.PdfDocument(content)
    texts = []
    for page in document:
        textpage = page.get_textpage()
        texts.append(textpage.get_text_range())
        textpage.close()
        page.close()
    document.close()
    return "\n".join(texts)


def _html(content: bytes) -> object:
    from selectolax.lexbor import LexborHTMLParser

    body = LexborHTMLParser(content).body
    return body.text(separator="\n") if body else ""


def _xml(content: bytes) -> object:
    from lxml import etree

    return "".join(etree.fromstring(content, etree.XMLParser(resolve_entities=False, load_dtd=False)).itertext())


def _epub(content: bytes) -> object:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [_html(archive.read(name)) for name in archive.namelist() if name.endswith(("html", "htm"))]


def _docx(content: bytes) -> object:
    import docx

    document = docx.Document(io.BytesIO(content))
    cells = [cell.text for table in document.tables for row in table.rows for cell in row.cells]
    return "\n".join([paragraph.text for paragraph in document.paragraphs] + cells)


def _pptx(content: bytes) -> object:
    import pptx

    slides = pptx.Presentation(io.BytesIO(content)).slides
    return "\n".join(shape.text_frame.text for slide in slides for shape in slide.shapes if shape.has_text_frame)


def _calamine(content: bytes) -> object:
    import python_calamine

    book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(content))
    return ["\t".join(map(str, row)) for name in book.sheet_names for row in book.get_sheet_by_name(name).to_python()]


def _odt(content: bytes) -> object:
    import odfdo

    return odfdo.Document(io.BytesIO(content)).get_formatted_text()


def _csv(content: bytes) -> object:
    return ["\t".join(row) for row in csv.reader(io.StringIO(content.decode()))]


def _json(content: bytes) -> object:
    return json.dumps(json.loads(content), indent=1, ensure_ascii=False)


def _json_lines(content: bytes) -> object:
    return [json.dumps(json.loads(line), indent=1, ensure_ascii=False) for line in content.splitlines()]


def _markdown(content: bytes) -> object:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table").parse(content.decode())


def _rst(content: bytes) -> object:
    from docutils.core import publish_doctree

    settings = {"report_level": 5, "halt_level": 5, "file_insertion_enabled": False, "raw_enabled": False}
    return publish_doctree(content.decode(), settings_overrides=settings).astext()


def _email(content: bytes) -> object:
    message = email.message_from_bytes(content, policy=email.policy.default)
    return message.get_body(("plain",)).get_content()  # type: ignore[union-attr]


def _zip(content: bytes) -> object:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [archive.read(name).decode() for name in archive.namelist()]
