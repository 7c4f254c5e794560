"""Hits widened by their neighbours: the text around a chunk, cut out of the version's own text.

A window reaches from the start of the nth chunk before the hit to the end of the nth after it, in the same version. It
ends where another hit's begins, so that no text comes twice: each hit has its own chunk whole, and what lies between
two hits goes to the better one. (Chunks that overlap by a collection's settings share what they share anyway.)
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from typing import Any
from uuid import UUID

from apps.access.sql import execute

from .statement import QUERIES
from .types import Hit

MOST = 10  # neighbours on either side


@dataclass(frozen=True, slots=True)
class Around:
    """What is near a hit: `text` begins at `start`; chunks: (start, end, heading path) in reading order."""

    start: int
    text: str
    chunks: tuple[tuple[int, int, tuple[str, ...]], ...]
    page_starts: tuple[int, ...]
    page_numbers: tuple[int | None, ...]

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def expand(hits: Sequence[Hit], neighbours: int) -> list[Hit]:
    """Inside a tenant's scope, in the snapshot of the search: the hits, best first, each with up to so many chunks
    before and after its own. A hit whose revision is not the latest of its version any more stays as it is."""
    if not hits or not neighbours:
        return list(hits)
    around = _read(hits, neighbours)
    by_document: dict[UUID, list[Hit]] = defaultdict(list)
    for hit in hits:
        if hit.chunk_id in around:
            by_document[hit.document_id].append(hit)
    wider: dict[UUID, Hit] = {}
    for together in by_document.values():
        near = [around[hit.chunk_id] for hit in together]
        spans = windows([(hit.start, hit.end) for hit in together], [(one.start, one.end) for one in near])
        for hit, one, (start, end) in zip(together, near, spans, strict=True):
            wider[hit.chunk_id] = _widened(hit, one, start, end)
    return [wider.get(hit.chunk_id, hit) for hit in hits]


def windows(own: Sequence[tuple[int, int]], reach: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where each hit of one document may extend to, as (start, end); best hit first.

    own: of its chunk, no two alike; reach: as far as its neighbours go. The better hits take first what lies between.
    """
    taken = list(own)
    for index, ((start, end), (low, high)) in enumerate(zip(own, reach, strict=True)):
        before = [taken[other][1] for other, place in enumerate(own) if place < (start, end)]
        after = [taken[other][0] for other, place in enumerate(own) if place > (start, end)]
        taken[index] = min(start, max([low, *before])), max(end, min([high, *after]))
    return taken


def _widened(hit: Hit, near: Around, start: int, end: int) -> Hit:
    """Its headings are those that stand above all of it. What stands between two chunks is no part of its edges."""
    within = [chunk for chunk in near.chunks if chunk[0] < end and chunk[1] > start]
    start, end = max(start, within[0][0]), min(end, max(last for _, last, _ in within))
    text = near.text[start - near.start : end - near.start]
    wider = replace(
        hit,
        start=start,
        end=end,
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        heading_path=_shared([path for _, _, path in within]),
        page_starts=near.page_starts,
        page_numbers=near.page_numbers,
    )
    return replace(wider, page=wider.page_of(start))


def _shared(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    levels = takewhile(lambda level: len(set(level)) == 1, zip(*paths, strict=False))
    return tuple(level[0] for level in levels)


def _read(hits: Sequence[Hit], neighbours: int) -> dict[UUID, Around]:
    """By chunk."""
    parameters = {
        "documents": [hit.document_id for hit in hits],
        "chunks": [hit.chunk_id for hit in hits],
        "versions": [hit.version for hit in hits],
        "revisions": [hit.revision for hit in hits],
        "neighbours": neighbours,
    }
    found = execute(QUERIES["neighbours"], parameters).fetchall()
    return {chunk_id: _around(rows) for chunk_id, rows in groupby(found, key=lambda row: row[0])}


def _around(rows: Iterable[tuple[Any, ...]]) -> Around:
    near = list(rows)
    own = next(index for index, row in enumerate(near) if row[1] == row[0])
    _, _, _, _, _, start, text, page_starts, page_numbers = near[own]
    chunks = tuple((row[2], row[3], tuple(row[4] or ())) for row in near)
    return Around(start, text, chunks, tuple(page_starts or ()), tuple(page_numbers or ()))
