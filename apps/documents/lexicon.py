"""How many chunks of a collection hold each lexeme: what a search plans by, and finds misspelt words with.

A chunk's tsvector holds its lexemes with their positions and, for a lexeme that comes twice, three times, four times or
more, the lexeme with the character 1, 1 and 2, or 1, 2 and 3 appended: so the index finds those that have it often.
The counts are taken now and then (tasks.count_words) and may be out of date; scores may depend on them, what can be
found must not.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from django.utils import timezone

from apps.access import tenancy

from . import db
from .models import Document

LEVELS = ("", "\x01", "\x02", "\x03")  # behind a lexeme: it comes at least once, twice, three, four times
MOST_CHUNKS = 500_000  # of more a sample is counted
MOST_LEXEMES = 500_000  # the most frequent
ROWS = 20_000  # written by one statement


def due() -> list[tuple[UUID, UUID]]:
    """(tenant, collection) of those that should be counted."""
    return [(row[0], row[1]) for row in db.rows("lexicons_due")]


def count_due(*, only: UUID | None = None) -> None:
    """Outside of a scope: count the lexemes of the collections that have changed much; of `only` one, if it has."""
    for tenant_id, collection_id in due():
        if only in (None, collection_id):
            count(tenant_id=tenant_id, collection_id=collection_id)


def count(*, tenant_id: UUID, collection_id: UUID) -> int:
    """Outside of a scope: count a collection's lexemes. Returns how many there are; 0 also when something was erased
    meanwhile, so that the count is thrown away."""
    own: dict[str, Any] = {"collection": collection_id}
    with tenancy.scope(tenant_id, repeatable_read=True):
        standing = db.rows("lexicon", **own)
        if not standing:
            return 0
        chunks, epoch, before, erasures = standing[0]
        share = min(1.0, MOST_CHUNKS / max(1, chunks))
        bound = UUID(int=round(share * (2**128 - 1)) if share < 1 else 2**128 - 1)
        found = db.rows("count_lexemes", **own, bound=bound, most=MOST_LEXEMES)
    generation = time.time_ns()
    with tenancy.scope(tenant_id):
        for start in range(0, len(found), ROWS):
            rows = found[start : start + ROWS]
            counts = [round(number / share) for _, number in rows]
            lexemes = [lexeme for lexeme, _ in rows]
            db.run("write_lexemes", **own, tenant=tenant_id, generation=generation, lexemes=lexemes, chunks=counts)
    with tenancy.scope(tenant_id):
        now = db.rows("hold_lexicon", **own, tenant=tenant_id, erasures=0)[0]
        kept = now == (before, erasures)
        if kept:
            db.run("set_lexicon", **own, generation=generation, chunks=chunks, epoch=epoch, now=timezone.now())
        db.run("clear_lexemes", **own, generation=generation if kept else now[0])
    return len(found) if kept else 0


def of_document(document: Document) -> dict[str, int]:
    """Inside a scope: in how many of its chunks each lexeme is."""
    return dict(db.rows("lexemes_of", document=document.id))


def forget(document: Document) -> None:
    """Inside a scope, before a document's chunks are erased: no word is kept that only they held. A count that is going
    on is thrown away."""
    own: dict[str, Any] = {"collection": document.collection_id}
    db.rows("hold_lexicon", **own, tenant=document.tenant_id, erasures=1)
    if found := of_document(document):
        db.run("subtract_lexemes", **own, lexemes=list(found), chunks=list(found.values()))
        db.run("drop_lexemes", **own)
