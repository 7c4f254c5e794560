"""Searching the past: collections as they were at a time, or one version of a document.

A chunk's row tells from when to when it was live, by the database's clock and in the transaction that published or
retired it. What a document is called, its metadata and so the filters are as they are now: they have no versions. What
has been erased is in no past.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.access.problems import invalid
from apps.access.sql import execute
from apps.documents import db

from .types import SearchQuery

SAMPLE = 200  # documents looked at to tell how much of what is live was live then


def refuse_future(query: SearchQuery) -> None:
    """Inside a scope. Raises Problem 422 `future_time`: what will be is not known, and would change."""
    if query.as_of is not None and query.as_of > (now := db.clock()):
        raise invalid(
            "/as_of", f"It is {now.isoformat()} here; as_of is in the future.", status=422, code="future_time"
        )


def parameters(query: SearchQuery, queries: Mapping[str, str]) -> dict[str, Any]:
    """Inside a scope: what the fragments of past.sql take. Raises Problem 422 `unknown_version` for a version that is
    not there or was never live."""
    if query.pinned is None:
        return {"as_of": query.as_of}
    document_id, version = query.pinned
    pinned: dict[str, Any] = {"pinned_document": document_id, "pinned_version": version}
    found = execute(queries["pinned"], pinned).fetchone()
    if found is None or found[0] is None:
        detail = f"Version {version} of document {document_id} has never been live."
        raise invalid("/filters/version", detail, status=422, code="unknown_version")
    return pinned | {"pinned_chunks": found[0]}


def when(query: SearchQuery) -> str:
    """Which of the fragments are about it: `lived_*` and `placed_*`."""
    return "now" if not query.is_past else "pinned" if query.pinned else "then"
