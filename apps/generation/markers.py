"""Citation markers `[n]`: found, neutralised, and kept in order while an answer streams. Pure.

The one form that means something is `[n]` with the number of a passage. Whatever else looks like it never
leaves: `MarkerFilter` repairs what models write instead (`[1, 2]`, `[1-3]`, `[Source 1]`, `【1】`) and drops
numbers that name no passage. In code, where `items[0]` is an index, and in text that comes from a passage,
`[0]` is written `[ 0 ]`; before `(`, or before a colon where it opens a line, a marker is set apart, for Markdown would
take it for a link.
"""

from __future__ import annotations

import re
from collections.abc import Collection

MARKER = re.compile(r"\[(\d+)\]")

#: Longest text between brackets that is looked at as a marker; longer is text.
LONGEST = 40
#: `[1-9]` is nine markers; a wider range is no citation of anything in particular.
WIDEST = 20

_WORD = r"(?:(?:passages?|sources?|citations?|refs?|documents?|docs?)\s*)?"
_NUMBERS = rf"{_WORD}[#^]?\d+(?:\s*[,;、，；–-]\s*{_WORD}[#^]?\d+)*(?:†[^\]】］]*)?"
_GROUP = re.compile(_NUMBERS, re.IGNORECASE)
_RANGE = re.compile(r"(\d+)\s*[–-]\s*[#^]?(\d+)|(\d+)")
_OPENERS, _CLOSERS = "[【［", "]】］"
_WRITTEN = re.compile(rf"([{re.escape(_OPENERS)}])[^\S\n]*({_NUMBERS})[^\S\n]*([{re.escape(_CLOSERS)}])", re.IGNORECASE)
_STOP = re.compile(rf"[{re.escape(_OPENERS + _CLOSERS)}`\n]")
_PIECE = re.compile(r"`+|~+|[\[【［]|\s+|[^`~\[【［\s]+")
_OPEN_NUMBER = re.compile(r"\[\d*$")
_DIGITS = re.compile(r"\d+")
_SURROGATE = re.compile("[\ud800-\udfff]")


def markers(answer: str) -> list[int]:
    """The numbers of the markers in a finished answer, in order of first appearance."""
    return list(dict.fromkeys(int(found.group(1)) for found in MARKER.finditer(answer)))


def neutralise(text: str) -> str:
    """The text with every `[3]`, and all else that would be read as a marker, written `[ 3 ]`, which is none and reads
    the same."""
    return _WRITTEN.sub(r"\1 \2 \3", text)


class MarkerFilter:
    """Turns what a model writes into what may leave, whatever pieces it comes in.

    feed(piece) returns the text that is settled; close() the rest. The concatenation depends on the
    concatenated input alone, not on how it was cut. White space at both ends is dropped. Every `[n]` in the
    output has n in `valid`.
    """

    def __init__(self, valid: Collection[int]) -> None:
        self._valid = frozenset(valid)
        self._held = ""  # input that is not settled yet
        self._space = ""  # white space that leaves only if something follows it
        self._code = ""  # the backticks that opened the current code, if any
        self._started = False  # has anything left?
        self._open = False  # does what has left end with `[` and digits?
        self._links = ""  # what would make a link of the marker that has just left

    def feed(self, piece: str) -> str:
        """More of the model's text; returns what may leave now."""
        self._held += _SURROGATE.sub("\ufffd", piece).replace("\x00", "")
        return self._settle(final=False)

    def close(self) -> str:
        """No more will come; returns the rest."""
        return self._settle(final=True)

    def _settle(self, *, final: bool) -> str:
        out: list[str] = []
        at = 0
        while at < len(self._held):
            found = _PIECE.match(self._held, at)
            assert found is not None  # every character belongs to one of the five kinds
            piece, end = found.group(), found.end()
            if piece[0] in "`~":
                if end == len(self._held) and not final:
                    break  # the run may go on
                self._toggle(piece)
                out.append(self._emit(piece))
            elif piece in _OPENERS:
                taken = self._bracket(at, final=final)
                if taken is None:
                    break
                end, text = taken
                out.append(text)
            elif piece.isspace():
                if len(self._code) < 3 and "\n" in piece:
                    self._code = ""  # a stray backtick ends with its line
                self._space += piece
            else:
                out.append(self._emit(piece))
            at = end
        self._held = self._held[at:]
        return "".join(out)

    def _toggle(self, run: str) -> None:
        opens_line = not self._started or "\n" in self._space
        if not self._code:
            # Tildes elsewhere than before a block of code are text.
            self._code = run if run[0] == "`" or (opens_line and len(run) >= 3) else ""
        elif run == self._code or (run[0] == self._code[0] and len(self._code) >= 3 and len(run) >= len(self._code)):
            self._code = ""

    def _bracket(self, at: int, *, final: bool) -> tuple[int, str] | None:
        """(where the input goes on, text to leave) after an opening bracket; None: more must be seen."""
        digits = _DIGITS.match(self._held, at + 1)
        limit = max(at + 1 + LONGEST, digits.end() + 1 if digits else 0)
        stop = _STOP.search(self._held, at + 1, limit)
        inside = self._held[at + 1 : stop.start() if stop else len(self._held)]
        if stop is None and len(self._held) < limit:
            if not final:
                return None
            if not inside.strip("0123456789 ,;、，；–^#-"):
                return len(self._held), ""  # the answer ends inside a marker
        spaced = inside[:1].isspace() and inside[-1:].isspace()
        if stop is None or stop.group() not in _CLOSERS or spaced or not _GROUP.fullmatch(inside.strip()):
            return at + 1, self._emit(self._held[at])
        if self._code:
            return stop.end(), self._emit(f"[ {inside.strip()} ]")
        known = [n for n in _expand(inside) if n in self._valid]
        if known:
            first = not self._started or "\n" in self._space
            text = self._emit("".join(f"[{n}]" for n in dict.fromkeys(known)))
            self._links = "(:" if first else "("
            return stop.end(), text
        self._drop()
        return stop.end(), ""

    def _drop(self) -> None:
        """A dropped marker takes the space before it along, unless its neighbours would then meet as a new
        marker.
        """
        if self._open:
            self._space = self._space or " "
        elif "\n" not in self._space:
            self._space = ""

    def _emit(self, text: str) -> str:
        if self._links and not self._space and text[0] in self._links:
            self._space = " "
        self._links = ""
        text = self._space + text if self._started else text
        self._space, self._started = "", True
        self._open = _OPEN_NUMBER.search("[" + text if self._open else text) is not None
        return text


def _expand(inside: str) -> list[int]:
    """The numbers that the text between two brackets names."""
    found: list[int] = []
    for first, last, single in _RANGE.findall(inside.partition("†")[0]):
        if single:
            found.append(_number(single))
        elif _number(first) <= _number(last) <= _number(first) + WIDEST:
            found.extend(range(_number(first), _number(last) + 1))
    return found


def _number(digits: str) -> int:
    """A number of at most nine digits; longer ones are no passage's, and huge ones are slow to read."""
    return int(digits) if len(digits) <= 9 else -1
