"""Syncing: a source is read, what is new or changed is accepted, what is gone is deleted.

1. Items that are new or changed are read and accepted in groups; documents, items' states and the run's counts are one
   transaction. A run that is begun again (runs.py) finds what it had taken unchanged: that is how it resumes.
2. What a complete scan has not found is deleted at its end. A scan that fails deletes nothing.
"""

from __future__ import annotations

import io
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError, close_old_connections, connection

from apps.access import tenancy
from apps.access.problems import Problem

from .. import db, ledger, remove
from ..accept import Accepted, Submission, accept_many
from ..connectors.types import Fetched, Found, SourceError, State
from ..engines import engine_for
from ..erasure import erased_name
from ..errors import LostLease, describe
from ..models import Collection
from ..serializers import MAX_MEDIA_TYPE, MAX_TITLE, MAX_URI, MEDIA_TYPE
from ..submission import GENERIC, HEAD_BYTES, must_hold_text
from . import kinds, runs
from .items import AllAtOnce, InOrder, Known
from .models import Source, SyncRun
from .runs import Run, Stopped

logger = logging.getLogger(__name__)

GROUP_ITEMS, GROUP_BYTES = 100, 4 * 2**20
GROUP_SECONDS = 2.0  # so that what is read slowly is seen to go on
SHOWN_FAILURES = 20
#: From so many items on, a source that holds none of them any more is taken to be broken rather than empty.
EMPTY_FROM = 20
AT_ONCE = 4  # in one process: a thread of it has to be free for what takes a moment
RETRIED = frozenset({"unreachable", "timeout"})

_slots = threading.BoundedSemaphore(AT_ONCE)


@dataclass
class Counts:
    """Items of a run: those found, and what became of them."""

    found: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: int = 0


#: An item's key, its document, the state to remember (None: the one there is), why it could not be taken.
_Kept = tuple[str, UUID | None, State | None, dict[str, str] | None]


@dataclass(frozen=True, slots=True)
class _Item:
    """An item that was read, or could not be."""

    key: str
    known: bool
    fetched: Fetched | None
    state: State | None
    error: dict[str, str] | None = None


def drain() -> int:
    """Run what is due until there is nothing; nothing where this process does as much as it may. Returns how many runs
    were claimed."""
    claimed = 0
    if not _slots.acquire(blocking=False):
        return claimed
    try:
        while not runs.stopping.is_set() and (run := runs.claim()) is not None:
            claimed += 1
            work(run)
    finally:
        _slots.release()
    return claimed


def work(run: Run) -> None:
    """One run, to its end: what goes wrong is written to it, and the worker lives."""
    try:
        with runs.leased(run):
            _attempt(run)
    except LostLease:
        logger.warning("run %s was cancelled, or is in other hands by now", run.id)


def _attempt(run: Run) -> None:
    try:
        _Sync(run).run()
    except LostLease:
        raise
    except Stopped:
        runs.put_back(run, None, delay=0, forgiven=1)
    except SourceError as error:
        runs.failed(run, {"code": error.code, "detail": error.detail}, again=error.code in RETRIED)
    except Problem as problem:  # the collection is gone, or the ledger is full
        runs.failed(run, {"code": problem.code, "detail": problem.sentence}, again=problem.status_code == 503)
    except Exception as error:
        described, again = describe(error)
        if described["code"] == "internal":
            logger.exception("run %s failed", run.id)
        close_old_connections()
        runs.failed(run, described, again=again)


