"""The index: what is there, what is waiting, what needs a person. UNFOLD in settings leads here.

Everything is counted in the curator's own tenant, as any query of the desk is, and only for whoever may see the page
that the number leads to.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Case, Count, Sum, Value, When
from django.http import HttpRequest
from django.urls import reverse
from django.utils.timesince import timesince

from .. import collections
from ..models import Collection, Document, IngestionJob, Source
from ..sources import standing
from . import source_runs
from .shown import failure, link, one_line, pending

admin.site.index_template = "admin/ragsite/index.html"  # it extends unfold's own, which has the usual name

ROWS = 8


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """UNFOLD["DASHBOARD_CALLBACK"]: the index's context with `cards` (numbers that are links) and `tables`."""
    cards, tables = [], []
    if _may_see(request, IngestionJob):
        cards += _job_cards()
        tables += _dead()
    if _may_see(request, Source):
        cards.append(_failing_card())
        tables += _sources()
    if _may_see(request, Collection):
        cards = _content_cards() + cards
        tables += _collections()
    return context | {"title": "Overview", "cards": cards, "tables": tables}


def _may_see(request: HttpRequest, model: type[Any]) -> bool:
    return admin.site.get_model_admin(model).has_view_permission(request)


def _card(title: str, value: int, name: str, query: str = "", alarm: bool = False) -> dict[str, Any]:
    return {"title": title, "value": value, "href": reverse(f"admin:{name}") + query, "alarm": alarm and value > 0}


def _content_cards() -> list[dict[str, Any]]:
    live = Collection.objects.aggregate(documents=Sum("documents", default=0), chunks=Sum("chunks", default=0))
    return [
        _card("Live documents", live["documents"], "documents_document_changelist"),
        _card("Live chunks", live["chunks"], "documents_collection_changelist"),
    ]


def _job_cards() -> list[dict[str, Any]]:
    states = IngestionJob.State
    shown = (states.QUEUED, states.RUNNING, states.DEAD)
    counted = dict(IngestionJob.objects.filter(state__in=shown).order_by().values_list("state").annotate(Count("id")))
    name = "documents_ingestionjob_changelist"
    return [
        _card("Jobs waiting", counted.get(states.QUEUED, 0), name, "?state__exact=queued"),
        _card("Jobs running", counted.get(states.RUNNING, 0), name, "?state__exact=running"),
        _card("Dead letters", counted.get(states.DEAD, 0), name, "?state__exact=dead", alarm=True),
    ]


def _failing_card() -> dict[str, Any]:
    failing = standing.with_runs(Source.objects.all()).filter(source_runs.FAILING).count()
    return _card("Failing sources", failing, "documents_source_changelist", "?last=failed", alarm=True)


def _dead() -> list[dict[str, Any]]:
    """The newest dead letters; no table when there are none."""
    dead = list(IngestionJob.objects.filter(state=IngestionJob.State.DEAD).order_by("-created_at")[:ROWS])
    titles = Document.objects.in_bulk({job.document_id for job in dead})
    rows = [
        [
            link(
                "documents_ingestionjob_change", one_line(str(titles.get(job.document_id, job.document_id)), 60), job.pk
            ),
            failure(job.error),
            timesince(job.created_at, depth=1),
        ]
        for job in dead
    ]
    title = "Needs attention: jobs that have given up"
    return [{"title": title, "headers": ["Document", "Error", "Age"], "rows": rows}] if rows else []


def _collections() -> list[dict[str, Any]]:
    found = list(Collection.objects.order_by("-documents", "name")[:ROWS])
    going = collections.progress([one.pk for one in found])
    rows = [
        [
            link("documents_collection_change", one.name, one.pk),
            one.documents,
            one.chunks,
            pending(going[one.pk]),
            one.epoch,
        ]
        for one in found
    ]
    headers = ["Name", "Live documents", "Live chunks", "Pending", "Epoch"]
    return [{"title": "Collections", "headers": headers, "rows": rows}]


def _sources() -> list[dict[str, Any]]:
    """The last result of each, failing ones first; no table when there are none."""
    first = Case(When(source_runs.FAILING, then=Value(0)), default=Value(1))
    found = standing.with_runs(Source.objects.select_related("collection")).order_by(first, "name", "id")[:ROWS]
    sources = list(found)
    standing.dress(sources)
    rows = [
        [
            link("documents_source_change", one_line(one.name, 60), one.pk),
            link("documents_collection_change", one_line(one.collection.name, 40), one.collection_id),
            source_runs.result(one),
            source_runs.outcome(one.last),  # type: ignore[attr-defined]
            source_runs.ago(one.last),  # type: ignore[attr-defined]
        ]
        for one in sources
    ]
    headers = ["Name", "Collection", "Last result", "Outcome", "Ended"]
    return [{"title": "Sources", "headers": headers, "rows": rows}] if rows else []
