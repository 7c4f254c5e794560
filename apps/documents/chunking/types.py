"""What the chunker yields."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """`text[start:end]` is one chunk: offsets in code points, the headings above it, its exact tokens."""

    start: int
    end: int
    heading_path: tuple[str, ...]
    tokens: int
