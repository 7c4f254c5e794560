"""The running text of a word processor to blocks: shared by the parsers of RTF and of Word 97.

Both give paragraphs one after another, each with what it is (heading, list item, in a cell), and say where a cell and a
row end. Here consecutive items become one list and consecutive rows one table.
"""

from __future__ import annotations

import re

from apps.documents.parsing.build import Builder, inline

_NUMBER = re.compile(r"[\(\[]?\w{1,8}(?:[.\-]\w{1,8}){0,8}[.:)\]]{0,2}|\w[\w. -]{0,20}[.:)]")
_SOMETHING = re.compile(r"[^\s\x00-\x1f]")
_RARE = re.compile("[\ud800-\uf8ff]")
_HALVES = re.compile("[\ud800-\udfff]")
_PRIVATE = re.compile("[\ue000-\uf8ff]")

# Adobe's Symbol font, 0x20-0x7E and 0xA0-0xFE, as Unicode (the mapping that unicode.org publishes for it).
_SYMBOL_LOW = " !∀#∃%&∍()∗+,−./0123456789:;<=>?≅ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ[∴]⊥_\u203eαβχδεφγηιϕκλμνοπθρστυϖωξψζ{|}∼"
_SYMBOL_HIGH = "€ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…⏐⎯↵ℵℑℜ℘⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠∇®©™∏√⋅¬∧∨⇔⇐⇑⇒⇓◊〈®©™∑"
_SYMBOL = {0x20 + at: char for at, char in enumerate(_SYMBOL_LOW)}
_SYMBOL |= {0xA0 + at: char for at, char in enumerate(_SYMBOL_HIGH)}
_PICTURES = frozenset({"wingdings", "wingdings 2", "wingdings 3", "webdings", "marlett", "monotype sorts"})


def is_pictures(font: str) -> bool:
    """Does the font of this name draw pictures where others draw letters?"""
    return font.strip().lower() in _PICTURES


def symbol(code: int) -> str:
    """The character that the Symbol font draws for a byte, or for the private-use character that stands for it."""
    return _SYMBOL.get(code & 0xFF, "")


def marker_of(text: str) -> str:
    """A list item's own marker where it is a number or a letter, "-" for a bullet, "" where there is none."""
    text = inline(text)
    if not text:
        return ""
    return text if text != "o" and _NUMBER.fullmatch(text) else "-"


def visible(text: str) -> str:
    """`text` without private-use characters, and with the two halves of a character beyond U+FFFF made one."""
    if not _RARE.search(text):
        return text
    if _HALVES.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _PRIVATE.sub("", text)


class Flow:
    """Collects paragraphs, cells and rows in reading order. `finish` gives the Builder with everything in it."""

    def __init__(self) -> None:
        self.built = Builder()
        self._items: list[tuple[int, str, str]] = []
        self._rows: list[list[list[str]]] = []
        self._row: list[list[str]] = []
        self._cell: list[str] = []
        self._later: list[str] = []  # of what is open
        self._coming: list[str] = []  # of the paragraph that is about to come

    def paragraph(self, text: str, *, level: int = 0, depth: int = 0, marker: str = "") -> None:
        """A paragraph outside tables: a heading where it has a level, an item of a list where it has a marker."""
        self._close_table()
        text = visible(text)
        if not _SOMETHING.search(text):
            self._take_coming()
            if not self._items:
                self._close_later()
            return
        if marker and not level:
            self._take_coming()
            if inline(text):
                self._items.append((min(depth, 8), marker, text))
            return
        self._close_list()
        self._take_coming()
        if level:
            self.built.heading(f"{marker} {text}" if marker not in ("", "-") else text, level)
        else:
            self.built.paragraph(text)
        self._close_later()

    def cell_paragraph(self, text: str, *, marker: str = "") -> None:
        """A paragraph of the cell that is open."""
        self._close_list()
        self._take_coming()
        text = visible(text)
        if _SOMETHING.search(text):
            self._cell.append(f"{marker} {text}" if marker not in ("", "-") else text)

    def end_cell(self) -> None:
        self._row.append(self._cell)
        self._cell = []

    def end_row(self) -> None:
        if self._cell:
            self.end_cell()
        if self._row:
            self._rows.append(self._row)
            self._row = []

    def later(self, text: str) -> None:
        """A note, a comment or a text box of the paragraph that comes next: a paragraph of its own after that one, and
        after the whole list or table where that one is in such."""
        text = visible(text)
        if _SOMETHING.search(text):
            self._coming.append(text)

    def finish(self) -> Builder:
        self.end_row()
        self._close_table()
        self._close_list()
        self._take_coming()
        self._close_later()
        return self.built

    def _take_coming(self) -> None:
        self._later += self._coming
        self._coming.clear()

    def _close_list(self) -> None:
        if self._items:
            least = min(depth for depth, _, _ in self._items)
            self.built.items((depth - least, marker, text) for depth, marker, text in self._items)
            self._items = []
            self._close_later()

    def _close_table(self) -> None:
        self.end_row()
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        if all(len(row) == 1 for row in rows):  # a frame around text, not a table
            for row in rows:
                for text in row[0]:
                    self.built.paragraph(text)
        else:
            self.built.table([" ".join(cell) for cell in row] for row in rows)
        self._close_later()

    def _close_later(self) -> None:
        for text in self._later:
            self.built.paragraph(text)
        self._later = []
