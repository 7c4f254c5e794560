"""A Word 97-2003 file as [MS-DOC] lays it out: text by its piece table, properties of paragraphs and characters.

Positions in the text are character positions (CP), positions in the file are FCs. Every count that the file states is
bounded by the length of the stream it is about.
"""

from __future__ import annotations

import codecs
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import olefile

from apps.documents.parsing.encoding import decode
from apps.documents.parsing.legacy.doc_properties import Paragraph, apply, characters, fonts, styles
from apps.documents.parsing.legacy.flow import is_pictures, symbol
from apps.documents.parsing.types import ParseError

# Places in FibRgFcLcb97 (2.5.6), each a pair of offset and length in the table stream.
STYLES, FOOTNOTE_REFS, FOOTNOTES, COMMENT_REFS, COMMENTS, CHPX, PAPX, FONTS = 1, 2, 3, 4, 5, 12, 13, 15
CLX, BOX_ANCHORS, ENDNOTE_REFS, ENDNOTES, BOXES, LISTS, LIST_OVERRIDES = 33, 40, 46, 47, 56, 73, 74
PARTS = ("text", "footnotes", "headers", "macros", "comments", "endnotes", "boxes")

_WORD_97 = 0xC1  # nFib
_ENCRYPTED, _FAST_SAVED, _TABLE_1 = 0x0100, 0x0004, 0x0200
_PAGE = 512
_COMPRESSED = 0x40000000  # FcCompressed (2.9.73)
_CP1252 = bytes(range(256)).decode("cp1252", "surrogateescape").translate({0xDC00 + at: at for at in range(256)})
# FcCompressed names the bytes that are not Latin-1; 0x80, 0x8E and 0x9E are not among them but are written as cp1252.
_CONTROLS = b" " * 0x20 + bytes(range(0x20, 0x100))
_PRIVATE = re.compile("[\uf020-\uf0ff]")


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int  # CP
    end: int
    at: int  # FC
    width: int  # bytes of a character


