"""PowerPoint presentations (.pptx, .pptm, .ppsx): a page per slide, its title as heading, notes and comments after it.

python-pptx fails on a missing picture and on the strict dialect, and knows no diagrams and comments; the parts are
read with lxml instead.
"""

from __future__ import annotations

from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.office.drawing import DGM, C, add_chart, add_diagram, description, text_of
from apps.documents.parsing.office.ooxml import A, Element, P, Package, R
from apps.documents.parsing.office.pptx_text import (
    FURNITURE,
    TITLES,
    Patterns,
    in_reading_order,
    placeholder,
    shapes,
    write_text,
)
from apps.documents.parsing.types import Parsed

FINGERPRINT = "pptx/1"


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """All slides, hidden ones too; what master and layout repeat on each of them is left out.

    Raises ParseError("corrupt").
    """
    built = Builder()
    package = Package(data, built)
    main, root = package.main("ppt/presentation.xml")
    keys = [slide.get(R + "id") for slide in root.iterfind(f"{P}sldIdLst/{P}sldId")]
    names = [package.target(main, key) for key in keys] or package.names(r"ppt/slides/slide\d+\.xml")
    deck = _Deck(built, package, main)
    for number, name in enumerate(dict.fromkeys(names), start=1):
        built.page = number
        slide = package.part(name)
        if name is None or slide is None:
            built.note(f"Slide {number} could not be read.")
        else:
            deck.slide(name, slide)
    return built.parsed(media_type=media_type, parser=FINGERPRINT, title=package.title() or deck.title)


class _Deck:
    """Writes slides, and remembers what they share."""

    def __init__(self, built: Builder, package: Package, main: str) -> None:
        self.title: str | None = None
        self._built = built
        self._package = package
        self._patterns: dict[str, Patterns] = {}
        self._seen: set[str] = set()  # charts, diagrams, notes and comments are of one slide each
        self._authors = {
            author.get("id"): author.get("name", "")
            for kind in ("commentAuthors", "authors")
            for name in package.related(main, kind)
            for author in self._elements(name, "cmAuthor", "author")
        }

    def slide(self, name: str, root: Element) -> None:
        """One slide, then its notes and its comments."""
        layout = next(iter(self._package.related(name, "slideLayout")), "")
        if layout not in self._patterns:
            master = next(iter(self._package.related(layout, "slideMaster")), None)
            self._patterns[layout] = Patterns(self._package.part(layout), self._package.part(master))
        tree = root.find(f"{P}cSld/{P}spTree")
        if tree is not None:
            self._tree(name, tree, self._patterns[layout])
        for notes in self._unseen(self._package.related(name, "notesSlide")):
            self._notes(notes)
        for comments in self._unseen(self._package.related(name, "comments")):
            self._comments(comments)

    def _tree(self, part: str, tree: Element, patterns: Patterns) -> None:
        for kind, shape in in_reading_order(shapes(tree), patterns):
            if kind and kind[0] in FURNITURE:
                continue
            if kind and kind[0] in TITLES:
                self._heading(shape)
            elif shape.tag == P + "grpSp":
                self._tree(part, shape, patterns)
            elif shape.tag == P + "graphicFrame":
                self._frame(part, shape)
            elif shape.tag == P + "pic":
                self._built.paragraph(description(shape.find(f"{P}nvPicPr/{P}cNvPr")))
            else:
                write_text(self._built, shape, kind, patterns)

    def _heading(self, shape: Element) -> None:
        title = inline(_lines(shape))
        self._built.heading(title, 1)
        self.title = self.title or title

    def _frame(self, part: str, frame: Element) -> None:
        """A table, chart or diagram."""
        for table in frame.iter(A + "tbl"):
            self._built.table([[_cell(cell) for cell in row.iterfind(A + "tc")] for row in table.iterfind(A + "tr")])
        for chart in frame.iter(C + "chart"):
            for name in self._unseen([self._package.target(part, chart.get(R + "id")) or ""]):
                add_chart(self._built, self._package, name)
        for diagram in frame.iter(DGM + "relIds"):
            for name in self._unseen([self._package.target(part, diagram.get(R + "dm")) or ""]):
                add_diagram(self._built, self._package, name)

    def _notes(self, name: str) -> None:
        root = self._package.part(name)
        if root is None:
            return
        spoken = [shape for shape in root.iter(P + "sp") if (placeholder(shape) or ("",))[0] not in FURNITURE]
        if text := "\n".join(map(_lines, spoken)).strip():
            self._built.paragraph(f"Notes: {text}")

    def _comments(self, name: str) -> None:
        """Comments of either kind: p:cm with a p:text, and the threaded ones of Microsoft 365 with a p188:txBody."""
        for comment in self._elements(name, "cm", "reply"):
            author = inline(self._authors.get(comment.get("authorId"), ""))
            bodies = [child for child in comment if _name(child) == "txBody"]
            lines = [text_of(each) for body in bodies for each in body.iterfind(A + "p")]
            text = "\n".join([comment.findtext(P + "text") or "", *lines]).strip()
            if text:
                self._built.paragraph((f"Comment ({author}): " if author else "Comment: ") + text)

    def _elements(self, name: str, *wanted: str) -> list[Element]:
        root = self._package.part(name)
        return [] if root is None else [each for each in root.iter() if _name(each) in wanted]

    def _unseen(self, names: list[str]) -> list[str]:
        fresh = [name for name in names if name and name not in self._seen]
        self._seen.update(fresh)
        return fresh


def _name(element: Element) -> str:
    """The name without its namespace: comments come in one for each version of the program."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _lines(shape: Element) -> str:
    return "\n".join(text_of(each) for each in shape.iterfind(f"{P}txBody/{A}p"))


def _cell(cell: Element) -> str:
    """The text of a cell; of a merged one only where it begins."""
    if {cell.get("hMerge"), cell.get("vMerge")} & {"1", "true"}:
        return ""
    return "\n".join(text_of(each) for each in cell.iterfind(f"{A}txBody/{A}p"))
