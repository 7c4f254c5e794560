"""The job ledger: read, retried and cancelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone
from django.utils.timesince import timesince
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from apps.access.admin import CuratorAdmin

from .. import ledger
from ..models import Document, IngestionJob
from .shown import JOB_STATES, DressedList, as_uuid, failure, link, one_line

State = IngestionJob.State
RETRIED = (State.DEAD, State.CANCELLED)
CANCELLED = (State.QUEUED, State.RUNNING)


@admin.register(IngestionJob)
class IngestionJobAdmin(CuratorAdmin):
    list_display = ("shown", "version", "shown_state", "stage", "attempts", "code", "age")
    list_filter = ("state", "kind", "stage", "outcome")
    search_fields = ("worker",)
    search_help_text = "A document's or a job's id, or a worker's name"
    ordering = ("-created_at",)
    actions = ("retry", "cancel")
    actions_detail = ("retry_one", "cancel_one")
    fieldsets = (
        (
            None,
            {"fields": (("document", "version"), ("shown_state", "kind", "stage", "outcome", "priority"), "problem")},
        ),
        ("Work", {"fields": (("attempts", "worker"), ("not_before", "lease_until"), "timings")}),
        ("When", {"fields": (("created_at", "finished_at", "age"), "id")}),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: IngestionJob | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: IngestionJob | None = None) -> bool:
        return False

    def has_act_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return request.user.has_perm("documents.change_ingestionjob")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[DressedList]:
        return DressedList

    def dress(self, rows: Sequence[IngestionJob]) -> None:
        """`titled`: the job's document. No foreign key leads there, for Citus' sake."""
        found = Document.objects.in_bulk({row.document_id for row in rows})
        for row in rows:
            row.titled = found.get(row.document_id)  # type: ignore[attr-defined]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[IngestionJob], search_term: str
    ) -> tuple[QuerySet[IngestionJob], bool]:
        wanted = as_uuid(search_term)
        if wanted is not None:
            return queryset.filter(document_id=wanted) | queryset.filter(id=wanted), False
        return super().get_search_results(request, queryset, search_term)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Only what the job's state allows."""
        job = self.get_object(request, str(object_id))
        allowed = {"retry_one": RETRIED, "cancel_one": CANCELLED}
        return [
            offered
            for offered in super().get_actions_detail(request, object_id)
            if job is not None and job.state in allowed[offered.path]
        ]

    @display(description="Document")
    def shown(self, job: IngestionJob) -> str:
        return one_line(str(job.titled or job.document_id), 48)  # type: ignore[attr-defined]

    @display(description="Document")
    def document(self, job: IngestionJob) -> str:
        if not hasattr(job, "titled"):
            self.dress([job])
        titled = job.titled  # type: ignore[attr-defined]
        return (
            str(job.document_id)
            if titled is None
            else link("documents_document_change", one_line(str(titled), 80), job.document_id)
        )

    @display(description="State", label=JOB_STATES, ordering="state")
    def shown_state(self, job: IngestionJob) -> str:
        return job.state

    @display(description="Error", empty_value="–")
    def code(self, job: IngestionJob) -> str | None:
        return job.error.get("code") if job.error else None

    @display(description="Error", empty_value="–")
    def problem(self, job: IngestionJob) -> str | None:
        return failure(job.error) or None

    @display(description="Age", ordering="-created_at")
    def age(self, job: IngestionJob) -> str:
        return timesince(job.created_at, timezone.now(), depth=1)

    @action(description="Retry the selected dead or cancelled jobs", permissions=["act"])
    def retry(self, request: HttpRequest, chosen: QuerySet[IngestionJob]) -> None:
        self._act(request, chosen, ledger.retry, "Queued again.", "queued again")

    @action(description="Cancel the selected open jobs", permissions=["act"])
    def cancel(self, request: HttpRequest, chosen: QuerySet[IngestionJob]) -> None:
        self._act(request, chosen, ledger.cancel, "Cancelled.", "cancelled")

    @action(
        description="Retry",
        permissions=["act"],
        icon="refresh",
        dialog={
            "title": "Queue this job again?",
            "description": "It starts anew, with all its attempts.",
            "form_class": None,
            "form_submit_text": "Retry",
        },
    )
    def retry_one(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponseBase:
        return self._act_on_one(request, object_id, ledger.retry, "Queued again.", "queued again")

    @action(
        description="Cancel",
        permissions=["act"],
        icon="block",
        variant=ActionVariant.DANGER,
        dialog={
            "title": "Cancel this job?",
            "description": "Its version will not be published. What is live stays live.",
            "form_class": None,
            "form_submit_text": "Cancel the job",
        },
    )
    def cancel_one(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponseBase:
        return self._act_on_one(request, object_id, ledger.cancel, "Cancelled.", "cancelled")

    def _act_on_one(
        self, request: HttpRequest, object_id: str, verb: Callable[..., bool], note: str, done: str
    ) -> HttpResponseBase:
        if self.get_object(request, object_id) is None:
            return self.gone(request, object_id)
        self._act(request, IngestionJob.objects.filter(pk=object_id), verb, note, done)
        return self.back_to(object_id)

    def _act(
        self, request: HttpRequest, chosen: QuerySet[IngestionJob], verb: Callable[..., bool], note: str, done: str
    ) -> None:
        jobs = list(chosen)
        changed = [job for job in jobs if verb(job_id=job.id)]
        for job in changed:
            self.log_change(request, job, note)
        text = f"{len(changed)} of {len(jobs)} {done}"
        if len(changed) < len(jobs):
            messages.warning(request, f"{text}; the state of the others does not allow it.")
        else:
            messages.success(request, note if len(jobs) == 1 else f"{text}.")