class WordFile:
    """The streams of one file. Raises ParseError: "encrypted", "corrupt", "unsupported"."""

    def __init__(self, ole: olefile.OleFileIO) -> None:
        self.data = _stream(ole, "WordDocument")
        if len(self.data) < 0x60:
            raise ParseError("corrupt", "The Word document has no header.")
        self.notes: list[str] = []
        self.version, flags = struct.unpack_from("<2xH6xH", self.data)
        if flags & _ENCRYPTED:
            raise ParseError("encrypted", "The document is encrypted and needs a password.")
        self.old = self.version < _WORD_97
        name = f"{int(bool(flags & _TABLE_1))}Table"
        self.table = self.data if self.old else _stream(ole, name) or _stream(ole, f"{1 - int(name[0])}Table")
        self._blobs = _stream(ole, "Data")
        counts = struct.unpack_from("<7i", self.data, 0x34 if self.old else 0x4C)
        self.lengths = dict(zip(PARTS, (max(0, count) for count in counts), strict=True))
        self._pieces = self._piece_table(flags)
        self.text = self._read_text()
        self.styles: dict[int, Paragraph] = {}
        self._paragraphs: tuple[list[int], list[int], list[bytes]] = ([], [], [])
        self._seen: dict[bytes, Paragraph] = {}

    def part(self, name: str) -> tuple[int, int]:
        """Where a part of the text starts and ends, in CPs."""
        start = 0
        for each, length in self.lengths.items():
            if each == name:
                return min(start, len(self.text)), min(start + length, len(self.text))
            start += length
        raise KeyError(name)

    def entry(self, index: int) -> bytes:
        """What an entry of FibRgFcLcb97 points to, empty where it points nowhere."""
        at, length = self._place(index)
        return self.table[at : at + length]

    def after(self, index: int) -> bytes:
        """What follows an entry in the table stream: the levels behind the lists."""
        at, length = self._place(index)
        return self.table[at + length :] if length else b""

    def plc(self, index: int, size: int) -> tuple[list[int], list[bytes]]:
        """(n + 1 positions, n data of `size` bytes) of a PLC (2.2.2)."""
        return _plc(self.entry(index), size)

    def _place(self, index: int) -> tuple[int, int]:
        at = (0x58 if self.old else 0x9A) + 8 * index
        if at + 8 > len(self.data):
            return 0, 0
        place: tuple[int, int] = struct.unpack_from("<II", self.data, at)
        return place

    # --- text

    def _piece_table(self, flags: int) -> list[_Piece]:
        clx, at = self.entry(CLX), 0
        while at + 3 <= len(clx) and clx[at] == 1:  # Prc
            at += 3 + int.from_bytes(clx[at + 1 : at + 3], "little")
        if at + 5 <= len(clx) and clx[at] == 2:  # Pcdt
            return self._pieces_of(clx[at + 5 : at + 5 + int.from_bytes(clx[at + 1 : at + 5], "little")])
        if self.old and not flags & _FAST_SAVED:
            start, end = struct.unpack_from("<II", self.data, 0x18)
            if start <= end <= len(self.data):
                return [_Piece(0, end - start, start, 1)]
        raise ParseError("corrupt", "The table that says where the text of the Word document stands is damaged.")

    def _pieces_of(self, table: bytes) -> list[_Piece]:
        pieces: list[_Piece] = []
        positions, descriptions = _plc(table, 8)
        left = len(self.data)  # no text is longer than the file it stands in
        for start, end, described in zip(positions, positions[1:], descriptions, strict=False):
            at = int.from_bytes(described[2:6], "little")
            width = 1
            if not self.old:
                width = 1 if at & _COMPRESSED else 2
                at = (at & ~_COMPRESSED) // 2 if at & _COMPRESSED else at
            there = (len(self.data) - at) // width
            if start != (pieces[-1].end if pieces else 0) or not start < end or end - start > min(there, left):
                self.notes.append("A part of the text could not be read: the table that says where it stands is wrong.")
                if start != (pieces[-1].end if pieces else 0) or there <= 0 or left <= 0 or end <= start:
                    break
                end = start + min(there, left)
            left -= end - start
            pieces.append(_Piece(start, end, at, width))
        return pieces

    def _read_text(self) -> str:
        raws = [self.data[piece.at : piece.at + (piece.end - piece.start) * piece.width] for piece in self._pieces]
        if self.old:
            return _guessed(b"".join(raws))
        parts = []
        for piece, raw in zip(self._pieces, raws, strict=True):
            if piece.width == 1:
                text = codecs.charmap_decode(raw, "replace", _CP1252)[0]
            else:
                text = raw.decode("utf-16-le", "surrogatepass")
                if len(text) != piece.end - piece.start:  # CPs count the halves of a character beyond U+FFFF
                    text = "".join(map(chr, struct.unpack(f"<{len(raw) // 2}H", raw)))
            parts.append(text)
        return "".join(parts)

    # --- properties

    def load_properties(self) -> None:
        """Read the tables of paragraphs and styles; what is damaged in them is taken as not there."""
        self.styles = styles(self.entry(STYLES))
        starts, ends, properties = self._paragraphs
        for start, end, prop in sorted(self._runs(PAPX, 13)):
            starts.append(start)
            ends.append(end)
            properties.append(prop)

    def paragraph_at(self, cp: int) -> Paragraph | None:
        """Properties of the paragraph that ends with the character at `cp`; None where the file does not tell."""
        starts, ends, properties = self._paragraphs
        at = bisect_right(self._pieces, cp, key=lambda piece: piece.start) - 1
        if at < 0 or not starts:
            return None
        fc = self._pieces[at].at + (cp - self._pieces[at].start) * self._pieces[at].width
        found = bisect_right(starts, fc) - 1
        if found < 0 or fc >= ends[found]:
            return None
        prop = properties[found]
        if prop not in self._seen:
            style = int.from_bytes(prop[:2], "little")
            base = self.styles.get(style) or Paragraph(level=style if style < 10 else 0)  # 2.4.6.4: 1 to 9 are headings
            self._seen[prop] = apply(base, prop[2:], self._blobs)
        return self._seen[prop]

    def edits(self) -> Iterator[tuple[int, int, str]]:
        """(start, end, text of the same length) in CPs: hidden and deleted text as NULs, symbols as what they draw."""
        names = fonts(self.entry(FONTS))
        has_symbols = _PRIVATE.search(self.text) is not None
        by_place = sorted(self._pieces, key=lambda piece: piece.at)
        seen: dict[bytes, tuple[bool, int | None, str | None]] = {}
        for start, end, prop in self._runs(CHPX, 1):
            if prop not in seen:
                seen[prop] = characters(prop, names)
            unseen, drawn, font = seen[prop]
            if not unseen and drawn is None and not (has_symbols and font is not None):
                continue
            for first, last in _positions(by_place, start, end):
                if unseen:
                    yield first, last, "\0" * (last - first)
                elif drawn is not None:
                    yield (
                        first,
                        last,
                        "".join((symbol(drawn) or "\0") if char == "(" else char for char in self.text[first:last]),
                    )
                else:
                    yield first, last, _drawn(self.text[first:last], str(font))

    def _runs(self, index: int, size: int) -> Iterator[tuple[int, int, bytes]]:
        """(start FC, end FC, properties) of each run in the pages that a PlcBte lists (2.9.175, 2.9.34)."""
        for number in self.plc(index, 4)[1]:
            at = (int.from_bytes(number, "little") & 0x3FFFFF) * _PAGE
            page = self.data[at : at + _PAGE]
            if len(page) < _PAGE or (count := page[-1]) * (4 + size) + 5 > _PAGE:
                continue
            places = struct.unpack_from(f"<{count + 1}I", page)
            for nth in range(count):
                offset = 2 * page[4 * (count + 1) + nth * size]
                yield places[nth], places[nth + 1], _property(page, offset, size > 1) if offset else b""


