"""Units to weighted units: token counts in batches, too long units cut finer, content hashes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from math import log
from typing import NamedTuple

from apps.documents.chunking.units import CHARS_PER_TOKEN, Cut, Unit, finer

Count = Callable[[Sequence[str]], list[int]]

BATCH_UNITS = 256
BATCH_CHARS = 128 * 1024
_CACHE = 65_536  # words
_CACHED_CHARS = 64  # longer ones are data and do not come back
_DEEPEST = 64  # halvings; far more than any unit needs


class Weighed(NamedTuple):
    """A unit, its weight in tokens (at least 1) and `luck`, an exponentially distributed content hash."""

    unit: Unit
    weight: int
    luck: float


class WordCounts:
    """Token counts as sums over words, remembered: natural language repeats its words. Safe to share between threads.

    Exact for tokenizers that split at white space first (BERT, SentencePiece); for byte-level ones close,
    since each word is counted with the space before it. The final count of a chunk never comes from here.
    """

    def __init__(self, count: Count) -> None:
        self._count = count
        self._known: dict[str, int] = {}
        one, two = count(["a", "a\n\na"])
        self.blank_line = max(0, two - 2 * one)  # tokens of a paragraph break

    def of(self, texts: Sequence[str]) -> list[int]:
        """Estimated tokens of each string; the caller bounds the batch."""
        split = [text.split() for text in texts]
        known = self._known
        new = list({word for words in split for word in words if word not in known})
        if new:
            counted = dict(zip(new, self._count([" " + word for word in new]), strict=True))
            short = {word: tokens for word, tokens in counted.items() if len(word) <= _CACHED_CHARS}
            if len(known) + len(short) > _CACHE:  # begin again; other threads may still be reading the old one
                self._known = short
                known = known | counted
            else:
                known.update(short)
                if len(short) < len(counted):
                    known = known | counted
        return [sum(map(known.__getitem__, words)) for words in split]


@lru_cache(maxsize=4)
def word_counts(count: Count) -> WordCounts:
    """One for each tokenizer in use, for as long as the process lives."""
    return WordCounts(count)


def weigh(text: str, units: Iterable[Unit], *, count: Count, limit: int) -> Iterator[Weighed]:
    """Weigh units in batches; one over `limit` tokens (or 16 characters a token) is cut finer first.

    Only a single character can stay over the limit.
    """
    return _weigh(text, units, word_counts(count), limit, 0)


def _weigh(text: str, units: Iterable[Unit], counts: WordCounts, limit: int, depth: int) -> Iterator[Weighed]:
    batch: list[Unit] = []
    size = 0
    for unit in units:
        batch.append(unit)
        size += min(unit.end - unit.start, limit * CHARS_PER_TOKEN)
        if len(batch) >= BATCH_UNITS or size >= BATCH_CHARS:
            yield from _weigh_batch(text, batch, counts, limit, depth)
            batch, size = [], 0
    yield from _weigh_batch(text, batch, counts, limit, depth)


def _weigh_batch(text: str, batch: list[Unit], counts: WordCounts, limit: int, depth: int) -> Iterator[Weighed]:
    # Of a unit too long anyway nothing is read: it may be the whole document.
    contents = [text[u.start : u.end] if u.end - u.start <= limit * CHARS_PER_TOKEN else "" for u in batch]
    for unit, content, tokens in zip(batch, contents, counts.of(contents), strict=True):
        weight = max(1, tokens, -(-len(content) // CHARS_PER_TOKEN))
        if content and (weight <= limit or len(content) == 1 or depth > _DEEPEST):
            if unit.cut is Cut.PARAGRAPH:
                weight += counts.blank_line
            yield Weighed(unit, min(weight, limit), luck(content))
        else:
            yield from _weigh(text, _finer_units(text, unit, depth), counts, limit, depth + 1)


def _finer_units(text: str, unit: Unit, depth: int) -> Iterator[Unit]:
    opens = unit.opens
    for start, end, cut in finer(text, unit.start, unit.end, unit.cut, depth):
        # Parts of a long heading may part; only its end must hold on to what follows.
        yield Unit(start, end, cut if cut is not Cut.HEADING or end == unit.end else Cut.WORD, unit.path, opens)
        opens = False


def luck(content: str) -> float:
    """-ln u of a uniform hash u of the content: stable across processes and machines, mean 1."""
    digest = blake2b(content.encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return -log((int.from_bytes(digest, "big") + 1) / 2**56)
