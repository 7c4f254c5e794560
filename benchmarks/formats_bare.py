"""The text of a document that retrieval can use, as one string, by the library that people use for its format.

What an engineer writes who has the library and an afternoon: lines broken where a block ends and nowhere else, cells of
a table with the names of their columns, elements of data with their own names, chapters and attachments in their order.
No headings, pages, tables as such, limits or sandbox: that is what the product adds. `NAIVE` has what is shorter still,
and gives a text with sentences cut at each link or numbers without a name. A format that no library at hand reads is
missing here.
"""

from __future__ import annotations

import csv
import email
import email.policy
import io
import json
import mailbox
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import docutils.core
import docx
import odfdo
import olefile
import pptx
import pypdfium2
import python_calamine
import yaml
from charset_normalizer import from_bytes
from lxml import etree
from markdown_it import MarkdownIt
from selectolax.lexbor import LexborHTMLParser

_RST = {"report_level": 5, "halt_level": 5, "file_insertion_enabled": False, "raw_enabled": False}
_UNSEEN = ("script", "style", "template", "noscript")
_BLOCKS = frozenset(
    "address article aside blockquote br caption dd details div dl dt fieldset figcaption figure footer form h1 h2 h3"
    " h4 h5 h6 header hr li main nav ol p pre section summary table tbody tfoot thead tr ul".split()
)
_INLINE = frozenset(  # in articles of journals (JATS)
    "bold italic sub sup sc underline xref ext-link email named-content styled-content inline-formula".split()
)


def pdf(content: bytes) -> str:
    document = pypdfium2.PdfDocument(content)
    texts = []
    for page in document:
        textpage = page.get_textpage()
        texts.append(textpage.get_text_range())
        textpage.close()
        page.close()
    document.close()
    return "\n".join(texts)


def scan(content: bytes) -> str:
    document = pypdfium2.PdfDocument(content)
    texts = []
    for page in document:
        file = io.BytesIO()
        page.render(scale=300 / 72, grayscale=True).to_pil().save(file, "PPM")
        texts.append(picture(file.getvalue()))
    return "\n".join(texts)


def picture(content: bytes) -> str:
    command = ["tesseract", "stdin", "stdout", "-l", "eng"]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "OMP_THREAD_LIMIT": "1"}
    return subprocess.run(command, input=content, capture_output=True, env=environment, check=True).stdout.decode()


def html(content: bytes) -> str:
    tree = LexborHTMLParser(content)
    tree.strip_tags(list(_UNSEEN))
    if tree.body is None:
        return ""
    parts = []
    for node in tree.body.traverse(include_text=True):
        if node.is_text_node:
            parts.append(node.text_content or "")
        elif node.tag in ("td", "th"):
            parts.append(" | ")
        elif node.tag in _BLOCKS:
            parts.append("\n")
    return _tidy("".join(parts))


def html_flat(content: bytes) -> str:
    """A line for each text node, in the middle of sentences too."""
    tree = LexborHTMLParser(content)
    tree.strip_tags(list(_UNSEEN))
    return tree.body.text(separator="\n", strip=True) if tree.body else ""


def _tidy(text: str) -> str:
    return "\n".join(filter(None, (" ".join(line.split()) for line in text.split("\n"))))


def xml_article(content: bytes) -> str:
    root = _root(content)
    for element in root.iter("*"):
        if element.tag.rpartition("}")[2] not in _INLINE:
            element.tail = "\n" + (element.tail or "")
    return _tidy("".join(root.itertext()))


def xml_records(content: bytes) -> str:
    lines = []
    for element in _root(content).iter("*"):
        text = " ".join((element.text or "").split())
        if text:
            lines.append(f"{element.tag.rpartition('}')[2]}: {text}")
        elif len(element):
            lines.append("")
    return "\n".join(lines)


def xml_flat(content: bytes) -> str:
    """A line for each text, values without the names of their elements."""
    return "\n".join(filter(None, (" ".join(text.split()) for text in _root(content).itertext())))


def _root(content: bytes) -> etree._Element:
    return etree.fromstring(content, etree.XMLParser(resolve_entities=False, load_dtd=False))


def epub(content: bytes) -> str:
    return "\n".join(map(html, _chapters(content)))


def epub_flat(content: bytes) -> str:
    return "\n".join(map(html_flat, _chapters(content)))


