"""Documents in XML by the names of their elements: JATS, DocBook, DITA, TEI and what resembles them.

A title makes its parent a section, text beside elements makes a paragraph, and what is neither is data: so an unknown
vocabulary is read too. No library at hand reads any of these.
"""

from __future__ import annotations

from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.data import outline
from apps.documents.parsing.markup import xml_data
from apps.documents.parsing.markup import xml_names as names
from apps.documents.parsing.markup.xml_parts import details, marker_of, name_of, parts, person
from apps.documents.parsing.markup.xml_table import rows
from apps.documents.parsing.markup.xml_tree import Element, child, is_mixed, local, words

FEW_WORDS = 4  # of a text that may say little without the name of its element


def is_document(root: Element) -> bool:
    """Is there any prose in it?"""
    return next(root.iter(*names.PROSE_TAGS), None) is not None


def add(built: Builder, root: Element) -> str | None:
    """Adds the document; returns its first title."""
    writer = _Writer(built, name_of(root) in ("tei", "tei.2"))
    writer.children(root, 1)
    writer.flush()
    return writer.title


class _Writer:
    """What has been read of the current paragraph and list, and the notes that wait for the paragraph's end."""

    def __init__(self, built: Builder, tei: bool) -> None:
        self.title: str | None = None
        self._built = built
        self._footnotes = names.FOOTNOTES | {"note"} if tei else names.FOOTNOTES
        self._captioned = names.CAPTIONED - {"note"} if tei else names.CAPTIONED
        self._blocks = names.BLOCKS - {"note"} if tei else names.BLOCKS
        self._inline: list[str] = []
        self._waiting: list[Element] = []
        self._items: list[tuple[int, str, str]] = []
        self._facts: list[str] = []
        self._depth = 0  # of lists
        self._marker = ""
        self._label = ""  # of a note, before its first paragraph
        self._info = 0  # depth of elements that describe the document

    def children(self, element: Element, level: int) -> int:
        """All children, each in its way; returns the level of headings below the first title."""
        label = ""
        titled = False  # later titles head parts of the rest
        info = name_of(element) in names.INFO
        captioned = name_of(element) in self._captioned
        for each in element:
            name = name_of(each)
            if name == "label":
                label = words(each)
            elif name in names.HEADS:
                text = inline(f"{label} {self._plain(each)}")
                label = ""
                if captioned or name in names.SUBTITLES:
                    self.paragraph(text)
                else:
                    self._heading(text, level, waits=info)
                    level += not titled
                    titled = True
            elif name == "caption" and captioned:
                parts = [label, *(self._plain(part) for part in each)] if len(each) else [label, self._plain(each)]
                label = ""
                self.paragraph(" ".join(filter(None, parts)))
                self._release()
            elif name in names.INFO:
                self._info += 1
                level = max(level, self.children(each, level))
                self._info -= 1
                if not self._info:
                    self._flush_facts()
            else:
                if name in ("p", "para"):
                    self._label, label = label, ""
                self._block(each, name, level)
        self.paragraph(label)
        return level

    def _block(self, element: Element, name: str, level: int) -> None:
        if name in names.SKIPPED:
            return
        if name in self._footnotes:
            self._waiting.append(element)
            self._release()
        elif name in names.CODE:
            self.flush()
            self._built.code(self._raw(element))
        elif name in names.TABLES and not is_mixed(element):
            self._table(element)
        elif name in names.LISTS and not is_mixed(element):
            self._list(element, name)
        elif name in names.PAIRS:
            self._pair(element)
        elif name in names.REFERENCES:
            self._reference(element)
        elif name in names.PEOPLE and not is_mixed(element):
            self.paragraph(person(element))
        elif name in ("aff", "affiliation") and not is_mixed(element):
            self.paragraph(", ".join(parts(element)))
        elif name in ("contrib-group", "authorgroup"):
            self._people(element, level)
        elif name == "kwd-group":
            self.paragraph(", ".join(parts(element)))
        elif name in names.INLINE:
            self.paragraph(self._plain(element))
        elif name in names.PARAGRAPHS or is_mixed(element):
            self._prose(element, name, level)
        elif not any(local(each) in names.KNOWN for each in element.iterdescendants()):
            self._data(element)
        else:
            self.children(element, level)

    def _prose(self, element: Element, name: str, level: int) -> None:
        if self._is_fact(element, name):
            self._facts += xml_data.fact(element, ids=False)
            return
        self._end_paragraph()
        if self._label:
            self._inline.append(self._label + " ")
            self._label = ""
        self._flow(element, level)
        self._end_paragraph()
        self._release()

    def _is_fact(self, element: Element, name: str) -> bool:
        """Is it a few words that say little without the name of their element?"""
        if len(element) or name in names.PROSE or self._depth:
            return False
        return name_of(element.getparent()) in names.INFO or len((element.text or "").split()) <= FEW_WORDS

    def _flow(self, element: Element, level: int) -> None:
        """Running text; what is a block within it ends the paragraph and the rest goes on behind it."""
        self._inline.append(element.text or "")
        for each in element:
            name = name_of(each)
            if name in self._blocks:
                self._end_paragraph()
                self._block(each, name, level)
            elif name in self._footnotes:
                self._waiting.append(each)
            elif name in names.PEOPLE and not is_mixed(each):
                self._inline.append(person(each))
            elif not self._is_silent(each, name):
                self._flow(each, level)
            self._inline.append(each.tail or "")

    def _plain(self, element: Element) -> str:
        """All text of an element on one line, its notes kept for later."""
        pieces: list[str] = []
        self._collect(element, pieces)
        return inline("".join(pieces))

    def _collect(self, element: Element, pieces: list[str]) -> None:
        pieces.append(element.text or "")
        for each in element:
            name = name_of(each)
            if name in self._footnotes:
                self._waiting.append(each)
            elif name in names.PEOPLE and not is_mixed(each):  # in the order of a bibliography
                pieces.append(" ".join(parts(each)))
            elif not self._is_silent(each, name):
                apart = " " if name in names.APART else ""
                pieces.append(apart)
                self._collect(each, pieces)
                pieces.append(apart)
            pieces.append(each.tail or "")

    def _is_silent(self, element: Element, name: str) -> bool:
        if name == "tex-math":  # beside the same formula in MathML it would be read twice
            return next(element.getparent().iterchildren("{*}math"), None) is not None
        return name in names.SKIPPED or (name == "xref" and element.get("ref-type") in names.NOTE_REFERENCES)

    def _raw(self, element: Element) -> str:
        """Text whose white space means something."""
        parts = [element.text or ""]
        for each in element:
            if name_of(each) not in names.SKIPPED:
                parts.append(self._raw(each))
            parts.append(each.tail or "")
        return "".join(parts)

    def _table(self, element: Element) -> None:
        captions = [each for each in element if name_of(each) in ("title", "caption")]
        for each in captions:
            self.paragraph(self._plain(each))
        self.flush()
        table = list(rows(element, self._plain))
        self._built.table(table)
        self._release()
        if not table:  # a picture of one, or none
            self.paragraph(" ".join(self._plain(each) for each in element if each not in captions))

    def _list(self, element: Element, name: str) -> None:
        self._end_paragraph()
        kind = element.get("list-type") or element.get("type") or ""
        ordered = name in names.ORDERED or (
            name == "list" and kind not in ("", "bullet", "simple", "bulleted", "gloss")
        )
        start = element.get("startingnumber") or element.get("start") or "1"
        number = int(start) if start.isdecimal() and len(start) < 9 else 1
        self._depth += 1
        for each in element:
            called = name_of(each)
            if called in names.ITEMS:
                label = child(each, "label")
                self._marker = marker_of(words(label)) or (f"{number}." if ordered else "-")
                number += 1
                self._item(each)
            elif called in names.TERMS or called in ("dd", "def"):
                self._term(each, called in names.TERMS)
            elif called in names.TITLES:
                self._depth -= 1
                self.paragraph(self._plain(each))
                self._depth += 1
            elif called != "label":
                self._block(each, called, 6)
        self._depth -= 1
        self._marker = ""
        if not self._depth:
            self.flush()

    def _item(self, element: Element) -> None:
        if is_mixed(element):
            self._prose(element, "", 6)
        else:
            for each in element:
                name = name_of(each)
                if name in names.LISTS or name != "label":
                    self._block(each, name, 6)

    def _pair(self, element: Element) -> None:
        alone = not self._depth
        self._depth += alone
        for each in element:
            self._term(each, name_of(each) in names.TERMS)
        self._depth -= alone
        if alone:
            self.flush()

    def _term(self, element: Element, is_term: bool) -> None:
        self._end_paragraph()
        if is_term:
            if text := self._plain(element):
                self._items.append((self._depth - 1, "", text))
        else:
            self._marker = ""
            self._item(element)

    def _reference(self, element: Element) -> None:
        """An entry of a bibliography: as it is printed, or what it is made of."""
        self._end_paragraph()
        label = words(child(element, "label"))
        printed = next(element.iter("{*}mixed-citation", "{*}bibliomixed", "{*}nlm-citation"), None)
        if printed is None and is_mixed(element):
            printed = element
        text = self._plain(printed) if printed is not None else ", ".join(parts(element))
        if inline(text):
            self._items.append((0, marker_of(label) or "-", text))

    def _people(self, element: Element, level: int) -> None:
        people = [each for each in element if name_of(each) in names.PEOPLE]
        said = [f"{person(each)}: {more}" for each in people if (more := ", ".join(details(each)))]
        self.paragraph("\n".join([", ".join(filter(None, map(person, people))), *said]))
        for each in element:
            if name_of(each) not in names.PEOPLE:
                self._block(each, name_of(each), level)

    def _data(self, element: Element) -> None:
        """What is no prose: facts, which wait for one another."""
        if self._info or words(element):  # what has attributes only is for programs
            self._facts += xml_data.fact(element, ids=False)

    def _heading(self, text: str, level: int, *, waits: bool) -> None:
        """A heading; where it `waits` for none, facts about the document come behind it."""
        if waits:
            self._flush_text()
        else:
            self.flush()
        self._built.heading(text, level)
        self.title = self.title or text or None

    def paragraph(self, text: str) -> None:
        """A paragraph, or what a list's item says."""
        if not text or text.isspace():
            return
        if self._depth:
            depth = self._depth - 1 if self._marker else self._depth
            self._items.append((depth, self._marker, text))
            self._marker = ""
        else:
            self.flush()
            self._built.paragraph(text)

    def _end_paragraph(self) -> None:
        text = inline("".join(self._inline))
        self._inline = []
        self.paragraph(text)

    def _release(self) -> None:
        """The notes of what has just been read, each a paragraph of its own."""
        waiting, self._waiting = self._waiting, []
        for note in waiting:
            if is_mixed(note):
                self._prose(note, "p", 6)
            else:
                self.children(note, 6)

    def flush(self) -> None:
        """Writes what waits: running text, a list, facts."""
        self._flush_text()
        self._flush_facts()

    def _flush_text(self) -> None:
        if self._inline:
            self._end_paragraph()
        items, self._items = self._items, []
        self._built.items(items)

    def _flush_facts(self) -> None:
        facts, self._facts = self._facts, []
        outline.add(self._built, facts)
