"""One normal form for the text of every format.

Offsets of blocks, chunks and citations point into this form, so a format calls `normalise` (or builds
its text from normalised pieces) before it computes a single offset.
"""

from __future__ import annotations

import re

# C0 controls except tab and newline, plus lone surrogates: Postgres refuses NUL, UTF-8 refuses surrogates,
# and the others are never text. Vertical tab and form feed separate lines, so they become newlines first.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff]")
_NEWLINES = re.compile("\r\n?|\x0b|\x0c")
_TRAILING = re.compile(r"[^\S\n]+(?=\n|\Z)")
_BLANK_RUN = re.compile(r"\n{4,}")


def clean(text: str) -> str:
    """Newlines to LF; NUL, other C0 controls except tab and newline, and lone surrogates removed."""
    return _UNWANTED.sub("", _NEWLINES.sub("\n", text))


def normalise(text: str, *, trim: bool = False, collapse: bool = False) -> str:
    """`clean`, then optionally `trim` trailing blanks of each line and `collapse` runs of blank lines.

    `trim` and `collapse` are for formats whose white space is layout (HTML, PDF); plain text and
    Markdown keep theirs. More than two blank lines collapse to two. A leading byte order mark goes.
    """
    text = clean(text.removeprefix("\ufeff"))
    if trim:
        text = _TRAILING.sub("", text)
    if collapse:
        text = _BLANK_RUN.sub("\n\n\n", text)
    return text
