"""Every kind of vector index finds what an exact comparison finds: methods, storages, metrics, and indexes of bits."""

from __future__ import annotations

from itertools import product
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, connections
from django.test import override_settings

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import partitions, spaces, vector_index
from apps.documents.db import vector_text
from apps.documents.engines import engine_for
from apps.documents.models import Collection, EmbeddingSpace
from apps.retrieval.scopes import scopes_of
from apps.retrieval.statement import choose, compose, index_settings
from apps.retrieval.types import SearchQuery
from tests.conftest import make_collection

ROWS, DIMENSIONS, TOPICS, QUERIES = 3_000, 64, 40, 25
K = 10
Floats = npt.NDArray[np.float32]


def _vectors(count: int, seed: int) -> Floats:
    """Unit vectors around the same forty topics."""
    topics = np.random.default_rng(0).standard_normal((TOPICS, DIMENSIONS))
    dice = np.random.default_rng(seed)
    near = topics[dice.integers(0, TOPICS, count)] + 0.7 * dice.standard_normal((count, DIMENSIONS))
    return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)


def _fill(collection: Collection, vectors: Floats, ids: list[UUID], space: EmbeddingSpace | None = None) -> None:
    """Live vectors straight into a space's table. (As VALUES: INSERT .. SELECT FROM unnest is a COPY on Citus.)"""
    row, table = "(%s, %s, %s, %s, true, %s)", (space or collection.space).table
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        for first in range(0, len(ids), 1_000):
            part = [
                (key, key, collection.tenant_id, collection.id, vector_text(vector.tolist()))
                for key, vector in zip(ids[first : first + 1_000], vectors[first : first + 1_000], strict=True)
            ]
            cursor.execute(
                f"INSERT INTO {table} VALUES " + ", ".join([row] * len(part)),
                [value for values in part for value in values],
            )
        Collection.objects.filter(id=collection.id).update(chunks=len(ids), documents=len(ids))
    with connections["owner"].cursor() as cursor:
        cursor.execute(f"ANALYZE {table}")


def _found(collection: Collection, vector: Floats) -> tuple[set[UUID], str]:
    """What the dense leg of a search finds, and its plan."""
    query = SearchQuery("anything", k=K, mode="dense")
    with override_settings(EXACT_SCAN_ROWS=0), tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        scopes = scopes_of([collection.slug])
        statement, parameters = compose(scopes, query, vector.tolist(), choose(scopes, query))
        leg = statement[: statement.index("\n),")] + "\n) SELECT chunk_id FROM dense"  # there are no texts
        tenancy.set_local(index_settings(scopes, query))
        cursor.execute("SET LOCAL enable_sort = off")  # as if there were more rows
        cursor.execute(leg, parameters)
        found = {row[0] for row in cursor.fetchall()}
        cursor.execute("EXPLAIN " + leg, parameters)  # after it: on Citus it runs what it explains in part here
        return found, "\n".join(line for (line,) in cursor.fetchall())


def _exact(vectors: Floats, ids: list[UUID], metric: str, query: Floats) -> set[UUID]:
    near = -np.linalg.norm(vectors - query, axis=1) if metric == "l2" else vectors @ query
    return {ids[row] for row in np.argsort(-near)[:K]}


@pytest.mark.parametrize(
    ("method", "storage", "metric", "binary"),
    list(product(["hnsw", "ivfflat"], ["halfvec", "vector"], ["cosine", "ip", "l2"], [False, True])),
)
def test_what_an_index_finds_is_what_is_nearest(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch, method: str, storage: str, metric: str, binary: bool
) -> None:
    options: dict[str, Any] = {"index_method": method, "storage": storage, "metric": metric, "binary": binary}
    slug = f"s-{uuid4().hex[:8]}"
    space = spaces.create(slug=slug, backend="fake", model="fake", dimensions=DIMENSIONS, **options)
    collection = make_collection(tenant, space=space.slug)
    vectors, ids = _vectors(ROWS, 1), [uuid4() for _ in range(ROWS)]
    _fill(collection, vectors, ids)
    if method == "ivfflat":
        monkeypatch.setattr(vector_index, "lists_of", lambda connection, space: 12)  # so few rows would get one
        vector_index.index_concurrently(space)
        assert space.index_parameters["lists"] == 12
    recall = []
    for query in _vectors(QUERIES, 2):
        found, plan = _found(collection, query)
        assert "Order By: ((binary_quantize" in plan if binary else "Order By: (embedding <" in plan
        recall.append(len(found & _exact(vectors, ids, metric, query)) / K)
    assert np.mean(recall) >= 0.95


