"""reStructuredText, plain or of Sphinx, through docutils.

Nothing outside the text is read: file insertion, raw text and configuration files are off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from docutils import nodes
from docutils.core import publish_doctree
from docutils.parsers.rst import Parser

from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.encoding import decode
from apps.documents.parsing.markup.rst_directives import registered
from apps.documents.parsing.markup.rst_roles import inliner
from apps.documents.parsing.normalise import normalise
from apps.documents.parsing.numerals import formatted
from apps.documents.parsing.types import Parsed

FINGERPRINT = "rst/1"

_SETTINGS = {
    "_disable_config": True,
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "report_level": 5,
    "halt_level": 6,
    "traceback": True,
    "input_encoding": "unicode",
    "warning_stream": False,
    "doctitle_xform": False,
    "docinfo_xform": False,
    "syntax_highlight": "none",
    "smart_quotes": False,
    "line_length_limit": 1_000_000,
}
_REFERENCE = re.compile(r"`?(.*?)`?_{1,2}", re.DOTALL)
_FORMS = {
    "loweralpha": "lowerLetter",
    "upperalpha": "upperLetter",
    "lowerroman": "lowerRoman",
    "upperroman": "upperRoman",
}
_FILE_OPTIONS = frozenset({"orphan", "nocomments", "tocdepth", "nosearch"})
_LISTS = (nodes.bullet_list, nodes.enumerated_list, nodes.definition_list, nodes.field_list, nodes.option_list)
_UNSEEN = (nodes.comment, nodes.substitution_definition, nodes.target, nodes.raw, nodes.decoration, nodes.meta)
_NOTES = (nodes.footnote, nodes.citation)


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Sections, paragraphs, lists, tables and code; a footnote follows what refers to it; title of the first section.

    Raises ParseError as `decode` does.
    """
    source = normalise(decode(data, declared=(charset,)))
    with registered(source):
        document = publish_doctree(source, parser=Parser(inliner=inliner()), settings_overrides=_SETTINGS)
    walker = _Walker(document)
    walker.blocks(document.children)
    walker.notes_left()
    return walker.built.parsed(media_type=media_type, parser=FINGERPRINT, title=walker.title)


