"""Text to units - sentences, list items, table rows, code lines - each with its exact place in the text.

The answerer quotes units and the citations are made of them, so a unit is always `text[start:end]`, never a
cleaned copy. Offsets are Unicode code points, end-exclusive. Pure functions.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass

PROSE, ITEM, ROW, CODE, HEADING, RULE = "prose", "item", "row", "code", "heading", "rule"

#: A list item is one unit up to this many characters; a longer one is prose with a bullet.
LONG_ITEM = 300

_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"\s{0,3}#{1,6}(\s|$)")
_UNDERLINE = re.compile(r"\s{0,3}(=+|-+)\s*$")
_ITEM = re.compile(r"\s*(?:[-*+•‣]|\d{1,3}[.)])\s+")
_TABLE_RULE = re.compile(r"\s*\|?[\s:|+=-]*-[\s:|+=-]*$")
_TABLE_ROW = re.compile(r"\s*\||.*\s\|\s.*\s\|\s")
_MARKS = re.compile(r"[#*_`~=\s]+")

# After the stop: closing quotes and brackets, then footnote marks, belong to the sentence they follow.
_CLOSERS = "[\"'”’»)\\]}」』）】〉》*_`]*"
_STOP = re.compile(rf"(?:[。！？｡]+{_CLOSERS})|(?:[.!?…؟۔।]+{_CLOSERS}(?:\[\d{{1,3}}\])*(?=\s|$))")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"'“])(?:mr|mrs|ms|dr|prof|sr|jr|st|mt|gen|col|lt|capt|sgt|rev|hon|gov|sen|rep|no|nos|vol|fig|figs|eq|sec|ch|"
    r"pp|ed|eds|cf|ca|al|vs|etc|approx|dept|est|inc|ltd|co|corp|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|"
    r"e\.g|i\.e|a\.k\.a|u\.s|u\.k|d\.c|[a-z])\.$",
    re.IGNORECASE,
)
_ENDS_LIST = ("etc.", "inc.", "ltd.", "corp.", "u.s.", "u.k.", "d.c.", "al.", "jr.", "sr.")


@dataclass(frozen=True, slots=True)
class Unit:
    """text[start:end], without surrounding white space. kind: prose, item, row, code, heading or rule."""

    start: int
    end: int
    kind: str


def units(text: str, headings: Collection[str] = ()) -> list[Unit]:
    """The units of a text in reading order; they never overlap and only white space lies between them.

    headings: titles of the sections that the text stands in; a line that repeats one is a heading even
    without a mark, as in text that came from HTML or PDF.
    """
    known = {_plain(heading) for heading in headings if heading.strip()}
    lines = list(_lines(text))
    fence = _opened_before(text, lines)
    found: list[Unit] = []
    paragraph: list[tuple[int, int]] = []
    item: tuple[int, int] | None = None

    def flush() -> None:
        nonlocal item
        if paragraph:
            found.extend(_sentences(text, paragraph[0][0], paragraph[-1][1]))
            paragraph.clear()
        if item:
            found.extend(_item(text, *item))
            item = None

    for start, end in lines:
        line = text[start:end]
        mark = _FENCE.match(line)
        if fence is not None:
            closes = mark is not None and mark.group(1).startswith(fence) and not line[mark.end() :].strip()
            found.extend(_whole(text, start, end, RULE if closes else CODE))
            fence = None if closes else fence
        elif mark:
            flush()
            fence = mark.group(1)
            found.extend(_whole(text, start, end, RULE))
        elif not line.strip():
            flush()
        elif _HEADING.match(line) or (not paragraph and not item and _plain(line) in known):
            flush()
            found.extend(_whole(text, start, end, HEADING))
        elif _UNDERLINE.match(line) and len(paragraph) == 1:
            found.extend(_whole(text, paragraph[0][0], end, HEADING))
            paragraph.clear()
        elif _TABLE_RULE.match(line):
            flush()
            found.extend(_whole(text, start, end, RULE))
        elif _TABLE_ROW.match(line):
            flush()
            found.extend(_whole(text, start, end, ROW))
        elif _ITEM.match(line):
            flush()
            item = (start, end)
        elif item and line[:1].isspace():
            item = (item[0], end)
        else:
            if item:
                flush()
            paragraph.append((start, end))
    flush()
    return found


def sentences(text: str) -> list[tuple[int, int]]:
    """(start, end) of each sentence of running text without block structure."""
    return [(unit.start, unit.end) for unit in _sentences(text, 0, len(text))]


def around(found: list[Unit], position: int) -> int:
    """Index of the last unit that starts at or before a position; -1 when there is none."""
    return bisect_right([unit.start for unit in found], position) - 1


def _lines(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield start, end
        start = end + 1


def _opened_before(text: str, lines: list[tuple[int, int]]) -> str | None:
    """The fence in which a text begins, when it was cut out of the middle of code.

    Its first fence then ends the code: it is bare, follows a line directly, and nothing follows it directly.
    """
    for index, (start, end) in enumerate(lines):
        mark = _FENCE.match(text, start, end)
        if mark is None:
            continue
        follows = index > 0 and text[slice(*lines[index - 1])].strip()
        leads = index + 1 < len(lines) and text[slice(*lines[index + 1])].strip()
        return mark.group(1) if follows and not leads and not text[mark.end() : end].strip() else None
    return None


def _plain(line: str) -> str:
    return _MARKS.sub(" ", line).strip().casefold()


def _whole(text: str, start: int, end: int, kind: str) -> Iterator[Unit]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if end > start:
        yield Unit(start, end, kind)


def _item(text: str, start: int, end: int) -> Iterator[Unit]:
    if end - start <= LONG_ITEM:
        yield from _whole(text, start, end, ITEM)
    else:
        yield from (Unit(unit.start, unit.end, ITEM) for unit in _sentences(text, start, end))


def _sentences(text: str, start: int, end: int) -> Iterator[Unit]:
    at = start
    for stop in _STOP.finditer(text, start, end):
        if _is_end(text, at, stop.start(), stop.end(), end):
            yield from _whole(text, at, stop.end(), PROSE)
            at = stop.end()
    yield from _whole(text, at, end, PROSE)


def _is_end(text: str, start: int, stop: int, after: int, end: int) -> bool:
    """Whether a stop ends its sentence: not after an abbreviation or a lone number, nor before a lower-case
    word.
    """
    if text[stop] not in ".…":
        return True
    rest = text[after : min(end, after + 40)].lstrip()
    if not rest:
        return True
    if rest[0].islower():
        return False
    before = text[max(start, stop - 12) : stop + 1]
    if _ABBREVIATION.search(before):
        return before.lower().endswith(_ENDS_LIST) and rest[:1].isupper() and rest.split(None, 1)[0].lower() in _OPENERS
    return not re.fullmatch(r"\s*\d{1,3}\.", text[start : stop + 1])


#: Words that open a new sentence even after an abbreviation that may stand inside one ("... in the U.S. The
#: ...").
_OPENING = """
    the a an it its in on at he she they we this that these those there as for by when while after before but
    however although if since some many most all both each no his her their our one two
"""
_OPENERS = frozenset(_OPENING.split())
