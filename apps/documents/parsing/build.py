"""Blocks to one normalised text: what most parsers build their result with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat

from apps.documents.parsing.normalise import clean, is_printable
from apps.documents.parsing.types import MAX_NOTES, Block, Parsed

INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")  # soft hyphen, zero-width space, word joiner, stray mark
_BLANK_LINES = re.compile(r"(?:[^\S\n]*\n)*")
DEEPEST_HEADING = 6
DEEPEST_INDENT = 20  # levels; deeper ones stand below each other, so that indentation never outweighs the text
LONG_TABLE = 20  # rows
_NAME_LENGTH = 60  # characters of a column's name
_BATCH, _FEW = 32, 8  # rows
_CELL_END, _ROW_END = "\x1f", "\x1e"  # control characters, of which `clean` leaves none
_VALUE = re.compile(r"[-+(]?[\d.,:/ %$€£-]+\)?")


def inline(text: str) -> str:
    """One line of `text`: white space collapsed, what is invisible removed."""
    if is_printable(text):  # nothing to remove, and blanks are its only white space
        return squeezed(text)
    return " ".join(INVISIBLE.sub("", clean(text)).split())


def squeezed(text: str) -> str:
    """A text that has no white space but blanks, with one of them between words. Most have no more than that."""
    return " ".join(text.split()) if "  " in text else text.strip()


def is_header(row: Sequence[str]) -> bool:
    """Do the cells look like columns' names: two or more, all there, all different, short, none a number or a date?"""
    return (
        len(row) > 1
        and len(set(row)) == len(row)
        and all(cell and len(cell) <= _NAME_LENGTH and not _VALUE.fullmatch(cell) for cell in row)
    )


def _trimmed(rows: Iterable[Sequence[str]]) -> Iterator[list[str]]:
    """The rows with each cell as `inline` gives it, without empty cells at the end; [] for a row without text.

    Many rows are tidied as one string where their only white space is blanks.
    """
    coming = iter(rows)
    while batch := list(islice(coming, _BATCH)):
        text = _ROW_END.join(map(_CELL_END.join, batch))
        bare = text.replace(_CELL_END, "").replace(_ROW_END, "")
        ends = sum(max(1, len(row)) for row in batch) - 1
        if is_printable(bare) and len(text) - len(bare) == ends:  # no cell holds a mark of ours
            while "  " in text:
                text = text.replace("  ", " ")
            for end in (_CELL_END, _ROW_END):
                text = text.replace(" " + end, end).replace(end + " ", end)
            lines = text.strip(" ").split(_ROW_END)
        else:
            lines = [_CELL_END.join(map(inline, row)) for row in batch]
        for line in map(str.rstrip, lines, repeat(_CELL_END)):
            yield line.split(_CELL_END) if line else []


def _named(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of the rows, whose cells carry their columns' names ("name: "); empty cells are left out.

    Rows that are full and tidy as they are, as most are, are put together some at a time.
    """
    leads = [name + ": " for name in names]
    row_of = [part for lead in leads for part in (lead, "", " | ")]
    row_of[-1] = "\n"
    coming = iter(rows)
    while batch := list(islice(coming, _FEW)):
        cells = list(chain.from_iterable(batch))
        text = f" {' '.join(cells)} "  # two blanks in a row: an empty cell, one with blanks at an end or within it
        if "  " not in text and is_printable(text) and set(map(len, batch)) == {len(leads)}:
            parts = row_of * len(batch)
            parts[1::3] = cells
            yield "".join(parts[:-1])
            continue
        for row in filter(None, _trimmed(batch)):
            named = [lead + cell for lead, cell in zip(leads, row, strict=False) if cell]
            yield " | ".join(named + [cell for cell in row[len(leads) :] if cell])


class Builder:
    """Collects blocks, a blank line between each two, and knows where each one stands.

    `page` is given to every block that follows (from 1; a slide or a sheet is a page too). What is blank is left out.
    """

    def __init__(self) -> None:
        self.page: int | None = None
        self.notes: list[str] = []
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._at = 0

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def heading(self, text: str, level: int) -> None:
        """A heading of level 1 or deeper, on one line."""
        self.add("heading", inline(text), max(1, min(level, DEEPEST_HEADING)))

    def paragraph(self, text: str) -> None:
        """A paragraph; its lines are kept, white space within them is collapsed."""
        if is_printable(text):  # most: a line, as in `inline`
            self.add("paragraph", squeezed(text))
        else:
            self.add("paragraph", "\n".join(filter(None, map(inline, clean(text).split("\n")))))

    def code(self, text: str) -> None:
        """Lines whose white space means something."""
        text = clean(text).rstrip()
        self.add("code", text[_BLANK_LINES.match(text).end() :])  # type: ignore[union-attr]

    def items(self, items: Iterable[tuple[int, str, str]]) -> None:
        """A list: (depth from 0, marker such as "-" or "2.", text) of each item. Lines of a text stay lines of it."""
        lines = []
        for depth, marker, text in items:
            found = list(filter(None, map(inline, clean(text).split("\n"))))
            lead = "  " * min(depth, DEEPEST_INDENT) + (marker + " " if marker else "")
            lines += [lead + line if not number else " " * len(lead) + line for number, line in enumerate(found)]
        self.add("list", "\n".join(lines))

    def table(self, rows: Iterable[Sequence[str]]) -> None:
        """A table, a line per row, cells joined by " | ". Columns that are empty at the end of a row are left out.

        A table of more than LONG_TABLE rows is cut into several chunks, and a row far from the header says little: its
        cells then carry their columns' names ("price: 9.50 | stock: 4") where the first row looks like a header.
        """
        coming = iter(rows)
        first = [row for row in _trimmed(islice(coming, LONG_TABLE + 1)) if row]
        lines: Iterable[str]
        if len(first) > LONG_TABLE and is_header(first[0]):
            lines = chain([" | ".join(first[0])], _named(first[0], chain(first[1:], coming)))
        else:
            lines = map(" | ".join, chain(first, filter(None, _trimmed(coming))))
        self.add("table", "\n".join(lines))

    def note(self, text: str) -> None:
        """One sentence for the curator: what of the document could not be read, and why."""
        if text not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(text)

    def graft(self, part: Parsed, *, under: int = 0) -> None:
        """Everything of `part`, its headings `under` levels deeper: an attachment, a member of an archive."""
        if self._at:
            self._parts.append("\n\n")
            self._at += 2
        self._parts.append(part.text)
        at, whole = self._at, self.page
        self._blocks += [
            Block(
                kind,
                start + at,
                end + at,
                min(level + under, DEEPEST_HEADING) if level else 0,
                page if whole is None else whole,
            )
            for kind, start, end, level, page in part.blocks
        ]
        self._at += len(part.text)
        for text in part.notes:
            self.note(text)

    def parsed(self, *, media_type: str, parser: str, title: str | None = None) -> Parsed:
        """The result. An empty text is for the caller to report (`parse` does)."""
        title = inline(title or "")[:500] or None
        return Parsed("".join(self._parts), self._blocks, media_type, title, parser, self.notes)

    def add(self, kind: str, text: str, level: int = 0) -> None:
        """A block of text that is clean already, as it is."""
        if not text or text.isspace():
            return
        if self._at:
            self._parts.append("\n\n")
            self._at += 2
        self._parts.append(text)
        self._blocks.append(Block(kind, self._at, self._at + len(text), level, self.page))
        self._at += len(text)
