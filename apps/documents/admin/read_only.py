"""Pages of the desk for what is made elsewhere and only looked at: the object's fields, and tables below them."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from apps.access.admin import CuratorAdmin


class ReadOnlyAdmin(CuratorAdmin):
    actions = None
    change_form_outer_after_template = "admin/ragsite/tables.html"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def tables(self, obj: Any) -> list[dict[str, Any]]:
        """{title, headers, rows} of what is shown below the object's own fields; a table without rows is left out."""
        raise NotImplementedError

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        found = self.get_object(request, object_id)
        context = {} if found is None else {"tables": self.tables(found)}
        return super().change_view(request, object_id, form_url, (extra_context or {}) | context)
