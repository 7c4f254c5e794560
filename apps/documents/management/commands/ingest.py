"""`manage.py ingest PATH`: a folder, a file, or a file of lines into a collection."""

from __future__ import annotations

import os
import signal
import sys
import time
from argparse import RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from itertools import islice
from multiprocessing import active_children, get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import django
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections
from django.utils import timezone
from tqdm import tqdm  # type: ignore[import-untyped]

from apps.access import tenancy
from apps.access.models import SLUG, Tenant
from apps.access.problems import Problem
from apps.documents import bulk, collections, lexicon, load, merge, vector_index
from apps.documents.accept import PRIORITIES, Submission
from apps.documents.models import Collection, Document, IngestionJob
from apps.documents.parsing.isolate import die_with_parent

READ_AT_ONCE = 500  # dead letters
POLL_SECONDS = 0.5
QUIET_SECONDS = 30.0
ANALYZED_FROM = 1_000  # documents
PROCESSES = os.cpu_count() or 1
#: A fork begins at once. It may use a GPU, because this process never does.
START = "fork" if sys.platform == "linux" else "spawn"


#: Of each document what it is called, what came of it, and why it was refused.
Told = list[tuple[str, str, str]]


def _work(collection: Collection, group: list[load.Raw], priority: str, put: Callable[..., Sequence[Any]]) -> Told:
    read = load.read(group, collection=collection.slug, priority=priority)
    try:
        submissions = [each for _, each in read if isinstance(each, Submission)]
        results = iter(put(collection=collection, submissions=submissions))
    finally:
        load.close(read)
    return [(name, *_told(each if isinstance(each, Problem) else next(results))) for name, each in read]


def _told(result: bulk.Result | bulk.Outcome) -> tuple[str, str]:
    if isinstance(result, Problem):
        return "refused", result.sentence
    if isinstance(result, str):
        return result, ""
    return ("unchanged" if result.unchanged else "accepted"), ""


_stop: Event  # of a process that loads


def _begin(stop: Event, parent: int) -> None:
    """In a new process that loads."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear: what has begun ends well
    die_with_parent(parent)
    django.setup()


def _load_group(collection: Collection, group: list[load.Raw], priority: str) -> Told:
    return [] if _stop.is_set() else _work(collection, group, priority, bulk.put_here)


class Command(BaseCommand):
    help = """Put files into a collection, and wait until they can be found.

