"""A collection's second embedding space: another model, dimension, metric or index, without a pause.

1. `begin` gives a collection a second space, whose model it has seen working. From that commit on, whatever is
   published goes into both. A model that fails later, hangs or is slow, fails no document and holds none up: it goes
   live in the space that serves, and the build goes on, or begins again, with what is missing (publish.py).
2. `drain`, by workers or in `manage.py space build`, gives a vector in it to every chunk that was there before, live or
   retired (the past is searched as well). A window of texts at a time; documents that are waiting to be embedded go
   between two windows, and while the model works. Killed, it goes on where it was.
3. `promote` makes the second space the one that answers, and the other one the second: of a tenant's collections all or
   none, in one transaction, which refuses while one chunk is without a vector. `rollback` is the same the other way: no
   time after a promotion is too late for it, because both spaces are kept up until `retire`.

Each of these takes the collection's row for itself, which everybody who publishes holds: vectors that were made for
other spaces are found out before they are written (collections.hold_spaces).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from datetime import timedelta
from itertools import groupby, islice
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from apps.access import tenancy
from apps.access.problems import Problem

from . import db, embed, spaces, vector_index
from .collections import hold_spaces
from .embedding import EmbeddingError
from .engines import engine_for
from .errors import LostLease, SpacesChanged
from .models import Collection, EmbeddingSpace, SpaceBuild
from .publish import RETRY_SECONDS
from .sources import runs

logger = logging.getLogger(__name__)

State = SpaceBuild.State
_FIRST = UUID(int=0)


def find(slug: str) -> EmbeddingSpace:
    """Raises Problem 404."""
    found = EmbeddingSpace.objects.filter(slug=slug).first()
    if found is None:
        raise Problem(404, "unknown_space", f"There is no embedding space {slug!r}.")
    return found


def get(space_id: UUID) -> EmbeddingSpace:
    """Raises Problem 404."""
    found = EmbeddingSpace.objects.filter(id=space_id).first()
    if found is None:
        raise Problem(404, "not_found", "There is no such embedding space.")
    return found


def begin(*, space: EmbeddingSpace, slugs: Sequence[str] | None = None) -> list[SpaceBuild]:
    """Inside a scope: build a space for collections (None: for all) that have another one. Asked again, nothing more.

    Raises Problem 404 for an unknown collection, 409 `second_space_taken` for one with a third space; 422 or 503, with
    the code of the EmbeddingError, where the space's model does not work here.
    """
    _prove(space)
    builds = []
    for collection in _locked(slugs):
        if collection.space_id == space.id:
            continue
        if collection.second_space_id not in (None, space.id):
            detail = f"The collection {collection.slug!r} has the second space {collection.second_space}; retire it."
            raise Problem(409, "second_space_taken", detail)
        if collection.second_space_id is None:
            _change(collection, second_space=space)
            _new_build(collection, space)
        running = SpaceBuild.objects.filter(collection=collection, state=State.RUNNING).exists()
        # Not a new one where one was: it would be newer than that of a space that has been promoted (`_is_promoted`).
        if not running and not db.run("build_again", collection=collection.id, space=space.id, due=None):
            _new_build(collection, space)
        builds.append(SpaceBuild.objects.get(collection=collection, state=State.RUNNING))
    return builds


def _prove(space: EmbeddingSpace) -> None:
    """Before any collection has the space: does its model give vectors that fit?"""
    try:
        vectors = spaces.embedder_for(space).embed(["A text."])
        if vectors.shape[1] != space.dimensions:
            detail = f"The model gives {vectors.shape[1]} dimensions; the space {space} has {space.dimensions}."
            raise EmbeddingError("wrong_dimensions", detail, retryable=False)
    except EmbeddingError as error:
        raise Problem(503 if error.retryable else 422, error.code, str(error)) from error


def _new_build(collection: Collection, space: EmbeddingSpace, **values: Any) -> SpaceBuild:
    return SpaceBuild.objects.create(tenant_id=collection.tenant_id, collection=collection, space_id=space.id, **values)


def is_due() -> bool:
    """Outside of a scope: is there something for `drain`?"""
    building = EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.BUILDING)
    return bool(db.rows("space_builds_due")) or any(not uses(space).building for space in building)


def drain() -> int:
    """Outside of a scope: work on every build that is due, of all tenants, and index what is complete. How many."""
    worked = 0
    for tenant_id, build_id in db.rows("space_builds_due"):
        worked += work(tenant_id=tenant_id, build_id=build_id)
    for space in EmbeddingSpace.objects.filter(state=EmbeddingSpace.State.BUILDING):
        finish(space)
    return worked


def work(*, tenant_id: UUID, build_id: UUID, told: Callable[[SpaceBuild], None] = lambda _: None) -> bool:
    """Outside of a scope: go on with a build until each chunk has a vector; False when it is in other hands or over.

    told: called after each window. A failure is written down, and the build tried again a little later.
    """
    build = _claim(tenant_id, build_id)
    if build is None:
        return False
    try:
        spaces.begin_filling(build.space, coming=build.collection.chunks)
        while _window(build):
            told(build)
            if runs.stopping.is_set():
                return _let_go(build)
            embed.let_others_by()
        told(build)
    except (LostLease, SpacesChanged):
        logger.info("the build %s is in other hands by now, or over", build.id)
    except (EmbeddingError, Problem) as error:
        logger.warning("the build %s stopped, and will be tried again: %s", build.id, error)
        _let_go(build, error={"code": error.code, "detail": str(error)}, seconds=RETRY_SECONDS)
    return True


def finish(space: EmbeddingSpace) -> bool:
    """Outside of a scope: once every build of a space is done, build its index, while it is written to and searched.
    False while one is not, and where no collection has the space any more."""
    if uses(space).building:
        return False
    if any(uses(space)):
        vector_index.index_concurrently(space)
    if not any(uses(space)):  # it may have been retired while its index was built
        settle(space)
        return False
    spaces.analyze(space)
    return spaces.go_live(space)


def promote(*, space: EmbeddingSpace, slugs: Sequence[str] | None = None) -> list[Collection]:
    """Inside a scope: let a complete second space answer in place of the first, which becomes the second: of all these
    collections or of none. (None: of those that have it as their second.)

    Raises Problem 409 `not_second` when there is none, `space_incomplete` with what is missing, `space_unindexed`.
    """
    return _swap(_second_in(space, slugs), to=space)


def rollback(*, space: EmbeddingSpace, slugs: Sequence[str] | None = None) -> list[Collection]:
    """Inside a scope: take a promotion back, by the same rules: the spaces that were there before answer again. (None:
    of those collections that the space was promoted for.) Raises Problem 409 `not_promoted` where there was none."""
    found = _locked(slugs)
    if slugs is None:
        found = [each for each in found if each.space_id == space.id and each.second_space_id]
    never = [each for each in found if each.space_id == space.id and each.second_space_id and not _is_promoted(each)]
    if never and (slugs is not None or never == found):
        raise Problem(409, "not_promoted", f"The space {space} has not been promoted for {never[0].slug!r}.")
    return _swap([each for each in found if each not in never], away=space)


def _is_promoted(collection: Collection) -> bool:
    """Of its two spaces, did the one that serves come last? (Its build is the newest: see `_swap`.)"""
    last = SpaceBuild.objects.filter(collection=collection).order_by("-created_at").first()
    return last is not None and last.space_id == collection.space_id


def canary(*, space: EmbeddingSpace, percent: float, slugs: Sequence[str] | None = None) -> list[Collection]:
    """Inside a scope: let a complete second space answer a share of the queries, 0 to 100 percent. Raises what
    `promote` does."""
    found = _second_in(space, slugs)
    _check(found, to=space)
    for collection in found:
        _change(collection, clear=False, canary_percent=percent)
    return found


def retire(*, space: EmbeddingSpace, slugs: Sequence[str] | None = None) -> list[Collection]:
    """Inside a scope: keep a second space up no longer, and delete these collections' vectors in it; also one that is
    still being built. Raises Problem 409 `space_in_use` where it answers."""
    found = _locked(slugs)
    if serving := [each.slug for each in found if each.space_id == space.id]:
        raise Problem(409, "space_in_use", f"The space {space} answers for {', '.join(map(repr, serving))}.")
    found = [each for each in found if each.second_space_id == space.id]
    if not found:
        raise Problem(409, "not_second", f"No collection has the second space {space}.")
    for collection in found:
        _end_builds(collection, State.CANCELLED)
        _change(collection, second_space=None, canary_percent=0)
        with connection.cursor() as cursor:
            cursor.execute(f'DELETE FROM "{space.table}" WHERE collection_id = %s', [collection.id])  # noqa: S608
    return found


def of_both(space: EmbeddingSpace, slugs: Sequence[str] | None = None) -> list[Collection]:
    """Inside a scope: the collections that have this space beside another one."""
    found = Collection.objects.filter(second_space__isnull=False).filter(Q(space=space) | Q(second_space=space))
    return list((found if slugs is None else found.filter(slug__in=slugs)).order_by("slug"))


def settle(space: EmbeddingSpace) -> None:
    """Outside of a scope, after `retire`: a space that no collection of any tenant has any more gives its disk back,
    or does so when `drain` comes to it, where its index is being built."""
    if not any(uses(space)) and not spaces.empty(space):
        spaces.set_state(space, EmbeddingSpace.State.BUILDING)


class Uses(NamedTuple):
    """How many collections, of all tenants, a space serves, is the second of, and is being built for."""

    serving: int
    second: int
    building: int


def uses(space: EmbeddingSpace) -> Uses:
    return Uses(*db.rows("space_uses", space=space.id)[0])


def coverage(collection: Collection, space: EmbeddingSpace) -> tuple[int, int]:
    """Inside a scope: (the collection's chunks, how many of them have their vector in the space), retired ones too."""
    chunks, there = db.rows("coverage", table=space.table, collection=collection.id)[0]
    return chunks, there


def show(space: EmbeddingSpace) -> dict[str, Any]:
    """Inside a scope: a space, and what the tenant's collections have to do with it."""
    last = {build.collection_id: build for build in SpaceBuild.objects.filter(space=space.id).order_by("created_at")}
    collections = [
        {
            "slug": each.slug,
            "role": "serving" if each.space_id == space.id else "second",
            "chunks": each.chunks,
            "canary_percent": each.canary_percent if each.second_space_id == space.id else 0,
            "build": _show_build(last[each.id]) if each.id in last else None,
        }
        for each in Collection.objects.filter(Q(space=space.id) | Q(second_space=space.id)).order_by("slug")
    ]
    return {
        "id": space.id,
        "slug": space.slug,
        "backend": space.backend,
        "model": space.model,
        "revision": space.revision,
        "dimensions": space.dimensions,
        "metric": space.metric,
        "storage": space.storage,
        "index_method": space.index_method,
        "index_parameters": space.index_parameters,
        "state": space.state,
        "collections": collections,
        "created_at": space.created_at,
    }


def describe(collection: Collection) -> str:
    """Inside a scope: for people, what the collection has beside its space; '' where it has nothing."""
    space = collection.second_space
    if space is None:
        return ""
    build = SpaceBuild.objects.filter(collection=collection, space=space).order_by("-created_at").first()
    told = [space.slug]
    if build is not None and build.state == SpaceBuild.State.RUNNING:
        told.append(f"being built: {build.embedded:,} vectors so far")
    elif build is not None and build.error:
        told.append(f"not built: {build.error.get('code')}")
    else:
        told.append("kept up with every write")
    if collection.canary_percent:
        told.append(f"answers {collection.canary_percent:g} % of the searches")
    return ", ".join(told)


def _show_build(build: SpaceBuild) -> dict[str, Any]:
    return {
        "state": build.state,
        "embedded": build.embedded,
        "error": build.error,
        "created_at": build.created_at,
        "finished_at": None if build.state == State.RUNNING else build.finished_at,
    }


def _locked(slugs: Sequence[str] | None) -> list[Collection]:
    """The tenant's collections, in the order of their ids; nobody publishes in them before the transaction ends."""
    found = Collection.objects.select_for_update(of=("self",)).select_related("space", "second_space").order_by("id")
    if slugs is None:
        return list(found)
    named = list(found.filter(slug__in=slugs))
    if unknown := sorted(set(slugs) - {each.slug for each in named}):
        raise Problem(404, "unknown_collection", f"There is no collection {unknown[0]!r}.")
    return named


def _second_in(space: EmbeddingSpace, slugs: Sequence[str] | None) -> list[Collection]:
    found = _locked(slugs)
    return found if slugs is not None else [each for each in found if each.second_space_id == space.id]


def _swap(
    found: list[Collection], *, to: EmbeddingSpace | None = None, away: EmbeddingSpace | None = None
) -> list[Collection]:
    _check(found, to=to, away=away)
    for collection in found:
        _end_builds(collection, State.DONE)
        if not SpaceBuild.objects.filter(collection=collection, space=collection.space).exists():
            # For `build_again`. As old as the collection: the newest build tells which space came last.
            first = _new_build(collection, collection.space, state=State.DONE, finished_at=timezone.now())
            SpaceBuild.objects.filter(id=first.id).update(created_at=collection.created_at)
        _change(
            collection,
            space=collection.second_space,
            second_space=collection.space,
            canary_percent=0,
            promoted_at=timezone.now(),
        )
    return found


def _check(found: list[Collection], *, to: EmbeddingSpace | None = None, away: EmbeddingSpace | None = None) -> None:
    """That these collections' second spaces may answer."""
    wrong = [each.slug for each in found if not each.second_space or to not in (None, each.second_space)]
    wrong += [each.slug for each in found if away not in (None, each.space)]
    if wrong or not found:
        which = f"the collection {wrong[0]!r}" if wrong else "any collection"
        raise Problem(409, "not_second", f"{to or away} is not a space of {which} that another could be changed for.")
    missing = []
    for collection in found:
        assert collection.second_space is not None
        db.rows("keep_index", space=collection.second_space_id)
        chunks, there = coverage(collection, collection.second_space)
        if there < chunks:
            missing.append((collection.slug, chunks - there, chunks))
    if missing:
        raise Problem(
            409,
            "space_incomplete",
            "Chunks without a vector in the second space: build it first.",
            errors=[
                {"pointer": f"/collections/{slug}", "detail": f"{short} of {chunks} chunks have none."}
                for slug, short, chunks in missing
            ],
        )
    for space in {collection.second_space for collection in found if collection.second_space}:
        if not vector_index.is_indexed(space):
            raise Problem(409, "space_unindexed", f"The vector index of {space} is not built yet.")


def _change(collection: Collection, *, clear: bool = True, **values: Any) -> None:
    """Of a locked collection. What workers have made for other spaces than it has now is made again."""
    Collection.objects.filter(id=collection.id).update(**values, epoch=F("epoch") + 1, updated_at=timezone.now())
    if clear:
        db.run("clear_stage_vectors", collection=collection.id)


def _end_builds(collection: Collection, state: str) -> None:
    running = SpaceBuild.objects.filter(collection=collection, state=State.RUNNING)
    running.update(state=state, finished_at=timezone.now(), lease_until=None)


def _claim(tenant_id: UUID, build_id: UUID) -> SpaceBuild | None:
    lease = Now() + timedelta(seconds=settings.JOB_LEASE_SECONDS)
    with tenancy.scope(tenant_id):
        running = SpaceBuild.objects.filter(id=build_id, state=State.RUNNING)
        free = running.filter(lease_until=None) | running.filter(lease_until__lt=Now())
        if not free.update(fence=F("fence") + 1, lease_until=lease):
            return None
        return SpaceBuild.objects.select_related("space", "collection__space", "collection__second_space").get(
            id=build_id
        )


def _let_go(build: SpaceBuild, *, error: dict[str, Any] | None = None, seconds: int = 0) -> bool:
    """For others to take up, now or later."""
    with tenancy.scope(build.tenant_id):
        return bool(_mine(build).update(error=error, lease_until=Now() + timedelta(seconds=seconds)))


def _mine(build: SpaceBuild) -> Any:
    return SpaceBuild.objects.filter(id=build.id, fence=build.fence, state=State.RUNNING)


def _window(build: SpaceBuild) -> bool:
    """Give the next texts their vectors. False when a walk through all of them has found none without."""
    space, collection = build.space, build.collection
    with tenancy.scope(build.tenant_id):
        rows = db.rows(
            "chunks_without_vector",
            table=space.table,
            collection=collection.id,
            after=build.cursor or _FIRST,
            limit=embed.WINDOW_TEXTS,
        )
        texts = {bytes(row[2]): row[3] for row in rows}
        vectors = embed.known_vectors(build.tenant_id, space, texts) if texts else {}
    if unknown := {digest: text for digest, text in texts.items() if digest not in vectors}:
        answer = embed.asked(space, unknown)
        while not wait([answer], timeout=embed.LET_BY_SECONDS).done:
            embed.let_others_by()
        vectors |= answer.result()
    for documents in _by_document(rows, engine_for(connection).batch):
        with tenancy.scope(build.tenant_id):
            hold_spaces(collection)
            ids = list(dict.fromkeys(row[0] for row in documents))
            db.rows("lock_documents", documents=ids)
            build.embedded += db.run(
                "add_vectors",
                table=space.table,
                type=spaces.column_type(space),
                documents=[row[0] for row in documents],
                chunks=[row[1] for row in documents],
                embeddings=db.VectorArray([vectors[bytes(row[2])] for row in documents], space.storage),
            )
            build.cursor = ids[-1]
            _keep(build)
    if len(rows) == embed.WINDOW_TEXTS:
        return True
    with tenancy.scope(build.tenant_id):
        # Whoever publishes without a vector meanwhile has changed what is compared: see `build_again`.
        ended = {"state": State.DONE, "finished_at": timezone.now(), "cursor": None, "error": None, "lease_until": None}
        if _mine(build).filter(embedded_before=build.embedded).update(**ended):
            return False
        build.cursor = None
        _keep(build, embedded_before=build.embedded)
    return True


def _by_document(rows: list[tuple[Any, ...]], most: int) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of at most so many documents at a time: as many as one transaction may lock."""
    documents = (list(group) for _, group in groupby(rows, key=lambda row: row[0]))
    while some := list(islice(documents, most)):
        yield [row for document in some for row in document]


def _keep(build: SpaceBuild, **values: Any) -> None:
    """Write down how far it is. Raises LostLease when another has it, or it is over: what was added is undone."""
    lease = Now() + timedelta(seconds=settings.JOB_LEASE_SECONDS)
    if not _mine(build).update(cursor=build.cursor, embedded=build.embedded, error=None, lease_until=lease, **values):
        raise LostLease(str(build.id))
