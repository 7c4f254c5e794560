"""What makes searches slow rather than wrong, found by `manage.py check --database default`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import connections


@register(Tags.database)
def lexical_search_can_use_its_index(
    app_configs: Any = None, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """Under row-level security a GIN index serves `@@` only if its function is leakproof (ADR 0001)."""
    if "default" not in (databases or []):
        return []
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT proleakproof FROM pg_proc WHERE oid = 'pg_catalog.ts_match_vq'::regproc")
        if cursor.fetchone()[0]:
            return []
    return [
        Warning(
            "Lexical search cannot use its index, because ts_match_vq is not leakproof: it will be slow.",
            hint="As a superuser: ALTER FUNCTION pg_catalog.ts_match_vq(tsvector, tsquery) LEAKPROOF",
            id="documents.W001",
        )
    ]
