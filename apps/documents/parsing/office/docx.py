"""Word documents (.docx, .docm, .dotx): the body in order, then what hangs on its paragraphs.

python-docx opens neither the strict dialect nor a package with a missing part, and gives no footnotes, text boxes or
tracked changes; the parts are read with lxml instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from apps.documents.parsing import parse as parse_part
from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.office.docx_styles import Numbering, Style, Styles, list_of, outline_level
from apps.documents.parsing.office.docx_text import Hanging, Words
from apps.documents.parsing.office.drawing import add_chart, add_diagram
from apps.documents.parsing.office.ooxml import MC, Element, Package, R, W, chosen, is_on
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "docx/1"

LONGEST_HEADING = 400  # characters; more is body text that was given a heading's style
MAX_SPAN = 63  # columns of a Word table

_TRANSPARENT = frozenset(W + name for name in ("ins", "moveTo", "smartTag", "customXml"))


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Headers, body, footers; notes, comments and text boxes after the paragraph, list or table that they belong to.

    Headings are what has an outline level, by itself or by its style. Raises ParseError("corrupt").
    """
    built = Builder()
    package = Package(data, built)
    name, root = package.main("word/document.xml")
    body = root.find(W + "body")
    if body is None:
        raise ParseError("corrupt", "The Word document has no body.")
    story = _Story(built, package, name)
    story.margins(body, "header")
    story.blocks(body)
    story.flush()
    story.margins(body, "footer")
    return built.parsed(media_type=media_type, parser=FINGERPRINT, title=package.title() or story.title)


def _children(parent: Element) -> Iterator[Element]:
    """Children, with those of content controls, insertions and chosen alternatives in their places."""
    for child in parent:
        if child.tag == W + "sdt":
            for content in child.iterfind(W + "sdtContent"):
                yield from _children(content)
        elif child.tag in _TRANSPARENT:
            yield from _children(child)
        elif child.tag == MC + "AlternateContent":
            yield from chosen(child)
        else:
            yield child


