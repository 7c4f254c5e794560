"""Windows of a fixed number of tokens with a fixed overlap, on word boundaries.

Windows cannot be placed by content and have a fixed length at once. As a compromise a window starts anew
at every heading and at about every twelfth paragraph, chosen by its content; an edit therefore moves the
boundaries up to the next such anchor and no further. Text without paragraphs has no anchors: there an edit
moves every later window, and `recursive` is the strategy to use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple
from zlib import crc32

from apps.documents.chunking.measure import Count, WordCounts
from apps.documents.chunking.types import Span
from apps.documents.chunking.units import LONG_WORD, WIDE_GAP, WORD, Cut, finer, units
from apps.documents.parsing.types import Block

_ANCHOR_ODDS = 12
_ANCHOR_CHARS = 256
_BATCH = 512


class _Word(NamedTuple):
    start: int
    end: int
    path: tuple[str, ...]
    opens: bool
    tokens: int = 0


def fixed(text: str, blocks: Sequence[Block], *, max_tokens: int, overlap_tokens: int, count: Count) -> Iterator[Span]:
    """Windows of at most `max_tokens` tokens; each repeats at most `overlap_tokens` of the one before."""
    window: list[_Word] = []
    weight = fresh = 0  # tokens in the window; words at its end that no earlier span holds
    end = -1
    for word in _counted(text, _words(text, blocks), WordCounts(count), max_tokens):
        anew = word.opens or word.start - end > WIDE_GAP
        end = word.end
        while fresh and (anew or weight + word.tokens > max_tokens):
            span, window, fresh = _emit(text, window, fresh, max_tokens, overlap_tokens, count)
            yield span
            weight = sum(held.tokens for held in window)
        if anew:
            window, weight = [], 0
        while window and weight + word.tokens > max_tokens:  # all repeated: make room
            weight -= window.pop(0).tokens
        window.append(word)
        weight += word.tokens
        fresh += 1
    while fresh:
        span, window, fresh = _emit(text, window, fresh, max_tokens, overlap_tokens, count)
        yield span


def _emit(
    text: str, window: list[_Word], fresh: int, limit: int, overlap: int, count: Count
) -> tuple[Span, list[_Word], int]:
    """One span from the front of `window`, the window that follows it, and its number of fresh words."""
    keep, repeated = len(window), len(window) - fresh
    while True:
        tokens = count([text[window[0].start : window[keep - 1].end]])[0]
        if tokens <= limit or keep == 1:
            break
        if keep > repeated + 1:
            keep = max(repeated + 1, keep - max(1, keep * (tokens - limit) // (2 * tokens)))
        else:
            window, keep, repeated = window[1:], keep - 1, repeated - 1
    emitted, rest = window[:keep], window[keep:]
    first, room = keep, overlap
    while first > 1 and emitted[first - 1].tokens <= room:
        first -= 1
        room -= emitted[first].tokens
    span = Span(emitted[0].start, emitted[-1].end, emitted[-1].path, tokens)
    return span, emitted[first:] + rest, len(rest)


def _words(text: str, blocks: Sequence[Block]) -> Iterator[_Word]:
    paragraph_ended = False
    for unit in units(text, blocks):
        opens = unit.opens
        if paragraph_ended and not opens:
            head = text[unit.start : min(unit.end, unit.start + _ANCHOR_CHARS)]
            opens = crc32(head.encode("utf-8", "surrogatepass")) % _ANCHOR_ODDS == 0
        paragraph_ended = unit.cut is Cut.PARAGRAPH
        for match in WORD.finditer(text, unit.start, unit.end):
            start, end = match.span()
            if end - start <= LONG_WORD:
                yield _Word(start, end, unit.path, opens)
                opens = False
                continue
            for low, high, _ in finer(text, start, end, Cut.WORD, 3):
                yield _Word(low, high, unit.path, opens)
                opens = False


def _counted(text: str, words: Iterable[_Word], counts: WordCounts, limit: int) -> Iterator[_Word]:
    """Words with their token counts; one over `limit` tokens is halved."""
    words = iter(words)
    while batch := list(islice(words, _BATCH)):
        for word, tokens in zip(batch, counts.of([text[w.start : w.end] for w in batch]), strict=True):
            if tokens > limit and word.end - word.start > 1:
                middle = (word.start + word.end) // 2
                halves = (word._replace(end=middle), word._replace(start=middle, opens=False))
                yield from _counted(text, halves, counts, limit)
            else:
                yield word._replace(tokens=tokens)
