"""PowerPoint 97-2003 to text, a page per slide: [MS-PPT] read over olefile, for want of a library that does.

A file keeps what earlier savings wrote; only what the chain of user edits leads to counts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import olefile

from apps.documents.parsing.build import Builder, inline
from apps.documents.parsing.legacy import ppt_records as ppt
from apps.documents.parsing.legacy.flow import visible
from apps.documents.parsing.legacy.ole import open_ole
from apps.documents.parsing.legacy.ppt_records import Record, Text, children, first, records, texts
from apps.documents.parsing.legacy.summary import title_of
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "ppt/1"

_ENCRYPTED = 0xF3D1C4DF  # headerToken of CurrentUserAtom (2.3.2)
_MAX_EDITS = 10_000
_SLIDES, _NOTES = 0, 2  # instance of SlideListWithTextContainer
_TABLE_PROPERTY = 0x039F  # [MS-ODRAW] 2.3.4.37
_LOST = "A slide could not be read whole: the table that says where it stands is damaged."
_DAMAGED = "What the last saving changed could not be told: the list of savings is damaged."


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Titles as headings, the bodies' paragraphs as lists, tables, then speaker notes and comments of each slide.

    Masters, headers and footers are left out. Raises ParseError: "encrypted", "corrupt".
    """
    with open_ole(data) as ole:
        stream = _stream(ole, "PowerPoint Document")
        user = _stream(ole, "Current User")
        title = title_of(ole)
    if not stream:
        raise ParseError("corrupt", "The presentation has no content.")
    if len(user) >= 20 and struct.unpack_from("<I", user, 12)[0] == _ENCRYPTED:
        raise ParseError("encrypted", "The presentation is encrypted and needs a password.")
    deck = _Deck(stream, user)
    for number, slide in enumerate(deck.slides(), start=1):
        deck.built.page = number
        deck.slide(*slide)
    return deck.built.parsed(media_type=media_type, parser=FINGERPRINT, title=title)


def _stream(ole: olefile.OleFileIO, name: str) -> bytes:
    try:
        return bytes(ole.openstream(name).read()) if ole.exists(name) else b""
    except OSError as error:
        raise ParseError("corrupt", "The compound file is damaged.") from error


