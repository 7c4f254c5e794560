"""Labelled sets at the desk, to look at: they are made by the API."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from apps.documents.admin.read_only import ReadOnlyAdmin
from apps.documents.admin.shown import RUN_STATES, failure, label, link, one_line, when

from .models import EvaluationRun, EvaluationSet

RUNS, QUERIES = 20, 100  # shown at most


@admin.register(EvaluationSet)
class EvaluationSetAdmin(ReadOnlyAdmin):
    list_display = ("name", "collection", "queries", "last_run", "created_at")
    search_fields = ("name", "collection")
    ordering = ("-created_at",)
    fields = ("name", "description", "collection", "created_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[EvaluationSet]:
        return super().get_queryset(request).annotate(asked=Count("queries")).prefetch_related("runs")

    @display(description="Queries")
    def queries(self, found: EvaluationSet) -> int:
        return found.asked  # type: ignore[attr-defined]

    @display(description="Last run")
    def last_run(self, found: EvaluationSet) -> str:
        runs = sorted(found.runs.all(), key=lambda run: run.created_at)
        return _means(runs[-1]) if runs else "–"

    def tables(self, found: EvaluationSet) -> list[dict[str, Any]]:
        runs = found.runs.order_by("-created_at")[:RUNS]
        rows = [
            [
                link("evaluation_evaluationrun_change", when(run.created_at), run.pk),
                label(run.state, RUN_STATES[run.state]),
                _means(run),
                failure(run.error) or "–",
            ]
            for run in runs
        ]
        return [{"title": "Last runs", "headers": ["When", "State", "Result", "Error"], "rows": rows}]


@admin.register(EvaluationRun)
class EvaluationRunAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "set", "shown_state", "result")
    list_select_related = ("set",)
    search_fields = ("set__name",)
    ordering = ("-created_at",)
    fields = ("set", "shown_state", "k", "result", "shown_error", "created_at", "finished_at")

    @display(description="State")
    def shown_state(self, run: EvaluationRun) -> str:
        return label(run.state, RUN_STATES[run.state])

    @display(description="Result")
    def result(self, run: EvaluationRun) -> str:
        return _means(run)

    @display(description="Error")
    def shown_error(self, run: EvaluationRun) -> str:
        return failure(run.error) or "–"

    def tables(self, run: EvaluationRun) -> list[dict[str, Any]]:
        """The queries that went worst."""
        name = f"nDCG@{run.k}"
        results = run.results.select_related("query").order_by(f"metrics__{name}", "query__number", "mode")[:QUERIES]
        rows = [
            [
                one_line(each.query.query, 120),
                each.mode,
                f"{each.metrics[name]:.3f}",
                ", ".join(map(str, each.ranks)) or "none",
            ]
            for each in results
        ]
        headers = ["Query", "Mode", name, "Places of relevant documents"]
        return [{"title": "Queries, the worst first", "headers": headers, "rows": rows}]


def _means(run: EvaluationRun) -> str:
    """As in "nDCG@10: hybrid 0.812, dense 0.790"."""
    name = f"nDCG@{run.k}"
    means = [f"{mode} {run.metrics[mode][name]:.3f}" for mode in run.modes if name in run.metrics.get(mode, {})]
    return f"{name}: {', '.join(means)}" if means else run.state
