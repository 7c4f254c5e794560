"""RTF to text: headings by style or outline level, lists, tables, notes and comments.

striprtf, the library for it, keeps neither headings nor lists nor notes and goes through the text byte by byte, so this
is a reader of its own by the specification (RTF 1.9.1): one pass over the tokens, a tuple per open group.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from apps.documents.parsing.legacy.flow import Flow, marker_of
from apps.documents.parsing.legacy.rtf_tokens import MAX_DEPTH, TOKEN, Charset, code_page, fonts, skip_group, styles
from apps.documents.parsing.legacy.rtf_words import CHARACTERS, ESCAPED, FRAMES, SKIPPED, STARRED, SYMBOLS
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "rtf/1"

_TITLE, _UNICODE_TITLE = re.compile(rb"\{\\title "), re.compile(rb"\\ud\s*\{\\title ")


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """Text as a reader sees it, without fields' instructions, hidden and deleted text, headers and footers.

    A note or comment follows its paragraph; what comes behind a brace too many is read as well, and what an unclosed
    group misses is what there is. Raises ParseError("malformed") for more than MAX_DEPTH open groups.
    """
    reader = Reader(data)
    reader.read()
    return reader.flow.finish().parsed(media_type=media_type, parser=FINGERPRINT, title=reader.title)


@dataclass(slots=True)
class _Frame:
    """The paragraph that is being read; a footnote has one of its own."""

    text: list[str] = field(default_factory=list)
    marker: list[str] = field(default_factory=list)
    style: int = 0
    outline: int | None = None
    depth: int = 0
    in_table: bool = False
    lines: list[str] | None = None  # of a footnote: its paragraphs


class Reader:
    """One pass over the tokens. What a group changes is put back at its end."""

    def __init__(self, data: bytes) -> None:
        self.flow = Flow()
        self.title: str | None = None
        self._data = data
        self._fonts: dict[int, Charset] = {}
        self._last_word = data.rfind(b"\\par")
        self._default = self._charset = Charset("cp1252")
        self._default_font = -1
        self._bytes: list[bytes] = []  # text of one charset that is not decoded yet
        self._frame = _Frame()
        self._to_marker = False
        self._unseen = False  # hidden or deleted
        self._after_unicode = 1
        self._to_skip = 0
        self._groups: list[tuple[Charset, bool, bool, int, _Frame | None, str]] = []
        self._levels: dict[int, int] = {}
        self._starred = False
        self._words: dict[bytes, Callable[[int | None], None]] = {
            name.removeprefix("_on_").encode(): getattr(self, name) for name in dir(self) if name.startswith("_on_")
        }

    def read(self) -> None:
        at, data = 0, self._data
        while at < len(data):
            at = self._run(data, at)
        while self._groups:
            self._close()
        self._end_paragraph()

    def _run(self, data: bytes, at: int) -> int:
        """Tokens from `at` to the next jump; where to go on."""
        words, texts = self._words, self._bytes
        opened = -1
        for match in TOKEN.finditer(data, at):
            word, number, code, sign, brace, text = match.groups()
            if text is not None:
                if self._to_skip:
                    cut = min(self._to_skip, len(text))
                    self._to_skip -= cut
                    text = text[cut:]
                if not self._unseen:
                    texts.append(text)
            elif word is not None:
                self._to_skip = 0
                if word == b"bin":
                    return match.end() + max(0, int(number or 0))
                if word == b"upr":  # its first group says in bytes what its second, \\ud, says in Unicode
                    return skip_group(data, data.find(b"{", match.end()) + 1 or len(data))
                if self._starred or word in SKIPPED:
                    starred, self._starred = self._starred, False
                    if self._groups and (word in SKIPPED or (starred and word not in STARRED)):
                        self._close()
                        return skip_group(data, match.end())
                if word in FRAMES:
                    self._open_frame(word)
                elif word in (b"fonttbl", b"stylesheet", b"info"):
                    return self._table(word, match.end())
                elif (on := words.get(word)) is not None:
                    on(int(number) if number else None)
                elif word in CHARACTERS:
                    self._put(CHARACTERS[word])
            elif code is not None:
                if self._to_skip:
                    self._to_skip -= 1
                elif not self._unseen:
                    texts.append(bytes.fromhex(code.decode()))
            elif brace is not None:
                self._to_skip = 0
                self._starred = False
                if brace == b"{":
                    self._open()
                    opened = match.end()
                else:
                    self._close()
                    if not self._groups and match.end() > self._last_word:
                        return len(data)  # what follows is no part of the document
            elif sign == b"*":
                self._starred = match.start() - opened <= 2  # between them at most a line's end
            elif sign in (b"\r", b"\n"):
                self._end_paragraph()
            elif self._to_skip and (sign in SYMBOLS or sign in ESCAPED):
                self._to_skip -= 1
            elif sign in ESCAPED:
                if not self._unseen:
                    texts.append(sign)
            elif sign in SYMBOLS:
                self._put(SYMBOLS[sign])
        return len(data)

    def _table(self, word: bytes, at: int) -> int:
        end = skip_group(self._data, at)
        table = self._data[at:end]
        if word == b"fonttbl":
            self._fonts |= fonts(table)
            self._charset = self._font(self._default_font)
        elif word == b"stylesheet":
            self._levels = styles(table)
        elif found := _UNICODE_TITLE.search(table) or _TITLE.search(table):
            self.title = Reader(table[found.end() : skip_group(table, found.end()) - 1]).plain(self._default)
        self._close()
        return end

    def plain(self, charset: Charset) -> str:
        """The text alone, of a value without paragraphs."""
        self._default = self._charset = charset
        self._run(self._data, 0)
        self._flush()
        return "".join(self._frame.text)

    # --- text

    def _font(self, number: int) -> Charset:
        return self._fonts.get(number, self._default)

    def _set_charset(self, charset: Charset) -> None:
        if charset != self._charset:
            self._flush()
            self._charset = charset

    def _flush(self) -> None:
        if self._bytes:
            text = self._charset.decode(b"".join(self._bytes))
            self._bytes.clear()
            (self._frame.marker if self._to_marker else self._frame.text).append(text)

    def _put(self, text: str) -> None:
        if not self._unseen:
            self._flush()
            (self._frame.marker if self._to_marker else self._frame.text).append(text)

    # --- groups

    def _open(self) -> None:
        if len(self._groups) >= MAX_DEPTH:
            raise ParseError("malformed", "The RTF groups are nested too deeply.")
        self._groups.append((self._charset, self._to_marker, self._unseen, self._after_unicode, None, ""))

    def _open_frame(self, word: bytes) -> None:
        self._flush()
        if self._groups and self._groups[-1][4] is None:
            kind = "Comment: " if word == b"annotation" else ""
            self._groups[-1] = (*self._groups[-1][:4], self._frame, kind)
            self._frame = _Frame(lines=[])
            self._to_marker = False

    def _close(self) -> None:
        if not self._groups:
            return
        charset, to_marker, unseen, after, frame, kind = self._groups.pop()
        if to_marker != self._to_marker or frame is not None:
            self._flush()
        if frame is not None:
            self._end_paragraph()
            if lines := self._frame.lines:
                self.flow.later(kind + "\n".join(lines))
            self._frame = frame
        self._set_charset(charset)
        self._to_marker, self._unseen, self._after_unicode = to_marker, unseen, after

    # --- paragraphs, cells and rows

    def _end_paragraph(self) -> None:
        self._flush()
        frame = self._frame
        text, marker = "".join(frame.text), "".join(frame.marker)
        frame.text.clear()
        frame.marker.clear()
        if frame.lines is not None:
            if text.strip():
                frame.lines.append(text)
            return
        if not text and not frame.in_table:
            return
        marker = marker_of(marker) or ("-" if marker else "")
        if frame.in_table:
            self.flow.cell_paragraph(text, marker=marker)
            return
        level = self._levels.get(frame.style, 0) if frame.outline is None else frame.outline
        self.flow.paragraph(text, level=level, depth=frame.depth, marker=marker)

    def _on_par(self, _: int | None) -> None:
        if not self._unseen:
            self._end_paragraph()

    _on_sect = _on_page = _on_column = _on_nestcell = _on_par

    def _on_cell(self, _: int | None) -> None:
        self._frame.in_table = True
        self._end_paragraph()
        if self._frame.lines is None:
            self.flow.end_cell()

    def _on_row(self, _: int | None) -> None:
        if self._frame.lines is None:
            self.flow.end_row()

    def _on_pard(self, _: int | None) -> None:
        if self._to_marker:
            return
        frame = self._frame
        frame.style, frame.outline, frame.depth, frame.in_table = 0, None, 0, False

    def _on_intbl(self, _: int | None) -> None:
        self._frame.in_table = True

    def _on_itap(self, number: int | None) -> None:
        self._frame.in_table = bool(number)

    def _on_s(self, number: int | None) -> None:
        self._frame.style = number or 0

    def _on_outlinelevel(self, number: int | None) -> None:
        self._frame.outline = number + 1 if number is not None and 0 <= number < 9 else 0

    def _on_ilvl(self, number: int | None) -> None:
        self._frame.depth = max(0, number or 0)

    def _on_listtext(self, _: int | None) -> None:
        self._flush()
        self._frame.marker.clear()
        self._to_marker = True

    _on_pntext = _on_listtext

    # --- characters

    def _on_plain(self, _: int | None) -> None:
        self._unseen = False
        self._set_charset(self._font(self._default_font))

    def _on_v(self, number: int | None) -> None:
        self._unseen = number != 0

    _on_deleted = _on_v

    def _on_f(self, number: int | None) -> None:
        self._set_charset(self._font(number or 0))

    def _on_deff(self, number: int | None) -> None:
        self._default_font = number or 0

    def _on_ansicpg(self, number: int | None) -> None:
        if found := code_page(str(number)):
            self._default = found
            self._set_charset(found)

    def _on_mac(self, _: int | None) -> None:
        self._default = Charset("mac_roman")
        self._set_charset(self._default)

    def _on_uc(self, number: int | None) -> None:
        self._after_unicode = max(0, 1 if number is None else number)

    def _on_u(self, number: int | None) -> None:
        if number is not None and -0x8000 <= number < 0x10000:
            self._put(chr(number % 0x10000))
        self._to_skip = self._after_unicode
