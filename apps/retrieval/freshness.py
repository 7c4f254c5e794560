"""How fresh a search is: a read that needs newer versions has them brought live, and then searches again.

- `eventual`: what is live.
- `bounded`: hits whose document has had a newer version waiting for longer than its collection's window are made fresh.
- `strong`: whatever was accepted before is found; also of documents that no old hit points to.
- `min_versions`, with any of them: at least these versions of these documents.

Nothing is searched but what is live, so that every hit can be verified like any other (ahead.py tells who does the
work). The effort is bounded in documents, bytes and milliseconds; what it did not cover is listed as stale.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.utils import timezone

from apps.access import tenancy
from apps.access.problems import invalid
from apps.access.sql import execute
from apps.documents import ahead, words
from apps.documents.ahead import Waiting

from . import metrics
from .scopes import scopes_of
from .search import search
from .statement import QUERIES
from .types import SearchQuery, SearchResult

STALE_SHOWN = 100
LOOKED_AT = 1_000  # waiting documents that a strong search knows one by one
READ_AHEAD = 5  # times the documents and bytes that may be brought live are read, to see which of them match


def search_fresh(*, tenant_id: UUID, query: SearchQuery) -> SearchResult:
    """`search.search`, as fresh as the query asks for.

    1. What is known to be needed is brought live: the named documents, and with `strong` all that wait, if they are
       few.
    2. Search. Where nothing waits, that is all.
    3. Hits that are too old are brought live, and with `strong` what waits and matches by words; then from 2 again,
       until nothing more is needed or the budget is used up.

    Raises what `search.search` does, and Problem 422 `unknown_version` for one in min_versions that nobody has sent.
    """
    if query.is_past or (query.consistency == "eventual" and not query.min_versions):
        return search(tenant_id=tenant_id, query=query)
    named = dict(query.min_versions)
    effort = _Effort(tenant_id, named)
    needed, more = _needed(tenant_id, query)
    few = len(needed) <= effort.documents
    effort.bring(needed if few else named)
    while True:
        behind = _behind(tenant_id, needed)
        found = search(tenant_id=tenant_id, query=query)
        if found.partial:  # nothing can be brought live
            return _told(found, behind, more, effort)
        wanted = _too_old(found, query)
        if not few:
            wanted += _matching(tenant_id, query, [each for each in behind if each not in effort.tried], effort)
        if not effort.bring(wanted):
            return _told(found, behind, more, effort)


def searches_first(query: SearchQuery) -> bool:
    """Is nothing brought live before what is live has been searched?"""
    return query.is_past or (query.consistency != "strong" and not query.min_versions)


@dataclass(slots=True)
class _Effort:
    """What a read may still do."""

    tenant_id: UUID
    named: Mapping[UUID, int]
    documents: int = field(default_factory=lambda: settings.FRESH_DOCUMENTS)
    bytes: int = field(default_factory=lambda: settings.FRESH_BYTES)
    until: float = field(default_factory=lambda: time.monotonic() + settings.FRESH_MILLISECONDS / 1000)
    tried: set[UUID] = field(default_factory=set)
    seconds: float = 0.0

    def bring(self, wanted: Iterable[UUID]) -> bool:
        """Bring the newest versions of these documents live, in this order, as far as the budget goes; none twice.
        False when there is nothing that can be done about them."""
        new = [each for each in dict.fromkeys(wanted) if each not in self.tried]
        if not new or not self.documents or time.monotonic() >= self.until:
            return False
        started = time.monotonic()
        with tenancy.scope(self.tenant_id):
            jobs = {job.document_id: job for job in ahead.waiting(new)}
        chosen = [each for each in new if each in jobs and self._affords(jobs[each])]
        self.tried |= set(new)
        if chosen:
            ahead.bring_live(tenant_id=self.tenant_id, documents=chosen, until=self.until)
        self.seconds += time.monotonic() - started
        return bool(chosen)

    def _affords(self, job: Waiting) -> bool:
        """Not what is to be tried again later, and nothing large, unless it was named: that can be waited for."""
        if not (job.due or job.running) or not self.documents:
            return False
        if job.bytes > ahead.MOST_BYTES:
            return job.document_id in self.named
        if job.bytes > self.bytes:
            return False
        self.documents -= 1
        self.bytes -= job.bytes
        return True


Behind = dict[UUID, tuple[int | None, int]]  # (live version, newest version) of documents that are needed newer


def _needed(tenant_id: UUID, query: SearchQuery) -> tuple[dict[UUID, int], int]:
    """The versions that must be live, by document, named ones first; and of how many more nothing is known but their
    number. Raises Problem 404, 422."""
    needed = dict(query.min_versions)
    if not needed and query.consistency != "strong":
        return {}, 0
    more = 0
    with tenancy.scope(tenant_id):
        accepted = {row[0]: row[2] for row in _standing(needed)}
        for document_id, version in needed.items():
            if accepted.get(document_id, 0) < version:
                there = (
                    f"its newest one is {accepted[document_id]}" if document_id in accepted else "nor such a document"
                )
                detail = f"There is no version {version} of {document_id}, {there}."
                raise invalid(f"/min_versions/{document_id}", detail, status=422, code="unknown_version")
        if query.consistency == "strong":
            waiting, more = _waiting(query)
            for document_id, _, version in waiting:
                needed[document_id] = max(version, needed.get(document_id, 0))
    return needed, more


def _waiting(query: SearchQuery) -> tuple[list[tuple[UUID, int | None, int]], int]:
    """Inside a scope: the documents of the search's collections whose newest version is not live, those that wait
    longest first, and how many more there are."""
    parameters: dict[str, Any] = {"collections": [scope.id for scope in scopes_of(query.collections)]}
    holds = ""
    if query.filter is not None:
        holds = f" AND {query.filter.sql}"
        parameters |= query.filter.parameters
    with connection.cursor() as cursor:
        cursor.execute(QUERIES["waiting"].format(holds=holds, limit=LOOKED_AT + 1), parameters)
        found = cursor.fetchall()
        if len(found) <= LOOKED_AT:
            return found, 0
        cursor.execute(QUERIES["waiting_count"].format(holds=holds), parameters)
        return found[:LOOKED_AT], cursor.fetchone()[0] - LOOKED_AT


def _behind(tenant_id: UUID, needed: Mapping[UUID, int]) -> Behind:
    """Of these, the documents whose live version is lower. One that has been deleted has nothing newer to show."""
    if not needed:
        return {}
    with tenancy.scope(tenant_id):
        return {row[0]: (row[1], row[2]) for row in _standing(needed) if not row[3] and (row[1] or 0) < needed[row[0]]}


def _standing(documents: Iterable[UUID]) -> list[tuple[UUID, int | None, int, bool]]:
    """Inside a scope: (id, live version, newest version, is it deleted?)."""
    ids = list(documents)
    return execute(QUERIES["standing"], {"documents": ids}).fetchall() if ids else []


def _too_old(found: SearchResult, query: SearchQuery) -> list[UUID]:
    """The documents of hits that are older than the query lets them be."""
    if query.consistency == "eventual":
        return []
    stale = [hit for hit in found.hits if not hit.fresh]
    if stale and query.consistency == "bounded":
        now, windows = timezone.now(), {scope.slug: timedelta(seconds=scope.window) for scope in found.scopes}
        stale = [hit for hit in stale if hit.pending_since and now - hit.pending_since > windows[hit.collection]]
    return [hit.document_id for hit in stale]


def _matching(tenant_id: UUID, query: SearchQuery, documents: Sequence[UUID], effort: _Effort) -> list[UUID]:
    """These documents, of which there are more than can be brought live: first those whose waiting text has words of
    the query, best first. Texts that have not been read yet are read first, as many as a share of the budget allows."""
    if not documents or time.monotonic() >= effort.until:
        return []
    with tenancy.scope(tenant_id):
        unread = [job for job in ahead.waiting(documents) if job.stage == "prepare" and job.due]
    chosen, room = [], READ_AHEAD * effort.bytes
    for job in unread[: READ_AHEAD * effort.documents]:
        if job.bytes <= min(room, ahead.MOST_BYTES):
            chosen.append(job.document_id)
            room -= job.bytes
    started = time.monotonic()
    if chosen:
        ahead.read_texts(tenant_id=tenant_id, documents=chosen, until=(started + effort.until) / 2)
    with tenancy.scope(tenant_id):
        matching = _by_words(query, documents, effort)
    effort.seconds += time.monotonic() - started
    return [*matching, *documents]


def _by_words(query: SearchQuery, documents: Sequence[UUID], effort: _Effort) -> list[UUID]:
    """Inside a scope: of these documents those whose newest text has words of the query, as far as texts have been
    read and a share of the budget goes."""
    most = {"longest": ahead.MOST_BYTES, "most": READ_AHEAD * effort.documents}
    room, texts = READ_AHEAD * effort.bytes, {}
    for document_id, text in execute(QUERIES["waiting_texts"], {"documents": list(documents), **most}).fetchall():
        room -= len(text)
        if room >= 0:
            texts[document_id] = words.to_index(text)
    languages = sorted({scope.language for scope in scopes_of(query.collections)})
    asked = {"query": words.to_index(query.query), "languages": languages}
    found = execute(QUERIES["matching"], {"documents": list(texts), "texts": list(texts.values()), **asked})
    return [row[0] for row in found.fetchall()]


def _told(found: SearchResult, behind: Behind, more: int, effort: _Effort) -> SearchResult:
    """The result, with all that it should have been newer than; not what went live after it was looked up."""
    fresh = {hit.document_id for hit in found.hits if hit.fresh}
    stale = {each["document_id"]: each for each in found.stale}
    for document_id, (live, version) in behind.items():
        if document_id not in fresh:
            stale.setdefault(document_id, {"document_id": document_id, "live_version": live, "version": version})
    timings = found.timings
    if effort.tried:
        metrics.FRESH_READS.labels(outcome="stale" if stale or more else "fresh").inc()
        metrics.FRESH_DOCUMENTS.inc(len(effort.tried - stale.keys()))
        metrics.QUERY_SECONDS.labels(stage="fresh").observe(effort.seconds)
        spent = round(effort.seconds * 1000, 3)
        timings = timings | {"fresh_ms": spent, "total_ms": round(timings["total_ms"] + spent, 3)}
    more += max(0, len(stale) - STALE_SHOWN)
    return replace(found, stale=list(stale.values())[:STALE_SHOWN], stale_more=more, timings=timings)
