"""Misconfigurations of the wall, found by `manage.py check --database default`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connections


@register(Tags.database)
def application_role_is_bound_by_the_wall(
    app_configs: Any = None, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """The application's role must not be able to look over the wall."""
    if "default" not in (databases or []):
        return []
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "SELECT rolsuper OR rolbypassrls, EXISTS (SELECT 1 FROM pg_class WHERE relrowsecurity AND relowner = r.oid)"
            " FROM pg_roles r WHERE rolname = current_user"
        )
        bypasses, owns = cursor.fetchone()
    found: list[CheckMessage] = []
    if bypasses:
        found.append(
            Error(
                "The application connects to Postgres as a superuser or with BYPASSRLS: tenants are not walled off.",
                hint="Unset DATABASE_APP_URL, or point it at an ordinary role.",
                id="access.E001",
            )
        )
    if owns:
        found.append(
            Error(
                "The application connects to Postgres as the owner of its tables.",
                hint="Unset DATABASE_APP_URL, or point it at a role that owns nothing.",
                id="access.E002",
            )
        )
    return found
