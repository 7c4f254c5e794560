"""Reading what searches read into PostgreSQL's memory, before the first question has to wait for the disk."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connections

from .db import QUERIES
from .models import EmbeddingSpace

TABLES = ("documents_chunk", "documents_document", "documents_documentversion")


@dataclass(frozen=True, slots=True)
class Warmed:
    """How many tables and indexes are in memory now, their bytes, and those of what did not fit."""

    relations: int
    bytes: int
    left_out: int


def prewarm(*, using: str = "owner") -> Warmed | None:
    """Read vector indexes, then other indexes, then tables, as many as fit shared_buffers: what comes after would push
    out what came before. None where the extension pg_prewarm is not installed. On a cluster only what is on this node.
    """
    spaces = EmbeddingSpace.objects.using(using).exclude(state=EmbeddingSpace.State.RETIRED).order_by("created_at")
    tables = [*(space.table for space in spaces), *TABLES]
    with connections[using].cursor() as cursor:
        cursor.execute(QUERIES["prewarm_installed"])
        if not cursor.fetchone()[0]:
            return None
        cursor.execute(QUERIES["shared_buffers"])
        room = cursor.fetchone()[0]
        cursor.execute(QUERIES["to_prewarm"], {"tables": tables})
        relations = warmed = left_out = 0
        for relation, size in cursor.fetchall():
            if warmed + size > room:
                left_out += size
                continue
            cursor.execute(QUERIES["prewarm"], {"relation": relation})
            relations, warmed = relations + 1, warmed + size
    return Warmed(relations, warmed, left_out)
