"""Normalised text to chunks, with boundaries that an edit elsewhere does not move."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from apps.documents.chunking.fixed import fixed
from apps.documents.chunking.measure import Count
from apps.documents.chunking.recursive import recursive
from apps.documents.chunking.semantic import Embed, semantic
from apps.documents.chunking.types import Span
from apps.documents.parsing.types import Block

__all__ = ["CHUNKERS", "MAX_TOKENS", "MIN_TOKENS", "Span", "chunk", "validate"]

# Fingerprints: raise a number whenever the same text would be cut differently.
CHUNKERS = {"recursive": "recursive/1", "fixed": "fixed/1", "heading": "heading/1", "semantic": "semantic/1"}
MIN_TOKENS, MAX_TOKENS = 16, 8192


def chunk(
    text: str,
    blocks: Sequence[Block],
    *,
    strategy: str = "recursive",
    max_tokens: int,
    overlap_tokens: int = 0,
    heading_level: int = 2,
    count: Count,
    embed: Embed | None = None,
) -> Iterator[Span]:
    """Cut `text` into spans of at most `max_tokens` tokens, in ascending order.

    `count` returns the content tokens (no [CLS], no [SEP]) of each string of a batch; batches are bounded.
    Every span is non-empty and has no white space at its ends; without overlap spans are disjoint and hold
    every non-space character once. `tokens` is the count of the span's own text. Only a single character
    that is itself longer than `max_tokens` tokens can exceed the limit.

    `recursive` (default) ends chunks at headings always, else preferably at paragraph, then item, sentence,
    clause and word ends; tables and code stay whole where they fit. `heading` never crosses a heading of
    `heading_level` or above, and packs what is below together. `semantic` cuts where the text turns to something else
    by `embed`, which gives unit vectors, float32 [len(texts), dimensions]. `fixed` is windows of a fixed length.
    Working memory is a window of the text, never the whole of it. Raises ValueError for arguments out of range, at once
    rather than at first use.
    """
    validate(strategy=strategy, max_tokens=max_tokens, overlap_tokens=overlap_tokens, heading_level=heading_level)
    sizes = {"max_tokens": max_tokens, "overlap_tokens": overlap_tokens}
    if strategy == "fixed":
        return fixed(text, blocks, **sizes, count=count)
    if strategy == "semantic":
        if embed is None:
            raise ValueError("semantic needs an embedding function.")
        return semantic(text, blocks, **sizes, count=count, embed=embed)
    return recursive(text, blocks, **sizes, count=count, level=heading_level if strategy == "heading" else None)


def validate(*, strategy: str, max_tokens: int, overlap_tokens: int, heading_level: int) -> None:
    """Raise ValueError with a message for the user unless the settings can be used."""
    if strategy not in CHUNKERS:
        raise ValueError(f"strategy must be one of {', '.join(sorted(CHUNKERS))}, not {strategy!r}.")
    if not MIN_TOKENS <= max_tokens <= MAX_TOKENS:
        raise ValueError(f"max_tokens must be between {MIN_TOKENS} and {MAX_TOKENS}, not {max_tokens}.")
    if not 0 <= overlap_tokens < max_tokens / 2:
        raise ValueError(f"overlap_tokens must be at least 0 and less than half of max_tokens, not {overlap_tokens}.")
    if not 1 <= heading_level <= 6:
        raise ValueError(f"heading_level must be between 1 and 6, not {heading_level}.")