class _Walker:
    """Turns the tree of docutils into blocks. A list is one block as long as only text is in it."""

    def __init__(self, document: nodes.document) -> None:
        self.built = Builder()
        self.title = ""
        self._level = 0
        self._depth = -1  # of the list that is open
        self._items: list[tuple[int, str, str]] = []
        self._lead = ""  # marker of the item whose first line comes next
        self._referred: list[str] = []
        self._footnotes = {
            each: node for node in document.findall(nodes.Element) if isinstance(node, _NOTES) for each in node["ids"]
        }
        self._labels = {
            name: section.children[0].astext()
            for section in document.findall(nodes.section)
            for name in section["names"]
            if isinstance(section.children[0], nodes.title)
        }
        self._written: set[int] = set()

    def blocks(self, children: Iterable[nodes.Node]) -> None:
        """Every block; one that has no method of its own is a container."""
        for node in children:
            if isinstance(node, _UNSEEN):
                continue
            if method := getattr(self, f"_{type(node).__name__}", None):
                method(node)
            elif isinstance(node, _LISTS):
                self._list(node)
            elif isinstance(node, nodes.Admonition):
                self._admonition(node)
            elif isinstance(node, nodes.TextElement):
                self._say(self.text(node))
            else:
                self.blocks(node.children)

    def text(self, node: nodes.Node) -> str:
        """The words in a paragraph, a line break in the source being a space."""
        pieces: list[str] = []
        self._collect(node, pieces)
        return "".join(pieces).replace("\n", " ")

    def _collect(self, node: nodes.Node, pieces: list[str]) -> None:
        for child in node.children:
            if isinstance(child, nodes.Text):
                pieces.append(child.astext())
            elif isinstance(child, nodes.footnote_reference):
                self._refer(child)
            elif isinstance(child, nodes.citation_reference):
                self._refer(child)
                pieces.append(f"[{child.astext()}]")
            elif isinstance(child, nodes.image):
                pieces.append(child.get("alt", ""))
            elif isinstance(child, nodes.problematic):
                whole = child.astext()
                found = _REFERENCE.fullmatch(whole)
                pieces.append(found[1] if found else whole)
            elif isinstance(child, nodes.inline) and (title := self._labels.get(child.get("label", ""))):
                pieces.append(title)
            elif not isinstance(child, (nodes.raw, nodes.system_message)):
                self._collect(child, pieces)

    def _refer(self, node: nodes.Element) -> None:
        if refid := node.get("refid"):
            self._referred.append(refid)

    def _say(self, text: str) -> None:
        """A paragraph, or text of the list item that is open."""
        if not text.strip():
            return
        if self._depth < 0 or not (self._items or self._lead):  # in an item, what follows code
            self.built.paragraph(text)
            self._notes()
        elif self._lead:
            self._items.append((self._depth, self._lead, text))
            self._lead = ""
        else:
            depth, marker, before = self._items[-1]
            if depth == self._depth and marker:
                self._items[-1] = (depth, marker, f"{before}\n{text}")
            else:
                self._items.append((self._depth, "", text))

    def _close(self) -> None:
        """End the list before something that is no text."""
        items, self._items = [item for item in self._items if item[2].strip()], []
        self.built.items(items)
        self._notes()

    def _notes(self) -> None:
        while self._referred:
            waiting, self._referred = self._referred, []
            for each in waiting:
                if note := self._footnotes.get(each):
                    self._footnote(note)

    def notes_left(self) -> None:
        """Notes to which nothing refers."""
        for note in self._footnotes.values():
            self._footnote(note)

    # Each of these is called for the node of its name.

    def _section(self, node: nodes.section) -> None:
        self._level += 1
        self.blocks(node.children)
        self._level -= 1

    def _title(self, node: nodes.title) -> None:
        text = self.text(node)
        self.title = self.title or inline(text)
        self.built.heading(text, max(1, self._level))
        self._notes()

    def _literal_block(self, node: nodes.Element) -> None:
        self._close()
        self.built.code(node.astext())

    _doctest_block = _math_block = _literal_block

    def _line_block(self, node: nodes.line_block) -> None:
        self._say("\n".join(self.text(line) for line in node.findall(nodes.line)))

    def _image(self, node: nodes.image) -> None:
        self._say(node.get("alt", ""))

    def _attribution(self, node: nodes.attribution) -> None:
        self._say("— " + self.text(node))

    def _topic(self, node: nodes.Element) -> None:
        for child in node.children:
            self._say(self.text(child)) if isinstance(child, nodes.title) else self.blocks((child,))

    _sidebar = _topic

    def _admonition(self, node: Any) -> None:
        """ "Note: " before its first paragraph, or its own title."""
        children = list(node.children)
        if children and isinstance(children[0], nodes.title):
            lead = self.text(children.pop(0))
        else:
            lead = type(node).__name__.capitalize()
        if children and isinstance(children[0], nodes.paragraph):
            self._say(f"{lead}: {self.text(children.pop(0))}")
        else:
            self._say(f"{lead}:")
        self.blocks(children)

    def _footnote(self, node: Any) -> None:
        """A note's own paragraphs, once; a citation is known by its label."""
        if id(node) in self._written:
            return
        self._written.add(id(node))
        depth, self._depth = self._depth, -1
        lead = f"[{node.children[0].astext()}] " if isinstance(node, nodes.citation) else ""
        for child in node.children[1:]:
            if lead and isinstance(child, nodes.paragraph):
                self.built.paragraph(lead + self.text(child))
                lead = ""
            else:
                self.blocks((child,))
        self._depth = depth

    def _citation(self, node: nodes.citation) -> None:
        self._footnote(node)

    def _outside(self, node: nodes.Element) -> None:
        self.built.note("Text that the document takes from another file was left out.")

    def _system_message(self, node: nodes.system_message) -> None:
        """A directive that docutils refused: its source is all there is."""
        message = node.children[0].astext() if node.children else ""
        if message.startswith("File and URL access"):
            self._outside(node)
        elif message.startswith('Error in "'):
            for source in node.findall(nodes.literal_block):
                self._literal_block(source)

    def _table(self, node: nodes.table) -> None:
        self._close()
        for title in node.children:
            if isinstance(title, nodes.title):
                self.built.paragraph(self.text(title))
        for group in node.findall(nodes.tgroup):
            self.built.table(list(self._rows(group)))
        self._notes()

    def _rows(self, group: nodes.tgroup) -> Iterator[list[str]]:
        """Cells of each row; what a merged one covers is empty."""
        covered: dict[int, int] = {}  # rows still to come, by column
        for row in group.findall(nodes.row):
            cells: list[str] = []
            entry: Any
            for entry in row.children:
                while covered.get(len(cells), 0):
                    covered[len(cells)] -= 1
                    cells.append("")
                at, width = len(cells), 1 + entry.get("morecols", 0)
                if entry.get("morerows"):
                    covered |= dict.fromkeys(range(at, at + width), entry["morerows"])
                cells += [self._flat(entry), *[""] * (width - 1)]
            while covered.get(len(cells), 0):
                covered[len(cells)] -= 1
                cells.append("")
            yield cells

    def _flat(self, node: Any) -> str:
        """All that a cell says on one line."""
        found: list[str] = []
        stack: list[Any] = [node]
        while stack:
            each = stack.pop()
            if isinstance(each, (nodes.TextElement, nodes.image)) and not isinstance(each, _UNSEEN):
                found.append(each.get("alt", "") if isinstance(each, nodes.image) else self.text(each))
            elif not isinstance(each, (*_UNSEEN, nodes.system_message)):
                stack.extend(reversed(each.children))
        return " ".join(filter(None, found))

    def _list(self, node: nodes.Element) -> None:
        self._depth += 1
        number = node.get("start", 1)
        for item in node.children:
            if isinstance(item, nodes.list_item):
                self._lead = "-"
                if isinstance(node, nodes.enumerated_list):
                    form = _FORMS.get(node.get("enumtype", ""), "decimal")
                    self._lead = node.get("prefix", "") + formatted(number, form) + node.get("suffix", "")
                    number += 1
                self.blocks(item.children)
            elif isinstance(item, nodes.definition_list_item):
                self._definition(item)
            elif isinstance(item, nodes.field):
                self._named(self.text(item.children[0]), ":", item.children[1])
            elif isinstance(item, nodes.option_list_item):
                options = (option.astext() for option in item.children[0].children)
                self._named(", ".join(options), "", item.children[1])
            self._lead = ""
        self._depth -= 1
        if self._depth < 0:
            self._close()

    def _definition(self, item: nodes.Element) -> None:
        """Terms, and below them what they mean."""
        terms = [self.text(child) for child in item.children if isinstance(child, (nodes.term, nodes.classifier))]
        self._items.append((self._depth, "", " : ".join(terms)))
        self._depth += 1
        for child in item.children:
            if isinstance(child, nodes.definition):
                self.blocks(child.children)
        self._depth -= 1

    def _named(self, name: str, after: str, body: nodes.Node) -> None:
        """A field or an option: its name before what is said of it."""
        if body.children:
            self._lead = name + after
            self.blocks(body.children)
        if (self._lead or not body.children) and name not in _FILE_OPTIONS:
            self._items.append((self._depth, "", name))
