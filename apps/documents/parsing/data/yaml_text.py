"""YAML: the source is the text, comments and all.

It is never loaded, so that no alias can grow, no tag can make an object, and what only looks like YAML is read too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from apps.documents.parsing.data.source import cut
from apps.documents.parsing.encoding import decode
from apps.documents.parsing.normalise import normalise
from apps.documents.parsing.types import Parsed

FINGERPRINT = "yaml_text/1"

WHOLE = 2000  # characters of a document that stays one block
_DOCUMENT = re.compile(r"^---(?=\s|\Z)", re.MULTILINE)
_KEY = re.compile(
    r"""^(?:"(?:[^"\\\n]|\\.)*+"[ \t]*|'[^'\n]*'[ \t]*|[^\s#\-%\[\]{}"'&*!|>,][^\n]*?|-[^\s][^\n]*?):(?=\s|\Z)""",
    re.MULTILINE,
)
_ITEM = re.compile(r"^-(?=\s|\Z)", re.MULTILINE)


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Blocks of code: a short document each, or of a longer one each key or item that is not indented. No title."""
    text = normalise(decode(data, declared=(charset,)))
    return Parsed(text=text, blocks=cut(text, _starts(text)), media_type=media_type, parser=FINGERPRINT)


def _starts(text: str) -> Iterator[int]:
    edges = [0, *(match.start() for match in _DOCUMENT.finditer(text) if match.start()), len(text)]
    for start, end in pairwise(edges):
        if start:
            yield start
        if end - start > WHOLE:
            yield from _entries(text, start, end)


def _entries(text: str, start: int, end: int) -> Iterator[int]:
    """Where the keys of a document begin, or its items where it has no keys; comments right above one belong to it.

    Items below a key may be as little indented as the key.
    """
    pattern = _KEY if _KEY.search(text, start, end) else _ITEM
    previous = -1
    for match in pattern.finditer(text, start, end):
        if previous >= 0:
            begin = _above(text, previous, match.start())
            yield begin
        previous = match.start()


def _above(text: str, low: int, at: int) -> int:
    """`at` moved up over the lines of comment right above it, never to `low` or before."""
    while True:
        line = text.rfind("\n", low, at - 1) + 1
        if line <= low or not text.startswith("#", line):
            return at
        at = line
