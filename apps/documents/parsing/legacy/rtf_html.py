"""HTML that a mail program wrapped in RTF, as it was before ([MS-OXRTFEX] 2.1.3)."""

from __future__ import annotations

import re

from apps.documents.parsing.legacy.rtf_tokens import MAX_DEPTH, TOKEN, Charset, code_page, fonts, skip_group
from apps.documents.parsing.types import ParseError

_WRAPPED = re.compile(rb"\\fromhtml1(?![0-9])")
_HEAD = 2048  # bytes; the mark stands before the font table
_SKIPPED = frozenset(b"colortbl stylesheet info pict listtext pntext".split())
_CHARACTERS = {
    **{b"par": "\n", b"line": "<br>", b"tab": "\t", b"lquote": "‘", b"rquote": "’", b"ldblquote": "“"},
    **{b"rdblquote": "”", b"bullet": "•", b"endash": "–", b"emdash": "—"},
}
_SYMBOLS = {b"~": "&nbsp;", b"_": "&shy;", b"{": "{", b"}": "}", b"\\": "\\"}


def unwrapped(data: bytes) -> str | None:
    """The HTML inside, None where the RTF holds none."""
    return _Unwrapper(data).html() if _WRAPPED.search(data[:_HEAD]) else None


class _Unwrapper:
    """Text outside `\\htmlrtf` is HTML; so are the groups of `\\*\\htmltag`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._out: list[str] = []
        self._bytes: list[bytes] = []
        self._fonts: dict[int, Charset] = {}
        self._default = self._charset = Charset("cp1252")
        self._off = False
        self._after_unicode, self._to_skip = 1, 0
        self._groups: list[tuple[Charset, bool, int]] = []

    def html(self) -> str:
        at = 0
        while at < len(self._data):
            at = self._run(at)
        self._flush()
        return "".join(self._out).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def _run(self, at: int) -> int:
        starred = False
        for match in TOKEN.finditer(self._data, at):
            word, number, code, sign, brace, text = match.groups()
            if text is not None:
                cut = min(self._to_skip, len(text))
                self._to_skip -= cut
                if not self._off:
                    self._bytes.append(text[cut:])
            elif code is not None:
                if self._to_skip:
                    self._to_skip -= 1
                elif not self._off:
                    self._bytes.append(bytes.fromhex(code.decode()))
            elif word is not None:
                if word == b"fonttbl":
                    end = skip_group(self._data, match.end())
                    self._fonts = fonts(self._data[match.end() : end])
                    self._close()
                    return end
                if word in _SKIPPED or (starred and word != b"htmltag"):
                    self._close()
                    return skip_group(self._data, match.end())
                if word == b"bin":
                    return match.end() + max(0, int(number or 0))
                starred = False
                self._word(word, int(number) if number else None)
            elif brace == b"{":
                self._open()
            elif brace:
                self._close()
            elif sign == b"*":
                starred = True
            elif sign in _SYMBOLS:
                self._put(_SYMBOLS[sign])
        return len(self._data)

    def _word(self, word: bytes, number: int | None) -> None:
        self._to_skip = 0
        if word == b"htmlrtf":
            self._off = number != 0
        elif word in _CHARACTERS:
            self._put(_CHARACTERS[word])
        elif word == b"u":
            self._put(chr((number or 0) % 0x10000))
            self._to_skip = self._after_unicode
        elif word == b"uc":
            self._after_unicode = 1 if number is None else max(0, number)
        elif word == b"f":
            self._set_charset(self._fonts.get(number or 0, self._default))
        elif word == b"plain":
            self._set_charset(self._default)
        elif word == b"ansicpg" and (found := code_page(str(number))):
            self._default = found
            self._set_charset(found)

    def _put(self, text: str) -> None:
        if not self._off:
            self._flush()
            self._out.append(text)

    def _flush(self) -> None:
        self._out.append(self._charset.decode(b"".join(self._bytes)))
        self._bytes.clear()

    def _set_charset(self, charset: Charset) -> None:
        if charset != self._charset:
            self._flush()
            self._charset = charset

    def _open(self) -> None:
        if len(self._groups) >= MAX_DEPTH:
            raise ParseError("malformed", "The RTF groups are nested too deeply.")
        self._groups.append((self._charset, self._off, self._after_unicode))

    def _close(self) -> None:
        self._to_skip = 0
        if self._groups:
            charset, self._off, self._after_unicode = self._groups.pop()
            self._set_charset(charset)
