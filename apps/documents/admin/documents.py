"""Documents: their title and metadata to change, all else to look at - versions, texts, chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
from rest_framework.exceptions import ValidationError as Unfit
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from apps.access.admin import CuratorAdmin
from apps.access.problems import Problem, as_problem

from .. import queries
from ..edit import edit
from ..models import Document
from ..remove import delete
from ..serializers import MAX_TITLE, DocumentPatchSerializer
from .inside import facts, page_of_text, tables
from .shown import DOCUMENT_STATES, as_uuid, failure, link, one_line


class MetadataField(forms.JSONField):
    """A JSON object, indented for reading; held to what the API takes."""

    def prepare_value(self, value: Any) -> Any:
        shown = super().prepare_value(value)
        return shown if shown is value else json.dumps(value, indent=2, ensure_ascii=False)

    def to_python(self, value: Any) -> Any:
        try:
            return super().to_python(value)
        except (RecursionError, ValueError):  # nested deeper, or numbers longer, than Python's parser takes
            raise ValidationError("This is not JSON that can be stored.")

    def bound_data(self, data: Any, initial: Any) -> Any:
        """A refused text comes back as it was typed: parsed, it may be what no page can hold."""
        return initial if self.disabled else InvalidJSONInput(data or "")


class DocumentForm(forms.ModelForm):
    title = forms.CharField(
        max_length=MAX_TITLE,
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="Left empty, it is the content's own title, where there is one.",
    )
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

    def choices(self, changelist: Any) -> Iterator[Any]:
        everything, *states = super().choices(changelist)
        yield {**everything, "display": "All but deleted"}
        yield from states

    def queryset(self, request: HttpRequest, queryset: QuerySet[Document]) -> QuerySet[Document]:
        if self.value() in Document.State.values:
            return queryset.filter(state=self.value())
        return queryset.exclude(state=Document.State.DELETED)


@admin.register(Document)
class DocumentAdmin(CuratorAdmin):
    form = DocumentForm
    list_display = ("shown", "shown_state", "in_collection", "version", "live_version", "updated_at")
    list_filter = (StateFilter, "collection")
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

    def get_queryset(self, request: HttpRequest) -> QuerySet[Document]:
        return super().get_queryset(request).prefetch_related("collection")  # a join is refused by Citus (queries.py)

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

    @display(description="Collection", ordering="collection_id")
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
        inside = {} if document is None else tables(request, document)
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
            "facts": facts(version),
            "back": reverse("admin:documents_document_change", args=[document.pk]),
        }
        context |= page_of_text(request, document, number, version.characters)
        return TemplateResponse(request, "admin/documents/document/version.html", context)

    def save_model(self, request: HttpRequest, obj: Document, form: Any, change: bool) -> None:
        """What the API's PATCH does: these columns only, since a publish may be changing the others right now."""
        values = {name: form.cleaned_data[name] for name in form.changed_data}
        if values:
            edit(obj.pk, values)

    def delete_model(self, request: HttpRequest, obj: Document) -> None:
        delete(tenant_id=self.tenant_id(request), document_id=obj.pk)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Document]) -> None:
        for document_id in queryset.order_by("id").values_list("id", flat=True):  # in order: two such never deadlock
            delete(tenant_id=self.tenant_id(request), document_id=document_id)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[list[Any], dict[str, int], set[str], list]:
        """A delete takes the documents out of every search; rows are not removed, so there is nothing to cascade."""
        return [one_line(str(one), 120) for one in objs], {"documents": len(objs)}, set(), []
