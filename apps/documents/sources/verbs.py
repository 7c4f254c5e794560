"""Sources as verbs, called inside a tenant's scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from apps.access.problems import Problem, invalid

from .. import collections, remove, schedules
from ..connectors.types import SourceError
from ..engines import engine_for
from . import kinds, runs, standing
from .models import Source, SourceItem, SyncRun

STATES = SyncRun.State


def find(source_id: UUID) -> Source:
    """The tenant's source. Raises Problem 404."""
    found = Source.objects.select_related("collection").filter(id=source_id).first()
    if found is None:
        raise Problem(404, "not_found", "There is no such source.")
    return found


def create(
    *,
    tenant_id: UUID,
    collection: str,
    kind: str,
    name: str,
    settings: Mapping[str, Any],
    schedule: str = "",
    enabled: bool = True,
) -> Source:
    """A new source; nothing of it is read yet. Raises Problem 400, 409 and 422, each with a pointer."""
    held = collections.find(collection, writing=True)
    collections.hold(held.id)
    source = Source(tenant_id=tenant_id, collection=held, kind=kind, name=name, enabled=enabled)
    _assign(source, settings=settings, schedule=schedule)
    _save(source, new=True)
    return source


def change(*, source: Source, values: Mapping[str, Any]) -> Source:
    """New settings; what they leave out goes with the next sync. Raises Problem 400 and 409."""
    for plain in ("name", "enabled"):
        if plain in values:
            setattr(source, plain, values[plain])
    _assign(source, settings=values.get("settings"), schedule=values.get("schedule"))
    _save(source, new=False)
    return source


def delete(*, source: Source, documents: bool) -> None:
    """The source and all that is remembered of it; its documents stay unless `documents`.

    One transaction, however many there are. Raises Problem 409 for the documents of a feed, of which nothing is
    remembered.
    """
    if documents and source.kind not in kinds.SCANNED:
        raise Problem(409, "wrong_kind", "Which documents came from a feed is not known: send their deletes first.")
    runs.cancel(source_id=source.id)
    items = SourceItem.objects.filter(source=source)
    held = items.filter(document_id__isnull=False).values_list("document_id", flat=True) if documents else []
    ids = [each for each in held if each is not None]
    schedules.forget([schedules.SOURCE.format(source.id)])
    items.delete()
    SyncRun.objects.filter(source=source).delete()
    Source.objects.filter(id=source.id).delete()
    # Last: a Citus cluster takes no change of the small tables after one that went to all shards.
    at_once = engine_for(connection).batch
    for at in range(0, len(ids), at_once):
        remove.delete_many(collection=source.collection, document_ids=ids[at : at + at_once])


def sync(*, source: Source, empty_it: bool = False) -> SyncRun:
    """Have it read now; the run that waits, where one does already. Raises Problem 409."""
    if source.kind not in kinds.SCANNED:
        raise Problem(409, "wrong_kind", "A feed is not read: send its events.")
    if not source.enabled:
        raise Problem(409, "disabled", "The source is switched off.")
    if not runs.request(source_id=source.id, trigger=SyncRun.Trigger.MANUAL, empty_it=empty_it) and empty_it:
        SyncRun.objects.filter(source=source, state=STATES.QUEUED).update(empty_it=True)
    waiting = SyncRun.objects.filter(source=source).order_by("-created_at").first()
    assert waiting is not None
    return waiting


def show(source: Source) -> dict[str, Any]:
    """A source as the API gives it. What is secret is never shown."""
    return show_all([source])[0]


def show_all(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Each as `show` does."""
    standing.dress(sources)
    standing.count(sources)
    return [_shown(source) for source in sources]


def _shown(source: standing.Dressed) -> dict[str, Any]:
    return {
        "id": source.id,
        "kind": source.kind,
        "name": source.name,
        "collection": source.collection.slug,
        "settings": source.settings,
        "schedule": source.schedule or None,
        "enabled": source.enabled,
        "items": source.items_taken,
        "failed_items": source.failed_items,
        "last_run": None if source.last is None else show_run(source.last),
        "open_run": None if source.open is None else show_run(source.open),
        "next_run_at": next_run_at(source),
        "created_at": source.created_at,
        "updated_at": source.updated_at,
    }


def show_items(items: Sequence[Any]) -> list[dict[str, Any]]:
    """Items as the API gives them."""
    standing.with_documents(items)
    return [
        {
            "source_uri": item.key,
            "document_id": item.document_id,
            "document_state": item.document.state if item.document else None,
            "live_version": item.document.live_version if item.document else None,
            "error": item.failure,
        }
        for item in items
    ]


def next_run_at(source: Source) -> Any:
    """When its schedule is due next; None without one."""
    if not source.schedule or not source.enabled:
        return None
    return schedules.next_after(source.schedule, timezone.now())


def show_run(run: SyncRun) -> dict[str, Any]:
    """A run as the API gives it."""
    return {
        "id": run.id,
        "source_id": run.source_id,
        "trigger": run.trigger,
        "state": run.state,
        "attempts": run.attempts,
        "counts": run.counts,
        "failures": run.failures,
        "error": run.error,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }


def _assign(source: Source, *, settings: Mapping[str, Any] | None, schedule: str | None) -> None:
    if settings is not None:
        before = None if source._state.adding else source
        try:
            source.settings, source.secret = kinds.check(source.kind, settings, before=before)
        except SourceError as error:
            raise invalid(error.pointer or "/settings", error.detail)
    if schedule is not None and schedule != source.schedule:
        if schedule and source.kind not in kinds.SCANNED:
            raise invalid("/schedule", "A feed has no schedule: its events are sent.")
        source.schedule, source.slot = schedules.checked(schedule, pointer="/schedule"), timezone.now()


def _save(source: Source, *, new: bool) -> None:
    taken = Source.objects.filter(~Q(id=source.id), collection_id=source.collection_id, name=source.name)
    problem = invalid("/name", "The collection has a source with this name already.", status=409, code="name_taken")
    if taken.exists():
        raise problem
    fields = None if new else ["name", "settings", "secret", "schedule", "slot", "enabled", "updated_at"]
    try:
        with transaction.atomic():
            source.save(force_insert=new, update_fields=fields)
    except IntegrityError:
        raise problem
    schedules.keep(schedules.SOURCE.format(source.id), source.schedule, enabled=source.enabled)
