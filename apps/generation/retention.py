"""Old answers are forgotten, after ANSWER_RETENTION_DAYS, with all that hangs on them."""

from __future__ import annotations

from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.utils import timezone

from apps.access import tenancy

from . import records

AT_ONCE = 500  # answers of a transaction at most, their replays aside


def forget() -> int:
    """Outside of a scope: remove the answers of all tenants that are too old, with their replays however young; how
    many of these old ones. 0 days keep them all."""
    days, removed = settings.ANSWER_RETENTION_DAYS, 0
    while days and (old := _expired(days)):
        for tenant_id, rows in groupby(old, key=itemgetter(0)):
            ids = [answer_id for _, answer_id in rows]
            tenancy.run(tenant_id, lambda: records.remove(ids))  # noqa: B023
        removed += len(old)
    if days:
        with connection.cursor() as cursor:
            cursor.execute("SELECT generation_forget_conversations(%s)", [timezone.now() - timedelta(days=days)])
    return removed


def _expired(days: int) -> list[tuple[UUID, UUID]]:
    """(tenant, answer) of some that are too old, those of a tenant together."""
    with connection.cursor() as cursor:
        before = timezone.now() - timedelta(days=days)
        cursor.execute("SELECT tenant_id, id FROM generation_expired(%s, %s)", [before, AT_ONCE])
        return cursor.fetchall()
