"""The records of a PowerPoint 97-2003 file ([MS-PPT] 2.3.1): where they stand and what texts they hold."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAX_DEPTH = 24  # containers in containers; groups of shapes nest

DOCUMENT, SLIDE, NOTES, SLIDE_ATOM, NOTES_ATOM = 0x03E8, 0x03EE, 0x03F0, 0x03EF, 0x03F1
PERSIST_ATOM, DRAWING, SLIDE_LIST, PERSIST_DIRECTORY, USER_EDIT = 0x03F3, 0x040C, 0x0FF0, 0x1772, 0x0FF5
TEXT_HEADER, TEXT_CHARS, TEXT_BYTES, TEXT_STYLE, OUTLINE_REF = 0x0F9F, 0x0FA0, 0x0FA8, 0x0FA1, 0x0F9E
CSTRING, TAGS, COMMENT = 0x0FBA, 0x1388, 0x2EE0
GROUP, SHAPE, TEXTBOX, CHILD_ANCHOR, MORE_OPTIONS = 0xF003, 0xF004, 0xF00D, 0xF00F, 0xF122
META_CHARACTERS = frozenset({0x0FD8, 0x0FF7, 0x0FF8, 0x0FF9, 0x0FFA, 0x1015})  # date, slide number, footer ...
TITLES, NOTE_TEXT, LISTS = frozenset({0, 6}), 2, frozenset({1, 7, 8})  # TextTypeEnum (2.13.33)

_BINARY_TAG = 0x138B  # holds records though its header does not say so


@dataclass(frozen=True, slots=True)
class Record:
    """One record; its content stands from `start` to `end` in the stream."""

    type: int
    instance: int
    container: bool
    start: int
    end: int


@dataclass(slots=True)
class Text:
    """One text of a slide: what it is for, its characters, and how deep each paragraph is indented."""

    kind: int
    characters: str = ""
    depths: tuple[tuple[int, int], ...] = ()  # (number of characters, depth)

    def paragraphs(self) -> Iterator[tuple[int, str]]:
        """(depth, text) of each paragraph; a line break inside one is a newline."""
        at, runs = 0, iter(self.depths)
        until, depth = 0, 0
        for paragraph in self.characters.split("\r"):
            while at >= until and (run := next(runs, None)) is not None:
                until, depth = until + run[0], run[1]
            yield depth, paragraph.replace("\x0b", "\n")
            at += len(paragraph) + 1


def records(data: bytes, start: int, end: int) -> Iterator[Record]:
    """The records that stand one after another from `start` to `end`; one that runs over the end is cut there."""
    while start + 8 <= end:
        version, kind, length = struct.unpack_from("<HHI", data, start)
        start += 8
        container = version & 0xF == 0xF or kind == _BINARY_TAG
        yield Record(kind, version >> 4, container, start, min(start + length, end))
        start += length


def children(data: bytes, parent: Record) -> Iterator[Record]:
    return records(data, parent.start, parent.end)


def first(data: bytes, parent: Record, kind: int) -> Record | None:
    """The first child of this type."""
    return next((child for child in children(data, parent) if child.type == kind), None)


def descendants(data: bytes, parent: Record, kind: int, depth: int = 0) -> Iterator[Record]:
    """Records of this type inside `parent`, at most MAX_DEPTH deep."""
    for child in children(data, parent):
        if child.type == kind:
            yield child
        elif child.container and depth < MAX_DEPTH:
            yield from descendants(data, child, kind, depth + 1)


def texts(data: bytes, atoms: Iterator[Record]) -> Iterator[Text]:
    """The texts of a row of atoms: each starts with a header that says what it is for."""
    text: Text | None = None
    dropped: list[int] = []
    for atom in atoms:
        if atom.type == TEXT_HEADER or (text is None and atom.type in (TEXT_CHARS, TEXT_BYTES)):
            if text is not None:
                yield _without(text, dropped)
            kind = _number(data, atom) if atom.type == TEXT_HEADER else 4
            text, dropped = Text(kind), []
        if text is None:
            continue
        content = data[atom.start : atom.end]
        if atom.type == TEXT_CHARS:
            text.characters = content[: len(content) & ~1].decode("utf-16-le", "surrogatepass")
        elif atom.type == TEXT_BYTES:
            text.characters = content.decode("latin-1")
        elif atom.type == TEXT_STYLE:
            text.depths = tuple(_depths(content, len(text.characters) + 1))
        elif atom.type in META_CHARACTERS:
            dropped.append(_number(data, atom))
    if text is not None:
        yield _without(text, dropped)


def _without(text: Text, dropped: list[int]) -> Text:
    """Without the characters in whose place a date or a number is shown."""
    for at in dropped:
        if at < len(text.characters) and text.characters[at] == "*":
            text.characters = text.characters[:at] + "\0" + text.characters[at + 1 :]
    return text


def _number(data: bytes, atom: Record) -> int:
    return int.from_bytes(data[atom.start : min(atom.start + 4, atom.end)], "little")


def _depths(style: bytes, characters: int) -> Iterator[tuple[int, int]]:
    """(number of characters, indent level) of each run of paragraphs in a StyleTextPropAtom (2.9.44, 2.9.20)."""
    at = 0
    while characters > 0 and at + 10 <= len(style):
        count, depth, mask = struct.unpack_from("<IHI", style, at)
        if not count:
            return
        yield count, min(depth, 4)
        characters -= count
        at += 10 + 2 * bool(mask & 0xF)
        at += sum(2 for bit in (4, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 21) if mask >> bit & 1)
        at += 4 * bool(mask & 0x20) + 2 * bool(mask & 0xE0000)
        if mask & 0x100000:
            at += 2 + 4 * int.from_bytes(style[at : at + 2], "little")
