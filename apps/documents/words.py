"""What Postgres' text search is given to read, where the text itself would not do.

Its parser knows words between spaces. Scripts that are written without spaces become pairs of characters, identifiers
their parts and, appended, the whole of them as one word: `ERR_CONN-7` is found by that, by `err conn 7` and by
`errconn7`. Texts and queries go through the same function.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

#: Han, kana, Hangul, Thai, Lao, Khmer, Burmese, Tibetan.
_UNSPACED = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_UNSPACED += "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
UNSPACED = re.compile(f"[{_UNSPACED}]+")
#: Letters and digits joined by signs. URLs and addresses are left to the parser, which knows them; so are numbers.
_JOINED = re.compile(r"(?<![\w@/])[^\W_]+(?:[_.:/\\#~-]+[^\W_]+)+(?![\w@]|://)")
_JOINER = re.compile(r"[_.:/\\#~-](?=\w)")  # a quick look whether there is any
_PARTS = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"\d+[.,:]\d+")
#: Names of languages and the like: C++, C#.
_SIGNED = re.compile(r"(?<!\w)([A-Za-z])(\+\+|#)(?!\w)")
_SIGNS = {"++": "plusplus", "#": "sharp"}


def to_index(text: str) -> str:
    """`text` as `to_tsvector` should read it; the same object where that is the text itself."""
    read = text if unicodedata.is_normalized("NFKC", text) else unicodedata.normalize("NFKC", text)
    wholes = [letter + _SIGNS[sign] for letter, sign in _SIGNED.findall(read)] if "+" in read or "#" in read else []
    if _JOINER.search(read):

        def parts(found: re.Match[str]) -> str:
            whole = found[0]
            if "://" in whole or _NUMBER.fullmatch(whole) or whole.replace("-", "").isalpha():
                return whole  # a URL, a decimal number, a time, words with hyphens: the parser does them justice
            each = _PARTS.findall(whole)
            if max(map(len, each)) == 1 and whole.replace(".", "").isalpha():
                return whole  # e.g., U.S.
            if not whole.replace("/", "").isalpha():  # and/or is no identifier
                wholes.append("".join(each))
            return " ".join(each)

        read = _JOINED.sub(parts, read)
    if not read.isascii():
        read = UNSPACED.sub(lambda found: f" {pairs(found[0])} ", read)
    if wholes:
        read = " ".join([read, *wholes])
    return text if read == text else read


def pairs(run: str) -> str:
    """Each two neighbours of a run of characters: `abcd` to `ab bc cd`."""
    return run if len(run) == 1 else " ".join(map("".join, pairwise(run)))