def test_rows_are_counted_where_they_are(tenant: Tenant) -> None:
    space = spaces.create(slug=f"s-{uuid4().hex[:8]}", backend="fake", model="fake", dimensions=DIMENSIONS)
    _fill(make_collection(tenant, space=space.slug), _vectors(ROWS, 1), [uuid4() for _ in range(ROWS)])
    fullest = engine_for(connections["owner"]).rows(connections["owner"], space.table)
    assert 0 < fullest < ROWS / 2, "spread over partitions or shards"


def test_names_of_a_spaces_relations_are_no_names_of_spaces(database: None, client: httpx.Client) -> None:
    slug = f"a{uuid4().hex[:8]}-b"
    values: dict[str, Any] = {"backend": "fake", "model": "fake", "dimensions": 16}
    spaces.create(slug=slug, **values)
    spaces.create(slug=f"{slug}-c", **values)
    for taken in (slug, f"{slug}-p0", f"{slug}-vectors", f"{slug}-p0-vectors", f"{slug}-collection", f"{slug}-pkey"):
        with pytest.raises(ValidationError, match="already"):
            spaces.create(slug=taken, **values)
    told = client.post("/api/v1/spaces", json={"slug": f"{slug}-vectors", **values})
    assert (told.status_code, told.json()["code"]) == (409, "slug_taken")
    first = f"z{uuid4().hex[:8]}"
    spaces.create(slug=f"{first}-p0", **values)
    with pytest.raises(CommandError, match="already"):
        call_command("space", "create", first, "--backend", "fake", "--model", "fake", "--dimensions", "16")


def test_the_local_backend_gives_no_other_model_and_no_more_dimensions(database: None, client: httpx.Client) -> None:
    pytest.importorskip("onnxruntime")
    slug = f"s-{uuid4().hex[:8]}"
    named = ("space", "create", slug, "--backend", "local")
    with pytest.raises(CommandError, match="all-MiniLM-L6-v2, not some/other"):
        call_command(*named, "--model", "some/other", "--dimensions", "384")
    with pytest.raises(CommandError, match="384"):
        call_command(*named, "--model", "all-MiniLM-L6-v2", "--dimensions", "512")
    told = client.post("/api/v1/spaces", json={"slug": slug, "backend": "local", "model": "o", "dimensions": 384})
    assert (told.status_code, told.json()["code"]) == (422, "unusable_model")
    assert not spaces.EmbeddingSpace.objects.filter(slug=slug).exists()


def test_no_dimensions_at_all_are_refused(database: None) -> None:
    for dimensions in ("0", "-1"):
        with pytest.raises(CommandError):
            call_command("space", "create", "zero", "--backend", "fake", "--dimensions", dimensions)
    assert not spaces.EmbeddingSpace.objects.filter(slug="zero").exists()


def test_a_binary_index_stays_one_when_it_is_built_anew(database: None) -> None:
    slug = f"bits-{uuid4().hex[:8]}"
    space = spaces.create(slug=slug, backend="fake", model="fake", dimensions=8, index_method="ivfflat", binary=True)
    vector_index.index_concurrently(space)
    assert partitions.rebuild(space) and space.index_parameters == {"binary": True, "lists": 1}
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = %s", [vector_index.index_name(space)])
        assert "binary_quantize(embedding)" in cursor.fetchone()[0]
