"""Boundaries where the text turns to something else, as the embedding model sees it.

Every sentence is embedded together with the next one. The distance of a boundary is the cosine distance between the
pair before it and the pair after it. Where it is above those of the boundaries beside it, a chunk likes to end: the
difference is added to the content hash in the price of a boundary (pack.py). It depends on the six sentences around the
boundary only, so an edit elsewhere moves nothing, and not on how far apart a model puts texts in general. A percentile
of the document's distances, as others use it (LlamaIndex, LangChain), changes everywhere with an edit anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from apps.documents.chunking.measure import Count, Weighed, weigh
from apps.documents.chunking.recursive import packed
from apps.documents.chunking.types import Span
from apps.documents.chunking.units import Cut, units
from apps.documents.parsing.types import Block

Vector = npt.NDArray[np.float32] | None
Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]

DISTANCE_PRICE = 12.0  # of a distance that is 1 above those beside it, in the prices of pack.py
_PROSE = frozenset({Cut.PARAGRAPH, Cut.ITEM, Cut.SENTENCE, Cut.HEADING})  # lines of tables and code are not embedded
_BATCH = 128  # units embedded together
_REACH = 3  # units on each side that a boundary's price depends on
_PAIR_CHARS = 2_000  # of each pair; a model reads no more of it


def semantic(
    text: str, blocks: Sequence[Block], *, max_tokens: int, overlap_tokens: int, count: Count, embed: Embed
) -> Iterator[Span]:
    """Spans of at most `max_tokens` tokens; see `chunk` for what they promise. Costs an embedding per sentence."""
    weighed = weigh(text, units(text, blocks), count=count, limit=max_tokens - overlap_tokens)
    yield from packed(
        text, _turns(text, weighed, embed), max_tokens=max_tokens, overlap_tokens=overlap_tokens, count=count
    )


def _turns(text: str, weighed: Iterable[Weighed], embed: Embed) -> Iterator[Weighed]:
    """The units, with how much the text turns after each added to its hash."""
    coming = iter(weighed)
    held: list[Weighed] = []
    vectors: list[Vector] = []  # of the held units, each with its follower
    first = 0  # index of the first unit that has not been given out
    while True:
        some = list(islice(coming, _BATCH))
        held += some
        vectors += _pairs(text, held, len(vectors), len(held) - 1 if some else len(held), embed)
        ready = max(first, len(vectors) - _REACH) if some else len(held)
        distances = {index: _distance(vectors, index) for index in range(first - 1, ready + 1)}
        for index in range(first, ready):
            peak = distances[index] - (distances[index - 1] + distances[index + 1]) / 2
            yield held[index]._replace(luck=held[index].luck + DISTANCE_PRICE * max(0.0, peak))
        first = ready
        if not some:
            return
        drop = max(0, first - _REACH)
        del held[:drop], vectors[:drop]
        first -= drop


def _pairs(text: str, held: Sequence[Weighed], start: int, end: int, embed: Embed) -> list[Vector]:
    """Vectors of the units from `start` to `end`, each with the one after it; None for what is not prose."""
    wanted = [index for index in range(start, end) if held[index].unit.cut in _PROSE]
    if not wanted:
        return [None] * (end - start)
    texts = []
    for index in wanted:
        low = held[index].unit.start
        follower = held[min(index + 1, len(held) - 1)].unit
        texts.append(text[low : min(follower.end, low + _PAIR_CHARS)])
    found = dict(zip(wanted, embed(texts), strict=True))
    return [found.get(index) for index in range(start, end)]


def _distance(vectors: Sequence[Vector], index: int) -> float:
    """Between the pair of units that ends at the boundary after `index` and the pair that begins there: 0..2."""
    if not 0 < index < len(vectors) - 1:
        return 0.0
    before, after = vectors[index - 1], vectors[index + 1]
    return 0.0 if before is None or after is None else float(1.0 - before @ after)
