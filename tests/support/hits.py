"""Hits made from plain texts, for tests that need no database."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from uuid import UUID, uuid5

from apps.generation.prompts import number
from apps.generation.types import Passage
from apps.retrieval.types import Hit

SPACE = UUID(int=7)


def hit(text: str, *, title: str = "Title", headings: tuple[str, ...] = (), start: int = 0, version: int = 1) -> Hit:
    return Hit(
        chunk_id=uuid5(SPACE, f"chunk {text}"),
        document_id=uuid5(SPACE, f"document {text}"),
        version=version,
        revision=0,
        collection="docs",
        source_uri="file.md",
        title=title,
        heading_path=headings,
        start=start,
        end=start + len(text),
        page=None,
        page_starts=(),
        page_numbers=(),
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        score=1.0,
        scores={},
        metadata={},
        fresh=True,
        version_date=datetime(2026, 1, 2, tzinfo=UTC),
    )


def passages(*texts: str) -> tuple[Passage, ...]:
    return number([hit(text) for text in texts])
