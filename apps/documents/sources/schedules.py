"""Schedules: crontabs, kept as django-celery-beat's periodic tasks, and what is due by them.

Beat's tick is a wake-up like any other: what is due is told by the source's own row (`slot`: the last time that was
given a run), so that a tick that is lost, late or doubled changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from celery.schedules import ParseException, crontab
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, PeriodicTask

from apps.access import tenancy

from .. import db
from . import runs
from .models import Source

TASK = "documents.schedules"
FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


def parse(text: str) -> crontab:
    """ "minute hour day month weekday", in UTC. Raises ValueError with a sentence."""
    parts = text.split()
    if len(parts) != len(FIELDS):
        raise ValueError(
            'A crontab has five fields: minute, hour, day of month, month, day of week, as in "0 3 * * *".'
        )
    try:
        return crontab(**dict(zip(FIELDS, parts, strict=True)))
    except (ParseException, ValueError, KeyError, TypeError, IndexError):
        raise ValueError(f'{text!r} is not a crontab, as "0 3 * * *" is: 03:00 UTC every day.') from None


def next_after(schedule: str, moment: datetime) -> datetime:
    """When it is due for the first time after then."""
    began, remaining, _ = parse(schedule).remaining_delta(moment)
    return began + remaining


def in_words(schedule: str) -> str:
    """As in "At 03:00 AM UTC"."""
    fields = dict(zip(FIELDS, schedule.split(), strict=True))
    return str(CrontabSchedule(**fields, timezone="UTC").human_readable)


def keep(source: Source) -> None:
    """Inside a scope: let beat know of the source's schedule. Its row names no tenant and nothing of the source."""
    name = _name(source.id)
    if not source.schedule:
        PeriodicTask.objects.filter(name=name).delete()
        return
    fields = dict(zip(FIELDS, source.schedule.split(), strict=True))
    found = CrontabSchedule.objects.filter(**fields, timezone="UTC").first()
    every = found or CrontabSchedule.objects.create(**fields, timezone="UTC")
    PeriodicTask.objects.update_or_create(
        name=name, defaults={"task": TASK, "crontab": every, "enabled": source.enabled, "expire_seconds": 300}
    )


def drop(source_ids: Sequence[UUID]) -> None:
    """Inside a scope: beat forgets these sources."""
    PeriodicTask.objects.filter(name__in=[_name(each) for each in source_ids]).delete()


def start_due() -> int:
    """Request a run for every schedule whose time has come since its last one. However many times were missed, that
    is one run. How many were requested."""
    now, requested = timezone.now(), 0
    for tenant_id, source_id, schedule, slot in db.rows("schedules"):
        try:
            due = next_after(schedule, slot)
        except ValueError:
            continue
        if due > now:
            continue
        with tenancy.scope(tenant_id):
            if Source.objects.filter(id=source_id, slot=slot).update(slot=now):
                requested += runs.request(source_id=source_id, trigger="schedule", slot=due)
    return requested


def _name(source_id: UUID) -> str:
    return f"source {source_id}"
