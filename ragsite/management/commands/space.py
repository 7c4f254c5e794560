"""`manage.py space ...`: embedding spaces, and collections moved from one to another; an operator's act."""

from __future__ import annotations

import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from apps.access import tenancy
from apps.access.problems import Problem
from apps.documents import db, partitions, second_space, spaces, vector_index
from apps.documents.embedding import BACKENDS, EmbeddingError
from apps.documents.models import Collection, EmbeddingSpace, SpaceBuild
from apps.documents.prewarm import prewarm
from apps.evaluation import space_check


class Command(BaseCommand):
    help = """Embedding spaces: make one, and move collections to it without a pause.

  create    a new space with its table and index
  build     beside the space that serves: every chunk gets a vector, new writes go to both
  check     compare both: complete? agreeing? as good on labelled queries?
  canary    let the second one answer a share of the queries
  promote   let it serve; the other one is kept up to date
  rollback  take that back
  retire    let the one that does not serve go, and delete its vectors
  index     build a vector index anew from the rows there are (IVFFlat: after a load)
  list      all spaces, one per line

Of all tenants' collections, unless --tenant or --collections narrow it; promote, rollback and retire are one
transaction."""

    def create_parser(self, *args: Any, **kwargs: Any) -> CommandParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="a new space with its table and index")
        create.add_argument("slug")
        create.add_argument("--index", choices=EmbeddingSpace.Index.values, default="hnsw")
        create.add_argument("--storage", choices=EmbeddingSpace.Storage.values, default="halfvec")
        create.add_argument("--metric", choices=EmbeddingSpace.Metric.values, default="cosine")
        create.add_argument("--binary", action="store_true", help="index one bit for each dimension")
        create.add_argument("--backend", choices=BACKENDS)
        create.add_argument("--model")
        create.add_argument("--dimensions", type=int, help="fewer than the local model's cut its vectors")
        index = verbs.add_parser("index", help="build the vector index from the rows there are (IVFFlat: after a load)")
        index.add_argument("slug")
        verbs.add_parser("list", help="all spaces, one per line")
        for verb, told in (
            ("build", "beside the space that serves"),
            ("check", "compare it with the space that serves"),
            ("canary", "let it answer a share of the queries"),
            ("promote", "let it serve"),
            ("rollback", "let the space before it serve again"),
            ("retire", "delete its vectors where it does not serve"),
        ):
            moving = verbs.add_parser(verb, help=told)
            moving.add_argument("slug")
            moving.add_argument("--tenant", metavar="SLUG", help="only this one's collections")
            moving.add_argument("--collections", metavar="SLUG,...", help="only these")
            if verb == "build":
                moving.add_argument("--background", action="store_true", help="leave the work to the workers")
            if verb == "canary":
                moving.add_argument("--percent", type=float, required=True, help="of the queries, 0 to 100")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, "_" + options["verb"])(options)
        except Problem as problem:
            told = "".join(f"\n  {each['pointer'].strip('/')}: {each['detail']}" for each in problem.errors)
            raise CommandError(problem.sentence + told)
        except EmbeddingError as error:
            raise CommandError(str(error))

    def _list(self, options: dict[str, Any]) -> None:
        for space in EmbeddingSpace.objects.order_by("created_at"):
            uses = second_space.uses(space)
            self.stdout.write(
                f"{space.slug}\t{space.backend}:{space.model}\t{spaces.column_type(space)}\t"
                f"{space.index_method} {space.index_parameters}\t{space.state}\t"
                f"serves {uses.serving}, second of {uses.second}, being built for {uses.building} collections"
            )

    def _create(self, options: dict[str, Any]) -> None:
        named = ("slug", "backend", "model", "dimensions", "storage", "metric", "binary")
        try:
            space = spaces.create(index_method=options["index"], **{name: options[name] for name in named})
        except ValidationError as error:
            raise CommandError("; ".join(error.messages))
        self.stdout.write(f"created {space.slug}: {spaces.column_type(space)}, {space.index_method}")
        if space.index_method == EmbeddingSpace.Index.IVFFLAT:
            self.stdout.write(f"its index is built after the load: manage.py space index {space.slug}")

    def _index(self, options: dict[str, Any]) -> None:
        found = second_space.find(options["slug"])
        partitions.rebuild(found, told=self._tell)
        self.stdout.write(f"built {vector_index.index_name(found)} with {found.index_parameters}")
        prewarm()

    def _tell(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()  # for whoever reads a pipe

    def _build(self, options: dict[str, Any]) -> None:
        space = second_space.find(options["slug"])
        builds = [build for found in self._each(options, second_space.begin) for build in found]
        if not builds:
            raise CommandError("Nothing to build: each of these collections is served by it already, or there is none.")
        self.stdout.write(f"{space}: to be built for {len(builds)} collections")
        if options["background"]:
            return
        for build in builds:
            self._work(build)
        self.stdout.write("indexing")
        if not second_space.finish(space):
            self.stdout.write("the index is built when the other builds of this space are done")
        prewarm()
        self.stdout.write(f"{space} is built: space check {space}, then space promote {space}")

    def _work(self, build: SpaceBuild) -> None:
        with tenancy.scope(build.tenant_id):
            slug = build.collection.slug
            chunks, there = second_space.coverage(build.collection, build.space)

        def told(now: SpaceBuild) -> None:
            done = min(chunks, there + now.embedded - build.embedded)  # workers may have gone on since it was counted
            self.stdout.write(f"{slug}: {done} of {chunks} chunks")

        waits = False
        while now := self._running(build):
            if second_space.work(tenant_id=build.tenant_id, build_id=build.id, told=told):
                continue
            if now.lease_until and not waits:
                waits, left = True, max(0, round((now.lease_until - timezone.now()).total_seconds()))
                had = "another process has this build, or had it when it was killed"
                self.stdout.write(f"{slug}: {had}; its lease ends in {left} s, unless it goes on")
            time.sleep(1)

    def _running(self, build: SpaceBuild) -> SpaceBuild | None:
        """The build as it is now, None once it is done. Raises CommandError where it failed or was given up."""
        with tenancy.scope(build.tenant_id):
            now = SpaceBuild.objects.filter(id=build.id).first()
        if now and now.error:
            raise CommandError(f"{now.error['detail']} (Workers try again; you can run this command again.)")
        if now and now.state == SpaceBuild.State.CANCELLED:
            raise CommandError("The build was given up: the space was retired.")
        return now if now and now.state == SpaceBuild.State.RUNNING else None

    def _check(self, options: dict[str, Any]) -> None:
        space = second_space.find(options["slug"])
        found = []
        for tenant_id, names in _wanted(options):
            with tenancy.scope(tenant_id):
                found += [(tenant_id, each.slug) for each in second_space.of_both(space, names)]
        if not found:
            raise CommandError(f"No collection has {space} beside another space.")
        for tenant_id, slug in found:
            self._compared(space_check.check(tenant_id=tenant_id, collection=slug))

    def _compared(self, told: dict[str, Any]) -> None:
        one, other = told["serving"], told["second"]
        self.stdout.write(
            f"{told['collection']}: {told['embedded']} of {told['chunks']} chunks have a vector in {other}"
        )
        self.stdout.write(f"  {'':24} {one:>14} {other:>14}")
        rows = [("known items found", told["known_items"]), ("ms of a search, median", told["milliseconds"])]
        rows += [
            (f"{mode} {name}", {slug: metrics[name] for slug, metrics in of_mode.items()})
            for mode, of_mode in told["metrics"].items()
            for name in of_mode[one]
        ]
        for name, values in rows:
            self.stdout.write(f"  {name:24} {_number(values[one]):>14} {_number(values[other]):>14}")
        asked = f"of {told['queries']} queries, {told['labelled']} labelled"
        self.stdout.write(f"  both find the same: {_number(told['agreement'])} ({asked})")

    def _canary(self, options: dict[str, Any]) -> None:
        percent = options["percent"]
        if not 0 <= percent <= 100:
            raise CommandError("--percent is 0 to 100.")
        self._together(options, "answers its share for", lambda **at: second_space.canary(percent=percent, **at))

    def _promote(self, options: dict[str, Any]) -> None:
        self._together(options, "serves", second_space.promote)

    def _rollback(self, options: dict[str, Any]) -> None:
        self._together(options, "does not serve any more:", second_space.rollback)

    def _retire(self, options: dict[str, Any]) -> None:
        self._together(options, "has no vectors any more of", second_space.retire)
        second_space.settle(second_space.find(options["slug"]))

    def _together(self, options: dict[str, Any], told: str, verb: Callable[..., list[Collection]]) -> None:
        """The verb for all tenants in one transaction."""
        with transaction.atomic():
            done = [each for found in self._each(options, verb) for each in found]
        if not done:
            raise CommandError(f"No collection has {options['slug']} as its second space.")
        self.stdout.write(f"{options['slug']} {told} {', '.join(each.slug for each in done)}")

    def _each(self, options: dict[str, Any], verb: Callable[..., list[Any]]) -> list[list[Any]]:
        """What the verb gives for each tenant; one that it does not concern is passed by, unless it is named."""
        space = second_space.find(options["slug"])
        given: list[list[Any]] = []
        passed: Problem | None = None
        for tenant_id, names in _wanted(options):
            with tenancy.scope(tenant_id):
                try:
                    given.append(verb(space=space, slugs=names))
                except Problem as problem:
                    if options["tenant"] or problem.code not in ("not_second", "not_promoted"):
                        raise
                    passed = problem
        if passed and not given:
            raise passed
        return given


def _wanted(options: dict[str, Any]) -> list[tuple[UUID, list[str] | None]]:
    """Each tenant with the named collections that it has, or None for all of its. Raises CommandError for a name that
    no tenant has."""
    if not options["collections"]:
        return [(tenant_id, None) for tenant_id in _tenants(options)]
    named, wanted = set(options["collections"].split(",")), []
    for tenant_id in _tenants(options):
        with tenancy.scope(tenant_id):
            wanted.append((tenant_id, list(Collection.objects.filter(slug__in=named).values_list("slug", flat=True))))
    if unknown := sorted(named.difference(*(slugs for _, slugs in wanted))):
        raise CommandError(f"There is no collection {unknown[0]!r}.")
    return [(tenant_id, slugs) for tenant_id, slugs in wanted if slugs]


def _tenants(options: dict[str, Any]) -> list[UUID]:
    """The tenant that is named, or all that have collections."""
    if options["tenant"]:
        return [tenancy.tenant_id_for(options["tenant"])]
    return sorted({row[0] for row in db.rows("reindex_collections")})


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
