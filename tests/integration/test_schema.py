"""Facts of the schema, proved by asking the planner."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
import pytest
from django.conf import settings
from django.db import connection, connections
from django.test import override_settings

from apps.access import tenancy
from apps.access.models import Tenant
from apps.documents import bulk, db, merge, spaces, vector_index
from apps.documents.accept import Submission
from apps.documents.db import vector_text
from apps.documents.models import Collection, EmbeddingSpace
from apps.retrieval.scopes import scopes_of
from apps.retrieval.search import search
from apps.retrieval.statement import choose, compose, index_settings, legs_of
from apps.retrieval.types import SearchQuery
from ragsite import embedded
from ragsite.embedded.bootstrap import bootstrap
from tests.conftest import DATA, make_collection
from tests.support.processes import ROOT

ROWS = 8_000


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def explain(collection: Collection, query: SearchQuery, vector: list[float] | None) -> list[dict[str, Any]]:
    """Every node of the search's plan, as the application's role sees it."""
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        scopes = scopes_of([collection.slug])
        statement, parameters = compose(scopes, query, vector, choose(scopes, query))
        tenancy.set_local(index_settings(scopes, query))
        cursor.execute("EXPLAIN (FORMAT JSON) " + statement, parameters)
        found = cursor.fetchone()[0]
    plan = json.loads(found) if isinstance(found, str) else found
    return list(nodes(plan[0]["Plan"]))


def fill(collection: Collection, count: int) -> list[float]:
    """Random live vectors straight into the space's table; returns one to ask for."""
    numbers = np.random.default_rng(7).standard_normal((count, 8))
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {collection.space.table}"
            " SELECT gen_random_uuid(), gen_random_uuid(), %s, %s, true, v::halfvec(8)"
            " FROM unnest(%s::text[]) v",
            [collection.tenant_id, collection.id, [vector_text(row.tolist()) for row in numbers]],
        )
        Collection.objects.filter(id=collection.id).update(chunks=count)
    with connections["owner"].cursor() as cursor:
        cursor.execute(f"ANALYZE {collection.space.table}")
    collection.chunks = count
    return numbers[0].tolist()


@pytest.mark.parametrize("method", ["hnsw", "ivfflat"])
def test_every_partitions_vector_index_is_used(tenant: Tenant, method: str) -> None:
    space = spaces.create(slug=f"plan-{method}", backend="fake", model="fake", dimensions=8, index_method=method)
    collection = make_collection(tenant, space=space.slug)
    vector = fill(collection, ROWS)
    if method == "ivfflat":
        vector_index.index_concurrently(space)
        assert space.index_parameters["lists"] >= 1
        collection.space = EmbeddingSpace.objects.get(id=space.id)
    plan = explain(collection, SearchQuery("anything", mode="dense"), vector)
    used = [node["Index Name"] for node in plan if node["Node Type"] == "Index Scan" and "Order By" in node]
    assert len(used) == settings.PARTITIONS and len(set(used)) == settings.PARTITIONS
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam"
            " WHERE c.relname = ANY(%s) AND a.amname = %s AND i.indisvalid",
            [used, method],
        )
        assert cursor.fetchone()[0] == settings.PARTITIONS


@pytest.mark.parametrize("cheap", [False, True])
def test_partitions_are_merged_by_distance_and_each_gives_what_is_asked_for_only(tenant: Tenant, cheap: bool) -> None:
    """Merge Append takes from each index one row more than it passes on. It does so in one process, whatever a parallel
    plan costs: neither the index scans nor LIMIT have a parallel form."""
    space = spaces.create(slug=f"plan-top-{uuid4().hex[:6]}", backend="fake", model="fake", dimensions=8)
    collection = make_collection(tenant, space=space.slug, slug=space.slug)
    vector = fill(collection, ROWS)
    query = SearchQuery("anything", k=10, mode="dense")
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        scopes = scopes_of([collection.slug])
        legs, _, parameters = legs_of(scopes, query, np.asarray(vector, np.float32), choose(scopes, query))
        tenancy.set_local(index_settings(scopes, query))
        if cheap:
            free = ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size")
            tenancy.set_local(dict.fromkeys((*free, "min_parallel_index_scan_size"), "0"))
        leg = "WITH " + legs["dense_index"].rstrip(",") + " SELECT * FROM dense"
        cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + leg, parameters)
        found = cursor.fetchone()[0]
    plan = list(nodes((json.loads(found) if isinstance(found, str) else found)[0]["Plan"]))
    (limit,) = (node for node in plan if node["Node Type"] == "Limit")
    (merge,) = (node for node in limit["Plans"] if node["Node Type"] == "Merge Append")
    scans = [node for node in merge["Plans"] if node.get("Parent Relationship") == "Member"]
    assert len(scans) == settings.PARTITIONS
    assert all(node["Node Type"] == "Index Scan" and "Order By" in node for node in scans)
    assert 10 <= sum(node["Actual Rows"] for node in scans) <= 10 + len(scans)
    assert not {node["Node Type"] for node in plan} & {"Gather", "Gather Merge", "Sort", "Append"}


def test_few_rows_are_scanned_exactly_and_completely(tenant: Tenant) -> None:
    space = spaces.create(slug="plan-exact", backend="fake", model="fake", dimensions=8)
    small, large = (
        make_collection(tenant, space=space.slug, slug="small"),
        make_collection(tenant, space=space.slug, slug="large"),
    )
    fill(large, ROWS)
    vector = fill(small, 300)
    plan = explain(small, SearchQuery("anything", mode="dense"), vector)
    assert not [node for node in plan if node["Node Type"] == "Index Scan" and "Order By" in node]
    dense = [node for node in plan if node.get("Subplan Name") == "CTE dense"]
    assert dense and dense[0]["Plan Rows"] >= 10


