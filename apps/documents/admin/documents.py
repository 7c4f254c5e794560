"""Documents: their title and metadata to change, all else to look at - versions, texts, chunks."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.forms.fields import InvalidJSONInput
from django.http import HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.formats import localize
from rest_framework.exceptions import ValidationError as Unfit
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from apps.access.admin import CuratorAdmin
from apps.access.problems import Problem, as_problem

from .. import db, queries
from ..models import Document, DocumentVersion
from ..remove import delete
from ..serializers import MAX_TITLE, DocumentPatchSerializer
from .shown import DOCUMENT_STATES, as_uuid, failure, link, number, one_line

CHUNKS_PER_PAGE = 25
VERSIONS_PER_PAGE = 10
CHARACTERS_PER_PAGE = 20_000
TOO_MUCH = (RecursionError, ValueError)  # JSON nested deeper, or numbers longer, than Python's parser takes
CONTEXT_CHARACTERS = 1_000  # before a span that a link points to


class MetadataField(forms.JSONField):
    """A JSON object, indented for reading; held to what the API takes."""

    def prepare_value(self, value: Any) -> Any:
        shown = super().prepare_value(value)
        return shown if shown is value else json.dumps(value, indent=2, ensure_ascii=False)

    def to_python(self, value: Any) -> Any:
        try:
            return super().to_python(value)
        except TOO_MUCH:
            raise ValidationError("This is not JSON that can be stored.")

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            return super().bound_data(data, initial)
        except TOO_MUCH:
            return InvalidJSONInput(data)


class DocumentForm(forms.ModelForm):
    title = forms.CharField(max_length=MAX_TITLE, required=False, widget=UnfoldAdminTextInputWidget)
    metadata = MetadataField(required=False, widget=UnfoldAdminTextareaWidget, help_text="A JSON object.")

    class Meta:
        model = Document
        fields = ("title", "metadata")

    def clean_metadata(self) -> dict[str, Any]:
        value = self.cleaned_data["metadata"]
        checked = DocumentPatchSerializer(data={"metadata": {} if value is None else value})
        try:
            checked.is_valid(raise_exception=True)
        except Unfit as error:
            found = as_problem(error).errors
            raise ValidationError([f"{one['pointer'].removeprefix('/metadata')} {one['detail']}" for one in found])
        return checked.validated_data["metadata"]


class StateFilter(admin.SimpleListFilter):
    """Deleted documents are out of the way until they are asked for, as in the API."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(Document.State.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Document]) -> QuerySet[Document]:
        if self.value() in Document.State.values:
            return queryset.filter(state=self.value())
        return queryset.exclude(state=Document.State.DELETED)


@admin.register(Document)
class DocumentAdmin(CuratorAdmin):
    form = DocumentForm
    list_display = ("shown", "shown_state", "in_collection", "version", "live_version", "updated_at")
    list_filter = (StateFilter, "collection")
    list_select_related = ("collection",)
    search_fields = ("title", "source_uri")
    search_help_text = "Title, source or a document's id"
    ordering = ("-updated_at", "id")
    change_form_outer_after_template = "admin/documents/document/inside.html"
    readonly_fields = (
        *("shown_state", "in_collection", "source_uri", "version", "live_version", "media_type", "problem", "id"),
        *("pending_since", "created_at", "updated_at", "deleted_at", "jobs"),
    )
    fieldsets = (
        (None, {"fields": ("title", "metadata")}),
        (
            "What is known of it",
            {
                "fields": (
                    ("shown_state", "version", "live_version"),
                    ("in_collection", "source_uri", "media_type"),
                    ("problem", "pending_since", "deleted_at"),
                    ("created_at", "updated_at", "jobs"),
                    "id",
                )
            },
        ),
    )

    def get_urls(self) -> list[URLPattern]:
        version = path(
            "<path:object_id>/versions/<int:number>/",
            self.admin_site.admin_view(self.version_view),
            name="documents_document_version",
        )
        return [version, *super().get_urls()]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # documents come in through the API

    def has_change_permission(self, request: HttpRequest, obj: Document | None = None) -> bool:
        return (obj is None or obj.deleted_at is None) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Document | None = None) -> bool:
        return (obj is None or obj.deleted_at is None) and super().has_delete_permission(request, obj)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Document], search_term: str
    ) -> tuple[QuerySet[Document], bool]:
        wanted = as_uuid(search_term)
        if wanted is not None:
            return queryset.filter(id=wanted), False
        return super().get_search_results(request, queryset, search_term)

    @display(description="Document", ordering="title")
    def shown(self, document: Document) -> str:
        return one_line(str(document), 60)

    @display(description="State", label=DOCUMENT_STATES, ordering="state")
    def shown_state(self, document: Document) -> str:
        return document.state

    @display(description="Collection", ordering="collection__name")
    def in_collection(self, document: Document) -> str:
        return link("documents_collection_change", document.collection.name, document.collection_id)

    @display(description="Error", empty_value="–")
    def problem(self, document: Document) -> str | None:
        return failure(document.error) or None

    @display(description="Jobs")
    def jobs(self, document: Document) -> str:
        return link("documents_ingestionjob_changelist", "its jobs", query=f"?q={document.pk}")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        document = self.get_object(request, unquote(object_id))
        inside = {} if document is None else _inside(request, document)
        return super().change_view(request, object_id, form_url, inside | (extra_context or {}))

    def version_view(self, request: HttpRequest, object_id: str, number: int) -> HttpResponseBase:
        """A page of one version's normalised text; `?start=&end=` marks a span, such as a citation's."""
        document = self.get_object(request, unquote(object_id))
        if document is None:
            return self.gone(request, object_id)
        if not self.has_view_permission(request, document):
            raise PermissionDenied
        try:
            version = queries.version(document.pk, number)
        except Problem:
            return self.gone(request, f"{object_id} version {number}")
        context = self.admin_site.each_context(request) | {
            "title": f"Version {number}",
            "subtitle": str(document),
            "opts": self.opts,
            "original": document,
            "version": version,
            "facts": _facts(version),
            "back": reverse("admin:documents_document_change", args=[document.pk]),
        }
        context |= _page_of_text(request, document, number, version.characters)
        return TemplateResponse(request, "admin/documents/document/version.html", context)

    def save_model(self, request: HttpRequest, obj: Document, form: Any, change: bool) -> None:
        """What the API's PATCH does: these columns only, since a publish may be changing the others right now."""
        values = {name: form.cleaned_data[name] for name in form.changed_data}
        if values:
            live = Document.objects.filter(id=obj.pk, deleted_at=None)
            if not live.update(**values, updated_at=timezone.now()):
                raise Problem(404, "not_found", "The document has just been deleted.")
            db.run("bump_epoch", collection=obj.collection_id, documents=0, chunks=0, tokens=0)

    def delete_model(self, request: HttpRequest, obj: Document) -> None:
        delete(tenant_id=self.tenant_id(request), document_id=obj.pk)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Document]) -> None:
        for document_id in queryset.order_by("id").values_list("id", flat=True):  # in order: two such never deadlock
            delete(tenant_id=self.tenant_id(request), document_id=document_id)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[list[Any], dict[str, int], set[str], list]:
        """A delete takes the documents out of every search; rows are not removed, so there is nothing to cascade."""
        return [one_line(str(one), 120) for one in objs], {"documents": len(objs)}, set(), []