def _property(page: bytes, at: int, of_paragraph: bool) -> bytes:
    length = page[at]
    if not of_paragraph:  # Chpx (2.9.32)
        return page[at + 1 : at + 1 + length]
    if length:  # PapxInFkp (2.9.176)
        return page[at + 1 : at + 2 * length]
    return page[at + 2 : at + 2 + 2 * page[at + 1]]


def _drawn(text: str, font: str) -> str:
    """`text` with the private-use characters that stand for the glyphs of a font of symbols as what they draw."""
    pictures = is_pictures(font)
    return _PRIVATE.sub(lambda char: "\0" if pictures else symbol(ord(char[0])) or "\0", text)


def _positions(by_place: list[_Piece], start: int, end: int) -> Iterator[tuple[int, int]]:
    """The CPs of the characters that stand in the file from `start` to `end`."""
    at = max(0, bisect_right(by_place, start, key=lambda piece: piece.at) - 1)
    while at < len(by_place) and by_place[at].at < end:
        piece = by_place[at]
        first = piece.start + max(0, start - piece.at) // piece.width
        last = min(piece.end, piece.start + (end - piece.at) // piece.width)
        if first < last:
            yield first, last
        at += 1


def _stream(ole: olefile.OleFileIO, name: str) -> bytes:
    try:
        return bytes(ole.openstream(name).read()) if ole.exists(name) else b""
    except OSError as error:
        raise ParseError("corrupt", "The compound file is damaged.") from error


def _guessed(raw: bytes) -> str:
    """Text of Word 6 and 95, whose file does not say which code page it is in; as many characters as bytes."""
    try:
        text = decode(raw.translate(_CONTROLS))
    except ParseError:
        return codecs.charmap_decode(raw, "replace", _CP1252)[0]
    if len(text) != len(raw):
        return codecs.charmap_decode(raw, "replace", _CP1252)[0]
    return "".join(chr(byte) if byte < 0x20 else char for byte, char in zip(raw, text, strict=True))


def _plc(data: bytes, size: int) -> tuple[list[int], list[bytes]]:
    count = max(0, (len(data) - 4) // (4 + size))
    if not count:
        return [], []
    first = 4 * (count + 1)
    return list(struct.unpack_from(f"<{count + 1}I", data)), [
        data[first + nth * size : first + (nth + 1) * size] for nth in range(count)
    ]
