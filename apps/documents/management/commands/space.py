"""`manage.py space create|index|list`: embedding spaces, an operator's act."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.documents import spaces
from apps.documents.models import EmbeddingSpace
from apps.documents.prewarm import prewarm


class Command(BaseCommand):
    help = "Create an embedding space, build its vector index anew, or list all."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="a new space with its table and index")
        create.add_argument("slug")
        create.add_argument("--index", choices=EmbeddingSpace.Index.values, default="hnsw")
        create.add_argument("--storage", choices=EmbeddingSpace.Storage.values, default="halfvec")
        create.add_argument("--metric", choices=EmbeddingSpace.Metric.values, default="cosine")
        create.add_argument("--binary", action="store_true", help="index one bit for each dimension")
        create.add_argument("--backend", choices=("local", "openai", "fake"), default=settings.EMBEDDING_BACKEND)
        create.add_argument("--model", default=settings.EMBEDDING_MODEL)
        create.add_argument("--dimensions", type=int, default=settings.EMBEDDING_DIMENSIONS)
        index = verbs.add_parser("index", help="build the vector index from the rows there are (IVFFlat: after a load)")
        index.add_argument("slug")
        verbs.add_parser("list", help="all spaces, one per line")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["verb"] == "list":
            for space in EmbeddingSpace.objects.order_by("created_at"):
                self.stdout.write(
                    f"{space.slug}\t{space.backend}:{space.model}\t{spaces.column_type(space)}\t"
                    f"{space.index_method} {space.index_parameters}\t{space.state}"
                )
        elif options["verb"] == "create":
            self._create(options)
        else:
            found = EmbeddingSpace.objects.filter(slug=options["slug"]).first()
            if found is None:
                raise CommandError(f"there is no space {options['slug']!r}")
            self.stdout.write(f"built {spaces.index_name(found)} with {spaces.build_index(space=found)}")
            prewarm()

    def _create(self, options: dict[str, Any]) -> None:
        try:
            space = spaces.create(
                slug=options["slug"],
                backend=options["backend"],
                model=options["model"],
                dimensions=options["dimensions"],
                index_method=options["index"],
                storage=options["storage"],
                metric=options["metric"],
                binary=options["binary"],
            )
        except ValidationError as error:
            raise CommandError("; ".join(error.messages))
        self.stdout.write(f"created {space.slug}: {spaces.column_type(space)}, {space.index_method}")
        if space.index_method == EmbeddingSpace.Index.IVFFLAT:
            self.stdout.write(f"its index is built after the load: manage.py space index {space.slug}")
