"""Plain text, and the line formats that read well as plain text."""

from __future__ import annotations

import re

from apps.documents.parsing.encoding import decode
from apps.documents.parsing.normalise import normalise
from apps.documents.parsing.types import Block, Parsed

FINGERPRINT = "plain/2"

_SEPARATOR = re.compile(r"\n\s*\n[^\S\n]*")


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Paragraphs separated by blank lines; white space is kept as it is. The text has no title."""
    return read(decode(data, declared=(charset,)), media_type=media_type)


def read(text: str, *, media_type: str) -> Parsed:
    """The same of a text that has been decoded."""
    return read_clean(normalise(text), media_type=media_type)


def read_clean(text: str, *, media_type: str) -> Parsed:
    """The same of a text that has been normalised."""
    return Parsed(text=text, blocks=paragraphs(text), media_type=media_type, parser=FINGERPRINT)


def paragraphs(text: str, start: int = 0, end: int | None = None) -> list[Block]:
    """Paragraph blocks of `text[start:end]`, split at blank lines, offsets in the whole text."""
    end = len(text) if end is None else end
    blocks: list[Block] = []
    at = start
    for gap in _SEPARATOR.finditer(text, start, end):
        _append(blocks, text, at, gap.start())
        at = gap.end()
    _append(blocks, text, at, end)
    return blocks


def _append(blocks: list[Block], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        blocks.append(Block("paragraph", start, end))
