"""Collections as verbs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.models import Count, F
from django.utils import timezone

from apps.access.problems import Problem, invalid

from . import db, reindex, schedules
from .chunking import validate
from .errors import SpacesChanged
from .models import Collection, Document, EmbeddingSpace, Source, SourceItem, SyncRun

PLAIN = ("name", "description", "language")
GROUPS = ("chunking", "consistency", "reindexing")


def find(slug: str, *, writing: bool = False) -> Collection:
    """Inside a scope: the tenant's collection. Raises Problem 404, or 422 with the field's pointer when writing."""
    found = Collection.objects.select_related("space", "second_space").filter(slug=slug).first()
    if found is None and writing:
        raise invalid("/collection", f"There is no collection {slug!r}.", status=422, code="unknown_collection")
    if found is None:
        raise Problem(404, "unknown_collection", f"There is no collection {slug!r}.")
    return found


def hold(collection_id: UUID) -> None:
    """Inside a scope: keep the collection from being deleted before this transaction ends. Raises Problem 422.

    Whoever will change its counters does this before locking a document: a deletion takes them in that order.
    """
    if not db.rows("hold_collection", collection=collection_id):
        raise collection_gone()


def hold_spaces(collection: Collection) -> None:
    """The same; and its embedding spaces, too, stay what they are. Raises SpacesChanged where they are others by now:
    what has been made for them does not fit."""
    found = db.rows("hold_collection", collection=collection.id)
    if not found:
        raise collection_gone()
    if found[0] != (collection.space_id, collection.second_space_id):
        raise SpacesChanged


def collection_gone() -> Problem:
    return invalid("/collection", "The collection has been deleted.", status=422, code="unknown_collection")


def create(*, tenant_id: UUID, slug: str, **values: Any) -> Collection:
    """Inside a scope: a new collection in the default space unless one is named. Raises Problem 409 or 400."""
    collection = Collection(tenant_id=tenant_id, slug=slug)
    _assign(collection, values)
    if collection.space_id is None:
        collection.space = default_space()
    collection.indexed_with = reindex.fingerprint(collection)
    try:
        with transaction.atomic():
            collection.save(force_insert=True)
    except IntegrityError:
        raise Problem(409, "slug_taken", f"There is a collection {slug!r} already.")
    _schedule(collection)
    return collection


def change(*, collection: Collection, values: dict[str, Any]) -> Collection:
    """Inside a scope: new settings. What is live answers as it is until it has been cut anew in the background."""
    found_by = collection.language, collection.space_id
    _assign(collection, values)
    changed: dict[str, Any] = {name: getattr(collection, name) for name in _assigned(values)}
    if (collection.language, collection.space_id) != found_by:  # the same question may find something else
        changed["epoch"] = F("epoch") + 1
    if not Collection.objects.filter(id=collection.id).update(**changed, updated_at=timezone.now()):
        raise Problem(404, "unknown_collection", f"There is no collection {collection.slug!r}.")
    reindex.start_if_outdated(collection, trigger=reindex.Trigger.SETTINGS)
    _schedule(collection)
    return collection


def _schedule(collection: Collection) -> None:
    schedules.keep(schedules.COLLECTION.format(collection.id), collection.reindexing_schedule)


def remove(*, collection: Collection) -> None:
    """Inside a scope: delete the collection with all that it holds, in this transaction."""
    held = Collection.objects.select_for_update().filter(pk=collection.pk).first()  # waits for those who hold it
    if held is None:
        return
    sources = list(Source.objects.filter(collection=collection).values_list("id", flat=True))
    schedules.forget([schedules.COLLECTION.format(collection.id), *map(schedules.SOURCE.format, sources)])
    for of_sources in (SourceItem, SyncRun):
        of_sources.objects.filter(source__in=sources).delete()
    Source.objects.filter(id__in=sources).delete()
    # Waits for those who work on a document without holding the collection.
    Document.objects.filter(collection=collection).update(state=Document.State.DELETED)
    with connection.cursor() as cursor:
        for space in held.spaces:
            cursor.execute(f'DELETE FROM "{space.table}" WHERE collection_id = %s', [collection.id])  # noqa: S608
        for table in ("chunk", "stagedchunk", "blob", "versionrevision", "documentversion"):
            cursor.execute(
                f"DELETE FROM documents_{table} t USING documents_document d"  # noqa: S608
                " WHERE d.id = t.document_id AND d.collection_id = %s",
                [collection.id],
            )
        cursor.execute("DELETE FROM documents_ingestionjob WHERE collection_id = %s", [collection.id])
        cursor.execute("DELETE FROM documents_reindex WHERE collection_id = %s", [collection.id])
        cursor.execute("DELETE FROM documents_spacebuild WHERE collection_id = %s", [collection.id])
        cursor.execute("DELETE FROM documents_drift WHERE collection_id = %s", [collection.id])
        cursor.execute("DELETE FROM documents_lexeme WHERE collection_id = %s", [collection.id])
        cursor.execute("DELETE FROM documents_lexicon WHERE collection_id = %s", [collection.id])
        cursor.execute("DELETE FROM documents_document WHERE collection_id = %s", [collection.id])
        cursor.execute("DELETE FROM documents_collection WHERE id = %s", [collection.id])


@dataclass(frozen=True, slots=True)
class Progress:
    """How the indexing of a collection goes.

    pending: documents whose newest version is not live yet. open: jobs that have not ended; per_minute: those that
    ended in the last one.
    """

    pending: int = 0
    open: int = 0
    per_minute: int = 0

    @property
    def eta_seconds(self) -> int | None:
        """Until all open jobs have ended; None when none is open or none moves."""
        return -(-self.open * 60 // self.per_minute) if self.open and self.per_minute else None


def progress(ids: Sequence[UUID]) -> dict[UUID, Progress]:
    """Inside a scope: of each collection."""
    waiting = Document.objects.filter(collection__in=ids, pending_since__isnull=False)
    pending = dict(waiting.order_by().values_list("collection_id").annotate(Count("id")))
    jobs = {row[0]: row[1:] for row in db.rows("progress", collections=list(ids))}
    return {each: Progress(pending.get(each, 0), *jobs.get(each, ())) for each in ids}


def show(collection: Collection) -> dict[str, Any]:
    """A collection as the API gives it."""
    going = progress([collection.id])[collection.id]
    run = reindex.open_run(collection.id)
    return {
        "slug": collection.slug,
        "name": collection.name,
        "description": collection.description,
        "language": collection.language,
        "chunking": {
            "strategy": collection.chunking_strategy,
            "max_tokens": collection.chunking_max_tokens,
            "overlap_tokens": collection.chunking_overlap_tokens,
            "heading_level": collection.chunking_heading_level,
        },
        "consistency": {
            "mode": collection.consistency_mode,
            "window_seconds": collection.consistency_window_seconds,
        },
        "space": collection.space.slug,
        "second_space": collection.second_space.slug if collection.second_space else None,
        "epoch": collection.epoch,
        "documents": collection.documents,
        "chunks": collection.chunks,
        "pending": going.pending,
        "indexed_per_minute": going.per_minute,
        "eta_seconds": going.eta_seconds,
        "reindexing": {
            "schedule": collection.reindexing_schedule or None,
            "everything": collection.reindexing_everything,
        },
        "reindex": {"id": run.id, "state": run.state} if run else None,
        "created_at": collection.created_at,
    }


def _assigned(values: dict[str, Any]) -> list[str]:
    names = [name for name in PLAIN if name in values]
    names += [f"{group}_{name}" for group in GROUPS for name in values.get(group, {})]
    names += ["reindexing_slot"] if "reindexing_schedule" in names else []
    return names + (["space"] if "space" in values else [])


def _assign(collection: Collection, values: dict[str, Any]) -> None:
    for name in PLAIN:
        if name in values:
            setattr(collection, name, values[name])
    before = collection.reindexing_schedule
    for group in GROUPS:
        for name, value in values.get(group, {}).items():
            setattr(collection, f"{group}_{name}", value)
    schedule = schedules.checked(collection.reindexing_schedule or "", pointer="/reindexing/schedule")
    collection.reindexing_schedule = schedule
    if schedule != before:
        collection.reindexing_slot = timezone.now()
    if "space" in values:
        space = EmbeddingSpace.objects.filter(slug=values["space"]).first()
        if space is None:
            raise invalid("/space", f"There is no embedding space {values['space']!r}.")
        if (collection.chunks or collection.second_space_id) and space.id != collection.space_id:
            detail = "The collection holds chunks; another space is built beside this one, and promoted then."
            raise invalid("/space", detail, status=409, code="space_in_use")
        collection.space = space
    if "language" in values and not _text_search_exists(values["language"]):
        raise invalid("/language", f"Postgres has no text search configuration {values['language']!r}.")
    try:
        validate(
            strategy=collection.chunking_strategy,
            max_tokens=collection.chunking_max_tokens,
            overlap_tokens=collection.chunking_overlap_tokens,
            heading_level=collection.chunking_heading_level,
        )
    except ValueError as error:
        raise invalid("/chunking", str(error))


def _text_search_exists(name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT 1 FROM pg_ts_config WHERE cfgname = %s)", [name])
        return cursor.fetchone()[0]


def default_space() -> EmbeddingSpace:
    """Inside a scope: that of the tenant's latest promotion, else the installation's first."""
    promoted = Collection.objects.filter(promoted_at__isnull=False).select_related("space").order_by("-promoted_at")
    if latest := promoted.first():
        return latest.space
    space = EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.LIVE).order_by("created_at").first()
    if space is None:
        raise Problem(503, "no_space", "There is no embedding space yet; run manage.py migrate.")
    return space