class _Deck:
    """The presentation as its last saving left it."""

    def __init__(self, data: bytes, user: bytes) -> None:
        self.built = Builder()
        self._data = data
        self._places: dict[int, int] = {}  # of a persist id
        self._document: Record | None = None
        try:
            self._follow_edits(struct.unpack_from("<I", user, 16)[0])
        except (struct.error, IndexError):
            self._document = None
        if any(self._record(place, ppt.SLIDE) is None for _, place, _ in self._listed(_SLIDES)) or not self._document:
            self._take_all()
        self._notes = {slide_id: place for slide_id, place, _ in self._listed(_NOTES)}

    def slides(self) -> Iterator[tuple[Record | None, list[Text]]]:
        """(slide, the texts that the list of slides keeps for it) in the order of the show."""
        for _, place, kept in self._listed(_SLIDES):
            yield self._record(place, ppt.SLIDE), kept

    def slide(self, slide: Record | None, kept: list[Text]) -> None:
        """One slide into the Builder: title first, then its shapes in their order, then notes and comments."""
        shown: list[Text | list[list[str]]] = []
        used: set[int] = set()
        if slide and (drawing := first(self._data, slide, ppt.DRAWING)):
            self._shapes(drawing, kept, used, shown, 0)
        shown += [text for nth, text in enumerate(kept) if nth not in used]
        shown.sort(key=lambda each: not (isinstance(each, Text) and each.kind in ppt.TITLES))
        for each in shown:
            self._write(each)
        if slide is None:
            self.built.note(_LOST)
            return
        atom = first(self._data, slide, ppt.SLIDE_ATOM)
        notes_id = int.from_bytes(self._data[atom.start + 16 : atom.start + 20], "little") if atom else 0
        if notes_id and (notes := self._record(self._notes.get(notes_id, -1), ppt.NOTES)):
            self._speaker_notes(notes)
        tags = first(self._data, slide, ppt.TAGS)
        for comment in ppt.descendants(self._data, tags, ppt.COMMENT) if tags else ():
            self._comment(comment)

    # --- where things stand

    def _follow_edits(self, at: int) -> None:
        """From the last saving back to the first; of a persist id the newest place counts (2.1.2)."""
        document, seen = 0, set[int]()
        while at and at not in seen and len(seen) < _MAX_EDITS:
            seen.add(at)
            kind, back, directory, document_id = struct.unpack_from("<2xH12xIII", self._data, at)
            length = struct.unpack_from("<I", self._data, at + 4)[0]
            if kind != ppt.USER_EDIT:
                break
            if length >= 32:
                raise ParseError("encrypted", "The presentation is encrypted and needs a password.")
            document = document or document_id
            self._read_directory(directory)
            at = back
        self._document = self._record(self._places.get(document, -1), ppt.DOCUMENT)

    def _read_directory(self, at: int) -> None:
        kind, length = struct.unpack_from("<2xHI", self._data, at)
        if kind != ppt.PERSIST_DIRECTORY:
            return
        at, end = at + 8, min(at + 8 + length, len(self._data))
        while at + 4 <= end:
            (head,) = struct.unpack_from("<I", self._data, at)
            count = min(head >> 20, (end - at - 4) // 4)
            for nth, place in enumerate(struct.unpack_from(f"<{count}I", self._data, at + 4)):
                self._places.setdefault((head & 0xFFFFF) + nth, place)
            at += 4 + 4 * count

    def _take_all(self) -> None:
        """Every saving in the order of the file, the last one first, where the chain of them is broken."""
        self._places, self._document = {}, None
        everything = list(records(self._data, 0, len(self._data)))
        for record in reversed(everything):
            if record.type == ppt.PERSIST_DIRECTORY:
                self._read_directory(record.start - 8)
            elif record.type == ppt.DOCUMENT and self._document is None:
                self._document = record
        if self._document is None:
            raise ParseError("corrupt", "The presentation is damaged, or older than PowerPoint 97.")
        self.built.note(_DAMAGED)

    def _record(self, at: int, kind: int) -> Record | None:
        """The record at `at` if it is of this type."""
        if not 0 <= at <= len(self._data) - 8:
            return None
        found = next(records(self._data, at, len(self._data)))
        return found if found.type == kind else None

    def _listed(self, instance: int) -> list[tuple[int, int, list[Text]]]:
        """(slide id, place, texts) of each entry of a list of slides."""
        if self._document is None:
            return []
        entries: list[tuple[int, int, list[Record]]] = []
        for listing in children(self._data, self._document):
            if listing.type != ppt.SLIDE_LIST or listing.instance != instance:
                continue
            for atom in children(self._data, listing):
                if atom.type == ppt.PERSIST_ATOM and atom.end - atom.start >= 16:
                    persist, slide_id = struct.unpack_from("<I8xI", self._data, atom.start)
                    entries.append((slide_id, self._places.get(persist, -1), []))
                elif entries:
                    entries[-1][2].append(atom)
        return [(slide_id, place, list(texts(self._data, iter(atoms)))) for slide_id, place, atoms in entries]

    # --- what is in a slide

    def _shapes(
        self, parent: Record, kept: list[Text], used: set[int], shown: list[Text | list[list[str]]], depth: int
    ) -> None:
        if depth > ppt.MAX_DEPTH:
            return
        for child in children(self._data, parent):
            if child.type == ppt.TEXTBOX:
                shown += self._textbox(child, kept, used)
            elif child.type == ppt.GROUP and self._is_table(child):
                shown.append(self._table(child, kept, used))
            elif child.container:
                self._shapes(child, kept, used, shown, depth + 1)

    def _textbox(self, box: Record, kept: list[Text], used: set[int]) -> list[Text]:
        atoms = list(children(self._data, box))
        for atom in atoms:
            if atom.type == ppt.OUTLINE_REF:
                nth = int.from_bytes(self._data[atom.start : atom.start + 4], "little")
                if nth < len(kept) and nth not in used:
                    used.add(nth)
                    return [kept[nth]]
        return list(texts(self._data, iter(atoms)))

    def _is_table(self, group: Record) -> bool:
        """Do the properties of the group's own shape say that it is a table?"""
        shape = first(self._data, group, ppt.SHAPE)
        options = first(self._data, shape, ppt.MORE_OPTIONS) if shape else None
        if options is None:
            return False
        content = self._data[options.start : options.end]
        return any(
            struct.unpack_from("<H", content, at)[0] & 0x3FFF == _TABLE_PROPERTY
            for at in range(0, min(6 * options.instance, len(content) - 5), 6)
        )

    def _table(self, group: Record, kept: list[Text], used: set[int]) -> list[list[str]]:
        """Rows of cells by where the cells stand; a merged cell stands once."""
        rows: dict[int, list[tuple[int, str]]] = {}
        for cell in children(self._data, group):
            anchor = first(self._data, cell, ppt.CHILD_ANCHOR) if cell.type == ppt.SHAPE else None
            box = first(self._data, cell, ppt.TEXTBOX) if anchor else None
            if anchor and box and anchor.end - anchor.start >= 8:
                left, top = struct.unpack_from("<ii", self._data, anchor.start)
                content = " ".join(text.characters for text in self._textbox(box, kept, used))
                rows.setdefault(top, []).append((left, visible(content.replace("\r", "\n").replace("\x0b", "\n"))))
        return [[text for _, text in sorted(rows[top])] for top in sorted(rows)]

    def _write(self, shown: Text | list[list[str]]) -> None:
        if isinstance(shown, list):
            self.built.table(shown)
            return
        paragraphs = [(depth, visible(text)) for depth, text in shown.paragraphs()]
        if shown.kind in ppt.TITLES:
            self.built.heading(" ".join(text for _, text in paragraphs), 1)
        elif shown.kind in ppt.LISTS:
            self.built.items((depth, "-", text) for depth, text in paragraphs if inline(text))
        else:
            for _, text in paragraphs:
                self.built.paragraph(text)

    def _speaker_notes(self, notes: Record) -> None:
        drawing = first(self._data, notes, ppt.DRAWING)
        for box in ppt.descendants(self._data, drawing, ppt.TEXTBOX) if drawing else ():
            for text in texts(self._data, children(self._data, box)):
                if text.kind == ppt.NOTE_TEXT:
                    lines = "\n".join(visible(line) for _, line in text.paragraphs())
                    if lines.strip("\0 \n\t"):
                        self.built.paragraph("Notes: " + lines.lstrip())

    def _comment(self, comment: Record) -> None:
        for atom in children(self._data, comment):
            if atom.type == ppt.CSTRING and atom.instance == 1:
                text = self._data[atom.start : atom.end].decode("utf-16-le", "ignore")
                if text.strip("\0 \r\n"):
                    self.built.paragraph("Comment: " + visible(text))
