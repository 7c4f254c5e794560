"""How sources stand: their last and open runs, how many items they hold, and which of these failed. In a number of
queries that does not grow with the sources. Called inside a tenant's scope."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery

from ..models import Document
from .models import Source, SourceItem, SyncRun

State = SyncRun.State
#: Of the sources' collections, so many failed documents are looked at.
FAILED_DOCUMENTS = 10_000

#: A source with what `dress` and `count` put on it.
Dressed = Any


def with_runs(sources: QuerySet[Source]) -> QuerySet[Source]:
    """Each with `last_id` and `last_state`, of the newest run that has ended, and `open_id`, of the one under way."""
    runs = SyncRun.objects.filter(source=OuterRef("pk")).order_by("-created_at")
    ended, going = runs.exclude(finished_at=None), runs.filter(state__in=[State.QUEUED, State.RUNNING])
    return sources.annotate(
        last_id=Subquery(ended.values("id")[:1]),
        last_state=Subquery(ended.values("state")[:1]),
        open_id=Subquery(going.order_by("-state").values("id")[:1]),  # rather the one that runs
    )


def dress(sources: Sequence[Dressed]) -> None:
    """`last` and `open` of each: those runs."""
    named: dict[Any, Any] = with_runs(Source.objects.all()).in_bulk([source.pk for source in sources])
    wanted = {run for one in named.values() for run in (one.last_id, one.open_id) if run is not None}
    found = SyncRun.objects.in_bulk(wanted)
    for source in sources:
        one = named.get(source.pk)  # None: it has been deleted this moment
        source.last, source.open = (found.get(getattr(one, name, None)) for name in ("last_id", "open_id"))


def count(sources: Sequence[Dressed]) -> None:
    """`items_taken`: how many became documents. `failed_items`: how many could not be taken, or have a document whose
    newest version failed."""
    ids = _failed_documents({source.collection_id for source in sources})
    counted = (
        SourceItem.objects.filter(source__in=[source.pk for source in sources])
        .values("source_id")
        .annotate(taken=Count("key", filter=Q(document_id__isnull=False)), failed=Count("key", filter=_failed(ids)))
    )
    found = {row["source_id"]: (row["taken"], row["failed"]) for row in counted}
    for source in sources:
        source.items_taken, source.failed_items = found.get(source.pk, (0, 0))


def failed_items(source: Source) -> QuerySet[SourceItem]:
    """The items that could not be taken, or have a document whose newest version failed."""
    return SourceItem.objects.filter(_failed(_failed_documents({source.collection_id})), source=source)


def with_documents(items: Sequence[Any]) -> None:
    """`document` of each, or None. `failure`: why it could not be taken, else why its document failed, else None."""
    found = Document.objects.in_bulk([item.document_id for item in items if item.document_id is not None])
    for item in items:
        item.document = found.get(item.document_id)
        item.failure = item.error or (item.document.error if item.document else None)


def _failed(documents: Sequence[UUID]) -> Q:
    return Q(error__isnull=False) | Q(document_id__in=documents)


def _failed_documents(collections: Iterable[UUID]) -> list[UUID]:
    """Ids instead of a join, which Citus refuses between a sharded table and a local one behind the wall."""
    failed = Document.objects.filter(collection__in=list(collections), error__isnull=False)
    failed = failed.filter(state__in=[Document.State.FAILED, Document.State.STALE])
    return list(failed.values_list("id", flat=True)[:FAILED_DOCUMENTS])