class _Sync:
    """The work of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._counts = Counts()
        self._failures: list[dict[str, str]] = []
        self._group: list[_Item] = []
        self._group_bytes = 0
        self._moved: list[tuple[str, State]] = []  # unchanged, with another state to remember
        self._group_began = time.monotonic()
        with tenancy.scope(run.tenant_id):
            source = Source.objects.filter(id=run.source_id).first()
            if source is None:
                raise LostLease(str(run.id))
            self._source = source
            self._collection = Collection.objects.select_related("space", "second_space").get(id=source.collection_id)
            self._empty_it = SyncRun.objects.values_list("empty_it", flat=True).get(id=run.id)
            self._scan = db.rows("begin_scan", source=source.id)[0][0]
        ids = {"tenant_id": run.tenant_id, "source_id": run.source_id}
        self._known: Known = InOrder(**ids) if source.kind in kinds.ORDERED else AllAtOnce(**ids)

    def run(self) -> None:
        try:
            with closing(kinds.scan(self._source, self._known)) as scan:
                for found in scan:
                    self._look_at(found)
        except SourceError:
            self._flush()  # what has been read need not be read again
            raise
        for _ in self._known.rest_is_missing():
            self._flush()
        self._flush()
        self._remove()
        runs.end(self._run, "done")

    def _look_at(self, found: Found) -> None:
        self._stay()
        self._counts.found += 1
        before = self._known.see(found.key)
        if found.fetch is not None:
            self._read(found.key, before is not None, found.fetch)
        else:
            self._counts.unchanged += 1
            if found.state != before:
                self._moved.append((found.key, found.state))
        if self._is_full():
            self._flush()

    def _stay(self) -> None:
        """Raises where somebody else has the run, or the worker is ending."""
        if self._run.lost.is_set():
            raise LostLease(str(self._run.id))
        if runs.stopping.is_set():
            raise Stopped

    def _read(self, key: str, known: bool, fetch: Callable[[], Fetched]) -> None:
        try:
            fetched: Fetched = fetch()
            size = fetched.content.seek(0, io.SEEK_END)
        except SourceError as error:
            self._group.append(_Item(key, known, None, None, _error(error.code, error.detail)))
        else:
            self._group.append(_Item(key, known, fetched, fetched.state))
            self._group_bytes += size

    def _is_full(self) -> bool:
        return (
            len(self._group) + len(self._moved) >= GROUP_ITEMS
            or len(self._known.missing) >= GROUP_ITEMS
            or self._group_bytes >= GROUP_BYTES
            or time.monotonic() - self._group_began > GROUP_SECONDS
        )

    def _flush(self) -> None:
        """What was read goes to the documents, what is known of the items to their table."""
        items, self._group, self._group_bytes = self._group, [], 0
        try:
            self._wait_for_room()
            at_once = engine_for(connection).batch
            for at in range(0, len(items), at_once):
                self._take(items[at : at + at_once])
        finally:
            for item in items:
                if item.fetched is not None:
                    item.fetched.content.close()
        self._note()
        self._group_began = time.monotonic()

    def _note(self) -> None:
        """States that have moved, keys that were passed by, and how far the run has come."""
        moved, self._moved = self._moved, []
        missing, self._known.missing = self._known.missing, []
        returned, self._known.returned = self._known.returned, []
        source = self._source.id
        with tenancy.scope(self._run.tenant_id):
            self._own()
            if moved:
                self._keep([(key, None, state, None) for key, state in moved])
            if missing:
                db.run("mark_missing", source=source, keys=missing, scan=self._scan)
            if returned:
                db.run("unmark_missing", source=source, keys=returned)

    def _own(self) -> None:
        """Inside a transaction: lock the run's row, and write its counts. Raises LostLease."""
        counts, failures = json.dumps(asdict(self._counts)), json.dumps(self._failures)
        if not db.run("own_run", run=self._run.id, fence=self._run.fence, counts=counts, failures=failures):
            raise LostLease(str(self._run.id))

    def _wait_for_room(self) -> None:
        """What the workers cannot keep up with is not read on either."""
        while True:
            self._stay()
            try:
                return ledger.refuse_overload()
            except Problem:
                time.sleep(1)

    def _take(self, items: Sequence[_Item]) -> None:
        """Accept items, and remember them, in one transaction; where that fails, each alone."""
        counts, failures = replace(self._counts), list(self._failures)

        def work() -> None:
            self._counts, self._failures = replace(counts), list(failures)  # an earlier try may have counted
            self._own()
            self._accept(items)
            self._own()  # what it came to: the run may be cancelled, or its worker die, before the next group

        try:
            self._transaction(work)
        except Exception as error:
            self._counts, self._failures = counts, failures
            if isinstance(error, LostLease | Problem | OperationalError | InterfaceError):
                raise  # the database is away, or the collection is gone
            if len(items) > 1:
                for item in items:
                    self._take([item])
            else:
                logger.exception("an item of source %s cannot be taken", self._source.id)
                self._fail(items[0].key, _error("internal", f"{type(error).__name__}: it could not be stored."))

    def _accept(self, items: Sequence[_Item]) -> None:
        """Inside a transaction."""
        collection, source = self._collection, self._source
        ids: dict[str, Any] = {"collection": collection.id, "tenant": source.tenant_id, "source": source.id}
        mine = {row[0] for row in db.rows("claim_names", **ids, keys=[item.key for item in items if _fits(item.key)])}
        erased = self._erased([item.key for item in items if not item.known and item.key in mine])
        kept: list[_Kept] = []
        wanted: list[tuple[_Item, Submission]] = []
        for item in items:
            refusal = item.error
            if not _fits(item.key):
                refusal = _error("invalid", f"Its name cannot be stored, or has more than {MAX_URI} bytes.")
            elif item.key not in mine:
                refusal = _error("source_uri_taken", "Another source of this collection has brought this name.")
            elif item.key in erased:
                refusal = _error("erased", "The document has been erased; remove it from the source as well.")
            elif item.fetched is not None:
                try:
                    wanted.append((item, _submission(item.key, item.fetched)))
                    continue
                except Problem as problem:
                    refusal = _error(problem.code, problem.sentence)
            assert refusal is not None
            self._fail(erased_name(collection.id, item.key) if item.key in erased else item.key, refusal)
            if item.key in mine - erased:
                kept.append((item.key, None, item.state, refusal))
        while wanted:
            results = accept_many(collection=collection, submissions=[submission for _, submission in wanted])
            kept += [self._result(item, result) for (item, _), result in zip(wanted, results, strict=False)]
            wanted = wanted[len(results) :]
        self._keep(kept)
        if erased:
            db.run("drop_items", source=source.id, keys=list(erased))

    def _erased(self, keys: Sequence[str]) -> set[str]:
        """Those whose document has been erased: it does not come back because the source holds it still."""
        if not keys:
            return set()
        names = {erased_name(self._collection.id, key): key for key in keys}
        rows = db.rows("erased_names", collection=self._collection.id, source_uris=list(names))
        return {names[row[0]] for row in rows}

    def _result(self, item: _Item, result: Accepted | Problem) -> _Kept:
        if isinstance(result, Problem):
            refusal = _error(result.code, result.sentence)
            self._fail(item.key, refusal)
            return item.key, None, item.state, refusal
        if result.unchanged:
            self._counts.unchanged += 1
        elif item.known:
            self._counts.changed += 1
        else:
            self._counts.new += 1
        return item.key, result.document.id, item.state, None

    def _fail(self, key: str, error: dict[str, str]) -> None:
        self._counts.failed += 1
        if len(self._failures) < SHOWN_FAILURES:
            self._failures.append({"source_uri": _shown(key), **error})

    def _keep(self, kept: Sequence[_Kept]) -> None:
        """Inside a transaction."""
        if kept:
            db.run(
                "keep_items",
                collection=self._collection.id,
                source=self._source.id,
                keys=[key for key, _, _, _ in kept],
                documents=[document for _, document, _, _ in kept],
                states=[None if state is None else json.dumps(state) for _, _, state, _ in kept],
                errors=[None if error is None else json.dumps(error) for _, _, _, error in kept],
            )

    def _remove(self) -> None:
        """Delete the documents of what a complete scan has not found. Raises SourceError "vanished"."""
        at: dict[str, Any] = {"source": self._source.id, "scan": self._scan}
        with tenancy.scope(self._run.tenant_id):
            missing = db.rows("count_missing", **at)[0][0]
        if missing >= EMPTY_FROM and not self._counts.found and not self._empty_it:
            detail = f"The source holds nothing any more; it held {missing} items. Nothing was deleted."
            raise SourceError("vanished", f'{detail} If that is right, sync it with "empty_it".')
        while missing:
            with tenancy.scope(self._run.tenant_id):
                rows = db.rows("missing_items", **at, limit=engine_for(connection).batch)
            if not rows:
                break
            self._stay()
            self._delete(rows)
            self._note()

    def _delete(self, rows: Sequence[tuple[str, UUID | None]]) -> None:
        """Items and their documents, in one transaction; where others change one of these, each alone."""

        def work() -> None:
            self._own()
            held = [document_id for _, document_id in rows if document_id is not None]
            remove.delete_many(collection=self._collection, document_ids=held)
            db.run("drop_items", source=self._source.id, keys=[key for key, _ in rows])

        try:
            self._transaction(work)
            self._counts.removed += len(rows)
        except OperationalError as error:
            if not tenancy.is_conflict(error) or len(rows) == 1:
                raise
            for row in rows:
                self._delete([row])

    def _transaction(self, work: Callable[[], None]) -> None:
        tenancy.run(self._run.tenant_id, work, replan=engine_for(connection).batch == 1)


def _error(code: str, detail: str) -> dict[str, str]:
    return {"code": code, "detail": detail}


def _fits(key: str) -> bool:
    """Can it be stored, and found through an index?"""
    try:
        return "\0" not in key and len(key.encode()) <= MAX_URI
    except UnicodeEncodeError:
        return False


def _shown(key: str) -> str:
    """As much of it as can be stored."""
    return key.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:MAX_URI]


def _submission(key: str, fetched: Fetched) -> Submission:
    """Raises Problem 415 for what holds no text."""
    media_type = fetched.media_type if re.match(MEDIA_TYPE, fetched.media_type[:MAX_MEDIA_TYPE]) else GENERIC
    fetched.content.seek(0)
    must_hold_text(fetched.content.read(HEAD_BYTES), media_type, fetched.filename)
    return Submission(
        content=fetched.content,
        media_type=media_type,
        filename=fetched.filename,
        source_uri=key,
        title=fetched.title[:MAX_TITLE] or None,
        priority="low",
        source_updated_at=fetched.modified,
    )
