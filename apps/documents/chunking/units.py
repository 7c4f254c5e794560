"""Text and blocks to units: the smallest pieces a chunk is put together from.

A unit is a sentence, a list item's sentence, a line of code, a row of a table or a heading. Units ascend,
never overlap, have no white space at their ends, and cover every other character of the text. They are
generated lazily from offsets; nothing here copies the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple
from zlib import crc32

from apps.documents.parsing.types import Block

HEADING_LENGTH = 200  # characters of a heading kept in a heading path
CHARS_PER_TOKEN = 16  # a tokenizer may call a megabyte one unknown token; this many characters weigh one token
WIDE_GAP = 2048  # characters of white space that end a chunk by themselves


class Cut(IntEnum):
    """What ends where a unit ends, from the best place for a chunk to end to the worst."""

    PARAGRAPH = 0
    ITEM = 1
    SENTENCE = 2
    STANZA = 3  # a blank line inside code
    LINE = 4  # of code, or a row of a table
    CLAUSE = 5
    WORD = 6
    HARD = 7  # inside a word
    HEADING = 8  # right after a heading, which belongs to what follows


class Unit(NamedTuple):
    """`text[start:end]`, how it ends, the headings above it, and whether a chunk must start with it."""

    start: int
    end: int
    cut: Cut
    path: tuple[str, ...]
    opens: bool


_SPACE = re.compile(r"\s*")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")
_ITEM = re.compile(r"\n\s*(?=(?:[-*+•‣–]|\d{1,9}[.)])\s)")
_LINE = re.compile(r"\n\s*")
_SENTENCE = re.compile(
    # One leading set, so that the engine scans for it at full speed; everything else looks around it.
    r"[.!?…؟۔।॥。！？｡．](?:"
    # Chinese and Japanese: an end mark and closing brackets, no white space needed.
    r"(?<=[。！？｡．])[。！？｡．]*[」』”’）】〉》\])]*"
    # Latin and its neighbours: an end mark, closing quotes, white space, then no small letter ("e.g. this").
    r"|(?<!\b\w.)(?<!\bMr.)(?<!\bDr.)(?<!\bMs.)(?<!\bMrs.)(?<!\bSt.)(?<!\bvs.)(?<!\bNo.)(?<!\bFig.)"
    r"[.!?…؟۔।॥]*[\"'”’»)\]*_]*(?=\s)(?!\s+[a-zß-öø-ÿ]))"
)
_CLAUSE = re.compile(r"[,;:،؛—–](?=\s)|[、，；：]")
WORD = re.compile(r"\S+")
_GAP = re.compile(r"\s+")
_MARKS = re.compile(r"\A#{1,6}(?:\s+|\Z)|(?:(?<=\s)|\A)#+\s*\Z")
_UNDERLINE = re.compile(r"\n[^\S\n]*(?:=+|-+)\s*\Z")
_GROUP_WORDS = 16
_GROUP_ODDS = 8
LONG_WORD = 128  # characters; longer ones are data rather than words
_PIECE_ODDS = 16
_PIECE_MIN, _PIECE_MAX = 8, 48  # characters


def units(text: str, blocks: Sequence[Block], *, level: int | None = None) -> Iterator[Unit]:
    """All units of a text. Text outside the blocks is read as paragraphs; no blocks at all is fine.

    A chunk must start at every heading that begins a section with text of its own; where `level` is given, at every
    heading of that level or above, and at no other.
    """
    headings: list[tuple[int, str]] = []
    path: tuple[str, ...] = ()
    after_heading = False  # the section has nothing but headings so far
    opens = True
    cursor = 0
    for block in (*blocks, Block("paragraph", len(text), len(text))):
        for start, end, cut in _prose(text, cursor, block.start):
            yield Unit(start, end, cut, path, opens)
            opens = after_heading = False
        if block.kind == "heading":
            title = heading_text(text[block.start : min(block.end, block.start + 4 * HEADING_LENGTH)])
            depth = block.level or 1
            empty = after_heading and headings[-1][0] >= depth  # the section before has a heading and nothing else
            while headings and headings[-1][0] >= depth:
                headings.pop()
            headings.append((depth, title))
            path = tuple(name for _, name in headings)
            if level is None:
                opens = opens or not after_heading
            elif depth <= level:
                opens = opens or not after_heading or empty
            after_heading = True
            for start, end, _ in _prose(text, block.start, block.end):
                yield Unit(start, end, Cut.HEADING, path, opens)
                opens = False
        else:
            for start, end, cut in _READERS.get(block.kind, _prose)(text, block.start, block.end):
                yield Unit(start, end, cut, path, opens)
                opens = after_heading = False
        cursor = max(cursor, block.end)


def heading_text(source: str) -> str:
    """A heading's words: Markdown's # marks and underlines removed, white space collapsed, 200 characters."""
    line = _UNDERLINE.sub("", source.strip())
    return " ".join(_MARKS.sub("", line).split())[:HEADING_LENGTH]


