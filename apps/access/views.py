"""What every API view shares: the caller, its tenant's scope, and lists by cursor."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from django.db.models import QuerySet
from rest_framework.pagination import CursorPagination
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from . import tenancy
from .keys import Caller
from .problems import Problem

MAX_PAGE = 200


class Pages(CursorPagination):
    """`{results, next, previous}`; `?limit=` up to 200."""

    page_size = 50
    page_size_query_param = "limit"
    max_page_size = MAX_PAGE
    ordering = ("-created_at", "id")


class TenantView(APIView):
    """A view of one tenant's things. Bodies are validated before, and rendered inside, the tenant's scope."""

    @property
    def caller(self) -> Caller:
        return self.request.user  # type: ignore[return-value]

    def scope(self) -> AbstractContextManager[None]:
        return tenancy.scope(self.caller.tenant_id)

    def validated(self, serializer: type[Serializer], **kwargs: Any) -> dict[str, Any]:
        """The body as the serializer's clean values. Raises ValidationError, which becomes a problem with pointers."""
        checked = serializer(data=self.request.data, **kwargs)
        checked.is_valid(raise_exception=True)
        return checked.validated_data

    def query_number(self, name: str, default: int | None = None, *, at_least: int = 0) -> int | None:
        """An integer of the query string. Raises Problem 400 naming it."""
        raw = self.request.query_params.get(name)
        if raw is None:
            return default
        try:
            value = int(raw)
        except ValueError:
            value = at_least - 1
        if value < at_least or value >= 2**63:
            detail = f"{name} must be a whole number of at least {at_least}."
            raise Problem(400, "invalid", detail, errors=[{"pointer": f"/{name}", "detail": detail}])
        return value

    def paged(self, rows: QuerySet[Any], show: Callable[[Any], dict[str, Any]]) -> Response:
        """One page of a queryset, each row through `show`."""
        pages = Pages()
        with self.scope():
            found = pages.paginate_queryset(rows, self.request, view=self) or []
            return pages.get_paginated_response([show(row) for row in found])
