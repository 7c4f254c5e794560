"""Which format a document is: content first, then the declared media type, then the file name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from apps.documents.parsing import encoding
from apps.documents.parsing.types import ParseError

PACKAGE = "apps.documents.parsing"
HEAD = 1024  # bytes; ISO 32000-1, Annex H.3.4.1: readers accept a PDF header within the first 1024

_PDF = re.compile(rb"(?:\A|[\s\S])%PDF-\d")
# WHATWG MIME Sniffing, section 7.1, narrowed to tags that open a whole page: Markdown may start with a <div>.
_HTML = re.compile(
    # A comment is taken whole or not at all: a row of them tried at every `-->` takes a time that doubles with each.
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?>.*?-->)\s*)*<(?:!doctype\s+html|html|head|body)[\s>/]",
    re.IGNORECASE | re.DOTALL,
)
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([\w.:-]+)", re.IGNORECASE)
_GENERIC = frozenset(
    {"application/octet-stream", "binary/octet-stream", "application/unknown", "unknown/unknown", "*/*"}
)


@dataclass(frozen=True, slots=True)
class Format:
    """One row of the registry: the module that parses it and the three ways to recognise it."""

    label: str
    module: str
    media_types: tuple[str, ...]
    suffixes: tuple[str, ...]
    sniff: Callable[[bytes], bool] | None = None


def _is_pdf(data: bytes) -> bool:
    return data[:HEAD].lstrip(b"\xef\xbb\xbf \t\r\n\x00").startswith(b"%PDF-")


def _is_html(data: bytes) -> bool:
    head = data[: 2 * HEAD]
    if b"<" not in head:  # most texts: the rest takes longer than all else that is asked here
        return False
    bom = encoding.byte_order_mark(head)
    codec, skip = bom or (_wide_guess(head) or "latin-1", 0)
    return _HTML.match(head[skip:].decode(codec, "ignore")) is not None


def _wide_guess(head: bytes) -> str | None:
    """UTF-16 without a mark is recognised for `<` only, the one character an HTML page starts with."""
    start = head.lstrip(b" \r\n\t\x00")[:2]
    if b"\x00" not in head[:16] or not start.startswith(b"<"):
        return None
    return "utf-16-le" if start[1:2] == b"\x00" and head[:1] != b"\x00" else "utf-16-be"


FORMATS: tuple[Format, ...] = (
    Format("PDF", "pdf", ("application/pdf", "application/x-pdf"), (".pdf",), _is_pdf),
    Format("HTML", "html", ("text/html", "application/xhtml+xml"), (".html", ".htm", ".xhtml"), _is_html),
    Format("Markdown", "markdown", ("text/markdown", "text/x-markdown"), (".md", ".markdown", ".mdown", ".mkd")),
    Format(
        "text",
        "plain",
        (
            "text/plain",
            "text/csv",
            "text/tab-separated-values",
            "text/x-log",
            "text/x-rst",
            "application/json",
            "application/x-ndjson",
            "application/yaml",
            "text/yaml",
            "text/x-python",
            "text/css",
            "text/javascript",
        ),
        (
            ".txt",
            ".text",
            ".log",
            ".csv",
            ".tsv",
            ".rst",
            ".json",
            ".jsonl",
            ".ndjson",
            ".yaml",
            ".yml",
            ".toml",
            ".ini",
            ".cfg",
            ".py",
            ".js",
            ".ts",
            ".java",
            ".c",
            ".h",
            ".cpp",
            ".go",
            ".rs",
            ".rb",
            ".sh",
            ".sql",
            ".tex",
        ),
    ),
)
_PLAIN = FORMATS[-1]


def detect(data: bytes, *, media_type: str | None, filename: str | None) -> tuple[Format, str, str | None]:
    """(format, effective media type, declared charset).

    Raises ParseError("unsupported") when content, declaration and name together name no known format.
    """
    declared = (media_type or "").split(";", 1)[0].strip().lower()
    charset_match = _CHARSET.search(media_type or "")
    charset = charset_match.group(1) if charset_match else None
    suffix = _suffix(filename)
    by_type = next((fmt for fmt in FORMATS if declared in fmt.media_types), None)
    by_name = next((fmt for fmt in FORMATS if suffix in fmt.suffixes), None)

    for fmt in FORMATS:
        if fmt.sniff and fmt.sniff(data):
            return fmt, declared if by_type is fmt else fmt.media_types[0], charset
    # A header further in is a PDF behind junk, or a text about PDF: believe it only if nobody says "text".
    if b"%PDF-" in data[:HEAD] and _PDF.search(data[:HEAD]) and (by_type or by_name or FORMATS[0]) is FORMATS[0]:
        return FORMATS[0], FORMATS[0].media_types[0], charset

    if declared and declared not in _GENERIC:
        if by_type is None:
            raise ParseError("unsupported", f"No parser for the media type {_shown(declared)}.")
        if by_type is _PLAIN and declared == "text/plain" and by_name is not None and by_name.module == "markdown":
            by_type = by_name  # many clients send text/plain for .md; the text is the same either way
            declared = by_name.media_types[0]
        return by_type, declared, charset
    if by_name is not None:
        return by_name, by_name.media_types[0], charset
    if kind := encoding.binary_kind(data):
        raise ParseError("unsupported", f"The content is {kind}, which has no parser.")
    if suffix:
        raise ParseError("unsupported", f"No parser for the file suffix {_shown(suffix)}.")
    return _PLAIN, "text/plain", charset


def _suffix(filename: str | None) -> str:
    name = re.split(r"[/\\]", filename or "")[-1].lower()
    dot = name.rfind(".")
    return name[dot:] if dot > 0 else ""


def _shown(value: str) -> str:
    """A caller's own word, made safe to repeat in a message."""
    return "'" + re.sub(r"[^\w.+/-]", "?", value)[:60] + "'"
