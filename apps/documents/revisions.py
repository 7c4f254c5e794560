"""Revisions: a version that is read by a newer parser, or cut another way, while the old revision answers.

1. `compare` tells what is live; prepare only writes down what read it anew when it comes out as it is.
2. Otherwise the new text waits beside the live one, as the coming revision, until the swap.
3. `put_in_place`, in publish's transaction, moves the old revision to VersionRevision, where its citations are verified
   (invariant I6), and the new one into the version's row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

from . import db, ledger
from .ledger import Claim


class Placed(Protocol):
    """A chunk of the coming revision; `start` and `end` are code points of its text."""

    @property
    def ordinal(self) -> int: ...
    @property
    def chunk_id(self) -> UUID: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Live:
    """The live revision of a version; `same_text`: the text that was read anew is the same."""

    same_text: bool
    title: str
    page_starts: list[int] | None
    page_numbers: list[int | None] | None
    chunk_ids: list[UUID]
    starts: list[int]
    ends: list[int]

    def has(self, chunk: Placed) -> bool:
        """Does a chunk stand in it just where it comes to stand?"""
        at = chunk.ordinal
        place = (chunk.chunk_id, chunk.start, chunk.end)
        return at < len(self.chunk_ids) and place == (self.chunk_ids[at], self.starts[at], self.ends[at])


PlacedChunk = TypeVar("PlacedChunk", bound=Placed)


def superseded(claims: Sequence[Claim]) -> set[UUID]:
    """Inside a scope: the documents of these reindexes whose live version has other content by now, or none."""
    live = {row[0] for row in db.rows("still_live", **ledger.versions_of(claims))}
    return {held.document_id for held in claims} - live


def compare(claims: Sequence[Claim], texts: Sequence[str]) -> dict[UUID, Live]:
    """Inside a scope: what is live of these documents, beside the texts that were read anew."""
    found = db.rows("compare_versions", **ledger.versions_of(claims), texts=list(texts))
    return {row[0]: Live(*row[1:]) for row in found}


def changed(chunks: Iterator[PlacedChunk], live: Live, *, same: bool) -> Iterator[PlacedChunk]:
    """The coming chunks; none when they stand just so in what is live and all else is the `same`.

    Chunks that are live already carry no text: holding them back until one differs takes little memory.
    """
    waiting: list[PlacedChunk] = []
    for chunk in chunks:
        waiting.append(chunk)
        if not (same and live.has(chunk)):
            break
    else:
        if same and len(waiting) == len(live.chunk_ids):
            return
    yield from waiting
    yield from chunks


def put_in_place(claims: Sequence[Claim], *, now: datetime) -> dict[UUID, tuple[int, str]]:
    """Inside the swap's transaction: the coming revisions become the live ones. (live version, state) by document."""
    at = ledger.versions_of(claims)
    db.run("archive_revision", **at, now=now)
    db.run("put_in_place", **at)
    db.run("clear_coming", **at)
    return {row[0]: row[1:] for row in db.rows("set_revision", **at)}
