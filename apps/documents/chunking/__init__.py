"""Normalised text to chunks, with boundaries that an edit elsewhere does not move."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from apps.documents.chunking.fixed import fixed
from apps.documents.chunking.measure import Count
from apps.documents.chunking.recursive import recursive
from apps.documents.chunking.types import Span
from apps.documents.parsing.types import Block

__all__ = ["CHUNKERS", "MAX_TOKENS", "MIN_TOKENS", "Span", "chunk", "validate"]

# Fingerprints: raise a number whenever the same text would be cut differently.
CHUNKERS = {"recursive": "recursive/1", "fixed": "fixed/1"}
MIN_TOKENS, MAX_TOKENS = 16, 8192


def chunk(
    text: str,
    blocks: Sequence[Block],
    *,
    strategy: str = "recursive",
    max_tokens: int,
    overlap_tokens: int = 0,
    count: Count,
) -> Iterator[Span]:
    """Cut `text` into spans of at most `max_tokens` tokens, in ascending order.

    `count` returns the content tokens (no [CLS], no [SEP]) of each string of a batch; batches are bounded.
    Every span is non-empty and has no white space at its ends; without overlap spans are disjoint and hold
    every non-space character once. `tokens` is the count of the span's own text. Only a single character
    that is itself longer than `max_tokens` tokens can exceed the limit.

    `recursive` (default) ends chunks at headings always, else preferably at paragraph, then item, sentence,
    clause and word ends; tables and code stay whole where they fit. Working memory is a window of the text,
    never the whole of it. Raises ValueError for arguments out of range, at once rather than at first use.
    """
    validate(strategy=strategy, max_tokens=max_tokens, overlap_tokens=overlap_tokens)
    cutter = {"recursive": recursive, "fixed": fixed}[strategy]
    return cutter(text, blocks, max_tokens=max_tokens, overlap_tokens=overlap_tokens, count=count)


def validate(*, strategy: str, max_tokens: int, overlap_tokens: int) -> None:
    """Raise ValueError with a message for the user unless the settings can be used."""
    if strategy not in CHUNKERS:
        raise ValueError(f"strategy must be one of {', '.join(sorted(CHUNKERS))}, not {strategy!r}.")
    if not MIN_TOKENS <= max_tokens <= MAX_TOKENS:
        raise ValueError(f"max_tokens must be between {MIN_TOKENS} and {MAX_TOKENS}, not {max_tokens}.")
    if not 0 <= overlap_tokens < max_tokens / 2:
        raise ValueError(f"overlap_tokens must be at least 0 and less than half of max_tokens, not {overlap_tokens}.")