def test_lexical_search_uses_the_gin_index_under_the_wall(collection: Collection, ingest: Callable) -> None:
    accepted = ingest(collection, "A singular okapi appeared.")
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        # So many more that reading the tenant's rows one by one would be the worse plan.
        cursor.execute(
            "INSERT INTO documents_chunk (document_id, chunk_id, tenant_id, collection_id, text, sha256, tokens,"
            " heading_path, live_from_version, live_from, tsv)"
            " SELECT %s, gen_random_uuid(), %s, %s, text, sha256(text::bytea), 9, '{}', 1, now(), to_tsvector(text)"
            " FROM (SELECT 'Filler ' || n || ' about gardens and weather.' AS text FROM generate_series(1, 20000) n) f",
            [accepted.document.id, collection.tenant_id, collection.id],
        )
    with connections["owner"].cursor() as cursor:
        cursor.execute("ANALYZE documents_chunk")
    with tenancy.scope(collection.tenant_id):
        stored = Collection.objects.select_related("space").get(id=collection.id)
    plan = explain(stored, SearchQuery("okapi", mode="lexical"), None)
    scans = [node for node in plan if node["Node Type"] == "Bitmap Index Scan" and "tsv" in node.get("Index Cond", "")]
    used = {node.get("Index Name") for node in plan}
    assert scans, f"the GIN index must serve @@ under row-level security, not {used}"


def test_no_index_of_chunks_begins_with_the_tenant(database: None) -> None:
    """The wall names the tenant in each query. Where the statistics know several, PostgreSQL would take such an index
    to narrow down what the words find, and read all entries of the tenant: 29 in place of 6 ms among 600,000."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT x.indexrelid::regclass::text, a.attname FROM pg_index x"
            " JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]"
            " WHERE x.indrelid = 'documents_chunk'::regclass"
        )
        first = dict(cursor.fetchall())
    assert "tsv" in first.values() and "tenant_id" not in first.values(), first


@pytest.mark.parametrize(
    "table",
    [
        "documents_document",
        "documents_documentversion",
        "documents_blob",
        "documents_chunk",
        "documents_stagedchunk",
        "embedding_default",
    ],
)
def test_big_tables_have_the_promised_partitions(database: None, table: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = %s::regclass", [table])
        assert cursor.fetchone()[0] == settings.PARTITIONS


def test_a_document_is_read_from_one_partition(collection: Collection, ingest: Callable) -> None:
    accepted = ingest(collection, "One partition.")
    with tenancy.scope(collection.tenant_id), connection.cursor() as cursor:
        cursor.execute(
            "EXPLAIN (FORMAT JSON) SELECT * FROM documents_chunk WHERE document_id = %s",
            [accepted.document.id],
        )
        found = cursor.fetchone()[0]
    plan = json.loads(found) if isinstance(found, str) else found
    tables = {node["Relation Name"] for node in nodes(plan[0]["Plan"]) if "Relation Name" in node}
    assert len(tables) == 1


def test_dense_search_through_the_index_finds_what_the_exact_scan_finds(
    collection: Collection, ingest: Callable
) -> None:
    for number in range(30):
        ingest(
            collection,
            f"Note {number} speaks of subject{number} and of subject{number * 7}.",
            source_uri=f"n{number}",
        )
    query = SearchQuery("subject21", mode="dense", k=5)
    exact = [hit.chunk_id for hit in search(tenant_id=collection.tenant_id, query=query).hits]
    with override_settings(EXACT_SCAN_ROWS=0):
        indexed = [hit.chunk_id for hit in search(tenant_id=collection.tenant_id, query=query).hits]
    assert indexed == exact and len(exact) == 5


def test_two_migrate_at_once_do_it_once(database: None) -> None:
    server = embedded.superuser_url(DATA)
    bootstrap(server, database="twice")
    url = embedded.owner_url(DATA).replace("/ragsite?", "/twice?")
    try:
        both = [
            subprocess.Popen(
                [sys.executable, "manage.py", "migrate", "-v", "0"],
                cwd=ROOT,
                env=os.environ | {"DATABASE_URL": url},
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        assert [(each.communicate()[1], each.returncode) for each in both] == [("", 0), ("", 0)]
        with psycopg.connect(url) as connection:
            rows = connection.execute("SELECT app, name, count(*) FROM django_migrations GROUP BY 1, 2").fetchall()
        assert len(rows) > 20 and {row[2] for row in rows} == {1}
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("DROP DATABASE twice WITH (FORCE)")


def test_a_tenant_that_the_statistics_do_not_know_is_not_read_from_end_to_end(
    tenant: Tenant, other_tenant: Tenant
) -> None:
    """Postgres takes it to have no rows; the index by tenant alone then looks as good as the one by name."""
    known, unknown = make_collection(tenant), make_collection(other_tenant)
    sent = [Submission(io.BytesIO(b"Words."), "text/plain", "", source_uri=f"d{number}") for number in range(1_000)]
    bulk.put_here(collection=known, submissions=sent)
    merge.analyze()
    statement = db.QUERIES["known_sources"].replace("%(collection)s", "$1").replace("%(source_uris)b", "$2")
    with tenancy.scope(other_tenant.id, replan=False), connection.cursor() as cursor:
        cursor.execute(f"PREPARE by_name(uuid, text[]) AS {statement}")
        cursor.execute("EXPLAIN (FORMAT JSON) EXECUTE by_name(%s, %s)", [unknown.id, ["d1", "d2"]])
        used = {node.get("Index Name") for node in nodes(cursor.fetchone()[0][0]["Plan"])} - {None}
        cursor.execute("DEALLOCATE by_name")
    assert used and all(name.endswith("collection_id_source_uri_idx") for name in used)
