"""`manage.py capacity` beside tables that are really there."""

from __future__ import annotations

import io
import json
import random
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import collections, merge, partitions, spaces
from apps.documents.accept import Submission
from apps.documents.capacity import Constants, Wishes
from apps.documents.capacity import installed as installation
from apps.documents.capacity.sizes import disk
from apps.documents.engines import engine_for
from apps.documents.models import Collection
from tests.conftest import make_collection

DOCUMENTS, AT_ONCE = 600, 200
WITHIN = 1.35  # of what is computed: tables of some megabytes, in four partitions each
LETTERS = "aeioubcdfglmnprstv"


@pytest.fixture
def loaded(tenant: Tenant) -> tuple[Collection, dict[str, int]]:
    """A collection of some thousand chunks in a space of its own, and by how much the tables have grown."""
    if engine_for(connection).name != "postgres":
        pytest.skip("one transaction for many documents")
    slug = f"capacity-{uuid4().hex[:8]}"
    space = spaces.create(slug=slug, backend="fake", model="fake", dimensions=384)
    collection = make_collection(tenant, space=space.slug, slug=slug)
    before = _bytes(space.table)
    dice = random.Random(5)
    words = ["".join(dice.choices(LETTERS, k=dice.randint(2, 9))) for _ in range(5_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]  # as words of a language are spread
    for first in range(0, DOCUMENTS, AT_ONCE):
        texts = [". ".join(" ".join(dice.choices(words, weights, k=12)) for _ in range(60)) for _ in range(AT_ONCE)]
        sent = [
            Submission(io.BytesIO(text.encode()), "text/plain", "", source_uri=f"{slug}/{first + number}")
            for number, text in enumerate(texts)
        ]
        assert merge.merge(collection=collection, submissions=sent) == [merge.MERGED] * AT_ONCE
    with connections["owner"].cursor() as cursor:
        cursor.execute(f'VACUUM ANALYZE "{space.table}", documents_document, documents_documentversion')
    after = _bytes(space.table)
    with tenancy.scope(tenant.id):
        return collections.find(slug), {name: size - before.get(name, 0) for name, size in after.items()}


def _bytes(space_table: str) -> dict[str, int]:
    """Packed: into room that other tests have left the tables would grow by less, and from full pages by more."""
    with connections["owner"].cursor() as cursor:
        cursor.execute("VACUUM FULL ANALYZE documents_chunk")
    parts = {table: found for _, table, found in partitions.status()}
    return {
        "chunks": sum(part.table_bytes for part in parts["documents_chunk"]),
        "indexes of chunks": sum(part.indexes_bytes for part in parts["documents_chunk"]),
        "vectors": sum(part.table_bytes for part in parts[space_table]),
        "vector index": sum(part.index_bytes or 0 for part in parts[space_table]),
    }


def told(*arguments: str) -> dict[str, Any]:
    out = io.StringIO()
    call_command("capacity", "--json", *arguments, stdout=out)
    return json.loads(out.getvalue())


def test_what_is_computed_for_a_small_library_is_what_it_takes(loaded: tuple[Collection, dict[str, int]]) -> None:
    collection, grown = loaded
    assert collection.documents == DOCUMENTS and collection.chunks > 2_000
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        cursor.execute("SELECT avg(octet_length(text)) FROM documents_chunk WHERE collection_id = %s", [collection.id])
        text = float(cursor.fetchone()[0])
    constants = Constants.load()
    wishes = Wishes(
        documents=collection.documents,
        chunks_per_document=collection.chunks / collection.documents,
        chunk_tokens=text / constants.text,
        versions=1,
        changed_per_day=0,
    )
    computed = disk(wishes, constants)
    computed["indexes of chunks"] = computed["keys of chunks"] + computed["word index"]
    for name, size in grown.items():
        assert size / WITHIN < computed[name] < size * WITHIN, (name, size, computed[name])


def test_an_installation_is_told_what_it_takes_when_it_grows(loaded: tuple[Collection, dict[str, int]]) -> None:
    here = told("--from-database")
    there = {table: found for _, table, found in partitions.status()}
    chunks = sum(part.table_bytes for part in there["documents_chunk"])
    assert here["needs"]["disk"]["chunks"] == pytest.approx(chunks, rel=0.02)
    assert here["wishes"]["chunks_per_document"] == pytest.approx(here["needs"]["chunks"] / here["wishes"]["documents"])
    documents = 1_000 * here["wishes"]["documents"]
    grown = told("--from-database", "--documents", str(documents))
    assert grown["scale"] == here["scale"]
    for name in set(here["needs"]["disk"]) - {"job ledger", "word index"}:
        assert grown["needs"]["disk"][name] == pytest.approx(1_000 * here["needs"]["disk"][name])
    words = grown["needs"]["disk"]["word index"] / here["needs"]["disk"]["word index"]
    assert 300 < words < 1_000, "one of many texts takes less of each"


def test_what_is_named_goes_before_what_is_here(loaded: tuple[Collection, dict[str, int]]) -> None:
    wider = told("--from-database", "--dimensions", "1024", "--storage", "vector")
    assert (wider["wishes"]["dimensions"], wider["wishes"]["storage"]) == (1024, "vector")
    assert wider["wishes"]["documents"] == told("--from-database")["wishes"]["documents"]


def test_too_little_to_tell_from_is_refused(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "LEAST", 10**12)
    with pytest.raises(CommandError, match="at least"):
        told("--from-database")