def _chapters(content: bytes) -> Iterator[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        package = next(name for name in archive.namelist() if name.endswith(".opf"))
        root = etree.fromstring(archive.read(package))
        folder = package.rpartition("/")[0]
        hrefs = {item.get("id"): item.get("href") for item in root.iter("{*}item")}
        for each in root.iter("{*}itemref"):
            yield archive.read("/".join(filter(None, (folder, hrefs[each.get("idref")]))))


def word(content: bytes) -> str:
    lines = []
    for part in docx.Document(io.BytesIO(content)).iter_inner_content():
        if isinstance(part, docx.table.Table):
            lines += [" | ".join(cell.text for cell in row.cells) for row in part.rows]
        else:
            lines.append(part.text)
    return "\n".join(lines)


def slides(content: bytes) -> str:
    lines = []
    for slide in pptx.Presentation(io.BytesIO(content)).slides:
        for shape in slide.shapes:
            if shape.has_text_frame:
                lines.append(shape.text_frame.text)
            elif getattr(shape, "has_table", False):
                lines += [" | ".join(cell.text for cell in row.cells) for row in shape.table.rows]
    return "\n".join(lines)


def sheets(content: bytes) -> str:
    return "\n".join(_named([_cell(value) for value in row] for row in table) for table in _tables(content))


def sheets_flat(content: bytes) -> str:
    """Rows of cells without the names of their columns; 7 is "7.0"."""
    return "\n".join(" | ".join(map(str, row)) for table in _tables(content) for row in table)


def _tables(content: bytes) -> Iterator[list[list[Any]]]:
    book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(content))
    for name in book.sheet_names:
        yield book.get_sheet_by_name(name).to_python()


def _cell(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _named(rows: Iterable[list[str]]) -> str:
    """Cells with the names of their columns, a line for each row but the first."""
    names, *others = rows
    return "\n".join(
        " | ".join([f"{name}: {cell.strip()}" for name, cell in zip(names, row, strict=False) if cell])
        for row in others
    )


def open_document(content: bytes) -> str:
    return odfdo.Document(io.BytesIO(content)).get_formatted_text()


def delimited(content: bytes) -> str:
    return _named(_csv_rows(content))


def delimited_flat(content: bytes) -> str:
    """Rows of cells without the names of their columns."""
    return "\n".join(map(" | ".join, _csv_rows(content)))


def _csv_rows(content: bytes) -> Iterator[list[str]]:
    text = content.decode()
    sample = "\n".join(text[:4096].splitlines())  # the Sniffer does not know CRLF
    return csv.reader(io.StringIO(text, newline=""), csv.Sniffer().sniff(sample, ",;\t|"))


def as_json(content: bytes) -> str:
    return json.dumps(json.loads(content), indent=1, ensure_ascii=False)


def json_lines(content: bytes) -> str:
    return "\n".join(as_json(line) for line in content.splitlines())


def notebook(content: bytes) -> str:
    texts = []
    for cell in json.loads(content)["cells"]:
        texts.append("".join(cell["source"]))
        texts += ["".join(output.get("text", ())) for output in cell.get("outputs", ())]
    return "\n\n".join(texts)


def as_yaml(content: bytes) -> str:
    return json.dumps(yaml.load(content, yaml.CSafeLoader), ensure_ascii=False)


def markdown(content: bytes) -> str:
    tokens = MarkdownIt("commonmark").enable("table").parse(content.decode())
    return "\n".join(token.content for token in tokens if token.content)


def rst(content: bytes) -> str:
    return docutils.core.publish_doctree(content.decode(), settings_overrides=_RST).astext()


def text(content: bytes) -> str:
    """As `open(path).read()` does it."""
    return io.TextIOWrapper(io.BytesIO(content), "utf-8").read()


def unknown_text(content: bytes) -> str:
    return str(from_bytes(content).best())


def mail(content: bytes) -> str:
    message = email.message_from_bytes(content, policy=email.policy.default)
    head = [f"{name}: {message[name]}" for name in ("Subject", "From", "To", "Date")]
    parts = [message.get_body(("plain", "html")), *message.iter_attachments()]
    texts = [part.get_content() for part in parts if part and part.get_content_maintype() == "text"]
    return "\n".join([*head, *texts])


def mails(content: bytes) -> str:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return "\n".join(mail(message.as_bytes()) for message in mailbox.mbox(file.name))


def outlook(content: bytes) -> str:
    with olefile.OleFileIO(content) as ole:
        texts = [name for name in ole.listdir(storages=False) if name[-1][-8:] in ("0037001F", "1000001F")]
        return "\n".join(ole.openstream(name).read().decode("utf-16-le") for name in sorted(texts))


def archive(content: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        return "\n".join(f"{name}\n{text(packed.read(name))}" for name in sorted(packed.namelist()))


def slack(content: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        users = {user["id"]: user["name"] for user in json.loads(packed.read("users.json"))}
        days = (name for name in sorted(packed.namelist()) if "/" in name)
        found = (each for day in days for each in json.loads(packed.read(day)))
        return "\n".join(f"{users[each['user']]}: {each['text']}" for each in found)


NAIVE: dict[Callable[[bytes], object], Callable[[bytes], object]] = {
    html: html_flat,
    epub: epub_flat,
    xml_article: xml_flat,
    xml_records: xml_flat,
    sheets: sheets_flat,
    delimited: delimited_flat,
}
