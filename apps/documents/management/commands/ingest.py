"""`manage.py ingest PATH`: a folder, a file, or a file of lines into a collection."""

from __future__ import annotations

import os
import time
from argparse import RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from django.utils import timezone
from tqdm import tqdm  # type: ignore[import-untyped]

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.problems import Problem
from apps.documents import bulk, collections, load, spaces
from apps.documents.accept import PRIORITIES, Submission
from apps.documents.models import Collection, Document, IngestionJob

SHOWN = 20  # refusals
POLL_SECONDS = 0.5
QUIET_SECONDS = 30.0
THREADS = (os.cpu_count() or 1) + 1


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
        self.problems: list[str] = []
        self.started = timezone.now()
        total = load.count(path)
        documents = load.read(path, collection=self.collection.slug, priority=options["priority"])
        title = "loading" if options["bulk"] else "accepting"
        with tqdm(total=total, unit=" documents", desc=title, disable=None) as bar:
            try:
                if options["bulk"]:
                    self._load(load.groups(documents), total, bar)
                else:
                    for group in load.groups(documents):
                        self._count(self._put(group, bulk.put), bar)
            except KeyboardInterrupt:
                bar.close()
                detail = f"Stopped after {self.counted.total()} of {total}; the same command goes on from here."
                raise CommandError(detail, returncode=130)
        if not options["no_wait"]:
            self._wait()
        self._tell()

    def _collection(self, tenant: str, slug: str) -> Collection:
        tenant_id = tenancy.tenant_id_for(tenant)
        with tenancy.scope(tenant_id):
            if not Tenant.objects.filter(id=tenant_id).exists():
                raise CommandError(f"There is no tenant {tenant!r}.")
            try:
                return collections.find(slug)
            except Problem:
                Collection(slug=slug).clean_fields(exclude=["tenant", "space", "name"])
            self.stderr.write(f"made the collection {slug!r}")
            return collections.create(tenant_id=tenant_id, slug=slug, name=slug)

    def _put(self, group: list[load.Read], put: Callable[..., list[bulk.Result]]) -> list[tuple[str, bulk.Result]]:
        """The results of a group by name; what could not be read is one of them."""
        results = iter(
            put(
                collection=self.collection,
                submissions=[each for _, each in group if isinstance(each, Submission)],
            )
        )
        told = [(name, each if isinstance(each, Problem) else next(results)) for name, each in group]
        load.close(group)
        return told

    def _load(self, groups: Iterator[list[load.Read]], total: int, bar: tqdm) -> None:
        """A few groups at a time: while Postgres writes one, the next is read, cut and embedded."""

        def work(group: list[load.Read]) -> list[tuple[str, bulk.Result]]:
            try:
                return self._put(group, bulk.put_here)
            finally:
                connection.close()

        started = time.monotonic()
        with spaces.index_after(self.collection.space, coming=total) as unindexed:
            with ThreadPoolExecutor(THREADS) as pool:
                running: set[Future[list[tuple[str, bulk.Result]]]] = set()
                for group in groups:
                    running.add(pool.submit(work, group))
                    if len(running) > THREADS:
                        done, running = wait(running, return_when=FIRST_COMPLETED)
                        for each in done:
                            self._count(each.result(), bar)
                for each in as_completed(running):
                    self._count(each.result(), bar)
            loaded = time.monotonic()
            if unindexed:
                bar.set_description("building the vector index")
        seconds = max(loaded - started, 0.001)
        self.stdout.write(
            f"{self.counted.total()} documents in {seconds:.1f} s ({self.counted.total() / seconds:.0f}/s)"
            + (f", their vector index in {time.monotonic() - loaded:.1f} s" if unindexed else "")
        )

    def _count(self, results: list[tuple[str, bulk.Result]], bar: tqdm) -> None:
        for name, result in results:
            if isinstance(result, Problem):
                self.counted["refused"] += 1
                self.problems.append(f"{name}: {result.sentence}")
            else:
                self.counted["unchanged" if result.unchanged else "accepted"] += 1
        bar.update(len(results))

    def _wait(self) -> None:
        """Until the collection has no open job."""
        open_jobs = self._open()
        moved = time.monotonic()
        with tqdm(total=open_jobs, unit=" jobs", desc="indexing", disable=None if open_jobs else True) as bar:
            while open_jobs:
                time.sleep(POLL_SECONDS)
                now_open = self._open()
                if now_open != open_jobs:
                    moved = time.monotonic()
                elif time.monotonic() - moved > QUIET_SECONDS:
                    self.stderr.write("Nothing has moved for a while: are workers running (manage.py up)?")
                    moved = time.monotonic()
                bar.total = max(bar.total, now_open)
                bar.update(bar.total - now_open - bar.n)
                open_jobs = now_open

    def _open(self) -> int:
        try:
            with tenancy.scope(self.collection.tenant_id):
                return collections.progress([self.collection.id])[self.collection.id].open
        except KeyboardInterrupt:
            raise CommandError("Stopped watching; the workers go on.", returncode=130)

    def _tell(self) -> None:
        with tenancy.scope(self.collection.tenant_id):
            dead = IngestionJob.objects.filter(
                collection_id=self.collection.id, state=IngestionJob.State.DEAD, finished_at__gte=self.started
            )
            self.counted["failed"] = dead.count()
            names = Document.objects.in_bulk(dead.values_list("document_id", flat=True)[:SHOWN])
            self.problems += [
                f"{names[job.document_id].source_uri}: {(job.error or {}).get('detail')}" for job in dead[:SHOWN]
            ]
        for problem in self.problems[:SHOWN]:
            self.stderr.write(problem)
        if len(self.problems) > SHOWN:
            self.stderr.write(f"... and {self.counted['refused'] + self.counted['failed'] - SHOWN} more")
        told = ", ".join(f"{self.counted[name]} {name}" for name in ("accepted", "unchanged", "refused", "failed"))
        self.stdout.write(told)
        if self.problems:
            raise CommandError("Not everything could be taken.")
