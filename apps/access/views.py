"""What every API view shares: the caller, its tenant's scope, and lists by cursor."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import unquote

from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from . import tenancy
from .keys import Caller
from .problems import Problem, invalid
from .serializers import JsonParser, unstorable_text

MAX_PAGE = 200
PAGED = ("limit", "cursor")
_DIGITS = re.compile(r"-?[0-9]{1,19}")


@functools.cache
def checker(serializer: type[Serializer]) -> Serializer:
    """One that bodies are checked with; making one, with copies of all its fields, takes longer than the checking. What
    it is asked changes nothing of it."""
    return serializer()


class Pages(CursorPagination):
    """`{results, next, previous}`; `?limit=` up to 200."""

    page_size = 50
    page_size_query_param = "limit"
    max_page_size = MAX_PAGE
    ordering: tuple[str, ...] = ("-created_at", "id")

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Where the page starts. Raises Problem 400 for a cursor that no page has given."""
        try:
            cursor = super().decode_cursor(request)
            if cursor is None or cursor.position is None or self.may_be_position(str(cursor.position)):
                return cursor
        except (NotFound, ValueError):
            pass
        raise invalid("/cursor", "This is not a cursor of this list.")

    def may_be_position(self, text: str) -> bool:
        """A value of the first column that the list is ordered by, or what Postgres would stumble over?"""
        return parse_datetime(text) is not None


class PagesByKey(Pages):
    """The same for a list in the order of its `key`, a text."""

    ordering = ("key",)

    def may_be_position(self, text: str) -> bool:
        return not unstorable_text(text)


class OwnPages(Pages):
    """The same envelope for a list that goes on by its own numbers, which its view describes."""

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return []


class TenantView(APIView):
    """A view of one tenant's things. Bodies are validated before, and rendered inside, the tenant's scope."""

    parser_classes = [JsonParser]
    pagination_class: type[Pages] | None = Pages  # of those that list, as OpenAPI describes them
    #: What the query string of each method may hold; `name.*` stands for every name with that beginning.
    query_names: Mapping[str, Sequence[str]] | None = {}  # None: anything, as in OpenAI's API
    #: A body may hold far more objects than bytes of text: only documents may be large.
    max_body_bytes: int | None = 8 * 2**20

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Who may ask, then what holds for every request. Raises Problem 400, 413 or 415."""
        super().initial(request, *args, **kwargs)
        if request.META.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
            raise Problem(415, "unsupported", "Compressed bodies are not read; send it without Content-Encoding.")
        size = request.META.get("CONTENT_LENGTH") or "0"
        if self.max_body_bytes is not None and int(size) > self.max_body_bytes:
            raise Problem(413, "too_large", f"A body has at most {self.max_body_bytes} bytes here.")
        try:
            unquote(request.META.get("QUERY_STRING", ""), errors="strict")
        except UnicodeDecodeError:
            raise Problem(400, "invalid", "The query string is not UTF-8.")
        known = None if self.query_names is None else self.query_names.get(request.method or "", ())
        for name, value in request.query_params.dict().items():
            if unstorable_text(name + value):
                raise invalid(f"/{name}", "Null characters are not allowed.")
            if known is not None and name not in known and re.sub(r"\..*", ".*", name) not in known:
                raise invalid(f"/{name}", f"Unknown query parameter; known here: {', '.join(known) or 'none'}.")

    @property
    def caller(self) -> Caller:
        return self.request.user  # type: ignore[return-value]

    def scope(self) -> AbstractContextManager[None]:
        return tenancy.scope(self.caller.tenant_id)

    def validated(self, serializer: type[Serializer], **kwargs: Any) -> dict[str, Any]:
        """The body as the serializer's clean values. Raises ValidationError, which becomes a problem with pointers."""
        if not kwargs:
            try:
                return checker(serializer).run_validation(self.request.data)
            except ValidationError:
                pass  # an instance of its own words the refusal
        checked = serializer(data=self.request.data, **kwargs)
        checked.is_valid(raise_exception=True)
        return checked.validated_data

    def query_number(self, name: str, default: int | None = None, *, at_least: int = 0) -> int | None:
        """An integer of the query string. Raises Problem 400 naming it."""
        raw = self.request.query_params.get(name)
        if raw is None:
            return default
        value = int(raw) if _DIGITS.fullmatch(raw) else at_least - 1
        if value < at_least or value >= 2**63:
            raise invalid(f"/{name}", f"{name} must be a whole number of at least {at_least}.")
        return value

    def paged(self, rows: QuerySet[Any], show: Callable[[Any], dict[str, Any]]) -> Response:
        """One page of a queryset, each row through `show`. Raises Problem 400 for a bad `limit` or `cursor`."""
        return self.paged_together(rows, lambda found: [show(row) for row in found])

    def paged_together(
        self, rows: QuerySet[Any], show_all: Callable[[Sequence[Any]], list[dict[str, Any]]]
    ) -> Response:
        """The same for rows that ask the database less when they are shown together."""
        self.query_number("limit", at_least=1)
        pages = (self.pagination_class or Pages)()
        with self.scope():
            found = pages.paginate_queryset(rows, self.request, view=self) or []
            return pages.get_paginated_response(show_all(found))
