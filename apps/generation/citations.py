"""From a finished answer to citations: for each marker the verbatim words of the passage that support it.
Pure.

A citation's `start` and `end` are code points of the version's text (hit.start + offset in the hit's text),
and `sha256` is that of the quote's UTF-8; `quote == version text[start:end]` by construction, which verify.py
proves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from types import MappingProxyType
from typing import Any

from apps.retrieval.types import Hit

from .markers import MARKER
from .types import Passage
from .units import CODE, HEADING, ITEM, ROW, RULE, Unit, around, units
from .words import coverage, is_unspaced, words

#: A quote covers at most this many consecutive units, and characters unless one unit is longer.
MAX_UNITS = 6
MAX_QUOTE = 800
#: One more unit must bring this share of the sentence's words, or every quote would grow to the limit.
WIDENING = 0.1
#: A sentence is supported when at least this share of its distinct content words stands in what it cites.
SUPPORT = 0.6

#: A sentence of fewer characters ("Yes.") is not looked up word for word: it may stand anywhere.
SHORT = 10

BLOCKS = (ITEM, ROW, CODE)

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_DENIES = re.compile(
    r"\b(?:not|no(?!\.\s*\d)|never|none|nobody|nothing|nowhere|neither|nor|without|cannot)\b|n['’]t\b", re.IGNORECASE
)
_EDGES = re.compile(r"^(?:[-*+•‣]|\d{1,3}[.)])\s+")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of an answer: answer[start:end] with its markers, the text without them, the passages it
    cites, what kind of unit it is (units.py).
    """

    start: int
    end: int
    text: str
    markers: tuple[int, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Span:
    """hit.text[start:end] and how much of the sentence's words it holds, 0..1."""

    start: int
    end: int
    score: float


def split(answer: str) -> list[Sentence]:
    """The claims of an answer: its sentences, items, tables and code; headings claim nothing.

    A marker belongs to the sentence whose last words it follows, on either side of the full stop. The lines
    of code, and the rows of a table that come before a marker, are one claim: theirs stands at the end.
    """
    plain, origin, found = _without_markers(answer)
    everything = units(plain)
    claims = [unit for unit in everything if unit.kind not in (HEADING, RULE)]
    fences = {unit.start for unit in everything if unit.kind == RULE and plain[unit.start] in "`~"}
    cited: list[list[int]] = [[] for _ in claims]
    ends = [origin[unit.end - 1] + 1 for unit in claims]
    for number, at, after in found:
        index = max(0, around(claims, at - 1))
        if claims:
            cited[index].append(number)
            ends[index] = max(ends[index], after)
    sentences: list[Sentence] = []
    first = 0
    for index, unit in enumerate(claims):
        if not cited[index] and index + 1 < len(claims) and _goes_on(plain, unit, claims[index + 1], fences):
            continue
        start = claims[first].start
        numbers = tuple(dict.fromkeys(cited[index]))
        sentences.append(Sentence(origin[start], ends[index], plain[start : unit.end], numbers, unit.kind))
        first = index + 1
    return sentences


def _goes_on(text: str, unit: Unit, after: Unit, fences: Collection[int]) -> bool:
    """Whether two neighbouring units are lines of the same code or rows of the same table."""
    if unit.kind != after.kind or unit.kind not in (CODE, ROW):
        return False
    between = text[unit.end : after.start]
    if unit.kind == CODE:
        return not any(unit.end <= fence < after.start for fence in fences)
    return not any(not line.strip() for line in between.split("\n")[1:-1])


def _without_markers(answer: str) -> tuple[str, list[int], list[tuple[int, int, int]]]:
    """(text without markers, each character's place in the answer, [(number, place in the text, end in the
    answer)]).
    """
    text: list[str] = []
    origin: list[int] = []
    found: list[tuple[int, int, int]] = []
    at = 0
    for marker in MARKER.finditer(answer):
        text.append(answer[at : marker.start()])
        origin.extend(range(at, marker.start()))
        found.append((int(marker.group(1)), len(origin), marker.end()))
        at = marker.end()
    text.append(answer[at:])
    origin.extend(range(at, len(answer)))
    return "".join(text), origin, found


def support(sentence: str, hit: Hit) -> Span:
    """The words of a passage that best support a sentence: verbatim where it quotes, else the closest units.

    The closest are the consecutive units that hold the largest share of the sentence's content words, less
    WIDENING for each unit after the first. A passage without sentences is quoted whole.
    """
    verbatim = _verbatim(sentence, hit.text)
    if verbatim is not None:
        return verbatim
    found = quotable(hit)
    if not found:
        start = len(hit.text) - len(hit.text.lstrip())
        return Span(start, max(start, len(hit.text.rstrip())), 0.0)
    wanted = set(words(sentence))
    have = [set(words(hit.text[unit.start : unit.end])) for unit in found]
    best, most = Span(found[0].start, found[0].end, 0.0), -1.0
    for first in range(len(found)):
        together: set[str] = set()
        for last in range(first, min(len(found), first + MAX_UNITS)):
            start, end = found[first].start, found[last].end
            if last > first and end - start > MAX_QUOTE:
                break
            together |= have[last]
            score = coverage(wanted, together)
            worth = score - WIDENING * (last - first)
            if worth > most + 1e-9:
                best, most = Span(start, end, score), worth
    return best


def _verbatim(sentence: str, text: str) -> Span | None:
    """Where the passage holds the sentence word for word, white space aside."""
    parts = _EDGES.sub("", sentence.strip().strip("`")).split()
    if sum(map(len, parts)) < SHORT:
        return None
    opens = r"(?<!\w)(?<!\d[.,:])" if _is_cut(parts[0][0]) else ""
    closes = r"(?![.,:]?\d)(?!\w)" if _is_cut(parts[-1][-1]) else ""
    found = re.search(opens + r"\s+".join(map(re.escape, parts)) + closes, text)
    return Span(found.start(), found.end(), 1.0) if found else None


def _is_cut(edge: str) -> bool:
    """Would a letter or a digit beside this one make another word or figure of it?"""
    return edge.isalnum() and not is_unspaced(edge)


def standing(quote: str, hit: Hit) -> Span | None:
    """The sentences of a passage in which a quote stands, white space aside; None of one that does not stand in any, or
    has too few words or too many characters to tell anything."""
    wanted = letters(quote.strip(" \t\n\"'“”…"))
    first = letters(hit.text).find(wanted)
    if first < 0 or len(set(words(quote))) < 2:
        return None
    places = [at for at, character in enumerate(hit.text) if not character.isspace()]
    start, end = places[first], places[first + len(wanted) - 1] + 1
    touched = [unit for unit in quotable(hit) if unit.start < end and unit.end > start]
    whole = (touched[0].start, touched[-1].end) if touched else (0, len(hit.text))
    for one, other in (whole, (start, end)):
        if touched and other - one <= MAX_QUOTE:
            return Span(one, other, 0.0)
    return None


def letters(text: str) -> str:
    """A text without its white space: a sentence is the same with markers taken out of it as without any."""
    return "".join(text.split())


def cite(
    answer: str, passages: Iterable[Passage], quotes: Mapping[str, Mapping[int, Span]] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """One citation per marker in the answer, in order of first appearance. quotes: the words of a passage that a
    sentence goes back to, where that is known (attribution.py), by its `letters` and the marker."""
    by_marker = {passage.marker: passage.hit for passage in passages}
    spans: dict[int, list[Span]] = {}
    for sentence in split(answer):
        for marker in sentence.markers:
            if marker in by_marker:
                known = quotes.get(letters(sentence.text), {}).get(marker)
                spans.setdefault(marker, []).append(known or support(sentence.text, by_marker[marker]))
    for found in MARKER.finditer(answer):
        # A marker under a heading belongs to no sentence, and is cited all the same.
        marker = int(found.group(1))
        if marker in by_marker and marker not in spans:
            spans[marker] = [support("", by_marker[marker])]
    order = list(dict.fromkeys(int(found.group(1)) for found in MARKER.finditer(answer)))
    return [citation(marker, by_marker[marker], _join(spans[marker])) for marker in order if marker in spans]


def _join(spans: Sequence[Span]) -> Span:
    """One quote for all sentences that cite a passage: from first to last when they stand close, else the
    best.
    """
    start, end = min(span.start for span in spans), max(span.end for span in spans)
    if end - start <= MAX_QUOTE:
        return Span(start, end, max(span.score for span in spans))
    return max(spans, key=lambda span: span.score)


def citation(marker: int, hit: Hit, span: Span) -> dict[str, Any]:
    """The citation of API.md for a span of a hit's text."""
    quote = hit.text[span.start : span.end]
    return {
        "marker": marker,
        "chunk_id": str(hit.chunk_id),
        "document_id": str(hit.document_id),
        "version": hit.version,
        "revision": hit.revision,
        "start": hit.start + span.start,
        "end": hit.start + span.end,
        "quote": quote,
        "sha256": hashlib.sha256(quote.encode()).hexdigest(),
        "source_uri": hit.source_uri,
        "title": hit.title,
        "heading_path": list(hit.heading_path),
        "page": hit.page_of(hit.start + span.start),
    }


def ground(answer: str, passages: Iterable[Passage]) -> tuple[list[dict[str, Any]], float]:
    """([{text, supported, citations}] of each sentence, share 0..1 of supported ones).

    A sentence is supported when the closest words of one passage it cites hold at least SUPPORT of its
    content words, every number in it stands in what it cites of them (a wrong figure is the usual
    invention), and it denies nothing that these say, nor says what they deny. Without content words ("No.")
    it must stand there word for word. A sentence that cites nothing is not supported, wherever its words may
    stand; but one that leads to a list, a table or code ("Do this:") cites what those cite. Words are stemmed;
    paraphrases without shared words count as unsupported, so the figure errs downwards. An answer without
    sentences is grounded 0.
    """
    by_marker = {passage.marker: passage.hit for passage in passages}
    claims = split(answer)
    judged = []
    for index, claim in enumerate(claims):
        cited = [marker for marker in claim.markers or _led_to(claims, index) if marker in by_marker]
        holds = supported(claim.text, cited, by_marker)
        judged.append({"text": answer[claim.start : claim.end], "supported": holds, "citations": cited})
    share = sum(1 for sentence in judged if sentence["supported"]) / len(judged) if judged else 0.0
    return judged, round(share, 4)


def _led_to(claims: Sequence[Sentence], index: int) -> tuple[int, ...]:
    """The markers of the list, table or code that a sentence leads to."""
    if claims[index].kind in BLOCKS or not leads(claims[index].text):
        return ()
    block = takewhile(lambda claim: claim.kind in BLOCKS, claims[index + 1 :])
    return tuple(dict.fromkeys(marker for claim in block for marker in claim.markers))


def leads(text: str) -> bool:
    """Does a sentence end in a colon?"""
    return text.rstrip("*_ \t").endswith((":", "："))


def numbers(text: str) -> set[str]:
    """The figures of a text, without that of a list's item."""
    return set(_NUMBER.findall(_EDGES.sub("", text)))


def supported(text: str, cited: Iterable[int], by_marker: Mapping[int, Hit]) -> bool:
    """Do the passages that a sentence cites hold what it says? See `ground`."""
    hits = [by_marker[marker] for marker in cited if marker in by_marker]
    spans = [support(text, hit) for hit in hits]
    said = [
        f"{hit.title} {' '.join(hit.heading_path)} {hit.text[span.start : span.end]}"
        for hit, span in zip(hits, spans, strict=True)
    ]
    if not set(_NUMBER.findall(" \n".join(said))).issuperset(numbers(text)):
        return False
    wanted = set(words(text))
    for hit, span, quote in zip(hits, spans, said, strict=True):
        if span.score == 1.0 and _verbatim(text, hit.text) is not None:
            return True
        enough = span.score == 1.0 or coverage(wanted, set(words(quote))) >= SUPPORT
        if wanted and enough and _agree(text, hit, span):
            return True
    return False


def _agree(text: str, hit: Hit, span: Span) -> bool:
    """Is what a sentence denies denied by its source, and the other way round? Of several sentences one may deny
    something else. English alone, as are stop words."""
    quote = hit.text[span.start : span.end]
    if _DENIES.search(text):
        return _DENIES.search(quote) is not None
    one = sum(1 for unit in quotable(hit) if unit.start < span.end and unit.end > span.start) <= 1
    return not (one and _DENIES.search(quote))


def quotable(hit: Hit) -> list[Unit]:
    """The units of a hit that can answer something: headings and rules cannot."""
    return [unit for unit in units(hit.text, hit.heading_path) if unit.kind not in (HEADING, RULE)]


def is_block(unit: Unit) -> bool:
    """Whether a unit is a line of a list, a table or code, which the sentence before it may introduce."""
    return unit.kind in BLOCKS
