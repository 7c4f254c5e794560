"""Groups of units to spans: exact token counts, overlap, and the last word on the length limit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from apps.documents.chunking.measure import Count, Weighed, weigh
from apps.documents.chunking.pack import CUT_PRICE, LUCK, pack
from apps.documents.chunking.types import Span
from apps.documents.chunking.units import WIDE_GAP, Cut, units
from apps.documents.parsing.types import Block

_BATCH = 32  # chunks counted together
_WHOLE = frozenset({Cut.PARAGRAPH, Cut.ITEM, Cut.SENTENCE, Cut.STANZA, Cut.LINE})


def recursive(
    text: str, blocks: Sequence[Block], *, max_tokens: int, overlap_tokens: int, count: Count, level: int | None = None
) -> Iterator[Span]:
    """Spans of at most `max_tokens` tokens that start at every heading (`level`: only at those of that level or above);
    see `chunk` for what they promise."""
    limit = max_tokens - overlap_tokens
    weighed = weigh(text, units(text, blocks, level=level), count=count, limit=limit)
    yield from packed(text, weighed, max_tokens=max_tokens, overlap_tokens=overlap_tokens, count=count)


def packed(
    text: str, weighed: Iterator[Weighed], *, max_tokens: int, overlap_tokens: int, count: Count
) -> Iterator[Span]:
    """Spans of weighed units, each of which weighs at most `max_tokens` less `overlap_tokens`."""
    groups = pack(weighed, max_tokens - overlap_tokens)
    batch: list[tuple[int, list[Weighed]]] = []
    for pair in _overlapped(groups, overlap_tokens):
        batch.append(pair)
        if len(batch) >= _BATCH:
            yield from _spans(text, batch, max_tokens, count)
            batch = []
    yield from _spans(text, batch, max_tokens, count)


def _overlapped(groups: Iterator[list[Weighed]], overlap: int) -> Iterator[tuple[int, list[Weighed]]]:
    """(start with overlap, group): whole sentences before the group, from the same section only."""
    before: deque[tuple[Weighed, bool]] = deque()  # with: does it begin a sentence?
    held = 0
    begins, end, previous = True, -1, -1
    for group in groups:
        first = group[0].unit
        if first.opens or first.start - end > WIDE_GAP:
            before.clear()
            held, begins, previous = 0, True, -1
        start, taken = first.start, 0
        for weighed, sentence in reversed(before):
            taken += weighed.weight
            if taken > overlap or weighed.unit.start <= previous:
                break
            if sentence:
                start = weighed.unit.start
        yield start, group
        previous, end = start, group[-1].unit.end
        if not overlap:
            continue
        for weighed in group:
            before.append((weighed, begins))
            begins = weighed.unit.cut in _WHOLE
            held += weighed.weight
        while before and held - before[0][0].weight > overlap:
            held -= before.popleft()[0].weight


def _spans(text: str, batch: list[tuple[int, list[Weighed]]], limit: int, count: Count) -> Iterator[Span]:
    """Count the chunks' real texts, which may differ from the sum of their units; too long ones are cut."""
    if not batch:
        return
    counts = count([text[start : group[-1].unit.end] for start, group in batch])
    for (start, group), tokens in zip(batch, counts, strict=True):
        first, last = group[0].unit, group[-1].unit
        if tokens <= limit:
            yield Span(start, last.end, _path(group), tokens)
        elif start < first.start:
            yield from _spans(text, [(first.start, group)], limit, count)
        elif len(group) > 1:
            middle = _middle(group)
            halves = [group[:middle], group[middle:]]
            yield from _spans(text, [(half[0].unit.start, half) for half in halves], limit, count)
        elif last.end - start > 1:
            yield from _halves(text, start, last.end, last.path, limit, count)
        else:
            yield Span(start, last.end, last.path, tokens)


def _path(group: list[Weighed]) -> tuple[str, ...]:
    """The headings above the first text that is none: a chunk may go on into sections below."""
    return next((each.unit.path for each in group if each.unit.cut is not Cut.HEADING), group[-1].unit.path)


def _middle(group: list[Weighed]) -> int:
    """Index of the best inner boundary, leaning to the middle."""
    total = sum(weighed.weight for weighed in group)
    best, index, before = float("inf"), 1, 0
    for position, weighed in enumerate(group[:-1], start=1):
        before += weighed.weight
        price = CUT_PRICE[weighed.unit.cut] - LUCK * weighed.luck + 8.0 * abs(before / total - 0.5)
        if price < best:
            best, index = price, position
    return index


def _halves(text: str, start: int, end: int, path: tuple[str, ...], limit: int, count: Count) -> Iterator[Span]:
    """One unit that is longer alone than it was among its own pieces: cut at white space near its middle."""
    middle = (start + end) // 2
    space = next((at for at in range(middle, start, -1) if text[at].isspace()), None)
    left_end = space if space is not None else middle
    right_start = left_end
    while right_start < end and text[right_start].isspace():
        right_start += 1
    left_end = start + len(text[start:left_end].rstrip())
    for low, high in ((start, left_end), (right_start, end)):
        if low >= high:
            continue
        tokens = count([text[low:high]])[0]
        if tokens <= limit or high - low == 1:
            yield Span(low, high, path, tokens)
        else:
            yield from _halves(text, low, high, path, limit, count)
