"""What the reading of RTF and of HTML inside RTF share: tokens, groups to skip, code pages, styles."""

from __future__ import annotations

import re
from dataclasses import dataclass

from apps.documents.parsing.encoding import codec_of
from apps.documents.parsing.legacy.flow import is_pictures, symbol

MAX_DEPTH = 10_000  # open groups; real documents stay under 50

# Control word, its number | byte | control symbol | brace | text. RTF 1.9.1, "Conventions of an RTF Reader"
TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|([^\\{}\r\n]+)", re.DOTALL
)
_BRACE = re.compile(rb"\\bin(\d{1,10}) ?|\\[\\{}]|([{}])")
_FONT = re.compile(rb"\\f(\d{1,6})(?![0-9])|\\fcharset(\d{1,3})|\\cpg(\d{1,5})|([^\\{};]+);|\\[a-z]+-?\d* ?")

_STYLE = re.compile(rb"\\(\*|[a-zA-Z]{1,32})(-?\d{1,6})? ?|\\[^a-zA-Z]|([{}])|([^\\{};]+)")
_HEADING_NAME = re.compile(rb"heading ([1-9])\b", re.IGNORECASE)

_CHARSETS = {
    **{77: "mac_roman", 78: "cp932", 79: "cp949", 80: "gb18030", 81: "cp950", 83: "cp1255", 84: "cp1256"},
    **{85: "mac_greek", 86: "mac_turkish", 87: "cp874", 88: "mac_latin2", 89: "mac_cyrillic"},
    **{0: "cp1252", 128: "cp932", 129: "cp949", 130: "johab", 134: "gb18030", 136: "cp950", 161: "cp1253"},
    **{162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874"},
    **{238: "cp1250", 254: "cp437", 255: "cp850"},
}
_MULTI_BYTE = frozenset({"cp932", "cp949", "cp950", "gb18030", "johab", "gbk", "big5"})
_PAGES = {"936": "gb18030", "10000": "mac_roman", "10001": "cp932", "1361": "johab", "65001": "utf-8", "708": "cp1256"}


@dataclass(frozen=True, slots=True)
class Charset:
    """How the bytes of a font are characters; `codec` may be "symbol" and, for fonts of pictures, "pictures"."""

    codec: str

    def decode(self, data: bytes) -> str:
        if self.codec == "symbol":
            return "".join(map(symbol, data))
        return "" if self.codec == "pictures" else data.decode(self.codec, "replace")


def code_page(number: str) -> Charset | None:
    """The charset of a Windows code page."""
    codec = _PAGES.get(number) or codec_of(f"cp{number}")
    return Charset(codec) if codec else None


def skip_group(data: bytes, at: int) -> int:
    """Where the group that is open at `at` ends: behind its brace, or at the end of the data."""
    depth = 1
    while (match := _BRACE.search(data, at)) is not None:
        at = match.end()
        if match.group(1):
            at += int(match.group(1))
        elif brace := match.group(2):
            depth += 1 if brace == b"{" else -1
            if depth == 0:
                return at
    return len(data)


def fonts(table: bytes) -> dict[int, Charset]:
    """Charset of each font of a font table that names one."""
    found: dict[int, Charset] = {}
    current = -1
    for match in _FONT.finditer(table):
        font, charset, page, name = match.groups()
        if font:
            current = int(font)
        elif charset == b"2":
            found[current] = Charset("symbol")
        elif charset and int(charset) in _CHARSETS:
            found[current] = Charset(_CHARSETS[int(charset)])
        elif page and (known := code_page(page.decode())):
            found[current] = known
        elif (name and is_pictures(name.decode("latin-1"))) or (
            name and name.strip().lower() != b"symbol" and found.get(current) == Charset("symbol")
        ):
            found[current] = Charset("pictures")
    return found


def styles(sheet: bytes) -> dict[int, int]:
    """Heading level of each paragraph style that has one, by its number; a style takes what it is based on."""
    levels: dict[int, int] = {}
    based: dict[int, int] = {}
    depth, number, level, skipped = 0, 0, 0, False
    for match in _STYLE.finditer(sheet):
        word, value, brace, name = match.groups()
        if brace:
            depth += 1 if brace == b"{" else -1
            if depth == 1 and brace == b"{":
                number, level, skipped = 0, 0, False
            elif depth == 0 and level and not skipped:
                levels[number] = level
        elif depth != 1 or skipped:
            continue
        elif word in (b"cs", b"ds", b"ts"):
            skipped = True
        elif word == b"s":
            number = int(value or 0)
        elif word == b"sbasedon":
            based[number] = int(value or 0)
        elif word == b"outlinelevel" and 0 <= int(value or 0) < 9:
            level = int(value or 0) + 1
        elif name and (found := _HEADING_NAME.match(name.strip())):
            level = int(found.group(1))
        elif name and name.strip().lower() == b"title":
            level = 1
    for number in based:
        parent = number
        for _ in range(10):  # a chain may be a circle
            if parent in levels:
                levels.setdefault(number, levels[parent])
                break
            parent = based.get(parent, -1)
    return levels
