"""Word 97-2003 to text: [MS-DOC] read over olefile.

No light and well-kept library reads these files right: what there is either guesses the encoding instead of reading the
piece table or glues paragraphs together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from apps.documents.parsing.legacy.doc_file import (
    BOX_ANCHORS,
    BOXES,
    COMMENT_REFS,
    COMMENTS,
    ENDNOTE_REFS,
    ENDNOTES,
    FOOTNOTE_REFS,
    FOOTNOTES,
    WordFile,
)
from apps.documents.parsing.legacy.doc_lists import Lists
from apps.documents.parsing.legacy.doc_properties import Paragraph
from apps.documents.parsing.legacy.flow import Flow
from apps.documents.parsing.legacy.ole import open_ole
from apps.documents.parsing.legacy.summary import title_of
from apps.documents.parsing.types import Parsed

FINGERPRINT = "doc/1"

_END = re.compile("[\r\x07\x0c]")
_FIELD = re.compile("[\x13\x14\x15]")
_BUTTON = re.compile(r"\s*(?:MACRO|GOTO)BUTTON\s+\S+\s+([^\x13-\x15]*)", re.IGNORECASE)
_READING_AID = re.compile(r"\s*EQ\s[^()]*\(\s*\\s\s*\\up\s*\d+\s*\([^()]*\)\s*[,;]([^()]*)\)\s*\Z", re.IGNORECASE)
_MARKS = re.compile("[\r\x07\x0c]")
_DAMAGED = "The properties of the text are damaged: headings, lists and tables are missing."


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Main text with notes, comments and text boxes after the paragraphs they belong to; no headers and footers.

    Hidden and deleted text and fields' instructions are left out. Of Word 6 and 95 files the text alone is read. Raises
    ParseError: "encrypted", "corrupt".
    """
    with open_ole(data) as ole:
        word = WordFile(ole)
        title = title_of(ole)
    if not word.old:
        try:
            word.load_properties()
            text = _without(word.text, word.edits())
        except Exception:  # a table of the file leads anywhere; the text does not depend on it
            word.notes.append(_DAMAGED)
            text = word.text
    else:
        text = word.text
    text = _without(text, _instructions(text, word))
    built = _read(word, text).finish()
    for note in word.notes:
        built.note(note)
    return built.parsed(media_type=media_type, parser=FINGERPRINT, title=title)


def _without(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    """`text` with the edits made; of two that overlap the later one only counts behind the first."""
    parts: list[str] = []
    at = 0
    for start, end, instead in sorted(edits, key=lambda edit: edit[:2]):
        if end <= at:
            continue
        parts += (text[at : max(start, at)], instead[max(0, at - start) :])
        at = end
    return "".join((*parts, text[at:]))


def _instructions(text: str, word: WordFile) -> Iterator[tuple[int, int, str]]:
    """Fields' instructions: from the mark that begins a field to the one before its result, or to its end."""
    for part in word.lengths:
        start, end = word.part(part)
        open_at: list[int] = []
        for mark in _FIELD.finditer(text, start, end):
            at = mark.start()
            if mark.group() == "\x13":
                open_at.append(at)
            elif open_at and mark.group() == "\x14":
                begun, open_at[-1] = open_at[-1], at
                yield begun, at, "\0" * (at - begun)
            elif open_at:
                begun = open_at.pop()
                if text[begun] == "\x13":
                    shown = _shown(text[begun + 1 : min(at, begun + 500)])
                    yield begun, at, shown.ljust(at - begun, "\0")


def _shown(instruction: str) -> str:
    """What a field without a result shows: the words of a button, the characters that a reading aid stands over."""
    if found := _BUTTON.match(instruction) or _READING_AID.match(instruction):
        return found.group(1)
    return ""


def _read(word: WordFile, text: str) -> Flow:
    flow, lists = Flow(), Lists(word)
    beside = sorted(_beside(word, text), key=lambda each: each[0])
    beside.reverse()  # so that the next one is popped from the end
    begun, end = word.part("text")
    after_cell = False
    for mark in _END.finditer(text, begun, end):
        at = mark.start()
        while beside and beside[-1][0] <= at:
            flow.later(beside.pop()[1])
        body = _line(text[begun:at])
        begun = at + 1
        paragraph = word.paragraph_at(at)
        if mark.group() == "\x07":
            _cell(flow, body, paragraph, after_cell)
            after_cell = not after_cell or bool(body)
            continue
        after_cell = False
        if paragraph is None:
            flow.paragraph(body)
            continue
        marker = ""
        if paragraph.list_id and body.strip("\0\n \t"):
            marker = lists.marker(paragraph.list_id, paragraph.list_level)
        if paragraph.in_table:
            flow.cell_paragraph(body, marker=marker)
        else:
            flow.paragraph(body, level=paragraph.level, depth=paragraph.list_level, marker=marker)
    flow.paragraph(_line(text[begun:end]))
    for _, each in reversed(beside):
        flow.later(each)
    return flow


def _line(text: str) -> str:
    """A paragraph: its own hyphen for one that does not break, a new line for a new column."""
    return text.replace("\x1e", "-").replace("\x0e", "\n")


def _lines(text: str) -> str:
    """Several paragraphs as lines."""
    return _line(_MARKS.sub("\n", text))


def _cell(flow: Flow, body: str, paragraph: Paragraph | None, after_cell: bool) -> None:
    """The mark of a cell or of a row. Where nothing tells which, an empty cell behind a cell is a row's end."""
    if paragraph.row_end if paragraph else after_cell and not body:
        flow.end_row()
    else:
        flow.cell_paragraph(body)
        flow.end_cell()


def _beside(word: WordFile, text: str) -> list[tuple[int, str]]:
    """(CP in the main text, text) of notes, comments and text boxes."""
    found: list[tuple[int, str]] = []
    for part, refs, size, texts, lead in (
        ("footnotes", FOOTNOTE_REFS, 2, FOOTNOTES, ""),
        ("endnotes", ENDNOTE_REFS, 2, ENDNOTES, ""),
        ("comments", COMMENT_REFS, 30, COMMENTS, "Comment: "),
    ):
        start, end = word.part(part)
        if start == end:
            continue
        places, bounds = word.plc(refs, size)[0], word.plc(texts, 0)[0]
        found += _placed(text[start:end], places[:-1], bounds, lead)
    start, end = word.part("boxes")
    if start < end:
        anchors = {data[:4]: place for place, data in zip(*word.plc(BOX_ANCHORS, 26), strict=False)}
        bounds, shapes = word.plc(BOXES, 22)
        places = [anchors.get(shape[14:18], len(text)) for shape in shapes]
        found += _placed(text[start:end], places, bounds, "")
    return found


def _placed(text: str, places: list[int], bounds: list[int], lead: str) -> list[tuple[int, str]]:
    """Each piece of `text` between two bounds with its place; what no bounds reach comes at the end."""
    found, reached = [], 0
    for place, start, end in zip(places, bounds, bounds[1:], strict=False):
        if start < reached or end < start or end > len(text):
            break
        if piece := _lines(text[start:end]).strip("\0\n \t\x02\x05"):
            found.append((place, lead + piece))
        reached = end
    if rest := _lines(text[reached:]).strip("\0\n \t\x02\x05"):
        found.append((0x7FFFFFFF, lead + rest))
    return found