PATH is a folder (the source URI of a file is its path in it), a file, or a file of
documents as lines of JSON (.ndjson, .jsonl; as POST /api/v1/documents/bulk takes them).
What has not changed is not done again: after Ctrl-C, run the same command once more."""

    def create_parser(self, *args: Any, **kwargs: Any) -> CommandParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", type=Path)
        parser.add_argument("--collection", required=True, metavar="SLUG", help="made if there is none")
        parser.add_argument("--tenant", default=tenancy.DEFAULT_TENANT, metavar="SLUG")
        parser.add_argument("--priority", choices=PRIORITIES, default="normal")
        parser.add_argument("--no-wait", action="store_true", help="end when everything is accepted")
        parser.add_argument(
            "--bulk",
            action="store_true",
            help="do the work here instead of by the workers; a first load gets its vector index at the end",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["path"]
        if not path.exists():
            raise CommandError(f"There is no {path}.")
        self.collection = self._collection(options["tenant"], options["collection"])
        self.counted: Counter[str] = Counter()
        self.refused = False
        self.started = timezone.now()
        total = load.count(path)
        title = "loading" if options["bulk"] else "accepting"
        with tqdm(total=total, unit=" documents", desc=title, disable=None) as bar:
            try:
                if options["bulk"]:
                    self._load(path, total, options["priority"], bar)
                else:
                    for group in load.groups(path):
                        self._count(_work(self.collection, group, options["priority"], bulk.put), bar)
            except KeyboardInterrupt:
                bar.close()
                detail = f"Stopped after {self.counted.total()} of {total}; the same command goes on from here."
                raise CommandError(detail, returncode=130)
        if not options["no_wait"]:
            try:
                self._wait()
            except KeyboardInterrupt:
                raise CommandError("Stopped watching; the workers go on.", returncode=130)
        if not options["bulk"]:  # else they have been told as refused
            self._count_dead()
        self._tell()

    def _collection(self, tenant: str, slug: str) -> Collection:
        tenant_id = tenancy.tenant_id_for(tenant)
        with tenancy.scope(tenant_id):
            if not Tenant.objects.filter(id=tenant_id).exists():
                raise CommandError(f"There is no tenant {tenant!r}.")
            try:
                return collections.find(slug)
            except Problem:
                pass
            try:
                SLUG(slug)
            except ValidationError as error:
                raise CommandError(f"{slug!r} cannot be the name of a collection: {error.message}.")
            self.stderr.write(f"made the collection {slug!r}")
            return collections.create(tenant_id=tenant_id, slug=slug, name=slug)

    def _load(self, path: Path, total: int, priority: str, bar: tqdm) -> None:
        """By processes that take a group each: while Postgres writes one, others are read, cut and embedded."""
        started = time.monotonic()
        with vector_index.index_after(self.collection.space, coming=total) as unindexed:
            for database in connections.all():  # a forked process could not use them
                database.close()
                if hasattr(database, "close_pool"):
                    database.close_pool()
            context = get_context(START)
            stop = context.Event()
            with ProcessPoolExecutor(PROCESSES, context, initializer=_begin, initargs=(stop, os.getpid())) as pool:
                running: set[Future[Told]] = set()
                try:
                    for group in load.groups(path):
                        running.add(pool.submit(_load_group, self.collection, group, priority))
                        if len(running) > 2 * PROCESSES:
                            done, running = wait(running, return_when=FIRST_COMPLETED)
                            for each in done:
                                self._count(each.result(), bar)
                    for each in as_completed(running):
                        self._count(each.result(), bar)
                except KeyboardInterrupt:
                    stop.set()
                    self._finish(running, bar)
                    raise
            if self.counted[merge.MERGED] > ANALYZED_FROM:
                merge.analyze()
            lexicon.count_due(only=self.collection.id)
            loaded = time.monotonic()
            if unindexed:
                bar.set_description("building the vector index")
        seconds = max(loaded - started, 0.001)
        self.stdout.write(
            f"{self.counted.total()} documents in {seconds:.1f} s ({self.counted.total() / seconds:.0f}/s)"
            + (f", their vector index in {time.monotonic() - loaded:.1f} s" if unindexed else "")
        )

    def _finish(self, running: set[Future[Told]], bar: tqdm) -> None:
        """After Ctrl-C: count what was under way. Once more ends it all at once."""
        tqdm.write("Finishing what has begun; Ctrl-C again stops at once.", file=sys.stderr)
        try:
            for each in as_completed(running):
                self._count(each.result(), bar)
        except KeyboardInterrupt:
            for process in active_children():
                process.kill()
            tqdm.write("Stopped; the same command goes on from here.", file=sys.stderr)
            os._exit(130)  # the pool's own end would wait for its processes

    def _count(self, told: Told, bar: tqdm) -> None:
        for name, outcome, sentence in told:
            self.counted[outcome] += 1
            if sentence:
                self.refused = True
                tqdm.write(f"{name}: {sentence}", file=sys.stderr)
        bar.update(len(told))

    def _wait(self) -> None:
        """Until the collection has no open job."""
        open_jobs = self._open()
        moved = time.monotonic()
        with tqdm(total=open_jobs, unit=" jobs", desc="indexing", disable=None if open_jobs else True) as bar:
            while open_jobs:
                time.sleep(POLL_SECONDS)
                now_open = self._open()
                if now_open != open_jobs or self._running():
                    moved = time.monotonic()
                elif time.monotonic() - moved > QUIET_SECONDS:
                    self.stderr.write("Nothing has moved for a while: are workers running (manage.py up)?")
                    moved = time.monotonic()
                bar.total = max(bar.total, now_open)
                bar.update(bar.total - now_open - bar.n)
                open_jobs = now_open

    def _open(self) -> int:
        with tenancy.scope(self.collection.tenant_id):
            return collections.progress([self.collection.id])[self.collection.id].open

    def _running(self) -> bool:
        """Does a worker have one of the jobs in its hands? A large document takes its time."""
        with tenancy.scope(self.collection.tenant_id):
            return IngestionJob.objects.filter(
                collection_id=self.collection.id, state=IngestionJob.State.RUNNING, lease_until__gt=timezone.now()
            ).exists()

    def _count_dead(self) -> None:
        with tenancy.scope(self.collection.tenant_id):
            dead = IngestionJob.objects.filter(
                collection_id=self.collection.id, state=IngestionJob.State.DEAD, finished_at__gte=self.started
            )
            self.counted["failed"] = dead.count()
            found = dead.order_by("created_at").iterator()
            while some := list(islice(found, READ_AT_ONCE)):
                names = Document.objects.in_bulk([job.document_id for job in some])
                for job in some:
                    name = names[job.document_id].source_uri if job.document_id in names else job.document_id
                    self.stderr.write(f"{name}: {(job.error or {}).get('detail')}")

    def _tell(self) -> None:
        told = ", ".join(f"{self.counted[name]} {name}" for name in ("accepted", "unchanged", "refused", "failed"))
        self.stdout.write(told)
        if self.refused or self.counted["failed"]:
            raise CommandError("Not everything could be taken.")
