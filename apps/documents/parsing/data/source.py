"""Source code of any language, kept as it is.

Its blocks end where a line without indentation follows a blank one: between functions in most languages, whichever it
is. A parser for each language would say it better and is not worth a hundred grammars.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from apps.documents.parsing.encoding import decode
from apps.documents.parsing.normalise import normalise
from apps.documents.parsing.types import Block, Parsed

FINGERPRINT = "source/1"

# A closing bracket ends what is above it; it begins nothing.
_START = re.compile(r"\n[^\S\n]*\n(?=[^\s)\]}])")
_COMMENT = re.compile(r"\s*(?:#|//|/\*|\*|--|;|%|<!--|<#|@rem\b|rem\b|'|\"\"\"|dnl\b|\Z)", re.IGNORECASE)


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """The source, in blocks of code; a licence at the top belongs to the first of them. It has no title."""
    return read_clean(normalise(decode(data, declared=(charset,))), media_type=media_type)


def read_clean(text: str, *, media_type: str) -> Parsed:
    """The same of a text that has been normalised."""
    blocks = cut(text, (match.end() for match in _START.finditer(text)))
    if len(blocks) > 1 and _is_comment(text[blocks[0].start : blocks[0].end]):
        blocks[:2] = [Block("code", blocks[0].start, blocks[1].end)]
    return Parsed(text=text, blocks=blocks, media_type=media_type, parser=FINGERPRINT)


def cut(text: str, starts: Iterable[int]) -> list[Block]:
    """Blocks of code from each of `starts` (ascending offsets of lines) to the next, without blank lines around."""
    blocks: list[Block] = []
    at = 0
    for start in (*starts, len(text)):
        piece = text[at:start]
        end = at + len(piece.rstrip())
        if end > at:
            lead = len(piece) - len(piece.lstrip())
            first = text.rfind("\n", at, at + lead) + 1
            blocks.append(Block("code", max(at, first), end))
        at = start
    return blocks


def _is_comment(text: str) -> bool:
    """Does each line look like a comment, in any language, or does the block as a whole stand in /* ... */?"""
    if text.startswith(("/*", "<!--", "{-", "(*", "<#")) and text.endswith(("*/", "-->", "-}", "*)", "#>")):
        return True
    return all(_COMMENT.match(line) for line in text.split("\n"))
