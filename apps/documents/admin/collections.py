"""Collections: made, set and deleted through the same verbs as the API's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator
from django.db import connection
from django.http import HttpRequest, HttpResponseBase
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminSelectWidget

from apps.access.admin import CuratorAdmin
from apps.access.problems import Problem

from .. import collections, reindex, schedules, second_space
from ..chunking import MAX_TOKENS, MIN_TOKENS, validate
from ..models import Collection, EmbeddingSpace
from .reindexes import ALLOWED, ReindexForm, last_runs
from .shown import DressedList, link, pending

MAX_WINDOW_SECONDS = 86_400
SETTINGS = ("name", "description", "language")
CHUNKING = ("strategy", "max_tokens", "overlap_tokens", "heading_level")
CONSISTENCY = ("mode", "window_seconds")
REINDEXING = ("schedule", "everything")


def _languages() -> list[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT cfgname FROM pg_ts_config ORDER BY cfgname")
        return [(name, name) for (name,) in cursor.fetchall()]


class CollectionForm(forms.ModelForm):
    """The API's rules, each error at its field."""

    language = forms.ChoiceField(
        choices=_languages,
        initial="english",
        widget=UnfoldAdminSelectWidget,
        help_text="How words are stemmed for lexical search; simple: not at all.",
    )

    class Meta:
        model = Collection
        fields = (
            "slug",
            *SETTINGS,
            *(f"chunking_{name}" for name in CHUNKING),
            *(f"consistency_{name}" for name in CONSISTENCY),
            *(f"reindexing_{name}" for name in REINDEXING),
            "space",
        )
        labels = {
            "chunking_strategy": "Strategy",
            "chunking_max_tokens": "Tokens per chunk, at most",
            "chunking_overlap_tokens": "Overlap in tokens",
            "chunking_heading_level": "Heading level",
            "consistency_mode": "Mode",
            "consistency_window_seconds": "Window in seconds",
            "reindexing_schedule": "Schedule",
            "reindexing_everything": "Everything",
            "space": "Embedding space",
        }
        help_texts = {
            "slug": "Its name in the API; cannot be changed later.",
            "chunking_strategy": "recursive: at every heading, at paragraphs and sentences. heading: at headings of the"
            " level below, and packs what is under them. semantic: where the text turns to something else; embeds every"
            " sentence. fixed: by size alone.",
            "chunking_max_tokens": f"{MIN_TOKENS} to {MAX_TOKENS}, in the embedding model's own tokens.",
            "chunking_overlap_tokens": "Repeated at the start of the next chunk; less than half of the above.",
            "chunking_heading_level": "For the strategy heading: 1 to 6; no chunk crosses such a heading.",
            "consistency_mode": "write_back: a write is answered at once. write_through: when it can be found.",
            "consistency_window_seconds": "How long a search may give the old version of a changed document.",
            "reindexing_schedule": "A crontab in UTC, as in 0 3 * * 0: Sundays at three. Empty: when the chunking or a"
            " parser changes.",
            "reindexing_everything": "By schedule, read all documents anew; else those that other parsers or settings"
            " have made.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        space = self.fields.get("space")
        if isinstance(space, forms.ModelChoiceField):
            # Only a collection without chunks may choose; the others are in a space of their own already.
            live = EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.LIVE).order_by("created_at")
            space.queryset, space.initial, space.empty_label = live, collections.default_space(), None
        if "consistency_window_seconds" in self.fields:
            self.fields["consistency_window_seconds"].validators.append(MaxValueValidator(MAX_WINDOW_SECONDS))

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"]
        if Collection.objects.filter(slug=slug).exists():
            raise ValidationError("There is a collection with this slug already.")
        return slug

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        chunking: dict[str, Any] = {name: values.get(f"chunking_{name}") for name in CHUNKING}
        if None not in chunking.values():
            try:
                validate(**chunking)
            except ValueError as error:
                # The message begins with the setting that it is about.
                self.add_error(f"chunking_{str(error).split()[0]}", str(error))
        try:
            schedules.checked(values.get("reindexing_schedule") or "", pointer="")
        except Problem as problem:
            self.add_error("reindexing_schedule", problem.sentence)
        return values

    def as_values(self) -> dict[str, Any]:
        """The cleaned fields as collections.create and .change take them."""
        clean = self.cleaned_data
        values: dict[str, Any] = {name: clean[name] for name in SETTINGS}
        values["chunking"] = {name: clean[f"chunking_{name}"] for name in CHUNKING}
        values["consistency"] = {name: clean[f"consistency_{name}"] for name in CONSISTENCY}
        values["reindexing"] = {name: clean[f"reindexing_{name}"] for name in REINDEXING}
        return values | ({"space": clean["space"].slug} if "space" in clean else {})


