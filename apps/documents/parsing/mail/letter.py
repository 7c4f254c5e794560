"""What e-mail files and Outlook messages have in common: a head, a body as text or as HTML, attachments."""

from __future__ import annotations

import re
from collections.abc import Iterable

from apps.documents.parsing import plain
from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.markup import html
from apps.documents.parsing.normalise import normalise
from apps.documents.parsing.types import ParseError

MAX_ATTACHMENTS = 1000

_STRUCTURE = re.compile(r"<(?:h[1-6]|table|ul|ol)[\s>]", re.IGNORECASE)
_SEE_HTML = re.compile(r"\b(?:html|browser)\b", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]{4,}")
_LACKING = 1  # words; one may be cut by a tag in the HTML, or broken in the text
_STAND_IN = 300  # characters; a longer plain text is the message itself
_QUOTES = re.compile(r">*")


def head(built: Builder, fields: Iterable[tuple[str, str]], *, subject: str, level: int) -> None:
    """The subject as a heading, and (name, value) of the fields that are there as the lines of one paragraph."""
    built.heading(subject, level)
    built.paragraph("\n".join(f"{name}: {inline(value)}" for name, value in fields if inline(value)))


def is_bare(built: Builder, fields: Iterable[tuple[str, str]], *, subject: str) -> bool:
    """Does a message consist of its head alone, without even a subject?"""
    alone = Builder()
    head(alone, fields, subject="", level=1)
    text = alone.parsed(media_type="", parser="").text
    return not inline(subject) and built.parsed(media_type="", parser="").text == text


def prefers_html(text: str, markup: str) -> bool:
    """Of two forms of the same message: is the HTML the better one, because the text is only a hint at it or because
    it has headings, lists or tables, which the text cannot have, and lacks no words of the text?"""
    stripped = text.strip()
    if not stripped or (len(stripped) < _STAND_IN and _SEE_HTML.search(stripped)):
        return True
    if _STRUCTURE.search(markup) is None:
        return False
    return len(set(_WORD.findall(text)) - set(_WORD.findall(markup))) <= _LACKING


def add_text(built: Builder, text: str) -> bool:
    """The body as plain text, its lines and quotes as they are. Returns whether there was any."""
    text = normalise(text, trim=True, collapse=True).strip("\n")
    if not text or text.isspace():
        return False
    built.graft(plain.read_clean(text.removeprefix("\ufeff"), media_type="text/plain"))  # a mark below blank lines
    return True


def add_html(built: Builder, markup: bytes, *, charset: str | None, level: int) -> bool:
    """The body as HTML, its headings below `level`. Returns whether there was any text in it."""
    try:
        page = html.parse(markup, media_type="text/html", charset=charset)
    except ParseError as error:
        if error.code != "empty":
            built.note(f"The HTML of the message was left out: {error.detail}")
        return False
    if page.blocks:
        built.graft(page, under=level)
    return bool(page.blocks)


def unflowed(text: str, *, delete_space: bool) -> str:
    """Lines that a mail program broke, whole again (RFC 3676, 4.2)."""
    lines: list[str] = []
    open_quotes = -1  # depth of the line that goes on
    for line in text.replace("\r\n", "\n").split("\n"):
        quotes = len(_QUOTES.match(line)[0])  # type: ignore[index]
        content = line[quotes:].removeprefix(" ")
        if quotes == open_quotes and content != "-- ":
            lines[-1] = (lines[-1][:-1] if delete_space else lines[-1]) + content
        else:
            lines.append((">" * quotes + " " if quotes else "") + content)
        open_quotes = quotes if content.endswith(" ") and content != "-- " else -1
    return "\n".join(lines)
