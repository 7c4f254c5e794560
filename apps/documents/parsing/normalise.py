"""One normal form for the text of every format.

Offsets of blocks, chunks and citations point into this form, so a format calls `normalise` (or builds
its text from normalised pieces) before it computes a single offset.
"""

from __future__ import annotations

import re

# C0 controls except tab and newline, plus lone surrogates: Postgres refuses NUL, UTF-8 refuses surrogates,
# and the others are never text. Vertical tab and form feed separate lines, so they become newlines first.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff]")
_LONE_RETURN = re.compile("\r(?!\n)")
_MANY_LINE_ENDS = re.compile("\n\n\n\n+")  # which is searched as a word is, unlike "\n{4,}"
_PRINTABLE = bytes(range(0x20, 0x7F))
_UNWANTED_BYTES = bytes({*range(32)} - {*b"\t\n"})


def clean(text: str) -> str:
    """Newlines to LF; NUL, other C0 controls except tab and newline, and lone surrogates removed."""
    text = line_feeds(text)
    return text if _is_clean(text) else _UNWANTED.sub("", text)


def line_feeds(text: str) -> str:
    """Newlines to LF, and so what separates lines or pages."""
    if "\r" in text:
        if _LONE_RETURN.search(text):
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        else:  # to take single characters out is several times as fast
            text = text.replace("\r", "")
    return text.replace("\x0b", "\n").replace("\x0c", "\n")


def _is_clean(text: str) -> bool:
    """Is there nothing unwanted in it? Ten times as fast as to look for that with a regular expression."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return len(encoded.translate(None, _UNWANTED_BYTES)) == len(encoded)


def is_printable(text: str) -> bool:
    """`text.isprintable()`, in a fifth of the time where a text of many characters is ASCII."""
    return not text.encode().translate(None, _PRINTABLE) if text.isascii() else text.isprintable()


def normalise(text: str, *, trim: bool = False, collapse: bool = False) -> str:
    """`clean`, then optionally `trim` trailing blanks of each line and `collapse` runs of blank lines.

    `trim` and `collapse` are for formats whose white space is layout (HTML, PDF); plain text and
    Markdown keep theirs. More than two blank lines collapse to two. A leading byte order mark goes.
    """
    text = clean(text.removeprefix("\ufeff"))
    if trim:
        text = "\n".join(map(str.rstrip, text.split("\n")))
    return _MANY_LINE_ENDS.sub("\n\n\n", text) if collapse else text