def _inside(request: HttpRequest, document: Document) -> dict[str, Any]:
    """The live version's chunks and the versions, a page of each, as tables."""
    return {"chunks": _chunks(request, document), "versions": _versions(request, document)}


def _chunks(request: HttpRequest, document: Document) -> dict[str, Any]:
    after = number(request, "after")
    rows: list[dict[str, Any]] = []
    following = None
    if document.live_version is not None:
        rows, following = queries.chunks(document.pk, document.live_version, after=after, limit=CHUNKS_PER_PAGE)
    return {
        "title": f"Chunks of the live version, {document.live_version}"
        if document.live_version
        else "Chunks: none live",
        "headers": ["Ordinal", "Offsets", "Headings", "Tokens", "Text"],
        "rows": [
            [
                row["ordinal"],
                _to_text(document, document.live_version, f"{row['start']}–{row['end']}", row["start"], row["end"]),
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
    before = number(request, "before")
    found = queries.versions(document.pk)
    rows = list((found.filter(version__lt=before) if before else found)[: VERSIONS_PER_PAGE + 1])
    shown = rows[:VERSIONS_PER_PAGE]
    return {
        "title": "Versions",
        "headers": ["Version", "Text", "Chunks", "Bytes", "Accepted", "Published", "Error"],
        "rows": [
            [
                f"{one.version} (live)" if one.version == document.live_version else one.version,
                "–" if one.characters is None else _to_text(document, one.version, f"{one.characters} characters"),
                "–" if one.chunk_count is None else one.chunk_count,  # type: ignore[attr-defined]
                one.bytes,
                _when(one.accepted_at),
                _when(one.published_at),
                failure(one.error) or "–",
            ]
            for one in shown
        ],
        "first": before,
        "following": shown[-1].version if len(rows) > VERSIONS_PER_PAGE else None,
    }


def _when(moment: datetime | None) -> str:
    return "–" if moment is None else localize(timezone.localtime(moment))


def _to_text(document: Document, version: int | None, text: str, start: int = 0, end: int = 0) -> str:
    query = f"?start={start}&end={end}#span" if end else ""
    return link("documents_document_version", text, document.pk, version, query=query)


def _facts(version: DocumentVersion) -> dict[str, Any]:
    made_by = " · ".join(filter(None, (version.parser, version.chunker))) or "–"
    return {
        "headers": ["Media type", "Read and cut by", "SHA-256 of the original", "Error"],
        "rows": [[version.media_type, made_by, bytes(version.sha256).hex(), failure(version.error) or "–"]],
    }


def _page_of_text(request: HttpRequest, document: Document, version: int, characters: int | None) -> dict[str, Any]:
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