@admin.register(Collection)
class CollectionAdmin(CuratorAdmin):
    form = CollectionForm
    list_display = ("name", "slug", "shown_documents", "chunks", "pending", "epoch", "consistency_mode", "space")
    list_select_related = ("space",)
    search_fields = ("name", "slug")
    ordering = ("name",)
    actions = None  # a collection is deleted alone, after its own question
    actions_detail = ("reindex", "pause_reindex", "resume_reindex", "cancel_reindex")
    change_form_outer_after_template = "admin/documents/collection/runs.html"
    prepopulated_fields = {"slug": ("name",)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[DressedList]:
        return DressedList

    def dress(self, rows: Sequence[Collection]) -> None:
        """`going`: how their indexing goes."""
        going = collections.progress([row.pk for row in rows])
        for row in rows:
            row.going = going[row.pk]  # type: ignore[attr-defined]

    @display(description="Live documents", ordering="documents")
    def shown_documents(self, collection: Collection) -> str:
        query = f"?collection__id__exact={collection.pk}"
        return link("documents_document_changelist", collection.documents, query=query)

    @display(description="Pending")
    def pending(self, collection: Collection) -> str:
        if not hasattr(collection, "going"):
            self.dress([collection])
        return pending(collection.going)  # type: ignore[attr-defined]

    @display(description="Second embedding space")
    def second(self, collection: Collection) -> str:
        return second_space.describe(collection) or "none"

    def get_fieldsets(self, request: HttpRequest, obj: Collection | None = None) -> Any:
        groups: list[tuple[str | None, dict[str, Any]]] = [
            (None, {"fields": (("name", "slug"), "description")}),
            ("Chunking", {"fields": (tuple(f"chunking_{name}" for name in CHUNKING),)}),
            ("Search", {"fields": (("language", "space"),)}),
            ("Consistency", {"fields": (tuple(f"consistency_{name}" for name in CONSISTENCY),)}),
            ("Reindexing", {"fields": (tuple(f"reindexing_{name}" for name in REINDEXING),)}),
        ]
        if obj is not None:
            counters = ("shown_documents", "chunks", "tokens", "pending", "epoch")
            groups.append(("What it holds", {"fields": (counters, ("created_at", "updated_at"))}))
            groups[2][1]["fields"] += ("second",)
            groups[1][1]["description"] = "After a change, live documents are cut anew in the background."
        return groups

    def get_readonly_fields(self, request: HttpRequest, obj: Collection | None = None) -> tuple[str, ...]:
        counters = ("shown_documents", "chunks", "tokens", "pending", "epoch", "created_at", "updated_at")
        if obj is None:
            return counters
        return (*counters, "slug", "second", *(("space",) if obj.chunks else ()))

    def get_prepopulated_fields(self, request: HttpRequest, obj: Collection | None = None) -> Any:
        return self.prepopulated_fields if obj is None else {}

    def save_model(self, request: HttpRequest, obj: Collection, form: Any, change: bool) -> None:
        """Never a plain save: it would write back the counters and the epoch as they were when the page was opened."""
        values = form.as_values()
        if change:
            collections.change(collection=Collection.objects.get(pk=obj.pk), values=values)
        else:
            made = collections.create(tenant_id=self.tenant_id(request), slug=form.cleaned_data["slug"], **values)
            obj.pk = made.pk

    def delete_model(self, request: HttpRequest, obj: Collection) -> None:
        collections.remove(collection=obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[list[Any], dict[str, int], set[str], list]:
        """The counters: listing every document would be the longest page of the product."""
        held = [
            f"{one.name}: {one.documents} live documents in {one.chunks} chunks, and their versions" for one in objs
        ]
        documents = sum(one.documents for one in objs)
        return held, {"collections": len(objs), "documents": documents}, set(), []

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        collection = self.get_object(request, unquote(object_id))
        shown = {} if collection is None else {"runs": last_runs(collection)}
        return super().change_view(request, object_id, form_url, shown | (extra_context or {}))

    def has_act_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return request.user.has_perm("documents.change_collection")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Only what the state of its open run allows."""
        collection = self.get_object(request, str(object_id))
        run = reindex.open_run(collection.pk) if collection else None
        allowed = ALLOWED[run.state if run else None] if collection else set()
        return [offered for offered in super().get_actions_detail(request, object_id) if offered.path in allowed]

    @action(
        description="Reindex",
        permissions=["act"],
        icon="refresh",
        dialog={
            "title": "Read and cut the documents anew?",
            "description": "Those that another parser or other settings have made. What is live answers meanwhile.",
            "form_class": ReindexForm,
            "form_submit_text": "Reindex",
        },
    )
    def reindex(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponseBase:
        collection = self.get_object(request, object_id)
        if collection is None:
            return self.gone(request, object_id)
        try:
            reindex.request(collection=collection, everything=form.cleaned_data["everything"])
        except Problem as problem:
            messages.error(request, problem.sentence)
        else:
            self._note(request, collection, "Reindexing has begun.")
        return self.back_to(object_id)

    @action(
        description="Pause reindexing",
        permissions=["act"],
        icon="pause",
        dialog={
            "title": "Pause reindexing?",
            "description": "What is queued ends, no more is queued.",
            "form_class": None,
            "form_submit_text": "Pause",
        },
    )
    def pause_reindex(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponseBase:
        return self._act_on_run(request, object_id, reindex.pause, "Reindexing is paused.")

    @action(
        description="Resume reindexing",
        permissions=["act"],
        icon="play_arrow",
        dialog={
            "title": "Resume reindexing?",
            "description": "It goes on where it stopped.",
            "form_class": None,
            "form_submit_text": "Resume",
        },
    )
    def resume_reindex(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponseBase:
        return self._act_on_run(request, object_id, reindex.resume, "Reindexing goes on.")

    @action(
        description="Cancel reindexing",
        permissions=["act"],
        icon="block",
        variant=ActionVariant.DANGER,
        dialog={
            "title": "Cancel reindexing?",
            "description": "What is queued ends; documents that have been done stay so.",
            "form_class": None,
            "form_submit_text": "Cancel reindexing",
        },
    )
    def cancel_reindex(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponseBase:
        return self._act_on_run(request, object_id, reindex.cancel, "Reindexing was cancelled.")

    def _act_on_run(
        self, request: HttpRequest, object_id: str, verb: Callable[..., bool], note: str
    ) -> HttpResponseBase:
        collection = self.get_object(request, object_id)
        if collection is None:
            return self.gone(request, object_id)
        run = reindex.open_run(collection.pk)
        if run is not None and verb(run_id=run.pk):
            self._note(request, collection, note)
        else:
            messages.warning(request, "The state of the run does not allow it.")
        return self.back_to(object_id)

    def _note(self, request: HttpRequest, collection: Collection, note: str) -> None:
        self.log_change(request, collection, note)
        messages.success(request, note)
