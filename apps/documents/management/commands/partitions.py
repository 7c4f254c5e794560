"""`manage.py partitions status|rebuild-index`: what the tables hold, and their vector indexes built anew while they
serve."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.documents import partitions
from apps.documents.engines import Part
from apps.documents.management.table import aligned
from apps.documents.models import EmbeddingSpace
from apps.documents.prewarm import prewarm

HEADINGS = ("space", "partition", "rows", "dead", "table", "indexes", "vector index", "size", "state")
RIGHT = ("rows", "dead", "table", "indexes", "size")


class Command(BaseCommand):
    help = "Show the partitions (on a cluster: shards) of all tables, or build a space's vector index anew."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        status = verbs.add_parser("status", help="rows, sizes and indexes, by PostgreSQL's statistics; running builds")
        status.add_argument("--json", action="store_true", help="with bytes and names in full")
        rebuild = verbs.add_parser(
            "rebuild-index",
            help="partition by partition, while it is searched and written to; goes on after a kill",
        )
        rebuild.add_argument("slug")
        rebuild.add_argument("--partition", type=int, metavar="N", help="only this one, from 0")
        rebuild.add_argument(
            "--processors", type=int, metavar="N", help="to build with; half of them by default, as searches go on"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["verb"] == "rebuild-index":
            self._rebuild(options["slug"], options["partition"], options["processors"])
            return
        found = partitions.status()
        if options["json"]:
            tables = [
                {"space": slug or None, "table": table, "partitions": [asdict(part) for part in parts]}
                for slug, table, parts in found
            ]
            self.stdout.write(json.dumps(tables, indent=2))
            return
        rows = [_row(slug, part) for slug, _, parts in found for part in parts]
        self.stdout.write("\n".join(aligned(HEADINGS, rows, right=RIGHT)))

    def _rebuild(self, slug: str, number: int | None, processors: int | None) -> None:
        if processors is not None and processors < 1:
            raise CommandError(f"an index cannot be built with {processors} processors")
        space = EmbeddingSpace.objects.filter(slug=slug).first()
        if space is None:
            raise CommandError(f"there is no space {slug!r}")
        try:
            built = partitions.rebuild(space, number=number, processors=processors, told=self._tell)
        except partitions.NoSuchPartition as error:
            raise CommandError(str(error))
        prewarm()
        self.stdout.write(f"built {len(built)} anew")

    def _tell(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()  # for whoever reads a pipe


def _row(slug: str, part: Part) -> tuple[str, ...]:
    name = f"{part.name} on {part.node}" if part.node else part.name
    share = f"{part.dead / (part.dead + part.rows):.1%}" if part.dead else "0"
    sizes = (_size(part.table_bytes), _size(part.indexes_bytes))
    index = (part.method or "-", _size(part.index_bytes), _state(slug, part))
    return (slug or "-", name, str(part.rows), share, *sizes, *index)


def _state(slug: str, part: Part) -> str:
    if part.problem:
        return part.problem
    if part.phase:
        return part.phase if part.done is None else f"{part.phase}, {part.done:.0f} %"
    if part.method is None:
        return "missing" if slug else "-"
    return part.mark or ("valid" if part.valid else "invalid")


def _size(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.1f} MB"
