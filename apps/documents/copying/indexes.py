"""Load first, index after: what takes longest to keep up to date row by row is built when the rows are there.

That is the vector indexes and the inverted ones (GIN). They are taken away while their table is empty, and a round ends
with those that are missing, also where the process that took them away was killed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from django.contrib.postgres.indexes import GinIndex
from django.db import connections
from django.db.models import Index, Model

from .. import models, vector_index
from ..models import EmbeddingSpace
from . import SOURCE, TARGET
from .parts import ask, do

MEMORY = "256MB"  # for an inverted index


def take_away() -> None:
    for space in EmbeddingSpace.objects.using(TARGET).all():
        if is_empty(space.table):
            with vector_index.index_lock(connections[TARGET], space):
                do(TARGET, f'DROP INDEX IF EXISTS "{vector_index.index_name(space)}"')
    for model, index in _inverted():
        if is_empty(model._meta.db_table):
            do(TARGET, f'DROP INDEX IF EXISTS "{index.name}"')


def bring_back(told: Callable[[str], None]) -> None:
    """The vector indexes are those that the source has."""
    for model, index in _inverted():
        if not ask(TARGET, "SELECT to_regclass(%s)", [index.name])[0][0]:
            began = time.monotonic()
            with connections[TARGET].schema_editor() as editor:
                editor.execute(f"SET LOCAL maintenance_work_mem = '{MEMORY}'", params=None)
                editor.add_index(model, index)
            told(f"built the index {index.name} in {time.monotonic() - began:.1f} s")
    for space in EmbeddingSpace.objects.using(TARGET).all():
        if vector_index.is_indexed(space, using=SOURCE) and not vector_index.is_indexed(space, using=TARGET):
            began = time.monotonic()
            vector_index.index_concurrently(space, using=TARGET, processors=os.cpu_count())
            told(f"built the vector index of {space} in {time.monotonic() - began:.1f} s")


def keep_lists() -> None:
    """IVFFlat: the rows of spaces came from the source, the lists of the indexes here are what they were built with."""
    for space in EmbeddingSpace.objects.using(TARGET).filter(index_method=EmbeddingSpace.Index.IVFFLAT):
        built = ask(
            TARGET,
            "SELECT option_value FROM pg_class, pg_options_to_table(reloptions)"
            " WHERE oid = to_regclass(%s) AND option_name = 'lists'",
            [vector_index.index_name(space)],
        )
        if built and space.index_parameters.get("lists") != int(built[0][0]):
            vector_index.set_lists(space, int(built[0][0]), using=TARGET)


def is_empty(table: str) -> bool:
    return not ask(TARGET, f'SELECT 1 FROM "{table}" LIMIT 1')  # noqa: S608


def _inverted() -> Iterator[tuple[type[Model], Index]]:
    for model in (models.Document, models.Chunk):
        for index in model._meta.indexes:
            if isinstance(index, GinIndex):
                yield model, index
