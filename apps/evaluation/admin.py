"""Labelled sets at the desk, to look at: they are made by the API."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.decorators import display

from apps.access.admin import CuratorAdmin
from apps.documents.admin.shown import RUN_STATES, failure, label, link, one_line, when

from .models import EvaluationRun, EvaluationSet

RUNS, QUERIES = 20, 100  # shown at most


class ReadOnlyAdmin(CuratorAdmin):
    actions = None
    change_form_outer_after_template = "admin/evaluation/table.html"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def table(self, obj: Any) -> dict[str, Any]:
        """What is shown below the object's own fields."""
        raise NotImplementedError

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        found = self.get_object(request, object_id)
        context = {} if found is None else {"table": self.table(found)}
        return super().change_view(request, object_id, form_url, (extra_context or {}) | context)


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

    def table(self, found: EvaluationSet) -> dict[str, Any]:
        runs = found.runs.order_by("-created_at")[:RUNS]
        return {
            "title": "Last runs",
            "headers": ["When", "State", "Result", "Error"],
            "rows": [
                [
                    link("evaluation_evaluationrun_change", when(run.created_at), run.pk),
                    label(run.state, RUN_STATES[run.state]),
                    _means(run),
                    failure(run.error) or "–",
                ]
                for run in runs
            ],
        }


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

    def table(self, run: EvaluationRun) -> dict[str, Any]:
        """The queries that went worst."""
        name = f"nDCG@{run.k}"
        results = run.results.select_related("query").order_by(f"metrics__{name}", "query__number", "mode")[:QUERIES]
        return {
            "title": "Queries, the worst first",
            "headers": ["Query", "Mode", name, "Places of relevant documents"],
            "rows": [
                [
                    one_line(each.query.query, 120),
                    each.mode,
                    f"{each.metrics[name]:.3f}",
                    ", ".join(map(str, each.ranks)) or "none",
                ]
                for each in results
            ],
        }


def _means(run: EvaluationRun) -> str:
    """As in "nDCG@10: hybrid 0.812, dense 0.790"."""
    name = f"nDCG@{run.k}"
    means = [f"{mode} {run.metrics[mode][name]:.3f}" for mode in run.modes if name in run.metrics.get(mode, {})]
    return f"{name}: {', '.join(means)}" if means else run.state
