"""The walk over the body of an OpenDocument file: text, lists, tables, slides and what is embedded in them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from lxml import etree

from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.office.odf_objects import FORMULA, HREF, Objects, formula_of
from apps.documents.parsing.office.odf_styles import OFFICE, TEXT, Counter, Styles, number

_NS = "urn:oasis:names:tc:opendocument:xmlns:"
_DRAW, _TABLE, _SHOW = (f"{{{_NS}{name}:1.0}}" for name in ("drawing", "table", "presentation"))
_SVG = f"{{{_NS}svg-compatible:1.0}}"
DC = "{http://purl.org/dc/elements/1.1/}"

_P, _H, _LIST, _NOTE, _COMMENT = f"{TEXT}p", f"{TEXT}h", f"{TEXT}list", f"{TEXT}note", f"{OFFICE}annotation"
_FRAME, _TABLE_, _ROW, _CELL, _COVERED = (
    f"{_DRAW}frame",
    f"{_TABLE}table",
    f"{_TABLE}table-row",
    f"{_TABLE}table-cell",
    f"{_TABLE}covered-table-cell",
)


def _names(namespace: str, names: str) -> frozenset[str]:
    return frozenset(namespace + name for name in names.split())


#: Indexes repeat what is in the document; declarations and forms are no text.
_SKIPPED = (
    _names(TEXT, "tracked-changes sequence-decls variable-decls user-field-decls dde-connection-decls script ruby-text")
    | _names(TEXT, "table-of-content illustration-index table-index object-index user-index alphabetical-index")
    | _names(TEXT, "alphabetical-index-auto-mark-file bibliography-source note-citation")
    | _names(OFFICE, "forms scripts event-listeners annotation-end")
    | _names(_SVG, "title desc")
    | _names(_SHOW, "animations settings")
    | _names(DC, "creator date")
    | _names(_DRAW, "layer-set")
)
#: What stands on every slide.
_FURNITURE = frozenset({"page-number", "date-time", "header", "footer"})
_SHAPES = _names(
    _DRAW,
    "frame g a rect line polyline polygon regular-polygon path circle ellipse connector caption measure custom-shape"
    " text-box",
)
_RUN = re.compile(r"[ \t\r\n]{2,}|[\t\r\n]")  # white space that counts as one space: ODF 1.3 part 3, 6.1.2
_MAX_SPACES = 1000
_MAX_COLUMNS = 1024
_MAX_REPEATED = 100_000  # cells of a document that are there only because another one is repeated


def _hidden(element: etree._Element) -> bool:
    return element.get(f"{TEXT}is-hidden") == "true" or element.get(f"{TEXT}display") == "none"


def _start(element: etree._Element) -> int | None:
    value = element.get(f"{TEXT}start-value")
    return number(value, 1, 10**6) if value else None


def _text(raw: str) -> str:
    return _RUN.sub(" ", raw) if "\n" in raw or "\t" in raw or "  " in raw else raw  # far quicker for most


class Walker:
    """Walks the body once; what hangs on a paragraph (comments, frames) waits in `after` until it is closed."""

    def __init__(self, archive: zipfile.ZipFile | None) -> None:
        self.styles = Styles()
        self.built = Builder()
        self.objects = Objects(archive, self.built)
        self.title = ""
        self.after: list[etree._Element] = []
        self.in_heading = False
        self.code: list[str] = []
        self.items: list[tuple[int, str, str]] = []
        self.counters: dict[str, Counter] = {}
        self.spare = _MAX_REPEATED
        self.walked: set[str] = set()
        self.pages = 0
        self.known: dict[str, Callable[[etree._Element], None]] = {
            _P: self.paragraph,
            _H: self.heading,
            _LIST: self.whole_list,
            f"{_TABLE}table": self.table,
            _NOTE: self.note,
            _COMMENT: self.comment,
            _FRAME: self.frame,
            f"{TEXT}section": self.section,
            f"{_DRAW}page": self.page,
            f"{_SHOW}notes": self.speaker_notes,
            **dict.fromkeys(_SHAPES - {_FRAME}, self.shape),
        }

    def run(self, root: etree._Element) -> None:
        """Everything in the body of a document."""
        levels = {depth: level for depth, level in self.styles.outline().items() if level.format not in ("", "-")}
        self.counters[""] = Counter(levels)
        for body in root.iterchildren(f"{OFFICE}body"):
            self.blocks(body)

    def blocks(self, parent: Iterable[etree._Element]) -> None:
        """Every element in `parent`; one that is not known is a container."""
        for child in parent:
            tag = child.tag
            if tag != _P and self.code:
                self.end_code()
            if tag != _LIST and self.items:
                self.end_list()
            if known := self.known.get(tag):
                known(child)
            elif tag not in _SKIPPED:
                self.blocks(child)
        self.end_code()
        self.end_list()

    # Paragraphs and what is in them

    def paragraph(self, element: etree._Element) -> None:
        """A paragraph, or a line of code, or a heading that is one by its style only."""
        style = self.styles.of("paragraph", element.get(f"{TEXT}style-name"))
        if style.hidden:
            return
        if "Preformatted_20_Text" in style.names:
            self.code.append(self.inline(element))
            return
        self.end_code()
        text = self.inline(element)
        if "Title" in style.names or (style.outline and text.strip()):
            self.add_heading(text, style.outline or 1)
        else:
            self.built.paragraph(text)
        if self.after:
            self.hung()

    def heading(self, element: etree._Element) -> None:
        """A heading at its outline level, with its number where the document counts its headings."""
        style = self.styles.of("paragraph", element.get(f"{TEXT}style-name"))
        if style.hidden:
            return
        level = number(element.get(f"{TEXT}outline-level"), style.outline or 1, 10) or 1
        self.in_heading = True
        text = self.inline(element).strip()
        self.in_heading = False
        counter = self.counters[""]
        counted = element.get(f"{TEXT}is-list-header") != "true" and style.list_style in (None, "Outline")
        if text and counted and level in counter.levels:
            self.add_heading(text, level, counter.next(level, _start(element)))
        else:
            self.add_heading(text, level)
        self.hung()

    def add_heading(self, text: str, level: int, marker: str = "") -> None:
        if text.strip():
            self.built.heading(f"{marker} {text}", level)
        self.title = self.title or inline(text)

    def inline(self, element: etree._Element) -> str:
        """The visible text of a paragraph; line breaks are newlines."""
        if not len(element):
            return _text(element.text or "")
        out: list[str] = []
        self.collect(element, out)
        return "".join(out)

    def collect(self, element: etree._Element, out: list[str]) -> None:
        """Append the pieces of text in `element`; put off what stands in it but is not part of the sentence."""
        if element.text:
            out.append(_text(element.text))
        for child in element:
            tag = child.tag
            if tag == f"{TEXT}span":
                if not self.styles.of("text", child.get(f"{TEXT}style-name")).hidden:
                    self.collect(child, out)
            elif tag == f"{TEXT}s":
                out.append(" " * number(child.get(f"{TEXT}c"), 1, _MAX_SPACES))
            elif tag == f"{TEXT}tab":
                out.append("\t")
            elif tag == f"{TEXT}line-break":
                out.append("\n")
            elif tag == _NOTE and not self.in_heading:
                out.append(f"\n{self.flat(child)}\n")  # a line of its own where the document has it
            elif tag in (_NOTE, _COMMENT) or tag in _SHAPES:
                if tag != _FRAME or not self.formula(child, out):
                    self.after.append(child)
            elif isinstance(tag, str) and tag not in _SKIPPED and not _hidden(child):  # an entity is none
                self.collect(child, out)
            if child.tail:
                out.append(_text(child.tail))

    def flat(self, element: etree._Element, between: str = "\n") -> str:
        """All paragraphs in `element` as one text."""
        found: list[str] = []
        stack = [element]
        while stack:
            child = stack.pop()
            if child.tag in (_P, _H):
                if not self.styles.of("paragraph", child.get(f"{TEXT}style-name")).hidden:
                    found.append(self.inline(child).strip())
            elif child.tag not in _SKIPPED:
                stack.extend(reversed(child))
        return between.join(filter(None, found))

    def hung(self) -> None:
        """What waited for the end of a paragraph, a list or a table."""
        while self.after:
            waiting, self.after = self.after, []
            self.blocks(waiting)

    def end_code(self) -> None:
        if self.code:
            lines, self.code = self.code, []
            self.built.code("\n".join(lines))
            self.hung()

    def note(self, element: etree._Element) -> None:
        """A footnote or endnote of a heading."""
        for body in element.iterchildren(f"{TEXT}note-body"):
            self.blocks(body)

    def comment(self, element: etree._Element) -> None:
        author = inline(element.findtext(f"{DC}creator") or "")
        if text := self.flat(element):
            self.built.paragraph(f"Comment ({author}): {text}" if author else f"Comment: {text}")
        self.hung()

    def section(self, element: etree._Element) -> None:
        if not _hidden(element):
            self.blocks(element)

    # Lists

    def whole_list(self, element: etree._Element) -> None:
        """A list with those in it. It goes on until something else comes: editors split one at every change."""
        self.walk_list(element, 1, None)

    def end_list(self) -> None:
        """Items without any marker are no list to a reader but paragraphs: slides are full of those."""
        if not self.items:
            return
        items, self.items = [item for item in self.items if item[2].strip()], []
        if any(marker for _, marker, _ in items):
            self.built.items(items)
        else:
            for _, _, text in items:
                self.built.paragraph(text)
        self.hung()

    def walk_list(self, element: etree._Element, depth: int, style: str | None, continued: bool = False) -> None:
        """`continued`: it goes on counting, even if it does not say so itself."""
        style = element.get(f"{TEXT}style-name") or style
        counter = self.counter(style) if style else None
        continued |= element.get(f"{TEXT}continue-numbering") == "true" or bool(element.get(f"{TEXT}continue-list"))
        if counter and not continued:
            counter.restart(depth)
        for item in element.iterchildren(f"{TEXT}list-item", f"{TEXT}list-header"):
            self.walk_item(item, depth, style, counter, continued)
            continued = True  # for an item that only holds a list: that one belongs to the item before

    def walk_item(
        self, item: etree._Element, depth: int, style: str | None, counter: Counter | None, continued: bool
    ) -> None:
        own = False  # has it a text of its own?
        mine = -1  # where that stands in `items`
        for child in item:
            if child.tag == _LIST:
                self.walk_list(child, depth + 1, style, continued and not own)
            elif child.tag not in (_P, _H):
                if child.tag not in _SKIPPED:
                    self.end_list()
                    self.blocks((child,))
            elif not (look := self.styles.of("paragraph", child.get(f"{TEXT}style-name"))).hidden:
                marker = ""
                if not own and item.tag == f"{TEXT}list-item":
                    marker = (counter or self.counter(look.list_style)).next(depth, _start(item))
                mine = self.add_item(child, depth, marker, mine)
                own = True

    def add_item(self, element: etree._Element, depth: int, marker: str, mine: int) -> int:
        """Put a paragraph of an item into `items`, to the one at `mine` if that is the last; gives where it stands."""
        if element.tag == _H:
            self.end_list()
            level = number(element.get(f"{TEXT}outline-level"), 1, 10) or 1
            self.add_heading(self.inline(element), level, marker.removeprefix("-"))
            self.hung()
            return -1
        text = self.inline(element)
        if mine >= 0 and mine == len(self.items) - 1:
            self.items[mine] = (*self.items[mine][:2], f"{self.items[mine][2]}\n{text}")
        else:
            self.items.append((depth - 1, marker, text))
        return len(self.items) - 1

    def counter(self, style: str | None) -> Counter:
        """The numbers of a list style; bullets where there is none."""
        name = style or "-"
        if name not in self.counters:
            self.counters[name] = Counter(self.styles.levels(name))
        return self.counters[name]

    # Tables

    def table(self, element: etree._Element) -> None:
        """A table, a line per row. One of a single column, or with headings or tables in it, is layout and is text."""
        rows = list(element.iterdescendants(_ROW))
        nested = next(element.iterdescendants(_H, _TABLE_), None) is not None
        if nested or all(sum(1 for _ in row.iterchildren(_CELL, _COVERED)) < 2 for row in rows):
            for row in element.iterchildren():
                self.blocks(row)
            return
        self.built.table(line for row in rows for line in self.row(row))
        self.hung()

    def row(self, element: etree._Element) -> Iterator[list[str]]:
        """The cells of a row, as often as it is repeated; what a merged cell covers is empty."""
        if element.get(f"{_TABLE}visibility", "visible") != "visible":
            return
        cells: list[str] = []
        for cell in element.iterchildren(_CELL, _COVERED):
            text = self.flat(cell) if cell.tag == _CELL and len(cell) else ""
            times = min(
                number(cell.get(f"{_TABLE}number-columns-repeated"), 1, _MAX_COLUMNS), _MAX_COLUMNS - len(cells)
            )
            cells += [text] * self.allowed(times)
        if any(cells):
            yield cells
            for _ in range(1, number(element.get(f"{_TABLE}number-rows-repeated"), 1, _MAX_REPEATED)):
                if self.allowed(1 + len(cells)) <= len(cells):
                    break
                yield cells

    def allowed(self, times: int) -> int:
        """How often a cell may stand there when it is said to be there `times` times."""
        times = min(times, self.spare + 1)
        self.spare -= max(0, times - 1)
        return times

    # Slides, frames and objects

    def page(self, element: etree._Element) -> None:
        """A slide: its title, the rest in the order of the file, then comments and the speaker's notes."""
        self.pages += 1
        self.built.page = self.pages
        titles: list[etree._Element] = []
        rest: list[etree._Element] = []
        last: dict[str, list[etree._Element]] = {_COMMENT: [], f"{_SHOW}notes": []}
        for child in element:
            if child.get(f"{_SHOW}class") == "title" and child.get(f"{_SHOW}placeholder") != "true":
                titles.append(child)
            else:
                last.get(child.tag, rest).append(child)
        for title in titles:
            self.add_heading(self.flat(title), 1)
        self.hung()
        self.blocks(chain(rest, *last.values()))

    def speaker_notes(self, element: etree._Element) -> None:
        for frame in element.iterchildren(_FRAME):
            if frame.get(f"{_SHOW}class") == "notes" and frame.get(f"{_SHOW}placeholder") != "true":
                if text := self.flat(frame):
                    self.built.paragraph(f"Notes: {text}")
                self.hung()

    def shape(self, element: etree._Element) -> None:
        if element.get(f"{_SHOW}class") not in _FURNITURE and element.get(f"{_SHOW}placeholder") != "true":
            self.blocks(element)

    def frame(self, element: etree._Element) -> None:
        """A frame: the first of the renderings in it that is text; of a picture, its description."""
        for child in element.iterchildren(f"{_DRAW}object"):
            if (root := self.objects.root(child)) is not None:
                self.embedded(child.get(HREF, ""), root)
                return
        if element.find(f"{_DRAW}object-ole") is not None:
            self.built.note("An embedded object of another program was left out.")
        if element.find(f"{_DRAW}image") is not None:
            self.built.paragraph(element.findtext(f"{_SVG}desc") or element.findtext(f"{_SVG}title") or "")
        self.shape(element)

    def embedded(self, name: str, root: etree._Element) -> None:
        """The text of a chart or another document, once: a file may point to it any number of times."""
        if root.tag == FORMULA:
            self.built.paragraph(formula_of(root))
        elif name not in self.walked or not name:
            self.walked.add(name)
            own, self.styles = self.styles, Styles()
            self.styles.read(root)
            self.blocks(root.iterchildren(f"{OFFICE}body"))
            self.styles = own

    def formula(self, frame: etree._Element, out: list[str]) -> bool:
        """Is there a formula in the frame? It is part of the sentence."""
        for child in frame.iterchildren(f"{_DRAW}object"):
            root = self.objects.root(child)
            if root is not None and root.tag == FORMULA:
                out.append(formula_of(root))
                return True
        return False
