"""Sources: made, set, synced and deleted through the same verbs as the API's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.timesince import timeuntil
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldBooleanWidget

from apps.access.admin import CuratorAdmin
from apps.access.problems import Problem

from .. import schedules
from ..models import Source
from ..sources import kinds, runs, standing, verbs
from ..sources.standing import Dressed
from . import source_runs
from .shown import DressedList, as_uuid, failure, link, one_line
from .source_form import OF_KIND, ROWS, SETTINGS, SourceForm
from .source_runs import FAILING

Kind = Source.Kind

# What beat is to do is one table for all tenants: its pages would show one the names of another's.
admin.site.unregister([ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule])


def _only_for(allowed: Sequence[str]) -> str:
    """Alpine's condition for a field of these kinds. Where the kind is fixed there is no such variable, nor a field
    of another kind."""
    return f"typeof kind === 'undefined' || {[str(kind) for kind in allowed]}.includes(kind)"


class FailingFilter(admin.SimpleListFilter):
    title = "last result"
    parameter_name = "last"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("failed", "Failed, and switched on")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Source]) -> QuerySet[Source]:
        return standing.with_runs(queryset).filter(FAILING) if self.value() == "failed" else queryset


class RemovalForm(BaseDialogForm):
    documents = forms.BooleanField(
        label="Delete its documents too",
        help_text="Otherwise they stay as they are, and nothing keeps them up to date.",
        required=False,
        widget=UnfoldBooleanWidget,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        wanted = as_uuid(str(self.object_id))
        # A feed remembers no items, so nothing is known to be its document.
        feed = wanted is not None and Source.objects.filter(pk=wanted, kind=Kind.FEED).exists()
        if feed or not self.request.user.has_perm("documents.delete_document"):
            del self.fields["documents"]


@admin.register(Source)
class SourceAdmin(CuratorAdmin):
    form = SourceForm
    list_display = ("shown", "kind", "its_collection", "planned", "next_run", "result", "outcome", "enabled")
    list_filter = (FailingFilter, "kind", "enabled", "collection")
    list_select_related = ("collection",)
    search_fields = ("name",)
    ordering = ("name", "id")
    actions = ("sync_selected",)
    actions_detail = ("sync_now", "sync_empty", "cancel", "remove")
    change_form_outer_after_template = "admin/documents/source/inside.html"
    conditional_fields = {
        **{name: _only_for(sorted(kind for kind in OF_KIND if name in OF_KIND[kind])) for name in sorted(SETTINGS)},
        "schedule": _only_for(sorted(kinds.SCANNED)),
        "events": _only_for([Kind.FEED]),
    }

    def has_delete_permission(self, request: HttpRequest, obj: Source | None = None) -> bool:
        return False  # Django's page asks no question about the documents; `remove` does

    def has_remove_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return request.user.has_perm("documents.delete_source")

    def has_act_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return request.user.has_perm("documents.change_source")

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Source | None:
        found: Source | None = super().get_object(request, object_id, from_field)
        standing.dress([] if found is None else [found])
        return found

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[DressedList]:
        return DressedList

    def dress(self, rows: Sequence[Source]) -> None:
        standing.dress(rows)
        standing.count(rows)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Only what the source's state allows."""
        source: Dressed = self.get_object(request, str(object_id))
        if source is None:
            return []
        ready = source.kind in kinds.SCANNED and source.enabled
        vanished = source.last is not None and (source.last.error or {}).get("code") == "vanished"
        allowed = {"sync_now": ready, "sync_empty": ready and vanished, "cancel": source.open is not None}
        return [each for each in super().get_actions_detail(request, object_id) if allowed.get(each.path, True)]

    # --- What is shown

    @display(description="Name", ordering="name")
    def shown(self, source: Source) -> str:
        return one_line(source.name, 40)

    @display(description="Collection", ordering="collection__name")
    def its_collection(self, source: Source) -> str:
        return one_line(source.collection.name, 30)

    @display(description="Schedule")
    def planned(self, source: Source) -> str:
        if source.kind == Kind.FEED:
            return "When events come"
        if not source.schedule:
            return "When it changes" if source.settings.get("watch") else "By hand"
        return schedules.in_words(source.schedule) + ("; when it changes" if source.settings.get("watch") else "")

    @display(description="Next run")
    def next_run(self, source: Source) -> str:
        due = verbs.next_run_at(source)
        if due is None:
            return "–"
        return "now" if (due - timezone.now()).total_seconds() < 60 else f"in {timeuntil(due, depth=1)}"

    @display(description="Last result")
    def result(self, source: Dressed) -> str:
        return source_runs.result(source)

    @display(description="Outcome")
    def outcome(self, source: Dressed) -> str:
        told = [source_runs.outcome(source.last)]
        if source.last is not None:
            told.append(source_runs.ago(source.last))
        if source.failed_items:
            told.append(f"{source.failed_items} of its items failed")
        return "; ".join(told)

    @display(description="Error", empty_value="–")
    def problem(self, source: Dressed) -> str | None:
        return failure(source.last.error) or None if source.last else None

    @display(description="Ended")
    def last_run(self, source: Dressed) -> str:
        return source_runs.ago(source.last)

    @display(description="Settings")
    def shown_settings(self, source: Source) -> str:
        """For whoever may look only. What is secret is not among them."""
        shown = {name: ", ".join(map(str, it)) if isinstance(it, list) else it for name, it in source.settings.items()}
        return format_html_join("", "<p><code>{}</code> {}</p>", ((n, "–" if v == "" else v) for n, v in shown.items()))

    @display(description="Items")
    def items(self, source: Dressed) -> str:
        standing.count([source])
        return f"{source.items_taken} taken; {source.failed_items} failed"

    @display(description="Documents")
    def documents(self, source: Source) -> str:
        query = f"?collection__id__exact={source.collection_id}"
        return link("documents_document_changelist", f"all of {source.collection}", query=query)

    @display(description="Events")
    def events(self, source: Source) -> str:
        return "The address that events are sent to is shown once the source is saved."

    # --- The form

    def get_fieldsets(self, request: HttpRequest, obj: Source | None = None) -> Any:
        top = (None, {"fields": (("name", "enabled"), ("kind", "collection"))})
        if obj is None:
            return [top, ("Settings", {"fields": (*ROWS, "events", "schedule")})]
        known = [("documents",), ("created_at", "updated_at", "id")]
        if obj.kind == Kind.FEED:
            return [top, ("What is known of it", {"fields": known})]
        known[:1] = [("result", "problem", "last_run"), ("items", "documents"), ("planned", "next_run")]
        mine = [tuple(name for name in row if name in OF_KIND[Kind(obj.kind)]) for row in ROWS]
        rows = [row for row in mine if row] if self.has_change_permission(request, obj) else ["shown_settings"]
        told = "What new settings leave out is deleted by the next sync."
        settings = {"fields": [*rows, "schedule"], "description": told}
        return [top, ("What is known of it", {"fields": known}), ("Settings", settings)]

    def get_readonly_fields(self, request: HttpRequest, obj: Source | None = None) -> tuple[str, ...]:
        if obj is None:
            return ("events",)
        shown = ("result", "problem", "last_run", "items", "documents", "planned", "next_run", "shown_settings")
        return ("kind", "collection", *shown, "created_at", "updated_at", "id")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        source = self.get_object(request, unquote(object_id))
        inside: dict[str, Any] = {}
        if source is not None and source.kind == Kind.FEED:
            inside = {"events_url": request.build_absolute_uri(reverse("source_events", args=[source.pk]))}
        elif source is not None:
            inside = source_runs.tables(source)
        return super().change_view(request, object_id, form_url, inside | (extra_context or {}))

    def save_model(self, request: HttpRequest, obj: Source, form: Any, change: bool) -> None:
        """Never a plain save: secrets are encrypted, and beat is told of the schedule."""
        values = form.as_values()
        if change:
            verbs.change(source=verbs.find(obj.pk), values=values)
        else:
            slug = form.cleaned_data["collection"].slug
            made = verbs.create(tenant_id=self.tenant_id(request), collection=slug, kind=form.kind, **values)
            obj.pk = made.pk

    def response_post_save_add(self, request: HttpRequest, obj: Source) -> HttpResponse:
        """To its page: there it is synced for the first time, or its address for events is read."""
        if not self.has_view_permission(request, obj):
            return super().response_post_save_add(request, obj)
        return HttpResponseRedirect(reverse("admin:documents_source_change", args=[obj.pk]))

    # --- What is done

    @action(description="Sync the selected sources", permissions=["act"])
    def sync_selected(self, request: HttpRequest, chosen: QuerySet[Source]) -> None:
        sources = list(chosen)
        asked = 0
        for source in sources:
            try:
                verbs.sync(source=source)
            except Problem:  # a feed, or switched off
                continue
            asked += 1
            self.log_change(request, source, "Sync asked for.")
        if asked < len(sources):
            text = f"{asked} of {len(sources)} will be synced; feeds and what is switched off are not."
            messages.warning(request, text)
        else:
            messages.success(request, f"{asked} of {len(sources)} will be synced.")

    @action(
        description="Sync now",
        permissions=["act"],
        icon="sync",
        dialog={
            "title": "Sync this source now?",
            "description": "What is new or changed is taken, what is gone is deleted.",
            "form_class": None,
            "form_submit_text": "Sync",
        },
    )
    def sync_now(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponseBase:
        return self._act(request, object_id, lambda source: verbs.sync(source=source), "Sync asked for.")

    @action(
        description="Sync, it may be empty",
        permissions=["act"],
        icon="sync_problem",
        variant=ActionVariant.WARNING,
        dialog={
            "title": "Is it right that the source is empty?",
            "description": "The last run found nothing any more, and deleted nothing. This one deletes the documents "
            "of all that is gone, be it everything.",
            "form_class": None,
            "form_submit_text": "Sync and delete",
        },
    )
    def sync_empty(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponseBase:
        note = "Sync asked for; the source may be empty."
        return self._act(request, object_id, lambda source: verbs.sync(source=source, empty_it=True), note)

    @action(
        description="Cancel the run",
        permissions=["act"],
        icon="block",
        dialog={
            "title": "Cancel the run under way?",
            "description": "The one that waits, too. What has been taken stays.",
            "form_class": None,
            "form_submit_text": "Cancel the run",
        },
    )
    def cancel(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponseBase:
        return self._act(request, object_id, _cancel, "Cancelled.")

    @action(
        description="Delete",
        permissions=["remove"],
        icon="delete",
        variant=ActionVariant.DANGER,
        dialog={
            "title": "Delete this source?",
            "description": "It is forgotten with its settings and runs.",
            "form_class": RemovalForm,
            "form_submit_text": "Delete",
        },
    )
    def remove(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponseBase:
        source = self.get_object(request, object_id)
        if source is None:
            return self.gone(request, object_id)
        self.log_deletions(request, [source])
        verbs.delete(source=source, documents=form.cleaned_data.get("documents", False))
        messages.success(request, f"{source} is deleted.")
        return HttpResponse(headers={"HX-Redirect": reverse("admin:documents_source_changelist")})

    def _act(
        self, request: HttpRequest, object_id: str, verb: Callable[[Source], object], note: str
    ) -> HttpResponseBase:
        source = self.get_object(request, object_id)
        if source is None:
            return self.gone(request, object_id)
        try:
            verb(source)
        except Problem as problem:
            messages.error(request, problem.sentence)
        else:
            self.log_change(request, source, note)
            messages.success(request, note)
        return self.back_to(object_id)


def _cancel(source: Source) -> None:
    if not runs.cancel(source_id=source.id):
        raise Problem(409, "wrong_state", "No run is open.")
