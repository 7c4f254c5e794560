"""What a document's page shows inside: a page of its live chunks, of its versions, and of one version's text."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from .. import queries
from ..models import Document, DocumentVersion
from .shown import failure, link, number, one_line, when

CHUNKS_PER_PAGE = 25
VERSIONS_PER_PAGE = 10
CHARACTERS_PER_PAGE = 20_000
CONTEXT_CHARACTERS = 1_000  # before a span that a link points to


def tables(request: HttpRequest, document: Document) -> dict[str, Any]:
    """The live version's chunks and the versions, a page of each, as tables."""
    return {"chunks": _chunks(request, document), "versions": _versions(request, document)}


def _chunks(request: HttpRequest, document: Document) -> dict[str, Any]:
    after = number(request, "after")
    rows: list[dict[str, Any]] = []
    following = None
    if document.live_version is not None:
        rows, following = queries.chunks(document.pk, document.live_version, after=after, limit=CHUNKS_PER_PAGE)
    return {
        "title": f"Chunks of the live version, {document.live_version}" if rows or after else "Chunks: none live",
        "headers": ["Ordinal", "Offsets", "Page", "Headings", "Tokens", "Text"],
        "rows": [
            [
                row["ordinal"],
                _to_text(document, document.live_version, f"{row['start']}–{row['end']}", row["start"], row["end"]),
                row["page"] or "–",
                " › ".join(row["heading_path"]) or "–",
                row["tokens"],
                one_line(row["text"], 240),
            ]
            for row in rows
        ],
        "first": after,
        "following": following,
    }


def _versions(request: HttpRequest, document: Document) -> dict[str, Any]:
    before = number(request, "before", below=2**63)
    found = queries.versions(document.pk)
    rows = list((found.filter(version__lt=before) if before else found)[: VERSIONS_PER_PAGE + 1])
    shown = rows[:VERSIONS_PER_PAGE]
    return {
        "title": "Versions",
        "headers": ["Version", "Text", "Chunks", "Bytes", "Accepted", "Published", "Notes", "Error"],
        "rows": [
            [
                f"{one.version} (live)" if one.version == document.live_version else one.version,
                "–" if one.characters is None else _to_text(document, one.version, f"{one.characters} characters"),
                "–" if one.chunk_count is None else one.chunk_count,  # type: ignore[attr-defined]
                one.bytes,
                when(one.accepted_at),
                when(one.published_at),
                _first_note(one.notes),
                failure(one.error) or "–",
            ]
            for one in shown
        ],
        "first": before,
        "following": shown[-1].version if len(rows) > VERSIONS_PER_PAGE else None,
    }


def _first_note(notes: list[str]) -> str:
    """All of them stand on the page of the version's text."""
    if not notes:
        return "–"
    more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
    return one_line(notes[0], 120) + more


def _to_text(document: Document, version: int | None, text: str, start: int = 0, end: int = 0) -> str:
    query = f"?start={start}&end={end}#span" if end else ""
    return link("documents_document_version", text, document.pk, version, query=query)


def facts(version: DocumentVersion) -> dict[str, Any]:
    made_by = " · ".join(filter(None, (version.parser, version.chunker))) or "–"
    return {
        "headers": ["Media type", "Read and cut by", "SHA-256 of the original", "Notes", "Error"],
        "rows": [
            [
                version.media_type,
                made_by,
                bytes(version.sha256).hex(),
                " ".join(version.notes) or "–",
                failure(version.error) or "–",
            ]
        ],
    }


def page_of_text(request: HttpRequest, document: Document, version: int, characters: int | None) -> dict[str, Any]:
    """The text around the asked span in three parts (before, marked, after) and where the neighbouring pages start."""
    if characters is None:
        return {"parts": None}
    start = min(number(request, "start"), characters)
    end = min(max(number(request, "end", start), start), characters)
    first = max(0, start - CONTEXT_CHARACTERS) if end > start else start
    found = queries.text(document.pk, version, start=first, end=first + CHARACTERS_PER_PAGE)
    text, last = found["text"], found["end"]
    cut, stop = start - first, min(end, last) - first
    return {
        "parts": (text[:cut], text[cut:stop], text[stop:]) if end > start else (text, "", ""),
        "first": first,
        "last": last,
        "earlier": max(0, first - CHARACTERS_PER_PAGE) if first else None,
        "later": last if last < characters else None,
    }
