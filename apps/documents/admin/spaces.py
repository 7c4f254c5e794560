"""Embedding spaces, to look at: making one creates tables, which is an operator's act (manage.py)."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display

from apps.access.admin import CuratorAdmin

from ..models import EmbeddingSpace


@admin.register(EmbeddingSpace)
class EmbeddingSpaceAdmin(CuratorAdmin):
    list_display = ("slug", "shown_state", "backend", "model", "dimensions", "metric", "storage", "index_method")
    ordering = ("slug",)
    actions = None

    @display(description="State", label={"live": "success", "building": "info", "retired": "warning"})
    def shown_state(self, space: EmbeddingSpace) -> str:
        return space.state

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: EmbeddingSpace | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: EmbeddingSpace | None = None) -> bool:
        return False
