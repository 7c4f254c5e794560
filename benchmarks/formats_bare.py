"""All the text of a document, in order, as one string, by the library that people use for its format.

The shortest way that gives usable text: cells as strings with rows on lines, no scripts of a page, chapters of a book
in their order, a blank or a line end between what stands apart. No headings, tables, pages or limits: that is what the
product adds. A format that no library at hand reads is missing here.
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
    return tree.body.text(separator="\n", strip=True) if tree.body else ""


def xml(content: bytes) -> str:
    root = etree.fromstring(content, etree.XMLParser(resolve_entities=False, load_dtd=False))
    return "\n".join(filter(None, (" ".join(text.split()) for text in root.itertext())))


def epub(content: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        package = next(name for name in archive.namelist() if name.endswith(".opf"))
        root = etree.fromstring(archive.read(package))
        folder = package.rpartition("/")[0]
        hrefs = {item.get("id"): item.get("href") for item in root.iter("{*}item")}
        chapters = ("/".join(filter(None, (folder, hrefs[each.get("idref")]))) for each in root.iter("{*}itemref"))
        return "\n".join(html(archive.read(chapter)) for chapter in chapters)


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
    book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(content))
    tables = (book.get_sheet_by_name(name).to_python() for name in book.sheet_names)
    return "\n".join(" | ".join(map(str, row)) for table in tables for row in table)


def open_document(content: bytes) -> str:
    return odfdo.Document(io.BytesIO(content)).get_formatted_text()


def delimited(content: bytes) -> str:
    text = content.decode()
    dialect = csv.Sniffer().sniff(text[:1024])
    return "\n".join(map(" | ".join, csv.reader(io.StringIO(text, newline=""), dialect)))


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
    return "\n".join([*head, message.get_body(("plain", "html")).get_content()])  # type: ignore[union-attr]


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
