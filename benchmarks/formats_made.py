"""Documents of a few hundred kilobytes to measure reading with, for the formats of which no real one is that large."""

from __future__ import annotations

import csv
import email.message
import email.policy
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from random import Random
from xml.sax.saxutils import escape

import docx
import odfdo
import pptx
import xlsxwriter
import yaml

from tests.support.compound import compound

from .corpus import QUESTIONS, passages

Cells = list[list[str | int]]
TEXTS = passages(1_500)
HEADER = ["name", "price", "number", "in stock", "remark"]


def _rows() -> Cells:
    dice = Random(3)
    return [
        [f"item {n}", f"{dice.random() * 100:.2f}", n, dice.choice(("yes", "no")), TEXTS[n % 1_500][:60].strip()]
        for n in range(5_000)
    ]


ROWS: Cells = _rows()
RECORDS = [dict(zip(HEADER, row, strict=True)) for row in ROWS]


def documents() -> Iterator[tuple[str, bytes]]:
    """(file name, content)"""
    yield "made.docx", _docx()
    yield "made.pptx", _pptx()
    yield "made.xlsx", _xlsx()
    yield "made.xls", _xls()
    yield "made.odt", _odt()
    yield "made.ods", _ods()
    yield "made.csv", _csv()
    yield "made.json", json.dumps(RECORDS).encode()
    yield "made.jsonl", "\n".join(map(json.dumps, RECORDS)).encode()
    yield "made.yaml", yaml.dump(RECORDS[:1_500], Dumper=yaml.CSafeDumper, sort_keys=False).encode()
    yield "made.ipynb", _notebook()
    yield "records.xml", _xml()
    yield "made.md", "\n\n".join(f"## Part {n}\n\n{text}" for n, text in enumerate(TEXTS)).encode()
    yield "made.rtf", _rtf()
    yield "made.txt", "\n\n".join(TEXTS).encode()
    yield "utf-16.txt", "\n\n".join(TEXTS).encode("utf-16")
    yield "cp1252.txt", "\n\n".join(TEXTS).replace("e", "é").encode("cp1252", "ignore")
    for name, folder, prefix, codec in (
        ("cp1251.txt", "xquad", "ru", "cp1251"),
        ("shift_jis.txt", "jaquad_train", "", "cp932"),
        ("big5.txt", "drcd_dev", "", "big5hkscs"),
    ):
        if texts := _other(folder, prefix):
            yield name, "\n\n".join(texts).encode(codec, "ignore")
    yield "made.eml", _mail("\n\n".join(TEXTS)).as_bytes()
    yield (
        "made.mbox",
        b"\n".join(b"From a@example.org Thu Jan  1 12:00:00 2026\n" + _sent(text) for text in TEXTS[:500]),
    )
    yield "made.msg", _msg()
    yield "made.zip", _zip({f"{number:04}.txt": text for number, text in enumerate(TEXTS)})
    yield "slack.zip", _slack()


