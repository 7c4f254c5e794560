"""Properties of paragraphs, characters and styles in Word 97-2003 files ([MS-DOC] 2.6)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from apps.documents.parsing.legacy.flow import is_pictures

_HEADINGS, _TITLE = range(1, 10), 62  # sti of the styles that Word is delivered with (2.9.260)
_MOST = 4096  # styles, fonts


@dataclass(frozen=True, slots=True)
class Paragraph:
    """What of a paragraph's properties matters to a reader."""

    level: int = 0  # of a heading
    list_id: int = 0  # index of a list override, from 1
    list_level: int = 0
    in_table: bool = False
    row_end: bool = False
    depth: int = 0  # of the table
    cell_end: bool = False  # of a table in a table


PLAIN = Paragraph()


def sprms(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(operation, operand) of each property modification (2.6.1)."""
    at = 0
    while at + 3 <= len(data):
        operation = data[at] | data[at + 1] << 8
        at += 2
        size = (1, 1, 2, 4, 2, 2, 0, 3)[operation >> 13]
        if operation == 0xD608:  # sprmTDefTable
            size = 1 + (data[at] | data[at + 1] << 8 if at + 1 < len(data) else 0)
        elif size == 0:
            size = 1 + data[at]
        yield operation, data[at : at + size]
        at += max(size, 1)


def apply(paragraph: Paragraph, modifications: bytes, blobs: bytes = b"") -> Paragraph:
    """`paragraph` with what the modifications change of it."""
    for operation, operand in sprms(modifications):
        value = operand[0] if operand else 0
        if operation == 0x2416:
            paragraph = replace(paragraph, in_table=value == 1, depth=max(paragraph.depth, int(value == 1)))
        elif operation in (0x2417, 0x244C):
            paragraph = replace(paragraph, row_end=value == 1)
        elif operation == 0x244B:
            paragraph = replace(paragraph, cell_end=value == 1)
        elif operation == 0x6649:
            paragraph = replace(paragraph, in_table=value > 0, depth=value)
        elif operation == 0x2640:  # sprmPOutLvl
            paragraph = replace(paragraph, level=value + 1 if value < 9 else 0)
        elif operation == 0x260A:
            paragraph = replace(paragraph, list_level=min(value, 8))
        elif operation == 0x460B:
            number = int.from_bytes(operand, "little")
            paragraph = replace(paragraph, list_id=number if number <= 0x7FF else 0)
        elif operation in (0x6645, 0x6646) and blobs:  # sprmPHugePapx: they stand in the data stream
            at = int.from_bytes(operand, "little")
            length = int.from_bytes(blobs[at : at + 2], "little")
            paragraph = apply(paragraph, blobs[at + 2 : at + 2 + length])
    return paragraph


def characters(modifications: bytes, fonts: list[str]) -> tuple[bool, int | None, str | None]:
    """(is it hidden or deleted?, the symbol drawn, the name of the font where it is one of symbols)."""
    deleted, hidden, drawn, font = False, False, None, None
    for operation, operand in sprms(modifications):
        if operation == 0x0800:  # sprmCFRMarkDel
            deleted = operand[:1] == b"\1"
        elif operation == 0x083C:  # sprmCFVanish
            hidden = operand[:1] in (b"\1", b"\x81")
        elif operation == 0x6A09 and len(operand) == 4:  # sprmCSymbol
            number, code = struct.unpack("<HH", operand)
            drawn = 0 if number < len(fonts) and is_pictures(fonts[number]) else code
        elif operation == 0x4A4F and len(operand) == 2:  # sprmCRgFtc0
            number = int.from_bytes(operand, "little")
            name = fonts[number] if number < len(fonts) else ""
            font = name if name == "Symbol" or is_pictures(name) else None
    return deleted or hidden, drawn, font


def styles(sheet: bytes) -> dict[int, Paragraph]:
    """What each paragraph style says, with what it is based on (2.9.271)."""
    if len(sheet) < 6:
        return {}
    header = int.from_bytes(sheet[:2], "little")
    base_size = int.from_bytes(sheet[4:6], "little")
    at, number = 2 + header, 0
    raw: dict[int, tuple[int, int, bytes]] = {}
    while at + 2 <= len(sheet) and number < _MOST:
        length = int.from_bytes(sheet[at : at + 2], "little")
        style = sheet[at + 2 : at + 2 + length]
        at += 2 + length + length % 2
        if len(style) >= 10 and style[2] & 0xF == 1:
            words = struct.unpack_from("<2H", style)
            raw[number] = (words[0] & 0xFFF, words[1] >> 4, _upx(style, base_size))
        number += 1
    found: dict[int, Paragraph] = {}
    for index in raw:
        chain: list[int] = []
        while index in raw and index not in found and index not in chain:
            chain.append(index)
            index = raw[index][1]
        paragraph = found.get(index, PLAIN)
        for each in reversed(chain):
            sti = raw[each][0]
            if sti in _HEADINGS or sti == _TITLE:
                paragraph = replace(paragraph, level=1 if sti == _TITLE else sti)
            paragraph = found[each] = apply(paragraph, raw[each][2])
    return found


def _upx(style: bytes, at: int) -> bytes:
    """The paragraph's part of a style's modifications."""
    at += 2 + 2 * int.from_bytes(style[at : at + 2], "little") + 2
    length = int.from_bytes(style[at : at + 2], "little")
    return style[at + 4 : at + 2 + length]


def fonts(table: bytes) -> list[str]:
    """Names of the fonts (SttbfFfn, 2.9.286)."""
    names: list[str] = []
    at = 4
    while at < len(table) and len(names) < _MOST:
        entry = table[at + 1 : at + 1 + table[at]]
        names.append(entry[39:].decode("utf-16-le", "ignore").split("\0", 1)[0])
        at += 1 + table[at]
    return names
