"""Schedules: crontabs, kept as django-celery-beat's periodic tasks, and what is due by them.

Sources are synced and collections reindexed by them. Beat's tick is a wake-up like any other: what is due is told by
their own rows (the slot: the last time that was given a run), so that a tick that is lost, late or doubled changes
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from celery.schedules import ParseException, crontab
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, PeriodicTask

from apps.access import tenancy
from apps.access.problems import Problem, invalid

from . import db, reindex
from .models import Collection, Source, SyncRun
from .sources import runs

TASK = "documents.schedules"
SOURCE, COLLECTION = "source {}", "reindex {}"  # what beat calls the schedule of one
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


def checked(text: str, *, pointer: str) -> str:
    """A schedule in its one spelling; empty where it is blank. Raises Problem 400 with the pointer."""
    try:
        if text.strip():
            parse(text)
    except ValueError as error:
        raise invalid(pointer, str(error))
    return " ".join(text.split())


def next_after(schedule: str, moment: datetime) -> datetime:
    """When it is due for the first time after then."""
    began, remaining, _ = parse(schedule).remaining_delta(moment)
    return began + remaining


def in_words(schedule: str) -> str:
    """As in "At 03:00 AM UTC"."""
    fields = dict(zip(FIELDS, schedule.split(), strict=True))
    return str(CrontabSchedule(**fields, timezone="UTC").human_readable)


def keep(name: str, schedule: str, *, enabled: bool = True) -> None:
    """Inside a scope: let beat know of a schedule, or forget it where there is none. Its row holds no more than this
    name, which names no tenant and nothing of a tenant."""
    if not schedule:
        forget([name])
        return
    fields = dict(zip(FIELDS, schedule.split(), strict=True))
    found = CrontabSchedule.objects.filter(**fields, timezone="UTC").first()
    every = found or CrontabSchedule.objects.create(**fields, timezone="UTC")
    PeriodicTask.objects.update_or_create(
        name=name, defaults={"task": TASK, "crontab": every, "enabled": enabled, "expire_seconds": 300}
    )


def forget(names: Sequence[str]) -> None:
    """Inside a scope: beat forgets these."""
    PeriodicTask.objects.filter(name__in=names).delete()


def start_due() -> int:
    """Request a run for every schedule whose time has come since its last one. However many times were missed, that
    is one run. How many were requested."""
    now, requested = timezone.now(), 0
    for kind, tenant_id, id, schedule, slot in db.rows("schedules"):
        try:
            due = next_after(schedule, slot)
        except ValueError:
            continue
        if due <= now:
            with tenancy.scope(tenant_id):
                requested += (_sync if kind == "source" else _reindex)(id, slot=slot, now=now, due=due)
    return requested


def _sync(source_id: UUID, *, slot: datetime, now: datetime, due: datetime) -> bool:
    taken = Source.objects.filter(id=source_id, slot=slot).update(slot=now)
    return bool(taken) and runs.request(source_id=source_id, trigger=SyncRun.Trigger.SCHEDULE, slot=due)


def _reindex(collection_id: UUID, *, slot: datetime, now: datetime, due: datetime) -> bool:
    if not Collection.objects.filter(id=collection_id, reindexing_slot=slot).update(reindexing_slot=now):
        return False
    collection = Collection.objects.get(id=collection_id)
    try:
        everything = collection.reindexing_everything
        reindex.request(collection=collection, everything=everything, trigger=reindex.Trigger.SCHEDULE, slot=due)
    except Problem:  # one is under way
        return False
    return True