def _saved(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def _zip(files: dict[str, str]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def _other(folder: str, prefix: str) -> list[str]:
    corpus = QUESTIONS.parent / folder / "corpus.jsonl"
    rows = map(json.loads, corpus.read_text().splitlines()) if corpus.exists() else ()
    return [row["text"] for row in rows if row["id"].startswith(prefix)][:600]


def _docx() -> bytes:
    document = docx.Document()
    for number, text in enumerate(TEXTS):
        if number % 20 == 0:
            document.add_heading(f"Chapter {number // 20}", 1)
        document.add_paragraph(text)
    table = document.add_table(200, 5)
    for cells, values in zip(table.rows, ROWS, strict=False):
        for cell, value in zip(cells.cells, values, strict=True):
            cell.text = str(value)
    return _saved(document.save)


def _pptx() -> bytes:
    deck = pptx.Presentation()
    for number, text in enumerate(TEXTS[:100]):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = f"Slide {number}", text.replace(". ", ".\n")
    return _saved(deck.save)


def _xlsx() -> bytes:
    def write(file: io.BytesIO) -> None:
        with xlsxwriter.Workbook(file) as book:
            page = book.add_worksheet("stock")
            for at, row in enumerate([HEADER, *ROWS]):
                page.write_row(at, 0, row)

    return _saved(write)


def _xls() -> bytes:
    """BIFF8 with labels and numbers only (MS-XLS 2.4.21, 2.4.28, 2.4.148, 2.4.180)."""

    def record(kind: int, data: bytes = b"") -> bytes:
        return struct.pack("<HH", kind, len(data)) + data

    def cell(at: int, column: int, value: str | int) -> bytes:
        place = struct.pack("<HHH", at, column, 0)
        if isinstance(value, int):
            return record(0x203, place + struct.pack("<d", value))
        return record(0x204, place + struct.pack("<HB", len(value), 1) + value.encode("utf-16-le"))

    begin = record(0x809, struct.pack("<HH12x", 0x600, 5))
    sheet = struct.pack("<IBBBB", len(begin) + 4 + 8 + 5 + 4, 0, 0, 5, 0) + b"stock"
    cells = b"".join(
        cell(at, column, value) for at, row in enumerate([HEADER, *ROWS]) for column, value in enumerate(row)
    )
    page = record(0x809, struct.pack("<HH12x", 0x600, 0x10)) + cells + record(0x0A)
    return compound({"Workbook": begin + record(0x85, sheet) + record(0x0A) + page})


def _odt() -> bytes:
    document = odfdo.Document("text")
    document.body.clear()
    for number, text in enumerate(TEXTS):
        if number % 20 == 0:
            document.body.append(odfdo.Header(1, f"Chapter {number // 20}"))
        document.body.append(odfdo.Paragraph(text))
    return _saved(document.save)


def _ods() -> bytes:
    document = odfdo.Document("spreadsheet")
    document.body.clear()
    table = odfdo.Table("stock")
    for values in [HEADER, *ROWS]:
        row = odfdo.Row()
        row.set_values(values)
        table.append_row(row)
    document.body.append(table)
    return _saved(document.save)


def _csv() -> bytes:
    lines = io.StringIO()
    csv.writer(lines).writerows([HEADER, *ROWS])
    return lines.getvalue().encode()


def _notebook() -> bytes:
    cells = []
    for number, text in enumerate(TEXTS[:400]):
        output = {"output_type": "stream", "name": "stdout", "text": [f"{row}\n" for row in ROWS[number * 3 :][:3]]}
        cells.append({"cell_type": "markdown", "metadata": {}, "source": [f"## Step {number}\n", "\n", text]})
        code = [f"for row in rows[{number}:]:\n", "    print(row)\n"]
        cells.append({"cell_type": "code", "metadata": {}, "source": code, "outputs": [output]})
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


def _xml() -> bytes:
    names = [name.replace(" ", "-") for name in HEADER]
    items = (
        "  <item>\n"
        + "".join(f"    <{n}>{escape(str(v))}</{n}>\n" for n, v in zip(names, row, strict=True))
        + "  </item>\n"
        for row in ROWS
    )
    return ("<?xml version='1.0' encoding='utf-8'?>\n<stock>\n" + "".join(items) + "</stock>\n").encode()


def _rtf() -> bytes:
    escaped = "".join(
        char if char.isascii() else f"\\u{ord(char)}?" for char in "\\par\n".join(TEXTS) if ord(char) < 32768
    )
    return b"{\\rtf1\\ansi{\\fonttbl{\\f0 Times;}}\\f0\\fs24\n" + escaped.encode() + b"\\par}"


def _mail(text: str) -> email.message.EmailMessage:
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["Subject"], message["From"], message["To"] = "Report", "a@example.org", "b@example.org"
    message["Date"] = "Thu, 1 Jan 2026 12:00:00 +0000"
    message.set_content(text)
    return message


def _sent(text: str) -> bytes:
    return _mail(text).as_bytes().replace(b"\r\n", b"\n")


def _msg() -> bytes:
    properties = {0x0037: "Report", 0x1000: "\r\n\r\n".join(TEXTS), 0x0C1A: "Ann", 0x0E04: "Bob"}
    streams, table = {}, bytes(32)
    for number, value in properties.items():
        raw = value.encode("utf-16-le")
        streams[f"__substg1.0_{number:04X}001F"] = raw
        table += struct.pack("<HHIII", 0x1F, number, 6, len(raw), 0)
    return compound({"__properties_version1.0": table, **streams})


def _slack() -> bytes:
    noon = 1_577_880_000  # 2020-01-01 12:00 UTC
    files: dict[str, object] = {
        "users.json": [{"id": "U1", "name": "ann"}, {"id": "U2", "name": "ben"}],
        "channels.json": [{"id": "C1", "name": "general"}],
    }
    for day in range(20):
        files[f"general/2020-01-{day + 1:02}.json"] = [
            {
                "type": "message",
                "user": f"U{1 + n % 2}",
                "text": TEXTS[day * 60 + n],
                "ts": f"{noon + day * 86_400 + n}.0001",
            }
            for n in range(60)
        ]
    return _zip({name: json.dumps(content) for name, content in files.items()})