Piece = tuple[int, int, Cut]


def _split(text: str, start: int, end: int, separator: re.Pattern[str], inner: Cut, last: Cut) -> Iterator[Piece]:
    """Pieces of `text[start:end]` between matches of `separator`; a match belongs to the piece before it."""
    at = _SPACE.match(text, start, end).end()  # type: ignore[union-attr]  # \s* always matches
    for match in separator.finditer(text, at, end):
        stop = match.end()
        if stop <= at:
            continue
        following = _SPACE.match(text, stop, end).end()  # type: ignore[union-attr]
        if following >= end:
            break
        stop = _trim(text, at, stop)
        if stop > at:
            yield at, stop, inner
        at = following
    stop = _trim(text, at, end)
    if stop > at:
        yield at, stop, last


def _trim(text: str, start: int, end: int) -> int:
    """`end` moved back over white space, in growing slices so that a megabyte of it costs one strip."""
    size = 16
    while end > start:
        low = max(start, end - size)
        tail = len(text[low:end].rstrip())
        if tail:
            return low + tail
        end, size = low, size * 4
    return end


def paragraphs(text: str, start: int, end: int) -> Iterator[Piece]:
    return _split(text, start, end, _BLANK_LINE, Cut.PARAGRAPH, Cut.PARAGRAPH)


def _prose(text: str, start: int, end: int) -> Iterator[Piece]:
    for low, high, _ in paragraphs(text, start, end):
        yield from _split(text, low, high, _SENTENCE, Cut.SENTENCE, Cut.PARAGRAPH)


def _items(text: str, start: int, end: int) -> Iterator[Piece]:
    for low, high, cut in _split(text, start, end, _ITEM, Cut.ITEM, Cut.PARAGRAPH):
        yield from _split(text, low, high, _SENTENCE, Cut.SENTENCE, cut)


def _rows(text: str, start: int, end: int) -> Iterator[Piece]:
    for low, high, cut in _split(text, start, end, _BLANK_LINE, Cut.STANZA, Cut.PARAGRAPH):
        yield from _split(text, low, high, _LINE, Cut.LINE, cut)


_READERS = {"paragraph": _prose, "list": _items, "table": _rows, "code": _rows}


def finer(text: str, start: int, end: int, last: Cut, depth: int) -> Iterator[Piece]:
    """A unit that is too long, cut smaller: clauses, groups of words, words, parts of words, halves.

    All but halves are placed by content, so an edit inside a long run moves only the cuts near it.
    """
    if depth == 0:
        yield from _split(text, start, end, _CLAUSE, Cut.CLAUSE, last)
    elif depth == 1:
        yield from _groups(text, start, end, last)
    elif depth == 2:
        yield from _split(text, start, end, _GAP, Cut.WORD, last)
    elif depth == 3:
        yield from _parts(text, start, end, last)
    else:
        middle = (start + end) // 2
        yield start, middle, Cut.HARD
        yield middle, end, last


def _groups(text: str, start: int, end: int, last: Cut) -> Iterator[Piece]:
    """Runs of up to 16 words that end after a word whose checksum is divisible by 8, or at a long word."""
    first = -1
    words = previous = 0
    for match in WORD.finditer(text, start, end):
        long = match.end() - match.start() > LONG_WORD
        if first >= 0 and long:
            yield first, previous, Cut.WORD
            first = -1
        if first < 0:
            first, words = match.start(), 0
        words += 1
        previous = match.end()
        if previous < end and (
            long or words >= _GROUP_WORDS or crc32(match.group().encode("utf-8", "replace")) % _GROUP_ODDS == 0
        ):
            yield first, previous, Cut.WORD
            first = -1
    if first >= 0:
        yield first, previous, last


def _parts(text: str, start: int, end: int, last: Cut) -> Iterator[Piece]:
    """8 to 48 characters, cut where the checksum of the four characters before is divisible by 16."""
    while end - start > _PIECE_MAX:
        stop = start + _PIECE_MIN
        window = text[start : start + _PIECE_MAX].encode("utf-32-le", "surrogatepass")
        while stop < start + _PIECE_MAX and crc32(window[(stop - start) * 4 - 16 : (stop - start) * 4]) % _PIECE_ODDS:
            stop += 1
        yield start, stop, Cut.HARD
        start = stop
    yield start, end, last