class _Story:
    """Writes blocks. Items of a list and lines of code are collected until something else comes."""

    def __init__(self, built: Builder, package: Package, part: str) -> None:
        self.title: str | None = None
        self._built = built
        self._package = package
        self._part = part
        self._styles = Styles(package.part(self._name("styles")))
        self._numbering = Numbering(package.part(self._name("numbering")))
        self._notes = {kind: self._read_notes(kind) for kind in ("footnote", "endnote", "comment")}
        self._words = Words(self._styles)
        self._items: list[tuple[int, str, str]] = []
        self._code: list[str] = []
        self._after: list[Hanging] = []
        self._carried: tuple[str, list[Hanging]] = ("", [])  # of a paragraph whose end was deleted, of a drop cap
        self._seen: set[str] = set()  # parts, and lines of headers and footers

    def _name(self, kind: str) -> str:
        return next(iter(self._package.related(self._part, kind)), f"word/{kind}.xml")

    def _read_notes(self, kind: str) -> dict[str, Element]:
        root = self._package.part(self._name(f"{kind}s"))
        return {} if root is None else {note.get(W + "id"): note for note in root.iterfind(W + kind)}

    def margins(self, body: Element, kind: str) -> None:
        """The headers or footers that sections show, each line once; page numbers are left out."""
        settings = self._package.part(self._name("settings"))
        even = settings is not None and is_on(settings.find(W + "evenAndOddHeaders"))
        for section in body.iter(W + "sectPr"):
            shown = {"default", "even" if even else "", "first" if is_on(section.find(W + "titlePg")) else ""}
            for reference in section.iterfind(f"{W}{kind}Reference"):
                name = self._package.target(self._part, reference.get(R + "id"))
                if name is None or name in self._seen or reference.get(W + "type", "default") not in shown:
                    continue
                self._seen.add(name)
                root = self._package.part(name)
                lines = [] if root is None else self._lines(root, Words(self._styles, page_numbers=False))
                fresh = [line for line in dict.fromkeys(map(inline, lines)) if line not in self._seen]
                self._seen.update(fresh)
                self._built.paragraph("\n".join(fresh))

    def blocks(self, parent: Element) -> None:
        """The paragraphs and tables of a body, a cell or a text box."""
        for child in _children(parent):
            if child.tag == W + "p":
                self._paragraph(child)
            elif child.tag == W + "tbl":
                self._table(child)
            elif child.tag == W + "altChunk":
                self._chunk(child)

    def flush(self) -> None:
        """Writes what was collected, then what belongs after it."""
        (text, after), self._carried = self._carried, ("", [])
        self._built.paragraph(text)
        if self._items:
            least = min(depth for depth, _, _ in self._items)
            self._built.items((depth - least, marker, text) for depth, marker, text in self._items)
            self._items = []
        if self._code:
            self._built.code("\n".join(self._code))
            self._code = []
        after, self._after = self._after + after, []
        for kind, value in after:
            self._append(kind, value)

    def _paragraph(self, element: Element) -> None:
        properties = element.find(W + "pPr")
        style_id, style = self._style(properties)
        text, after = self._words.read(element, hidden=style.hidden)
        text, after = self._carried[0] + text, self._carried[1] + after
        self._carried = ("", [])
        if properties is not None and _runs_on(properties):
            self._carried = (text, after)
            return
        marker = self._marker(properties, style_id, style)
        if style.code and text.strip() and not marker:
            self.flush() if self._items else None
            self._code.append(text)
        elif (marker or style.contents) and not style.level:
            self.flush() if self._code else None
            if text.strip():
                self._items.append((*(marker or (style.contents - 1, "")), text))
        elif text.strip() or after:
            self.flush()
            self._write(text, style, marker[1] if marker else "")
            self._after = after
            self.flush()
            return
        self._after += after

    def _write(self, text: str, style: Style, marker: str) -> None:
        if not style.level or len(text) > LONGEST_HEADING:
            self._built.paragraph(text)
        elif text.strip():
            if style.level == 1 and self.title is None:
                self.title = text
            self._built.heading(f"{marker} {text}" if marker != "-" else text, style.level)

    def _style(self, properties: Element | None) -> tuple[str | None, Style]:
        if properties is None:
            return None, self._styles.get(None)
        named = properties.find(W + "pStyle")
        style_id = None if named is None else named.get(W + "val")
        style = self._styles.get(style_id)
        outline = outline_level(properties)
        return style_id, style if outline is None else replace(style, level=outline)

    def _marker(self, properties: Element | None, style_id: str | None, style: Style) -> tuple[int, str] | None:
        list_id, depth = (None, None) if properties is None else list_of(properties)
        if list_id is None:
            list_id, depth = style.list_id, style.list_level if depth is None else depth
        return self._numbering.marker(list_id, depth, style_id) if list_id else None

    def _table(self, table: Element) -> None:
        rows = [row for row in _children(table) if row.tag == W + "tr" and not _is_unseen_row(row)]
        cells = [[cell for cell in _children(row) if cell.tag == W + "tc"] for row in rows]
        self.flush()
        if sum(map(len, cells)) == 1 or self._is_layout(cells):
            for cell in chain.from_iterable(cells):
                self.blocks(cell)
                self.flush()
            return
        self._built.table([_empty_before(row) + self._row(own) for row, own in zip(rows, cells, strict=True)])
        self.flush()

    def _is_layout(self, rows: list[list[Element]]) -> bool:
        """Does a cell hold a heading and the text under it, so that the table only places them on the page?"""
        for cell in chain.from_iterable(rows):
            paragraphs = cell.findall(W + "p")
            if len(paragraphs) > 1 and any(self._style(each.find(W + "pPr"))[1].level for each in paragraphs):
                return True
        return False

    def _row(self, cells: list[Element]) -> list[str]:
        """Texts of a row's cells: of a merged one where it begins, "" for the rest of it."""
        texts: list[str] = []
        for cell in cells:
            properties = cell.find(W + "tcPr")
            seen = properties is None or not _is_unseen_cell(properties)
            texts.append("\n".join(self._lines(cell, self._words, self._after)) if seen else "")
            texts += [""] * (_columns(properties, "gridSpan", 1) - 1)
        return texts

    def _lines(self, parent: Element, words: Words, after: list[Hanging] | None = None) -> Iterator[str]:
        """Texts of all paragraphs in a cell, a note or a header; `after` takes what hangs on them."""
        for child in _children(parent):
            if child.tag == W + "p":
                properties = child.find(W + "pPr")
                style_id, style = self._style(properties)
                text, hanging = words.read(child, hidden=style.hidden)
                marker = self._marker(properties, style_id, style)
                yield f"{marker[1]} {text}" if marker and text.strip() else text
                if after is not None:
                    after += hanging
                    continue
                for kind, value in hanging:
                    if kind == "said":
                        yield value
                    elif kind == "box":
                        yield from self._lines(value, words)
            elif child.tag in (W + "tbl", W + "tr", W + "tc") and not _is_unseen_row(child):
                yield from self._lines(child, words, after)

    def _append(self, kind: str, value: Element) -> None:
        """One thing that hangs on a paragraph. A note is written once, however often it is referred to."""
        if kind == "box":
            self.blocks(value)
            self.flush()
        elif kind == "said":
            self._built.paragraph(value)
        elif kind in self._notes:
            note = self._notes[kind].pop(value, None)
            if note is not None:
                text = "\n".join(self._lines(note, Words(self._styles))).strip()
                author = inline(note.get(W + "author", ""))
                lead = "" if kind != "comment" else f"Comment ({author}): " if author else "Comment: "
                self._built.paragraph(lead + text if text else "")
        elif (name := self._package.target(self._part, value)) and name not in self._seen:
            self._seen.add(name)
            (add_chart if kind == "chart" else add_diagram)(self._built, self._package, name)

    def _chunk(self, element: Element) -> None:
        """A document of another format that Word would take in when it opens this one."""
        name = self._package.target(self._part, element.get(R + "id"))
        data = None if name is None or name in self._seen else self._package.data(name)
        if name is None or data is None:
            return
        self._seen.add(name)
        self.flush()
        try:
            self._built.graft(parse_part(data, filename=name))
        except ParseError as error:
            if error.code in ("archive_bomb", "too_large"):
                raise
            self._built.note(f"An inserted document was left out: {error.detail}")


