"""Words for comparing a question, an answer's sentence and a passage: tokens, stems, stop words, idf.

Deliberately small: it must treat every language the same (scripts without spaces by character pairs) and
needs no data. Only English has stop words and stems; elsewhere idf alone decides what matters.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

#: Chinese and Japanese; Thai, Lao, Burmese, Khmer.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
#: Vowel signs and accents, which Python's \\w leaves out: without them a Hindi word falls into single letters.
_MARKS = "".join(chr(code) for code in range(0x300, 0xAC00) if unicodedata.category(chr(code))[0] == "M")
_WORD = re.compile(rf"[{_UNSPACED}]+|(?:[^\W_{_UNSPACED}][{_MARKS}]*)+")
_ASCII_WORD = re.compile(r"[^\W_]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")

_STOP = """
    a about after all also am an and any are as at be because been before being between both but by can
    could did do does doing down during each few for from further had has have having he her here hers him
    his how i if in into is it its just me more most my no nor not now of off on once only or other our
    out over own s same she should so some such t than that the their them then there these they this
    those through to too under until up use used very was we were what when where which while who whom
    whose why will with would you your please tell give list name explain describe
"""
STOP_WORDS = frozenset(_STOP.split())
ROOT = 5  # letters
_SUFFIXES = (
    "ingly",
    "edly",
    "ings",
    "ies",
    "ied",
    "ing",
    "ely",
    "est",
    "ed",
    "es",
    "ly",
    "er",
    "s",
    "e",
    "y",
)


def words(text: str) -> list[str]:
    """Stemmed, case-folded tokens without stop words, in order; runs of scripts without spaces as overlapping
    character pairs.
    """
    found: list[str] = []
    for word in _tokens(text):
        if _IS_UNSPACED.match(word):
            found.extend(word[i : i + 2] for i in range(max(1, len(word) - 1)))
        elif word not in STOP_WORDS:
            found.append(stem(word))
    return found


def roots(text: str) -> list[str]:
    """The stems of the first five letters of each word but stop words, in order; of scripts without spaces each
    character and each pair. What one word's forms share, in more languages than have a stemmer here; too little to
    prove that a text says the same."""
    found: list[str] = []
    for word in _tokens(text):
        if _IS_UNSPACED.match(word):
            found.extend([*word, *(word[i : i + 2] for i in range(len(word) - 1))])
        elif word not in STOP_WORDS:
            found.append(stem(word[:ROOT]))
    return found


def _tokens(text: str) -> list[str]:
    text = text.casefold()
    return _ASCII_WORD.findall(text) if text.isascii() else _WORD.findall(unicodedata.normalize("NFC", text))


def stem(word: str) -> str:
    """A word without one common English ending, never shorter than three letters; digits are left alone."""
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def idf(texts: Iterable[Iterable[str]]) -> dict[str, float]:
    """ln(1 + (N - df + 0.5) / (df + 0.5)) of each word in N texts, as BM25 has it (Robertson, 2009)."""
    counts: Counter[str] = Counter()
    total = 0
    for text in texts:
        counts.update(set(text))
        total += 1
    return {word: math.log(1 + (total - df + 0.5) / (df + 0.5)) for word, df in counts.items()}


def coverage(wanted: Iterable[str], have: Iterable[str], weights: Mapping[str, float] | None = None) -> float:
    """Share 0..1 of the weight of the distinct `wanted` words that `have` contains; 0 when nothing is wanted.

    A word without a weight counts as the heaviest: it is in no text, so it is rare.
    """
    wanted, have = set(wanted), set(have)
    if weights is None:
        return len(wanted & have) / len(wanted) if wanted else 0.0
    heaviest = max(weights.values(), default=1.0)
    total = sum(weights.get(word, heaviest) for word in wanted)
    return sum(weights.get(word, heaviest) for word in wanted & have) / total if total else 0.0


def overlap(left: Iterable[str], right: Iterable[str]) -> float:
    """Jaccard similarity of two sets of words."""
    left, right = set(left), set(right)
    return len(left & right) / len(left | right) if left or right else 0.0


def is_unspaced(character: str) -> bool:
    """Whether its script has no spaces between words."""
    return _IS_UNSPACED.match(character) is not None
