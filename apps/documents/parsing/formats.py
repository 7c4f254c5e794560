"""Which format a document is: content first, then the declared media type, then the file name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apps.documents.parsing import encoding
from apps.documents.parsing.types import ParseError

PACKAGE = "apps.documents.parsing"
WARM = (
    "pdf.document",
    "markup.html",
    "markup.markdown",
    "plain",
    "members",
)  # imported before a child's first document, others with theirs
HEAD = 1024  # bytes; ISO 32000-1, Annex H.3.4.1: readers accept a PDF header within the first 1024

_PDF = re.compile(rb"(?:\A|[\s\S])%PDF-\d")
# WHATWG MIME Sniffing, section 7.1, narrowed to tags that open a whole page: Markdown may start with a <div>.
_HTML = re.compile(
    # A comment is taken whole or not at all: a row of them tried at every `-->` takes a time that doubles with each.
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?>.*?-->)\s*)*<(?:!doctype\s+html|html|head|body)[\s>/]",
    re.IGNORECASE | re.DOTALL,
)
_XML = re.compile(r"\s*<(?:\?xml\s|!doctype\s+(?!html\b))", re.IGNORECASE)
_IMAGE = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|II\*\x00|MM\x00\*|BM[\s\S]{12}[\x0c\x28\x6c\x7c]\x00|RIFF[\s\S]{4}WEBP"
)
_MESSAGE = re.compile(
    rb"(?:[!-9;-~]{1,76}:[^\r\n]*\r?\n(?:[ \t][^\r\n]*\r?\n)*){0,40}?(?:message-id|received|mime-version|return-path):",
    re.IGNORECASE,
)
_MAILBOX = re.compile(rb"From \S{1,320} [^\r\n]{10,80}\r?\n[!-9;-~]{1,76}:")
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([\w.:-]+)", re.IGNORECASE)
_GENERIC = frozenset(
    {"application/octet-stream", "binary/octet-stream", "application/unknown", "unknown/unknown", "*/*"}
)


@dataclass(frozen=True, slots=True)
class Format:
    """One row of the registry: the module that parses it and how to recognise it.

    `container` is the module whose `identify(data)` tells what is inside, for formats that are told apart there.
    `text`: the document is characters, so that it can be sent as the `text` of a request.
    """

    label: str
    module: str
    media_types: tuple[str, ...]
    suffixes: tuple[str, ...]
    sniff: Callable[[bytes], bool] | None = None
    container: str = ""
    text: bool = False


def _is_pdf(data: bytes) -> bool:
    return data[:HEAD].lstrip(b"\xef\xbb\xbf \t\r\n\x00").startswith(b"%PDF-")


def _is_html(data: bytes) -> bool:
    return _starts(data, _HTML)


def _is_xml(data: bytes) -> bool:
    return _starts(data, _XML)


def _starts(data: bytes, pattern: re.Pattern[str]) -> bool:
    """Does the text start with markup that matches, in whatever encoding?"""
    head = data[: 2 * HEAD]
    if b"<" not in head:  # most texts: the rest takes longer than all else that is asked here
        return False
    bom = encoding.byte_order_mark(head)
    codec, skip = bom or (_wide_guess(head) or "latin-1", 0)
    return pattern.match(head[skip:].decode(codec, "ignore")) is not None


def _wide_guess(head: bytes) -> str | None:
    """UTF-16 without a mark is recognised for `<` only, the one character an HTML page starts with."""
    start = head.lstrip(b" \r\n\t\x00")[:2]
    if b"\x00" not in head[:16] or not start.startswith(b"<"):
        return None
    return "utf-16-le" if start[1:2] == b"\x00" and head[:1] != b"\x00" else "utf-16-be"


def _is_zip(data: bytes) -> bool:
    return data.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def _is_ole(data: bytes) -> bool:
    return data.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")


def _is_rtf(data: bytes) -> bool:
    return data[:64].lstrip().startswith(b"{\\rtf")


def _is_image(data: bytes) -> bool:
    return _IMAGE.match(data) is not None


def _row(label: str, module: str, media_types: str, suffixes: str, **more: Any) -> Format:
    return Format(label, module, tuple(media_types.split()), tuple(suffixes.split()), **more)


_ZIP, _OLE = "archives.zipped", "legacy.ole"
_OOXML, _ODF = "application/vnd.openxmlformats-officedocument.", "application/vnd.oasis.opendocument."

FORMATS: tuple[Format, ...] = (
    _row("PDF", "pdf.document", "application/pdf application/x-pdf", ".pdf", sniff=_is_pdf),
    _row("HTML", "markup.html", "text/html application/xhtml+xml", ".html .htm .xhtml", sniff=_is_html, text=True),
    _row("RTF", "legacy.rtf", "application/rtf text/rtf", ".rtf", sniff=_is_rtf),
    _row(
        "image",
        "image",
        "image/png image/jpeg image/tiff image/gif image/bmp image/webp",
        ".png .jpg .jpeg .tif .tiff .gif .bmp .webp",
        sniff=_is_image,
    ),
    _row(
        "Word",
        "office.docx",
        f"{_OOXML}wordprocessingml.document {_OOXML}wordprocessingml.template"
        " application/vnd.ms-word.document.macroenabled.12",
        ".docx .docm .dotx .dotm",
        container=_ZIP,
    ),
    _row(
        "PowerPoint",
        "office.pptx",
        f"{_OOXML}presentationml.presentation {_OOXML}presentationml.slideshow"
        " application/vnd.ms-powerpoint.presentation.macroenabled.12",
        ".pptx .pptm .ppsx .potx",
        container=_ZIP,
    ),
    _row(
        "Excel",
        "office.sheets",
        f"{_OOXML}spreadsheetml.sheet {_OOXML}spreadsheetml.template"
        " application/vnd.ms-excel.sheet.macroenabled.12 application/vnd.ms-excel.sheet.binary.macroenabled.12",
        ".xlsx .xlsm .xlsb .xltx",
        container=_ZIP,
    ),
    _row("OpenDocument text", "office.odf", f"{_ODF}text {_ODF}text-template", ".odt .ott", container=_ZIP),
    _row(
        "OpenDocument slides",
        "office.odf",
        f"{_ODF}presentation {_ODF}presentation-template {_ODF}graphics",
        ".odp .otp .odg",
        container=_ZIP,
    ),
    _row(
        "OpenDocument sheet",
        "office.sheets",
        f"{_ODF}spreadsheet {_ODF}spreadsheet-template",
        ".ods .ots",
        container=_ZIP,
    ),
    _row("EPUB", "archives.epub", "application/epub+zip", ".epub", container=_ZIP),
    _row("Slack export", "archives.slack", "application/x-slack-export+zip", "", container=_ZIP),
    _row(
        "ZIP archive",
        "archives.archive",
        "application/zip application/x-zip-compressed",
        ".zip",
        sniff=_is_zip,
        container=_ZIP,
    ),
    _row("Word 97", "legacy.doc", "application/msword", ".doc .dot", container=_OLE),
    _row("Excel 97", "office.sheets", "application/vnd.ms-excel", ".xls .xlt", container=_OLE),
    _row("PowerPoint 97", "legacy.ppt", "application/vnd.ms-powerpoint", ".ppt .pps", container=_OLE),
    _row("Outlook message", "mail.msg", "application/vnd.ms-outlook", ".msg", sniff=_is_ole, container=_OLE),
    _row("e-mail", "mail.eml", "message/rfc822 multipart/related", ".eml .mht .mhtml"),
    _row("mailbox", "mail.eml", "application/mbox", ".mbox .mbx"),
    _row("Markdown", "markup.markdown", "text/markdown text/x-markdown", ".md .markdown .mdown .mkd", text=True),
    _row("reStructuredText", "markup.rst", "text/x-rst text/prs.fallenstein.rst", ".rst .rest", text=True),
    _row(
        "XML",
        "markup.xml",
        "application/xml text/xml application/rss+xml application/atom+xml image/svg+xml",
        ".xml .nxml .dita .ditamap .docbook .dbk .tei .rss .atom .svg .fodt .fods .fodp .fodg .xsd .xsl .xslt .wsdl"
        " .opml .kml .gpx .xlf .xliff .tmx .rdf .plist",
        sniff=_is_xml,
        text=True,
    ),
    _row(
        "JSON",
        "data.json_text",
        "application/json application/ld+json application/geo+json",
        ".json .geojson",
        text=True,
    ),
    _row(
        "JSON lines",
        "data.json_text",
        "application/x-ndjson application/jsonl application/x-jsonlines",
        ".jsonl .ndjson",
        text=True,
    ),
    _row("Jupyter notebook", "data.notebook", "application/x-ipynb+json", ".ipynb", text=True),
    _row(
        "YAML", "data.yaml_text", "application/yaml text/yaml application/x-yaml text/x-yaml", ".yaml .yml", text=True
    ),
    _row("CSV", "data.delimited", "text/csv application/csv text/tab-separated-values", ".csv .tsv .tab", text=True),
    _row(
        "source code",
        "data.source",
        "text/css text/javascript application/javascript text/x-python text/x-c text/x-java-source application/toml"
        " application/sql text/x-sh application/x-sh",
        ".py .pyi .js .mjs .jsx .ts .tsx .vue .css .scss .java .kt .scala .groovy .c .h .cc .cpp .hpp .cs .fs .go .rs"
        " .rb .php .pl .lua .r .jl .swift .m .dart .ex .exs .erl .hs .clj .sh .bash .zsh .ps1 .bat .sql .proto"
        " .graphql .tf .toml .ini .cfg .conf .properties .cmake .gradle",
        text=True,
    ),
    _row("text", "plain", "text/plain text/x-log", ".txt .text .log .tex", text=True),
)
_PLAIN = FORMATS[-1]
_SNIFFED = tuple((fmt, fmt.sniff) for fmt in FORMATS if fmt.sniff)
_BY_TYPE = {media_type: fmt for fmt in reversed(FORMATS) for media_type in fmt.media_types}
_BY_SUFFIX = {suffix: fmt for fmt in reversed(FORMATS) for suffix in fmt.suffixes}


def by_media_type(media_type: str) -> Format | None:
    """The row of a media type, given in lower case without parameters."""
    return _BY_TYPE.get(media_type)


def known(media_type: str) -> Format:
    """The same. Raises ParseError("unsupported") where there is none."""
    if fmt := by_media_type(media_type):
        return fmt
    raise _no_parser(media_type)


def _no_parser(media_type: str) -> ParseError:
    return ParseError("unsupported", f"No parser for the media type {_shown(media_type)}.")


_DELIMITED, _MAIL, _MAILBOX_FILE = (known(each) for each in ("text/csv", "message/rfc822", "application/mbox"))


def detect(data: bytes, *, media_type: str | None, filename: str | None) -> tuple[Format, str, str | None]:
    """(format, effective media type, declared charset). The beginning of the content is enough.

    A format with a `container` is what the container is called; what it is, only its `identify` can tell. Raises
    ParseError "unsupported" when content, declaration and name together name no known format, and "corrupt" when they
    name one that the content cannot be.
    """
    declared = (media_type or "").split(";", 1)[0].strip().lower()
    charset_match = _CHARSET.search(media_type or "")
    charset = charset_match.group(1) if charset_match else None
    by_type = None if declared in _GENERIC else by_media_type(declared)
    suffix = _suffix(filename)
    by_name = _BY_SUFFIX.get(suffix)

    for fmt, sniff in _SNIFFED:
        if sniff(data):
            if fmt.container:
                called = (by_type, by_name)
                fmt = next((each for each in called if each and each.container == fmt.container), fmt)
            return fmt, declared if by_type is fmt else fmt.media_types[0], charset
    # A header further in is a PDF behind junk, or a text about PDF: believe it only if nobody says "text".
    if b"%PDF-" in data[:HEAD] and _PDF.search(data[:HEAD]) and (by_type or by_name or FORMATS[0]) is FORMATS[0]:
        return FORMATS[0], FORMATS[0].media_types[0], charset

    if by_name and (by_type is None or by_type is _PLAIN or (_has_magic(by_type) and not _has_magic(by_name))):
        # The name says more than "text/plain", or than what some systems say of .ts and .csv.
        found, effective = by_name, by_name.media_types[0]
    elif by_type:
        found, effective = by_type, declared
    elif declared and declared not in _GENERIC:
        raise _no_parser(declared)
    elif kind := encoding.binary_kind(data):
        raise ParseError("unsupported", f"The content is {kind}, which has no parser.")
    else:
        found = _undeclared(data)
        effective = found.media_types[0]
    if not _has_magic(found):
        return found, effective, charset
    if suffix in (".xls", ".xlt") and encoding.binary_kind(data) is None:  # what many programs export as "Excel"
        return _DELIMITED, "text/tab-separated-values", charset
    raise ParseError("corrupt", f"It is called {found.label} but its content is not.")


def _has_magic(fmt: Format) -> bool:
    """Can the format be told from its first bytes, so that without them it is something else?"""
    return bool(fmt.container or (fmt.sniff and not fmt.text))


def _undeclared(data: bytes) -> Format:
    """The format of a text of which nobody says what it is."""
    head = data[: 16 * HEAD]
    if _MAILBOX.match(head):
        return _MAILBOX_FILE
    return _MAIL if _MESSAGE.match(head) else _PLAIN


def _suffix(filename: str | None) -> str:
    name = (filename or "").replace("\\", "/").rpartition("/")[2].lower()
    dot = name.rfind(".")
    return name[dot:] if dot > 0 else ""


def _shown(value: str) -> str:
    """A caller's own word, made safe to repeat in a message."""
    return "'" + re.sub(r"[^\w.+/-]", "?", value)[:60] + "'"