def _runs_on(properties: Element) -> bool:
    """Does the paragraph go on in the next: its end was deleted, or it is the large initial of the next?"""
    mark, frame = properties.find(W + "rPr"), properties.find(W + "framePr")
    deleted = mark is not None and (mark.find(W + "del") is not None or mark.find(W + "moveFrom") is not None)
    return deleted or (frame is not None and frame.get(W + "dropCap", "none") != "none")


def _columns(properties: Element | None, name: str, usual: int) -> int:
    element = None if properties is None else properties.find(W + name)
    value = "" if element is None else element.get(W + "val", "")
    return min(int(value), MAX_SPAN) if value.isdecimal() else usual


def _empty_before(row: Element) -> list[str]:
    return [""] * _columns(row.find(W + "trPr"), "gridBefore", 0)


def _is_unseen_cell(properties: Element) -> bool:
    """Is the cell the lower part of one above it (w:vMerge), or deleted?"""
    merged = properties.find(W + "vMerge")
    continued = merged is not None and merged.get(W + "val", "continue") == "continue"
    return continued or properties.find(W + "cellDel") is not None


def _is_unseen_row(row: Element) -> bool:
    properties = row.find(W + "trPr")
    return properties is not None and (properties.find(W + "del") is not None or is_on(properties.find(W + "hidden")))
